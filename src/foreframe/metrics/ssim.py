"""Structural similarity (Wang et al., 2004) in the three conventions of published video prediction tables.

Windows are laid over many frames at once by small matrix products, and the statistics of the true frames are computed
once however many samples are compared with them. No gradients: these are scores, not losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foreframe.metrics.pair import Pair, checked_pair


class Window(NamedTuple):
    """Weights along one side (their scale is divided out), and what a variance under it is multiplied by."""

    taps: tuple[float, ...]
    unbiased: float

    @property
    def area(self) -> float:
        """What the weights under one window add up to."""
        return sum(self.taps) ** 2


class Convention(NamedTuple):
    """One of the ways to compute SSIM."""

    window: Window
    data_range: float


_UNIFORM = Window((1.0,) * 7, 49 / 48)
_GAUSSIAN = Window(tuple(math.exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6)), 1.0)
CONVENTIONS = {
    "ssim": Convention(_UNIFORM, 1.0),
    "ssim-range2": Convention(_UNIFORM, 2.0),
    "ssim-gaussian": Convention(_GAUSSIAN, 1.0),
}

_BLOCK = 12  # window positions in one product: more make it multiply more zeros, fewer make it short
_RISK = 8.0
"""How much float32 is trusted with. It is off by up to 3e-7 of the mean square of d = x - y under a window, and always
the same way where all of a region has one value; divided by the denominator of SSIM's contrast and averaged over the
windows, 3e-7 times this is what a score may be off by."""


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
    return _ssim(predicted, true, "ssim")


def ssim_range2(predicted: Tensor, true: Tensor) -> Tensor:
    """`ssim` with data range 2: what older scikit-image took for floats, so what published SVG scripts report.

    The larger range weakens the contrast terms and gives higher values on the same frames.
    """
    return _ssim(predicted, true, "ssim-range2")


def ssim_gaussian(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM of each frame with the 11x11 Gaussian window of the original paper, sigma 1.5, data range 1.

    Population covariance and whole windows only, averaged over pixels and then over channels, as in the evaluation
    of Finn et al. (2016). Arguments, range and errors as for `ssim`; H and W at least 11.
    """
    return _ssim(predicted, true, "ssim-gaussian")


def _ssim(predicted: Tensor, true: Tensor, name: str) -> Tensor:
    pair = checked_pair(predicted, true)
    scores, _ = similarities(pair, CONVENTIONS[name].window, [CONVENTIONS[name].data_range])
    return scores[0].reshape(pair.shape)


@torch.no_grad()
def similarities(pair: Pair, window: Window, data_ranges: Sequence[float]) -> tuple[Tensor, Tensor]:
    """SSIM under one window for each of R data ranges (R, S, M), and the squared error met on the way (S, M, C).

    On a CPU the sums are made in float32, and once more in float64 for frames where that could be seen in the score.
    A GPU would have to be waited for to know which these are: there all is float64.

    Raises:
        ValueError: a frame is smaller than the window.
    """
    samples, frames, channels, height, width = pair.predicted.shape
    size, device = len(window.taps), pair.true.device
    if min(height, width) < size:
        raise ValueError(f"frames of {height}x{width} are smaller than the {size}x{size} window of this SSIM")
    scores = torch.empty(len(data_ranges), samples, frames, dtype=pair.dtype, device=device)
    errors = torch.empty(samples, frames, channels, dtype=pair.dtype, device=device)
    wide = torch.float32 if device.type == "mps" else torch.float64  # that device has nothing wider
    quick = pair.dtype if device.type == "cpu" and _products_are_exact() else wide
    truth: _Truth | None = None
    with torch.autocast(device.type, enabled=False):
        for part in pair.parts():
            true, predicted = pair.true[part], pair.predicted[:, part]
            if truth is None or len(true) != truth.count:
                truth = _Truth(true, window, wide)
                compare = _Comparison(truth, data_ranges, quick)
            truth.load(true.to(quick))
            compare.load()
            found = [compare(sample) for sample in predicted]
            if any(compared.risky for compared in found):
                again = _Comparison(truth, data_ranges, wide)
                again.load()
                pairs = zip(predicted, found, strict=True)
                found = [again(sample) if compared.risky else compared for sample, compared in pairs]
            values = torch.stack([torch.stack(compared.scores) for compared in found], 1)  # (R, S, n)
            scores[:, :, part] = values.unflatten(2, (-1, channels)).mean(-1)
            errors[:, part] = torch.stack([compared.errors for compared in found])
    return scores, errors


def _products_are_exact() -> bool:
    """Whether matrix products of float32 on this CPU are that, and not of shorter numbers for the sake of speed."""
    return torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")  # type: ignore[attr-defined]


class _Truth:
    """m true frames (m, C, H, W) and the sums under each of their windows (H', W', n), n = m C."""

    def __init__(self, like: Tensor, window: Window, wide: torch.dtype) -> None:
        """Room for frames of the shape of `like`, and for sums of a dtype in which their squares may be subtracted."""
        self.count, self.window = len(like), window
        self.pixels = torch.empty(like.shape, dtype=wide, device=like.device)
        windows = _Windows(self.pixels, window)
        self.sum, self.add_up = windows.summed(self.pixels)
        self.variance, self.add_up_squares = windows.summed(self.pixels)

    def load(self, frames: Tensor) -> None:
        """Takes the next frames."""
        self.frames = frames
        self.level = frames.mean((-2, -1), keepdim=True)  # to take it off changes no variance, and keeps digits
        self.centred = frames - self.level
        self.pixels.copy_(self.centred)
        self.add_up()
        self.pixels.square_()
        self.add_up_squares()
        self.variance.addcmul_(self.sum, self.sum, value=-1 / self.window.area)


class _Compared(NamedTuple):
    """What comes out of the comparison of m frames with one sample of them."""

    scores: list[Tensor]  # (n,), for each data range
    errors: Tensor  # (m, C)
    risky: bool


class _Comparison:
    r"""Compares samples with the same few true frames, in buffers of its own.

    With $d = x - y$, only three sums under each window change from sample to sample: those of $d$, $d^2$ and $dy$.
    The denominators of SSIM are its numerators and what is left: $m_x^2 + m_y^2 = 2 m_x m_y + m_d^2$ and
    $v_x + v_y = 2 v_{xy} + v_d$. So rounding grows with the difference of two frames, not with the frames, and equal
    ones score 1. Means stay multiplied by the window's area, and so do variances, divided by its `unbiased`.
    """

    def __init__(self, truth: _Truth, data_ranges: Sequence[float], dtype: torch.dtype) -> None:
        self.truth, self.dtype, self.area = truth, dtype, truth.window.area
        self.rounds = dtype != truth.pixels.dtype
        self.constants = [((0.01 * r) ** 2, (0.03 * r) ** 2 / truth.window.unbiased) for r in data_ranges]
        self.difference, self.product = (torch.empty_like(truth.pixels, dtype=dtype) for _ in range(2))
        windows = _Windows(self.difference, truth.window)
        self.sum, self.add_up = windows.summed(self.difference)
        self.variance, self.add_up_squares = windows.summed(self.difference)
        self.covariance, self.add_up_products = windows.summed(self.product)
        self.scratch = [torch.empty_like(self.sum) for _ in range(3)]

    def load(self) -> None:
        """Takes what changes with the true frames from the truth."""
        truth = self.truth
        self.true, self.centred, self.centred_sum = (
            part.to(self.dtype) for part in (truth.frames, truth.centred, truth.sum)
        )
        self.true_sum = torch.add(self.centred_sum, truth.level.flatten().to(self.dtype), alpha=self.area)
        variance = truth.variance.to(self.dtype)
        self.ranges = [
            (
                self.true_sum.square().mul_(2).add_(self.area**2 * c1),
                torch.mul(variance, 2).add_(self.area * c2),
                _RISK * c2,
            )
            for c1, c2 in self.constants
        ]

    def __call__(self, predicted: Tensor) -> _Compared:
        """Compares (m, C, H, W) of any floating dtype."""
        mean, variance, covariance, (above, below, factor) = self.sum, self.variance, self.covariance, self.scratch
        torch.sub(predicted, self.true, out=self.difference)  # each map is summed at once, while it is in cache
        self.add_up()
        torch.mul(self.difference, self.centred, out=self.product)
        self.add_up_products()
        self.difference.square_()
        self.add_up_squares()
        errors = self.difference.mean((-2, -1))
        variance.addcmul_(mean, mean, value=-1 / self.area)
        covariance.addcmul_(mean, self.centred_sum, value=-1 / self.area)
        worst = float(errors.max()) if self.rounds else 0.0
        scores, risky = [], False
        for luminance, contrast, risk in self.ranges:
            torch.add(contrast, covariance, alpha=2, out=above)
            torch.add(above, variance, out=below)
            if worst > risk:
                torch.mul(mean, mean, out=factor).div_(below)
                risky |= float(_per_image(factor).max()) > _RISK * self.area
            torch.addcmul(luminance, mean, self.true_sum, value=2, out=factor)
            above.mul_(factor)
            below.mul_(factor.addcmul_(mean, mean))
            scores.append(_per_image(above.div_(below)))
        return _Compared(scores, errors, risky)


def _per_image(values: Tensor) -> Tensor:
    """(H', W', n) to its mean over windows (n,); one axis after the other takes half the time of both."""
    return values.mean(0).mean(0)


class _Windows:
    """The products that sum what lies under each window.

    Frames (n, H, W) are multiplied from the left by a band of weights, transposed, to (W', n, H), and that once more
    to (H', W', n). Transposing costs a matrix product nothing, and both have the long side on which it is fast.
    A band is cut into blocks of few window positions, which see few pixels: most of the whole band is zeros.
    """

    def __init__(self, like: Tensor, window: Window) -> None:
        """For frames of the shape (m, C, H, W), the dtype and the device of `like`."""
        height, width = like.shape[-2:]
        self.last = len(window.taps) - 1
        self.band = like.new_zeros(_BLOCK, _BLOCK + self.last)
        for offset, weight in enumerate(window.taps):
            self.band.diagonal(offset).fill_(weight)
        self.sides = height - self.last, width - self.last
        self.between = like.new_empty(self.sides[1], len(like.flatten(0, 1)), height)

    def summed(self, frames: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """A buffer (H', W', n), and a function that puts into it the sums of what then lies in the buffer `frames`."""
        height, width = frames.shape[-2:]
        sums = frames.new_empty(*self.sides, self.between.shape[1])
        steps = self._steps(frames.view(-1, width).T, self.between.flatten(1))
        steps += self._steps(self.between.view(-1, height).T, sums.flatten(1))

        def add_up() -> None:
            for band, pixels, target in steps:
                torch.mm(band, pixels, out=target)

        return sums, add_up

    def _steps(self, pixels: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What to multiply, and where to put it, block by block: pixels (side, ...) to targets (positions, ...)."""
        steps = []
        for start in range(0, len(target), _BLOCK):
            placed = target[start : start + _BLOCK]
            seen = len(placed) + self.last
            steps.append((self.band[: len(placed), :seen], pixels[start : start + seen], placed))
        return steps
