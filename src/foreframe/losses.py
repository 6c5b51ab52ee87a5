"""The terms of the evidence lower bound, each kept per frame (B, T) until its reduction is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foreframe.gaussian import Gaussian
from foreframe.unrolled import Unrolled

ACTIVE_NATS = 0.01
"""A latent unit carries information if its KL, averaged over clips and frames, exceeds this."""
COLLAPSED_NATS = 0.01
"""Below this many nats a frame the posterior has collapsed: z carries nothing."""


@dataclass(frozen=True)
class LossConfig:
    """How the two terms are measured and reduced, before beta is applied."""

    reconstruction: Literal["mse", "l1"] = "mse"
    """Difference of predicted and true pixels: squared, or absolute."""
    pixels: Literal["mean", "sum"] = "mean"
    """Over C, H, W of a frame: mean, as both labs and SVG have it; sum is the Gaussian likelihood's scale."""
    latents: Literal["sum", "mean"] = "sum"
    """Over Z: sum gives nats (SVG, both labs). mean makes beta mean the same for any size of latent."""
    steps: Literal["sum", "mean"] = "sum"
    """Over the predicted frames: sum, as both labs and SVG have it; mean for windows of changing length."""


class Terms(NamedTuple):
    """A step's loss, its parts, and what the latent does. Scalars on the device; stacked (6,), in this order."""

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    mse: Tensor
    kl_nats: Tensor
    active_units: Tensor


def kl_per_frame(q: Gaussian, p: Gaussian) -> Float[Tensor, "B T"]:
    r"""KL(q || p) of two diagonal Gaussians, in nats, summed over Z and kept per frame.

    Args:
        q: Posterior; mean and logvar (B, T, Z...).
        p: Prior, same shape.
    Returns:
        (B, T), >= 0 up to rounding. Denton & Fergus (2018), eq. 3, is `.sum(1).mean()` of this.
    Raises:
        ValueError: the shapes differ; both are printed.
    """
    return kl_per_unit(q, p).flatten(2).sum(2)


def kl_per_unit(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of each latent unit, in nats, (B, T, Z...); computed in float32 whatever the inputs."""
    if q.mean.shape != p.mean.shape:
        raise ValueError(f"posterior {tuple(q.mean.shape)} and prior {tuple(p.mean.shape)} differ in shape")
    wide = torch.promote_types(q.mean.dtype, torch.float32)
    q_mean, q_logvar, p_mean, p_logvar = (part.to(wide) for part in (*q, *p))
    ratio = torch.exp(q_logvar - p_logvar)
    distance = (q_mean - p_mean).square() * torch.exp(-p_logvar)
    return 0.5 * (p_logvar - q_logvar + ratio + distance - 1)


def elbo(unrolled: Unrolled, target: Tensor, beta: Tensor | float, config: LossConfig) -> Terms:
    """The negative evidence lower bound: reconstruction + beta * KL, averaged over B.

    Args:
        unrolled: Predictions of frames 1 .. T-1, z from the posterior.
        target: The true frames 1 .. T-1, (B, T-1, C, H, W) in [0, 1].
        beta: Weight of the KL term.
        config: Names every reduction.
    Raises:
        ValueError: predictions and targets differ in shape.
    """
    if unrolled.frames.shape != target.shape:
        raise ValueError(f"predicted {tuple(unrolled.frames.shape)} and true {tuple(target.shape)} differ in shape")
    error = unrolled.frames.float() - target
    squared = error.square().flatten(2)
    pixels = squared if config.reconstruction == "mse" else error.abs().flatten(2)
    reconstruction = _over_steps(pixels.mean(2) if config.pixels == "mean" else pixels.sum(2), config)
    if unrolled.posterior is None or unrolled.prior is None:
        kl = kl_nats = active = torch.zeros((), device=target.device)
    else:
        units = kl_per_unit(unrolled.posterior, unrolled.prior).flatten(2)
        kl = _over_steps(units.sum(2) if config.latents == "sum" else units.mean(2), config)
        kl_nats = units.detach().sum(2).mean()
        active = (units.detach().mean((0, 1)) > ACTIVE_NATS).sum().float()
    return Terms(reconstruction + beta * kl, reconstruction, kl, squared.detach().mean(), kl_nats, active)


def _over_steps(per_frame: Float[Tensor, "B T"], config: LossConfig) -> Tensor:
    per_clip = per_frame.sum(1) if config.steps == "sum" else per_frame.mean(1)
    return per_clip.mean()
