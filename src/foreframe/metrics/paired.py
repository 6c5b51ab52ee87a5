"""The difference of two results: clip by clip where the clips are the same, of two means where they are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from foreframe.metrics.summary import t_quantile

DRAWS = 10_000
"""Bootstrap samples of the clips."""
_AT_ONCE = 2**22
"""Numbers drawn at a time, so that many clips take no more memory."""


class Difference(TypedDict):
    """How much higher the second result is, in the unit of the metric.

    ci95: None where there is a single clip. significant: whether the interval leaves out 0. higher: clips on which the
    second is higher, None if the clips are not the same.
    """

    mean: float
    ci95: list[float] | None
    significant: bool
    higher: int | None
    clips: int
    how: str


def paired_difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """Of scores of the same N clips, in the same order: a percentile bootstrap of their mean difference.

    Clips differ among themselves by far more than two models differ on one of them; what they share falls out.

    Raises:
        ValueError: no clips, or not as many in both.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"expected scores of the same clips, got {len(first)} and {len(second)}")
    apart = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    count, draw = len(apart), np.random.default_rng(seed)
    interval = None
    if count > 1:
        rows = max(1, _AT_ONCE // count)
        parts = [min(rows, DRAWS - at) for at in range(0, DRAWS, rows)]
        means = np.concatenate([apart[draw.integers(0, count, (part, count))].mean(1) for part in parts])
        interval = [float(bound) for bound in np.quantile(means, [0.025, 0.975])]
    return {
        "mean": float(apart.mean()),
        "ci95": interval,
        "significant": _leaves_out_zero(interval),
        "higher": int((apart > 0).sum()),
        "clips": count,
        "how": f"paired, bootstrap over clips ({DRAWS:,} draws)",
    }


def unpaired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Of scores of different clips: the difference of the means with Welch's interval.

    Raises:
        ValueError: there are no clips.
    """
    if not first or not second:
        raise ValueError(f"expected scores, got {len(first)} and {len(second)}")
    mean = float(np.mean(second) - np.mean(first))
    interval = None
    if len(first) > 1 and len(second) > 1:
        parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
        error = math.sqrt(sum(parts))
        # Welch (1947): as many degrees of freedom as the two spreads have between them.
        df = error**4 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True)) if error else 1.0
        margin = t_quantile(0.975, df) * error
        interval = [mean - margin, mean + margin]
    return {
        "mean": mean,
        "ci95": interval,
        "significant": _leaves_out_zero(interval),
        "higher": None,
        "clips": len(second),
        "how": "not the same clips: difference of means, Welch's interval",
    }


def _leaves_out_zero(interval: list[float] | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]
