"""Windows of equal length over the episodes of a pack, and the order in which training sees them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from foreframe import seeds
from foreframe.clip import Clip
from foreframe.data.pack.pack import Episode, Pack
from foreframe.errors import DataError, Fault

Policy = Literal["all", "tiled", "first"]


class Windows:
    """Every window of `length` frames that one split offers; none crosses an episode.

    all: each start. tiled: side by side, without the remainder at the end. first: frame 0 only. short: the episodes
    with fewer than `length` frames. Raises DataError: the split is unknown, or no episode is long enough.
    """

    def __init__(self, pack: Pack, split: str, length: int, policy: Policy = "all") -> None:
        if length < 1:
            raise ValueError(f"length: expected 1 frame or more, got {length}")
        episodes = pack.split(split)
        self.pack, self.split, self.length, self.policy = pack, split, length, policy
        self.short = tuple(episode for episode in episodes if episode.length < length)
        self.episodes = tuple(episode for episode in episodes if episode.length >= length)
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

    def numbers(self, indices: Tensor | Sequence[int], strides: Tensor | Sequence[int] | None = None) -> Tensor:
        """Which frames of the pack these windows take: (B, T) int64. With `strides` (B,), a window takes every n-th
        frame from its start on, or fewer apart where its episode ends too soon."""
        places = [self.place(index) for index in _integers(indices)]
        steps = [1] * len(places) if strides is None else _integers(strides)
        firsts, gaps = [], max(1, self.length - 1)  # with one frame there is no gap, and the stride is nothing
        for row, ((episode, start), step) in enumerate(zip(places, steps, strict=True)):
            firsts.append(episode.start + start)
            steps[row] = min(step, (episode.length - 1 - start) // gaps)
        first, step_of = (torch.tensor(values, dtype=torch.int64)[:, None] for values in (firsts, steps))
        return first + step_of * torch.arange(self.length)

    def batch(self, indices: Tensor | Sequence[int], strides: Tensor | Sequence[int] | None = None) -> Clip:
        """Windows as a Clip on the CPU: frames uint8 (B, T, C, H, W), cond float32 (B, T, D) or uint8 (B, T, C, H, W).

        Pixels stay channels-last in memory, as on disk. `strides` as in `numbers`.
        """
        pack, numbers = self.pack, self.numbers(indices, strides).numpy()
        frames = channels_first(torch.from_numpy(pack.frames[numbers]))
        return Clip(frames, None if pack.cond is None else channels_first(torch.from_numpy(pack.cond[numbers])))


def batch_indices(length: int, batch: int, seed: int, step: int) -> tuple[int, Tensor]:
    """Batch number `step` of an endless row of epochs over `length` windows: (epoch, indices (B,) int64).

    A pure function, so a resumed run remembers nothing but its step. Each epoch is a permutation without its last,
    incomplete batch. With fewer windows than a batch has clips, batches run on through one permutation after another,
    and `epoch` is that of the first clip.
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


def channels_first(values: Tensor) -> Tensor:
    """Pictures (B, T, H, W, C) as they lie in a pack as (B, T, C, H, W), the same bytes; other values as they are."""
    return values.permute(0, 1, 4, 2, 3) if values.ndim == 5 else values
