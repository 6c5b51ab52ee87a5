"""How far reconstruction is above prediction: what z contains that the prior cannot predict."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foreframe.diagnose.unrolling import Batch
from foreframe.metrics import METRICS, Difference, Summary, psnr, summarize
from foreframe.metrics.statistics import paired_difference


@dataclass(frozen=True)
class GapResult:
    """PSNR in dB."""

    prediction: Summary
    reconstruction: Summary
    gap: Difference
    definition: str = (
        "PSNR of reconstruction (own frames fed back, z from the posterior, which saw the target) minus PSNR of "
        "prediction, in dB, clip by clip; one sample of each"
    )
    metric: str = METRICS["psnr"].definition


class Gap:
    """PSNR of one sample drawn from the prior, and of one with z from the posterior."""

    def __init__(self) -> None:
        self.predicted: list[Tensor] = []
        self.reconstructed: list[Tensor] = []

    def add(self, batch: Batch) -> None:
        self.predicted.append(psnr(batch.predicted["true"], batch.truth).cpu())
        self.reconstructed.append(psnr(batch.reconstruction, batch.truth).cpu())

    def result(self) -> GapResult:
        prediction, reconstruction = (summarize(torch.cat(part)) for part in (self.predicted, self.reconstructed))
        gap = paired_difference(prediction.per_clip, reconstruction.per_clip)
        return GapResult(prediction, reconstruction, gap)
