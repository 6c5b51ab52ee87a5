"""GIFs of a page, no larger than their share of it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable

from foreframe.video import Pixels
from foreframe.video.write import encode_gif

MAX_FPS = 50
"""Browsers slow down anything faster."""


def limited_gif(
    draw: Callable[[int, float], Pixels],
    fps: float,
    limit: int,
    frames: int,
    min_frames: int = 1,
    factor: float = 1.0,
    min_factor: float = 1.0,
) -> tuple[bytes, int, float]:
    """A GIF of at most `limit` bytes, as far as `min_frames` and `min_factor` allow; its frames and its factor.

    Pictures that take too much are shrunk first; where that is not enough, fewer frames are shown.

    Args:
        draw: (T, H, W, 3) pictures of the first T frames, their sides multiplied by a factor.
    """
    while True:
        factor = max(factor, min_factor)
        data = encode_gif(draw(frames, factor), fps)
        if len(data) <= limit or (frames <= min_frames and factor <= min_factor):
            return data, frames, factor
        if factor > min_factor:
            factor *= min(0.95, math.sqrt(0.95 * limit / len(data)))
        else:
            frames = max(min_frames, min(frames - 1, int(0.95 * frames * limit / len(data))))


def data_url(kind: str, data: bytes) -> str:
    """Bytes of a media type as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
