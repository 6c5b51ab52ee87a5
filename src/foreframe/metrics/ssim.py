"""Structural similarity (Wang et al., 2004) in the three conventions of published video prediction tables.

Windows are laid over many frames at once by two small matrix products with band matrices, and the statistics of the
true frames are computed once however many samples are compared with them. No gradients: these are scores, not losses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from foreframe.metrics.pair import checked_pair


class _Window(NamedTuple):
    """Weights along one side (their scale is divided out), and what a variance under it is multiplied by."""

    taps: list[float]
    unbiased: float


_UNIFORM = _Window([1.0] * 7, 49 / 48)
_GAUSSIAN = _Window([math.exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6)], 1.0)
_VALUES_AT_ONCE = 2**18  # keeps the intermediate maps in cache on a CPU and memory flat in the number of samples


def ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with a uniform 7x7 window and data range 1; no unit, at most 1.

    The default of scikit-image for floats with `data_range=1`: sample covariance, whole windows only, averaged over
    pixels and then over channels.

    Args:
        predicted: (..., C, H, W), floating, in [0, 1]; H and W at least 7.
        true: The same shape, or without first axes of it (samples S).
    Returns:
        (...), in [-1, 1]; 1 for equal frames.
    Raises:
        ValueError: shapes or values do not fit (see `checked_pair`), or a frame is smaller than the window.
    """
    return _ssim(predicted, true, _UNIFORM)


def ssim_range2(predicted: Tensor, true: Tensor) -> Tensor:
    """`ssim` with data range 2: what older scikit-image took for floats, so what published SVG scripts report.

    The larger range weakens the contrast terms and gives higher values on the same frames.
    """
    return _ssim(predicted, true, _UNIFORM, data_range=2.0)


def ssim_gaussian(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with the 11x11 Gaussian window of the original paper, sigma 1.5, data range 1.

    Population covariance and whole windows only, averaged over pixels and then over channels, as in the evaluation
    of Finn et al. (2016). Arguments, range and errors as for `ssim`; H and W at least 11.
    """
    return _ssim(predicted, true, _GAUSSIAN)


@torch.no_grad()
def _ssim(predicted: Tensor, true: Tensor, window: _Window, data_range: float = 1.0) -> Tensor:
    r"""SSIM from the mean and variance of x, y and d = x - y in each window.

    Of the two factors of SSIM, $(2 m_x m_y + c_1) / (m_x^2 + m_y^2 + c_1)$ is $1 - m_d^2 / (m_x^2 + m_y^2 + c_1)$ and
    $(2 v_{xy} + c_2) / (v_x + v_y + c_2)$ is $1 - v_d / (v_x + v_y + c_2)$: the same numbers with one map fewer, and
    far more exact where frames are nearly equal. Each frame's own mean is taken off first, which changes no variance
    and keeps digits in $v = \mathrm{mean}(x^2) - \mathrm{mean}(x)^2$. In float32 a drawing of a few flat colours would
    still be off by 7e-6, so sums are made in float64.
    """
    predicted, true = checked_pair(predicted, true)
    height, width = true.shape[-2:]
    size = len(window.taps)
    if min(height, width) < size:
        raise ValueError(f"frames of {height}x{width} are smaller than the {size}x{size} window of this SSIM")
    given = predicted
    true = true.reshape(-1, *true.shape[-3:])  # (M, C, H, W)
    predicted = predicted.reshape(-1, *true.shape)  # (S, M, C, H, W)
    dtype = _exact_dtype(true)
    rows = _band(height, window.taps).to(true.device, dtype).mT
    columns = _band(width, window.taps).to(true.device, dtype)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def mean(pixels: Tensor) -> Tensor:
        return (rows @ (pixels @ columns)).mul_(1 / sum(window.taps) ** 2)

    def centred(pixels: Tensor) -> tuple[Tensor, Tensor]:
        level = pixels.mean((-2, -1), keepdim=True)
        return pixels - level, level

    def variance(pixels: Tensor, means: Tensor) -> Tensor:
        return mean(pixels.square()).addcmul_(means, means, value=-1).mul_(window.unbiased)

    step = max(1, _VALUES_AT_ONCE // true[0].numel())
    scores = []
    with torch.autocast(true.device.type, enabled=False):
        for start in range(0, len(true), step):
            y, y_level = centred(true[start : start + step].to(dtype))
            y_mean = mean(y)
            y_contrast = variance(y, y_mean).add_(c2)
            y_full = y_mean + y_level
            y_luminance = y_full.square().add_(c1)
            parts = []
            for sample in predicted[:, start : start + step]:
                x, x_level = centred(sample.to(dtype))
                x_mean = mean(x)
                x_contrast = variance(x, x_mean).add_(y_contrast)
                contrast = variance(x.sub_(y), x_mean - y_mean).div_(x_contrast).neg_().add_(1)
                x_full = x_mean.add_(x_level)
                luminance = (x_full - y_full).square_().div_(x_full.square_().add_(y_luminance)).neg_().add_(1)
                parts.append(luminance.mul_(contrast).mean((-3, -2, -1)))
            scores.append(torch.stack(parts))
    return torch.cat(scores, dim=1).reshape(given.shape[:-3]).to(given.dtype)


def _band(size: int, taps: list[float]) -> Tensor:
    """(size, size - len(taps) + 1): column j holds the window's weights, starting in row j."""
    band = torch.zeros(size, size - len(taps) + 1, dtype=torch.float64)
    for offset, weight in enumerate(taps):
        band.diagonal(-offset).fill_(weight)
    return band


def _exact_dtype(frames: Tensor) -> torch.dtype:
    """float64, in which every picture agrees with scikit-image to 5e-6; float32 on devices that have nothing wider."""
    return frames.dtype if frames.device.type == "mps" else torch.float64
