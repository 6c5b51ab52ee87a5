"""95 % intervals of what is no mean over clips: ratios of sums, such as R2."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from foreframe import seeds

DRAWS = 2000
"""Bootstrap samples of the clips."""
AT_ONCE = 2**22
"""Numbers drawn at a time, so that many clips take no more memory."""


def resampled(per_clip: Tensor, statistic: Callable[[Tensor], Tensor]) -> list[float] | None:
    """A percentile bootstrap over clips, [low, high]; None for a single clip, or where the statistic is undefined.

    Args:
        per_clip: (N, M), what each clip adds to the sums.
        statistic: Sums (draws, M) to numbers (draws,); NaN where it is undefined.
    """
    clips = len(per_clip)
    if clips < 2:
        return None
    draw = seeds.generator(0, "bootstrap", clips)
    parts, step = [], max(1, AT_ONCE // clips)
    for first in range(0, DRAWS, step):
        rows = torch.randint(clips, (min(step, DRAWS - first), clips), generator=draw)
        counts = torch.zeros(rows.shape, dtype=torch.float64)
        counts.scatter_add_(1, rows, torch.ones_like(counts))
        parts.append(statistic(counts @ per_clip.double()))
    found = torch.cat(parts)
    found = found[found.isfinite()]
    if not len(found):
        return None
    return [float(bound) for bound in found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))]


def finite(value: Tensor | float) -> float | None:
    """A number for JSON: None where it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None
