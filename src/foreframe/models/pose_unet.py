"""A small, quick CVAE for a camera that stands still: a person painted over the scene, after a picture of the pose.

    b   = background(x_ref, p_ref)                             once: the reference frame, the person filled in
    h_t = encode(p_t, b) + appearance(x_ref, p_ref)            a U-Net, most of its work at 1/4 and 1/8 of the size
    z_t ~ q(z | h_t, encode(x_t - b))   in training            z_t ~ p(z | h_t, encode(x^_t-1 - b))   in prediction
    m, c = decode(h_t, z_t)          x^_t = m * c + (1 - m) * b

The pose determines nearly everything in a frame; the previous frame enters only through the prior of z, a coarse
map of few numbers. So the errors of one frame hardly reach the next, and a rollout of hundreds of frames does
not drift; nor can the network learn to copy, which is easy in training and leaves ghosts in prediction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.gaussian import Gaussian
from foreframe.unrolled import Step, Unrolled

STRIDE = 8
"""Height and width of a frame over those of the coarsest maps and of z."""
INK = 2.0
"""Poses are thin, faint lines on white: they enter as INK * (1 - pose), zero where there is nothing."""
LOGVAR_SOFT = 4.0
"""Log variances of z approach plus or minus this smoothly: a prior that is too sure early on makes the KL explode."""


@dataclass(frozen=True)
class Config:
    """Defaults: 1.6 million parameters, made for clips of 32x64 on a laptop's processor."""

    width: int = 32
    """Channels at half the frame's size; twice and three times as many at a quarter and an eighth."""
    detail: int = 24
    """Channels at full size, just before the pixels."""
    latent: int = 4
    """Channels of z, a map of an eighth of the frame's height and width."""
    scene: int = 8
    """Channels of a learned map of the scene, which fills in what the person hides in the reference frame."""


class State(NamedTuple):
    """Carried along in a rollout beside its last frame.

    background: (B, C, H, W), the scene, perhaps with remains of the person. appearance: (B, 3 * width), of the person.
    pose: (B, C, H, W), that of the last frame, with which that frame may become the new reference.
    """

    background: Tensor
    appearance: Tensor
    pose: Tensor


class Model(models.Model):
    """See the module's text. Frames and pose pictures (B, C, H, W), both sizes multiples of `STRIDE`."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        if spec.cond != "image":
            raise ConfigError(f"pose_unet takes pose pictures as condition; these clips are {spec}")
        if spec.height % STRIDE or spec.width % STRIDE:
            raise ConfigError(
                f"pose_unet takes heights and widths that are multiples of {STRIDE}; these clips are {spec}"
            )
        self.config = config
        self.latent_shape = (config.latent, spec.height // STRIDE, spec.width // STRIDE)
        half, quarter, eighth = config.width, 2 * config.width, 3 * config.width
        frame, both = 4 * spec.channels, 4 * (spec.channels + spec.cond_size)

        self.background = Background(config, spec)
        self.appearance = Appearance(both, config.width, eighth)
        self.encode_half = nn.Sequential(_conv(both, half), Residual(half))
        self.encode_quarter = nn.Sequential(_conv(half, quarter, 2), Residual(quarter))
        self.shrink = _conv(quarter, eighth, 2)
        self.encode_eighth = nn.Sequential(Residual(eighth), Residual(eighth))

        # Checkpoints know the encoder of the person and the embedding of z by these names.
        person = nn.Sequential(
            _conv(frame, half), nn.SiLU(), _conv(half, quarter, 2), nn.SiLU(), _conv(quarter, quarter, 2)
        )
        self.add_module("see", person)
        self.prior = _gaussian_head(eighth, quarter, config.latent)
        self.posterior = _gaussian_head(eighth, quarter, config.latent)
        self.add_module("hear", nn.Conv2d(config.latent, eighth, 1))

        self.decode_eighth = nn.Sequential(Residual(eighth), Residual(eighth))
        self.to_quarter = _up(eighth, quarter)
        self.decode_quarter = nn.Sequential(nn.Conv2d(2 * quarter, quarter, 1), Residual(quarter))
        self.to_half = _up(quarter, half)
        self.decode_half = nn.Sequential(nn.Conv2d(2 * half, half, 1), Residual(half))
        self.to_full = _up(half, config.detail)
        self.paint = nn.Sequential(
            _conv(config.detail + spec.channels + spec.cond_size, config.detail),
            nn.GroupNorm(1, config.detail),
            nn.SiLU(),
            _scaled_init(_conv(config.detail, spec.channels + 1), 0.3),
        )

    def initial(self, clip: Clip, context: int) -> State:
        """Frame 0 as the reference; `step` moves on to later context frames."""
        assert clip.cond is not None
        return self._refer(clip.frames[:, 0], clip.cond[:, 0])

    def step(
        self,
        state: State,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[State, Step]:
        """See `models.Model.step`; frame and pose (B, C, H, W) in [0, 1].

        A context frame (`context_left` >= 0) becomes the reference; never a later one, which would show the future.
        """
        assert cond is not None
        if context_left >= 0:
            state = self._refer(frame, state.pose)
        scene, ink = 2 * state.background - 1, INK * (1 - cond)
        at_half = self.encode_half(_fold(torch.cat([ink, scene], 1)))
        at_quarter = self.encode_quarter(at_half)
        at_eighth = self.encode_eighth(self.shrink(at_quarter) + state.appearance[:, :, None, None])

        prior = self._gaussian(self.prior, at_eighth, frame, state)
        posterior = None if target is None else self._gaussian(self.posterior, at_eighth, target, state)
        z = (posterior or prior).sample(noise)

        maps = self.decode_eighth(at_eighth + self.get_submodule("hear")(z))
        maps = self.decode_quarter(torch.cat([self.to_quarter(maps), at_quarter], 1))
        maps = self.decode_half(torch.cat([self.to_half(maps), at_half], 1))
        painted = torch.sigmoid(self.paint(torch.cat([self.to_full(maps), ink, scene], 1)))
        colour, mask = painted[:, :-1], painted[:, -1:]
        predicted = mask * colour + (1 - mask) * state.background
        return State(state.background, state.appearance, cond), Step(predicted, z, prior, posterior)

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        assert clip.cond is not None
        steps: list[Step] = []
        state = self.initial(clip, context)
        for t in range(1, len(clip)):
            fed = clip.frames[:, t - 1]
            if t > context:
                fed = torch.where(forcing[:, t - 1].to(fed.device)[:, None, None, None], fed, steps[-1].frame)
            # At t = 1 frame 0 is the reference already; to refer to it again would cost time and change nothing.
            left = context - t if t > 1 else -1
            state, step = self.step(state, fed, clip.cond[:, t], noise[:, t - 1], clip.frames[:, t], left)
            steps.append(step)
        return Unrolled.of(steps)

    def _refer(self, frame: Tensor, pose: Tensor) -> State:
        seen = _fold(torch.cat([2 * frame - 1, INK * (1 - pose)], 1))
        return State(self.background(frame, seen), self.appearance(seen), pose)

    def _gaussian(self, head: nn.Module, maps: Tensor, frame: Tensor, state: State) -> Gaussian:
        """A frame is seen as its difference from the background: what is there of the person."""
        person = self.get_submodule("see")(_fold(2 * (frame - state.background)))
        mean, logvar = head(torch.cat([maps, person], 1)).chunk(2, 1)
        return Gaussian.bounded(mean, LOGVAR_SOFT * torch.tanh(logvar / LOGVAR_SOFT))


class Background(nn.Module):
    """The reference frame where the scene shows, and a memory of the scene where the person hides it."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        width, coarse, halved = config.width, config.width * 3 // 2, (spec.height // 2, spec.width // 2)
        self.scene = nn.Parameter(torch.randn(1, config.scene, *halved).mul_(0.1))
        self.join = _conv(4 * (spec.channels + spec.cond_size) + config.scene, width)
        self.around = nn.Sequential(
            Residual(width), _conv(width, coarse, 2), Residual(coarse), Residual(coarse), _up(coarse, width)
        )
        self.out = nn.Sequential(
            nn.GroupNorm(1, 2 * width), nn.SiLU(), _scaled_init(_conv(2 * width, 4 * (spec.channels + 1)), 0.3)
        )

    def forward(self, frame: Tensor, seen: Tensor) -> Tensor:
        maps = self.join(torch.cat([seen, self.scene.expand(len(seen), -1, -1, -1)], 1))
        painted = torch.sigmoid(functional.pixel_shuffle(self.out(torch.cat([maps, self.around(maps)], 1)), 2))
        colour, keep = painted[:, :-1], painted[:, -1:]
        return keep * frame + (1 - keep) * colour


class Appearance(nn.Module):
    """The person's appearance: a mean over the reference frame, without where and how they stand."""

    def __init__(self, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(_conv(channels, width, 2), nn.SiLU(), _conv(width, 2 * width, 2), nn.SiLU())
        self.out = nn.Linear(2 * width, features)

    def forward(self, seen: Tensor) -> Tensor:
        features: Tensor = self.out(self.maps(seen).mean((2, 3)))
        return features


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, close to nothing at first. Normalised within a picture only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
        self.first = _conv(channels, channels)
        self.second = _scaled_init(_conv(channels, channels), 0.2)

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.second(functional.silu(self.first(functional.silu(self.norm(maps)))))
        return maps + changed


def _up(before: int, after: int) -> nn.Sequential:
    """Twice the height and width: a 1x1 convolution to four times the channels, rearranged to 2x2 pixels."""
    return nn.Sequential(nn.Conv2d(before, 4 * after, 1), nn.PixelShuffle(2))


def _fold(maps: Tensor) -> Tensor:
    """Half the height and width, four times the channels: no pixel is lost, and full size is never worked at."""
    return functional.pixel_unshuffle(maps, 2)


def _conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1)


def _scaled_init(layer: nn.Conv2d, scale: float) -> nn.Conv2d:
    """The layer with small initial weights. A mask that begins far from one half soon saturates, and stays so."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def _gaussian_head(maps: int, seen: int, latent: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(maps + seen, maps, 1), Residual(maps), nn.SiLU(), _scaled_init(nn.Conv2d(maps, 2 * latent, 1), 0.1)
    )
