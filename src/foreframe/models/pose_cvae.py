"""The pose lab's network: a CVAE that paints the next frame from the last one and a picture of the pose.

    z_t ~ q(z | rgb(x_t), label(p_t))   in training        z ~ N(0, I)   in prediction
    x^_t = generate(fuse(rgb(x_t-1), label(p_t), z_t))

Everything happens at full resolution and z is a map (N, H, W). Layer for layer the lab's modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.config import Range
from foreframe.errors import ConfigError
from foreframe.gaussian import LOGVAR_LIMIT, Gaussian
from foreframe.nn.norm import StepNorm, wide
from foreframe.unrolled import Step, Unrolled, free_running_steps, repeat_samples, segments


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
    logvar_limit: Annotated[float, Range(0, 40)] = LOGVAR_LIMIT
    """Log variances are clamped to plus and minus this, for z and for the KL; 20 in the lab."""


class State(NamedTuple):
    """Nothing: all that this model remembers is the last frame."""


class Model(models.Model):
    """See the module's text. Frames and pose pictures (B, 3, H, W) of any equal size."""

    shares_context = True

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        if spec.cond != "image":
            raise ConfigError(f"pose_cvae takes pose pictures as condition; these clips are {spec}")
        self.config = config
        self.latent_shape = (config.n_dim, spec.height, spec.width)
        slope = 1.0 if config.identity_activations else 0.01
        features, painted = config.f_dim, config.d_out
        self.rgb = nn.Sequential(
            *_blocks(spec.channels, features // 8, features // 4, features // 2),
            nn.Conv2d(features // 2, features, 3, padding=1),
        )
        self.label = LabelEncoder(spec.cond_size, config.l_dim, slope)
        self.gaussian = GaussianPredictor(features + config.l_dim, config.n_dim, slope, config.logvar_limit)
        self.fusion = _fusion(features + config.l_dim + config.n_dim, painted)
        self.generator = nn.Sequential(
            DepthConvBlock(painted, painted),
            *_blocks(painted, painted // 2, painted // 4, painted // 8),
            nn.Conv2d(painted // 8, spec.channels, 1),
        )

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
        """See `models.Model.step`; frame and pose (B, C, H, W) in [0, 1]. The prior is N(0, I)."""
        assert cond is not None
        pose = repeat_samples(self.label(cond), len(noise))
        prior = Gaussian.standard_like(noise)
        posterior = None if target is None else self._posterior(self.rgb(target), pose)
        z = (posterior or prior).sample(noise)
        return state, Step(self._paint(self.rgb(frame), pose, z), z, prior, posterior)

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        """See `models.Model.forward`; what depends on true frames alone is worked on in one batch."""
        assert clip.cond is not None
        length = len(clip)
        free_running = free_running_steps(forcing, context) if free_running is None else free_running
        frames, noise = clip.frames.transpose(0, 1), noise.transpose(0, 1).flatten(0, 1)
        seen = self.rgb(frames.flatten(0, 1))
        poses = self.label(clip.cond.transpose(0, 1)[1:].flatten(0, 1), length - 1)
        posterior = self._posterior(seen[clip.batch :], poses)
        z = posterior.sample(noise)

        shown: list[Tensor] = []
        for start, stop in segments(length, free_running):
            # Of steps start .. stop-1, in tensors that begin with step 1; `seen` begins with frame 0.
            rows = slice((start - 1) * clip.batch, (stop - 1) * clip.batch)
            fed = seen[rows]
            if start in free_running:
                last = shown[-1][-clip.batch :]
                last = last.detach() if self.config.detach_feedback else last
                keep = forcing[:, start - 1].to(last.device)[:, None, None, None]
                fed = self.rgb(torch.where(keep, frames[start - 1], last))
            shown.append(self._paint(fed, poses[rows], z[rows]))

        def clips_first(values: Tensor) -> Tensor:
            by_step: Tensor = values.unflatten(0, (-1, clip.batch))
            return by_step.transpose(0, 1)

        found = Gaussian(clips_first(posterior.mean), clips_first(posterior.logvar))
        return Unrolled(clips_first(torch.cat(shown)), Gaussian.standard_like(found.mean), found)

    def _posterior(self, seen: Tensor, pose: Tensor) -> Gaussian:
        found: Gaussian = self.gaussian(torch.cat([repeat_samples(seen, len(pose)), pose], 1))
        return found

    def _paint(self, seen: Tensor, pose: Tensor, z: Tensor) -> Tensor:
        painted = wide(self.generator(self.fusion(torch.cat([repeat_samples(seen, len(z)), pose, z], 1))))
        return torch.sigmoid(painted) if self.config.output == "sigmoid" else painted.clamp(0, 1)


class LabelEncoder(nn.Sequential):
    """A pose picture's features, (T*B, C, H, W) -> (T*B, L, H, W), time first."""

    def __init__(self, channels: int, features: int, slope: float) -> None:
        super().__init__(
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, features // 2, 7),
            StepNorm(features // 2),
            nn.LeakyReLU(slope),
            ResidualBlock(features // 2, features),
        )

    def forward(self, poses: Tensor, steps: int = 1) -> Tensor:
        for layer in self:
            poses = layer(poses, steps) if isinstance(layer, StepNorm) else layer(poses)
        return poses


class GaussianPredictor(nn.Module):
    """The posterior: features of the target frame and its pose -> a Gaussian over maps (B, N, H, W)."""

    def __init__(self, features: int, latent: int, slope: float, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.body = nn.Sequential(
            *_blocks(features, latent // 4, latent // 2),
            ResidualBlock(latent // 2, latent),
            nn.LeakyReLU(slope),
            nn.Conv2d(latent, 2 * latent, 1),
        )

    def forward(self, maps: Tensor) -> Gaussian:
        with torch.autocast(maps.device.type, enabled=False):
            mean, logvar = self.body(wide(maps)).chunk(2, 1)
        return Gaussian.bounded(mean, logvar, self.limit)


def _blocks(*widths: int) -> list[nn.Module]:
    """A residual block from each width to the next, and a depthwise one there."""
    return [block for a, b in pairwise(widths) for block in (ResidualBlock(a, b), DepthConvBlock(b, b))]


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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each followed by LeakyReLU, plus the input (through a 1x1 where widths differ)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(after, after, 3, padding=1),
            nn.LeakyReLU(0.01),
        )
        self.identity = _adapter(before, after)

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = self.body(maps) + self.identity(maps)
        return added


class DepthConvBlock(nn.Module):
    """A depthwise separable convolution and a gated feed-forward layer, both with residual paths."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.depth = nn.Sequential(
            nn.Conv2d(before, before, 1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(before, before, 3, padding=1, groups=before),
            nn.Conv2d(before, after, 1),
        )
        self.identity = _adapter(before, after)
        self.expand = nn.Conv2d(after, 4 * after, 1)
        self.gate = nn.LeakyReLU(0.1)
        self.contract = nn.Conv2d(2 * after, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.depth(maps) + self.identity(maps)
        value, gate = self.expand(maps).chunk(2, 1)
        mixed: Tensor = maps + self.contract(value * self.gate(gate))
        return mixed


def _adapter(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else nn.Conv2d(before, after, 1)
