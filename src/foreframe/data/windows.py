"""Windows of equal length over the episodes of a pack, and the order in which training sees them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foreframe import seeds
from foreframe.clip import Clip
from foreframe.data.pack import Episode, Pack
from foreframe.errors import DataError, Fault

Policy = Literal["all", "tiled", "first"]


class Windows:
    """Every window of `length` frames that one split offers; none crosses an episode.

    all: each start. tiled: side by side without overlap, the remainder at the end is unused. first: frame 0 only.
    `short` holds the episodes with fewer than `length` frames, which offer none: print how many they are.

    Raises:
        DataError: the split is unknown, or no episode is long enough (each one is listed).
    """

    def __init__(self, pack: Pack, split: str, length: int, policy: Policy = "all") -> None:
        if length < 1:
            raise ValueError(f"length: expected 1 frame or more, got {length}")
        episodes = pack.split(split)
        self.pack, self.split, self.length, self.policy = pack, split, length, policy
        self.short: tuple[Episode, ...] = tuple(episode for episode in episodes if episode.length < length)
        self.episodes: tuple[Episode, ...] = tuple(episode for episode in episodes if episode.length >= length)
        if not self.episodes:
            faults = [Fault(item.name, "", f"{length} frames or more", str(item.length)) for item in self.short]
            raise DataError(
                f"{pack.path}: no clip of split '{split}' is {length} frames long; ask for fewer (--horizon)", faults
            )
        self._stride = length if policy == "tiled" else 1
        lengths = np.array([episode.length for episode in self.episodes])
        counts = {"all": lengths - length + 1, "tiled": lengths // length, "first": np.ones_like(lengths)}[policy]
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def __len__(self) -> int:
        """How many windows there are."""
        return int(self._ends[-1])

    def place(self, index: int) -> tuple[Episode, int]:
        """The episode of a window and its first frame there."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index}: expected 0 to {len(self) - 1}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.episodes[number], (index - int(self._starts[number])) * self._stride

    def names(self, indices: Tensor | Sequence[int]) -> list[str]:
        """`EPISODE@START` of each window, for messages and results."""
        return [f"{episode.name}@{start}" for episode, start in map(self.place, _integers(indices))]

    def batch(self, indices: Tensor | Sequence[int], strides: Tensor | Sequence[int] | None = None) -> Clip:
        """Windows as a Clip on the CPU: frames uint8 (B, T, C, H, W), cond float32 (B, T, D) or uint8 (B, T, C, H, W).

        Pixels stay channels-last in memory, as on disk; the axes are permuted, nothing is copied twice. With
        `strides` (B,), a window takes every so many-th frame from its start on, or fewer apart where its episode
        ends too soon.
        """
        pack, places = self.pack, [self.place(index) for index in _integers(indices)]
        frames = np.empty((len(places), self.length, *pack.frames.shape[1:]), np.uint8)
        cond = None
        if pack.cond is not None:
            cond = np.empty((len(places), self.length, *pack.cond.shape[1:]), pack.cond.dtype)
        steps = [1] * len(places) if strides is None else _integers(strides)
        for row, ((episode, start), step) in enumerate(zip(places, steps, strict=True)):
            first, gaps = episode.start + start, self.length - 1
            room = (episode.length - 1 - start) // gaps if gaps else 1
            step = min(step, room)
            window = slice(first, first + gaps * step + 1, step)
            frames[row] = pack.frames[window]
            if cond is not None and pack.cond is not None:
                cond[row] = pack.cond[window]
        return Clip(_channels_first(frames), None if cond is None else _channels_first(cond))


def batch_indices(length: int, batch: int, seed: int, step: int) -> tuple[int, Tensor]:
    """Batch number `step` of an endless row of epochs over `length` windows: (epoch, indices (B,) int64).

    A pure function, so a resumed run needs to remember nothing but its step. Each epoch is a permutation of
    its own; its last, incomplete batch is dropped. With fewer windows than a batch has clips, batches run on
    through one permutation after another, and `epoch` is that of the first clip.
    """
    if length < 1 or batch < 1 or step < 0:
        raise ValueError(f"expected length >= 1, batch >= 1, step >= 0, got {length}, {batch}, {step}")
    if length >= batch:
        epoch, number = divmod(step, length // batch)
        return epoch, _order(seed, epoch, length)[number * batch : (number + 1) * batch].clone()
    first, last = step * batch // length, ((step + 1) * batch - 1) // length
    orders = torch.cat([_order(seed, epoch, length) for epoch in range(first, last + 1)])
    offset = step * batch - first * length
    return first, orders[offset : offset + batch].clone()


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, length: int) -> Tensor:
    return seeds.permutation(seed, epoch, length)


def _integers(indices: Tensor | Sequence[int]) -> list[int]:
    return cast(list[int], indices.tolist()) if isinstance(indices, Tensor) else [int(index) for index in indices]


def _channels_first(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.permute(0, 1, 4, 2, 3) if tensor.ndim == 5 else tensor
