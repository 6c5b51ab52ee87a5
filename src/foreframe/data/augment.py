"""Changes to training clips that leave their meaning alone: one draw a clip, the same for all its frames and poses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from foreframe.clip import Clip
from foreframe.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """What is varied from clip to clip in training; all off by default."""

    flip: bool = False
    """Mirror half of the clips left to right; not with numbers as condition, whose meaning a mirror changes."""
    shift: float = 0.0
    """Move each clip by up to this many pixels each way; the edge is repeated."""
    subpixel: bool = False
    """Shift by fractions of a pixel too (bilinear), not by whole pixels only."""
    scale: float = 0.0
    """Enlarge or shrink each clip about its centre by up to this part: 0.05 for 0.95 to 1.05."""

    def check(self) -> None:
        """Raises ConfigError for numbers that cannot be."""
        if not 0 <= self.shift < 1024:
            raise ConfigError(f"augment.shift: expected 0 to 1023 pixels, found {self.shift}")
        if not 0 <= self.scale < 1:
            raise ConfigError(f"augment.scale: expected 0 <= scale < 1, found {self.scale}")


def augment(clip: Clip, config: AugmentConfig, generator: torch.Generator) -> Clip:
    """A clip with its frames, and picture conditions with them, mirrored, moved and scaled; a new Clip.

    Draws are made on the CPU, as many for each setting, so that they are the same on every device and a setting
    that is off changes no other. uint8 stays uint8 (rounded), float stays float. Whole-pixel moves copy pixels.

    Raises:
        ConfigError: a flip is asked for with a vector condition, or a number is out of range.
    """
    config.check()
    if config.flip and clip.cond is not None and clip.cond.ndim == 3:
        raise ConfigError(
            "augment.flip: a mirrored picture does not go with the same numbers (a move to the left stays one);"
            " switch it off for data with a vector condition"
        )
    if not (config.flip or config.shift or config.scale):
        return clip
    flip, across, down, scale = (torch.rand((4, clip.batch), generator=generator) * 2 - 1).unbind()
    mirrored = (flip < 0) & config.flip
    across, down = across * config.shift, down * config.shift
    if not config.subpixel:
        across, down = across.round(), down.round()
    if config.scale == 0 and not config.subpixel:
        change = _Whole(mirrored, across.long(), down.long())
        frames, cond = change(clip.frames), clip.cond
        return Clip(frames, change(cond) if cond is not None and cond.ndim == 5 else cond)
    smooth = _Smooth(mirrored, across, down, 1 + scale * config.scale)
    return Clip(smooth(clip.frames), smooth(clip.cond) if clip.cond is not None and clip.cond.ndim == 5 else clip.cond)


@dataclass(frozen=True)
class _Whole:
    """Mirrors and moves by whole pixels; flip, across and down (B,)."""

    flip: Tensor
    across: Tensor
    down: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        _, _, _, height, width = frames.shape
        rows = (torch.arange(height) - self.down[:, None]).clamp(0, height - 1)
        columns = (torch.arange(width) - self.across[:, None]).clamp(0, width - 1)
        columns = torch.where(self.flip[:, None], width - 1 - columns, columns)
        rows, columns = rows.to(frames.device), columns.to(frames.device)
        clips = torch.arange(len(frames), device=frames.device)[:, None, None]
        # Indexing beside slices puts the indexed axes first: (B, H, W, T, C).
        return frames[clips, :, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 4, 1, 2)


@dataclass(frozen=True)
class _Smooth:
    """Mirrors, moves and scales with bilinear sampling; flip, across, down and scale (B,)."""

    flip: Tensor
    across: Tensor
    down: Tensor
    scale: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        batch, length, channels, height, width = frames.shape
        # Where each pixel of the result comes from, in coordinates from -1 to 1.
        sign = torch.where(self.flip, -1.0, 1.0)
        theta = torch.zeros(batch, 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = sign / self.scale, 1 / self.scale
        theta[:, 0, 2] = -sign * 2 * self.across / width / self.scale
        theta[:, 1, 2] = -2 * self.down / height / self.scale
        flat = frames.reshape(batch, length * channels, height, width)
        grid = functional.affine_grid(theta, list(flat.shape), align_corners=False).to(frames.device)
        values = flat if flat.is_floating_point() else flat.float()
        moved = functional.grid_sample(values, grid.to(values.dtype), padding_mode="border", align_corners=False)
        if frames.dtype == torch.uint8:
            moved = moved.round().clamp(0, 255).to(torch.uint8)
        return moved.reshape(frames.shape)
