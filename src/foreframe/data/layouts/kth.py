"""KTH actions as published: a person doing one of six things, in grey videos of 160x120 at 25 frames a second.

    ROOT[/FOLDER[/FOLDER]]/person01_walking_d1_uncomp.avi       person 01 to 25, an action, scene d1 to d4
    ROOT[/FOLDER[/FOLDER]]/00sequences.txt                      may be missing

The list has a line for each video, with the frames in which something happens, counted from 1, both ends included:

    person01_boxing_d1      frames  1-95, 96-185, 186-245, 246-360
    person13_handclapping_d3        *missing*

Each range is a clip; without a list, each video. Persons 21 to 25 are the test split, as in Denton and Fergus (SVG);
validation on 19 and 20 is our own choice. (The split printed in the list is for recognising actions.) There is no
condition unless `columns` asks for one: which of the six actions it is, as a one in one of six columns.

In the published files one video is cut off inside its last range (person01_boxing_d4): a fault of that clip alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mode

import av
import numpy as np

from foreframe.data.formats.folders import Findings, listing, relative, some_files
from foreframe.data.formats.images import example_picture
from foreframe.data.layouts._shared import index_of
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import reading, unreadable
from foreframe.video import VideoInfo, probe_video, read_frames
from foreframe.video.pixels import Size

NAME = "kth"
DESCRIBE = "KTH actions: personNN_ACTION_dM_uncomp.avi, with 00sequences.txt or without"
LOOKS_FOR = "[ANY/[ANY/]]personNN_ACTION_dM_uncomp.avi, with 00sequences.txt or without"
TAKES: tuple[str, ...] = ()

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
LIST = "00sequences.txt"
DEPTH = 2  # folders between the source and a video
PROBED = 5  # videos that are opened, where there is a list, to learn what size most of them have
MAX_LIST_BYTES = 2**20
_STEM = rf"(person([0-9]{{2}})_({'|'.join(ACTIONS)})_d[0-9])"
_VIDEO = re.compile(_STEM + r"_uncomp\.avi")
_LINE = re.compile(_STEM + r"\s+(?:frames\s+(.*)|\*missing\*)")
_RANGE = re.compile(r"([0-9]{1,7})-([0-9]{1,7})")

Range = tuple[int, int]  # first frame counted from 0, and the frame behind the last


@dataclass(frozen=True)
class _Video:
    path: Path
    shown: str
    person: int
    action: str


def recognises(folder: Path) -> bool:
    """Whether a video with such a name lies in the folder or up to two folders below."""
    return any(_VIDEO.fullmatch(path.name) for path in some_files(folder, DEPTH))


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every video, which is opened here to learn its length, or every range of it in the list."""
    finds = Findings(folder)
    videos, lists = _found(folder, finds)
    listed = _listed(lists[0], videos, finds) if lists else None
    for path in lists[1:]:
        finds.fault(path, "one list of sequences", f"also {relative(lists[0], folder)}")
    infos: list[VideoInfo] = []
    unread = Findings(folder)
    found: list[tuple[_Video, Range, str]] = []
    for stem, video in videos.items():
        if listed is None or len(infos) < PROBED:
            with unread.collecting(video.path):
                infos.append(probe_video(video.path))
                if listed is None:
                    found.append((video, (0, infos[-1].length), ""))
        if listed is not None:
            found += [(video, piece, f"/{piece[0] + 1}-{piece[1]}") for piece in listed.get(stem, ())]
    if listed is None or not infos:
        finds.faults += unread.faults  # with the list, a video that is cut short may still hold whole clips
    if not found and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "no video")
    size = mode((info.height, info.width) for info in infos) if infos else None
    clips = [_clip(video, piece, ending, size or (1, 1)) for video, piece, ending in found]
    columns = tuple(f"action.{action}" for action in ACTIONS)
    return index_of(NAME, clips, size, finds, "vector", columns, ("none",), fps=infos[0].fps if infos else None)


def example(folder: Path) -> None:
    """Write a tiny source of this layout: four videos of 20 frames, 24x32, and the list of two ranges in each."""
    lines = []
    for order, (person, action) in enumerate(((1, "boxing"), (18, "running"), (19, "walking"), (21, "walking"))):
        stem = f"person{person:02d}_{action}_d1"
        lines.append(f"{stem}\t\tframes\t1-10, 11-20\n")
        path = folder / action / f"{stem}_uncomp.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", format="avi") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
            for number in range(20):
                picture = example_picture(number, 24, 32, order)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    (folder / LIST).write_text("Training: person11, 12\n\n" + "".join(lines))


def _found(folder: Path, finds: Findings) -> tuple[dict[str, _Video], list[Path]]:
    """The videos by the stem of their name, in the order of their paths, and the lists of ranges."""
    videos: dict[str, _Video] = {}
    lists: list[Path] = []
    waiting = [(folder, DEPTH)]
    while waiting:
        inner, depth = waiting.pop(0)
        files, folders = listing(inner, finds)
        waiting += [(inner / name, depth - 1) for name in folders if depth]
        for name in filter(_VIDEO.fullmatch, folders):
            finds.fault(inner / name, "a video", "a folder")
        for name in files:
            match = _VIDEO.fullmatch(name)
            if name == LIST:
                lists.append(inner / name)
            elif match is None:
                finds.ignore(inner, [name])
            elif not 1 <= int(match[2]) <= 25:
                finds.fault(inner / name, "a person from 01 to 25", match[2])
            elif match[1] in videos:
                finds.fault(inner / name, "one video of this name", f"also {videos[match[1]].shown}")
            else:
                videos[match[1]] = _Video(inner / name, relative(inner / name, folder), int(match[2]), match[3])
    return videos, lists


def _listed(path: Path, videos: dict[str, _Video], finds: Findings) -> dict[str, list[Range]]:
    """The ranges of each video, rising. What has no video, or no line, is a fault; an action of which there is not one
    video was not downloaded (each is an archive of its own): a warning."""
    text = None
    with finds.collecting(path), reading(path, "", "a file that can be read"):
        if (size := path.stat().st_size) > MAX_LIST_BYTES:
            raise unreadable(path, "", f"at most {MAX_LIST_BYTES} bytes", f"{size}")
        text = path.read_bytes().decode("utf-8", "backslashreplace")
    if text is None:
        return {}
    there = {video.action for video in videos.values()}
    rows: dict[str, int] = {}
    listed: dict[str, list[Range]] = {}
    absent: set[str] = set()
    for row, line in enumerate(text.splitlines(), start=1):
        if not re.match(r"\s*person[0-9]", line):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            expected = "a video and its frames: person01_boxing_d1 frames 1-95, 96-185"
            finds.fault(path, expected, repr(line[:60]), f"row {row}")
        elif match[1] in rows:
            finds.fault(path, f"one line for {match[1]}", f"another in row {rows[match[1]]}", f"row {row}")
        elif match[1] in videos:
            rows[match[1]] = row
            listed[match[1]] = _ranges(match[4], path, f"row {row}", finds)
        else:
            rows[match[1]] = row
            if match[3] not in there:
                absent.add(match[3])
            elif match[4] is not None:
                finds.fault(path, f"the video {match[1]}_uncomp.avi", "no such file", f"row {row}")
    if not rows:
        finds.fault(path, "a line with its frames for each video", "none")
        return {}
    for stem in videos:
        if stem not in rows:
            finds.fault(path, f"a line for {stem}", "none")
    if absent:
        finds.warnings.append(
            f"{relative(path, finds.root)} lists {', '.join(sorted(absent))}, of which there is no video"
        )
    return listed


def _ranges(text: str | None, path: Path, where: str, finds: Findings) -> list[Range]:
    """The ranges of one line; some lines of the published list are not in rising order, and some ranges overlap."""
    found: set[Range] = set()
    for word in (text or "*missing*").split(","):
        match = _RANGE.fullmatch(word.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            finds.fault(path, "ranges of frames from 1 on, as in 1-95, 96-185", repr(word.strip()[:40]), where)
        elif (piece := (int(match[1]) - 1, int(match[2]))) in found:
            finds.fault(path, "each range once", f"{word.strip()} twice", where)
        else:
            found.add(piece)
    return sorted(found)


def _clip(video: _Video, piece: Range, ending: str, size: Size) -> SourceClip:
    name = video.shown.removesuffix("_uncomp.avi") + ending
    split = "test" if video.person > 20 else "val" if video.person > 18 else "train"
    frames, rows = partial(_frames, video, size, piece[0]), partial(_rows, ACTIONS.index(video.action))
    return SourceClip(name, split, piece[1] - piece[0], frames, rows, file=video.shown)


def _frames(video: _Video, size: Size, first: int, start: int, stop: int) -> RawChunk:
    frames = read_frames(video.path, first + start, first + stop)
    if frames.shape[1:3] != size:
        expected, found = f"{size[1]}x{size[0]} pixels as other videos have", f"{frames.shape[2]}x{frames.shape[1]}"
        raise unreadable(video.path, "", expected, found)
    return RawChunk(frames)


def _rows(action: int, start: int, stop: int) -> RawChunk:
    rows = np.zeros((stop - start, len(ACTIONS)), np.float32)
    rows[:, action] = 1
    return RawChunk(rows)
