"""Pictures of a source: sizes from their headers, pixels by the strict reader, resized as the labs did."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mode
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foreframe.data.formats.folders import relative
from foreframe.errors import DataError, Fault, UsageError, explain
from foreframe.files import not_plain
from foreframe.video import read_image
from foreframe.video.pixels import Size

Fit = Literal["stretch", "crop", "pad"]

PICTURES = (".png", ".jpg", ".jpeg")  # endings of pictures, in lower case
MAX_SIDE = 8192
_MARKERS = 1000  # no JPEG has more segments than this before its size
_FILL = 64  # nor more bytes between them
LARGE = 128 * 128  # from this many pixels on, decoding in threads pays


def picture_size(path: Path) -> Size | str:
    """(H, W) of a PNG or JPEG from its header, or a description of anything else."""
    try:
        if odd := not_plain(path.stat().st_mode):
            return odd
        with path.open("rb") as file:
            return size_of(file)
    except OSError as error:
        return explain(error)


def size_of(file: BinaryIO) -> Size | str:
    """(H, W) of an open PNG or JPEG, or a description of anything else."""
    head = file.read(24)
    if head.startswith(b"\xff\xd8\xff"):
        file.seek(3)
        return _jpeg_size(file) or "a cut-off JPEG"
    if not head:
        return "an empty file"
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return "a cut-off PNG" if head[:8] == b"\x89PNG\r\n\x1a\n" else "another kind of file"
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")


def commonest_size(paths: Iterable[Path]) -> Size | None:
    """The size that most of these pictures have, so that one odd picture does not make all others wrong."""
    sizes = [size for path in paths if isinstance(size := picture_size(path), tuple)]
    sizes = [size for size in sizes if 0 < min(size) <= max(size) <= MAX_SIDE]
    return mode(sizes) if sizes else None


def each_picture(
    read: Callable[[int], Fault | None], indices: Sequence[int], size: Size
) -> dict[int, tuple[Fault, ...]]:
    """What is wrong with each of these pictures, once they are read; large ones are read in threads."""
    workers = min(8, os.cpu_count() or 1)
    if size[0] * size[1] >= LARGE and workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(read, indices))
    else:
        results = [read(index) for index in indices]
    return {index: (fault,) for index, fault in zip(indices, results, strict=True) if fault is not None}


def read_pictures(
    paths: Sequence[Path], numbers: Sequence[int], native: Size, root: Path
) -> tuple[NDArray[np.uint8], dict[int, tuple[Fault, ...]]]:
    """Pictures of one clip, PNG or JPEG: uint8 (T, H, W, 3), and faults by their index here.

    native: the (H, W) that each must have. numbers: frame numbers for messages.
    """
    frames = np.zeros((len(paths), *native, 3), np.uint8)

    def read(index: int) -> Fault | None:
        path, where = paths[index], f"frame {numbers[index]}"
        found = picture_size(path)
        if found != native:
            expected = "a PNG or JPEG" if isinstance(found, str) else f"{native[1]}x{native[0]} pixels as elsewhere"
            words = found if isinstance(found, str) else f"{found[1]}x{found[0]}"
            return Fault(relative(path, root), where, expected, words)
        try:
            frames[index] = read_image(path)
        except DataError as error:
            first = error.faults[0]
            place = ", ".join(filter(None, (where, first.where)))
            return Fault(relative(path, root), place, first.expected, first.found)
        return None

    return frames, each_picture(read, range(len(paths)), native)


def fitted(pictures: NDArray[np.uint8], size: Size, fit: Fit) -> NDArray[np.uint8]:
    """Pictures (T, H, W, 3) brought to `size` by bilinear filtering with antialiasing (Pillow), as torchvision does.

    crop: the largest middle part of the right shape. pad: all of it, with black bars.
    """
    height, width = pictures.shape[1:3]
    if (height, width) == size:
        return pictures
    box, inner = (0.0, 0.0, float(width), float(height)), size
    if fit == "crop":
        part = min(width / size[1], height / size[0])
        w, h = part * size[1], part * size[0]
        box = ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)
    elif fit == "pad":
        part = max(width / size[1], height / size[0])
        inner = (max(1, round(height / part)), max(1, round(width / part)))
    made = np.zeros((len(pictures), *size, pictures.shape[3]), np.uint8)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    for index, picture in enumerate(pictures):
        image = Image.fromarray(picture).resize((inner[1], inner[0]), Image.Resampling.BILINEAR, box=box)
        made[index, top : top + inner[0], left : left + inner[1]] = np.asarray(image)
    return made


def check_size(size: Size) -> Size:
    """A size that pictures can be brought to; UsageError when it cannot be one."""
    height, width = size
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UsageError(f"size: expected a height and a width of 1 to {MAX_SIDE}, found {height}x{width}")
    return height, width


def example_picture(number: int, height: int, width: int, color: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3): a square in a place that depends on `number`, on a grey by `color`; for examples of layouts."""
    picture = np.full((height, width, 3), 40 + 50 * color, np.uint8)
    x, y = 2 * number % (width - 3), (2 * number // (width - 3) * 3) % (height - 3)
    picture[y : y + 4, x : x + 4] = (250, 120, 10 + number)
    return picture


def _jpeg_size(file: BinaryIO) -> Size | None:
    """(H, W) from the first frame header of a JPEG, whose first three bytes are read already."""
    for _ in range(_MARKERS):
        marker = file.read(_FILL).lstrip(b"\xff")
        file.seek(1 - len(marker), 1)
        length = int.from_bytes(file.read(2))
        if not marker or length < 2:
            return None
        if 0xC0 <= marker[0] <= 0xCF and marker[0] not in (0xC4, 0xC8, 0xCC):
            head = file.read(5)
            return (int.from_bytes(head[1:3]), int.from_bytes(head[3:5])) if len(head) == 5 else None
        file.seek(length - 2, 1)
        if file.read(1) != b"\xff":
            return None
    return None
