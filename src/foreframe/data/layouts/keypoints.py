"""Frames in one folder and the joints of the person in them, as numbers, in another beside it.

    ROOT[/{train,val,test}]/frames[/CLIP]/0001.png                       or images, img, rgb; PNG or JPEG
    ROOT[/{train,val,test}]/keypoints[/CLIP]/0001_keypoints.json         or openpose, json: OpenPose, one for each frame
                                    /CLIP.csv, CLIP.json                 one for each clip
                                    /ANY.csv, ANY.json                   one for pictures right in frames
                                    /ANY.json                            COCO annotations of all frames

OpenPose: {"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]}; the surest person is taken. CSV: x0, y0, c0, x1,
... or nose_x, nose_y, nose_c, ..., with or without c; a first column `frame` holds the number of the picture. JSON: a
list of x, y, c, ... or x, y, ... for each frame. COCO: {"images": [{"id", "file_name"}], "annotations": [{"image_id",
"keypoints"}]}. A joint of confidence 0 is not there, and without confidences one at 0, 0.

17 joints are COCO's, 25 OpenPose's BODY_25; they are drawn as stick figures of the frames' size. The figure of frame t
leads into frame t. Takes are cut where numbers are missing.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import Findings, relative
from foreframe.data.formats.images import example_picture
from foreframe.data.formats.tables import read_json, read_named_table
from foreframe.data.layouts._pairs import Folder, Paired, folders, index_of_pairs, looks_paired
from foreframe.data.layouts.contract import RawChunk, Read, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault, unreadable
from foreframe.files import Identity, identity
from foreframe.video import write_png
from foreframe.video.pixels import Size
from foreframe.video.skeleton import COCO_17, FARTHEST, OPENPOSE_25, draw_pose

NAME = "keypoints"
DESCRIBE = "a folder of frames and beside it one of keypoints (OpenPose, COCO, CSV, JSON), drawn as stick figures"
LOOKS_FOR = "[train|val|test/]frames|images|img|rgb/[CLIP/]ANY1.png with keypoints|openpose|json/ANY.json or .csv"
TAKES: tuple[str, ...] = ()

KEYPOINTS = ("keypoints", "openpose", "json")
_OPENPOSE = "_keypoints.json"
_ENDINGS = (".csv", ".json", ".CSV", ".JSON")
_EXACT = 2**24
"""Up to here every whole number is one of those that tables hold; of larger ones, some would be taken for others."""
_FEW = 16  # among more files than this, none is taken for one about all frames
_SKELETONS = {17: COCO_17, 25: OPENPOSE_25}
_INDEXED = re.compile(r"([xyc])([0-9]{1,3})")
_NAMED = re.compile(r"(.+?)[_.]([xyc])")

Pose = NDArray[np.float64]  # (J, 3): x, y and confidence
Words = tuple[str, str]  # what was expected instead of a pose, and what was found
_NOBODY = ("a person", "nobody")
_NO_JOINT = ("a person", "no joint of a confidence above 0")


@dataclass(frozen=True)
class _Table:
    """Poses of one file. places: the row of each frame, by its number or its path; None where rows are in order."""

    poses: Sequence[Pose | Words]
    places: Mapping[int | str, int] | None = None


def recognises(folder: Path) -> bool:
    """Whether both folders are there, one with pictures and the other with JSON or CSV."""
    return looks_paired(folder, KEYPOINTS, (".json", ".csv"))


def survey(folder: Path, options: Options) -> SourceIndex:
    """The takes by the numbers of their frames, and what is wrong with the pairing; keypoints are read later."""
    finds = Findings(folder)
    found = folders(folder, KEYPOINTS, "keypoints", finds)
    used: set[Path] = set()
    own = {(item.partners, item.below) for item in found}
    tables = [_table_of(item, own, finds) for item in found]
    lengths: Counter[Path] = Counter()
    for item, table in zip(found, tables, strict=True):
        lengths.update({table: len(item.pictures)} if table else {})
    pairs = []
    for item, table in zip(found, tables, strict=True):
        if table:
            used.add(table)
            pairs.append(Paired(item, item.pictures, partial(_rows, item, table, lengths[table], folder), str(table)))
        else:
            poses = _openpose_of(item, finds)
            used |= {item.path_beside / name for name in poses.values()}
            pairs.append(Paired(item, poses, partial(_files, item.path_beside, poses, folder)))
    _lonely_files(found, used, finds)
    return index_of_pairs(NAME, pairs, finds)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: three clips to train, one to validate, of 9 to 12 frames, 32x24."""
    for order, name in enumerate(("train/{}/a", "train/{}/b", "train/{}/c", "val/{}")):
        length = 12 - order
        poses = [_example_pose(number, order) for number in range(length)]
        for number in range(length):
            write_png(folder / name.format("frames") / f"{number:04d}.png", example_picture(number, 32, 24, order))
        beside = folder / name.format("keypoints")
        if order == 0:
            people = [{"people": [{"pose_keypoints_2d": pose}]} for pose in poses]
            files = {beside / f"{number:04d}{_OPENPOSE}": json.dumps(some) for number, some in enumerate(people)}
        elif order == 1:
            header = ["frame", *(f"{axis}{joint}" for joint in range(25) for axis in "xyc")]
            rows = [header, *([str(number), *map(str, pose)] for number, pose in enumerate(poses))]
            files = {beside.with_suffix(".csv"): "".join(f"{','.join(row)}\n" for row in rows)}
        elif order == 2:
            files = {beside.with_suffix(".json"): json.dumps(poses)}
        else:
            images = [{"id": number, "file_name": f"{number:04d}.png"} for number in range(length)]
            notes = [{"image_id": number, "keypoints": pose[: 3 * 17]} for number, pose in enumerate(poses)]
            files = {beside / "annotations.json": json.dumps({"images": images, "annotations": notes})}
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")


def _example_pose(number: int, order: int) -> list[float]:
    """75 numbers: joints on a spiral that turns with the frames."""
    joints = range(25)
    turn = [0.2 * number + joint * (0.5 + order / 10) for joint in joints]
    return [
        round(value, 2)
        for joint in joints
        for value in (12 + joint / 3 * math.cos(turn[joint]), 16 + joint / 2 * math.sin(turn[joint]), 0.9)
    ]


def _table_of(item: Folder, folders: Collection[tuple[Path, str]], finds: Findings) -> Path | None:
    """The one file that holds the poses of all frames of a folder, and is not that of another of `folders`; None where
    each frame has a file of its own."""
    paths = [item.path_beside / name for name in _tables(item.tree.get(item.below, {}), item)]
    if item.below:
        above, _, last = item.below.rpartition("/")
        own = [name for name in (f"{last}{ending}" for ending in _ENDINGS) if name in item.tree.get(above, {})]
        paths = [item.partners / above / name for name in own] + paths
        if not paths and item.below not in item.tree and len(item.tree[""]) <= _FEW:
            shared = [name for name in _tables(item.tree[""], item) if name.lower().endswith(".json")]
            paths = [item.partners / name for name in shared if (item.partners, Path(name).stem) not in folders]
    if len(paths) > 1:
        shown = relative(item.path, finds.root)
        finds.fault(paths[1], f"one table for the frames of {shown}", f"also {relative(paths[0], finds.root)}")
    return paths[0] if paths else None


def _rows(item: Folder, table: Path, length: int, root: Path, taken: tuple[int, ...], native: Size) -> Read:
    """How a take is read from the one file of a folder, or of several, with `length` frames in all."""
    shared = length > len(item.pictures)
    keys = []  # what the file may call each frame: its path, or its bare name if the file is about one folder only
    for number in taken:
        stem = Path(item.pictures[number]).stem
        path = f"{item.below}/{stem}" if item.below else stem
        keys.append((number, path, f"{item.frames.name}/{path}", *(() if shared else (stem,))))
    first = None if shared else list(item.pictures).index(taken[0])
    return partial(_Rows.read, _Rows(table, tuple(keys), first, length, native, root))


def _files(folder: Path, poses: Mapping[int, str], root: Path, taken: tuple[int, ...], native: Size) -> Read:
    return partial(_read_files, folder, tuple((number, poses[number]) for number in taken), native, root)


def _tables(files: Iterable[str], item: Folder) -> list[str]:
    """Names of the files that may hold poses of all frames of a folder: none that is OpenPose's for one frame."""
    some = [name for name in files if name.lower().endswith((".csv", ".json"))]
    plain = [name for name in some if not name.endswith(_OPENPOSE)]
    if plain or len(some) != 1:
        return plain
    stems = {Path(name).stem for name in item.pictures.values()}
    return [] if some[0].removesuffix(_OPENPOSE) in stems else some  # COCO's own are called person_keypoints_....json


def _openpose_of(item: Folder, finds: Findings) -> dict[int, str]:
    """OpenPose's files for a folder's frames by number; what has no partner is a fault."""
    beside, files = item.path_beside, item.tree.get(item.below, {})
    stems = {number: Path(name).stem for number, name in item.pictures.items()}
    poses = {number: f"{stem}{_OPENPOSE}" for number, stem in stems.items() if f"{stem}{_OPENPOSE}" in files}
    if not poses:
        found = "none" if not item.below or item.below in item.tree else "no such folder"
        expected = f"keypoints for the frames in {relative(item.path, finds.root)}: NAME{_OPENPOSE}, or one CSV or JSON"
        finds.fault(beside, expected, found)
        return {}
    for number in item.pictures.keys() - poses.keys():
        path = beside / f"{stems[number]}{_OPENPOSE}"
        finds.fault(path, "keypoints of one frame", "none for this frame", f"frame {number}")
    return poses


def _lonely_files(found: Sequence[Folder], used: set[Path], finds: Findings) -> None:
    for item in {item.partners: item for item in found}.values():
        for below, files in item.tree.items():
            for path in (item.partners / below / name for name in files):
                if path.suffix.lower() not in (".csv", ".json"):
                    finds.ignored.append(relative(path, finds.root))
                elif path not in used:
                    finds.fault(path, "keypoints of frames of this name", f"no such frames in {item.frames.name}/")


def _read_files(
    folder: Path, files: Sequence[tuple[int, str]], native: Size, root: Path, start: int, stop: int
) -> RawChunk:
    """Poses start to stop-1, one file each."""
    found: list[Pose | tuple[Fault, ...]] = []
    for number, name in files[start:stop]:
        shown = relative(folder / name, root)
        try:
            found.append(_judged(_from_openpose(read_json(folder / name, shown)), shown, number))
        except DataError as error:
            found.append(error.faults)
    return _drawn(found, native)


@dataclass(frozen=True)
class _Rows:
    """A take whose poses are in one file.

    keys: the number of each frame, and what else the file may call it. first, length: where the take begins among the
    frames of the file, and how many these are; first is None where folders share the file, so that only names decide.
    """

    path: Path
    keys: tuple[tuple[int | str, ...], ...]
    first: int | None
    length: int
    native: Size
    root: Path

    def read(self, start: int, stop: int) -> RawChunk:
        """Poses start to stop-1. Raises DataError: the file cannot be read, or has not one row for each frame."""
        shown = relative(self.path, self.root)
        table = _load(self.path, shown, identity(self.path, shown))
        if len(table.poses) != self.length:
            raise unreadable(shown, "", f"{self.length} poses, one for each frame", f"{len(table.poses)}")
        if table.places is None and self.first is None:
            raise unreadable(shown, "", "COCO annotations, as frames of several folders are in one file", "a list")
        found = []
        for index in range(start, stop):
            row = None if self.first is None else self.first + index
            if table.places is not None:
                row = next((table.places[name] for name in self.keys[index] if name in table.places), None)
            pose = ("a pose for this frame", "none") if row is None else table.poses[row]
            found.append(_judged(pose, shown, self.keys[index][0]))
        return _drawn(found, self.native)


def _judged(pose: Pose | Words, shown: str, number: int | str) -> Pose | tuple[Fault, ...]:
    """A pose, or what is wrong with it as a fault of its frame."""
    return (Fault(shown, f"frame {number}", *pose),) if isinstance(pose, tuple) else pose


def _drawn(found: Sequence[Pose | tuple[Fault, ...]], native: Size) -> RawChunk:
    pictures = np.zeros((len(found), *native, 3), np.uint8)
    for picture, pose in zip(pictures, found, strict=True):
        if not isinstance(pose, tuple):
            picture[:] = draw_pose(pose, _SKELETONS[len(pose)].bones, *native)
    return RawChunk(pictures, {index: pose for index, pose in enumerate(found) if isinstance(pose, tuple)})


@lru_cache(maxsize=4)
def _load(path: Path, shown: str, state: Identity) -> _Table:
    if path.suffix.lower() == ".csv":
        return _from_csv(path, shown)
    content = read_json(path, shown)
    if isinstance(content, dict):
        return _from_coco(content, shown)
    if not isinstance(content, list):
        raise unreadable(shown, "", "a list of frames, or COCO annotations", "something else")
    return _Table([_pose(row) if row else _NOBODY for row in content])


def _from_csv(path: Path, shown: str) -> _Table:
    values, names, faults = read_named_table(path, shown)
    if faults:
        raise DataError("this file cannot be read:", faults)
    places: dict[int | str, int] | None = None
    if names and names[0].lower() == "frame":
        places = {}
        for row, number in enumerate(values[:, 0].tolist()):
            where = f"row {row + 2}, column 1"
            if abs(number) >= _EXACT:
                raise unreadable(shown, where, f"the number of a frame below {_EXACT}", f"about {number:.0f}")
            if number % 1 or int(number) in places:
                found = f"{number:g}" + " again" * (not number % 1)
                raise unreadable(shown, where, "the number of a frame, each once", found)
            places[int(number)] = row
        values, names = values[:, 1:], names[1:]
    if names:
        values = values[:, _columns(names, shown)]
    return _Table([_pose(row) for row in values.tolist()], places)


def _columns(names: Sequence[str], shown: str) -> list[int]:
    """Where x, y and, if there are any, confidences of each joint stand, joint by joint."""
    named = {_plain(match[1]) for name in names if (match := _NAMED.fullmatch(name.lower()))}
    coco, openpose = ({_plain(name): joint for joint, name in enumerate(s.joints)} for s in (COCO_17, OPENPOSE_25))
    known = coco if named <= coco.keys() else openpose
    at: dict[tuple[int, str], int] = {}
    for column, name in enumerate(names):
        if match := _INDEXED.fullmatch(name.lower()):
            at[int(match[2]), match[1]] = column
        elif (match := _NAMED.fullmatch(name.lower())) and _plain(match[1]) in known:
            at[known[_plain(match[1])], match[2]] = column
        else:
            raise unreadable(shown, "row 1", "x0, y0, c0, ... or JOINT_x, JOINT_y, JOINT_c, ...", f"{name[:40]!a}")
    axes = "xyc" if any(axis == "c" for _, axis in at) else "xy"
    count = len(at) // len(axes)
    wanted = [(joint, axis) for joint in range(count) for axis in axes]
    if len(at) != len(names) or at.keys() != set(wanted) or count not in _SKELETONS:
        expected = "x, y and perhaps c of 17 or 25 joints, each once"
        raise unreadable(shown, "row 1", expected, f"{len(names)} columns for {len({joint for joint, _ in at})} joints")
    return [at[key] for key in wanted]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _from_coco(content: dict[str, Any], shown: str) -> _Table:
    """COCO's annotations; of several in one image the surest is taken."""
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list) or not all(isinstance(item, dict) for item in content[key]):
            raise unreadable(shown, "", "a list of frames, or COCO annotations", f"an object without a list of {key}")
    people: dict[Any, list[Any]] = {}
    for number, item in enumerate(content["annotations"]):
        if not isinstance(item.get("image_id"), int | str):
            raise unreadable(shown, f"annotation {number}", "an image_id", "none")
        people.setdefault(item["image_id"], []).append(item.get("keypoints"))
    places: dict[int | str, int] = {}
    poses: list[Pose | Words] = []
    for number, item in enumerate(content["images"]):
        name = item.get("file_name")
        if not isinstance(name, str) or not isinstance(item.get("id"), int | str):
            raise unreadable(shown, f"image {number}", "an id and a file_name", "none")
        key = name.replace("\\", "/").removeprefix("./")
        key = key.removesuffix(Path(key).suffix)
        if key in places:
            raise unreadable(shown, f"image {number}", "each file_name once", f"{name[:80]!a} twice")
        places[key] = number
        poses.append(_surest([_pose(one, conf=True) for one in people.get(item["id"], [])]))
    return _Table(poses, places)


def _from_openpose(content: Any) -> Pose | Words:
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        return "an object with a list of people", "none"
    return _surest([_pose(person.get("pose_keypoints_2d"), conf=True) for person in people])


def _surest(people: Sequence[Pose | Words]) -> Pose | Words:
    """The pose with the largest sum of confidences; the first complaint, if there is any."""
    wrong = next((pose for pose in people if isinstance(pose, tuple) and pose != _NO_JOINT), None)
    if wrong is not None:
        return wrong
    poses = [pose for pose in people if not isinstance(pose, tuple)]
    if not poses:
        return _NO_JOINT if people else _NOBODY
    return max(poses, key=lambda pose: float(pose[:, 2].sum()))


def _pose(numbers: Any, conf: bool = False) -> Pose | Words:
    """(J, 3) from a flat list of x, y and perhaps a confidence, which `conf` demands; or what is wrong with it."""
    if not isinstance(numbers, list):
        return "a list of numbers", "none"
    width = next((width for width in (3, 2)[: 1 if conf else 2] if len(numbers) in (17 * width, 25 * width)), 0)
    if not width:
        more = "" if conf else f", or {17 * 2} or {25 * 2} without confidences"
        return f"{17 * 3} numbers (17 joints) or {25 * 3} (25 joints){more}", f"{len(numbers)}"
    for number in numbers:
        if type(number) not in (int, float) or not abs(number) <= FARTHEST:
            return "numbers within a million pixels", f"{str(number)[:40]!a}"
    pose = np.ones((len(numbers) // width, 3), np.float64)
    pose[:, :width] = np.array(numbers, np.float64).reshape(-1, width)
    if width == 2:
        pose[:, 2] = pose[:, :2].any(axis=1)
    return pose if (pose[:, 2] > 0).any() else _NO_JOINT
