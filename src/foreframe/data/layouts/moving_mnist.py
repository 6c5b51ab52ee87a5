"""Stochastic Moving MNIST, made on the fly from the files of digits.

    ROOT/train-images-idx3-ubyte[.gz]      60,000 digits, 28x28
    ROOT/t10k-images-idx3-ubyte[.gz]       10,000 digits

ROOT may also be the folder in which torchvision keeps them (MNIST/raw below it), and the second hyphen may be a dot.
The first five sixths of the train file are for training, its last sixth for validation, the t10k file for testing; a
single file is divided 80:10:10. No digit is in two splits.

The rules are those of Denton and Fergus (SVG): two digits, bilinearly resized to 32x32, in 64x64, 30 frames. A digit
starts anywhere in 0 to 31 with a velocity of -4 to 4 pixels a frame in each direction. Where it would leave the picture
it is put back to 0 or 31; its velocity in that direction is drawn again, 1 to 4 away from the wall, and so is the
other, -4 to 4. Brightness is added, up to white. Of `count` clips, 10 of 12 are for training, 1 for validation, 1 for
testing. A clip depends on its split, its number and the digits only: with more clips, the others stay the same.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foreframe.data.formats.folders import Findings, listing, may_enter
from foreframe.data.layouts._shared import index_of, safely
from foreframe.data.layouts.contract import SPLITS, RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import UsageError, reading, unreadable
from foreframe.files import Identity, identity

NAME = "moving_mnist"
DESCRIBE = "Stochastic Moving MNIST, made on the fly from the files of digits; 1,200 clips unless a count is given"
LOOKS_FOR = "[MNIST/raw/]train-images-idx3-ubyte[.gz], t10k-images-idx3-ubyte[.gz]"
TAKES = ("count",)

COUNT = 1_200  # clips in all, unless another number is asked for; no more than there are digits
LENGTH = 30
SIDE = 64
DIGIT = 32
SPEED = 4
STORED = 28  # pixels a side of a digit in its file
MAX_DIGITS = 2**20
DEFLATE = 1_032  # times that gzip can shrink its input, at most
_SEED = 0x5EED
_HEAD = struct.Struct(">IIII")
_PARTS = ("train", "t10k")
_ROOTS = ("", "raw", "MNIST/raw")


def recognises(folder: Path) -> bool:
    """Whether one of the files of digits is there, by its name."""
    return _root(folder) is not None


def survey(folder: Path, options: Options) -> SourceIndex:
    """The clips to be made. Files of digits are read whole, so that a damaged one is known before anything is made.

    Raises UsageError: fewer than three clips asked for.
    """
    if options.count and options.count < len(SPLITS):
        raise UsageError(f"count: expected {len(SPLITS)} or more, one clip for each split, got {options.count}")
    finds = Findings(folder)
    root = _root(folder) or folder
    entered = root == folder or may_enter(root, finds)
    files, folders = listing(root, finds) if entered else ([], [])
    paths = {part: root / name for part in _PARTS if (name := next((n for n in _names(part) if n in files), None))}
    for name in folders:
        if any(name in _names(part) for part in _PARTS):
            finds.fault(root / name, "a file of digits", "a folder")
    sizes: dict[str, int] = {}
    for part, path in paths.items():
        with finds.collecting(path):
            sizes[part] = len(_digits(path))
    used = {path.name for path in paths.values()}
    finds.ignore(root, (name for name in [*files, *folders] if name not in used))
    if not paths and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "none of them")
    clips: list[SourceClip] = []
    absent = [root / name for part in _PARTS if part not in paths for name in _names(part)]
    if paths and sizes.keys() == paths.keys() and not any(os.path.lexists(path) for path in absent):
        count = options.count or max(len(SPLITS), min(COUNT, sum(sizes.values())))
        for split, (part, first, last) in _pools(sizes).items():
            if first == last:
                finds.fault(paths[part], f"digits enough for a share for {split}", f"{sizes[part]} in all")
                continue
            other = max(1, count // 12)
            for index in range(count - 2 * other if split == "train" else other):
                frames = partial(_frames, paths[part], first, last, split, index)
                clips.append(SourceClip(f"{split}/{index:06d}", split, LENGTH, frames))
    return index_of(NAME, clips, (SIDE, SIDE) if clips else None, finds)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: 18 digits to train and validate, 4 to test, one file packed by gzip."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    train, test = (_stored(np.kron(rng.integers(0, 256, (n, 4, 4)), np.ones((7, 7)))) for n in (18, 4))
    (folder / "train-images-idx3-ubyte").write_bytes(train)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(test, mtime=0))


def _stored(digits: NDArray[Any]) -> bytes:
    return _HEAD.pack(2051, *digits.shape) + digits.astype(np.uint8).tobytes()


def _root(folder: Path) -> Path | None:
    """The first folder with a file of digits."""
    names = [name for part in _PARTS for name in _names(part)]
    return next((folder / root for root in _ROOTS for name in names if safely((folder / root / name).is_file)), None)


def _names(part: str) -> list[str]:
    """What the file of one part may be called; if it is there twice, the first counts."""
    return [f"{part}-images{sign}idx3-ubyte{ending}" for ending in ("", ".gz") for sign in "-."]


def _pools(sizes: dict[str, int]) -> dict[str, tuple[str, int, int]]:
    """For each split the file whose digits it takes, the first of them, and the one behind the last."""
    if len(sizes) == 2:
        cut = sizes["train"] * 5 // 6
        return {"train": ("train", 0, cut), "val": ("train", cut, sizes["train"]), "test": ("t10k", 0, sizes["t10k"])}
    ((part, size),) = sizes.items()
    cuts = (0, size * 8 // 10, size * 9 // 10, size)
    return {split: (part, cuts[order], cuts[order + 1]) for order, split in enumerate(SPLITS)}


def _digits(path: Path) -> NDArray[np.uint8]:
    """All digits of a file, (N, 28, 28). DataError where it is not what it should be."""
    with reading(path, "", "digits that can be read", EOFError, zlib.error):
        return _loaded(path, identity(path, path, "digits that can be read"))


@lru_cache(maxsize=2)
def _loaded(path: Path, state: Identity) -> NDArray[np.uint8]:
    packed = path.suffix == ".gz"
    with cast("IO[bytes]", gzip.open(path, "rb") if packed else path.open("rb")) as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise unreadable(path, "header", f"{_HEAD.size} bytes", f"{len(head)}")
        magic, count, height, width = _HEAD.unpack(head)
        if magic != 2051:
            raise unreadable(path, "header", "the number 2051 of an idx file of pictures", f"{magic}")
        if (height, width) != (STORED, STORED):
            raise unreadable(path, "header", f"digits of {STORED}x{STORED}", f"{height}x{width}")
        if not 1 <= count <= MAX_DIGITS:
            raise unreadable(path, "header", f"1 to {MAX_DIGITS} digits", f"{count}")
        expected = count * STORED * STORED
        if state.size * (DEFLATE if packed else 1) < _HEAD.size + expected:
            raise unreadable(path, "", f"{expected} bytes of digits", f"a file of {state.size}: it is cut short")
        content = file.read(expected + 1)
    if len(content) != expected:
        found = "more" if len(content) > expected else f"{len(content)}: the file is cut short"
        raise unreadable(path, "", f"{expected} bytes of digits", found)
    return np.frombuffer(content, np.uint8).reshape(count, STORED, STORED)


def _frames(path: Path, first: int, last: int, split: str, index: int, start: int, stop: int) -> RawChunk:
    rng = np.random.default_rng((_SEED, SPLITS.index(split), index))
    digits = _digits(path)
    frames = np.zeros((stop - start, SIDE, SIDE), np.uint16)
    for _ in range(2):
        stored = digits[int(rng.integers(first, last))]
        digit = np.asarray(Image.fromarray(stored).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR))
        for frame, (y, x) in zip(frames, _way(rng)[start:stop], strict=True):
            frame[y : y + DIGIT, x : x + DIGIT] += digit
    grey = np.minimum(frames, 255).astype(np.uint8)
    return RawChunk(np.repeat(grey[..., None], 3, axis=-1))


def _way(rng: np.random.Generator) -> list[tuple[int, int]]:
    """(y, x) of the upper left corner of a digit in each frame."""
    wall = SIDE - DIGIT
    place = rng.integers(0, wall, 2).tolist()
    speed = rng.integers(-SPEED, SPEED + 1, 2).tolist()
    way = []
    for _ in range(LENGTH):
        for axis in (0, 1):
            if 0 <= place[axis] < wall:
                continue
            low = place[axis] < 0
            place[axis] = 0 if low else wall - 1
            speed[axis] = int(rng.integers(1, SPEED + 1) if low else rng.integers(-SPEED, 0))
            speed[1 - axis] = int(rng.integers(-SPEED, SPEED + 1))
        way.append((place[0], place[1]))
        place = [place[0] + speed[0], place[1] + speed[1]]
    return way
