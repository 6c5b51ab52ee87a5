"""The pose lab's network: a CVAE that paints the next frame from the last one and a picture of the pose.

    z_t ~ q(z | rgb(x_t), label(p_t))   in training        z ~ N(0, I)   in prediction
    x^_t = generate(fuse(rgb(x_t-1), label(p_t), z_t))

Everything happens at full resolution and z is a map (N, H, W). Layer for layer the lab's modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.gaussian import Gaussian
from foreframe.nn.blocks import DepthConvBlock, ResidualBlock
from foreframe.unrolled import Step, Unrolled


@dataclass(frozen=True)
class Config:
    """Defaults are the lab's."""

    f_dim: int = 128
    """Channels of the frame's features."""
    l_dim: int = 32
    """Channels of the pose's features."""
    n_dim: int = 12
    """Channels of the latent map z."""
    d_out: int = 192
    """Channels after the fusion."""
    output: Literal["clamp", "sigmoid"] = "clamp"
    """How the last layer's numbers become pixels in [0, 1]."""
    identity_activations: bool = False
    """Keep the template's LeakyReLU(True), whose slope of 1 makes it no activation at all, in two modules."""
    detach_feedback: bool = True
    """Cut the gradient through the model's own frames, as the lab does."""


class State(NamedTuple):
    """Nothing: all that this model remembers is the last frame."""


class Model(nn.Module):
    """See the module's text. Frames and pose pictures (B, 3, H, W) of any equal size."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        if spec.cond != "image":
            raise ConfigError(f"pose_cvae takes pose pictures as condition; these clips are {spec}")
        self.config = config
        self.latent_shape = (config.n_dim, spec.height, spec.width)
        slope = 1.0 if config.identity_activations else 0.01
        self.rgb = RgbEncoder(spec.channels, config.f_dim)
        self.label = LabelEncoder(spec.cond_size, config.l_dim, slope)
        self.gaussian = GaussianPredictor(config.f_dim + config.l_dim, config.n_dim, slope)
        self.fusion = _fusion(config.f_dim + config.l_dim + config.n_dim, config.d_out)
        self.generator = _generator(config.d_out, spec.channels)

    def initial(self, clip: Clip, context: int) -> State:
        return State()

    def step(
        self,
        state: State,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[State, Step]:
        """One frame on: from frame t-1 (B, C, H, W) and the pose picture of frame t, both in [0, 1].

        `target`, the true frame t, gives z from the posterior; without it z is `noise`, from N(0, I).
        """
        assert cond is not None
        pose = self.label(cond)
        prior = Gaussian.standard_like(noise)
        posterior = None if target is None else self.gaussian(torch.cat([self.rgb(target), pose], 1))
        z = (posterior or prior).sample(noise)
        painted = self.generator(self.fusion(torch.cat([self.rgb(frame), pose, z], 1)))
        painted = torch.sigmoid(painted) if self.config.output == "sigmoid" else painted.clamp(0, 1)
        return state, Step(painted, z, prior, posterior)

    def forward(self, clip: Clip, context: int, forcing: Tensor, noise: Tensor) -> Unrolled:
        """Predict frames 1 .. T-1 with z from the posterior; arguments as in `foreframe.models.Model`."""
        assert clip.cond is not None
        steps: list[Step] = []
        state = self.initial(clip, context)
        for t in range(1, len(clip)):
            fed = clip.frames[:, t - 1]
            if t > context:
                own = steps[-1].frame.detach() if self.config.detach_feedback else steps[-1].frame
                fed = torch.where(forcing[:, t - 1].to(own.device)[:, None, None, None], fed, own)
            state, step = self.step(state, fed, clip.cond[:, t], noise[:, t - 1], clip.frames[:, t], context - t)
            steps.append(step)
        return Unrolled.of(steps)


class RgbEncoder(nn.Sequential):
    """A frame's features, (B, C, H, W) -> (B, F, H, W)."""

    def __init__(self, channels: int, features: int) -> None:
        eighth, quarter, half = features // 8, features // 4, features // 2
        super().__init__(
            ResidualBlock(channels, eighth),
            DepthConvBlock(eighth, eighth),
            ResidualBlock(eighth, quarter),
            DepthConvBlock(quarter, quarter),
            ResidualBlock(quarter, half),
            DepthConvBlock(half, half),
            nn.Conv2d(half, features, 3, padding=1),
        )


class LabelEncoder(nn.Sequential):
    """A pose picture's features, (B, C, H, W) -> (B, L, H, W)."""

    def __init__(self, channels: int, features: int, slope: float) -> None:
        super().__init__(
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, features // 2, 7),
            nn.BatchNorm2d(features // 2),
            nn.LeakyReLU(slope),
            ResidualBlock(features // 2, features),
        )


class GaussianPredictor(nn.Module):
    """The posterior: features of the target frame and its pose -> a Gaussian over maps (B, N, H, W)."""

    def __init__(self, features: int, latent: int, slope: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ResidualBlock(features, latent // 4),
            DepthConvBlock(latent // 4, latent // 4),
            ResidualBlock(latent // 4, latent // 2),
            DepthConvBlock(latent // 2, latent // 2),
            ResidualBlock(latent // 2, latent),
            nn.LeakyReLU(slope),
            nn.Conv2d(latent, 2 * latent, 1),
        )

    def forward(self, maps: Tensor) -> Gaussian:
        mean, logvar = self.body(maps).chunk(2, 1)
        return Gaussian.bounded(mean, logvar)


def _fusion(inputs: int, outputs: int) -> nn.Sequential:
    quarter, half = inputs // 4, inputs // 2
    return nn.Sequential(
        DepthConvBlock(inputs, inputs),
        ResidualBlock(inputs, quarter),
        DepthConvBlock(quarter, half),
        ResidualBlock(half, half),
        DepthConvBlock(half, outputs // 2),
        nn.Conv2d(outputs // 2, outputs, 1),
    )


def _generator(inputs: int, channels: int) -> nn.Sequential:
    half, quarter, eighth = inputs // 2, inputs // 4, inputs // 8
    return nn.Sequential(
        DepthConvBlock(inputs, inputs),
        ResidualBlock(inputs, half),
        DepthConvBlock(half, half),
        ResidualBlock(half, quarter),
        DepthConvBlock(quarter, quarter),
        ResidualBlock(quarter, eighth),
        DepthConvBlock(eighth, eighth),
        nn.Conv2d(eighth, channels, 1),
    )
