"""Pictures of a source: sizes from their headers, pixels by the strict reader, resized as the labs did."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foreframe.data.folders import relative
from foreframe.errors import DataError, Fault
from foreframe.video import read_png

Size = tuple[int, int]
"""(H, W)."""

MAX_SIDE = 8192
LARGE = 128 * 128
"""From this many pixels on, decoding in threads pays."""


def picture_size(path: Path) -> Size | str:
    """(H, W) of a PNG from its first 24 bytes, or in words what is there instead."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        return error.strerror or type(error).__name__
    if not head:
        return "an empty file"
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return "a cut-off PNG" if head[:8] == b"\x89PNG\r\n\x1a\n" else "another kind of file"
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")


def commonest_size(paths: Iterable[Path]) -> Size | None:
    """The size that most of these pictures have, so that one odd picture does not make all others wrong."""
    sizes = [size for path in paths if isinstance(size := picture_size(path), tuple)]
    return Counter(size for size in sizes if max(size) <= MAX_SIDE).most_common(1)[0][0] if sizes else None


def read_pictures(
    paths: Sequence[Path], numbers: Sequence[int], native: Size, size: Size, root: Path
) -> tuple[NDArray[np.uint8], dict[int, tuple[Fault, ...]]]:
    """Pictures of one clip: uint8 (T, H, W, 3), and what is wrong with which of them by its index here.

    native: the (H, W) that each must have on disk. size: the (H, W) to bring it to, by bilinear filtering
    with antialiasing (Pillow), as torchvision's Resize does on pictures. numbers: frame numbers for messages.
    """
    frames = np.zeros((len(paths), *size, 3), np.uint8)

    def read(index: int) -> Fault | None:
        path = paths[index]
        found = picture_size(path)
        if found == native:
            try:
                picture = read_png(path)
            except DataError as error:
                return _as_fault(error, path, relative(path, root), f"frame {numbers[index]}")
        else:
            expected = "a PNG picture" if isinstance(found, str) else f"{native[1]}x{native[0]} pixels as elsewhere"
            words = found if isinstance(found, str) else f"{found[1]}x{found[0]}"
            return Fault(relative(path, root), f"frame {numbers[index]}", expected, words)
        if size != native:
            picture = np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        frames[index] = picture
        return None

    workers = min(8, os.cpu_count() or 1)
    if native[0] * native[1] >= LARGE and workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(read, range(len(paths))))
    else:
        results = [read(index) for index in range(len(paths))]
    return frames, {index: (fault,) for index, fault in enumerate(results) if fault is not None}


def check_size(size: Size | None, default: Size) -> Size:
    """The size to bring pictures to; ConfigError-like refusal as DataError when it cannot be one."""
    height, width = size or default
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise DataError(f"size: expected a height and a width of 1 to {MAX_SIDE}, got {height}x{width}")
    return height, width


def example_picture(number: int, height: int, width: int, colour: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3): a square whose place tells its number, on a grey that tells `colour`; for examples of layouts."""
    picture = np.full((height, width, 3), 40 + 50 * colour, np.uint8)
    x, y = 2 * number % (width - 3), (2 * number // (width - 3) * 3) % (height - 3)
    picture[y : y + 4, x : x + 4] = (250, 120, 10 + number)
    return picture


def _as_fault(error: DataError, path: Path, shown: str, where: str) -> Fault:
    """The reader's complaint as a fault of the scan, without repeating the path."""
    if error.faults:
        first = error.faults[0]
        return Fault(shown, ", ".join(filter(None, (where, first.where))), first.expected, first.found)
    return Fault(shown, where, "an 8-bit PNG picture", str(error).replace(str(path), "").strip(" :,"))
