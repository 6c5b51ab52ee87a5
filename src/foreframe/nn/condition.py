"""A vector condition, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """(cond - mean) / std, with the statistics of the training clips; the identity until `fit` is called.

    Raw actions of a few hundredths have next to no effect beside features near 1. The statistics are buffers, the
    standard deviation under its name in checkpoints, `deviation`. A column that never changes is only shifted.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def fit(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and the standard deviation of each number, D each; a deviation close to zero counts as 1."""
        centre, scale = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        constant = scale < 1e-6 * (1 + centre.abs())
        self.mean.copy_(centre)
        self.deviation.copy_(torch.where(constant, 1.0, scale))

    def forward(self, cond: Tensor) -> Tensor:
        return (cond - self.mean) / self.deviation
