"""What a model says: of one step, and of a whole clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from foreframe.gaussian import Gaussian


class Step(NamedTuple):
    """One predicted frame and where its latent came from.

    frame: (B, C, H, W) in [0, 1]. z: (B, Z...), or None for a model without a latent.
    prior: p(z_t | what came before). posterior: q(z_t | ..., frame t), None where no target was given.
    """

    frame: Tensor
    z: Tensor | None
    prior: Gaussian | None
    posterior: Gaussian | None


@dataclass(frozen=True)
class Unrolled:
    """Predictions of frames 1 .. T-1 of a clip, each from the frame before it, z drawn from the posterior.

    frames: (B, T-1, C, H, W). prior, posterior: (B, T-1, Z...), both None for a model without a latent.
    """

    frames: Tensor
    prior: Gaussian | None
    posterior: Gaussian | None

    @classmethod
    def of(cls, steps: list[Step]) -> Unrolled:
        """Stack the steps of a clip along T."""
        from torch import stack

        def gaussians(parts: list[Gaussian | None]) -> Gaussian | None:
            known = [part for part in parts if part is not None]
            if not known:
                return None
            return Gaussian(stack([part.mean for part in known], 1), stack([part.logvar for part in known], 1))

        return cls(
            frames=stack([step.frame for step in steps], 1),
            prior=gaussians([step.prior for step in steps]),
            posterior=gaussians([step.posterior for step in steps]),
        )
