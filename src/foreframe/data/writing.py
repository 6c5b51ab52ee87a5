"""Writes a pack: streamed to a temporary sibling folder and renamed into place, so there is a whole pack or none."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec
from foreframe.data.manifest import (
    COND,
    CONVENTION,
    EPISODES,
    FRAMES,
    MANIFEST,
    Episode,
    FileRecord,
    LeftOut,
    Manifest,
    count_splits,
    episodes_to_bytes,
)
from foreframe.data.npy import HEADER_BYTES, header
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

    Any exception inside the block, Ctrl-C included, removes everything that was written.

    Args:
        dst: The folder to make; it must not exist unless `overwrite`, and then only a pack is ever replaced.
        spec: C, H, W and the condition of every clip.
        cond_names: D names of a vector condition; one or none for pictures.
        fps: Frames a second, where known.
        source: What the clips came from: layout, folder name, options. JSON; goes into the manifest as it is.
        shift: How the source's conditions were brought to "cond[t] leads into frame t", one clause.
    """

    def __init__(
        self,
        dst: Path | str,
        spec: ClipSpec,
        cond_names: Iterable[str] = (),
        *,
        fps: float | None = None,
        source: Mapping[str, Any] | None = None,
        shift: str = "no shift",
        overwrite: bool = False,
    ) -> None:
        self.dst = Path(dst)
        self.spec = spec
        self.cond_names = tuple(cond_names)
        self.fps = None if fps is None else float(fps)
        self.source = dict(source or {})
        self.alignment = f"{CONVENTION}; {shift}"
        self.overwrite = overwrite
        self.left_out: list[LeftOut] = []
        self.episodes: list[Episode] = []
        if spec.cond == "vector" and len(self.cond_names) != spec.cond_size:
            raise DataError(f"cond_names: expected {spec.cond_size} names, found {len(self.cond_names)}")
        self._files: dict[str, BinaryIO] = {}
        self._names: set[str] = set()
        self._committed = 0
        self._pending = 0

    def __enter__(self) -> PackWriter:
        try:
            self.dst.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.dst)
            refuse_existing(self.dst, self.overwrite)
            self._folder = Path(tempfile.mkdtemp(prefix=_prefix(self.dst), dir=self.dst.parent))
            for name in [FRAMES, *([COND] if self.spec.cond != "none" else [])]:
                self._files[name] = (self._folder / name).open("wb")
                self._files[name].write(bytes(HEADER_BYTES))
        except OSError as error:
            if self._files:
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
                self._files[COND].write(cond.data)
            self._files[FRAMES].write(np.ascontiguousarray(frames).data)
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
                file.seek(HEADER_BYTES + self._committed * self._frame_bytes(name))
                file.truncate()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._pending = 0

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
            raise self._cannot_write(problem) from problem
        finally:
            for file in self._files.values():
                with suppress(OSError):  # closing writes what is left; a full disk was reported already
                    file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._pending:
            self.rollback()
        if not self.episodes:
            raise DataError(f"{self.dst}: expected at least one clip to pack, found none")
        for name, file in self._files.items():
            if name == FRAMES:
                file.seek(0)
                file.write(header(np.dtype(np.uint8), (self._committed, *picture_shape(self.spec))))
            else:
                file.seek(0)
                file.write(header(*cond_layout(self.spec, self._committed)))
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
            self.alignment,
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

    def _frame_bytes(self, name: str) -> int:
        if name == FRAMES:
            return int(np.prod(picture_shape(self.spec)))
        dtype, shape = cond_layout(self.spec, 1)
        return dtype.itemsize * int(np.prod(shape))

    def _sides(self) -> str:
        return ", ".join(str(side) for side in picture_shape(self.spec))

    def _cannot_write(self, error: OSError) -> DataError:
        free = shutil.disk_usage(self.dst.parent).free
        return DataError(
            f"{self.dst}: cannot be written: {error.strerror} ({free / 1e6:,.0f} MB free); nothing was kept"
        )


def refuse_existing(dst: Path, overwrite: bool) -> None:
    """DataError where a pack must not be made: something is there, or it is no pack and would be lost."""
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
