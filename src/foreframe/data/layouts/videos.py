"""A folder of videos, each alone or with a table of what was done in it.

    ROOT[/{train,val,test}][/FOLDERS]/clip.mp4        or .avi .gif .webm .mov .mkv
                                     /clip.csv        or .json .parquet: a row for each frame

All videos have a table, or none has. All tables have the same columns. Row t was recorded with frame t and leads into
frame t+1.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from foreframe.data.formats.folders import Findings, relative, some_files
from foreframe.data.formats.images import example_picture
from foreframe.data.formats.tables import TABLES
from foreframe.data.layouts._shared import index_of, named_like_a_file, rows_beside, safely, splits, usual_size, walk
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault
from foreframe.video import VideoInfo, probe_video, read_frames, write_gif, write_mp4

NAME = "videos"
DESCRIBE = "videos (MP4, MOV, AVI, GIF, WebM, MKV), alone or with a table of conditions beside each"
LOOKS_FOR = "[train|val|test/]ANY.mp4 or .avi .gif .webm .mov .mkv, with ANY.csv, .json or .parquet beside, or without"
TAKES: tuple[str, ...] = ()

VIDEOS = (".mp4", ".avi", ".gif", ".webm", ".mov", ".mkv")
_KTH = re.compile(r"person[0-9]{2}_[a-z]+_d[0-9]_uncomp\.avi", re.IGNORECASE)


@dataclass(frozen=True)
class _Clip:
    """A video with its split, the tables of its name, and a fault where there is another video of this name."""

    name: str
    split: str
    path: Path
    tables: tuple[Path, ...]
    faults: tuple[Fault, ...]


def recognises(folder: Path) -> bool:
    """Whether there are videos in it, and neither a LeRobot data set nor KTH's names."""
    found = [path.name for path in some_files(folder) if path.suffix.lower() in VIDEOS]
    lerobot = safely((folder / "meta" / "info.json").exists)
    return bool(found) and not lerobot and not any(map(_KTH.fullmatch, found))


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every video with its packets counted and its table read; pictures are decoded later."""
    finds = Findings(folder)
    parts = splits(folder, (*VIDEOS, *TABLES), finds)
    found = [clip for split, path in parts for clip in _clips_of(path, split, options.lists, finds)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        probed = list(pool.map(partial(_probe, folder), (clip.path for clip in found)))
    lengths = [info.length if isinstance(info, VideoInfo) else None for info in probed]
    missing = "a table of the same name beside it, as other videos have"
    tabled = [(clip.path, clip.tables, length) for clip, length in zip(found, lengths, strict=True)]
    columns, beside = rows_beside(tabled, "for each video", missing, folder)
    clips, infos = [], []
    for clip, info, (rows, wrong) in zip(found, probed, beside, strict=True):
        faults = (*clip.faults, *wrong)
        if isinstance(info, Fault):
            finds.faults += [info, *faults]
            continue
        infos.append((clip, info))
        clips.append(SourceClip(clip.name, clip.split, info.length, partial(_read, clip.path), rows, faults))
    if not found and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "no video")
    size, fps = usual_size([(info.height, info.width) for _, info in infos], finds), _rate(infos, finds)
    cond = any(clip.tables for clip in found)
    return index_of(NAME, clips, size, finds, "vector" if cond else "none", columns, shift=int(cond), fps=fps)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: five videos of 9 to 12 frames, 32x32, with tables of two kinds."""
    paths = ("train/push/0.mp4", "train/push/1.gif", "train/2.mp4", "val/3.gif", "test/4.mp4")
    for order, name in enumerate(paths):
        path, length = folder / name, 12 - order % 4
        frames = np.stack([example_picture(number, 32, 32, order) for number in range(length)])
        (write_gif if path.suffix == ".gif" else write_mp4)(path, frames, 10)
        rows = [[number / 10, order - number / 100] for number in range(length)]
        if order % 2:
            lines = ",\n".join(f'{{"move": {move}, "turn": {turn}}}' for move, turn in rows)
            path.with_suffix(".json").write_text(f"[{lines}]\n", encoding="ascii")
        else:
            text = "".join(f"{move},{turn}\n" for move, turn in rows)
            path.with_suffix(".csv").write_text(f"move,turn\n{text}", encoding="ascii")


def _clips_of(folder: Path, split: str, lists: Path | None, finds: Findings) -> list[_Clip]:
    """The videos at and below a folder, each with the tables of its name; tables without a video are faults."""
    own_list = lists.resolve() if lists is not None else None
    clips = []
    for path, files in walk(folder, finds):
        videos: dict[str, list[str]] = {}
        tables: dict[str, list[str]] = {}
        for name in files:
            file = Path(name)
            if file.suffix.lower() in VIDEOS:
                videos.setdefault(file.stem, []).append(name)
            elif file.suffix.lower() in TABLES and (path / name).resolve() != own_list:
                tables.setdefault(file.stem, []).append(name)
            else:
                finds.ignore(path, [name])
        if not videos:
            named_like_a_file(path, (*VIDEOS, *TABLES), finds)
        for stem, names in tables.items():
            if stem not in videos:
                for name in names:
                    finds.fault(path / name, f"a video of this name beside it ({', '.join(VIDEOS)})", "none")
        for stem, names in videos.items():
            own = Findings(finds.root)
            if len(names) > 1:
                own.fault(path / names[1], "one video of this name", f"also {names[0]}")
            beside = tuple(path / name for name in tables.get(stem, ()))
            name = relative(path / stem, finds.root)
            clips.append(_Clip(name, split, path / names[0], beside, tuple(own.faults)))
    return clips


def _probe(root: Path, path: Path) -> VideoInfo | Fault:
    try:
        return probe_video(path)
    except DataError as error:
        first = error.faults[0]
        return Fault(relative(path, root), first.where, first.expected, first.found)


def _read(path: Path, start: int, stop: int) -> RawChunk:
    return RawChunk(read_frames(path, start, stop))


def _rate(infos: Sequence[tuple[_Clip, VideoInfo]], finds: Findings) -> float | None:
    """Frames a second, as most videos have; those that differ or are uneven are warned of."""
    finds.warnings += [
        f"{clip.name}: frames are not evenly spaced: {info.uneven}" for clip, info in infos if info.uneven
    ]
    rates = Counter(info.fps for _, info in infos if info.fps is not None and not info.uneven)
    if not rates:
        return None
    if max(rates) > 1.01 * min(rates):
        found = sorted(rates.items())
        words = ", ".join(f"{count} at {rate:g}" for rate, count in found[:6])
        words += f" and {len(found) - 6} other rates" if len(found) > 6 else ""
        finds.warnings.append(f"videos differ in their frames per second: {words}")
    return rates.most_common(1)[0][0]
