"""Pictures and videos as bytes, and to disk: encoded in memory first, so that no file is ever half of one."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image

from foreframe import disk
from foreframe.video.pixels import Pixels, check_video, scaled


def write_png(path: str | Path, image: Pixels) -> None:
    """Write what `encode_png` makes. Raises also DiskError: the disk refused; what was there is untouched."""
    disk.put(Path(path), encode_png(image))


def write_gif(path: str | Path, frames: Pixels, fps: float, scale: int = 1) -> None:
    """Write what `encode_gif` makes. Raises also DiskError: the disk refused; what was there is untouched."""
    disk.put(Path(path), encode_gif(frames, fps, scale))


def write_mp4(path: str | Path, frames: Pixels, fps: float, scale: int = 1) -> None:
    """Write what `encode_mp4` makes. Raises also DiskError: the disk refused; what was there is untouched."""
    disk.put(Path(path), encode_mp4(frames, fps, scale))


def encode_png(image: Pixels) -> bytes:
    """One picture (H, W, 3) uint8, lossless. Raises ValueError for another shape or dtype."""
    check_video("image", image[None])
    Image.fromarray(image).save(made := io.BytesIO(), format="PNG")
    return made.getvalue()


def encode_gif(frames: Pixels, fps: float, scale: int = 1) -> bytes:
    """An endless GIF with exactly T pictures, equal neighbours included, each pixel `scale` pixels wide.

    The end of each frame is rounded to 10 ms, so the sum stays within 5 ms of T / fps. One palette of 256 colors serves
    all frames, so what does not move does not flicker; videos of no more colors are kept exactly.
    Raises ValueError for an fps not above 0 or above 50, which browsers slow down, for frames that are not (T, H, W, 3)
    uint8, and for more than 65535 pixels a side.
    """
    check_video("frames", frames)
    if not 0 < fps <= 50:
        raise ValueError(f"fps: expected above 0 and at most 50 in a GIF, got {fps}; MP4 has no such limit")
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    if max(height, width) > 65535:
        raise ValueError(f"frames: a GIF holds at most 65535 pixels a side, got {width}x{height}")
    palette, indices = _quantized(frames)
    parts = [b"GIF89a", struct.pack("<HHBBB", width, height, 0xF7, 0, 0), palette.tobytes()]
    parts.append(b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # loop for ever
    for t, picture in enumerate(indices):
        # Pillow's own multi-frame writer merges equal neighbours into one longer frame; this keeps all T.
        hundredths = round(100 * (t + 1) / fps) - round(100 * t / fps)
        image = Image.fromarray(scaled(picture, scale))
        image.putpalette(palette.tobytes())
        parts += GifImagePlugin.getdata(image, duration=10 * hundredths)
    return b"".join([*parts, b";"])


def encode_mp4(frames: Pixels, fps: float, scale: int = 1) -> bytes:
    """H.264 in yuv420p, which browsers play; odd sides are padded by one repeated row or column.

    Raises ValueError for an fps not above 0, or frames that are not (T, H, W, 3) uint8.
    """
    check_video("frames", frames)
    if not fps > 0:
        raise ValueError(f"fps: expected above 0, got {fps}")
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    made, faststart = io.BytesIO(), {"movflags": "+faststart"}
    # To put the index first, the writer of an MP4 reads in the end what it wrote.
    with av.open(
        made, "w", format="mp4", options=faststart, io_open=lambda *_: io.BytesIO(made.getvalue())
    ) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.options = {"crf": "16", "preset": "medium"}
        for picture in frames:
            even = np.pad(scaled(picture, scale), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))
    return made.getvalue()


def _quantized(frames: Pixels) -> tuple[Pixels, Pixels]:
    """A palette (256, 3) for the whole video and indices (T, H, W): each pixel's nearest color in it, undithered."""
    table = np.zeros(1 << 24, np.uint8)  # color -> index; far quicker than sorting all pixels
    for picture in frames:
        table[_codes(picture)] = 1
    unique = table.nonzero()[0]
    colors = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], axis=1).astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    if len(colors) <= 256:
        palette[: len(colors)], table[unique] = colors, np.arange(len(colors))
        return palette, _looked_up(table, frames)
    some = np.random.default_rng(0).integers(
        frames.size // 3, size=(1, 2**16)
    )  # enough to choose by, however long the video
    chosen = Image.fromarray(frames.reshape(-1, 3)[some]).quantize(
        256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    )
    found = np.array(chosen.getpalette("RGB"), np.uint8).reshape(-1, 3)[:256]
    palette[: len(found)] = found
    points = palette.astype(np.float32)
    for start in range(0, len(unique), 4096):
        far = (points**2).sum(1) - 2 * colors[start : start + 4096].astype(np.float32) @ points.T
        table[unique[start : start + 4096]] = far.argmin(1)
    return palette, _looked_up(table, frames)


def _codes(picture: Pixels) -> NDArray[np.int32]:
    """Each color as one number."""
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    codes: NDArray[np.int32] = red << 16 | green << 8 | blue
    return codes


def _looked_up(table: Pixels, frames: Pixels) -> Pixels:
    """The index of each color, one picture after another: the numbers of all would be large."""
    return np.stack([table[_codes(picture)] for picture in frames])
