"""PSNR and SSIM (Wang et al., 2004) of single frames, in the forms of published video prediction tables.

Computed in float64 wherever the device has it. No gradients: these are scores, not losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PSNR_CAP = 100.0
"""dB given to frames closer than that, equal ones included, so that means over frames and clips stay finite.

One grey level in one value of a 64x64 RGB frame is 89 dB: at that size the cap is reached only by equal frames.
"""
TOLERANCE = 1e-4
"""How far outside [0, 1] a pixel may lie (rounding of a sigmoid or of a lower precision) before it is refused."""
_VALUES_AT_ONCE = {"cpu": 2**17}
_VALUES_ELSEWHERE = 2**22
"""Values of the truth compared at once: on a CPU what stays in cache, elsewhere enough to fill the device. It, and not
the number of samples, sets how much memory a metric takes."""


class Window(NamedTuple):
    """Weights along one side, and the factor that makes a variance under it that of a sample."""

    taps: tuple[float, ...]
    unbiased: float


_UNIFORM = Window((1 / 7,) * 7, 49 / 48)
_BELL = [math.exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6)]
_GAUSSIAN = Window(tuple(weight / sum(_BELL) for weight in _BELL), 1.0)
CONVENTIONS = {"ssim": (_UNIFORM, 1.0), "ssim-range2": (_UNIFORM, 2.0), "ssim-gaussian": (_GAUSSIAN, 1.0)}
"""Window and data range of each way to compute SSIM."""
_PSNR = ("psnr", "psnr-channel")


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    r"""PSNR in dB of a frame: $10 \log_{10}(1 / \mathrm{MSE})$, mean over (C, H, W), peak 1.

    predicted: (..., C, H, W), floating, in [0, 1]. true: the same shape, or without first axes of it (samples S).
    Returns (...). Raises ValueError if shapes or values do not fit; see `checked_pair`.
    """
    return score_frames(predicted, true, ["psnr"])["psnr"]


def psnr_per_channel(predicted: Tensor, true: Tensor) -> Tensor:
    """PSNR in dB of each channel, capped, then averaged over channels, as SVG and SRVP do: never below `psnr`."""
    return score_frames(predicted, true, ["psnr-channel"])["psnr-channel"]


def ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with a uniform 7x7 window and data range 1; no unit, at most 1.

    The default of scikit-image for floats with `data_range=1`: sample covariance, whole windows only, averaged over
    pixels and then over channels. predicted: (..., C, H, W), floating, in [0, 1]; true: the same shape, or without
    first axes of it (samples S). Returns (...), in [-1, 1].
    Raises ValueError if shapes or values do not fit (see `checked_pair`), or a frame is smaller than the window.
    """
    return score_frames(predicted, true, ["ssim"])["ssim"]


def ssim_range2(predicted: Tensor, true: Tensor) -> Tensor:
    """`ssim` with data range 2, the default of older scikit-image and so of published SVG scripts: higher values."""
    return score_frames(predicted, true, ["ssim-range2"])["ssim-range2"]


def ssim_gaussian(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with the 11x11 Gaussian window of the original paper, sigma 1.5, data range 1.

    Population covariance, as in the evaluation of Finn et al. (2016); else as `ssim`; H and W at least 11.
    """
    return score_frames(predicted, true, ["ssim-gaussian"])["ssim-gaussian"]


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


class Pair(NamedTuple):
    """Frames that may be compared: M true ones and S samples of each. S and M stand for the first axes as given."""

    predicted: Tensor  # (S, M, C, H, W), in the dtype given
    true: Tensor  # (M, C, H, W), in the dtype given
    shape: torch.Size  # (...), what (S, M) scores are given back as
    dtype: torch.dtype  # of the scores

    def parts(self) -> Iterator[slice]:
        """Slices of M, as even as possible, that are worth comparing at once."""
        frames, values = len(self.true), self.true[0].numel()
        at_once = _VALUES_AT_ONCE.get(self.true.device.type, _VALUES_ELSEWHERE)
        step = math.ceil(frames / math.ceil(frames / max(1, at_once // values)))
        return (slice(start, min(start + step, frames)) for start in range(0, frames, step))


def checked_pair(predicted: Tensor, true: Tensor) -> Pair:
    """The two tensors as a pair, to be scored in a floating dtype of at least 32 bits.

    predicted: (..., C, H, W), floating, in [0, 1]. true: the same shape, perhaps without some first axes: (B, T, C, H,
    W) serves (S, B, T, C, H, W).
    Raises ValueError for other shapes, whole numbers, and values outside [0, 1] or not finite.
    """
    extra = predicted.ndim - true.ndim
    if true.ndim < 3 or extra < 0 or predicted.shape[extra:] != true.shape:
        raise ValueError(
            f"predicted and true: expected (..., C, H, W) of one shape (true may lack first axes of predicted), "
            f"got {tuple(predicted.shape)} and {tuple(true.shape)}"
        )
    if not true.numel() or not predicted.numel():
        raise ValueError(f"predicted and true: expected pixels, got the empty shape {tuple(predicted.shape)}")
    for name, frames in (("predicted", predicted), ("true", true)):
        if not frames.is_floating_point():
            raise ValueError(f"{name}: expected floats in [0, 1], got {frames.dtype}; call Clip.unit() first")
    predicted, true = predicted.detach(), true.detach()
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, true.dtype), torch.float32)
    ends = torch.stack([end.to(dtype) for end in (*predicted.aminmax(), *true.aminmax())])
    lowest, highest, *of_true = ends.tolist()  # the only time a metric waits for its device
    for name, low, high in (("predicted", lowest, highest), ("true", *of_true)):
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also catches NaN, which aminmax hands on
            raise ValueError(
                f"{name}: expected values in [0, 1], got {low:g} to {high:g}; scale the frames to that range first"
            )
    shape = predicted.shape[:-3]
    true = true.reshape(-1, *true.shape[-3:])
    return Pair(predicted.reshape(-1, *true.shape), true, shape, dtype)


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
