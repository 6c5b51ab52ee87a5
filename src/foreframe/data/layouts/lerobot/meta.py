"""What the meta folder of a LeRobot dataset says: its features, its episodes and where the data of each lie.

    meta/info.json              version, rate, features, path templates                            all versions
    meta/episodes.jsonl         a line {"episode_index": 0, "tasks": [...], "length": 86}         v2.0, v2.1
    meta/tasks.jsonl            a line {"task_index": 0, "task": "..."}                            v2.0, v2.1
    meta/episodes_stats.jsonl   a line of statistics for each episode                              v2.1
    meta/episodes/chunk-000/file-000.parquet   a row for each episode, with the files it is in     v3.0
    meta/tasks.parquet          a row for each task                                                v3.0
    meta/stats.json             statistics of the whole                                            v2.0, v3.0

Nothing in here is believed: every type and range is checked, and paths are filled in strictly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from foreframe import config
from foreframe.config import Range
from foreframe.data.formats.folders import SPLIT_OF, Findings
from foreframe.data.formats.images import MAX_SIDE
from foreframe.data.layouts.lerobot.files import read_json, read_lines, read_object, read_rows
from foreframe.errors import printable
from foreframe.video.pixels import Size

VERSIONS = ("v2.0", "v2.1", "v3.0")
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
MAX_INFO_BYTES = 16 * 2**20  # of meta/info.json that are searched for a version
MAX_WIDTH = 65536  # numbers in a row, of all features together
MAX_INDEX = 10**9
MAX_LENGTH = 10**8
EPISODES_FILE = re.compile(r"meta/episodes/chunk-[0-9]+/file-[0-9]+\.parquet")
_NUMBERS = re.compile(r"float(16|32|64)|u?int(8|16|32|64)|bool")
_FIELD = re.compile(r"\{([a-z_]+)(?::0([1-9]))?d?\}")

Natural = Annotated[int, Range(0)]
Index = Annotated[int, Range(0, MAX_INDEX)]
Length = Annotated[int, Range(1, MAX_LENGTH)]
Seconds = Annotated[float, Range(0, 10**9)]


@dataclass(frozen=True)
class _FeatureEntry:
    """A feature as it stands in meta/info.json."""

    dtype: str
    shape: tuple[Natural, ...]
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None


@dataclass(frozen=True)
class InfoFile:
    """meta/info.json as it stands there."""

    fps: Annotated[float, Range(1e-3, 10**5)]
    total_episodes: Natural
    total_frames: Natural
    chunks_size: Annotated[int, Range(1)]
    features: dict[str, _FeatureEntry]
    data_path: str
    video_path: str | None = None
    splits: dict[str, Any] | None = None
    total_tasks: Natural = 0
    total_videos: Natural = 0
    total_chunks: Natural = 0


@dataclass(frozen=True)
class _EpisodeLine:
    episode_index: Index
    length: Length


@dataclass(frozen=True)
class _TaskLine:
    task: str
    task_index: Natural


@dataclass(frozen=True)
class _StatsLine:
    episode_index: Natural


@dataclass(frozen=True)
class Feature:
    """A column of the dataset, or a camera.

    kind: "numbers" (1-d), "image" (pictures inside parquet), "video", or "" for what is not read.
    names: one for each number. size: (H, W) of pictures. depth: pictures are distances, not colours.
    """

    key: str
    kind: str
    words: str
    names: tuple[str, ...] = ()
    size: Size | None = None
    depth: bool = False


@dataclass(frozen=True)
class Info:
    """meta/info.json, checked.

    three: codebase v3.0. video: the path of videos; empty without any. splits: {"train": (first, end), ...} of episode
    numbers; empty where only train is.
    """

    file: InfoFile
    three: bool
    video: str
    features: tuple[Feature, ...]
    splits: Mapping[str, tuple[int, int]]

    @property
    def folders(self) -> set[str]:
        """The uppermost folders of data and videos."""
        return {path.partition("/")[0] for path in (self.file.data_path, self.video)} - {""}


@dataclass(frozen=True)
class Episode:
    """One episode: its number, its frames, the files that hold them (paths below the root), and between which seconds
    of a video that holds several it lies."""

    index: int
    length: int
    data: str
    video: str
    start: float = 0.0
    end: float = math.inf


_Listed = tuple[Path, str, Episode]
"""An episode, and the file and place of its entry."""


def read_info(finds: Findings) -> Info | None:
    """meta/info.json, or None with at least one fault."""
    path = finds.root / "meta" / "info.json"
    before = len(finds.faults)
    raw = read_json(path, finds)
    version = raw.get("codebase_version") if isinstance(raw, dict) else None
    if isinstance(raw, dict) and version not in VERSIONS:
        known = f"{', '.join(VERSIONS[:-1])} or {VERSIONS[-1]}"
        finds.fault(path, known, config.shown(version), "codebase_version")
    top = read_object(InfoFile, raw, path, finds) if len(finds.faults) == before else None
    if top is None:
        return None
    features = _features(top, path, finds)
    three = version == "v3.0"
    places = {"chunk_index", "file_index"} if three else {"episode_chunk", "episode_index"}
    _check_template("data_path", top.data_path, places, path, finds)
    video = ""
    if any(feature.kind == "video" for feature in features):
        video = top.video_path or ""
        _check_template("video_path", video, places | {"video_key"}, path, finds)
    splits = _splits(top, path, finds)
    return Info(top, three, video, features, splits) if len(finds.faults) == before else None


def read_episodes(info: Info, camera: Feature, files: Collection[str], finds: Findings) -> list[Episode]:
    """Every episode that meta lists in its `files`, by its number; what is wrong with the list becomes faults."""
    found: dict[int, _Listed] = {}
    again: dict[Path, list[tuple[str, int]]] = {}
    paths = [finds.root / name for name in sorted(files) if EPISODES_FILE.fullmatch(name)]
    listed = _v3_episodes(info, camera, paths, finds) if info.three else _v2_episodes(info, camera, finds)
    for path, where, episode in listed:
        if found.setdefault(episode.index, (path, where, episode))[2] is not episode:
            again.setdefault(path, []).append((where, episode.index))
    for path, these in again.items():
        where, index = these[0]
        more = f", and {len(these) - 1} more such" if len(these) > 1 else ""
        finds.fault(path, "each episode once", f"episode {index} again{more}", where)
    _check_overlap(info, found.values(), finds)
    return [found[index][2] for index in sorted(found)]


def _check_overlap(info: Info, found: Collection[_Listed], finds: Findings) -> None:
    """Episodes that lie in the same seconds of a video, by half a frame or more, are faults."""
    ends: dict[str, tuple[float, int]] = {}
    for path, where, episode in sorted(found, key=lambda item: (item[2].start, item[2].end)):
        if episode.end == math.inf:
            continue  # its video is its own
        end, other = ends.get(episode.video, (0.0, 0))
        if episode.start + 0.5 / info.file.fps < end:
            expected = f"seconds of {printable(episode.video)} that are in no other episode"
            words = f"{episode.start:.4f}, but episode {other} ends at {end:.4f}"
            finds.fault(path, expected, words, where)
        ends[episode.video] = max((end, other), (episode.end, episode.index))


def count_tasks(info: Info, finds: Findings) -> int:
    """How many tasks there are. Tasks and statistics are not used; that they can be read is checked all the same."""
    meta = finds.root / "meta"
    if (meta / "stats.json").exists():
        read_json(meta / "stats.json", finds, finite=False)
    if info.three:
        path = meta / "tasks.parquet"
        return sum(1 for _ in read_rows(path, {"task_index": Natural}, finds)) if path.exists() else 0
    tasks = _count_lines(_TaskLine, meta / "tasks.jsonl", finds)
    _count_lines(_StatsLine, meta / "episodes_stats.jsonl", finds, finite=False)
    return tasks


def _count_lines(kind: type, path: Path, finds: Findings, finite: bool = True) -> int:
    """The objects of one kind in a file of JSON lines, which may be missing."""
    lines = read_lines(path, finds, finite) if path.exists() else ()
    return sum(read_object(kind, line, path, finds, where) is not None for where, line in lines)


def fill(template: str, **fields: int | str) -> str:
    """A path template with its fields filled in: {episode_index:06d}, {video_key}; nothing else has a meaning."""

    def one(match: re.Match[str]) -> str:
        value = fields[match[1]]
        return f"{value:0{match[2]}d}" if match[2] and isinstance(value, int) else str(value)

    return _FIELD.sub(one, template)


def inside(path: str) -> bool:
    """Whether a path with '/' between its parts stays below the folder it starts from."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not re.search(r"[\\\0]|^[A-Za-z]:", path)


def _check_template(key: str, template: str, fields: set[str], path: Path, finds: Findings) -> None:
    """A fault unless only these fields are left open in a path, and it cannot leave the folder."""
    found = list(_FIELD.finditer(template))
    used = {match[1] for match in found}
    sample = _FIELD.sub("0", template)
    numbered = any(match[2] and match[1] == "video_key" for match in found)
    if used - fields or re.search(r"[{}]", sample) or numbered:
        named = ", ".join(f"{{{field}}}" for field in sorted(fields))
        finds.fault(path, f"a path with no fields but {named}", config.shown(template), key)
    elif not inside(sample):
        finds.fault(path, "a path that stays inside the dataset", config.shown(template), key)


def _features(top: InfoFile, path: Path, finds: Findings) -> tuple[Feature, ...]:
    if not top.features:
        finds.fault(path, "the columns of the dataset", "none", "features")
    features: list[Feature] = []
    width = 0
    for key, entry in top.features.items():
        features.append(_feature(key, entry, path, finds))
        width += len(features[-1].names)
        if width > MAX_WIDTH:
            finds.fault(path, f"at most {MAX_WIDTH} numbers in a row, of all features together", "more", "features")
            break
    return tuple(features)


def _feature(key: str, entry: _FeatureEntry, path: Path, finds: Findings) -> Feature:
    kind, shape, where = entry.dtype, entry.shape, f"features.{key[:80]}"
    words = f"{printable(kind[:20])} {'x'.join(map(str, shape))}".strip()
    if kind in ("image", "video"):
        if "/" in key or not inside(key):
            finds.fault(path, "a name of a camera that can be a folder", config.shown(key), where)
        info = entry.info or entry.video_info or {}
        depth = info.get("video.is_depth_map", info.get("is_depth_map")) is True
        sides = _sides(entry, info)
        if len(sides) != 2:
            finds.fault(path, "height, width and channels", config.shown(list(shape)), f"{where}.shape")
        elif not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
            expected = f"pictures of 1x1 to {MAX_SIDE}x{MAX_SIDE} pixels"
            finds.fault(path, expected, config.shown(list(sides)), f"{where}.shape")
        return Feature(key, kind, words, size=(sides[0], sides[-1]), depth=depth)
    if not _NUMBERS.fullmatch(kind) or len(shape) > 1:
        return Feature(key, "", words)
    width = shape[0] if shape else 1
    if not 1 <= width <= MAX_WIDTH:
        finds.fault(path, f"1 to {MAX_WIDTH} numbers", str(width), f"{where}.shape")
        return Feature(key, "", words)
    if not isinstance(entry.names, list | dict | None):
        finds.fault(path, "a list, a dictionary or null", config.shown(entry.names), f"{where}.names")
    return Feature(key, "numbers", words, _names(entry.names, width))


def _sides(entry: _FeatureEntry, info: Mapping[str, Any]) -> Sequence[Any]:
    """(H, W) of a camera, from what was found in its video when it was recorded, else from its shape."""
    shape, names = entry.shape, entry.names
    sides = (info.get("video.height"), info.get("video.width"))
    if None not in sides or len(shape) != 3:
        return shape if None in sides else sides
    channels_first = isinstance(names, list) and bool(names) and str(names[0]).lower().startswith("channel")
    last, first = shape[2] in (1, 3, 4), shape[0] in (1, 3, 4)
    return shape[1:] if first and (channels_first or not last) else shape[:2]


def _names(given: Any, width: int) -> tuple[str, ...]:
    """A name for each number of a feature: those it gives, in a list, a nested list or a dictionary, else 0, 1, ..."""
    if isinstance(given, dict) and all(type(place) is int for place in given.values()):
        given = sorted(given, key=given.__getitem__)  # {"gripper": 6, ...}
    names = [printable(name[:200]) for name in _texts(given, 0)]
    if len(names) != width or len(set(names)) != width:
        return tuple(map(str, range(width)))
    return tuple(names)


def _texts(given: Any, depth: int) -> Iterator[str]:
    if isinstance(given, str | int | float):
        yield str(given)
    elif isinstance(given, list | dict) and depth < 4:
        for value in given.values() if isinstance(given, dict) else given:
            yield from _texts(value, depth + 1)


def _splits(top: InfoFile, path: Path, finds: Findings) -> dict[str, tuple[int, int]]:
    """Official splits; none where everything is for training, as in a dataset without splits."""
    found: dict[str, tuple[int, int]] = {}
    unknown = []
    for name, value in (top.splits or {}).items():
        where = f"splits, {name[:80]}"
        match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", value) if isinstance(value, str) else None
        if match is None or int(match[1]) > int(match[2]):
            finds.fault(path, "a range of episodes like 0:79", config.shown(value), where)
            continue
        if name not in SPLIT_OF:
            unknown.append(printable(name))
            continue
        first, end = int(match[1]), int(match[2])
        for other, (start, stop) in found.items():
            if max(first, start) < min(end, stop):
                expected = f"no episode that is in {other} as well"
                finds.fault(path, expected, f"{first}:{end} and {start}:{stop}", where)
        if SPLIT_OF[name] in found:
            finds.fault(path, f"one range for {SPLIT_OF[name]}", "another", where)
        found[SPLIT_OF[name]] = (first, end)
    if unknown:
        finds.warnings.append(f"meta/info.json: splits: {', '.join(unknown)}: no such split here, not used")
    episodes = top.total_episodes
    if set(found) <= {"train"}:
        first, end = found.get("train", (0, episodes))
        if first > 0 or end < episodes:
            finds.warnings.append(f"meta/info.json: splits: only train, {first}:{end} of {episodes} episodes: not used")
        return {}
    for name, (first, end) in found.items():
        if end > episodes:
            expected = f"{episodes} episodes, as total_episodes says"
            finds.fault(path, expected, f"{name} {first}:{end}", "splits")
    return found


def _v2_episodes(info: Info, camera: Feature, finds: Findings) -> Iterator[_Listed]:
    path = finds.root / "meta" / "episodes.jsonl"
    for where, line in read_lines(path, finds):
        if (row := read_object(_EpisodeLine, line, path, finds, where)) is None:
            continue
        fields = {"episode_index": row.episode_index, "episode_chunk": row.episode_index // info.file.chunks_size}
        video = fill(info.video, **fields, video_key=camera.key) if camera.kind == "video" else ""
        yield path, where, Episode(row.episode_index, row.length, fill(info.file.data_path, **fields), video)


def _v3_episodes(info: Info, camera: Feature, paths: Sequence[Path], finds: Findings) -> Iterator[_Listed]:
    """Data and video of an episode are numbered separately: one may be in file 3 while the other is in file 0."""
    columns: dict[str, Any] = {"episode_index": Index, "length": Length}
    columns |= {"data/chunk_index": Index, "data/file_index": Index}
    video, fps = f"videos/{camera.key}", info.file.fps
    if camera.kind == "video":
        columns |= {f"{video}/chunk_index": Index, f"{video}/file_index": Index}
        columns |= {f"{video}/from_timestamp": Seconds, f"{video}/to_timestamp": Seconds}
    folder = finds.root / "meta" / "episodes"
    if not paths:
        finds.fault(folder, "chunk-000/file-000.parquet, ...", "none of them" if folder.is_dir() else "no such folder")
    for path in paths:
        for where, row in read_rows(path, columns, finds):
            length, start, end, film = row["length"], 0.0, math.inf, ""
            if camera.kind == "video":
                start, end = row[f"{video}/from_timestamp"], row[f"{video}/to_timestamp"]
                if start + (length - 0.5) / fps > end:
                    expected = f"{start + length / fps:.4f}, {length} frames after from_timestamp"
                    finds.fault(path, expected, f"{end:.4f}", f"{where}, {video}/to_timestamp")
                    continue
                place = {key: row[f"{video}/{key}"] for key in ("chunk_index", "file_index")}
                film = fill(info.video, video_key=camera.key, **place)
            data = fill(info.file.data_path, **{key: row[f"data/{key}"] for key in ("chunk_index", "file_index")})
            yield path, where, Episode(row["episode_index"], length, data, film, start, end)
