"""Mean, deviation and range of each number of a vector condition, over chosen clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.pack.manifest import ColumnStats, Episode


def column_stats(names: Sequence[str], cond: NDArray[Any], episodes: Sequence[Episode]) -> tuple[ColumnStats, ...]:
    """One for each column of conditions (N, D), over these episodes; clip by clip, so memory stays flat."""
    parts = [cond[item.start : item.start + item.length] for item in episodes]
    total = sum(map(len, parts))
    mean = np.sum([part.sum(0, np.float64) for part in parts], axis=0) / total
    square = np.sum([((part - mean) ** 2).sum(0) for part in parts], axis=0) / total
    low = np.min([part.min(0) for part in parts], axis=0).astype(float)
    high = np.max([part.max(0) for part in parts], axis=0).astype(float)
    std = np.where(low == high, 0.0, np.sqrt(square))
    columns = zip(names, mean.tolist(), std.tolist(), low.tolist(), high.tolist(), strict=True)
    return tuple(ColumnStats(*column) for column in columns)
