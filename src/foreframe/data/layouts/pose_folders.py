"""Frames in one folder and a picture of the pose for each of them in another beside it.

    ROOT[/{train,val,test}]/frames[/CLIP]/0001.png      or images, img, rgb; PNG or JPEG
    ROOT[/{train,val,test}]/poses[/CLIP]/0001.png       or pose, labels, label, maps

A frame and its pose have the same path below their folder but for the ending. The picture of the pose of frame t leads
into frame t. Takes are cut where numbers are missing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from foreframe.data.formats.folders import Findings, relative
from foreframe.data.formats.images import PICTURES, example_picture
from foreframe.data.layouts._pairs import Folder, Paired, few_sizes, folders, index_of_pairs, looks_paired
from foreframe.data.layouts._shared import read_frames_of
from foreframe.data.layouts.contract import Read, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.video import write_png
from foreframe.video.pixels import Size

NAME = "pose_folders"
DESCRIBE = "a folder of frames and beside it a folder of pictures of their poses, with the same names"
LOOKS_FOR = "[train|val|test/]frames|images|img|rgb/[CLIP/]ANY1.png with poses|pose|labels|label|maps/[CLIP/]ANY1.png"
TAKES: tuple[str, ...] = ()

POSES = ("poses", "pose", "labels", "label", "maps")


def recognises(folder: Path) -> bool:
    """Whether both folders are there and hold pictures."""
    return looks_paired(folder, POSES, PICTURES)


def survey(folder: Path, options: Options) -> SourceIndex:
    """The takes by the numbers of their frames, and what is wrong with the pairing."""
    finds = Findings(folder)
    found = folders(folder, POSES, "poses", finds)
    pairs = []
    for item in found:
        poses = _poses(item, finds)
        size = few_sizes(item.path_beside, list(poses.values()))
        pairs.append(Paired(item, poses, partial(_rows, item.path_beside, poses, size, folder)))
    _lonely_folders(found, finds)
    return index_of_pairs(NAME, pairs, finds)


def _rows(
    folder: Path, poses: dict[int, str], size: Size | None, root: Path, taken: tuple[int, ...], native: Size
) -> Read:
    return partial(read_frames_of, folder, tuple(poses[number] for number in taken), taken, size or native, root)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: three clips to train, one to validate, of 9 to 12 frames, 16x32."""
    for order, name in enumerate(("train/{}/a", "train/{}/b", "train/{}/c", "val/{}")):
        for side, colour in (("frames", order), ("poses", 4)):
            for number in range(12 - order):
                picture = example_picture(number + 2 * order, 16, 32, colour)
                write_png(folder / name.format(side) / f"{number:04d}.png", picture)


def _poses(item: Folder, finds: Findings) -> dict[int, str]:
    """The pictures of the poses of a folder's frames by number; what has no partner is a fault."""
    beside = item.path_beside
    if item.below not in item.tree:
        finds.fault(beside, f"a folder of poses for {relative(item.path, finds.root)}", "no such folder")
        return {}
    if not item.tree[item.below]:
        if not any(fault.path == relative(beside, finds.root) for fault in finds.faults):
            finds.fault(beside, f"poses for the frames in {relative(item.path, finds.root)}", "none")
        return {}
    stems: dict[str, str] = {}
    doubtful = set()
    for name in item.tree[item.below]:
        file = Path(name)
        if file.suffix.lower() not in PICTURES:
            finds.ignore(beside, [name])
        elif (first := stems.setdefault(file.stem, name)) != name:
            finds.fault(beside / name, "one pose of this name", f"also {first}")
            doubtful.add(file.stem)
    poses = {}
    for number, name in item.pictures.items():
        pose = stems.pop(Path(name).stem, None)
        if pose is None:
            finds.fault(beside / name, "a picture", "no pose for this frame", f"frame {number}")
        elif Path(name).stem not in doubtful:
            poses[number] = pose
    for name in stems.values():
        finds.fault(item.path / name, "a picture", f"no frame for the pose {relative(beside / name, finds.root)}")
    return poses


def _lonely_folders(found: list[Folder], finds: Findings) -> None:
    """Folders of poses beside which there is no folder of frames."""
    for item in {item.partners: item for item in found}.values():
        known = {other.below for other in found if other.partners == item.partners}
        for below, files in item.tree.items():
            if below not in known and any(Path(name).suffix.lower() in PICTURES for name in files):
                found_there = relative(item.partners / below, finds.root)
                finds.fault(item.frames / below, "a folder of frames", f"none for the poses in {found_there}")
