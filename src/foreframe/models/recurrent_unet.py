"""A recurrent U-Net that composes each frame from the last one: what stays need not be painted again.

    h_t = ConvGRU(encode(x^_t-1, still; c_t), h_t-1)                 a U-Net, its memory at 1/8 of the size
    z_t ~ p(z | h_t)   in prediction;   z_t ~ q(z | h_t, x_t, x_t - x^_t-1)   in training, relative to the prior
    r, flow, m = decode(h_t; c_t, z_t)
    x^_t = m_1 * paint(x^_t-1, r) + m_2 * warp(x^_t-1, flow) + m_3 * still        m: a softmax over three maps

c_t and z_t scale and shift the channels of every block (FiLM, Perez et al. 2018). `still` is the last context frame,
for what reappears. The last layer begins at zero: untrained, the model repeats the last frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.config import Range
from foreframe.errors import ConfigError
from foreframe.gaussian import Gaussian
from foreframe.nn.condition import Standardize
from foreframe.unrolled import Step, Unrolled

STRIDE = 8
"""Height and width of a frame over those of the memory."""
EDGE = 1e-3
"""Pixels are painted between this and one minus this, where the logit is finite."""
SHARP = 2 * math.log(0.2)
"""Log variance of the posterior over that of the prior at the beginning: a deviation of 0.2. With noise as large as the
prior's, the decoder would learn to ignore z before there is anything in it."""


@dataclass(frozen=True)
class Config:
    """Defaults: 0.8 million parameters (S), for a CPU. M: 64, 128, 192 channels; L: 96, 256, 384."""

    half: int = 32
    """Channels at half the frame's size."""
    quarter: int = 48
    """Channels at a quarter."""
    eighth: int = 64
    """Channels at an eighth, and of the memory."""
    half_blocks: int = 1
    """Residual blocks at half the size, after joining; none before, where it is expensive."""
    quarter_blocks: int = 1
    """Residual blocks at a quarter, before and after the memory."""
    eighth_blocks: int = 2
    """Residual blocks at an eighth, before and after the memory."""
    hidden: int = 64
    """Units of the layers that turn conditions and z into scales and shifts."""
    prior: Literal["learned", "none"] = "learned"
    """p(z): learned from the memory, or no latent at all."""
    latent: int = 16
    """Z, length of the latent."""
    flow: Annotated[float, Range(0, 64)] = 8.0
    """Pixels by which the last frame is warped at most; 0: it is not warped."""
    still: bool = True
    """The last context frame is one of the sources."""
    detach_feedback: bool = False
    """Cut the gradient through the model's own frames."""


class State(NamedTuple):
    """Carried along in a rollout beside its last frame; first axis B (S*B with S samples).

    memory: (B, E, H/8, W/8). still: (B, C, H, W), the last context frame. cond: (B, D), that of the last frame.
    """

    memory: Tensor
    still: Tensor
    cond: Tensor


class Model(models.Model):
    """Frames (B, C, H, W), both sizes multiples of `STRIDE`; a vector condition or none."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        if spec.cond == "image":
            raise ConfigError(
                "recurrent_unet takes a vector condition or none, these clips have pictures; use pose_unet or pose_cvae"
            )
        if spec.height % STRIDE or spec.width % STRIDE:
            raise ConfigError(
                f"recurrent_unet takes heights and widths that are multiples of {STRIDE}, these clips are {spec}; "
                f"import them with --size {-(-spec.height // STRIDE) * STRIDE} {-(-spec.width // STRIDE) * STRIDE}"
            )
        self.config = config
        half, quarter, eighth, hidden = config.half, config.quarter, config.eighth, config.hidden
        latent = config.latent if config.prior == "learned" else 0
        self.latent_shape = (latent,)
        self.coarse = (eighth, spec.height // STRIDE, spec.width // STRIDE)
        rows, columns = (torch.linspace(-1, 1, size // 2) for size in (spec.height, spec.width))
        self.register_buffer("places", torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None])

        self.standardise = Standardize(spec.cond_size)
        self.embed_past = _mlp(2 * spec.cond_size, hidden)
        self.embed_future = _mlp(2 * spec.cond_size + latent, hidden)

        self.encode_half = _conv(8 * spec.channels + 2, half)
        self.encode_quarter = Stage(half, quarter, config.quarter_blocks, hidden)
        self.encode_eighth = Stage(quarter, eighth, config.eighth_blocks, hidden)
        self.memory = ConvGru(eighth)
        if latent:
            cells = 8 * math.prod(self.coarse[1:])
            self.prior = nn.Sequential(
                nn.Conv2d(eighth, 8, 1), nn.Flatten(), nn.SiLU(), nn.Linear(cells, 128), nn.SiLU(),
                _scaled(nn.Linear(128, 2 * latent), 0.1),
            )  # fmt: skip
            self.see = nn.Sequential(
                _conv(32 * spec.channels, quarter), nn.SiLU(), _conv(quarter, quarter, 2), nn.SiLU()
            )
            self.posterior = nn.Sequential(
                nn.Conv2d(eighth + quarter, 8, 1), nn.Flatten(), nn.SiLU(), nn.Linear(cells, 128), nn.SiLU(),
                nn.Linear(128, 2 * latent),
            )  # fmt: skip

        self.decode_eighth = Blocks(eighth, config.eighth_blocks, hidden)
        self.to_quarter = Join(eighth, quarter)
        self.decode_quarter = Blocks(quarter, config.quarter_blocks, hidden)
        self.to_half = Join(quarter, half)
        self.decode_half = Blocks(half, config.half_blocks, hidden)
        self.channels = spec.channels
        self.parts = (spec.channels, 2 if config.flow else 0, 1 + bool(config.flow) + config.still)
        self.out = _conv(half, 4 * sum(self.parts))
        with torch.no_grad():
            moved = 4 * sum(self.parts[:2])
            self.out.weight[:moved].zero_()
            self.out.weight[moved:].mul_(0.3)
            assert self.out.bias is not None
            self.out.bias.zero_()

    def fit_condition(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.standardise.fit(mean, std)

    def initial(self, clip: Clip, context: int) -> State:
        """An empty memory; frame 0 as the still frame until later context frames come."""
        first = clip.frames[:, 0]
        cond = first.new_zeros(len(first), 0) if clip.cond is None else self.standardise(clip.cond[:, 0])
        return State(first.new_zeros(len(first), *self.coarse), first, cond)

    def step(
        self,
        state: State,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[State, Step]:
        """See `models.Model.step`; frames (B, C, H, W) in [0, 1], cond (B, D), noise (B, Z)."""
        still = frame if context_left >= 0 else state.still
        now = state.cond if cond is None else self.standardise(cond)
        command = torch.cat([now, now - state.cond], 1)
        film = self.embed_past(command)

        seen = functional.pixel_unshuffle(torch.cat([frame, still], 1) - 0.5, 2)
        at_half = self.encode_half(torch.cat([seen, self.get_buffer("places").expand(len(frame), -1, -1, -1)], 1))
        at_quarter = self.encode_quarter(at_half, film)
        memory = self.memory(self.encode_eighth(at_quarter, film), state.memory)

        prior = posterior = z = None
        if self.latent_shape[0]:
            prior = Gaussian.bounded(*self.prior(memory).chunk(2, 1))
            if target is not None:
                posterior = self._posterior(memory, target, frame, prior)
            z = (posterior or prior).sample(noise)
            command = torch.cat([command, z], 1)

        film = self.embed_future(command)
        maps = self.decode_eighth(memory, film)
        maps = self.decode_quarter(self.to_quarter(maps, at_quarter), film)
        maps = self.decode_half(self.to_half(maps, at_half), film)
        predicted = self._compose(functional.pixel_shuffle(self.out(functional.silu(maps)), 2), frame, still)
        return State(memory, still, now), Step(predicted, z, prior, posterior)

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        steps: list[Step] = []
        state = self.initial(clip, context)
        for t in range(1, len(clip)):
            fed = clip.frames[:, t - 1]
            if t > context:
                own = steps[-1].frame.detach() if self.config.detach_feedback else steps[-1].frame
                fed = torch.where(forcing[:, t - 1].to(fed.device)[:, None, None, None], fed, own)
            cond = None if clip.cond is None else clip.cond[:, t]
            state, step = self.step(state, fed, cond, noise[:, t - 1], clip.frames[:, t], context - t)
            steps.append(step)
        return Unrolled.of(steps)

    def _posterior(self, memory: Tensor, target: Tensor, frame: Tensor, prior: Gaussian) -> Gaussian:
        """q(z | h_t, x_t): the prior's mean and deviation, changed by what the true frame shows."""
        seen = self.see(functional.pixel_unshuffle(torch.cat([target - frame, target - 0.5], 1), 4))
        shift, scale = self.posterior(torch.cat([memory, seen], 1)).chunk(2, 1)
        mean = prior.mean + torch.exp(0.5 * prior.logvar) * shift
        return Gaussian.bounded(mean, prior.logvar + SHARP + scale)

    def _compose(self, out: Tensor, frame: Tensor, still: Tensor) -> Tensor:
        """The next frame from its sources; out: (B, residual + flow + mask logits, H, W)."""
        change, flow, masks = out.split(self.parts, 1)
        sources = [torch.sigmoid(torch.logit(frame.clamp(EDGE, 1 - EDGE)) + change)]
        if self.config.flow:
            sources.append(warp(frame, self.config.flow * torch.tanh(flow)))
        if self.config.still:
            sources.append(still)
        mixed: Tensor = (masks.softmax(1)[:, :, None] * torch.stack(sources, 1)).sum(1)
        return mixed


def warp(frame: Tensor, flow: Tensor) -> Tensor:
    """A frame (B, C, H, W) as seen where `flow` (B, 2, H, W) points to: x and y in pixels, bilinear, edges repeated."""
    height, width = frame.shape[-2:]
    rows, columns = (torch.arange(size, device=frame.device, dtype=flow.dtype) for size in (height, width))
    x = (columns + flow[:, 0]) * (2 / max(1, width - 1)) - 1
    y = (rows[:, None] + flow[:, 1]) * (2 / max(1, height - 1)) - 1
    return functional.grid_sample(frame, torch.stack([x, y], -1), padding_mode="border", align_corners=True)


class Block(nn.Module):
    """Two 3x3 convolutions beside the identity, close to nothing at first, scaled and shifted by FiLM."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
        self.film = _scaled(nn.Linear(hidden, 2 * channels), 0.3)
        self.first = _conv(channels, channels)
        self.second = _scaled(_conv(channels, channels), 0.2)

    def forward(self, maps: Tensor, film: Tensor) -> Tensor:
        scale, shift = self.film(film)[:, :, None, None].chunk(2, 1)
        inner = functional.silu(self.norm(maps) * (1 + scale) + shift)
        changed: Tensor = self.second(functional.silu(self.first(inner)))
        return maps + changed


class Blocks(nn.Module):
    """Blocks one after another."""

    def __init__(self, channels: int, count: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, hidden) for _ in range(count))

    def forward(self, maps: Tensor, film: Tensor) -> Tensor:
        for block in self.blocks:
            maps = block(maps, film)
        return maps


class Stage(nn.Module):
    """Half the size, then blocks."""

    def __init__(self, before: int, after: int, count: int, hidden: int) -> None:
        super().__init__()
        self.shrink = _conv(before, after, 2)
        self.blocks = Blocks(after, count, hidden)

    def forward(self, maps: Tensor, film: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.shrink(functional.silu(maps)), film)
        return found


class Join(nn.Module):
    """Twice the size (1x1 convolution, then a shuffle of pixels), joined with the encoder's maps of that size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.grow = nn.Conv2d(before, 4 * after, 1)
        self.join = nn.Conv2d(2 * after, after, 1)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([functional.pixel_shuffle(self.grow(maps), 2), skip], 1))
        return joined


class ConvGru(nn.Module):
    """A gated recurrent unit whose matrices are 3x3 convolutions (Ballas et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = _conv(2 * channels, 2 * channels)
        self.candidate = _conv(2 * channels, channels)

    def forward(self, maps: Tensor, memory: Tensor) -> Tensor:
        update, reset = torch.sigmoid(self.gates(torch.cat([maps, memory], 1))).chunk(2, 1)
        new = torch.tanh(self.candidate(torch.cat([maps, reset * memory], 1)))
        return torch.lerp(memory, new, update)


def _mlp(inputs: int, hidden: int) -> nn.Module:
    if not inputs:
        return Constant(hidden)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())


class Constant(nn.Module):
    """What blocks are scaled by where there is neither a condition nor a latent."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, size))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.value.expand(len(inputs), -1)


def _conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1)


def _scaled(layer: nn.Conv2d | nn.Linear, scale: float) -> nn.Conv2d | nn.Linear:
    """The layer with small initial weights."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
