"""Sources packed once: the folder of packs that stand for sources, and the key that says whether one still does."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from foreframe import signals
from foreframe.data.formats.folders import DEEPEST
from foreframe.data.layouts.options import Options
from foreframe.data.pack.journal import BusyError
from foreframe.data.pack.manifest import read_bytes
from foreframe.data.pack.pack import Pack, is_pack
from foreframe.errors import DataError


def cache_folder() -> Path:
    """Where packed sources are kept: $FOREFRAME_CACHE, or the platform's place for caches."""
    if own := os.environ.get("FOREFRAME_CACHE"):
        return Path(own).expanduser() / "packs"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "foreframe" / "packs"


def made_once(target: Path, make: Callable[[], None]) -> Pack:
    """The pack at `target`, made if it is not there. Two at once do not meet: whoever is second takes the first's."""
    try:
        while not target.exists():
            try:
                make()
            except BusyError:
                time.sleep(0.2)
            except DataError:
                if not is_pack(target):
                    raise
        return Pack.open(target)
    except DataError as error:
        if target.exists():
            raise DataError(f"{error}\nThis is only a cache: delete {target} and start again", error.faults) from error
        raise


def source_key(folder: Path, options: Options, others: Iterable[object]) -> str:
    """SHA-256 over the folder's place, the names, sizes and times of all its files, the options, and what else counts.
    Raises DataError: the list of splits cannot be read."""
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), *others, options.used()]).encode())
    if options.lists is not None:
        digest.update(read_bytes(options.lists))
    todo = [(os.fspath(folder), 0)]
    while todo:
        signals.poll()
        base, depth = todo.pop()
        files, folders = _inside(base)
        for name in files:
            try:
                found = Path(base, name).stat()
                facts = f"{found.st_size} {found.st_mtime_ns}"
            except OSError as error:
                facts = f"errno {error.errno}"
            digest.update(os.fsencode(f"{base}/{name}\0{facts}\n"))
        if depth < DEEPEST:  # no layout looks farther
            todo += [(os.path.join(base, name), depth + 1) for name in reversed(folders)]  # noqa: PTH118 (bytes as before)
    return digest.hexdigest()


def _inside(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files of a folder, links to folders among them, and of its folders, each sorted."""
    names: dict[bool, list[str]] = {False: [], True: []}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            names[entry.is_dir(follow_symlinks=False)].append(entry.name)
    return sorted(names[False]), sorted(names[True])
