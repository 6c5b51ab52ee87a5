"""BAIR robot pushing as it was published: TFRecord files of raw pictures, read without TensorFlow.

    ROOT[/softmotion30_44k]/train/traj_256_to_511.tfrecords     256 records: trajectories 256 to 511
    ROOT[/softmotion30_44k]/train/traj_512_to_767.tfrecords     ...
    ROOT[/softmotion30_44k]/test/traj_0_to_255.tfrecords

A record is one tf.train.Example with one trajectory; for each frame i from 0 on (to 29 in the published files) it has

    i/image_main/encoded      3*n*n raw bytes, a square RGB picture without any coding; n is 64
    i/image_aux1/encoded      the same moment from the other camera
    i/action                  4 floats
    i/endeffector_pos         3 floats

The camera is image_aux1, as in all published work, unless another is asked for. Row t leads into frame t+1. No
validation split was published: as in Lee et al. (SAVP) it is the file of trajectories 256 to 511, left in train/ or
moved to val/. Clips are named by their file and the number of their record in it, counted from 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import Findings, listing, may_enter, relative
from foreframe.data.formats.images import MAX_SIDE, example_picture
from foreframe.data.formats.tfrecord import Feature, Record, index_records, parse_example, read_record, write_records
from foreframe.data.layouts._shared import index_of, safely
from foreframe.data.layouts.contract import SPLITS, RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault, NumberFault, UsageError, nearest, unreadable
from foreframe.files import Identity, Recent, identity

NAME = "bair_tfrecord"
DESCRIBE = "robot pushing as published: softmotion30_44k with TFRecord files; camera image_aux1 unless given"
LOOKS_FOR = "[softmotion30_44k/]train|val|test/traj_A_to_B.tfrecords"
TAKES = ("camera",)

CAMERAS = {"image_aux1": "image_aux1", "aux1": "image_aux1", "image_main": "image_main", "main": "image_main"}
COND_NAMES = (*(f"action_{axis}" for axis in range(4)), *(f"position_{axis}" for axis in "xyz"))
ROWS = {"action": (0, 4), "endeffector_pos": (4, 7)}
VAL = 256  # number of the first trajectory of the file in train/ that is kept for validation
TRIED = 4  # records of a file that are tried until one can be read and shows what the file holds
KEPT = 2  # decoded trajectories that a process keeps
_FILE = re.compile(r"traj_([0-9]{1,9})_to_([0-9]{1,9})\.tfrecords")
_KEY = re.compile(r"([0-9]{1,9})/.*", re.DOTALL)


@dataclass(frozen=True)
class _File:
    """What holds for all records of one file: where it is, its camera, pixels a side, and frames in a record."""

    path: Path
    shown: str
    camera: str
    side: int
    length: int


def recognises(folder: Path) -> bool:
    """Whether a split holds a file named like traj_0_to_255.tfrecords."""
    try:
        return any(
            _FILE.fullmatch(path.name) for split in SPLITS for path in (_root(folder) / split).glob("traj_*.tfrecords")
        )
    except OSError:
        return False


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every record by its place in its file; of each file, one record is decoded to learn what they hold.

    Raises UsageError: a camera that this data set does not have.
    """
    camera = CAMERAS.get(options.camera or "image_aux1", "")
    if not camera:
        names = ", ".join(CAMERAS)
        raise UsageError(f"camera: expected one of {names}, got {options.camera!r}{nearest(options.camera, CAMERAS)}")
    finds = Findings(folder)
    root = _root(folder)
    clips: list[SourceClip] = []
    size: int | None = None
    for split in SPLITS if root == folder or may_enter(root, finds) else ():
        if not may_enter(root / split, finds):
            continue
        files, folders = listing(root / split, finds)
        matches = {name: match for name in files if (match := _FILE.fullmatch(name))}
        odd = [name for name in folders if _FILE.fullmatch(name)]
        for name in odd:
            finds.fault(root / split / name, "a TFRecord file", "a folder")
        others = [name for name in [*files, *folders] if name not in matches and name not in odd]
        finds.ignore(root / split, others)
        if not matches and not odd:
            finds.fault(root / split, "files named like traj_0_to_255.tfrecords", "none")
        for name in sorted(matches, key=lambda name: (int(matches[name][1]), name)):
            first, last = int(matches[name][1]), int(matches[name][2])
            path = root / split / name
            if last < first:
                finds.fault(path, "a name from a first to a last trajectory", f"{first} to {last}")
                continue
            records, faults = index_records(path, relative(path, folder))
            finds.faults += faults
            if not faults and len(records) != last - first + 1:
                finds.fault(path, f"{last - first + 1} records as its name says", f"{len(records)}")
            file = _opened(path, relative(path, folder), camera, records, finds)
            if file is None:
                continue
            if file.side != (size := size or file.side):
                finds.fault(path, f"pictures of {size}x{size} as in the files before it", f"{file.side}x{file.side}")
                continue
            part = "val" if split == "train" and first == VAL else split
            stem = relative(root / split / path.stem, root)
            clips += [_clip(f"{stem}/{record.number}", part, file, record) for record in records]
    if not clips and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "no clip")
    other = next(name for name in CAMERAS.values() if name != camera)
    finds.remarks.append(f"camera {camera}; the other one is {other}")
    return index_of(
        NAME, clips, (size, size) if size else None, finds, "vector", COND_NAMES, shift=1, measured=("position_*",)
    )


def example(folder: Path) -> None:
    """Write a tiny source of this layout: five trajectories of 8 frames, 16x16, in three files."""
    for order, name in enumerate(("train/traj_0_to_1", "train/traj_256_to_257", "test/traj_0_to_0")):
        numbers = range(1 if name.startswith("test") else 2)
        path = folder / "softmotion30_44k" / f"{name}.tfrecords"
        write_records(path, (_example(2 * order + number) for number in numbers))


def _example(clip: int) -> dict[str, bytes | list[float]]:
    features: dict[str, bytes | list[float]] = {}
    for i in range(8):
        picture = example_picture(i, 16, 16, clip)
        features[f"{i}/image_main/encoded"] = picture[:, ::-1].tobytes()
        features[f"{i}/image_aux1/encoded"] = picture.tobytes()
        features[f"{i}/action"] = [clip + 0.01 * (4 * i + axis) for axis in range(4)]
        features[f"{i}/endeffector_pos"] = [clip - 0.01 * (3 * i + axis) for axis in range(3)]
    return features


def _root(folder: Path) -> Path:
    return folder / "softmotion30_44k" if safely((folder / "softmotion30_44k").is_dir) else folder


def _opened(path: Path, shown: str, camera: str, records: list[Record], finds: Findings) -> _File | None:
    """What the records of a file hold, by the first one that can be read; None, with a fault, where there is none."""
    faults: tuple[Fault, ...] = ()
    for record in records[:TRIED]:
        try:
            features = parse_example(read_record(path, shown, record), shown, record)
            side = _side(features, f"0/{camera}/encoded", shown, record)
        except DataError as error:
            faults = faults or error.faults
            continue
        numbers = _numbers(features)
        length = next(i for i in range(len(numbers) + 1) if i not in numbers)
        return _File(path, shown, camera, side, length)
    finds.faults += faults
    return None


def _side(features: Mapping[str, Feature], key: str, shown: str, record: Record) -> int:
    """Pixels a side of the square picture under `key`; DataError where there is none."""
    picture = features.get(key)
    expected, found = f"one byte string {key}", _words(picture)
    if picture is None:
        cameras = sorted(name for name in {*CAMERAS.values()} if f"0/{name}/encoded" in features)
        found = f"none; cameras there: {', '.join(cameras) or 'none'}"
    elif isinstance(picture, list) and len(picture) == 1:
        size = len(picture[0])
        side = math.isqrt(size // 3)
        if 3 * side * side == size and 1 <= side <= MAX_SIDE:
            return side
        expected = f"3*n*n bytes of a square picture without any coding as {key}"
    raise unreadable(shown, record.where, expected, found)


def _clip(name: str, split: str, file: _File, record: Record) -> SourceClip:
    frames, rows = (partial(_read, file, record, part) for part in (0, 1))
    return SourceClip(name, split, file.length, frames, rows, file=file.shown)


_TRAJECTORIES: Recent[tuple[_File, Record, Identity], tuple[RawChunk, RawChunk]] = Recent(KEPT)


def _read(file: _File, record: Record, part: int, start: int, stop: int) -> RawChunk:
    """Pictures (part 0) or rows (part 1) of a record; the last ones that were decoded are kept."""
    key = (file, record, identity(file.path, file.shown, "a TFRecord file"))
    whole = _TRAJECTORIES.use(key, lambda: _decoded(file, record))[part]
    faults = {index - start: found for index, found in whole.faults.items() if start <= index < stop}
    return RawChunk(whole.values[start:stop].copy(), faults)


def _decoded(file: _File, record: Record) -> tuple[RawChunk, RawChunk]:
    features = parse_example(read_record(file.path, file.shown, record), file.shown, record)
    count = max(_numbers(features), default=-1) + 1
    if count != file.length:
        expected = f"{file.length} frames as in other records of the file"
        raise unreadable(file.shown, record.where, expected, f"{count}")
    frames = np.zeros((file.length, file.side, file.side, 3), np.uint8)
    rows = np.zeros((file.length, len(COND_NAMES)), np.float32)
    bad_frames: dict[int, tuple[Fault, ...]] = {}
    bad_rows: dict[int, tuple[Fault, ...]] = {}
    for i in range(file.length):
        where = f"{record.where}, frame {i}"
        name = f"{i}/{file.camera}/encoded"
        picture = features.get(name)
        if isinstance(picture, list) and len(picture) == 1 and len(picture[0]) == frames[i].size:
            frames[i] = np.frombuffer(picture[0], np.uint8).reshape(frames[i].shape)
        else:
            expected = f"one byte string {name} of {frames[i].size} bytes"
            bad_frames[i] = (Fault(file.shown, where, expected, _words(picture)),)
        for kind, (first, end) in ROWS.items():
            values = features.get(f"{i}/{kind}")
            if _are_floats(values, end - first):
                rows[i, first:end] = values
            else:
                expected = f"{end - first} finite floats {i}/{kind}"
                fault = NumberFault(file.shown, where, expected, _words(values), tuple(range(first, end)))
                bad_rows[i] = (*bad_rows.get(i, ()), fault)
    return RawChunk(frames, bad_frames), RawChunk(rows, bad_rows)


def _numbers(features: Mapping[str, Feature]) -> set[int]:
    """Frame numbers of all keys, whatever else they name."""
    return {int(match[1]) for key in features if (match := _KEY.fullmatch(key))}


def _are_floats(values: Feature | None, count: int) -> TypeGuard[NDArray[np.float32]]:
    return (
        isinstance(values, np.ndarray)
        and values.dtype == np.float32
        and len(values) == count
        and bool(np.isfinite(values).all())
    )


def _words(value: Feature | None) -> str:
    """A feature in a few words, for messages."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"a byte string of {len(value[0])} bytes" if len(value) == 1 else f"{len(value)} byte strings"
    if value.dtype != np.float32:
        return f"{len(value)} whole numbers"
    if len(value) <= 8:
        return f"{len(value)}: {' '.join(f'{number:g}' for number in value)}"
    return f"{len(value)} floats"
