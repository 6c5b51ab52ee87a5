"""Steps of RLDS (TFDS, Open X-Embodiment) flattened into .npz files: one array for each field, one row a step.

    ROOT/[train|val|validation|valid|test/]ANY.npz      observation/image    N x H x W x 3 uint8
                                                        observation/NAME     N x ...: other observations; optional
                                                        action               N x A; or action/NAME, several
                                                        is_first, is_last    N bool; is_terminal, reward, ...: unused

Names may begin with `steps/`, and a dot may stand for each slash. An episode begins at each `is_first`, and `is_last`
must say the same. As RLDS defines it, an action leads into the next frame, and that of an episode's last step means
nothing: where it is not finite, the one before it is put there. Observations that are rows of numbers can be chosen as
columns where all files have as many. Of several arrays of pictures `observation/image` is taken, else the first by
name. Files outside the folders of splits have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foreframe.data.formats.folders import Findings, relative
from foreframe.data.formats.images import example_picture
from foreframe.data.formats.npz import SUFFIX, Archive, open_npz, some_members
from foreframe.data.layouts._arrays import (
    ArrayReader,
    Camera,
    Pictures,
    Recording,
    files_below,
    find_camera,
    finite_rows,
    index_of_arrays,
    looks_like_pictures,
    pictures,
    split_of,
)
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex, reads_of
from foreframe.data.layouts.options import Options
from foreframe.errors import Fault, printable

NAME = "rlds_npz"
DESCRIBE = "steps of RLDS or TFDS in .npz files: observation/image, action, is_first (Open X-Embodiment)"
LOOKS_FOR = "[train|val|test/]*.npz with arrays observation/image or is_first"
TAKES = ("camera",)

FLAGS = ("is_first", "is_last")
MAX_STEPS = 2**20
"""Steps in one file. Flags are packed a thousand to a byte, and each may begin an episode."""
_UNUSED = ("is_terminal", "reward", "discount")


@dataclass(frozen=True)
class _File(Recording):
    """One file, and its episodes as (start, stop)."""

    episodes: tuple[tuple[int, int], ...] = ()


def recognises(folder: Path) -> bool:
    """Whether a .npz below has names of RLDS in its directory."""
    keys = {_key(name) for names in some_members(folder) for name in names}
    return "is_first" in keys or any(key.startswith("observation/") for key in keys)


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every file by the headers of its arrays and its flags; pictures and numbers are read later.

    Raises UsageError: no file has this camera.
    """
    finds = Findings(folder)
    files: list[_File] = []
    for path in files_below(folder, finds, [SUFFIX]):
        with finds.collecting():
            files.append(_look(open_npz(path, relative(path, folder)), path, split_of(path, folder)))
    wanted = _key(options.camera).removeprefix("observation/")
    camera = find_camera(files, options.camera, [wanted], ["image"], "file", finds)
    if others := sorted({name for file in files for name in file.others}):
        finds.remarks.append(f"arrays not used: {', '.join(map(printable, others[:20]))}")
    return index_of_arrays(NAME, files, camera, partial(_clips, camera, finds), LOOKS_FOR, finds)


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
    arrays: dict[str, str] = {}
    for name in archive.keys:
        if arrays.setdefault(_key(name), name) != name:
            raise archive.error(name, "one array for each field", f"also {arrays[_key(name)]}")
    observations = [name for key, name in arrays.items() if key.startswith("observation/")]
    if not observations:
        there = ", ".join(printable(name) for name in archive.keys[:20])
        raise archive.error("", "an array observation/image", f"only {there}")
    cameras: dict[str, Camera] = {}
    groups: dict[str, tuple[str, int, int]] = {}
    others: list[str] = []
    steps = _steps(archive, arrays, observations[0])
    own = Findings(path.parent)
    for key, name in sorted(arrays.items(), key=lambda item: item[0].split("/")[0] != "action"):
        action = key.split("/")[0] == "action"
        if not (action or name in observations) or not name.isprintable():
            others += [] if key in (*FLAGS, *_UNUSED) else [name]
            continue
        with own.collecting():
            head = archive.header(name)
            grey = head.dtype == np.uint8 and len(head.shape) == 3
            if not action and head.dtype is not None and (grey or looks_like_pictures(head.shape, head.dtype)):
                cameras[key.removeprefix("observation/")] = Camera(name, steps, pictures(head.shape, head.dtype))
            elif head.width:
                groups[key.replace("/", ".")] = (name, steps, head.width)
            elif action:
                raise archive.error(name, "a row of numbers for each step", str(head))
            else:
                others.append(name)
                continue
            if head.shape[0] != steps:
                raise archive.error(name, f"{steps} rows, one for each step", str(head.shape[0]))
    episodes: tuple[tuple[int, int], ...] = ()
    with own.collecting():
        episodes = _episodes(archive, arrays, steps)
    return _File(path, archive.shown, split, cameras, groups, tuple(others), tuple(own.faults), episodes=episodes)


def _steps(archive: Archive, arrays: Mapping[str, str], observation: str) -> int:
    """The number of steps in a file: that of is_first, of the actions, or of an observation."""
    name = arrays.get("is_first") or arrays.get("action") or observation
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
            raise archive.error(name, f"{steps} flags, one for each step", str(head))
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


def _clips(
    camera: str, finds: Findings, file: _File, widths: Mapping[str, int], names: tuple[str, ...]
) -> Iterator[SourceClip]:
    """The episodes of a file; none, with faults, where something is wrong that concerns all of them."""
    missing = ("pictures", f"none ({', '.join(file.cameras) or 'no pictures at all'})")
    found = file.cameras.get(camera, Camera(f"observation/{camera}", 0, missing))
    faults = list(file.faults)
    if not isinstance(found.form, Pictures):
        faults.append(Fault(file.shown, found.array, *found.form))
    faults = faults or file.other_width(widths)
    finds.faults += faults
    for number, (start, stop) in enumerate(file.episodes if not faults else ()):
        name, place = (file.shown, "") if len(file.episodes) == 1 else (f"{file.shown}/{number}", f"episode {number}")
        arrays = tuple((file.groups[group][0], stop - start) for group in widths)
        actions = tuple(group.split(".")[0] == "action" for group in widths)
        reader = _Reader(open_npz, file.path, file.shown, arrays, names, found.array, found.form, place, start, actions)
        frames, rows = reads_of(reader)
        yield SourceClip(name, file.split, stop - start, frames, rows if names else None, file=file.shown)


@dataclass(frozen=True)
class _Reader(ArrayReader):
    """Reads one episode. actions: which arrays are such."""

    actions: tuple[bool, ...] = ()

    def rows(self, start: int, stop: int) -> RawChunk:
        """All columns of steps start to stop-1; the action of the last step may be missing (not finite), and that
        before it then stands again."""
        archive = self.opens(self.path, self.shown)
        parts = []
        for (name, length), action in zip(self.arrays, self.actions, strict=True):
            values = archive.read(name, self.first + start, self.first + stop)
            values = values.reshape(len(values), -1)
            if action and stop == length > 1 and not np.isfinite(values[-1]).all():
                last = self.first + length
                values[-1] = archive.read(name, last - 2, last - 1).reshape(-1)
            parts.append(values)
        return finite_rows(np.concatenate(parts, axis=1), self.columns, start, self.shown, self.clip)
