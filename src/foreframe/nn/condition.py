"""A vector condition on a scale that a network can hear."""

from __future__ import annotations

from collections.abc import Sequence

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

    def fit(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Take the mean and the deviation of each number, D each; a deviation next to nothing counts as none."""
        centre = torch.tensor(mean, dtype=torch.float64)
        spread = torch.tensor(deviation, dtype=torch.float64)
        constant = spread < 1e-6 * (1 + centre.abs())
        self.mean.copy_(centre)
        self.deviation.copy_(torch.where(constant, 1.0, spread))

    def forward(self, cond: Tensor) -> Tensor:
        return (cond - self.mean) / self.deviation
