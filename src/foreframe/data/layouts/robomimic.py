"""Demonstrations of robots in the HDF5 form of robomimic, which VP2, LIBERO and MimicGen use too.

    ROOT/ANY.hdf5      data/demo_K/actions           T x A
                       data/demo_K/states            T x S, the simulator's; optional
                       data/demo_K/obs/KEY           T x H x W x 3 uint8: pictures of a camera (agentview_image)
                                                     T x N: other observations (robot0_eef_pos); optional
                       mask/train, mask/valid, mask/test   names of demonstrations; optional

Action t is given at frame t and leads into frame t+1. Where there is one action fewer than frames, the last stands
twice; it leads to a frame that was not recorded. Demonstrations in no mask have no split. A file may be one of
several; each demonstration is a clip.

Of several cameras the one that VP2 predicts is taken (agentview_shift_2_image of robosuite, camera_image of RoboDesk),
otherwise the first by name. The states and other observations can be chosen as columns where all demonstrations have
as many of them. Facts as in robomimic's description of its data sets and in the loaders of VP2 (s-tian/vp2).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foreframe.data.formats.folders import Findings, relative
from foreframe.data.formats.hdf5 import SUFFIXES, Header, Store, library, open_file, read_ends
from foreframe.data.formats.images import example_picture
from foreframe.data.layouts._arrays import (
    ArrayReader,
    Pictures,
    columns,
    files_below,
    no_frames,
    pictures,
    shared_columns,
    usual_camera,
)
from foreframe.data.layouts.contract import Read, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault, UsageError, nearest, printable

NAME = "robomimic"
DESCRIBE = "demonstrations of robots in HDF5, with data/demo_0/obs (robomimic, VP2, LIBERO)"
LOOKS_FOR = "*.hdf5 with data/demo_0/actions and pictures in data/demo_0/obs"
TAKES = ("camera",)

SHIFT = 1
VP2 = ("agentview_shift_2_image", "camera_image")
MASKS = {"train": "train", "valid": "val", "test": "test"}
_DEMO = re.compile(r"demo_([0-9]{1,9})")


@dataclass(frozen=True)
class _Demo:
    """One demonstration by its headers: what in obs are pictures, groups of numbers with their widths and lengths, and
    what is neither."""

    path: Path
    shown: str
    group: str
    split: str
    cameras: Mapping[str, Header]
    widths: Mapping[str, int]
    lengths: Mapping[str, int]
    others: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        return f"{self.shown}/{self.group.removeprefix('data/')}"


def recognises(folder: Path) -> bool:
    """Whether an HDF5 file below holds the names of demonstrations, and not those of RoboNet's cameras."""
    text = read_ends(folder)
    named = re.search(rb"demo_[0-9]", text) is not None or (b"actions" in text and b"obs" in text)
    return named and re.search(rb"cam[0-9]{1,3}_video", text) is None


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every demonstration by its headers; pictures and numbers are read later.

    Raises:
        UsageError: h5py is not installed, or no demonstration has this camera.
    """
    library()
    finds = Findings(folder)
    demos: list[_Demo] = []
    for path in files_below(folder, finds, SUFFIXES):
        try:
            demos += _demos(path, relative(path, folder), finds)
        except DataError as error:
            finds.faults += error.faults
    cameras = Counter(name for demo in demos for name, head in demo.cameras.items() if _usable(head))
    camera = _camera(options.camera, cameras or Counter(name for demo in demos for name in demo.cameras))
    notes = [
        f"{name}: neither pictures nor a row of numbers for each frame; not used"
        for name in sorted({name for demo in demos for name in demo.others})
    ]
    if len(cameras) > 1:
        notes.append(f"pictures of {camera}; also there: {', '.join(sorted({*cameras} - {camera}))} (--camera)")
    widths, left = shared_columns([demo.widths for demo in demos if not demo.faults], ["action"])
    names = columns(widths)
    clips = [_clip(demo, camera, widths, names) for demo in demos]
    sizes = Counter(found.size for demo in demos if isinstance(found := _pictures(demo.cameras.get(camera)), Pictures))
    if not clips and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "none")
    size = max(sizes, key=lambda size: (sizes[size], size)) if sizes else None
    chosen = ("action.*",) if names else ()
    notes += [*left, *finds.notes()]
    faults = tuple(finds.faults)
    return SourceIndex(NAME, tuple(clips), size, "vector", names, chosen, SHIFT, faults, notes=tuple(notes))


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


def _demos(path: Path, shown_path: str, finds: Findings) -> list[_Demo]:
    """The demonstrations of one file in the order of their numbers."""
    store = open_file(path, shown_path)
    if not store.has("data"):
        there = ", ".join(store.names("")[:10])
        raise store.error("data", "a group of demonstrations", f"only {there}" if there else "an empty file")
    numbers: dict[int, str] = {}
    for name in store.names("data"):
        match = _DEMO.fullmatch(name)
        if match is None or int(match[1]) in numbers:
            finds.faults.append(Fault(shown_path, f"data/{name}", "groups demo_0, demo_1, ...", "another name"))
        else:
            numbers[int(match[1])] = name
    if not numbers:
        raise store.error("data", "demonstrations demo_0, demo_1, ...", "none")
    splits = _splits(store, set(numbers.values()), finds)
    demos = []
    for number in sorted(numbers):
        group = f"data/{numbers[number]}"
        try:
            demos.append(_look(store, path, group, splits.get(numbers[number], "")))
        except DataError as error:
            finds.faults += error.faults
    return demos


def _splits(store: Store, demos: set[str], finds: Findings) -> dict[str, str]:
    """The split of each demonstration that is in a mask."""
    splits: dict[str, str] = {}
    for mask, split in MASKS.items():
        name = f"mask/{mask}"
        try:
            listed = store.texts(name) if store.has(name) else []
        except DataError as error:
            finds.faults += error.faults
            continue
        if missing_demos := [demo for demo in listed if demo not in demos]:
            more = f" and {len(missing_demos) - 1} more" if len(missing_demos) > 1 else ""
            found = f"{missing_demos[0][:40]}{more}"
            finds.faults.append(Fault(store.shown, name, "names of groups in data", found))
        for demo in dict.fromkeys(listed):
            if demo not in demos:
                continue
            if splits.setdefault(demo, split) != split:
                finds.faults.append(Fault(store.shown, name, f"{demo} in one mask", f"also in that of {splits[demo]}"))
    return splits


def _look(store: Store, path: Path, group: str, split: str) -> _Demo:
    """One demonstration by its headers."""
    cameras: dict[str, Header] = {}
    widths: dict[str, int] = {}
    lengths: dict[str, int] = {}
    others: list[str] = []
    faults: list[Fault] = []
    kinds = {f"{group}/actions": "action", f"{group}/states": "state"}
    if store.has(f"{group}/obs"):
        kinds |= {f"{group}/obs/{key}": f"obs.{key}" for key in store.names(f"{group}/obs")}
    for name, kind in kinds.items():
        if kind == "state" and not store.has(name):
            continue
        if kind.startswith("obs.") and not (kind.isprintable() and store.has_numbers(name)):
            others.append(printable(kind))
            continue
        try:
            head = store.header(name)
        except DataError as error:
            faults += error.faults
            continue
        if kind.startswith("obs.") and _looks_like_pictures(head):
            cameras[kind.removeprefix("obs.")] = head
        elif len(head.shape) == 2 and head.shape[1]:
            widths[kind], lengths[kind] = head.shape[1], head.shape[0]
        elif kind.startswith("obs."):
            others.append(kind)
        else:
            faults.append(Fault(store.shown, name, "a row of numbers for each frame", f"shape {head.shape}"))
    stated = store.attribute(group, "num_samples")
    if stated is not None and "action" in lengths and stated != lengths["action"]:
        expected = f"{repr(stated)[:40]} samples, as its attribute says"
        faults.append(Fault(store.shown, group, expected, f"{lengths['action']} actions"))
    return _Demo(path, store.shown, group, split, cameras, widths, lengths, tuple(others), tuple(faults))


def _looks_like_pictures(head: Header) -> bool:
    """Pictures, or what somebody meant to be pictures, but of float or with an alpha channel."""
    channels = {head.shape[1], head.shape[3]} if len(head.shape) == 4 else set()
    return 3 in channels or (bool({1, 4} & channels) and head.dtype == np.uint8)


def _usable(head: Header) -> bool:
    return isinstance(_pictures(head), Pictures)


def _pictures(head: Header | None) -> Pictures | tuple[str, str]:
    return pictures(head.shape, head.dtype) if head is not None else ("pictures of this camera in obs", "none")


def _camera(option: str, cameras: Counter[str]) -> str:
    """The name in obs of the camera to take."""
    if option:
        for name in (option, f"{option}_image"):
            if name in cameras:
                return name
        if cameras:
            there = ", ".join(sorted(cameras))
            raise UsageError(f"camera: no demonstration has '{option}'{nearest(option, cameras)} (there is {there})")
        return option
    return usual_camera(cameras, VP2)


def _clip(demo: _Demo, camera: str, widths: Mapping[str, int], names: tuple[str, ...]) -> SourceClip:
    place = f"{demo.group}/obs/{camera}"
    faults = list(demo.faults)
    head = demo.cameras.get(camera)
    form = _pictures(head)
    length = head.shape[0] if head is not None else demo.lengths.get("action", 0)
    usable = isinstance(form, Pictures)
    if not isinstance(form, Pictures):
        there = ", ".join(demo.cameras)
        words = f"{form[1]} (there is {there})" if there and head is None else form[1]
        if not any(fault.where == place for fault in faults):
            faults.append(Fault(demo.shown, place, form[0], words))
        form = Pictures((1, 1), 3)
    elif not length:
        faults.append(Fault(demo.shown, place, "pictures", "none"))
    for kind in widths if not demo.faults else ():
        if demo.widths.get(kind, 0) != widths[kind]:
            found = str(demo.widths.get(kind, "none"))
            expected = f"{widths[kind]} numbers in a row, as in most demonstrations"
            faults.append(Fault(demo.shown, _dataset(demo.group, kind), expected, found))
        elif demo.lengths[kind] not in (length, length - 1 if kind == "action" else length) or not demo.lengths[kind]:
            expected = f"{length} rows, one for each frame"
            faults.append(Fault(demo.shown, _dataset(demo.group, kind), expected, str(demo.lengths[kind])))
    groups = tuple((_dataset(demo.group, kind), demo.lengths.get(kind, 0)) for kind in widths)
    reader = ArrayReader(open_file, demo.path, demo.shown, (place, form), groups, names, demo.group)
    frames: Read = partial(ArrayReader.frames, reader) if usable else no_frames
    rows = partial(ArrayReader.rows, reader)
    return SourceClip(
        demo.name, demo.split, length, frames, rows if names and not faults else None, tuple(faults),
        file=demo.shown,
    )  # fmt: skip


def _dataset(group: str, kind: str) -> str:
    """The dataset that a group of columns comes from."""
    if kind.startswith("obs."):
        return f"{group}/obs/{kind.removeprefix('obs.')}"
    return f"{group}/{kind}s"
