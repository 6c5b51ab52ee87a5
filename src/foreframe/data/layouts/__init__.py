"""Source formats, one file each, found by walking this folder; `foreframe.data.clips` says what a layout holds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from foreframe.data.clips import Options, Survey


class Layout(Protocol):
    """A module in this folder."""

    NAME: str
    DESCRIBE: str
    LOOKS_FOR: str
    TAKES: tuple[str, ...]
    recognises: Callable[[Path], bool]
    survey: Callable[[Path, Options], Survey]
    example: Callable[[Path], None]


GENERAL = ("frame_folders", "videos")
"""Kinds that say little about their folders: any other layout that fits is meant rather than these."""


@cache
def layouts() -> dict[str, Layout]:
    """Every layout by its name, in the order of their file names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    modules = [cast(Layout, importlib.import_module(f"{__name__}.{name}")) for name in names]
    return {module.NAME: module for module in modules}
