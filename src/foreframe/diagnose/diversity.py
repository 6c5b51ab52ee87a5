"""Diversity and calibration of samples, and the gain of the best of N."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from foreframe.diagnose.unrolling import Batch
from foreframe.metrics import METRICS, Summary, psnr, summarize
from foreframe.metrics.statistics import Interval, finite, ratio

MOVES = 8 / 255
"""A pixel moves if a channel of it differs by more from the last context frame."""


@dataclass(frozen=True)
class Deviation:
    """Standard deviation of a pixel over samples, pixel values in [0, 1]."""

    deviation: Summary
    share_of_rmse: float | None
    definition: str
    unit: str = "pixel value, 0 to 1"


@dataclass(frozen=True)
class Calibration:
    """Spread of the samples over the error of their mean, in all and of each frame; 1 where calibrated."""

    ratio: float | None
    ci95: Interval | None
    per_frame: tuple[float | None, ...]
    per_frame_ci95: tuple[Interval | None, ...]
    unit: str = "ratio; 1: calibrated, below: too sure, above: too unsure"
    definition: str = (
        "spread sqrt((N+1)/N * variance over N samples) over the RMSE of their mean, each averaged over pixels and "
        "clips before the root (Fortin et al. 2014); intervals: bootstrap over clips"
    )


@dataclass(frozen=True)
class Ranks:
    """Rank histogram of true values among S samples: `shares` of the S+1 ranks, None without values."""

    values: int
    shares: tuple[float, ...] | None
    flat: float
    outside: float | None
    outside_flat: float
    definition: str
    unit: str = "share of the values"


@dataclass(frozen=True)
class BestOfN:
    """PSNR in dB of the best of N samples, by N."""

    psnr: dict[str, Summary]
    definition: str
    unit: str = "dB"
    metric: str = METRICS["psnr"].definition


@dataclass(frozen=True)
class DiversityResult:
    """Of a single sample only `best_of_n` and `why`."""

    samples: int
    best_of_n: BestOfN
    why: str = ""
    diversity: Deviation | None = None
    calibration: Calibration | None = None
    ranks: Ranks | None = None


class Diversity:
    """Collects S samples of each clip; it keeps a few numbers for each clip and frame."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.deviation: list[Tensor] = []
        self.variance: list[Tensor] = []
        self.error: list[Tensor] = []
        self.scores: list[Tensor] = []
        self.ties = torch.zeros((samples + 1) ** 2, dtype=torch.int64)

    def add(self, batch: Batch) -> None:
        samples, truth = batch.samples, batch.truth
        self.scores.append(psnr(samples, truth).double().mean(2).transpose(0, 1).cpu())
        if self.samples < 2:
            return
        mean = samples.mean(0)
        variance = (samples - mean).square().sum(0) / (self.samples - 1)
        self.deviation.append(variance.sqrt().mean((2, 3, 4)).double().cpu())
        self.variance.append(variance.mean((2, 3, 4)).double().cpu())
        self.error.append((mean - truth).square().mean((2, 3, 4)).double().cpu())
        moves = ((truth - batch.last[:, None]).abs().amax(2, keepdim=True) > MOVES).expand_as(truth)
        values, guesses = truth[moves], samples[:, moves]
        below, equal = (guesses < values).sum(0), (guesses == values).sum(0)
        counts = torch.bincount(below * (self.samples + 1) + equal, minlength=len(self.ties))
        self.ties += counts.cpu()

    def result(self) -> DiversityResult:
        best = self._best_of_n(torch.cat(self.scores))
        if self.samples < 2:
            return DiversityResult(1, best, "one sample of each clip (or no latent): there is no diversity")
        return DiversityResult(self.samples, best, "", self._deviation(), self._calibration(), self._ranks())

    def _deviation(self) -> Deviation:
        deviation, error = torch.cat(self.deviation), torch.cat(self.error)
        return Deviation(
            deviation=summarize(deviation),
            share_of_rmse=finite(deviation.mean() / error.mean().sqrt()),
            definition=f"standard deviation of a pixel over {self.samples} samples, mean over pixels and frames; as a "
            "share of the RMSE of the samples' mean",
        )

    def _calibration(self) -> Calibration:
        variance, error = torch.cat(self.variance), torch.cat(self.error)
        inflation = (self.samples + 1) / self.samples

        def calibration(sums: Tensor) -> Tensor:
            """Of (..., 2), variances and squared errors."""
            return (inflation * sums[..., 0] / sums[..., 1]).sqrt()

        whole = ratio(torch.stack([variance.sum(1), error.sum(1)], 1), calibration)
        frames = [ratio(torch.stack([variance[:, t], error[:, t]], 1), calibration) for t in range(variance.shape[1])]
        return Calibration(
            ratio=whole.value,
            ci95=whole.ci95,
            per_frame=tuple(frame.value for frame in frames),
            per_frame_ci95=tuple(frame.ci95 for frame in frames),
        )

    def _ranks(self) -> Ranks:
        """A value that equals e samples is shared evenly among the e + 1 ranks it may have."""
        bins = self.samples + 1
        table = self.ties.double().reshape(bins, bins)
        counts = torch.zeros(bins, dtype=torch.float64)
        for below in range(bins):
            for equal in range(bins - below):
                counts[below : below + equal + 1] += table[below, equal] / (equal + 1)
        total = float(counts.sum())
        return Ranks(
            values=int(total),
            shares=None if total == 0 else tuple((counts / total).tolist()),
            flat=1 / bins,
            outside=None if total == 0 else float(counts[0] + counts[-1]) / total,
            outside_flat=2 / bins,
            definition=f"rank of the true value among {self.samples} samples, over values of pixels that differ by "
            f"more than {round(MOVES * 255)} of 255 from the last context frame; flat if calibrated, high at both ends "
            "if the samples are too alike; outside: below or above all samples",
        )

    def _best_of_n(self, scores: Tensor) -> BestOfN:
        return BestOfN(
            psnr={str(n): summarize(best_of(scores, n)[:, None]) for n in sizes(self.samples)},
            definition="PSNR of the best of N samples (by its mean over frames), expected over all choices of N "
            f"among the {self.samples} made; intervals over clips",
        )


def best_of(scores: Tensor, n: int) -> Tensor:
    """The expected best of n of S scores, drawn without replacement: (N, S) to (N,).

    The i-th smallest is the best of C(i-1, n-1) of the C(S, n) choices.

    Raises:
        ValueError: n is not between 1 and S.
    """
    count = scores.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"n: expected 1 to {count}, got {n}")
    weights = [math.comb(i, n - 1) / math.comb(count, n) for i in range(count)]
    return scores.double().sort(1).values @ torch.tensor(weights, dtype=torch.float64)


def sizes(samples: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to and with `samples`."""
    steps = [digit * 10**power for power in range(len(str(samples))) for digit in (1, 2, 5)]
    return sorted({*(size for size in steps if size <= samples), samples})
