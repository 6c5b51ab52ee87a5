"""Which clips of a pack are shown, and its frames as pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foreframe.data.pack.pack import Episode, Pack
from foreframe.evaluation import evenly_spaced


def sample(pack: Pack, wanted: int, split: str | None = None) -> list[Episode]:
    """Evenly spaced episodes of one split, or of all: then at least one of each as far as `wanted` suffices, and most
    of the largest.

    Raises:
        DataError: the pack has no such split.
    """
    splits = {name: pack.split(name) for name in ([split] if split else pack.splits)}
    quota = dict.fromkeys(list(splits)[: max(1, wanted)], 1)
    while sum(quota.values()) < min(wanted, sum(map(len, splits.values()))):
        unfilled = [name for name in quota if quota[name] < len(splits[name])]
        quota[max(unfilled, key=lambda name: len(splits[name]) / quota[name])] += 1
    return [splits[name][i] for name, number in quota.items() for i in evenly_spaced(len(splits[name]), number)]


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (..., C) as pictures (..., 3): one channel becomes gray, of more the first three are taken."""
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
