"""A vector condition on a scale that a network can hear."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(cond - mean) / deviation, with the statistics of the training clips; the identity until `fit` is called.

    Raw actions of a few hundredths beside features near 1 are hardly heard at all at first. The statistics are
    buffers, so they travel with the weights. A column that never changes is only shifted.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def fit(self, values: Tensor) -> None:
        """Take mean and deviation of conditions (N, D)."""
        values = values.double()
        deviation = values.std(0, correction=0)
        constant = deviation < 1e-6 * (1 + values.abs().amax(0))
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(torch.where(constant, 1.0, deviation))

    def forward(self, cond: Tensor) -> Tensor:
        return (cond - self.mean) / self.deviation
