"""The terms of the evidence lower bound, each kept per frame (B, T) until its reduction is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foreframe.config import Range
from foreframe.gaussian import Gaussian
from foreframe.unrolled import Unrolled

ACTIVE_NATS = 0.01
"""A latent unit carries information if its KL, averaged over clips and frames, exceeds this."""
COLLAPSED_NATS = 0.01
"""Below this many nats a frame the posterior has collapsed: z carries nothing."""
FLOOR = 1e-4
"""Squared error that the logarithmic loss does not look below: 40 dB."""


Weight = Annotated[float, Range(0, 10**9)]


@dataclass(frozen=True)
class LossConfig:
    """How the two terms are measured and reduced, before beta is applied."""

    reconstruction: Literal["mse", "l1", "log-mse"] = "mse"
    """Difference of predicted and true pixels: squared, absolute, or half the logarithm of each frame's mean squared
    error plus `FLOOR`: the likelihood at the best noise of each frame, which trains PSNR itself (Rybkin et al. 2021).
    The KL of a frame is then divided by twice that error, so that beta keeps its meaning."""
    pixels: Literal["mean", "sum"] = "mean"
    """Over C, H, W of a frame: mean, as both labs and SVG have it; sum is the Gaussian likelihood's scale."""
    latents: Literal["sum", "mean"] = "sum"
    """Over Z: sum gives nats (SVG, both labs). mean makes beta mean the same for any size of latent."""
    steps: Literal["sum", "mean"] = "sum"
    """Over the predicted frames: sum, as both labs and SVG have it; mean for windows of changing length."""
    prior_beta: Weight = 0.0
    """Above 0, the KL is split (Hafner et al. 2021): beta is its weight for the posterior alone, this for the prior,
    which would learn too slowly at a small beta."""
    free_nats: Weight = 0.0
    """The KL of a clip and frame counts from this many nats on: below, nothing presses z towards the prior."""


class Terms(NamedTuple):
    """A step's loss, its parts, and what the latent does. Scalars on the device; stacked (7,), in this order."""

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    mse: Tensor
    kl_nats: Tensor
    active_units: Tensor
    state_error: Tensor


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
    weight: Tensor | float = 1.0
    if config.reconstruction == "log-mse":
        noise = squared.mean(2) + FLOOR
        reconstruction, weight = _over_steps(0.5 * noise.log(), config), 0.5 / noise.detach()
    else:
        pixels = squared if config.reconstruction == "mse" else error.abs().flatten(2)
        reconstruction = _over_steps(pixels.mean(2) if config.pixels == "mean" else pixels.sum(2), config)
    nothing = torch.zeros((), device=target.device)
    states = nothing if unrolled.state_error is None else unrolled.state_error.float()
    mse = squared.detach().mean()
    if unrolled.posterior is None or unrolled.prior is None:
        loss = reconstruction if unrolled.state_error is None else reconstruction + states
        return Terms(loss, reconstruction, nothing, mse, nothing, nothing, states)
    q, p = unrolled.posterior, unrolled.prior
    units = kl_per_unit(q, p).flatten(2)
    if config.prior_beta:
        kl = _kl_term(kl_per_unit(q, p.detach()).flatten(2), weight, config)
        trains_prior = _kl_term(kl_per_unit(q.detach(), p).flatten(2), weight, config)
        loss = reconstruction + beta * kl + config.prior_beta * trains_prior
    else:
        kl = _kl_term(units, weight, config)
        loss = reconstruction + beta * kl
    if unrolled.state_error is not None:
        loss = loss + states
    kl_nats = units.detach().sum(2).mean()
    active = (units.detach().mean((0, 1)) > ACTIVE_NATS).sum().float()
    return Terms(loss, reconstruction, kl, mse, kl_nats, active, states)


def _kl_term(units: Tensor, weight: Tensor | float, config: LossConfig) -> Tensor:
    """The KL of units (B, T, Z) as it enters the loss."""
    nats = units.sum(2) if config.latents == "sum" else units.mean(2)
    return _over_steps(weight * (nats.clamp(min=config.free_nats) if config.free_nats else nats), config)


def _over_steps(per_frame: Float[Tensor, "B T"], config: LossConfig) -> Tensor:
    per_clip = per_frame.sum(1) if config.steps == "sum" else per_frame.mean(1)
    return per_clip.mean()
