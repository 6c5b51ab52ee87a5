"""Writes a pack: streamed to a temporary sibling folder and renamed into place, so there is a whole pack or none."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec
from foreframe.data.journal import Journal, StoppedError
from foreframe.data.manifest import (
    COND,
    CONVENTION,
    EPISODES,
    FRAMES,
    MANIFEST,
    ColumnStats,
    Episode,
    FileRecord,
    LeftOut,
    Manifest,
    count_splits,
    episodes_to_bytes,
)
from foreframe.data.npy import HEADER_BYTES, header
from foreframe.data.stats import column_stats
from foreframe.errors import DataError

OLD = "replaced"
"""Name of a pack on its way out, inside a temporary folder."""


def picture_shape(spec: ClipSpec) -> tuple[int, int, int]:
    """(H, W, C) of one frame on disk."""
    return spec.height, spec.width, spec.channels


def cond_layout(spec: ClipSpec, total: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape of the conditions of `total` frames on disk."""
    if spec.cond == "vector":
        return np.dtype("<f4"), (total, spec.cond_size)
    return np.dtype(np.uint8), (total, spec.height, spec.width, spec.cond_size)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PackWriter:
    """Streams clips into a new pack at `dst`; memory stays flat. Leaving the `with` block puts the pack in place.

    Any exception inside the block, Ctrl-C included, removes everything that was written; with `resume`, what was
    stopped through no fault of the clips is kept.

    Args:
        dst: The folder to make; it must not exist unless `overwrite`, and then only a pack is ever replaced.
        spec: C, H, W and the condition of every clip.
        cond_names: D names of a vector condition; one or none for pictures.
        fps: Frames a second, where known.
        source: What the clips came from: layout, folder name, options. JSON; goes into the manifest as it is.
        shift: Row t of the source led into frame t + shift; conditions are given to the writer as cond[t], shifted
            already.
        resume: What the source is, in one word that changes when it does. A writer that was killed is then taken up by
            the next one with the same `dst` and `resume`; see `left_behind`. Empty: a new start, always.
    """

    def __init__(
        self,
        dst: Path | str,
        spec: ClipSpec,
        cond_names: Iterable[str] = (),
        *,
        fps: float | None = None,
        source: Mapping[str, Any] | None = None,
        shift: int = 0,
        overwrite: bool = False,
        resume: str = "",
    ) -> None:
        self.dst = Path(dst)
        self.spec = spec
        self.cond_names = tuple(cond_names)
        self.fps = None if fps is None else float(fps)
        self.source = dict(source or {})
        self.shift = shift
        self.resume = resume
        self.overwrite = overwrite
        self.left_out: list[LeftOut] = []
        self.episodes: list[Episode] = []
        if spec.cond == "vector" and len(self.cond_names) != spec.cond_size:
            raise DataError(f"cond_names: expected {spec.cond_size} names, found {len(self.cond_names)}")
        self._files: dict[str, BinaryIO] = {}
        self._names: set[str] = set()
        self._committed = 0
        self._pending = 0
        self._journal: Journal | None = None
        self._placed = False
        self._safe = 0  # frames that a killed writer left whole; they are not written again

    def __enter__(self) -> PackWriter:
        try:
            self.dst.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.dst)
            refuse_existing(self.dst, self.overwrite)
            names = [FRAMES, *([COND] if self.spec.cond != "none" else [])]
            if self.resume:
                folder = self.dst.parent / f".{self.dst.name[:100]}.partial"
                self._journal = Journal(folder, f"{self.resume} {self.spec}")
                self._folder = self._journal.arrays
                sizes = {name: (HEADER_BYTES, self._frame_bytes(name)) for name in names}
                self._safe = self._journal.open(sizes)
            else:
                self._folder = Path(tempfile.mkdtemp(prefix=_prefix(self.dst), dir=self.dst.parent))
            for name in names:
                self._files[name] = (self._folder / name).open("r+b" if self._safe else "w+b")
                self._files[name].write(bytes(HEADER_BYTES))
        except OSError as error:
            if self._files or self._journal:
                self.__exit__(type(error), error, None)
            raise DataError(f"{self.dst}: cannot be made: {error.strerror}") from error
        return self

    def add(self, name: str, split: str, frames: NDArray[np.uint8], cond: NDArray[Any] | None = None) -> None:
        """Add one whole clip: uint8 frames (T, H, W, C) and its conditions (T, D) or (T, H, W, 3), or None."""
        self.append(frames, cond)
        self.commit(name, split)

    def append(self, frames: NDArray[np.uint8], cond: NDArray[Any] | None = None) -> None:
        """Add frames to the clip being written; it counts only once `commit` gives it a name."""
        length = len(frames)
        if frames.dtype != np.uint8 or frames.shape != (length, *picture_shape(self.spec)):
            raise DataError(f"frames: expected uint8 (T, {self._sides()}), found {frames.dtype} {frames.shape}")
        if (cond is None) != (self.spec.cond == "none"):
            raise DataError(f"cond: expected {self.spec.cond}, found {'none' if cond is None else cond.shape}")
        try:
            if cond is not None:
                dtype, shape = cond_layout(self.spec, length)
                if cond.shape != shape or (dtype == np.uint8) != (cond.dtype == np.uint8):
                    raise DataError(f"cond: expected {dtype} {shape}, found {cond.dtype} {cond.shape}")
                cond = np.ascontiguousarray(cond, dtype)
                if dtype != np.uint8 and not np.isfinite(cond).all():
                    row = int(np.flatnonzero(~np.isfinite(cond).all(axis=1))[0])
                    raise DataError(f"cond: expected finite numbers, found {cond[row].tolist()} at row {row}")
                self._write(COND, cond)
            self._write(FRAMES, np.ascontiguousarray(frames))
        except OSError as error:
            raise self._cannot_write(error) from error
        self._pending += length

    def commit(self, name: str, split: str) -> None:
        """Close the clip being written, as an episode."""
        if self._pending == 0:
            raise DataError(f"{name}: expected at least one frame, found none")
        if name in self._names:
            raise DataError(f"{name}: two clips of this name")
        self._names.add(name)
        self.episodes.append(Episode(name, split, self._committed, self._pending))
        self._committed += self._pending
        self._pending = 0

    def rollback(self) -> None:
        """Forget the frames added since the last `commit`."""
        try:
            for name, file in self._files.items():
                file.seek(HEADER_BYTES + max(self._safe, self._committed) * self._frame_bytes(name))
                file.truncate()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._pending = 0

    def note(self, clip: str) -> None:
        """Remember for a later writer that the last episode holds all of this clip of the source, faultless."""
        if self._journal is not None:
            last = self.episodes[-1]
            try:
                self._journal.note(clip, last.start, last.length, self._files.values())
            except OSError as error:
                raise self._cannot_write(error) from error

    @property
    def left_behind(self) -> Collection[str]:
        """The clips of the source that a killed writer has left here whole."""
        return self._journal.found.keys() if self._journal is not None else ()

    def check_left_behind(self, clip: str, length: int) -> None:
        """DataError unless this clip, of this length, is what comes next in what was left behind."""
        found = self._journal.found[clip] if self._journal is not None else None
        if found != (self._committed, length):
            raise DataError(f"{self._folder}: does not fit its source any more, so it was deleted; start again")

    def read_back(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
        """Frames start to stop-1 of a salvaged clip, and their conditions."""
        parts = {}
        for name, file in self._files.items():
            dtype, shape = self._layout(name, stop - start)
            file.seek(HEADER_BYTES + (self._committed + start) * self._frame_bytes(name))
            parts[name] = np.frombuffer(file.read(dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape)
        return parts[FRAMES], parts.get(COND)

    def leave_out(self, clip: str, reasons: Iterable[str]) -> None:
        """Record in the manifest that a clip of the source is not in the pack, and why."""
        self.left_out.append(LeftOut(clip, tuple(reasons)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as problem:
            kind = OSError
            raise self._cannot_write(problem) from problem
        except BaseException as problem:
            kind = type(problem)
            raise
        finally:
            # What was asked to stop may be asked to go on; what failed would only fail again.
            stopped = kind is not None and (issubclass(kind, StoppedError) or not issubclass(kind, Exception))
            keep = self._journal is not None and stopped
            if self._journal is not None and keep:
                with suppress(OSError):
                    self._journal.sync(self._files.values())
            for file in self._files.values():
                with suppress(OSError):  # closing writes what is left; a full disk was reported already
                    file.close()
            if not (keep or self._placed):
                shutil.rmtree(self._folder, ignore_errors=True)
            if self._journal is not None:
                self._journal.close(remove=not keep)

    def _finish(self) -> None:
        if self._pending:
            self.rollback()
        if not self.episodes:
            raise DataError(f"{self.dst}: expected at least one clip to pack, found none")
        if self._journal is not None:
            self._journal.sync(self._files.values())
        for name, file in self._files.items():
            file.seek(0)
            file.write(header(*self._layout(name, self._committed)))
            file.truncate(HEADER_BYTES + self._committed * self._frame_bytes(name))
            file.flush()
            os.fsync(file.fileno())
            file.close()
        episodes = tuple(self.episodes)
        _write_synced(self._folder / EPISODES, episodes_to_bytes(episodes))
        records = {
            name: FileRecord((self._folder / name).stat().st_size, sha256(self._folder / name))
            for name in sorted([*self._files, EPISODES])
        }
        manifest = Manifest(
            self.spec,
            self.cond_names,
            alignment(self.spec, self.shift),
            self.shift,
            self._stats(),
            self.fps,
            count_splits(episodes),
            self.source,
            tuple(self.left_out),
            records,
        )
        _write_synced(self._folder / MANIFEST, manifest.to_bytes())
        self._folder.chmod(0o777 & ~_umask())
        _sync_folder(self._folder)
        self._put_in_place()
        self._placed = True
        _sync_folder(self.dst.parent)

    def _put_in_place(self) -> None:
        refuse_existing(self.dst, self.overwrite)
        if not (self.dst / MANIFEST).exists():
            try:
                self._folder.rename(self.dst)
            except OSError:
                refuse_existing(self.dst, self.overwrite)  # another process was quicker: say so
                raise
            return
        aside = Path(tempfile.mkdtemp(prefix=_prefix(self.dst), dir=self.dst.parent))
        try:
            self.dst.rename(aside / OLD)
            try:
                self._folder.rename(self.dst)
            except OSError:
                (aside / OLD).rename(self.dst)
                raise
        finally:
            if self.dst.exists():
                shutil.rmtree(aside, ignore_errors=True)

    def _stats(self) -> tuple[ColumnStats, ...]:
        """Of each number of a vector condition, over the clips of train; over all where there is no train."""
        if self.spec.cond != "vector":
            return ()
        cond = np.memmap(self._folder / COND, "<f4", "r", HEADER_BYTES, (self._committed, self.spec.cond_size))
        chosen = [item for item in self.episodes if item.split == "train"] or self.episodes
        return column_stats(self.cond_names, cond, chosen)

    def _write(self, name: str, values: NDArray[Any]) -> None:
        """Append to a file, except what a killed writer put there already."""
        begin = self._committed + self._pending
        known = min(max(0, self._safe - begin), len(values))
        if known < len(values):
            file = self._files[name]
            file.seek(HEADER_BYTES + (begin + known) * self._frame_bytes(name))
            file.write(values[known:].data)

    def _layout(self, name: str, total: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
        if name == FRAMES:
            return np.dtype(np.uint8), (total, *picture_shape(self.spec))
        return cond_layout(self.spec, total)

    def _frame_bytes(self, name: str) -> int:
        dtype, shape = self._layout(name, 1)
        return dtype.itemsize * int(np.prod(shape))

    def _sides(self) -> str:
        return ", ".join(str(side) for side in picture_shape(self.spec))

    def _cannot_write(self, error: OSError) -> DataError:
        free = shutil.disk_usage(self.dst.parent).free
        return DataError(
            f"{self.dst}: cannot be written: {error.strerror} ({free / 1e6:,.0f} MB free); nothing was kept"
        )


def alignment(spec: ClipSpec, shift: int) -> str:
    """How rows were brought to "cond[t] leads into frame t", in words."""
    if spec.cond == "none":
        return "no condition"
    if shift == 0:
        return f"{CONVENTION}; row t of the source, not shifted"
    if shift > 0:
        return f"{CONVENTION}; row t-{shift} of the source, the first row repeated before it"
    return f"{CONVENTION}; row t+{-shift} of the source, the last row repeated after it"


def refuse_existing(dst: Path, overwrite: bool) -> None:
    """DataError where a pack must not be made: something is there, or it is no pack and would be lost."""
    if dst.name in ("", ".."):
        raise DataError(f"{dst}: expected a folder by its own name, as the new pack is renamed into its place")
    if not os.path.lexists(dst):
        return
    if dst.is_dir() and not dst.is_symlink() and not any(dst.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{dst}: already exists; choose another folder, or overwrite it with --overwrite")
    if not (dst / MANIFEST).is_file() or not (dst / FRAMES).is_file():
        raise DataError(f"{dst}: already exists and is not a pack, so it is not overwritten; choose another folder")


def _prefix(dst: Path) -> str:
    return f".{dst.name[:100]}.{socket.gethostname()}.{os.getpid()}."


def _sweep(dst: Path) -> None:
    """Remove what killed writers of the same pack left behind: their process, on this machine, is gone."""
    if os.name != "posix":
        return
    stem = f".{dst.name[:100]}.{socket.gethostname()}."
    for entry in dst.parent.iterdir():
        pid = entry.name.removeprefix(stem).split(".")[0]
        if not entry.name.startswith(stem) or not pid.isdecimal():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            if (entry / OLD).is_dir() and not dst.exists():
                (entry / OLD).rename(dst)  # killed between two renames: the pack that was to be replaced
            shutil.rmtree(entry, ignore_errors=True)
        except OSError:
            continue


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
