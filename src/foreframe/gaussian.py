"""Diagonal Gaussians, the distributions of the latent z."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LOGVAR_LIMIT = 10.0
"""Log variances are held in this range once, where a network makes them, so that the sample and the KL
see the same numbers and exp() stays finite in fp16 (whose limit is 11.09)."""


class Gaussian(NamedTuple):
    """N(mean, exp(logvar)) with independent components; mean and logvar (B, Z...) or (B, T, Z...)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def bounded(cls, mean: Tensor, logvar: Tensor, limit: float = LOGVAR_LIMIT) -> Gaussian:
        """A head's output as a distribution: logvar clamped to [-limit, limit], here and nowhere else."""
        return cls(mean, logvar.clamp(-limit, limit))

    @classmethod
    def standard_like(cls, other: Tensor) -> Gaussian:
        """N(0, I) of the shape, type and device of `other`."""
        return cls(torch.zeros_like(other), torch.zeros_like(other))

    def detach(self) -> Gaussian:
        """The same without its gradient."""
        return Gaussian(self.mean.detach(), self.logvar.detach())

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw: mean + exp(logvar / 2) * noise. Noise of zeros gives the mean."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise
