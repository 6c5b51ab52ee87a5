"""How far reconstruction lies above prediction: what z tells that the prior cannot guess."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foreframe.diagnose.unrolling import Batch
from foreframe.metrics import METRICS, psnr, summarise
from foreframe.metrics.paired import paired_difference


class Gap:
    """PSNR of one future drawn from the prior, and of one whose z comes from the posterior."""

    def __init__(self) -> None:
        self.predicted: list[Tensor] = []
        self.reconstructed: list[Tensor] = []

    def add(self, batch: Batch) -> None:
        self.predicted.append(psnr(batch.predicted["true"], batch.truth).cpu())
        self.reconstructed.append(psnr(batch.reconstruction, batch.truth).cpu())

    def result(self) -> dict[str, Any]:
        """Values for JSON, in dB."""
        prediction, reconstruction = (summarise(torch.cat(part)) for part in (self.predicted, self.reconstructed))
        return {
            "prediction": prediction,
            "reconstruction": reconstruction,
            "gap": paired_difference(prediction["per_clip"], reconstruction["per_clip"]),
            "definition": "PSNR of reconstruction (own frames fed back, z from the posterior, which saw the target) "
            "minus PSNR of prediction, in dB, clip by clip; one future of each",
            "metric": METRICS["psnr"].definition,
        }
