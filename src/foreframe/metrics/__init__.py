"""Scores of predicted frames, each named after the convention it follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from foreframe.metrics.frames import PSNR_CAP, psnr, psnr_per_channel, score_frames, ssim, ssim_gaussian, ssim_range2
from foreframe.metrics.fvd import Fvd
from foreframe.metrics.lpips import Lpips, without_weights
from foreframe.metrics.statistics import Difference, Ratio, Summary, format_mean, summarize, t_quantile

__all__ = [
    "METRICS", "PSNR_CAP", "Difference", "Fvd", "Lpips", "Metric", "Ratio", "Summary", "format_mean", "psnr",
    "psnr_per_channel", "score_frames", "ssim", "ssim_gaussian", "ssim_range2", "summarize", "t_quantile",
]  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A score of each frame; higher is better unless `lower_is_better`.

    definition: the sentence in the protocol of every result. unit: what a plot writes behind the number, "" for none.
    """

    name: str
    definition: str
    unit: str
    score: Callable[[Tensor, Tensor], Tensor]
    lower_is_better: bool = False

    def __call__(self, predicted: Tensor, true: Tensor) -> Tensor:
        """(..., C, H, W) twice, floats in [0, 1], to (...); `true` may lack first axes (samples S)."""
        return self.score(predicted, true)


_CAP = f"capped at {PSNR_CAP:g} dB"
_PSNR = f"PSNR in dB of each frame, 10 log10(1 / MSE) with one MSE over channels and pixels, peak 1, {_CAP}."
_PSNR_CHANNEL = f"PSNR in dB of each channel by itself, peak 1, {_CAP}, then the mean over channels."
_SSIM = (
    "SSIM of each frame, {}, K1 0.01, K2 0.03, data range {}, {} covariance, whole windows only, mean over pixels and "
    "channels."
)
_UNIFORM, _GAUSSIAN = "uniform 7x7 window", "Gaussian 11x11 window of sigma 1.5"
_LPIPS = "LPIPS v0.1 of each frame with AlexNet, frames brought to [-1, 1], not multiplied by 100; lower is better."

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("psnr", _PSNR, "dB", psnr),
        Metric("psnr-channel", _PSNR_CHANNEL, "dB", psnr_per_channel),
        Metric("ssim", _SSIM.format(_UNIFORM, 1, "sample"), "", ssim),
        Metric("ssim-range2", _SSIM.format(_UNIFORM, 2, "sample"), "", ssim_range2),
        Metric("ssim-gaussian", _SSIM.format(_GAUSSIAN, 1, "population"), "", ssim_gaussian),
        Metric("lpips", _LPIPS, "", without_weights, lower_is_better=True),
    )
}
"""Every metric by the name used in flags, tables and result files."""
