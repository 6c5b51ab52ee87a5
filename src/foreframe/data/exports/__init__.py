"""Forms in which a pack can be handed on, one file each, found by walking this folder.

An export is one file here with

    NAME: str                                   as given to --to
    DESCRIBE: str                               one line for help texts
    write(pack, dst, tick) -> list[str]         fills the empty folder `dst`, calls `tick(n)` after every n frames, and
                                                returns what the form could not hold as it was, one line each

`write` raises UsageError, before it writes anything, where the form cannot hold this pack at all. That a folder is
whole or absent, and which one may be replaced, is seen to by `foreframe.data.exports.run`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from foreframe.data.pack.pack import Pack

Tick = Callable[[int], None]


class Export(Protocol):
    """A module in this folder."""

    NAME: str
    DESCRIBE: str
    write: Callable[[Pack, Path, Tick], list[str]]


@cache
def exports() -> dict[str, Export]:
    """Every form by its name, in the order of their file names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")
    names.remove("run")
    modules = [cast(Export, importlib.import_module(f"{__name__}.{name}")) for name in names]
    return {module.NAME: module for module in modules}
