"""SVG (Denton & Fergus 2018, "Stochastic Video Generation with a Learned Prior"), conditioned on actions.

    h_t-1, skips = encode(x_t-1)                      VGG or DCGAN
    z_t ~ q(z | encode(x_1..t))     in training       a Gaussian LSTM, the posterior
    z_t ~ p(z | h_1..t-1) or N(0, I)   in prediction  learned or fixed prior; without any: the deterministic baseline
    x^_t = decode(LSTM([h_t-1, z_t, cond_t]), skips)

Training walks over segments of steps: true frames are encoded in one batch before anything else, and where the model
is fed true frames the LSTMs and the decoder work on the whole segment. Only a step that is fed the model's own frame
goes alone. Each step's BatchNorm has its own statistics, so this is the plain loop over time, up to rounding
(`tests.reference.plain` holds that loop, and a test compares their gradients).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.gaussian import Gaussian
from foreframe.nn.backbones import Backbone, Maps, SkipCache, init_dcgan, make_backbone
from foreframe.nn.condition import Standardize
from foreframe.nn.lstm import FramePredictor, GaussianLstm, Memory
from foreframe.nn.norm import NormKind
from foreframe.unrolled import Step, Unrolled, free_running_steps, repeat_samples, segments


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
    norm: NormKind = "step"
    """Statistics of BatchNorm in training: of one time step (SVG), of all steps worked on in one batch (other
    mathematics), or GroupNorm, which needs none."""
    skip: Literal["last-context", "svg", "last-frame"] = "last-context"
    """Whose maps the decoder sees. last-context: frame K-1, as the paper says; svg: frame K-2, as its code
    does; last-frame: always the previous frame (its --last_frame_skip)."""
    detach_feedback: bool = False
    """Cut the gradient through the model's own frames."""


class State(NamedTuple):
    """Carried from frame to frame in a rollout; first axis B (S*B with S samples, but for `skip_terms`)."""

    predictor: Memory
    posterior: Memory | None
    prior: Memory | None
    skip_terms: Maps
    """`SkipCache.terms` of the frozen skips; empty before the first step."""


class Model(models.Model):
    """Frames (B, C, 64, 64) or (B, C, 128, 128); a vector condition or none."""

    shares_context = True

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
            config.backbone, spec.height, spec.channels, config.g_dim, config.width, config.norm
        )
        latent = config.z_dim if config.prior != "none" else 0
        self.latent_shape = (latent,)
        inputs = config.g_dim + latent + spec.cond_size
        norm = config.norm if config.predictor_norm else None
        self.predictor = FramePredictor(inputs, config.g_dim, config.rnn_size, config.predictor_layers, norm)
        self.standardise = Standardize(spec.cond_size)
        sizes = config.g_dim, config.z_dim, config.rnn_size
        self.posterior = GaussianLstm(*sizes, config.posterior_layers) if latent else None
        self.prior = GaussianLstm(*sizes, config.prior_layers) if config.prior == "learned" else None
        self.apply(init_dcgan)

    def fit_condition(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.standardise.fit(mean, std)

    def initial(self, clip: Clip, context: int) -> State:
        """An empty memory for each clip; the first step fills the skips."""
        like = clip.frames[:, 0]
        posterior = None if self.posterior is None else self.posterior.lstm.initial(like)
        prior = None if self.prior is None else self.prior.lstm.initial(like)
        return State(self.predictor.lstm.initial(like), posterior, prior, skip_terms=())

    def step(
        self,
        state: State,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[State, Step]:
        """Frames (B, C, H, W) in [0, 1], cond (B, D), noise (B, Z); zeros give the mean. See `models.Model.step`."""
        rows = len(noise)
        vector, maps = self.encoder(frame)
        cache = SkipCache(self.decoder.split_weights(), state.skip_terms)
        if not cache.terms or context_left >= self._refreshing:
            cache = self.decoder.prepare(maps, cache.weights)
            state = state._replace(skip_terms=cache.terms)
        posterior = None
        if target is not None and self.posterior is not None and state.posterior is not None:
            seen = repeat_samples(self.encoder(target)[0], rows)[None]
            memory, posterior = self.posterior(state.posterior, seen)
            state = state._replace(posterior=memory)
        cond = None if cond is None else repeat_samples(cond, rows)[None]
        state, values, z, prior = self._advance(state, repeat_samples(vector, rows)[None], cond, noise[None], posterior)
        predicted = self.decoder(values[0], cache)
        return state, Step(predicted, None if z is None else z[0], _first(prior), _first(posterior))

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        """See `models.Model.forward`; noise (B, T-1, Z)."""
        length = len(clip)
        free_running = free_running_steps(forcing, context) if free_running is None else free_running
        frames, noise = clip.frames.transpose(0, 1), noise.transpose(0, 1)
        cond = None if clip.cond is None else clip.cond.transpose(0, 1)

        true = _TrueFrames(self, frames, free_running, context)
        state, posterior = self.initial(clip, context), None
        if self.posterior is not None and state.posterior is not None:
            _, posterior = self.posterior(state.posterior, true.vectors(1, length))

        predicted: list[Tensor] = []
        priors: list[Gaussian] = []
        for start, stop in segments(length, free_running):
            if start in free_running:
                last = predicted[-1][-1].detach() if self.config.detach_feedback else predicted[-1][-1]
                keep = forcing[:, start - 1].to(last.device)[:, None, None, None]
                vector, maps = self.encoder(torch.where(keep, frames[start - 1], last))
                fed = vector[None]
            else:
                fed, maps = true.vectors(start - 1, stop - 1), None
            steps = slice(start - 1, stop - 1)
            known = None if posterior is None else Gaussian(posterior.mean[steps], posterior.logvar[steps])
            given = None if cond is None else cond[start:stop]
            state, values, _, prior = self._advance(state, fed, given, noise[steps], known)
            decoded = self.decoder(values.flatten(0, 1), true.skips(start, stop, maps), stop - start)
            predicted.append(decoded.unflatten(0, (stop - start, clip.batch)))
            if prior is not None:
                priors.append(prior)
        return Unrolled(
            torch.cat(predicted).transpose(0, 1),
            Gaussian(*(torch.cat(parts).transpose(0, 1) for parts in zip(*priors, strict=True))) if priors else None,
            None if posterior is None else Gaussian(*(part.transpose(0, 1) for part in posterior)),
        )

    def _advance(
        self, state: State, fed: Tensor, cond: Tensor | None, noise: Tensor, posterior: Gaussian | None
    ) -> tuple[State, Tensor, Tensor | None, Gaussian | None]:
        """n steps of the LSTMs: vectors of frames fed (n, B, G) to those of frames to come; also z and the prior."""
        memory, prior = state.prior, None
        if self.prior is not None and memory is not None:
            memory, prior = self.prior(memory, fed)
        elif self.posterior is not None:
            prior = Gaussian.standard_like(noise)
        source = posterior or prior
        z = None if source is None else source.sample(noise)
        inputs = [part for part in (fed, z, None if cond is None else self.standardise(cond)) if part is not None]
        predictor, values = self.predictor(state.predictor, torch.cat(inputs, 2))
        return state._replace(predictor=predictor, prior=memory), values, z, prior

    @property
    def _refreshing(self) -> int:
        """A frame's maps become the skips as long as at least this many context frames follow it."""
        return {"last-context": 0, "svg": 1, "last-frame": -(10**9)}[self.config.skip]


class _TrueFrames:
    """The true frames of a clip that training needs, each encoded once, and the skips that follow from them."""

    def __init__(self, model: Model, frames: Tensor, free_running: frozenset[int], context: int) -> None:
        """frames: (T, B, C, H, W)."""
        length, self.clips = frames.shape[:2]
        self.decoder, self.weights = model.decoder, model.decoder.split_weights()
        every = model.config.skip == "last-frame"

        def is_needed(t: int) -> bool:
            return t == 0 or model.posterior is not None or (t + 1 < length and t + 1 not in free_running)

        needed = [t for t in range(length) if is_needed(t)]
        # Maps are kept of the frames that skips come from, and only of these.
        self.last = length if every else max(0, context - 1 - model._refreshing)
        kept = [t for t in needed if t <= self.last]
        vectors, self.maps = model.encoder(torch.cat([frames[t] for t in kept]), len(kept))
        rest = needed[len(kept) :]
        if rest:
            vectors = torch.cat([vectors, model.encoder(torch.cat([frames[t] for t in rest]), len(rest))[0]])
        self.all: Tensor = vectors.unflatten(0, (-1, self.clips))
        self.place = {t: number for number, t in enumerate(needed)}
        self.first: SkipCache | None = None
        if not every:
            # The first segment begins with the context frames, whose maps are the skips of one step each.
            self.first = self.decoder.prepare(self.maps, self.weights)
            self.frozen = self.first._replace(terms=tuple(part[-self.clips :] for part in self.first.terms))

    def vectors(self, start: int, stop: int) -> Tensor:
        """(n, B, G) of frames start .. stop-1."""
        first = self.place[start]
        return self.all[first : first + stop - start]

    def skips(self, start: int, stop: int, maps: Maps | None) -> SkipCache:
        """The skips of steps start .. stop-1. maps: of the one frame that is fed, where it is not a true frame."""
        if self.first is None:  # each step has those of the frame it is fed
            if maps is None:
                row = self.place[start - 1] * self.clips
                maps = tuple(part[row : row + (stop - start) * self.clips] for part in self.maps)
            return self.decoder.prepare(maps, self.weights)._replace(lengths=(1,) * (stop - start))
        if start > self.last:
            return self.frozen._replace(lengths=(stop - start,))
        return self.first._replace(lengths=(*[1] * self.last, stop - 1 - self.last))


def _first(steps: Gaussian | None) -> Gaussian | None:
    return None if steps is None else Gaussian(steps.mean[0], steps.logvar[0])
