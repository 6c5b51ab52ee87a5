"""Demonstrations of robots in the HDF5 form of robomimic, which VP2, LIBERO and MimicGen use too.

    ROOT/ANY.hdf5      data/demo_K/actions           T x A
                       data/demo_K/states            T x S, the simulator's; optional
                       data/demo_K/obs/KEY           T x H x W x 3 uint8: pictures of a camera (agentview_image)
                                                     T x N: other observations (robot0_eef_pos); optional
                       mask/train, mask/valid, mask/test   names of demonstrations; optional

Action t leads into frame t+1; where there is one fewer than frames, the last stands twice. Each demonstration is a
clip; those in no mask have no split. Of several cameras the one that VP2 predicts is taken (agentview_shift_2_image of
robosuite, camera_image of RoboDesk), otherwise the first by name. States and other observations can be chosen as
columns where all demonstrations have as many. Facts as in robomimic's documentation and VP2's loaders (s-tian/vp2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foreframe.data.formats.folders import Findings, relative
from foreframe.data.formats.hdf5 import SUFFIXES, Store, library, open_file, read_ends
from foreframe.data.formats.images import example_picture
from foreframe.data.layouts._arrays import (
    ArrayReader,
    Camera,
    Pictures,
    Recording,
    files_below,
    find_camera,
    index_of_arrays,
    looks_like_pictures,
    pictures,
)
from foreframe.data.layouts.contract import SourceClip, SourceIndex, reads_of
from foreframe.data.layouts.options import Options
from foreframe.errors import Fault, printable

NAME = "robomimic"
DESCRIBE = "demonstrations of robots in HDF5, with data/demo_0/obs (robomimic, VP2, LIBERO)"
LOOKS_FOR = "*.hdf5 with data/demo_0/actions and pictures in data/demo_0/obs"
TAKES = ("camera",)

VP2 = ("agentview_shift_2_image", "camera_image")
MASKS = {"train": "train", "valid": "val", "test": "test"}
_DEMO = re.compile(r"demo_([0-9]{1,9})")


def recognises(folder: Path) -> bool:
    """Whether an HDF5 file below holds the names of demonstrations, and not those of RoboNet's cameras."""
    text = read_ends(folder)
    named = re.search(rb"demo_[0-9]", text) is not None or (b"actions" in text and b"obs" in text)
    return named and re.search(rb"cam[0-9]{1,3}_video", text) is None


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every demonstration by its headers; pictures and numbers are read later.

    Raises UsageError: h5py is not installed, or no demonstration has this camera.
    """
    library()
    finds = Findings(folder)
    demos: list[Recording] = []
    for path in files_below(folder, finds, SUFFIXES):
        with finds.collecting():
            demos += _demos(path, relative(path, folder), finds)
    camera = find_camera(
        demos, options.camera, (options.camera, f"{options.camera}_image"), VP2, "demonstration", finds
    )
    finds.remarks += [
        f"{name}: neither pictures nor a row of numbers for each frame; not used"
        for name in sorted({name for demo in demos for name in demo.others})
    ]
    return index_of_arrays(NAME, demos, camera, partial(_clips, camera), LOOKS_FOR, finds)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: 2 files of 3 and 2 demonstrations of 9 to 12 frames, 16x16, with masks."""
    h5py = library()
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers, masks in (
        ("lift.hdf5", (8, 9, 10), {"train": (8, 9), "valid": (10,)}),
        ("can.hdf5", (1, 2), {"train": (1,), "test": (2,)}),
    ):
        _example_file(h5py, folder / name, numbers, masks)


def _example_file(h5py: Any, path: Path, numbers: Sequence[int], masks: Mapping[str, Sequence[int]]) -> None:
    with h5py.File(path, "w") as file:
        for number in numbers:
            length = 12 - number % 4
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"] = length
            demo["actions"] = np.arange(length * 4).reshape(length, 4) / 40 - number
            demo["states"] = np.arange(length * 6).reshape(length, 6) / 60 + number
            demo["obs/robot0_eef_pos"] = np.arange(length * 3).reshape(length, 3) / 30 + number
            frames = np.stack([example_picture(number * 13 + t, 16, 16, number % 5) for t in range(length)])
            demo.create_dataset("obs/agentview_image", data=frames, compression="gzip", shuffle=True)
        for mask, chosen in masks.items():
            file[f"mask/{mask}"] = np.array([f"demo_{number}" for number in chosen], "S")


def _demos(path: Path, shown_path: str, finds: Findings) -> list[Recording]:
    """The demonstrations of one file in the order of their numbers."""
    store = open_file(path, shown_path)
    if not store.has("data"):
        there = ", ".join(store.names("")[:10])
        raise store.error("data", "a group of demonstrations", f"only {there}" if there else "an empty file")
    numbers: dict[int, str] = {}
    for name in store.names("data"):
        match = _DEMO.fullmatch(name)
        if match is None or numbers.setdefault(int(match[1]), name) != name:
            finds.faults.append(Fault(shown_path, f"data/{name}", "groups demo_0, demo_1, ...", "another name"))
    if not numbers:
        raise store.error("data", "demonstrations demo_0, demo_1, ...", "none")
    splits = _splits(store, set(numbers.values()), finds)
    demos = []
    for number in sorted(numbers):
        group = f"data/{numbers[number]}"
        with finds.collecting():
            demos.append(_look(store, path, group, splits.get(numbers[number], "")))
    return demos


def _splits(store: Store, demos: set[str], finds: Findings) -> dict[str, str]:
    """The split of each demonstration that is in a mask."""
    splits: dict[str, str] = {}
    for mask, split in MASKS.items():
        name = f"mask/{mask}"
        listed: list[str] = []
        with finds.collecting():
            listed = store.texts(name) if store.has(name) else []
        if missing_demos := [demo for demo in listed if demo not in demos]:
            more = f" and {len(missing_demos) - 1} more" if len(missing_demos) > 1 else ""
            found = f"{missing_demos[0][:40]}{more}"
            finds.faults.append(Fault(store.shown, name, "names of groups in data", found))
        for demo in dict.fromkeys(listed):
            if demo in demos and splits.setdefault(demo, split) != split:
                finds.faults.append(Fault(store.shown, name, f"{demo} in one mask", f"also in that of {splits[demo]}"))
    return splits


def _look(store: Store, path: Path, group: str, split: str) -> Recording:
    cameras: dict[str, Camera] = {}
    groups: dict[str, tuple[str, int, int]] = {}
    others: list[str] = []
    own = Findings(path.parent)
    arrays = {"action": f"{group}/actions", "state": f"{group}/states"}
    if store.has(f"{group}/obs"):
        arrays |= {f"obs.{key}": f"{group}/obs/{key}" for key in store.names(f"{group}/obs")}
    for kind, name in arrays.items():
        seen = kind.startswith("obs.")
        if kind == "state" and not store.has(name):
            continue
        if seen and not (kind.isprintable() and store.has_numbers(name)):
            others.append(printable(kind))
            continue
        with own.collecting():
            head = store.header(name)
            if seen and looks_like_pictures(head.shape, head.dtype):
                form = pictures(head.shape, head.dtype)
                cameras[kind.removeprefix("obs.")] = Camera(name, head.shape[0], form)
            elif len(head.shape) == 2 and head.shape[1]:
                groups[kind] = (name, head.shape[0], head.shape[1])
            elif seen:
                others.append(kind)
            else:
                raise store.error(name, "a row of numbers for each frame", f"shape {head.shape}")
    stated = store.attribute(group, "num_samples")
    if stated is not None and "action" in groups and stated != groups["action"][1]:
        expected = f"{repr(stated)[:40]} samples, as its attribute says"
        own.faults.append(Fault(store.shown, group, expected, f"{groups['action'][1]} actions"))
    return Recording(path, store.shown, split, cameras, groups, tuple(others), tuple(own.faults), group)


def _clips(camera: str, demo: Recording, widths: Mapping[str, int], names: tuple[str, ...]) -> Iterator[SourceClip]:
    there = f" (there is {', '.join(demo.cameras)})" if demo.cameras else ""
    length = demo.groups["action"][1] if "action" in demo.groups else 0
    absent = Camera(f"{demo.group}/obs/{camera}", length, ("pictures of this camera in obs", f"none{there}"))
    found = demo.cameras.get(camera, absent)
    own = [*demo.faults]
    if not isinstance(found.form, Pictures):
        if not any(fault.where == found.array for fault in own):
            own.append(Fault(demo.shown, found.array, *found.form))
    elif not found.length:
        own.append(Fault(demo.shown, found.array, "pictures", "none"))
    for kind, width in widths.items() if not demo.faults else ():
        array, rows, other = demo.groups[kind]
        if other != width:
            own.append(Fault(demo.shown, array, f"{width} numbers in a row, as in most demonstrations", str(other)))
        elif rows not in (found.length, found.length - (kind == "action")) or not rows:
            own.append(Fault(demo.shown, array, f"{found.length} rows, one for each frame", str(rows)))
    arrays = tuple(demo.groups[kind][:2] for kind in widths if kind in demo.groups)
    reader = ArrayReader(open_file, demo.path, demo.shown, arrays, names, found.array, found.form, demo.group)
    name, (frames, numbers) = f"{demo.shown}/{demo.group.removeprefix('data/')}", reads_of(reader)
    beside = numbers if names and not own else None
    yield SourceClip(name, demo.split, found.length, frames, beside, tuple(own), file=demo.shown)
