"""Episodes in .npz files, one in each: pictures, and the actions taken between them.

    ROOT/[train|val|validation|valid|test/]ANY.npz      image       T x H x W x 3 uint8, or T x 3 x H x W, or grey
                                                        action      T x A, or T-1 x A; optional
                                                        state       T x S; optional

This is what the converters of iVideoGPT write (thuml/iVideoGPT, datasets/). Also understood: images, frames, obs;
actions; states, proprio. Action t leads into frame t+1; where there is one fewer than frames, the last stands twice.
States can be chosen as columns where all files have as many. Files outside the folders of splits have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

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
    index_of_arrays,
    pictures,
    split_of,
)
from foreframe.data.layouts.contract import SourceClip, SourceIndex, reads_of
from foreframe.data.layouts.options import Options
from foreframe.errors import Fault, printable

NAME = "npz_episodes"
DESCRIBE = "an .npz file for each episode, with arrays image and action (as iVideoGPT converts data)"
LOOKS_FOR = "[train|val|test/]*.npz with an array image, images, frames or obs"
TAKES: tuple[str, ...] = ()

IMAGES = ("image", "images", "frames", "obs")
GROUPS = {"action": ("action", "actions"), "state": ("state", "states", "proprio")}


def recognises(folder: Path) -> bool:
    """Whether a .npz below holds an array of pictures, and nothing by which RLDS is known."""
    return any(
        names & {*IMAGES} and not any("observation" in name or name.endswith("is_first") for name in names)
        for names in some_members(folder)
    )


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every file by the headers of its arrays; pictures and numbers are read later."""
    finds = Findings(folder)
    found: list[Recording] = []
    for path in files_below(folder, finds, [SUFFIX]):
        with finds.collecting():
            found.append(_look(open_npz(path, relative(path, folder)), path, split_of(path, folder)))
    if others := sorted({name for item in found for name in item.others}):
        finds.remarks.append(f"arrays not used: {', '.join(map(printable, others[:20]))}")
    return index_of_arrays(NAME, found, "", _clips, LOOKS_FOR, finds)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: 5 episodes of 9 to 12 frames, 16x16."""
    for order, name in enumerate(("train/a", "train/b", "train/c", "val/d", "test/e")):
        length = 12 - order % 4
        path = folder / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.stack([example_picture(order * 15 + number, 16, 16, order) for number in range(length)])
        action = (np.arange(length * 4).reshape(length, 4) / 40 - order).astype(np.float32)
        np.savez_compressed(path, image=image, action=action[: length - order % 2])


def _look(archive: Archive, path: Path, split: str) -> Recording:
    image = next((name for name in IMAGES if name in archive.keys), None)
    if image is None:
        only = ", ".join(printable(name) for name in archive.keys[:20])
        raise archive.error("", f"an array {', '.join(IMAGES[:-1])} or {IMAGES[-1]}", f"only {only}")
    head = archive.header(image)
    form = pictures(head.shape, head.dtype) if head.dtype is not None else ("pictures as uint8", head.description)
    if not isinstance(form, Pictures):
        raise archive.error(image, *form)
    length = head.shape[0]
    if not length:
        raise archive.error(image, "pictures", f"none, with shape {head.shape}")
    own = Findings(path.parent)
    groups: dict[str, tuple[str, int, int]] = {}
    for group, names in GROUPS.items():
        there = [name for name in names if name in archive.keys]
        if len(there) > 1:
            own.faults.append(Fault(archive.shown, "", f"one array of each {group}", " and ".join(there)))
        if there:
            with own.collecting():
                groups[group] = (there[0], *_rows_and_width(archive, there[0], length, group == "action"))
    known = {image, *(name for names in GROUPS.values() for name in names)}
    others = tuple(name for name in archive.keys if name not in known)
    return Recording(path, archive.shown, split, {"": Camera(image, length, form)}, groups, others, tuple(own.faults))


def _rows_and_width(archive: Archive, name: str, length: int, shorter: bool) -> tuple[int, int]:
    """Rows and width of an array of numbers beside `length` frames; one row fewer may be there if `shorter`."""
    head = archive.header(name)
    if not head.width:
        raise archive.error(name, "a row of numbers for each frame", str(head))
    if head.shape[0] not in (length, length - shorter) or not head.shape[0]:
        raise archive.error(name, f"{length} rows, one for each frame", str(head.shape[0]))
    return head.shape[0], head.width


def _clips(episode: Recording, widths: Mapping[str, int], names: tuple[str, ...]) -> Iterator[SourceClip]:
    faults = episode.faults or tuple(episode.other_width(widths))
    arrays = tuple(episode.groups[group][:2] for group in widths if group in episode.groups)
    camera = episode.cameras[""]
    reader = ArrayReader(open_npz, episode.path, episode.shown, arrays, names, camera.array, camera.form)
    frames, rows = reads_of(reader)
    beside = rows if names and not faults else None
    yield SourceClip(episode.shown, episode.split, camera.length, frames, beside, faults)
