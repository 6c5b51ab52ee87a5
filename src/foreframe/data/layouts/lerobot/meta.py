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

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreframe import config
from foreframe.data.formats.folders import Findings
from foreframe.data.formats.images import MAX_SIDE
from foreframe.data.formats.parquet import Table, holds_numbers, numbers
from foreframe.errors import DataError, printable
from foreframe.video.pixels import Size

VERSIONS = ("v2.0", "v2.1", "v3.0")
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
MAX_INFO_BYTES = 16 * 2**20
MAX_STATS_BYTES = config.LARGEST
MAX_LINE_BYTES = 16 * 2**20
MAX_WIDTH = 65536
"""Numbers in a row, of all features together."""
MAX_ROWS = 2**20
"""Rows of a table in meta/, or stretches of episodes in one of data/: packed, a million of them may be a few bytes."""
MAX_FAULTS = 1000
"""Behind so many faults in the rows or lines of one file, the rest of it is not looked at."""
MAX_INDEX = 10**9
MAX_LENGTH = 10**8
EPISODES_FILE = re.compile(r"meta/episodes/chunk-[0-9]+/file-[0-9]+\.parquet")
_NUMBERS = re.compile(r"float(16|32|64)|u?int(8|16|32|64)|bool")
_FIELD = re.compile(r"\{([a-z_]+)(?::0([1-9]))?d?\}")
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


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
    """meta/info.json, checked. splits: {"train": (first, end), ...} of episode numbers; empty where only train is."""

    version: str
    fps: float
    episodes: int
    frames: int
    chunk: int
    data: str
    video: str
    features: tuple[Feature, ...]
    splits: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Episode:
    """One episode: its number, its frames, the files that hold them (paths below the root).

    start, end: seconds into the video between which it lies, where a video holds several episodes.
    """

    index: int
    length: int
    data: str
    video: str
    start: float = 0.0
    end: float = math.inf


def read_info(finds: Findings, warnings: list[str]) -> Info | None:
    """meta/info.json, or None with at least one fault."""
    path = finds.root / "meta" / "info.json"
    before = len(finds.faults)
    raw = _json(path, finds, MAX_INFO_BYTES)
    if raw is None:
        return None
    top = _Keys(raw, "", path, finds)
    version = top.text("codebase_version")
    if version and version not in VERSIONS:
        known = f"{', '.join(VERSIONS[:-1])} or {VERSIONS[-1]}"
        finds.fault(path, known, f"'{printable(version[:40])}'", "codebase_version")
        return None
    fps = top.number("fps", 1e-3, 1e5)
    episodes, frames = top.whole("total_episodes", 0), top.whole("total_frames", 0)
    for optional in ("total_tasks", "total_videos", "total_chunks"):
        if optional in top.values:
            top.whole(optional, 0)
    chunk = top.whole("chunks_size", 1)
    features = _features(top)
    three = version == "v3.0"
    places = {"chunk_index", "file_index"} if three else {"episode_chunk", "episode_index"}
    data = top.template("data_path", places)
    video = ""
    if any(feature.kind == "video" for feature in features):
        video = top.template("video_path", places | {"video_key"})
    splits = _splits(top, episodes, finds, warnings)
    if len(finds.faults) > before:
        return None
    return Info(version, fps, episodes, frames, chunk, data, video, features, splits)


def read_episodes(info: Info, camera: Feature, files: Collection[str], finds: Findings) -> list[Episode]:
    """Every episode that meta lists, by its number; what is wrong with the list becomes faults.

    files: the paths of those that meta holds.
    """
    found: dict[int, Episode] = {}
    places: dict[int, tuple[Path, str]] = {}
    again: dict[Path, list[tuple[str, int]]] = {}
    if info.version == "v3.0":
        paths = [finds.root / name for name in sorted(files) if EPISODES_FILE.fullmatch(name)]
        listed = _v3_episodes(info, camera, paths, finds)
    else:
        listed = _v2_episodes(info, camera, finds)
    for path, where, episode in listed:
        if episode.index in found:
            again.setdefault(path, []).append((where, episode.index))
        else:
            found[episode.index] = episode
            places[episode.index] = path, where
    for path, these in again.items():
        where, index = these[0]
        more = f", and {len(these) - 1} more such" if len(these) > 1 else ""
        finds.fault(path, "each episode once", f"episode {index} again{more}", where)
    _apart(info, found, places, finds)
    return [found[index] for index in sorted(found)]


def _apart(info: Info, found: Mapping[int, Episode], places: Mapping[int, tuple[Path, str]], finds: Findings) -> None:
    """Episodes that lie in the same seconds of a video, by half a frame or more, are faults."""
    ends: dict[str, tuple[float, int]] = {}
    for episode in sorted(found.values(), key=lambda episode: (episode.start, episode.end)):
        if episode.end == math.inf:
            continue  # its video is its own
        end, other = ends.get(episode.video, (0.0, 0))
        if episode.start + 0.5 / info.fps < end:
            path, where = places[episode.index]
            expected = f"seconds of {printable(episode.video)} that are in no other episode"
            words = f"{episode.start:.4f}, but episode {other} ends at {end:.4f}"
            finds.fault(path, expected, words, where)
        ends[episode.video] = max((end, other), (episode.end, episode.index))


def count_tasks(info: Info, finds: Findings) -> int:
    """How many tasks there are. Tasks and statistics are not used; that they can be read is checked all the same."""
    meta, tasks = finds.root / "meta", 0
    if info.version == "v3.0":
        path = meta / "tasks.parquet"
        if path.exists():
            for where, row in _rows(path, {"task_index": int}, finds):
                tasks += _Keys(row, where, path, finds).whole("task_index", 0) >= 0
    else:
        path = meta / "tasks.jsonl"
        if path.exists():
            for where, line in _lines(path, finds):
                task = _Keys(line, where, path, finds)
                task.text("task")
                tasks += task.whole("task_index", 0) >= 0
        path = meta / "episodes_stats.jsonl"
        if path.exists():
            for where, line in _lines(path, finds, strict=False):
                _Keys(line, where, path, finds).whole("episode_index", 0)
    if (meta / "stats.json").exists():
        _json(meta / "stats.json", finds, MAX_STATS_BYTES, strict=False)
    return tasks


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


class _Keys:
    """The values of one JSON object or table row; what is missing or of another type becomes a fault."""

    def __init__(self, raw: Any, where: str, path: Path, finds: Findings) -> None:
        self.values: dict[str, Any] = raw if isinstance(raw, dict) else {}
        self.where, self.path, self.finds = where, path, finds
        self.absent = self.broken = not isinstance(raw, dict)
        if self.absent:
            finds.fault(path, "a JSON object", _type(raw), where)

    def fault(self, key: str, expected: str, found: str | None = None) -> None:
        if self.absent:  # which has been said
            return
        self.broken = True
        words = found or (_brief(self.values[key]) if key in self.values else "no such key")
        self.finds.fault(self.path, expected, words, ", ".join(filter(None, (self.where, printable(key)))))

    def whole(self, key: str, least: int, most: int = 2**62) -> int:
        """A whole number from `least` to `most`; one below `least`, with a fault, where there is none."""
        value = self.values.get(key)
        if type(value) is int and least <= value <= most:
            return value
        self.fault(key, f"a whole number of {least} or more" if most == 2**62 else f"a whole number, {least} to {most}")
        return least - 1

    def number(self, key: str, least: float, most: float) -> float:
        value = self.values.get(key)
        if isinstance(value, int | float) and type(value) is not bool and least <= value <= most:  # never of nan
            return float(value)
        self.fault(key, f"a number from {least:g} to {most:g}")
        return math.nan

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if isinstance(value, str):
            return value
        self.fault(key, "a text")
        return ""

    def template(self, key: str, fields: set[str]) -> str:
        """A path in which only these fields are left open, and which cannot leave the folder."""
        template = self.text(key)
        if not template and self.values.get(key) != "":
            return template
        used = {match[1] for match in _FIELD.finditer(template)}
        sample = _FIELD.sub("0", template)
        numbered = any(match[2] and match[1] == "video_key" for match in _FIELD.finditer(template))
        if used - fields or re.search(r"[{}]", sample) or numbered:
            named = ", ".join(f"{{{field}}}" for field in sorted(fields))
            self.fault(key, f"a path with no fields but {named}", f"'{printable(template[:120])}'")
        elif not inside(sample):
            self.fault(key, "a path that stays inside the dataset", f"'{printable(template[:120])}'")
        return template


def _features(top: _Keys) -> tuple[Feature, ...]:
    raw = top.values.get("features")
    if not isinstance(raw, dict) or not raw:
        top.fault("features", "an object with the columns of the dataset")
        return ()
    features: list[Feature] = []
    width = 0
    for key, value in raw.items():
        features.append(_feature(key, _Keys(value, f"features.{printable(key)}", top.path, top.finds)))
        width += len(features[-1].names)
        if width > MAX_WIDTH:
            top.fault("features", f"at most {MAX_WIDTH} numbers in a row, of all features together", "more")
            break
    return tuple(features)


def _feature(key: str, raw: _Keys) -> Feature:
    if raw.broken:
        return Feature(key, "", "")
    kind = raw.text("dtype")
    shape = raw.values.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raw.fault("shape", "a list of whole numbers")
        return Feature(key, "", kind)
    words = f"{printable(kind[:20])} {'x'.join(map(str, shape))}".strip()
    if kind in ("image", "video"):
        if "/" in key or not inside(key):
            raw.fault("", "a name of a camera that can be a folder", f"'{printable(key[:80])}'")
        size, depth = _picture(raw, shape)
        return Feature(key, kind, words, size=size, depth=depth)
    if not _NUMBERS.fullmatch(kind) or len(shape) > 1:
        return Feature(key, "", words)
    width = shape[0] if shape else 1
    if not 1 <= width <= MAX_WIDTH:
        raw.fault("shape", f"1 to {MAX_WIDTH} numbers")
        return Feature(key, "", words)
    return Feature(key, "numbers", words, _names(raw, width))


def _picture(raw: _Keys, shape: list[int]) -> tuple[Size | None, bool]:
    """(H, W) of a camera, from what was found in its video when it was recorded, else from its shape."""
    info = raw.values.get("info") or raw.values.get("video_info") or {}
    if not isinstance(info, dict):
        raw.fault("info", "an object")
        return None, False
    depth = info.get("video.is_depth_map", info.get("is_depth_map")) is True
    sides: list[Any] = [info.get("video.height"), info.get("video.width")]
    if None in sides:
        if len(shape) != 3:
            raw.fault("shape", "height, width and channels")
            return None, depth
        names = raw.values.get("names")
        told = isinstance(names, list) and bool(names) and str(names[0]).lower().startswith("channel")
        last, first = shape[2] in (1, 3, 4), shape[0] in (1, 3, 4)
        sides = shape[1:] if first and (told or not last) else shape[:2]
    if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raw.fault("shape", f"pictures of 1x1 to {MAX_SIDE}x{MAX_SIDE} pixels", _brief(sides))
        return None, depth
    return (sides[0], sides[1]), depth


def _names(raw: _Keys, width: int) -> tuple[str, ...]:
    """A name for each number of a feature: those it gives, in a list, a nested list or a dictionary, else 0, 1, ..."""
    given = raw.values.get("names")
    if given is not None and not isinstance(given, list | dict):
        raw.fault("names", "a list, a dictionary or null")
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


def _splits(top: _Keys, episodes: int, finds: Findings, warnings: list[str]) -> dict[str, tuple[int, int]]:
    """Official splits; none where everything is for training, which is what a dataset without splits says."""
    raw = top.values.get("splits") or {}
    if not isinstance(raw, dict):
        top.fault("splits", 'an object like {"train": "0:79"}')
        return {}
    found: dict[str, tuple[int, int]] = {}
    strangers = []
    for name, value in raw.items():
        match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", value) if isinstance(value, str) else None
        inner = _Keys(raw, "splits", top.path, finds)
        if match is None or int(match[1]) > int(match[2]):
            inner.fault(name, "a range of episodes like 0:79")
            continue
        if name not in _SPLIT_NAMES:
            strangers.append(printable(name))
            continue
        first, end = int(match[1]), int(match[2])
        for other, (start, stop) in found.items():
            if max(first, start) < min(end, stop):
                inner.fault(name, f"no episode that is in {other} as well", f"{first}:{end} and {start}:{stop}")
        if _SPLIT_NAMES[name] in found:
            inner.fault(name, f"one range for {_SPLIT_NAMES[name]}", "another")
        found[_SPLIT_NAMES[name]] = (first, end)
    if strangers:
        warnings.append(f"meta/info.json: splits: {', '.join(strangers)}: no such split here, not used")
    if set(found) <= {"train"}:
        if found and (found["train"][0] > 0 or found["train"][1] < episodes):
            first, end = found["train"]
            warnings.append(f"meta/info.json: splits: only train, {first}:{end} of {episodes} episodes: not used")
        return {}
    for name, (first, end) in found.items():
        if end > episodes:
            top.fault("splits", f"{episodes} episodes, as total_episodes says", f"{name} {first}:{end}")
    return found


def _v2_episodes(info: Info, camera: Feature, finds: Findings) -> Iterator[tuple[Path, str, Episode]]:
    path = finds.root / "meta" / "episodes.jsonl"
    for where, line in _lines(path, finds):
        row = _Keys(line, where, path, finds)
        index, length = row.whole("episode_index", 0, MAX_INDEX), row.whole("length", 1, MAX_LENGTH)
        if row.broken:
            continue
        fields = {"episode_index": index, "episode_chunk": index // info.chunk}
        video = fill(info.video, **fields, video_key=camera.key) if camera.kind == "video" else ""
        yield path, where, Episode(index, length, fill(info.data, **fields), video)


def _v3_episodes(
    info: Info, camera: Feature, paths: Sequence[Path], finds: Findings
) -> Iterator[tuple[Path, str, Episode]]:
    """Data and video of an episode are numbered apart: one may be in file 3 while the other is still in file 0."""
    video = f"videos/{camera.key}"
    columns: dict[str, type] = dict.fromkeys(("episode_index", "length", "data/chunk_index", "data/file_index"), int)
    if camera.kind == "video":
        columns |= {f"{video}/chunk_index": int, f"{video}/file_index": int}
        columns |= {f"{video}/from_timestamp": float, f"{video}/to_timestamp": float}
    folder = finds.root / "meta" / "episodes"
    if not paths:
        finds.fault(folder, "chunk-000/file-000.parquet, ...", "none of them" if folder.is_dir() else "no such folder")
    for path in paths:
        for where, values in _rows(path, columns, finds):
            row = _Keys(values, where, path, finds)
            index, length = row.whole("episode_index", 0, MAX_INDEX), row.whole("length", 1, MAX_LENGTH)
            placed = (key for key in columns if key.endswith(("/chunk_index", "/file_index")))
            places = {key: row.whole(key, 0, MAX_INDEX) for key in placed}
            start, end = 0.0, math.inf
            if camera.kind == "video":
                start = row.number(f"{video}/from_timestamp", 0, 1e9)
                end = row.number(f"{video}/to_timestamp", 0, 1e9)
                if start + (length - 0.5) / info.fps > end:
                    expected = f"{start + length / info.fps:.4f}, {length} frames after from_timestamp"
                    row.fault(f"{video}/to_timestamp", expected, f"{end:.4f}")
            if row.broken:
                continue
            data = fill(info.data, chunk_index=places["data/chunk_index"], file_index=places["data/file_index"])
            film = ""
            if camera.kind == "video":
                chunk, file = places[f"{video}/chunk_index"], places[f"{video}/file_index"]
                film = fill(info.video, video_key=camera.key, chunk_index=chunk, file_index=file)
            yield path, where, Episode(index, length, data, film, start, end)


def _json(path: Path, finds: Findings, limit: int, strict: bool = True) -> Any:
    """The JSON in a file; None with a fault where there is none, or where it is `null`."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        finds.fault(path, "a JSON file", error.strerror or type(error).__name__)
        return None
    if len(content) > limit:
        finds.fault(path, f"at most {limit} bytes", "more")
        return None
    found, value = _parse(content, strict)
    if found:
        finds.fault(path, "JSON", found)
    elif value is None:
        finds.fault(path, "a JSON object", "null")
    return value


def _lines(path: Path, finds: Findings, strict: bool = True) -> Iterator[tuple[str, Any]]:
    """("line 1", JSON) of each line; one that is no JSON is a fault, and ends it."""
    number, before = 0, len(finds.faults)
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    finds.fault(path, f"at most {MAX_LINE_BYTES} bytes a line", "more", f"line {number}")
                    return
                if not line.strip():
                    continue
                found, value = _parse(line, strict)
                if found:
                    finds.fault(path, "a line of JSON", found, f"line {number}")
                    return
                yield f"line {number}", value
                if _too_many(path, f"line {number}", before, finds):
                    return
    except OSError as error:
        finds.fault(path, "a file of JSON lines", error.strerror or type(error).__name__)
        return
    if not number:
        finds.fault(path, "a file of JSON lines", "an empty file")


def _parse(content: bytes, strict: bool) -> tuple[str, Any]:
    """In words what is wrong, or '' and the value. Statistics may hold NaN and Infinity, other files may not."""
    try:
        return "", config.loads(content, config.LARGEST, finite=strict, control=True)
    except config.JsonProblem as error:
        return "an empty file" if not content.strip() else str(error), None


def _rows(path: Path, columns: Mapping[str, type], finds: Findings) -> Iterator[tuple[str, dict[str, Any]]]:
    """("row 1", values) of each row of a table of numbers; what cannot be read is a fault, and ends it."""
    before = len(finds.faults)
    try:
        with Table(path, tuple(columns)) as table:
            if table.rows > MAX_ROWS:
                finds.fault(path, f"at most {MAX_ROWS} rows", f"{table.rows}")
                return
            for name, kind in table.types.items():
                if not holds_numbers(kind):
                    finds.fault(path, "a column of numbers", printable(str(kind)[:80]), printable(name))
                    return
            for first, block in table.blocks():
                read = {name: numbers(block.column(name), 1) for name in columns}
                for number in range(block.num_rows):
                    where = f"row {first + number + 1}"
                    wrong = [(name, words[number]) for name, (_, words) in read.items() if number in words]
                    for name, found in wrong:
                        finds.fault(path, "a number", found, f"{where}, {printable(name)}")
                    if not wrong:
                        values = {name: float(array[number, 0]) for name, (array, _) in read.items()}
                        yield where, {name: _as(columns[name], value) for name, value in values.items()}
                    if _too_many(path, where, before, finds):
                        return
    except DataError as error:
        for fault in error.faults:
            finds.fault(path, fault.expected, fault.found, fault.where)


def _too_many(path: Path, where: str, before: int, finds: Findings) -> bool:
    """Whether so much is wrong with the rows of a file that the others are left, which is a fault as well."""
    if len(finds.faults) - before < MAX_FAULTS:
        return False
    finds.fault(path, f"fewer than {MAX_FAULTS} faults in one file", "as many; the rest of it was not looked at", where)
    return True


def _as(kind: type, value: float) -> float | int:
    return int(value) if kind is int and value.is_integer() else value


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _brief(value: Any) -> str:
    """A JSON value in at most some 60 signs."""
    text = json.dumps(value) if isinstance(value, str | int | float | bool | type(None)) else ""
    if isinstance(value, list) and len(value) < 10:
        text = "[" + ", ".join(_brief(inner) for inner in value) + "]"
    return printable(text[:60] + "..." * (len(text) > 60)) if text else _type(value)
