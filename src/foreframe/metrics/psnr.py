"""Peak signal-to-noise ratio, in the two forms in use. No gradients: these are scores, not losses."""

from __future__ import annotations

import torch
from torch import Tensor

from foreframe.metrics.pair import Pair, checked_pair

PSNR_CAP = 100.0
"""dB given to frames closer than that, equal ones included, so that means over frames and clips stay finite.

One grey level in one value of a 64x64 RGB frame is 89 dB: at that size the cap is reached only by equal frames.
"""


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    r"""PSNR in dB of a frame: $10 \log_{10}(1 / \mathrm{MSE})$, mean over (C, H, W), peak 1.

    predicted: (..., C, H, W), floating, in [0, 1]. true: the same shape, or without first axes of it (samples S).
    Returns (...). Raises ValueError if shapes or values do not fit; see `checked_pair`.
    """
    pair = checked_pair(predicted, true)
    return decibels(pair)[0].reshape(pair.shape)


def psnr_per_channel(predicted: Tensor, true: Tensor) -> Tensor:
    """PSNR in dB of each channel separately, capped, then averaged over the channels: the form of SVG and SRVP.

    Never below `psnr` of the same frames (but for the cap), by Jensen's inequality. Arguments and errors are those of
    `psnr`.
    """
    pair = checked_pair(predicted, true)
    return decibels(pair)[1].reshape(pair.shape)


@torch.no_grad()
def decibels(pair: Pair) -> tuple[Tensor, Tensor]:
    """`psnr` and `psnr_per_channel`, (S, M) each, from one squared error."""
    errors = torch.empty(pair.predicted.shape[:3], dtype=pair.dtype, device=pair.true.device)
    for part in pair.parts():
        true = pair.true[part].to(pair.dtype)
        difference = torch.empty_like(true)
        for sample, predicted in enumerate(pair.predicted[:, part]):
            torch.sub(predicted, true, out=difference)
            errors[sample, part] = difference.square_().mean((-2, -1))
    if errors.device.type != "mps":
        errors = errors.double()  # only the result is rounded: near 90 dB float32 is off by 4e-6 dB at once
    return _decibel(errors.mean(-1)).to(pair.dtype), _decibel(errors).mean(-1).to(pair.dtype)


def _decibel(mse: Tensor) -> Tensor:
    return (-10 * mse.log10()).clamp(max=PSNR_CAP)
