"""Folders of pictures, one folder for each clip, each alone or with a table of what was done in it.

    ROOT[/{train,val,test}][/FOLDERS]/CLIP/frame_0001.png, frame_0002.png, ...     or .jpg
                                          /actions.csv         or any one .csv, .json, .parquet: a row for each frame

The last run of digits in a name is the number of the frame; it may start anywhere, and has no gap. All clips have a
table, or none has. All tables have the same columns. Row t was recorded with the t-th frame and leads into the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from foreframe.data.formats.folders import Findings, gaps, relative, some_files
from foreframe.data.formats.images import PICTURES, commonest_size, example_picture
from foreframe.data.formats.tables import TABLES
from foreframe.data.layouts import bair_lab, dance_lab, keypoints, pose_folders
from foreframe.data.layouts._shared import (
    index_of,
    named_like_a_file,
    one_copy,
    pictures_of,
    read_frames_of,
    rows_beside,
    safely,
    splits,
    usual_size,
    walk,
)
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import Fault, printable
from foreframe.video import write_png
from foreframe.video.pixels import Size

NAME = "frame_folders"
DESCRIBE = "folders of PNG or JPEG, one for each clip, alone or with a table of conditions in each"
LOOKS_FOR = (
    "[train|val|test/]CLIP/ANY0001.png or .jpg, with one .csv, .json or .parquet in each such folder, or without"
)
TAKES: tuple[str, ...] = ()

_DANCE = re.compile(r"(?:^|/)(?:train|val|test)_(?:img|label)(?:/|$)")


@dataclass(frozen=True)
class _Clip:
    """A folder of pictures by their numbers, with the tables in it and what is wrong with its names."""

    name: str
    split: str
    path: Path
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    tables: tuple[Path, ...]
    native: Size | None
    faults: tuple[Fault, ...]


def recognises(folder: Path) -> bool:
    """Whether there are pictures in it, and it is in none of the layouts that say more about their pictures."""
    others = (bair_lab, dance_lab, pose_folders, keypoints)
    if safely((folder / "meta" / "info.json").exists) or any(other.recognises(folder) for other in others):
        return False
    inner = next((path.parent for path in some_files(folder) if path.suffix.lower() in PICTURES), None)
    if inner is None or _DANCE.search(inner.as_posix()):  # a clip of a lab, looked at from too deep, is not such a clip
        return False
    return not all(safely((inner / table).exists) for table in bair_lab.TABLES)


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every folder of pictures with its table read and its pictures counted; pictures are decoded later."""
    finds = Findings(folder)
    parts = splits(folder, (*PICTURES, *TABLES), finds)
    found = [clip for split, path in parts for clip in _clips_of(path, split, options.lists, finds)]
    size = usual_size([clip.native for clip in found if clip.native is not None], finds)
    missing = "a table in each folder of pictures, as others have"
    tabled = [(clip.path, clip.tables, len(clip.names)) for clip in found]
    columns, beside = rows_beside(tabled, "in each folder", missing, folder)
    clips = []
    for clip, (rows, wrong) in zip(found, beside, strict=True):
        native = clip.native or size or (1, 1)
        frames = partial(read_frames_of, clip.path, clip.names, clip.numbers, native, folder)
        clips.append(SourceClip(clip.name, clip.split, len(clip.names), frames, rows, (*clip.faults, *wrong)))
    if not found and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "no picture")
    conditioned = any(clip.tables for clip in found)
    return index_of(NAME, clips, size, finds, "vector" if conditioned else "none", columns, shift=int(conditioned))


def example(folder: Path) -> None:
    """Write a tiny source of this layout: four clips of 9 to 12 frames, 24x32, with a table in each."""
    for order, name in enumerate(("train/push/a", "train/push/b", "val/push/c", "test/d")):
        clip, length = folder / name, 12 - order
        for number in range(length):
            write_png(clip / f"frame_{number:04d}.png", example_picture(number, 24, 32, order))
        rows = "".join(f"{number / 10},{order - number / 100}\n" for number in range(length))
        (clip / "commands.csv").write_text(f"move,turn\n{rows}", encoding="ascii")


def _clips_of(folder: Path, split: str, lists: Path | None, finds: Findings) -> list[_Clip]:
    own_list = lists.resolve() if lists is not None else None
    clips: list[_Clip] = []
    for path, files in walk(folder, finds):
        own = Findings(finds.root)
        pictures, others, _ = pictures_of(path, files, own)
        tables = [name for name in others if Path(name).suffix.lower() in TABLES]
        tables = [name for name in tables if (path / name).resolve() != own_list]
        finds.ignore(path, (name for name in others if name not in tables))
        if not pictures:
            finds.faults += own.faults
            named_like_a_file(path, (*PICTURES, *TABLES), finds)
            for name in tables:
                finds.fault(path / name, "pictures in the folder of a table", "none")
            continue
        if missing := gaps(pictures):
            first, last = printable(pictures[min(pictures)]), printable(pictures[max(pictures)])
            own.fault(path, f"pictures {first} to {last} without a gap", f"no picture {missing}")
        if clips and path.is_relative_to(clips[-1].path) and path != clips[-1].path:
            own.fault(path, "pictures, or folders of pictures, but not both", f"pictures also in {clips[-1].name}")
        numbers, names = one_copy(tuple(pictures)), one_copy(tuple(pictures.values()))
        native = commonest_size(path / names[place] for place in sorted({0, len(names) // 2, len(names) - 1}))
        name = relative(path, finds.root) if path != finds.root else finds.root.resolve().name
        beside = tuple(path / name for name in tables)
        clips.append(_Clip(name, split, path, numbers, names, beside, native, tuple(own.faults)))
    return clips
