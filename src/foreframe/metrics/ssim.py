"""Structural similarity (Wang et al., 2004) in the three conventions of published video prediction tables.

Computed in float64 wherever the device has it. No gradients: these are scores, not losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foreframe.metrics.pair import Pair, checked_pair


class Window(NamedTuple):
    """Weights along one side, and the factor that makes a variance under it that of a sample."""

    taps: tuple[float, ...]
    unbiased: float


_UNIFORM = Window((1 / 7,) * 7, 49 / 48)
_BELL = [math.exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6)]
_GAUSSIAN = Window(tuple(weight / sum(_BELL) for weight in _BELL), 1.0)
CONVENTIONS = {"ssim": (_UNIFORM, 1.0), "ssim-range2": (_UNIFORM, 2.0), "ssim-gaussian": (_GAUSSIAN, 1.0)}
"""Window and data range of each way to compute SSIM."""


def ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with a uniform 7x7 window and data range 1; no unit, at most 1.

    The default of scikit-image for floats with `data_range=1`: sample covariance, whole windows only, averaged over
    pixels and then over channels. predicted: (..., C, H, W), floating, in [0, 1]; true: the same shape, or without
    first axes of it (samples S). Returns (...), in [-1, 1].
    Raises ValueError if shapes or values do not fit (see `checked_pair`), or a frame is smaller than the window.
    """
    return _ssim(predicted, true, "ssim")


def ssim_range2(predicted: Tensor, true: Tensor) -> Tensor:
    """`ssim` with data range 2, the default of older scikit-image and so of published SVG scripts: higher values."""
    return _ssim(predicted, true, "ssim-range2")


def ssim_gaussian(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with the 11x11 Gaussian window of the original paper, sigma 1.5, data range 1.

    Population covariance, as in the evaluation of Finn et al. (2016); else as `ssim`; H and W at least 11.
    """
    return _ssim(predicted, true, "ssim-gaussian")


def _ssim(predicted: Tensor, true: Tensor, name: str) -> Tensor:
    pair, (window, data_range) = checked_pair(predicted, true), CONVENTIONS[name]
    return similarities(pair, window, [data_range])[0].reshape(pair.shape)


@torch.no_grad()
def similarities(pair: Pair, window: Window, data_ranges: Sequence[float]) -> Tensor:
    """SSIM (R, S, M) under one window for R data ranges. Raises ValueError for a frame smaller than the window."""
    samples, frames, _, height, width = pair.predicted.shape
    size, device = len(window.taps), pair.true.device
    if min(height, width) < size:
        raise ValueError(f"frames of {height}x{width} are smaller than the {size}x{size} window of this SSIM")
    wide = pair.dtype if device.type == "mps" else torch.float64  # that device has nothing wider
    scores = torch.empty(len(data_ranges), samples, frames, dtype=pair.dtype, device=device)
    for part in pair.parts():
        true = pair.true[part].to(wide)
        true_mean = _means(true, window)
        true_square = _means(true.square(), window)
        for sample, given in enumerate(pair.predicted[:, part]):
            predicted = given.to(wide)
            mean = _means(predicted, window)
            product = true_mean * mean
            squares = true_mean.square() + mean.square()
            covariance = (_means(true * predicted, window) - product) * window.unbiased
            variances = (true_square + _means(predicted.square(), window) - squares) * window.unbiased
            for number, data_range in enumerate(data_ranges):
                c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
                luminance = (2 * product + c1) / (squares + c1)
                contrast = (2 * covariance + c2) / (variances + c2)
                scores[number, sample, part] = (luminance * contrast).mean((-3, -2, -1)).to(pair.dtype)
    return scores


def _means(frames: Tensor, window: Window) -> Tensor:
    """The weighted means under whole windows, (..., H, W) to (..., H', W'), one side after the other."""
    for axis in (-2, -1):
        length = frames.shape[axis] - len(window.taps) + 1
        total = frames.narrow(axis, 0, length) * window.taps[0]
        for start, weight in enumerate(window.taps[1:], 1):
            total.add_(frames.narrow(axis, start, length), alpha=weight)
        frames = total
    return frames
