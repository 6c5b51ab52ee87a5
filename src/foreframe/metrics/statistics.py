"""Statistics over N clips: means with 95 % intervals, differences, and ratios of sums.

Clips are the independent draws, frames of one clip are not: no interval uses more than N numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foreframe import seeds

Interval = tuple[float, float]
DRAWS, RATIO_DRAWS = 10_000, 2_000
"""Bootstrap samples of the clips: for a difference of means, and for a ratio."""
_AT_ONCE = 2**22
"""Numbers drawn at a time: many clips take no more memory."""


@dataclass(frozen=True)
class Summary:
    """Scores of N clips and T frames, in the unit of the metric; of a single clip there is no interval."""

    mean: float
    ci95: Interval | None
    per_frame: tuple[float, ...]
    per_frame_ci95: tuple[Interval, ...] | None
    per_clip: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """How much higher a second result is than a first, in the unit of the metric; of a single clip without interval."""

    mean: float
    ci95: Interval | None
    significant: bool
    """Whether the interval excludes 0."""
    higher: int | None
    """Clips on which the second is higher; None if the clips are not the same."""
    clips: int
    how: str


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over clips, such as R2; None where it is undefined."""

    value: float | None
    ci95: Interval | None


def format_mean(mean: float | None, ci95: Interval | None, decimals: int = 3, sign: str = "") -> str:
    """`21.300 [20.950, 21.660]`; without an interval the number alone, and "undefined" for None."""
    if mean is None:
        return "undefined"
    bounds = "" if ci95 is None else f" [{', '.join(f'{bound:{sign}.{decimals}f}' for bound in ci95)}]"
    return f"{mean:{sign}.{decimals}f}{bounds}"


def summarize(scores: Tensor) -> Summary:
    """Mean over frames and then clips, per frame and per clip, with Student t intervals over the clips.

    scores: (N, T), one for each clip and frame. Raises ValueError for another shape, none, or one that is not finite.
    """
    if scores.ndim != 2 or not scores.numel():
        raise ValueError(f"scores: expected (N clips, T frames), at least one of each, got {tuple(scores.shape)}")
    scores = scores.detach().cpu().double()
    if not scores.isfinite().all():
        clip, frame = (~scores.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"scores: expected finite numbers, got {scores[clip, frame]} for clip {clip}, frame {frame}")
    per_clip, per_frame = scores.mean(1), scores.mean(0)
    mean = float(per_clip.mean())
    interval = frame_intervals = None
    if len(scores) > 1:
        quantile, root = t_quantile(0.975, len(scores) - 1), math.sqrt(len(scores))
        margin, margins = float(quantile * per_clip.std() / root), quantile * scores.std(0) / root
        interval = (mean - margin, mean + margin)
        frame_intervals = tuple(zip((per_frame - margins).tolist(), (per_frame + margins).tolist(), strict=True))
    return Summary(mean, interval, tuple(per_frame.tolist()), frame_intervals, tuple(per_clip.tolist()))


def paired_difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """Of scores of the same N clips in the same order: a percentile bootstrap of their mean difference.

    What makes clips differ from one another cancels. Raises ValueError for no clips, or not as many in both.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"expected scores of the same clips, got {len(first)} and {len(second)}")
    difference = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    count, draw = len(difference), np.random.default_rng(seed)
    interval = None
    if count > 1:
        rows = max(1, _AT_ONCE // count)
        parts = [min(rows, DRAWS - at) for at in range(0, DRAWS, rows)]
        means = np.concatenate([difference[draw.integers(0, count, (part, count))].mean(1) for part in parts])
        low, high = np.quantile(means, [0.025, 0.975])
        interval = (float(low), float(high))
    how = f"paired, bootstrap over clips ({DRAWS:,} draws)"
    mean, higher = float(difference.mean()), int((difference > 0).sum())
    return Difference(mean, interval, _excludes_zero(interval), higher, count, how)


def unpaired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Of scores of different clips: the difference of the means, Welch's interval. Raises ValueError without clips."""
    if not first or not second:
        raise ValueError(f"expected scores, got {len(first)} and {len(second)}")
    mean = float(np.mean(second) - np.mean(first))
    interval = None
    if len(first) > 1 and len(second) > 1:
        parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
        error = math.sqrt(sum(parts))
        # Degrees of freedom of a difference of unequal variances (Welch, 1947).
        df = error**4 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True)) if error else 1.0
        margin = t_quantile(0.975, df) * error
        interval = (mean - margin, mean + margin)
    how = "not the same clips: difference of means, Welch's interval"
    return Difference(mean, interval, _excludes_zero(interval), None, len(second), how)


def ratio(per_clip: Tensor, statistic: Callable[[Tensor], Tensor]) -> Ratio:
    """A statistic of sums over clips with a percentile bootstrap; no interval for a single clip.

    per_clip: (N, M), what each clip adds to the sums. statistic: Sums (..., M) to numbers (...), NaN where undefined.
    """
    value, clips = finite(statistic(per_clip.double().sum(0))), len(per_clip)
    if value is None or clips < 2:
        return Ratio(value, None)
    draw = seeds.generator(0, "bootstrap", clips)
    parts, step = [], max(1, _AT_ONCE // clips)
    for first in range(0, RATIO_DRAWS, step):
        rows = torch.randint(clips, (min(step, RATIO_DRAWS - first), clips), generator=draw)
        counts = torch.zeros(rows.shape, dtype=torch.float64)
        counts.scatter_add_(1, rows, torch.ones_like(counts))
        parts.append(statistic(counts @ per_clip.double()))
    found = torch.cat(parts)
    found = found[found.isfinite()]
    if not len(found):
        return Ratio(value, None)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Ratio(value, (low, high))


def finite(value: Tensor | float) -> float | None:
    """The number, or None where it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None


def t_quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = probability for Student's distribution of `df` degrees of freedom, to 1e-6.

    Newton's method from 0, which cannot overshoot: the distribution function is concave there. It is integrated over
    the angle atan(t / sqrt(df)), in which its density is a power of the cosine.
    Raises ValueError for a probability outside [0.5, 0.9999] or df below 1.
    """
    if not (0.5 <= probability <= 0.9999 and df >= 1):
        raise ValueError(f"expected a probability in [0.5, 0.9999] and df >= 1, got {probability} and {df}")
    df = min(df, 1e7)  # beyond, nothing changes
    nodes, weights = np.polynomial.legendre.leggauss(64)
    peak = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    t, missing = 0.0, probability - 0.5
    while missing > 1e-13:
        t += missing * math.sqrt(df) / peak * (1 + t * t / df) ** ((df + 1) / 2)
        half = math.atan(t / math.sqrt(df)) / 2
        missing = probability - 0.5 - half * peak * float(weights @ np.cos(half * (nodes + 1)) ** (df - 1))
    return t


def _excludes_zero(interval: Interval | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]
