"""Folders that are whole or not there: built under a temporary name beside their place, and put there by renames.

Temporary names hold the machine and the process, so that the next one to write there can tell what a killed one left.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from pathlib import Path

from foreframe.errors import DataError

OLD = "replaced"
"""Name of a folder on its way out, inside a temporary one."""


def temporary(dst: Path) -> Path:
    """A new empty folder beside `dst`. Raises OSError."""
    folder = dst.parent / f"{_stem(dst)}{os.getpid()}.{secrets.token_hex(4)}"
    folder.mkdir()
    return folder


def sweep(dst: Path) -> None:
    """Remove what killed writers of `dst` left behind: their process, on this machine, is gone. Raises OSError."""
    if os.name != "posix" or not dst.parent.is_dir():
        return
    for entry in dst.parent.iterdir():
        pid = entry.name.removeprefix(_stem(dst)).split(".")[0]
        if not entry.name.startswith(_stem(dst)) or not pid.isdecimal():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            if (entry / OLD).is_dir() and not dst.exists():
                (entry / OLD).rename(dst)  # killed between two renames: the folder that was to be replaced
            shutil.rmtree(entry, ignore_errors=True)
        except (OSError, OverflowError):  # somebody else's process, alive; or no number of a process
            continue


def refuse(dst: Path, overwrite: bool, what: str, files: tuple[str, ...]) -> None:
    """DataError where a folder must not be put: something is there, or it is not `what`, which holds these files."""
    if dst.name in ("", ".."):
        raise DataError(f"{dst}: expected a folder by its own name, as the new one is renamed into its place")
    if not os.path.lexists(dst) or _empty(dst):
        return
    if not overwrite:
        raise DataError(f"{dst}: already exists; choose another folder, or overwrite it with --overwrite")
    if not all((dst / name).is_file() for name in files):
        raise DataError(f"{dst}: already exists and is not {what}, so it is not overwritten; choose another folder")


def put(folder: Path, dst: Path) -> None:
    """Rename a finished folder to `dst`; what is there is set aside first, and put back if that fails.

    Raises:
        OSError: `dst` is what it was.
    """
    if not os.path.lexists(dst) or _empty(dst):
        folder.rename(dst)
        return
    aside = temporary(dst)
    try:
        dst.rename(aside / OLD)
        try:
            folder.rename(dst)
        except OSError as error:
            try:
                (aside / OLD).rename(dst)
            except OSError:
                raise OSError(error.errno, f"{error.strerror}; what was there lies in {aside / OLD}") from error
            raise
    finally:
        if os.path.lexists(dst):
            shutil.rmtree(aside, ignore_errors=True)


def _stem(dst: Path) -> str:
    return f".{dst.name[:100]}.{socket.gethostname()}."


def _empty(dst: Path) -> bool:
    return dst.is_dir() and not dst.is_symlink() and not any(dst.iterdir())
