"""The pose lab's network as its script runs it: one frame after another, layer by layer. See `plain`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreframe.clip import Clip
from foreframe.gaussian import Gaussian
from foreframe.models.pose_cvae import Config
from foreframe.unrolled import Step, Unrolled


class PlainPose(nn.Module):
    """The CVAE, frame by frame. Frames and pose pictures (B, C, H, W)."""

    def __init__(self, config: Config, channels: int, cond_channels: int) -> None:
        super().__init__()
        self.config = config
        slope = 1.0 if config.identity_activations else 0.01
        frame, label, latent, joined = config.f_dim, config.l_dim, config.n_dim, config.d_out
        self.rgb = nn.Sequential(
            _Residual(channels, frame // 8),
            _Depth(frame // 8, frame // 8),
            _Residual(frame // 8, frame // 4),
            _Depth(frame // 4, frame // 4),
            _Residual(frame // 4, frame // 2),
            _Depth(frame // 2, frame // 2),
            nn.Conv2d(frame // 2, frame, 3, padding=1),
        )
        self.label = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(cond_channels, label // 2, 7),
            nn.BatchNorm2d(label // 2),
            nn.LeakyReLU(slope),
            _Residual(label // 2, label),
        )
        self.gaussian = _Posterior(frame + label, latent, slope)
        inputs = frame + label + latent
        self.fusion = nn.Sequential(
            _Depth(inputs, inputs),
            _Residual(inputs, inputs // 4),
            _Depth(inputs // 4, inputs // 2),
            _Residual(inputs // 2, inputs // 2),
            _Depth(inputs // 2, joined // 2),
            nn.Conv2d(joined // 2, joined, 1),
        )
        self.generator = nn.Sequential(
            _Depth(joined, joined),
            _Residual(joined, joined // 2),
            _Depth(joined // 2, joined // 2),
            _Residual(joined // 2, joined // 4),
            _Depth(joined // 4, joined // 4),
            _Residual(joined // 4, joined // 8),
            _Depth(joined // 8, joined // 8),
            nn.Conv2d(joined // 8, channels, 1),
        )

    def forward(self, clip: Clip, context: int, forcing: Tensor, noise: Tensor) -> Unrolled:
        """Frames 1 .. T-1, z from the posterior; arguments as in `foreframe.models.Model`."""
        assert clip.cond is not None
        steps: list[Step] = []
        for t in range(1, len(clip)):
            frame = clip.frames[:, t - 1]
            if t > context:
                own = steps[-1].frame.detach() if self.config.detach_feedback else steps[-1].frame
                frame = torch.where(forcing[:, t - 1].to(own.device)[:, None, None, None], frame, own)
            pose = self.label(clip.cond[:, t])
            posterior = self.gaussian(torch.cat([self.rgb(clip.frames[:, t]), pose], 1))
            z = posterior.sample(noise[:, t - 1])
            painted = self.generator(self.fusion(torch.cat([self.rgb(frame), pose, z], 1)))
            painted = torch.sigmoid(painted) if self.config.output == "sigmoid" else painted.clamp(0, 1)
            steps.append(Step(painted, z, Gaussian.standard_like(z), posterior))
        return Unrolled.of(steps)


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(after, after, 3, padding=1),
            nn.LeakyReLU(0.01),
        )
        self.identity = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = self.body(maps) + self.identity(maps)
        return added


class _Depth(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.depth = nn.Sequential(
            nn.Conv2d(before, before, 1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(before, before, 3, padding=1, groups=before),
            nn.Conv2d(before, after, 1),
        )
        self.identity = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.expand = nn.Conv2d(after, 4 * after, 1)
        self.gate = nn.LeakyReLU(0.1)
        self.contract = nn.Conv2d(2 * after, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.depth(maps) + self.identity(maps)
        value, gate = self.expand(maps).chunk(2, 1)
        mixed: Tensor = maps + self.contract(value * self.gate(gate))
        return mixed


class _Posterior(nn.Module):
    def __init__(self, features: int, latent: int, slope: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Residual(features, latent // 4),
            _Depth(latent // 4, latent // 4),
            _Residual(latent // 4, latent // 2),
            _Depth(latent // 2, latent // 2),
            _Residual(latent // 2, latent),
            nn.LeakyReLU(slope),
            nn.Conv2d(latent, 2 * latent, 1),
        )

    def forward(self, maps: Tensor) -> Gaussian:
        mean, logvar = self.body(maps).chunk(2, 1)
        return Gaussian.bounded(mean, logvar)
