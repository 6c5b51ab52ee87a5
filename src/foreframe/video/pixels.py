"""What a video is here: uint8 (T, H, W, 3), RGB; a picture is one of its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""(H, W)."""


def pictures(frames: Tensor) -> Pixels:
    """Frames (..., C, H, W), floats in [0, 1] or uint8, as uint8 pictures (..., H, W, 3); one channel becomes gray.

    Floats are cut off at 0 and 1 and rounded. Raises ValueError if C is neither 1 nor 3.
    """
    if frames.ndim < 3 or frames.shape[-3] not in (1, 3):
        raise ValueError(f"frames: expected (..., C, H, W) with 1 or 3 channels, got {tuple(frames.shape)}")
    frames = frames.detach()
    if frames.is_floating_point():
        frames = frames.float().clamp(0, 1).mul(255).round()
    levels = frames.to("cpu").numpy().astype(np.uint8)
    return np.ascontiguousarray(
        np.broadcast_to(np.moveaxis(levels, -3, -1), (*levels.shape[:-3], *levels.shape[-2:], 3))
    )


def scaled(pixels: Pixels, scale: int, axis: int = 0) -> Pixels:
    """Every pixel `scale` pixels high and wide; H and W are axes `axis` and `axis` + 1."""
    return pixels.repeat(scale, axis).repeat(scale, axis + 1) if scale > 1 else pixels


def check_video(name: str, frames: Pixels) -> None:
    """Raise ValueError unless `frames` is a video."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"{name}: expected uint8 RGB, (H, W, 3) each, got {frames.dtype} {frames.shape}")
