"""Files and folders that are whole or not there, and the error when the disk refuses.

Each is written under a temporary name beside its place, brought to the disk, and renamed. Drafts of packs and exports
have the machine and the process in their name, so that the next writer there can remove those of one that was killed;
elsewhere a lock sees to it that there is one writer.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from foreframe import signals
from foreframe.errors import DataError, DiskError

TEMPORARY = ".tmp-"
"""How names of what is not finished begin."""
ASIDE = f"{TEMPORARY}old-"
"""How the name of a folder that is being replaced begins."""
REPLACED = "replaced"
"""Name of a pack or export that is being replaced, inside a draft."""


def put(path: Path, content: bytes | str) -> None:
    """Write a file, with the folders above it; whoever reads `path` finds the old content or the new one, whole.

    A pipe or a device is written to as it is.

    Raises:
        DiskError: the disk refused; what was at `path` is untouched, or replaced whole if it refused at the very end.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)
            return
    except OSError as error:
        raise refused(path, error, len(data)) from error
    _put({path: data})


def put_all(files: Mapping[Path, bytes], gone: Iterable[Path] = ()) -> None:
    """Write files that belong together, and remove what is `gone` of an earlier set: all of it or nothing.

    Each lies whole on the disk, beside its place, before the first takes its place; a signal waits meanwhile.

    Raises:
        DiskError: the disk refused. Every file is as it was, unless it took some of the new names and then no more.
    """
    _put(files, gone)
    signals.poll()


def _put(files: Mapping[Path, bytes], gone: Iterable[Path] = ()) -> None:
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
    """Bring the names in a folder to the disk; Windows does so automatically. Raises OSError."""
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
            with suppress(OSError):  # it only takes space
                left.unlink()


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """An empty folder to fill, which is put in the place of `final` when the block ends; for a single writer. Raises
    OSError: the disk refused; what was at `final` is there still, unless `recover` puts it back."""
    draft, aside = (final.with_name(f"{begin}{final.name}") for begin in (TEMPORARY, ASIDE))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        recover(final.parent)
        draft.mkdir()
        yield draft
        sync(draft)
        place(draft, final, aside)
        sync(final.parent)
    except Exception:
        shutil.rmtree(draft, ignore_errors=True)
        if final.parent.is_dir():
            recover(final.parent)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def recover(folder: Path) -> None:
    """After a writer of `new_folder` that was killed, put back what was to be replaced, and remove what is unfinished;
    only for the folder's single writer."""
    for aside in folder.glob(f"{ASIDE}*"):
        final = folder / aside.name.removeprefix(ASIDE)
        if not final.exists():
            aside.rename(final)
    sweep(folder)


def place(draft: Path, final: Path, aside: Path) -> None:
    """Rename a finished folder to `final`; what is there is renamed to `aside` first, and back if that fails. Raises
    OSError: `final` is what it was; or, as the message says, lies at `aside`."""
    if not os.path.lexists(final) or _is_empty(final):
        draft.rename(final)
        return
    final.rename(aside)
    try:
        draft.rename(final)
    except OSError as error:
        try:
            aside.rename(final)
        except OSError:
            raise OSError(error.errno, f"{error.strerror}; what was there lies in {aside}") from error
        raise


def new_draft(dst: Path) -> Path:
    """A new empty folder beside `dst`, which may have several writers. Raises OSError."""
    folder = dst.parent / f"{_stem(dst)}{os.getpid()}.{secrets.token_hex(4)}"
    folder.mkdir()
    return folder


def replace_folder(draft: Path, dst: Path) -> None:
    """Put a finished folder in the place of `dst`, which may have several writers. Raises OSError, as `place`."""
    if not os.path.lexists(dst) or _is_empty(dst):
        draft.rename(dst)
        return
    aside = new_draft(dst)
    try:
        place(draft, dst, aside / REPLACED)
    finally:
        if os.path.lexists(dst):
            shutil.rmtree(aside, ignore_errors=True)


def sweep_drafts(dst: Path) -> None:
    """Remove the drafts of `dst` whose process, on this machine, was killed. Raises OSError."""
    if os.name != "posix" or not dst.parent.is_dir():
        return
    for entry in dst.parent.iterdir():
        pid = entry.name.removeprefix(_stem(dst)).split(".")[0]
        if not entry.name.startswith(_stem(dst)) or not pid.isdecimal():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            if (entry / REPLACED).is_dir() and not dst.exists():
                (entry / REPLACED).rename(dst)  # killed between two renames
            shutil.rmtree(entry, ignore_errors=True)
        except (OSError, OverflowError):  # another user's process, alive; or not the number of a process
            continue


def check_replaceable(dst: Path, overwrite: bool, what: str, files: tuple[str, ...]) -> None:
    """DataError where a new folder must not be put: something is there, or it is not `what`, which has these files."""
    if dst.name in ("", ".."):
        raise DataError(f"{dst}: expected a folder by its own name, as the new one is renamed into its place")
    if not os.path.lexists(dst) or _is_empty(dst):
        return
    if not overwrite:
        raise DataError(f"{dst}: already exists; choose another folder, or overwrite it with --overwrite")
    if not all((dst / name).is_file() for name in files):
        raise DataError(f"{dst}: already exists and is not {what}, so it is not overwritten; choose another folder")


def _stem(dst: Path) -> str:
    return f".{dst.name[:100]}.{socket.gethostname()}."


def _is_empty(dst: Path) -> bool:
    return dst.is_dir() and not dst.is_symlink() and not any(dst.iterdir())


def free(path: Path) -> int | None:
    """Bytes free where `path` lies or would lie; None where the system does not say."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def refused(path: Path, error: OSError, needed: int | None = None) -> DiskError:
    """The error that `path` could not be written: path, cause, bytes needed and free."""
    facts = [] if needed is None else [f"{needed:,} bytes needed"]
    left = free(path.parent)
    facts += [] if left is None else [f"{left:,} free"]
    details = f" ({', '.join(facts)})" if facts else ""
    return DiskError(f"{path}: cannot be written: {error.strerror or error}{details}")


class Lock:
    """A file that one process holds at a time; the system releases it when that process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def take(self) -> str:
        """Hold the file; returns "" when it is held, or else which process holds it. Where the file system knows no
        locks nobody is stopped. Raises DiskError: the file cannot be made."""
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
        """Release it, and leave the file: to remove it would take it from under whoever waits for it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
