"""Statistics as LeRobot keeps them of each feature, computed exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)

Stats = dict[str, list[Any]]
"""One list for each of STATISTICS; of pictures, each but the count is nested to shape (3, 1, 1), in [0, 1]."""


def of_rows(values: NDArray[Any]) -> Stats:
    """Statistics over the rows of (T, D): D values each; quantiles with linear interpolation, as numpy's."""
    exact = values.astype(np.float64)
    stats: Stats = {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": exact.mean(axis=0).tolist(),
        "std": exact.std(axis=0).tolist(),
        "count": [len(values)],
    }
    return stats | dict(zip(QUANTILES, np.quantile(exact, [*QUANTILES.values()], axis=0).tolist(), strict=True))


def of_columns(columns: Mapping[str, NDArray[Any]]) -> dict[str, Stats]:
    """Statistics of several (T, D) of equal T, all computed at once, for clips are many and short."""
    together = of_rows(np.concatenate([values.astype(np.float64) for values in columns.values()], axis=1))
    found: dict[str, Stats] = {}
    first = 0
    for key, values in columns.items():
        part = slice(first, first + values.shape[1])
        found[key] = {name: each if name == "count" else each[part] for name, each in together.items()}
        if values.dtype.kind == "i":
            found[key] |= {name: [int(value) for value in found[key][name]] for name in ("min", "max")}
        first += values.shape[1]
    return found


def histogram(pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs in each channel: (3, 256)."""
    return np.stack([np.bincount(pictures[..., channel].reshape(-1), minlength=256) for channel in range(3)])


def of_pixels(counts: NDArray[np.int64], frames: int) -> Stats:
    """The same statistics of pixels in [0, 1], exactly, from a histogram (3, 256): shape (3, 1, 1) each."""
    channels = [_of_channel(count) for count in counts]
    return {name: [frames] if name == "count" else [[[one[name]]] for one in channels] for name in STATISTICS}


def _of_channel(count: NDArray[np.int64]) -> dict[str, float]:
    levels, total, below = np.arange(256) / 255, int(count.sum()), count.cumsum()
    there = levels[count > 0]
    mean = float(count @ levels) / total
    found = {"min": there[0], "max": there[-1], "mean": mean, "std": np.sqrt(count @ (levels - mean) ** 2 / total)}
    for name, share in QUANTILES.items():
        place = share * (total - 1)
        low, high = levels[np.searchsorted(below, [int(place), min(int(place) + 1, total - 1)], "right")]
        found[name] = low + (high - low) * (place - int(place))
    return {name: float(value) for name, value in found.items()}
