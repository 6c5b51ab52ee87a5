"""Several metrics at once, sharing work."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foreframe.metrics.pair import checked_pair
from foreframe.metrics.psnr import decibels
from foreframe.metrics.ssim import CONVENTIONS, Window, similarities

_PSNR = ("psnr", "psnr-channel")


def score_frames(predicted: Tensor, true: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Scores by metric, in the order of the names; the metrics share the check of the frames and sums.

    predicted: (..., C, H, W), floating, in [0, 1]. true: the same shape, or without first axes of it (samples S).
    names: Some of the names in `METRICS`, but for lpips.
    Returns `METRICS[name](predicted, true)`, (...), for each name, within rounding; errors are those of the metrics.
    """
    pair = checked_pair(predicted, true)
    found: dict[str, Tensor] = {}
    ranges: dict[Window, dict[str, float]] = {}
    for name in set(names) & CONVENTIONS.keys():
        window, data_range = CONVENTIONS[name]
        ranges.setdefault(window, {})[name] = data_range
    for window, shared in ranges.items():
        found.update(zip(shared, similarities(pair, window, list(shared.values())), strict=True))
    if set(names) & set(_PSNR):
        found.update(zip(_PSNR, decibels(pair), strict=True))
    return {name: found[name].reshape(pair.shape) for name in names}
