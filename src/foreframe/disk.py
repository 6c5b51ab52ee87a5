"""Files that are whole or not there, and what to say when the disk refuses.

A file is written under a temporary name beside its place, brought to the disk, and put in place by one rename.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from foreframe import signals
from foreframe.errors import DiskError

TEMPORARY = ".tmp-"
"""How names of what is not finished begin."""


def put(path: Path, content: bytes | str) -> None:
    """Write a file, with the folders above it; whoever reads `path` finds the old content or the new one, whole.

    A pipe or a device is written to as it is.

    Raises:
        DiskError: the disk refused; what was at `path` is untouched, or replaced whole if it refused at the very end.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name[:100]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)
            return
        try:
            write(temporary, data)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync(path.parent)
    except OSError as error:
        raise refused(path, error, len(data)) from error


def put_all(files: Mapping[Path, bytes], gone: Iterable[Path] = ()) -> None:
    """Write files that belong together, and remove what is `gone` of an earlier set: all of it or nothing.

    Each lies whole on the disk, beside its place, before the first takes its place; a signal is heard before or after.

    Raises:
        DiskError: the disk refused. Every file is as it was, unless it took some of the new names and then no more.
    """
    begin = f"{TEMPORARY}{os.getpid()}-"
    drafts = {path: path.with_name(f"{begin}{i}-{path.name[:100]}") for i, path in enumerate(files)}
    path, needed = Path(), sum(map(len, files.values()))
    try:
        try:
            for path, data in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                write(drafts[path], data)
            with signals.defer_signals():
                for path, draft in drafts.items():
                    draft.replace(path)
                for path in gone:
                    path.unlink(missing_ok=True)
        except BaseException:
            for draft in drafts.values():
                with suppress(OSError):
                    draft.unlink()
            raise
        for path in {each.parent: each for each in files}.values():
            sync(path.parent)
    except OSError as error:
        raise refused(path, error, needed) from error
    signals.poll()


def write(path: Path, data: bytes) -> str:
    """Write a new file and bring it to the disk; returns its SHA-256. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    return hashlib.sha256(data).hexdigest()


def sync(folder: Path) -> None:
    """Bring the names in a folder to the disk; Windows does so by itself. Raises OSError."""
    if os.name == "nt":  # pragma: no cover (folders cannot be opened there)
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what a killed writer left unfinished in a folder."""
    for left in folder.glob(f"{TEMPORARY}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):  # it does no harm but for its place
                left.unlink()


def free(path: Path) -> int | None:
    """Bytes free where `path` lies or would lie; None where that cannot be told."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def refused(path: Path, error: OSError, needed: int | None = None) -> DiskError:
    """What to raise when `path` could not be written: path, cause, bytes needed and free."""
    facts = [] if needed is None else [f"{needed:,} bytes needed"]
    left = free(path.parent)
    facts += [] if left is None else [f"{left:,} free"]
    told = f" ({', '.join(facts)})" if facts else ""
    return DiskError(f"{path}: cannot be written: {error.strerror or error}{told}")


class Lock:
    """A file that one process holds at a time; the system lets go of it when that process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def take(self) -> str:
        """Hold the file; returns "" when it is held, or else which process holds it.

        Where the file system knows no locks nobody is stopped.

        Raises:
            DiskError: the file cannot be made.
        """
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise refused(self.path, error) from error
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            return holder or "another process"
        except (ImportError, OSError):  # Windows, and file systems without locks
            pass
        self._handle = handle
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return ""

    def release(self) -> None:
        """Let go, and leave the file: to remove it would take it from under whoever waits for it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
