"""SVG (Denton & Fergus 2018, "Stochastic Video Generation with a Learned Prior"), conditioned on actions.

    h_t-1, skips = encode(x_t-1)                      VGG or DCGAN
    z_t ~ q(z | encode(x_1..t))     in training       a Gaussian LSTM, the posterior
    z_t ~ p(z | h_1..t-1) or N(0, I)   in prediction  learned or fixed prior
    x^_t = decode(LSTM([h_t-1, z_t, cond_t]), skips)

With `prior="none"` there is no latent: the deterministic baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.gaussian import Gaussian
from foreframe.nn.backbones import Backbone, init_dcgan, make_backbone
from foreframe.nn.condition import Standardise
from foreframe.nn.lstm import FramePredictor, GaussianLstm, Memory
from foreframe.unrolled import Step, Unrolled

Features = tuple[Tensor, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's for BAIR."""

    backbone: Backbone = "vgg"
    """Encoder and decoder: dcgan or vgg; 64 or 128 pixels follow from the clips."""
    prior: Literal["learned", "fixed", "none"] = "learned"
    """p(z): an LSTM of the past (SVG-LP), N(0, I) (SVG-FP), or no latent at all."""
    width: int = 64
    """Channels of the first stage; 64 in the paper."""
    g_dim: int = 128
    """G, length of a frame's vector."""
    z_dim: int = 64
    """Z, length of the latent."""
    rnn_size: int = 256
    """R, units in each LSTM layer."""
    predictor_layers: int = 2
    """LSTM layers of the frame predictor."""
    posterior_layers: int = 1
    """LSTM layers of the posterior."""
    prior_layers: int = 1
    """LSTM layers of the learned prior."""
    predictor_norm: bool = False
    """BatchNorm before the predictor's tanh: the action lab's template has it, SVG does not."""
    skip: Literal["last-context", "svg", "last-frame"] = "last-context"
    """Whose maps the decoder sees. last-context: frame K-1, as the paper says; svg: frame K-2, as its code
    does; last-frame: always the previous frame (its --last_frame_skip)."""
    detach_feedback: bool = False
    """Cut the gradient through the model's own frames."""


class State(NamedTuple):
    """What a rollout carries from frame to frame, first axis B everywhere."""

    predictor: Memory
    posterior: Memory | None
    prior: Memory | None
    skips: tuple[Tensor, ...]


class Model(nn.Module):
    """See the module's text. Frames (B, C, 64, 64) or (B, C, 128, 128); a vector condition or none."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        if spec.cond == "image":
            raise ConfigError(
                "svg takes a vector condition or none, these clips have pictures; use pose_unet or pose_cvae"
            )
        if spec.height != spec.width or spec.height not in (64, 128):
            raise ConfigError(
                f"svg takes frames of 64x64 or 128x128 pixels, these are {spec.height}x{spec.width}; "
                "import the clips with --size 64 64"
            )
        self.config = config
        self.encoder, self.decoder = make_backbone(
            config.backbone, spec.height, spec.channels, config.g_dim, config.width
        )
        latent = config.z_dim if config.prior != "none" else 0
        self.latent_shape = (latent,)
        inputs = config.g_dim + latent + spec.cond_size
        self.predictor = FramePredictor(
            inputs, config.g_dim, config.rnn_size, config.predictor_layers, config.predictor_norm
        )
        self.standardise = Standardise(spec.cond_size)
        self.posterior = self._gaussian(config.posterior_layers) if latent else None
        self.prior = self._gaussian(config.prior_layers) if config.prior == "learned" else None
        self.apply(init_dcgan)

    def fit_condition(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Standardise conditions by these, D each, from now on."""
        self.standardise.fit(mean, deviation)

    def initial(self, clip: Clip, context: int) -> State:
        """An empty memory for each clip; the first step fills the skips."""
        like = clip.frames[:, 0]
        return State(
            predictor=self.predictor.lstm.initial(like),
            posterior=None if self.posterior is None else self.posterior.lstm.initial(like),
            prior=None if self.prior is None else self.prior.lstm.initial(like),
            skips=(),
        )

    def step(
        self,
        state: State,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[State, Step]:
        """One frame on: from frame t-1 and the condition that leads into frame t.

        Args:
            state: From `initial` or the step before.
            frame: Frame t-1, true or predicted, (B, C, H, W) in [0, 1].
            cond: (B, D), or None.
            noise: (B, Z) standard normal; zeros give the mean.
            target: The true frame t; given, z is drawn from the posterior, else from the prior.
            context_left: K - t, how many context frames follow `frame`; negative beyond the context.
        """
        seen = None if target is None or self.posterior is None else self.encoder(target)[0]
        return self._advance(state, self.encoder(frame), cond, noise, seen, context_left)

    def forward(self, clip: Clip, context: int, forcing: Tensor, noise: Tensor) -> Unrolled:
        """Predict frames 1 .. T-1 with z from the posterior.

        Args:
            clip: Frames and conditions, floats.
            context: K; the first K frames are always fed as they are.
            forcing: (B, T-1) bool on the CPU; entry t-1 says whether step t is fed the true frame t-1.
            noise: (B, T-1, Z).
        """
        steps: list[Step] = []
        state = self.initial(clip, context)
        # Every true frame is encoded once, with the BatchNorm statistics of its own time step.
        last = len(clip) - (1 if self.posterior is None else 0)
        true = [
            self.encoder(clip.frames[:, t]) if t < last and self._needed(t, context, forcing) else None
            for t in range(len(clip))
        ]
        for t in range(1, len(clip)):
            fed = true[t - 1] if t <= context or bool(forcing[:, t - 1].all()) else None
            if fed is None:
                own = steps[-1].frame.detach() if self.config.detach_feedback else steps[-1].frame
                keep = forcing[:, t - 1].to(own.device)[:, None, None, None]
                fed = self.encoder(torch.where(keep, clip.frames[:, t - 1], own))
            cond = None if clip.cond is None else clip.cond[:, t]
            known = true[t]
            seen = None if self.posterior is None or known is None else known[0]
            state, step = self._advance(state, fed, cond, noise[:, t - 1], seen, context - t)
            steps.append(step)
        return Unrolled.of(steps)

    def _needed(self, t: int, context: int, forcing: Tensor) -> bool:
        """Whether the true frame t is looked at: by the posterior always, else only where it is fed."""
        return self.posterior is not None or t < context or bool(forcing[:, t].all())

    def _advance(
        self, state: State, fed: Features, cond: Tensor | None, noise: Tensor, seen: Tensor | None, context_left: int
    ) -> tuple[State, Step]:
        """The recurrent half of a step, on features: `fed` of frame t-1, `seen` of frame t for the posterior."""
        vector, maps = fed
        skips = maps if not state.skips or self._refreshes(context_left) else state.skips
        prior_memory, prior = state.prior, None
        if self.prior is not None and state.prior is not None:
            prior_memory, prior = self.prior(state.prior, vector)
        elif self.posterior is not None:
            prior = Gaussian.standard_like(noise)
        posterior_memory, posterior = state.posterior, None
        if self.posterior is not None and state.posterior is not None and seen is not None:
            posterior_memory, posterior = self.posterior(state.posterior, seen)
        source = posterior or prior
        z = None if source is None else source.sample(noise)
        heard = None if cond is None else self.standardise(cond)
        inputs = [part for part in (vector, z, heard) if part is not None]
        predictor_memory, value = self.predictor(state.predictor, torch.cat(inputs, 1))
        frame = self.decoder(value, skips)
        return State(predictor_memory, posterior_memory, prior_memory, skips), Step(frame, z, prior, posterior)

    def _refreshes(self, context_left: int) -> bool:
        limit = {"last-context": 0, "svg": 1, "last-frame": -(10**9)}[self.config.skip]
        return context_left >= limit

    def _gaussian(self, layers: int) -> GaussianLstm:
        return GaussianLstm(self.config.g_dim, self.config.z_dim, self.config.rnn_size, layers)
