"""Layouts are found by walking this folder, and the one of a source by its name or by its files."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from foreframe.data import layouts as package
from foreframe.data.layouts.contract import SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack.pack import is_pack
from foreframe.errors import DataError, UsageError, nearest, printable


class Layout(Protocol):
    """A module in this folder."""

    NAME: str
    DESCRIBE: str
    LOOKS_FOR: str
    TAKES: tuple[str, ...]
    recognises: Callable[[Path], bool]
    survey: Callable[[Path, Options], SourceIndex]
    example: Callable[[Path], None]


NOT_LAYOUTS = ("contract", "options", "registry")
GENERAL = ("frame_folders", "videos")
"""Kinds that say little about their folders: any other layout that fits is meant rather than these."""


@cache
def layouts() -> dict[str, Layout]:
    """Every layout by its name, in the order of their file names."""
    return {name: _load(name) for name in _modules()}


def _modules() -> list[str]:
    """Names of the files of layouts, which are their names."""
    here = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in here if name not in NOT_LAYOUTS and not name.startswith("_"))


def _load(name: str) -> Layout:
    return cast(Layout, importlib.import_module(f"{package.__name__}.{name}"))


def find_layout(folder: Path, name: str | None = None) -> Layout:
    """The layout of a source folder, by its name or by looking.

    Raises:
        UsageError: there is no layout of this name.
        DataError: the folder is missing, or fits no layout or more than one; the message says what was looked
            for, what is there instead, and which folder nearby would fit.
    """
    if name is not None and name not in _modules():
        raise UsageError(f"no layout '{name}'; there are {', '.join(_modules())}{nearest(name, _modules())}")
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of clips, found {'a file' if folder.exists() else 'nothing'}")
    if name is not None:
        return _load(name)
    known = layouts()
    fitting = [layout for layout in known.values() if layout.recognises(folder)]
    fitting = [layout for layout in fitting if layout.NAME not in GENERAL] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(layout.NAME for layout in fitting)
        raise DataError(f"{folder}: fits more than one layout ({names}); say which with --layout")
    if is_pack(folder):
        raise DataError(f"{folder}: is a pack already; give it to `train --data` as it is")
    raise DataError(_fits_none(folder.resolve(), list(known.values())))


def _fits_none(folder: Path, known: list[Layout]) -> str:
    """What was looked for in a folder, what it holds instead, and which folder nearby fits."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return f"{folder}: cannot be read: {error.strerror}"
    inside = [printable(entry.name) + ("/" if entry.is_dir() else "") for entry in entries]
    holds = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") if inside else "nothing"
    lines = [f"{folder}: not a folder of clips in a known layout. It holds {holds}. Looked for:"]
    lines += [f"  {layout.NAME}: {layout.LOOKS_FOR}" for layout in known]
    for near in (*entries[:50], folder.parent, folder.parent.parent):
        if near.is_dir() and (is_pack(near) or any(layout.recognises(near) for layout in known)):
            return "\n".join([*lines, f"Did you mean {near} ?"])
    return "\n".join(lines)
