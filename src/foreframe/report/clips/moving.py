"""Clips as GIFs: the beginning of each, pose pictures beside its frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from foreframe.data.ingest.report import count
from foreframe.data.pack.pack import Episode, Pack
from foreframe.report.clips.curves import FRAMES
from foreframe.report.gif import MAX_FPS, data_url, limited_gif

GIF_BYTES = 5_200_000
"""All GIFs together; in the page they take a third more."""
FPS = 10
"""Of a GIF where the pack has no rate."""
MIN_SIDE, SIDE, WIDTH, MAX_WIDTH = 96, 128, 256, 320
"""Pixels: pictures are not shrunk below the first; they are shown with each side at least the second, if possible about
as wide as the third, and never wider than the last."""


@dataclass(frozen=True)
class MovingClip:
    """A clip as a GIF, `width` CSS pixels wide. note: which part of it is shown. charts: its conditions, as SVG."""

    name: str
    split: str
    note: str
    source: str
    width: int
    charts: Sequence[Markup]


def moving_clips(pack: Pack, episodes: Sequence[Episode], charts: Sequence[Sequence[Markup]]) -> list[MovingClip]:
    """The episodes, each with its charts; all GIFs together take about `GIF_BYTES`."""
    limit = max(20_000, GIF_BYTES // len(episodes) - 25_000)
    return [_moving(pack, *pair, limit) for pair in zip(episodes, charts, strict=True)]


def speed(pack: Pack) -> str:
    """How fast the GIFs play."""
    if pack.fps is None:
        return f"played at {FPS} frames a second, as the pack has no rate of its own"
    slower = f" instead of {pack.fps:g}" if pack.fps > MAX_FPS else ""
    return f"played at {min(pack.fps, MAX_FPS):g} frames a second{slower}"


def _moving(pack: Pack, episode: Episode, charts: Sequence[Markup], limit: int) -> MovingClip:
    length, spec = min(episode.length, FRAMES), pack.spec
    side, wide = min(spec.height, spec.width), spec.width * (2 if spec.cond == "image" else 1)

    def size(factor: float) -> tuple[int, int]:
        return max(1, round(spec.height * factor)), max(1, round(spec.width * factor))

    data, shown, factor = limited_gif(
        lambda frames, factor: _pictures(pack, episode, frames, size(factor)),
        fps=min(pack.fps or FPS, MAX_FPS),
        limit=limit,
        frames=length,
        factor=min(1, math.sqrt(3 * limit / (length * spec.height * wide))),  # a pixel takes about a third of a byte
        min_factor=min(1, MIN_SIDE / side),
    )
    notes = [count(shown, "frame") if shown == episode.length else f"the first {shown} of {episode.length:,} frames"]
    if size(factor) != (spec.height, spec.width):
        notes.append("shrunk to {} × {}".format(*size(factor)))
    times = max(math.ceil(SIDE / side), WIDTH // wide)
    width = min(wide * times, max(wide // spec.width * MAX_WIDTH, math.ceil(SIDE / side * wide)))
    return MovingClip(episode.name, episode.split, ", ".join(notes), data_url("image/gif", data), width, charts)


def _pictures(pack: Pack, episode: Episode, shown: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The first frames of a clip as RGB of a size, and on their right the pictures that lead into them, if any."""
    frames, cond = pack.read(episode, 0, shown)
    pictures = _resized(frames, size)
    if pack.spec.cond == "image" and cond is not None:
        gap = np.full((shown, size[0], max(1, size[1] // 32), 3), 128, np.uint8)
        pictures = np.concatenate([pictures, gap, _resized(cond, size)], axis=2)
    if len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 256:
        # A GIF has 256 colors: 64 levels of red, green and blue serve as well, and theirs are found much faster.
        pictures = pictures & np.uint8(0xFC) | pictures >> np.uint8(6)
    return pictures


def _resized(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames as RGB of another size, one after another: their source may be larger than memory."""
    if frames.shape[1:3] == size:
        return np.ascontiguousarray(rgb(frames))
    images = (Image.fromarray(np.ascontiguousarray(rgb(frame))) for frame in frames)
    return np.stack([np.asarray(image.resize(size[::-1], Image.Resampling.BOX)) for image in images])


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (..., C) as pictures (..., 3): one channel becomes gray, of more the first three are taken."""
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
