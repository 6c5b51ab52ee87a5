"""BAIR robot pushing as the NYCU labs hand it out: folders of PNG with two tables of numbers beside them.

    ROOT[/processed_data]/{train,validate,test}/TRAJECTORIES/K/0.png ... 29.png
                                                              actions.csv                 30 x 4, no header
                                                              endeffector_positions.csv   30 x 3, no header

The action and position of row t lead into frame t+1. The last row leads to a frame that was not recorded.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from foreframe.data.formats.folders import Findings, by_number, counted, gaps, listing, may_enter, numbered, relative
from foreframe.data.formats.images import commonest_size, example_picture
from foreframe.data.formats.tables import read_table
from foreframe.data.layouts._shared import index_of, one_copy, read_frames_of, read_rows_of, safely
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import Fault, NumberFault, printable
from foreframe.video import write_png
from foreframe.video.pixels import Size

NAME = "bair_lab"
DESCRIBE = "robot pushing: folders of PNG with actions.csv and endeffector_positions.csv (NYCU lab)"
LOOKS_FOR = "[processed_data/]train|validate|val|test/ANY/K/0.png with actions.csv and endeffector_positions.csv beside"
TAKES: tuple[str, ...] = ()

SPLITS = {"train": "train", "validate": "val", "val": "val", "validation": "val", "test": "test"}
TABLES = {"actions.csv": 4, "endeffector_positions.csv": 3}
COND_NAMES = (*(f"action_{axis}" for axis in range(4)), *(f"position_{axis}" for axis in "xyz"))
_PICTURE = re.compile(r"([0-9]{1,9})\.[pP][nN][gG]")
_Files = tuple[str, Path, dict[int, str], list[str], list[tuple[str, str]]]
"""Split and folder of a clip, its pictures by number, other files, and pairs of pictures of one number."""


def recognises(folder: Path) -> bool:
    """Whether a split holds folders of folders with a picture 0.png or one of the two tables."""
    clips = (clip for split in SPLITS for clip in islice((_root(folder) / split).glob("*/*"), 1000))
    try:
        return any(clip.is_dir() and any((clip / name).exists() for name in (*TABLES, "0.png")) for clip in clips)
    except OSError:
        return False


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every clip with its tables read and its pictures counted; pictures are decoded later."""
    finds = Findings(folder)
    root = _root(folder)
    found: list[_Files] = []
    names: dict[str, str] = {}
    inside = root == folder or may_enter(root, finds)
    for split in (name for name in SPLITS if inside and may_enter(root / name, finds)):
        if (first := names.setdefault(SPLITS[split], split)) != split:
            finds.fault(root / split, "one folder for the split", f"also {first}/")
        else:
            found += _clips_of(root / split, SPLITS[split], finds)
    sample = (path / name for _, path, pictures, _, _ in found for name in islice(pictures.values(), 1))
    native = commonest_size(islice(sample, 64))
    made = [_clip(*files, native or (1, 1), finds) for files in found]
    clips = [clip for clip in made if clip is not None]
    if not clips and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "no clip")
    return index_of(NAME, clips, native, finds, "vector", COND_NAMES, shift=1, measured=("position_*",))


def example(folder: Path) -> None:
    """Write a tiny source of this layout: four clips of 12 frames, 16x16."""
    for order, name in enumerate(("train/traj_0/1", "train/traj_0/2", "validate/traj_1/10", "test/traj_2/9")):
        clip = folder / "processed_data" / name
        for number in range(12):
            write_png(clip / f"{number}.png", example_picture(number, 16, 16, order))
        for table, columns in TABLES.items():
            rows = np.arange(12 * columns).reshape(12, columns) / 100 + order
            (clip / table).write_text("".join(",".join(f"{value:.18e}" for value in row) + "\n" for row in rows))


def _root(folder: Path) -> Path:
    return folder / "processed_data" if safely((folder / "processed_data").is_dir) else folder


def _clips_of(folder: Path, split: str, finds: Findings) -> list[_Files]:
    """The clips of one split, by trajectory file and number."""
    found = []
    before = len(finds.faults)
    files, groups = listing(folder, finds)
    finds.ignore(folder, files)
    for group in groups:
        before_group = len(finds.faults)
        files, clips = listing(folder / group, finds)
        finds.ignore(folder / group, files)
        for clip in sorted(clips, key=by_number):
            path, known = folder / group / clip, len(finds.faults)
            inside, deeper = listing(path, finds)
            if not inside and len(finds.faults) > known:
                continue  # it may not be read, or holds links and pipes only
            for name in deeper:
                finds.fault(path / name, "pictures and tables only", "a folder")
            found.append((split, path, *numbered(inside, _PICTURE)))
        if not clips and len(finds.faults) == before_group:
            finds.fault(folder / group, "a folder for each clip", "none")
    if not groups and len(finds.faults) == before:
        finds.fault(folder, "folders of clips", "an empty folder")
    return found


def _clip(
    split: str,
    path: Path,
    pictures: dict[int, str],
    others: list[str],
    twice: list[tuple[str, str]],
    native: Size,
    finds: Findings,
) -> SourceClip | None:
    """One clip with the faults of its names and tables; None, with a fault, where there is not one picture."""
    name = relative(path, finds.root)
    unexpected = [name for name in others if name not in TABLES]
    if not pictures:
        endings = counted(Counter(printable(Path(name).suffix) for name in unexpected))
        finds.fault(path, "pictures 0.png, 1.png, ...", f"none ({endings})" if endings else "none")
        return None
    own = Findings(finds.root)
    if missing := gaps([-1, *pictures]):
        own.fault(path, f"pictures 0.png to {max(pictures)}.png without a gap", f"no picture {missing}")
    for first, second in twice:
        own.fault(path, "one picture for each number", f"{first} and {second}")
    finds.ignore(path, unexpected)
    length = len(pictures)
    rows = []
    for kind, columns in TABLES.items():
        if kind not in others:
            own.fault(path / kind, f"a table of {length} rows of {columns} numbers", "no such file")
            rows.append(np.zeros((length, columns), np.float32))
            continue
        values, faults = read_table(path / kind, relative(path / kind, finds.root), columns, length)
        before = sum(part.shape[1] for part in rows)  # columns of the table that stands to the left
        own.faults += (_moved(fault, before) for fault in faults)
        rows.append(values)
    names, numbers = one_copy(tuple(pictures.values())), one_copy(tuple(pictures))
    frames = partial(read_frames_of, path, names, numbers, native, finds.root)
    table = partial(read_rows_of, np.concatenate(rows, axis=1))
    return SourceClip(name, split, length, frames, table, tuple(own.faults))


def _moved(fault: Fault, by: int) -> Fault:
    """A fault of one table as one of both beside each other."""
    if not isinstance(fault, NumberFault):
        return fault
    columns = tuple(column + by for column in fault.columns)
    return NumberFault(fault.path, fault.where, fault.expected, fault.found, columns, fault.row)
