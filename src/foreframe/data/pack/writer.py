"""Writes a pack: streamed to a temporary sibling folder and renamed into place, so there is a whole pack or none."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from foreframe import config, disk, signals
from foreframe.clip import ClipSpec
from foreframe.data.pack.journal import ARRAYS, Journal, StoppedError
from foreframe.data.pack.manifest import (
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
from foreframe.data.pack.npy import HEADER_BYTES, header
from foreframe.data.pack.stats import column_stats
from foreframe.errors import DataError, DiskError

BLOCK = 2**20
"""Bytes of a file that are hashed at a time."""


def array_layout(name: str, spec: ClipSpec, total: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape of `total` frames, or of their conditions, on disk."""
    if name == COND and spec.cond == "vector":
        return np.dtype("<f4"), (total, spec.cond_size)
    return np.dtype(np.uint8), (total, spec.height, spec.width, spec.channels if name == FRAMES else spec.cond_size)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises Stopped between two blocks where a signal has asked to stop."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            signals.poll()
    return digest.hexdigest()


class PackWriter:
    """Streams clips into a new pack at `dst`; memory stays flat. Leaving the `with` block puts the pack in place.

    Any exception inside the block removes what was written; with `resume`, what was stopped through no fault of the
    clips (a signal, the disk, too little memory) is kept. A signal is not handled while the pack is put in place.

    Args:
        dst: The folder to make; it must not exist unless `overwrite`, and then only a pack is ever replaced.
        cond_names: D names of a vector condition; one or none for pictures.
        source: What the clips came from: layout, folder name, options. JSON; goes into the manifest as it is.
        shift: Row t of the source led into frame t + shift; the writer is given conditions that are shifted already.
        measured: Those of cond_names that were measured; the others are controls. None: as their names say.
        resume: A key of the source, which changes when it does: the next writer with the same `dst` and `resume`
            continues where one was killed; see `left_behind`. Empty: a new start, always.
        expected: Frames to come, where that is known: without room for them the writer does not begin.
    Raises:
        DataError: something is at `dst`, there is no room, or clips do not fit.
        BusyError: another process makes the same pack (with `resume`).
        DiskError: the disk refuses; what was at `dst` is untouched.
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
        measured: Iterable[str] | None = None,
        overwrite: bool = False,
        resume: str = "",
        expected: int = 0,
    ) -> None:
        self.dst = Path(dst)
        self.spec = spec
        self.cond_names = tuple(cond_names)
        self.fps = None if fps is None else float(fps)
        self.source = dict(source or {})
        self.shift = shift
        self.measured = None if measured is None else tuple(measured)
        self.resume = resume
        self.overwrite = overwrite
        self.expected = expected
        self.left_out: list[LeftOut] = []
        self._list_memory = self._unlisted = 0  # bytes that reading `left_out` takes; clips that are not in it
        self.episodes: list[Episode] = []
        if spec.cond == "vector" and len(self.cond_names) != spec.cond_size:
            raise DataError(f"cond_names: expected {spec.cond_size} names, found {len(self.cond_names)}")
        self._arrays = (FRAMES, *([COND] if spec.cond != "none" else []))
        self._files: dict[str, BinaryIO] = {}
        self._names: set[str] = set()
        self._committed = 0
        self._pending = 0
        self._journal: Journal | None = None
        self._placed = False
        self._safe = 0  # frames that a killed writer left whole; they are not written again
        self._needed = self._bytes(expected)  # of what is being written and is to come, for messages

    def __enter__(self) -> PackWriter:
        with signals.defer_signals():
            try:
                self._take_folder()
            except OSError as error:
                raise disk.refused(self.dst, error, self._needed) from error
            try:
                with self._writing():
                    for name in self._arrays:
                        self._files[name] = (self._folder / name).open("r+b" if self._safe else "w+b")
                        self._files[name].write(bytes(HEADER_BYTES))
            except DiskError as problem:
                self._release(problem)
                raise
        return self

    def _take_folder(self) -> None:
        disk.sweep_drafts(self.dst)
        refuse_existing(self.dst, self.overwrite)
        partial = self.dst.parent / f".{self.dst.name[:100]}.partial"
        self._check_free_space(partial / ARRAYS)
        self.dst.parent.mkdir(parents=True, exist_ok=True)
        if self.resume:
            journal = Journal(partial, f"{self.resume} {self.spec}")
            self._safe = journal.open({name: (HEADER_BYTES, self._frame_bytes(name)) for name in self._arrays})
            self._journal, self._folder = journal, journal.arrays
        else:
            self._folder = disk.new_draft(self.dst)

    def _check_free_space(self, left: Path) -> None:
        """DataError where less is free than the pack will take; `left` is what a killed writer may have left of it."""
        free = disk.free(self.dst.parent)
        if not self.expected or free is None:
            return
        there = sum((left / name).stat().st_size for name in self._arrays if (left / name).is_file())
        needed = self._bytes(self.expected) - there
        if needed > free:
            raise DataError(
                f"{self.dst}: {needed:,} bytes needed for {self.expected:,} frames, {free:,} free there; nothing was "
                "written; make room, or choose a place on another disk"
            )

    def add(self, name: str, split: str, frames: NDArray[np.uint8], cond: NDArray[Any] | None = None) -> None:
        """Add one whole clip: uint8 frames (T, H, W, C) and its conditions (T, D) or (T, H, W, 3), or None."""
        self.append(frames, cond)
        self.commit(name, split)

    def append(self, frames: NDArray[np.uint8], cond: NDArray[Any] | None = None) -> None:
        """Add frames to the clip being written; it counts only once `commit` gives it a name."""
        length = len(frames)
        self._needed = self._bytes(max(length, self.expected - max(self._safe, self._committed + self._pending)))
        dtype, shape = array_layout(FRAMES, self.spec, length)
        if frames.dtype != dtype or frames.shape != shape:
            sides = ", ".join(map(str, shape[1:]))
            raise DataError(f"frames: expected uint8 (T, {sides}), found {frames.dtype} {frames.shape}")
        if (cond is None) != (self.spec.cond == "none"):
            raise DataError(f"cond: expected {self.spec.cond}, found {'none' if cond is None else cond.shape}")
        with self._writing():
            if cond is not None:
                self._write(COND, self._checked(cond, length))
            self._write(FRAMES, np.ascontiguousarray(frames))
        self._pending += length

    def _checked(self, cond: NDArray[Any], length: int) -> NDArray[Any]:
        """Conditions as they are written. Raises DataError for another shape and for numbers that are not finite."""
        dtype, shape = array_layout(COND, self.spec, length)
        if cond.shape != shape or (dtype == np.uint8) != (cond.dtype == np.uint8):
            raise DataError(f"cond: expected {dtype} {shape}, found {cond.dtype} {cond.shape}")
        cond = np.ascontiguousarray(cond, dtype)
        if dtype != np.uint8 and not np.isfinite(cond).all():
            row = int(np.flatnonzero(~np.isfinite(cond).all(axis=1))[0])
            raise DataError(f"cond: expected finite numbers, found {cond[row].tolist()} at row {row}")
        return cond

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
        with self._writing():
            for name, file in self._files.items():
                file.seek(HEADER_BYTES + max(self._safe, self._committed) * self._frame_bytes(name))
                file.truncate()
        self._pending = 0

    def note(self, clip: str) -> None:
        """Remember for a later writer that the last episode holds all of this clip of the source, faultless."""
        if self._journal is not None:
            last = self.episodes[-1]
            with self._writing():
                self._journal.note(clip, last.start, last.length, self._files.values())

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
        try:
            for name, file in self._files.items():
                dtype, shape = array_layout(name, self.spec, stop - start)
                file.seek(HEADER_BYTES + (self._committed + start) * self._frame_bytes(name))
                parts[name] = np.frombuffer(file.read(dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape)
        except OSError as error:
            why = f"cannot be read: {error.strerror}, so it was deleted; start again"
            raise DataError(f"{self._folder}: {why}") from error
        return parts[FRAMES], parts.get(COND)

    def leave_out(self, clip: str, reasons: Iterable[str]) -> None:
        """Record in the manifest why a clip of the source is not in the pack, while the list is small enough to be
        read again; then only how many more there are."""
        item = LeftOut(clip, tuple(reasons))
        self._list_memory += config.memory_for(json.dumps(asdict(item), indent=4, ensure_ascii=False).encode())
        if self._list_memory > config.MEMORY // 2:
            self._unlisted += 1
        else:
            self.left_out.append(item)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with signals.defer_signals():
            try:
                if kind is None:
                    with self._writing():
                        self._finish()
            except BaseException as problem:
                error = problem
                raise
            finally:
                self._release(error)

    def _release(self, error: BaseException | None) -> None:
        """Close everything, and remove it unless the pack is in place or another writer may continue it."""
        # What was asked to stop may be resumed; a fault of a clip would only come again.
        stopped = isinstance(error, StoppedError | DiskError) or not isinstance(error, Exception | None)
        if self._journal is not None and stopped:
            with suppress(OSError):
                self._journal.sync(self._files.values())
        for file in self._files.values():
            with suppress(OSError):  # closing writes what is left; a full disk was reported already
                file.close()
        if self._journal is not None:
            self._journal.close(remove=self._placed or not (stopped and self._journal.is_resumable))
        elif not self._placed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._pending:
            self.rollback()
        if not self.episodes:
            raise DataError(f"{self.dst}: expected at least one clip to pack, found none")
        if self._journal is not None:
            self._journal.sync(self._files.values())
        for name, file in self._files.items():
            file.seek(0)
            file.write(header(*array_layout(name, self.spec, self._committed)))
            file.truncate(HEADER_BYTES + self._committed * self._frame_bytes(name))
            file.flush()
            os.fsync(file.fileno())
            file.close()
        episodes = tuple(self.episodes)
        listed = episodes_to_bytes(episodes)
        self._needed = len(listed)
        disk.write(self._folder / EPISODES, listed)
        records = {
            name: FileRecord((self._folder / name).stat().st_size, sha256(self._folder / name))
            for name in sorted([*self._files, EPISODES])
        }
        if self._unlisted:
            why = "too many to be listed; `foreframe data check` of the source lists them"
            self.left_out.append(LeftOut(f"{self._unlisted:,} more", (why,)))
        manifest = Manifest(
            spec=self.spec,
            cond_names=self.cond_names,
            alignment=alignment(self.spec, self.shift),
            shift=self.shift,
            stats=self._stats(),
            fps=self.fps,
            splits=count_splits(episodes),
            source=self.source,
            left_out=tuple(self.left_out),
            files=records,
            measured=self.measured,
        )
        signals.poll()  # from here on it is only a moment
        content = manifest.to_bytes()
        self._needed = len(content)
        disk.write(self._folder / MANIFEST, content)
        disk.sync(self._folder)
        self._put_in_place()
        self._placed = True
        disk.sync(self.dst.parent)

    def _put_in_place(self) -> None:
        refuse_existing(self.dst, self.overwrite)
        try:
            disk.replace_folder(self._folder, self.dst)
        except OSError:
            refuse_existing(self.dst, self.overwrite)  # another process was quicker: say so
            raise

    def _stats(self) -> tuple[ColumnStats, ...]:
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

    def _frame_bytes(self, name: str) -> int:
        dtype, shape = array_layout(name, self.spec, 1)
        return dtype.itemsize * int(np.prod(shape))

    def _bytes(self, frames: int) -> int:
        """Of this many frames, their conditions, and the headers."""
        return sum(HEADER_BYTES + frames * self._frame_bytes(name) for name in self._arrays)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an OSError into the DiskError that says what is kept."""
        try:
            yield
        except OSError as error:
            resumable = self._journal is not None and self.episodes
            kept = "what was done is kept, the same command continues" if resumable else "nothing was kept"
            raise DiskError(f"{disk.refused(self.dst, error, self._needed)}; {kept}") from error


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
    disk.check_replaceable(dst, overwrite, "a pack", (MANIFEST, FRAMES))
