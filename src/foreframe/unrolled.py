"""The outputs of a model: of one step, and of a whole clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
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

    frames: (B, T-1, C, H, W). prior, posterior: (B, T-1, Z...), both None for a model without a latent. state_error:
    mean squared error of predicted measured states, in standard deviations; None where none are predicted.
    """

    frames: Tensor
    prior: Gaussian | None
    posterior: Gaussian | None
    state_error: Tensor | None = None

    @classmethod
    def of(cls, steps: list[Step]) -> Unrolled:
        """Stack the steps of a clip along T."""

        def gaussians(parts: list[Gaussian | None]) -> Gaussian | None:
            known = [part for part in parts if part is not None]
            if not known:
                return None
            return Gaussian(
                torch.stack([part.mean for part in known], 1), torch.stack([part.logvar for part in known], 1)
            )

        return cls(
            frames=torch.stack([step.frame for step in steps], 1),
            prior=gaussians([step.prior for step in steps]),
            posterior=gaussians([step.posterior for step in steps]),
        )


def free_running_steps(forcing: Tensor, context: int) -> frozenset[int]:
    """The steps t > K at which some clip is fed the model's own frame t-1, by a mask (B, T-1)."""
    forced = forcing.all(0).tolist()
    return frozenset(t for t in range(context + 1, len(forced) + 1) if not forced[t - 1])


def segments(length: int, free_running: frozenset[int]) -> list[tuple[int, int]]:
    """Steps 1 .. length-1 as (start, stop): free-running ones alone, the others together as far as they reach."""
    found: list[tuple[int, int]] = []
    for t in range(1, length):
        if found and t not in free_running and found[-1][0] not in free_running:
            found[-1] = (found[-1][0], t + 1)
        else:
            found.append((t, t + 1))
    return found


def repeat_samples(values: Tensor, rows: int) -> Tensor:
    """Rows (B, ...) repeated to (S*B, ...), samples first: values that S samples of a clip have in common."""
    return values if len(values) == rows else values.repeat(rows // len(values), *[1] * (values.ndim - 1))
