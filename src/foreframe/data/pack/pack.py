"""The training format: clips of one shape in a folder that is memory-mapped, verified by hash, and runs no code.

frames.npy      uint8 (N, H, W, C), all episodes one after another
cond.npy        float32 (N, D), or uint8 (N, H, W, 3) pictures; absent without a condition
episodes.json   name, split, start and length of each episode
manifest.json   spec, names, alignment, splits, source, and size and SHA-256 of each file; written last
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec
from foreframe.data.pack.manifest import (
    COND,
    EPISODES,
    FRAMES,
    MANIFEST,
    ColumnStats,
    Episode,
    Manifest,
    read_episodes,
    read_manifest,
)
from foreframe.data.pack.npy import open_array
from foreframe.data.pack.stats import column_stats
from foreframe.data.pack.writer import PackWriter, array_layout, sha256
from foreframe.errors import DataError, Fault, nearest

__all__ = ["Episode", "Pack", "PackWriter", "changed", "is_pack", "sha256"]

CHANGED = "the pack has changed since it was written; import its source again"


@dataclass(frozen=True, eq=False, repr=False)
class Pack:
    """A pack opened for reading. Opening costs milliseconds and no memory, whatever its size.

    path: the folder. episodes: in the order of the frames. frames: uint8 (N, H, W, C), read-only. cond: float32 (N, D),
    uint8 (N, H, W, 3), or None. hash: SHA-256 of manifest.json, which holds the hashes of all other files.
    """

    path: Path
    manifest: Manifest
    episodes: tuple[Episode, ...]
    frames: NDArray[np.uint8]
    cond: NDArray[Any] | None
    hash: str

    @classmethod
    def open(cls, path: Path | str) -> Pack:
        """Open a pack; the JSON files are checked to the last byte, arrays by size and shape only (see `verify`).
        Raises DataError: there is no pack, or it is damaged or of another version; the message names the file."""
        path = Path(path)
        try:
            return cls._opened(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error

    @classmethod
    def _opened(cls, path: Path) -> Pack:
        if not (path / MANIFEST).exists():
            what = "a folder without manifest.json" if path.is_dir() else ("a file" if path.exists() else "nothing")
            raise DataError(f"{path}: expected a pack (made by `foreframe data import SRC DST`), found {what}")
        manifest, content = read_manifest(path / MANIFEST)
        for name, record in manifest.files.items():
            if not (path / name).is_file():
                raise DataError(f"{path / name}: missing; the manifest lists it: import the source again")
            size = (path / name).stat().st_size
            if size != record.size:
                raise DataError(f"{path / name}: expected {record.size} bytes as in the manifest, found {size}")
        expected, found = manifest.files[EPISODES].sha256, sha256(path / EPISODES)
        if found != expected:
            fault = Fault(str(path / EPISODES), "", f"SHA-256 {expected}", found)
            raise DataError(f"{path}: {CHANGED}", [fault])
        episodes = read_episodes(path / EPISODES, manifest.splits)
        total = sum(episode.length for episode in episodes)
        frames = open_array(path / FRAMES, *array_layout(FRAMES, manifest.spec, total))
        cond = None
        if manifest.spec.cond != "none":
            cond = open_array(path / COND, *array_layout(COND, manifest.spec, total))
        return cls(path, manifest, episodes, frames, cond, hashlib.sha256(content).hexdigest())

    @property
    def spec(self) -> ClipSpec:
        return self.manifest.spec

    @property
    def cond_names(self) -> tuple[str, ...]:
        return self.manifest.cond_names

    @property
    def fps(self) -> float | None:
        return self.manifest.fps

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that hold episodes, in the order in which they were packed."""
        return tuple(dict.fromkeys(episode.split for episode in self.episodes))

    def split(self, name: str) -> list[Episode]:
        """The episodes of one split. Raises DataError: there are none; the message lists the splits that exist."""
        found = [episode for episode in self.episodes if episode.split == name]
        if not found:
            counts = ", ".join(f"{split} ({self.manifest.splits[split]['episodes']} episodes)" for split in self.splits)
            raise DataError(f"{self.path}: no split '{name}'; this pack has {counts}{nearest(name, self.splits)}")
        return found

    def read(self, episode: Episode, start: int, length: int) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
        """Frames start to start+length-1 of an episode: uint8 (T, H, W, C) and their conditions, as read-only views."""
        if start < 0 or length < 1 or start + length > episode.length:
            last = start + length - 1
            raise ValueError(
                f"episode '{episode.name}' has frames 0 to {episode.length - 1}; asked for {start} to {last}"
            )
        window = slice(episode.start + start, episode.start + start + length)
        return self.frames[window], None if self.cond is None else self.cond[window]

    def stats(self, split: str) -> tuple[ColumnStats, ...]:
        """Mean, deviation and range of each number of a vector condition over one split; else none."""
        if self.cond is None or self.spec.cond != "vector":
            return ()
        return self.manifest.stats if split == "train" else column_stats(self.cond_names, self.cond, self.split(split))

    def verify(self) -> None:
        """Compare every file's SHA-256 with the manifest. Raises DataError with a fault for each that differs."""
        if faults := changed(self.path, self.manifest):
            raise DataError(f"{self.path}: {CHANGED}", faults)


def changed(path: Path, manifest: Manifest) -> list[Fault]:
    """One fault for each file of a pack that is not, to the last byte, what its manifest says."""
    faults = []
    for name, record in manifest.files.items():
        file = path / name
        try:
            if not file.is_file():
                faults.append(Fault(str(file), "", "a file", "something else" if file.exists() else "nothing"))
            elif (size := file.stat().st_size) != record.size:
                faults.append(Fault(str(file), "", f"{record.size} bytes", f"{size}"))
            elif (found := sha256(file)) != record.sha256:
                faults.append(Fault(str(file), "", f"SHA-256 {record.sha256}", found))
        except OSError as error:
            faults.append(Fault(str(file), "", "a file that can be read", error.strerror or type(error).__name__))
    return faults


def is_pack(path: Path) -> bool:
    """Whether a folder looks like a pack: it holds manifest.json and frames.npy."""
    return (path / MANIFEST).is_file() and (path / FRAMES).is_file()
