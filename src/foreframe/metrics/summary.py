"""From one score per clip and frame to the numbers of a table: means with 95 % intervals over clips."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor


class Summary(TypedDict):
    """Scores of N clips and T frames, in the unit of the metric; plain numbers, ready for JSON."""

    mean: float
    ci95: list[float] | None
    per_frame: list[float]
    per_frame_ci95: list[list[float]] | None
    per_clip: list[float]


def summarise(scores: Tensor) -> Summary:
    """Mean over frames and then clips, per frame and per clip, with 95 % Student t intervals over the clips.

    Clips are the independent draws, frames of one clip are not: the interval uses N clip means, never N x T scores.

    Args:
        scores: (N, T), one finite score per clip and frame.
    Returns:
        `ci95` [low, high] and `per_frame_ci95` T of these; both None for a single clip, which has no spread.
    Raises:
        ValueError: another shape, no scores, or a score that is not finite.
    """
    if scores.ndim != 2 or not scores.numel():
        raise ValueError(f"scores: expected (N clips, T frames), at least one of each, got {tuple(scores.shape)}")
    scores = scores.detach().cpu().double()
    if not scores.isfinite().all():
        clip, frame = (~scores.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"scores: expected finite numbers, got {scores[clip, frame]} for clip {clip}, frame {frame}")
    per_clip = scores.mean(1)
    per_frame = scores.mean(0)
    frame_margin, margin = _margin(scores), _margin(per_clip[:, None])
    mean = float(per_clip.mean())
    return {
        "mean": mean,
        "ci95": None if margin is None else [mean - float(margin), mean + float(margin)],
        "per_frame": per_frame.tolist(),
        "per_frame_ci95": None
        if frame_margin is None
        else torch.stack([per_frame - frame_margin, per_frame + frame_margin], 1).tolist(),
        "per_clip": per_clip.tolist(),
    }


def t_quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = probability for Student's distribution of `df` degrees of freedom.

    Found by bisection on the distribution function; relative error below 1e-5 for any df and probabilities to 0.9999.

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


def _margin(scores: Tensor) -> Tensor | None:
    """(T,) half widths of the 95 % intervals of the means over N of (N, T), or None for N = 1."""
    clips = len(scores)
    if clips < 2:
        return None
    return t_quantile(0.975, clips - 1) * scores.std(0) / math.sqrt(clips)


def _upper_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0: half the regularised incomplete beta function at df / (df + t^2)."""
    return _beta(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5) / 2


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """Regularised incomplete beta I_x(a, b), `rest` = 1 - x given apart to keep its digits (DLMF 8.17.22)."""
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
