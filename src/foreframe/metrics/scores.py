"""Several metrics at once, sharing work."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foreframe.metrics.pair import checked_pair
from foreframe.metrics.psnr import frame_psnr, mean_channel_psnr, squared_error
from foreframe.metrics.ssim import CONVENTIONS, similarities

_OF_ERROR = {"psnr": frame_psnr, "psnr-channel": mean_channel_psnr}


def score_frames(predicted: Tensor, true: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Scores by metric, in the order of the names.

    The frames are checked once, conventions of SSIM that differ only in their data range share their sums, and both
    forms of PSNR share their squared error.

    Args:
        predicted: (..., C, H, W), floating, in [0, 1].
        true: The same shape, or without first axes of it (samples S).
        names: Some of the names in `METRICS`, but for lpips.
    Returns:
        For each name (...), `METRICS[name](predicted, true)` within rounding.
    Raises:
        ValueError: shapes or values do not fit (see `checked_pair`), or a frame is smaller than a window.
    """
    pair = checked_pair(predicted, true)
    found: dict[str, Tensor] = {}
    for window in {CONVENTIONS[name].window: None for name in names if name in CONVENTIONS}:
        shared = [name for name in names if name in CONVENTIONS and CONVENTIONS[name].window == window]
        values = similarities(pair, window, [CONVENTIONS[name].data_range for name in shared])
        found.update(zip(shared, values, strict=True))
    if any(name in _OF_ERROR for name in names):
        errors = squared_error(pair)
        found.update({name: of(errors) for name, of in _OF_ERROR.items()})
    return {name: found[name].reshape(pair.shape) for name in names}
