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

    Args:
        scores: (N, T), one finite score per clip and frame.
    Raises:
        ValueError: another shape, no scores, or a score that is not finite.
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

    Clips differ from one another by far more than two models differ on one of them; what they share cancels.

    Raises:
        ValueError: no clips, or not as many in both.
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
        # Degrees of freedom of a difference of unequal variances (Welch, 1947).
        df = error**4 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True)) if error else 1.0
        margin = t_quantile(0.975, df) * error
        interval = (mean - margin, mean + margin)
    how = "not the same clips: difference of means, Welch's interval"
    return Difference(mean, interval, _excludes_zero(interval), None, len(second), how)


def ratio(per_clip: Tensor, statistic: Callable[[Tensor], Tensor]) -> Ratio:
    """A statistic of sums over clips with a percentile bootstrap; no interval for a single clip.

    Args:
        per_clip: (N, M), what each clip adds to the sums.
        statistic: Sums (..., M) to numbers (...); NaN where it is undefined.
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
    """The t with P(T <= t) = probability for Student's distribution of `df` degrees of freedom.

    By bisection of the distribution function; relative error below 1e-5 for any df and probabilities to 0.9999.

    Raises:
        ValueError: probability outside [0.5, 1) or df below 1.
    """
    if not (0.5 <= probability < 1 and df >= 1):
        raise ValueError(f"expected a probability in [0.5, 1) and df >= 1, got {probability} and {df}")
    tail = 1 - probability
    low, high = 0.0, 1.0
    while _upper_tail(high, df) > tail:
        high *= 2
    while high - low > 1e-12 * (1 + high):
        middle = (low + high) / 2
        low, high = (middle, high) if _upper_tail(middle, df) > tail else (low, middle)
    return (low + high) / 2


def _excludes_zero(interval: Interval | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]


def _upper_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0: half the regularized incomplete beta function at df / (df + t^2)."""
    return _beta(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5) / 2


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """Regularized incomplete beta I_x(a, b), `rest` = 1 - x given separately to keep its digits (DLMF 8.17.22)."""
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    if x > (a + 1) / (a + b + 2):  # the continued fraction converges fast only on the other side
        return 1 - _beta(rest, x, b, a)
    log_x = math.log1p(-rest) if rest < 0.5 else math.log(x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * log_x + b * math.log(rest))
    # 1/(1 + d1/(1 + d2/(1 + ...))), evaluated from the far end; its terms shrink quickly.
    value = 1.0
    for step in range(400, 0, -1):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + d / value
    return front / (a * value)
