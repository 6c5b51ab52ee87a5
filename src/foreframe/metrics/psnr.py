"""Peak signal-to-noise ratio, in the two forms the field mixes up."""

from __future__ import annotations

from torch import Tensor

from foreframe.metrics.pair import checked_pair

PSNR_CAP = 100.0
"""dB given to frames closer than that, equal ones included, so that means over frames and clips stay finite.

One grey level in one value of a 64x64 RGB frame is 89 dB: at that size the cap is reached only by equal frames.
"""


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    r"""PSNR in dB of each frame, its error averaged over channels and pixels together.

    $10 \log_{10}(1 / \mathrm{MSE})$ with the mean over (C, H, W) and a peak of 1, at most `PSNR_CAP`.

    Args:
        predicted: (..., C, H, W), floating, in [0, 1].
        true: The same shape, or without first axes of it (samples S).
    Returns:
        (...), in [0, PSNR_CAP].
    Raises:
        ValueError: shapes or values do not fit; see `checked_pair`.
    """
    predicted, true = checked_pair(predicted, true)
    return _decibel((predicted - true).square().mean((-3, -2, -1)))


def psnr_per_channel(predicted: Tensor, true: Tensor) -> Tensor:
    """PSNR in dB of each channel by itself, averaged over the channels: the form of SVG and SRVP.

    By Jensen's inequality never below `psnr` of the same frames (the cap apart), and equal to it only where the
    channels have equal errors. Arguments, range and errors as for `psnr`; each channel is capped before the mean.
    """
    predicted, true = checked_pair(predicted, true)
    return _decibel((predicted - true).square().mean((-2, -1))).mean(-1)


def _decibel(mse: Tensor) -> Tensor:
    return (-10 * mse.log10()).clamp(max=PSNR_CAP)
