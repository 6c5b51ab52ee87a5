"""Layouts are found by walking this folder, and the one of a source by its name or by its files."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from foreframe.data import layouts as package
from foreframe.data.layouts.contract import Inputs, SourceIndex
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
    return {name: load(name) for name in _modules()}


def _modules() -> list[str]:
    """Names of the files of layouts, which are their names."""
    here = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in here if name not in NOT_LAYOUTS and not name.startswith("_"))


def load(name: str) -> Layout:
    """The layout of this name, or that in the file (.py) of this path. Raises UsageError: there is none."""
    if name.endswith(".py"):
        path = Path(name).absolute()
        if not path.is_file():
            raise UsageError(f"{name}: expected a file that holds a layout, found none")
        return cast(Layout, importlib.import_module(_UserFiles.PREFIX + str(path).encode().hex()))
    if name not in _modules():
        raise UsageError(f"no layout '{name}'; there are {', '.join(_modules())}{nearest(name, _modules())}")
    return cast(Layout, importlib.import_module(f"{package.__name__}.{name}"))


class _UserFiles:
    """Finds the modules of users' own layouts: their names hold the paths of their files, so that a clip of such a
    layout can be pickled and read by another process."""

    PREFIX = "foreframe_layout_"

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith(cls.PREFIX):
            return None
        return spec_from_file_location(name, bytes.fromhex(name.removeprefix(cls.PREFIX)).decode())


sys.meta_path.append(_UserFiles)


def version_of(layout: Layout) -> list[str]:
    """What a key of a pack holds of its layout: the name, and of a user's own the content of its file."""
    module = cast(ModuleType, layout)
    if not module.__name__.startswith(_UserFiles.PREFIX):
        return [layout.NAME]
    return [layout.NAME, hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()]


def inputs_of(layout: Layout | None, folder: Path) -> dict[str, Inputs]:
    """Where a layout has sequences without truth in a folder, by split; none for no layout."""
    declared: Callable[[Path], dict[str, Inputs]] | None = getattr(layout, "inputs", None)
    return {} if declared is None else declared(folder)


def find_layout(folder: Path, name: str | None = None) -> Layout:
    """The layout of a source folder, by its name or by looking.

    Raises UsageError: there is no such layout. DataError: the folder is missing, or fits no layout or more than one;
    the message says what was looked for, what is there instead, and which folder nearby would fit.
    """
    chosen = None if name is None else load(name)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of clips, found {'a file' if folder.exists() else 'nothing'}")
    if chosen is not None:
        return chosen
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
