"""Changes to training clips that leave their meaning alone: one draw a clip, the same for all its frames and poses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from foreframe.clip import Clip, ClipSpec
from foreframe.config import Range, check_ranges
from foreframe.errors import ConfigError

KNOTS = (2, 3)
"""Rows and columns of the coarse net that `warp` pulls at: a person is bent, not crumpled."""


@dataclass(frozen=True)
class AugmentConfig:
    """How much clips are varied in training; all off by default. What comes in from outside repeats the edge."""

    flip: bool = False
    """Mirror half of the clips left to right."""
    shift: Annotated[float, Range(0, 1024)] = 0.0
    """Move by up to this many pixels each way."""
    scale: Annotated[float, Range(0, 4)] = 0.0
    """Change width and height by up to this part, independently: 0.1 for factors between 1/1.1 and 1.1."""
    rotate: Annotated[float, Range(0, 180)] = 0.0
    """Turn by up to this many degrees."""
    shear: Annotated[float, Range(0, 4)] = 0.0
    """Lean by up to this part of the height."""
    warp: Annotated[float, Range(0, 1024)] = 0.0
    """Pull at a coarse net of points, by this many pixels (the deviation of a Gaussian)."""

    @property
    def active(self) -> bool:
        return self.flip or any((self.shift, self.scale, self.rotate, self.shear, self.warp))

    def check(self, spec: ClipSpec) -> None:
        """Raises ConfigError for numbers that cannot be, and for clips whose condition is a vector."""
        if self.active and spec.cond == "vector":
            raise ConfigError("augment: numbers as condition do not move with the picture; switch it off for such data")
        check_ranges(self, "augment")


def draw_grid(batch: int, height: int, width: int, config: AugmentConfig, generator: torch.Generator) -> Tensor | None:
    """Where each pixel of an augmented clip comes from: (B, H, W, 2), x and y from -1 to 1, on the CPU; None with
    everything off. As many numbers are drawn whatever is on: a setting changes no other."""
    if not config.active:
        return None
    flip, right, down, wide, tall, turn, lean = (2 * torch.rand(7, batch, generator=generator) - 1).unbind()
    mirror = torch.where((flip < 0) & torch.tensor(config.flip), -1.0, 1.0)
    angle = turn * math.radians(config.rotate)
    wide, tall = (1 + config.scale) ** wide, (1 + config.scale) ** tall
    aspect = width / height  # turning and leaning happen in pixels, the grid's axes are both 2 long
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = mirror * wide * angle.cos()
    theta[:, 0, 1] = wide * (lean * config.shear - angle.sin()) / aspect
    theta[:, 1, 0] = tall * angle.sin() * aspect
    theta[:, 1, 1] = tall * angle.cos()
    theta[:, 0, 2], theta[:, 1, 2] = 2 * config.shift / width * right, 2 * config.shift / height * down
    grid = functional.affine_grid(theta, [batch, 1, height, width], align_corners=False)
    pulls = torch.randn(batch, 2, *KNOTS, generator=generator) * config.warp
    pulls = functional.interpolate(pulls, (height, width), mode="bicubic", align_corners=True)
    return grid + pulls.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height])


def warp(clip: Clip, grid: Tensor) -> Clip:
    """A clip of floats sampled at `draw_grid`'s points: frames and condition pictures alike."""
    return Clip(_sample(clip.frames, grid), None if clip.cond is None else _sample(clip.cond, grid))


def _sample(pixels: Tensor, grid: Tensor) -> Tensor:
    """All pictures (B, T, C, H, W) of a clip through its own grid, bilinear."""
    moved = functional.grid_sample(pixels.flatten(1, 2), grid, padding_mode="border", align_corners=False)
    return moved.view(pixels.shape)
