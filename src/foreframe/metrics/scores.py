"""Several metrics of the same frames for less than each by itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foreframe.metrics.pair import checked_pair
from foreframe.metrics.psnr import frame_psnr, mean_channel_psnr, squared_error
from foreframe.metrics.ssim import CONVENTIONS, similarities

_OF_ERROR = {"psnr": frame_psnr, "psnr-channel": mean_channel_psnr}


def score_frames(predicted: Tensor, true: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """What each of these metrics gives for the frames, by its name and in the order of the names.

    The frames are checked once, conventions of SSIM that differ in their data range alone share their sums, and PSNR
    takes the squared error that SSIM has computed.

    Args:
        predicted: (..., C, H, W), floating, in [0, 1].
        true: The same shape, or without first axes of it (samples S).
        names: Some of the names in `METRICS`, but for lpips.
    Returns:
        For each name (...), within rounding what `METRICS[name](predicted, true)` gives.
    Raises:
        ValueError: shapes or values do not fit (see `checked_pair`), or a frame is smaller than a window.
    """
    pair = checked_pair(predicted, true)
    found: dict[str, Tensor] = {}
    errors = None
    for window in {CONVENTIONS[name].window: None for name in names if name in CONVENTIONS}:
        shared = [name for name in names if name in CONVENTIONS and CONVENTIONS[name].window == window]
        values, errors = similarities(pair, window, [CONVENTIONS[name].data_range for name in shared])
        found.update(zip(shared, values, strict=True))
    for name in names:
        if name not in found:
            errors = squared_error(pair) if errors is None else errors
            found[name] = _OF_ERROR[name](errors)
    return {name: found[name].reshape(pair.shape) for name in names}
