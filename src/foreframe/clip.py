"""A clip: frames, and the condition that leads into each of them.

The letters used in every signature:

    B clips   T frames   C H W pixels   D condition   Z latent   S samples   K context frames

One convention, fixed where data enters and relied on everywhere: **`cond[:, t]` leads INTO frame t.**
An action recorded together with frame t-1 is shifted by one when it is imported; the pose of frame t is
not. `cond[:, 0]` leads into the first frame of an episode, which nothing predicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

from foreframe.errors import ConfigError

CondKind = Literal["none", "vector", "image"]
MAX_SIZE = 2**16
"""Pixels of a side, channels, and numbers of a condition."""


@dataclass(frozen=True)
class ClipSpec:
    """What every clip of a data set has in common; a model is built for one of these. cond_size: D for a vector
    condition, the number of channels for an image, and 0 for none."""

    channels: int
    height: int
    width: int
    cond: CondKind = "none"
    cond_size: int = 0

    def check(self) -> None:
        """Raises ConfigError for sizes that no clip has."""
        for name in ("channels", "height", "width"):
            if not 1 <= getattr(self, name) <= MAX_SIZE:
                raise ConfigError(f"spec.{name}: expected 1 to {MAX_SIZE}, found {getattr(self, name)}")
        if not 0 <= self.cond_size <= MAX_SIZE or (self.cond_size == 0) != (self.cond == "none"):
            raise ConfigError(f"spec.cond_size: {self.cond_size} does not go with spec.cond '{self.cond}'")

    def __str__(self) -> str:
        cond = {
            "none": "no condition",
            "vector": f"{self.cond_size} numbers",
            "image": f"{self.cond_size}-channel pictures",
        }
        return f"{self.channels}x{self.height}x{self.width} with {cond[self.cond]}"


@dataclass(frozen=True)
class Clip:
    """A batch of clips of equal length.

    frames: (B, T, C, H, W), uint8 on the way to the device, float in [0, 1] once `unit` was called there.
    cond: (B, T, D) float, or (B, T, C, H, W) like the frames, or None.
    """

    frames: Tensor
    cond: Tensor | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 5:
            raise ValueError(f"frames: expected (B, T, C, H, W), got {tuple(self.frames.shape)}")
        if self.cond is None:
            return
        if self.cond.ndim not in (3, 5):
            raise ValueError(f"cond: expected (B, T, D) or (B, T, C, H, W), got {tuple(self.cond.shape)}")
        if self.cond.shape[:2] != self.frames.shape[:2]:
            expected, got = tuple(self.frames.shape[:2]), tuple(self.cond.shape[:2])
            raise ValueError(f"cond: expected {expected} clips and frames as in frames, got {got}")

    def __len__(self) -> int:
        """T, the number of frames."""
        return self.frames.shape[1]

    @property
    def batch(self) -> int:
        """B, the number of clips."""
        return self.frames.shape[0]

    @property
    def spec(self) -> ClipSpec:
        channels, height, width = self.frames.shape[2:]
        if self.cond is None:
            return ClipSpec(channels, height, width)
        return ClipSpec(channels, height, width, "vector" if self.cond.ndim == 3 else "image", self.cond.shape[2])

    def to(self, device: torch.device | str) -> Clip:
        cond = None if self.cond is None else self.cond.to(device, non_blocking=True)
        return Clip(self.frames.to(device, non_blocking=True), cond)

    def unit(self) -> Clip:
        """The same clip with pixels as float32 in [0, 1]; done once, on the device."""
        return Clip(unit(self.frames), None if self.cond is None else unit(self.cond))

    def window(self, start: int, stop: int) -> Clip:
        """Frames start to stop-1 with their conditions, as views."""
        return Clip(self.frames[:, start:stop], None if self.cond is None else self.cond[:, start:stop])


def unit(pixels: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]; only uint8 is scaled."""
    import torch  # late: processes that only read files have no use for it

    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels.float()
