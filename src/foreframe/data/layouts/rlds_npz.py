"""Episodes of RLDS (TFDS, Open X-Embodiment) flattened into .npz files: one array for each field, one row a step.

    ROOT/[train|val|validation|valid|test/]ANY.npz      observation/image    N x H x W x 3 uint8
                                                        observation/NAME     N x ...: other observations; optional
                                                        action               N x A; or action/NAME, several
                                                        is_first, is_last    N bool; is_terminal, reward, ...: unused

Names may begin with `steps/`, and a dot may stand for each slash. A file holds one episode or several in a row: a new
one begins at each `is_first`, and `is_last` must say the same. As RLDS defines it, the action of a step is taken from
its observation, so it leads into the next frame, and the action of an episode's last step means nothing: where it is
not finite, the one before it is put there. Observations that are rows of numbers can be chosen as columns where all
files have as many.

Of several arrays of pictures `observation/image` is taken, otherwise the first by name. Files outside the folders of
splits have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from foreframe.data.formats.folders import Findings, relative, some_files
from foreframe.data.formats.images import example_picture
from foreframe.data.formats.npz import SUFFIX, Archive, members, open_npz
from foreframe.data.layouts._arrays import (
    ArrayReader,
    Pictures,
    columns,
    files_below,
    finite_rows,
    pictures,
    shared_columns,
    split_of,
    usual_camera,
)
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault, UsageError, nearest, printable

NAME = "rlds_npz"
DESCRIBE = "steps of RLDS or TFDS in .npz files: observation/image, action, is_first (Open X-Embodiment)"
LOOKS_FOR = "[train|val|test/]*.npz with arrays observation/image or is_first"
TAKES = ("camera",)

SHIFT = 1
FLAGS = ("is_first", "is_last")
MAX_STEPS = 2**20
"""Steps in one file. Flags are packed a thousand to a byte, and each may begin an episode."""
_UNUSED = ("is_terminal", "reward", "discount")


@dataclass(frozen=True)
class _File:
    """One file by its headers, and its episodes as (start, stop).

    cameras: names of pictures in `observation` and the arrays that hold them. groups: the array of each group of
    columns with its width.
    """

    path: Path
    shown: str
    split: str
    steps: int
    episodes: tuple[tuple[int, int], ...]
    cameras: Mapping[str, str]
    forms: Mapping[str, Pictures | tuple[str, str]]
    groups: Mapping[str, tuple[str, int]]
    others: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def widths(self) -> dict[str, int]:
        return {group: width for group, (_, width) in self.groups.items()}


def recognises(folder: Path) -> bool:
    """Whether a .npz below has names of RLDS in its directory."""
    for path in islice((path for path in some_files(folder) if path.suffix.lower() == SUFFIX), 8):
        keys = {_key(name) for name in members(path)}
        if "is_first" in keys or any(key.startswith("observation/") for key in keys):
            return True
    return False


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every file by the headers of its arrays and its flags; pictures and numbers are read later.

    Raises:
        UsageError: no file has this camera.
    """
    finds = Findings(folder)
    files: list[_File] = []
    for path in files_below(folder, finds, [SUFFIX]):
        try:
            files.append(_look(open_npz(path, relative(path, folder)), path, split_of(path, folder)))
        except DataError as error:
            finds.faults += error.faults
    cameras = Counter(name for file in files for name in file.cameras if isinstance(file.forms[name], Pictures))
    camera = _camera(options.camera, cameras or Counter(name for file in files for name in file.cameras))
    notes = []
    if len(cameras) > 1:
        notes.append(f"pictures of {camera}; also there: {', '.join(sorted({*cameras} - {camera}))} (--camera)")
    others = sorted({name for file in files for name in file.others})
    if others:
        notes.append(f"arrays not used: {', '.join(map(printable, others[:20]))}")
    actions = {group for file in files for group in file.groups if group.split(".")[0] == "action"}
    widths, left = shared_columns([file.widths for file in files if not file.faults], sorted(actions))
    names = columns(widths)
    clips = [clip for file in files for clip in _clips(file, camera, widths, names, finds)]
    sizes = Counter(form.size for file in files if isinstance(form := file.forms.get(camera), Pictures))
    if not clips and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "none")
    return SourceIndex(
        NAME,
        tuple(clips),
        max(sizes, key=lambda size: (sizes[size], size)) if sizes else None,
        "vector" if names else "none",
        names,
        ("action.*",) if actions & {*widths} else (),
        SHIFT,
        tuple(finds.faults),
        notes=(*notes, *left, *finds.notes()),
    )


def example(folder: Path) -> None:
    """Write a tiny source of this layout: 3 files with 5 episodes of 8 to 10 frames, 16x16."""
    order = 0
    for name, lengths in (("train/0", (10, 8)), ("train/1", (9,)), ("val/0", (8, 9))):
        steps = sum(lengths)
        first = np.zeros(steps, bool)
        first[np.cumsum((0, *lengths[:-1]))] = True
        images = []
        for length in lengths:
            images += [example_picture(order * 13 + number, 16, 16, order) for number in range(length)]
            order += 1
        action = (np.arange(steps * 4).reshape(steps, 4) / 40 - order).astype(np.float32)
        action[np.roll(first, -1)] = np.nan
        arrays: dict[str, Any] = {
            "observation/image": np.stack(images),
            "observation/state": (np.arange(steps * 3).reshape(steps, 3) / 30 + order).astype(np.float32),
            "action": action,
            "is_first": first,
            "is_last": np.roll(first, -1),
            "reward": np.zeros(steps, np.float32),
        }
        path = folder / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)


def _key(name: str) -> str:
    """The field of RLDS that an array is, with slashes and without `steps/`."""
    return name.replace(".", "/").removeprefix("steps/")


def _look(archive: Archive, path: Path, split: str) -> _File:
    """One file by its headers and flags."""
    arrays: dict[str, str] = {}
    for name in archive.keys:
        if arrays.setdefault(_key(name), name) != name:
            raise archive.error(name, "one array for each field", f"also {arrays[_key(name)]}")
    observations = {key.removeprefix("observation/"): name for key, name in arrays.items()
                    if key.startswith("observation/")}  # fmt: skip
    if not observations:
        there = ", ".join(printable(name) for name in archive.keys[:20])
        raise archive.error("", "an array observation/image", f"only {there}")
    cameras, forms = {}, {}
    groups: dict[str, tuple[str, int]] = {}
    others = [name for key, name in arrays.items() if key not in (*FLAGS, *_UNUSED, "action")
              and not key.startswith(("observation/", "action/"))]  # fmt: skip
    steps = _steps(archive, arrays, observations)
    faults: list[Fault] = []
    wanted = {key.replace("/", "."): name for key, name in arrays.items() if key.split("/")[0] == "action"}
    wanted |= {f"observation.{key.replace('/', '.')}": name for key, name in observations.items()}
    for group, name in wanted.items():
        action = group.split(".")[0] == "action"
        if not name.isprintable():
            others.append(name)
            continue
        try:
            head = archive.header(name)
        except DataError as error:
            faults += error.faults
            continue
        if head.dtype is not None and not action and _looks_like_pictures(head.shape, head.dtype):
            key = group.removeprefix("observation.").replace(".", "/")
            cameras[key], forms[key] = name, pictures(head.shape, head.dtype)
        elif head.dtype is None or len(head.shape) not in (1, 2) or 0 in head.shape[1:]:
            if action:
                found = head.description if head.dtype is None else f"shape {head.shape}"
                faults.append(Fault(archive.shown, name, "a row of numbers for each step", found))
            else:
                others.append(name)
            continue
        else:
            groups[group] = (name, head.shape[1] if len(head.shape) == 2 else 1)
        if head.shape[0] != steps:
            faults.append(Fault(archive.shown, name, f"{steps} rows, one for each step", str(head.shape[0])))
    episodes: tuple[tuple[int, int], ...] = ((0, steps),)
    try:
        episodes = _episodes(archive, arrays, steps)
    except DataError as error:
        faults += error.faults
    return _File(path, archive.shown, split, steps, episodes, cameras, forms, groups, tuple(others), tuple(faults))


def _steps(archive: Archive, arrays: Mapping[str, str], observations: Mapping[str, str]) -> int:
    """The number of steps in a file: that of is_first, of the actions, or of the first observation."""
    name = arrays.get("is_first") or arrays.get("action") or next(iter(observations.values()))
    shape = archive.header(name).shape
    if not shape or not 0 < shape[0] <= MAX_STEPS:
        raise archive.error(name, f"a row for each of 1 to {MAX_STEPS} steps", f"shape {shape}")
    return shape[0]


def _episodes(archive: Archive, arrays: Mapping[str, str], steps: int) -> tuple[tuple[int, int], ...]:
    """Where episodes begin and end, by the flags; the whole file without any."""
    flags = {}
    for field in FLAGS:
        if field not in arrays:
            continue
        name = arrays[field]
        head = archive.header(name)
        if head.dtype is None or head.shape not in ((steps,), (steps, 1)):
            found = head.description if head.dtype is None else f"shape {head.shape}"
            raise archive.error(name, f"{steps} flags, one for each step", found)
        values = archive.read(name).reshape(-1)
        if not np.isin(values, (0, 1)).all():
            raise archive.error(name, "flags: true or false", f"{values[~np.isin(values, (0, 1))][0]}")
        flags[field] = values.astype(bool)
    first = flags.get("is_first")
    if first is None:
        first = np.zeros(steps, bool)
        first[0] = True
        if "is_last" in flags:
            first[1:] = flags["is_last"][:-1]
    if not first[0]:
        raise archive.error(arrays["is_first"], "step 0 to be the first of an episode", "false")
    starts = [int(start) for start in np.flatnonzero(first)]
    if "is_last" in flags:
        wrong = np.flatnonzero(flags["is_last"] != np.roll(first, -1))
        if len(wrong):
            step = int(wrong[0])
            expected = f"step {step} to be {'the' if np.roll(first, -1)[step] else 'no'} last one of an episode"
            raise archive.error(arrays["is_last"], expected, str(bool(flags["is_last"][step])).lower())
    return tuple(zip(starts, [*starts[1:], steps], strict=True))


def _looks_like_pictures(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bool:
    """Pictures, or what somebody meant to be pictures, but of float or with an alpha channel."""
    channels = {shape[1], shape[3]} if len(shape) == 4 else set()
    return 3 in channels or (dtype == np.uint8 and (bool({1, 4} & channels) or len(shape) == 3))


def _camera(option: str, cameras: Counter[str]) -> str:
    """The name in `observation` of the pictures to take."""
    if option:
        wanted = _key(option).removeprefix("observation/")
        if cameras and wanted not in cameras:
            there = ", ".join(sorted(cameras))
            raise UsageError(f"camera: no file has '{option}'{nearest(wanted, cameras)} (there is {there})")
        return wanted
    return usual_camera(cameras, ["image"])


def _clips(
    file: _File, camera: str, widths: Mapping[str, int], names: tuple[str, ...], finds: Findings
) -> list[SourceClip]:
    """The episodes of a file; none, with faults, where something is wrong that concerns all of them."""
    faults = list(file.faults)
    form = file.forms.get(camera, ("pictures", f"none ({', '.join(file.cameras) or 'no pictures at all'})"))
    if not isinstance(form, Pictures):
        faults.append(Fault(file.shown, file.cameras.get(camera, f"observation/{camera}"), *form))
    for group, width in widths.items():
        found = file.widths.get(group, 0)
        if found != width and not faults:
            place = file.groups[group][0] if found else ""
            words = str(found) if found else f"no {group}"
            faults.append(Fault(file.shown, place, f"{group} of {width} numbers, as in most files", words))
    finds.faults += faults
    if faults or not isinstance(form, Pictures):
        return []
    actions = tuple(group.split(".")[0] == "action" for group in widths)
    clips = []
    for number, (start, stop) in enumerate(file.episodes):
        several = len(file.episodes) > 1
        pictures = file.cameras[camera], form
        arrays = tuple((file.groups[group][0], stop) for group in widths)
        place = f"episode {number}" if several else ""
        reader = ArrayReader(open_npz, file.path, file.shown, pictures, arrays, names, place, start)
        rows = partial(_rows, reader, actions, stop - start) if names else None
        name = f"{file.shown}/{number}" if several else file.shown
        frames = partial(ArrayReader.frames, reader)
        clips.append(SourceClip(name, file.split, stop - start, frames, rows, file=file.shown))
    return clips


def _rows(reader: ArrayReader, actions: Sequence[bool], length: int, start: int, stop: int) -> RawChunk:
    """All columns of steps start to stop-1 of an episode; the action of its last step may be missing (not finite), and
    that before it then stands again."""
    archive, offset = open_npz(reader.path, reader.shown), reader.first
    parts = []
    for (name, _), action in zip(reader.arrays, actions, strict=True):
        values = archive.read(name, offset + start, offset + stop)
        values = values.reshape(len(values), -1)
        if action and stop == length > 1 and not np.isfinite(values[-1]).all():
            values[-1] = archive.read(name, offset + length - 2, offset + length - 1).reshape(-1)
        parts.append(values)
    return finite_rows(np.concatenate(parts, axis=1), reader.columns, start, reader.shown, reader.clip)
