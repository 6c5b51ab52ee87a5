"""LeRobot datasets, codebase v2.0, v2.1 and v3.0: tables in parquet, pictures in mp4 or in the tables themselves.

    ROOT/meta/info.json                                       {"codebase_version": "v3.0", "fps": 30, "features": ...}
    ROOT/meta/episodes/chunk-000/file-000.parquet             v3.0: where each episode lies
    ROOT/data/chunk-000/file-000.parquet                      v3.0: many episodes in a file
    ROOT/videos/CAMERA/chunk-000/file-000.mp4                 v3.0: many episodes in a file, cut elsewhere than the data
    ROOT/meta/episodes.jsonl                                  v2.x: the length of each episode
    ROOT/data/chunk-000/episode_000000.parquet                v2.x
    ROOT/videos/chunk-000/CAMERA/episode_000000.mp4           v2.x

The row of frame t holds the action given at frame t, which leads into frame t+1: the shift is 1. A frame of a video is
found by its timestamp, never by counting. The format is that of the LeRobot package (v0.1 to v0.4), read without it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foreframe.data.formats.folders import Findings, listing, may_enter, runs
from foreframe.data.formats.images import example_picture
from foreframe.data.formats.parquet import load_pyarrow
from foreframe.data.layouts._shared import index_of, safely, walk
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex, reads_of
from foreframe.data.layouts.lerobot.episodes import EpisodeReader, Source
from foreframe.data.layouts.lerobot.meta import (
    BOOKKEEPING,
    EPISODES_FILE,
    MAX_INFO_BYTES,
    Episode,
    Feature,
    Info,
    count_tasks,
    read_episodes,
    read_info,
)
from foreframe.data.layouts.options import Options
from foreframe.errors import Fault, UsageError, nearest, printable
from foreframe.files import not_plain

NAME = "lerobot"
DESCRIBE = "LeRobot datasets v2.0, v2.1 and v3.0: parquet tables with mp4 videos or pictures"
LOOKS_FOR = "meta/info.json with a codebase_version, and data/chunk-000/"
SPARE = ("*/stats.json", "*/tasks.parquet")
TAKES = ("camera",)

USUAL = {"action": ("action", "actions"), "state": ("observation.state", "state")}
"""The two features that are the condition: how their columns are called, and the features' names, best first."""
_META = {"meta/info.json", "meta/stats.json", "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"}
_META_V3 = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet"}


def recognises(folder: Path) -> bool:
    """Whether meta/info.json names a codebase_version, or other files in meta/ show what a broken one was."""
    meta = folder / "meta"
    try:
        if not not_plain((meta / "info.json").stat().st_mode):
            with (meta / "info.json").open("rb") as file:
                if b'"codebase_version"' in file.read(MAX_INFO_BYTES):
                    return True
        return (meta / "episodes.jsonl").is_file() or (meta / "episodes").is_dir()
    except (OSError, ValueError):
        return False


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every episode that meta lists and whose files are there; tables and pictures are read later.

    Raises UsageError: no such camera; pyarrow is not installed.
    """
    load_pyarrow()
    finds = Findings(folder)
    files = set(_files("meta", finds))
    info = None if finds.faults else read_info(finds)
    if info is None:
        return index_of(NAME, (), None, finds)
    cameras = sorted((f for f in info.features if f.kind in ("image", "video")), key=lambda f: (f.depth, f.key))
    if not cameras:
        finds.fault(folder / "meta" / "info.json", "a feature with dtype video or image", "none", "features")
        return index_of(NAME, (), None, finds)
    camera = _camera(cameras, options.camera)
    others = [other for other in cameras if other is not camera]
    if others and not options.camera:
        there = ", ".join(printable(other.key) for other in others)
        finds.remarks.append(f"camera {printable(camera.key)} is taken; there is also {there}: choose with --camera")
    episodes = read_episodes(info, camera, files, finds)
    tasks = count_tasks(info, finds)
    if tasks > 1:
        finds.remarks.append(f"{tasks} tasks in words, which are not used")
    _compare(info, episodes, finds)
    for top in sorted(info.folders - {"meta"}):
        files.update(_files(top, finds))
    widths, names, chosen = _condition(info.features)
    if names and not chosen:
        known = " or ".join(keys[0] for keys in USUAL.values())
        finds.warnings.append(f"no feature is called {known}: all numbers are taken; choose with --columns")
    native = camera.size or (1, 1)
    source = Source(folder, camera.key, camera.kind == "video", not info.three, native, info.file.fps, widths, names)
    absent: dict[str, list[int]] = {}
    for episode in episodes:
        for path in {episode.data, episode.video} - files - {""}:
            absent.setdefault(path, []).append(episode.index)
    clips = [_clip(info, source, episode, absent) for episode in episodes]
    if not clips and not finds.faults:
        finds.fault(folder / "meta", "episodes", "none")
    left = [f for f in info.features if not f.kind and f.key not in BOOKKEEPING]
    if left:
        finds.remarks.append(f"features not used: {', '.join(f'{printable(f.key)} ({f.words})' for f in left)}")
    finds.ignored += _unexpected_files(files, info, episodes, others)
    finds.ignored += _unexpected_outside(info, finds)
    return index_of(
        NAME, clips, native, finds, "vector" if names else "none", names, chosen, 1, info.file.fps, ("state.*",)
    )


def _clip(info: Info, source: Source, episode: Episode, absent: Mapping[str, Sequence[int]]) -> SourceClip:
    """One episode. absent: files that are not there, or not plain files inside the dataset, with their episodes."""
    faults = []
    for path in (episode.data, episode.video):
        if path in absent:
            several = len(absent[path]) > 1
            where = f"episode{'s' * several} {runs(absent[path])}"
            expected = "the file of these episodes" if several else "the file of this episode"
            found = "a folder" if safely((source.root / path).is_dir) else "no such file"
            faults.append(Fault(path, where, expected, found))
    frames, rows = reads_of(EpisodeReader(source, episode))
    if faults:  # nothing of it is opened: it may be a pipe, or a link that leads out
        frames, rows = partial(_zeros, np.uint8, (*source.native, 3)), partial(_zeros, np.float32, (len(source.names),))
    split = ""
    if info.splits:
        split = next((name for name, (a, b) in info.splits.items() if a <= episode.index < b), "")
        if not split:
            where = f"splits, episode {episode.index}"
            faults.append(Fault("meta/info.json", where, "a split that holds it", "none"))
    name, file, beside = f"episode_{episode.index:06d}", episode.video or episode.data, rows if source.widths else None
    return SourceClip(name, split, episode.length, frames, beside, tuple(faults), file=file)


def _zeros(kind: type[np.generic], shape: tuple[int, ...], start: int, stop: int) -> RawChunk:
    return RawChunk(np.zeros((stop - start, *shape), kind))


def _camera(cameras: Sequence[Feature], wanted: str) -> Feature:
    """The camera of this name, or by the last part of its name; the first where none is asked for."""
    if not wanted:
        return cameras[0]
    ends = {camera.key: camera.key.rpartition(".")[2] for camera in cameras}
    found = [camera for camera in cameras if camera.key == wanted]
    found = found or [camera for camera in cameras if ends[camera.key] == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        there = " or ".join(printable(camera.key) for camera in found)
        raise UsageError(f"camera: '{wanted}' may be {there}; give the whole name")
    near = sorted(ends, key=lambda key: -SequenceMatcher(None, wanted, ends[key]).ratio())
    there = ", ".join(map(printable, near))
    raise UsageError(f"camera: expected one of {there}, got '{wanted}'{nearest(wanted, ends.values())}")


def _condition(features: Sequence[Feature]) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """{feature: how many numbers}, the action and the state first; the names of all; patterns of those chosen."""
    numeric = [feature for feature in features if feature.kind == "numbers" and feature.key not in BOOKKEEPING]
    known = {feature.key: feature for feature in numeric}
    best = {name: next((known[key] for key in keys if key in known), None) for name, keys in USUAL.items()}
    usual = {name: feature for name, feature in best.items() if feature is not None}
    columns = [*usual.values(), *(feature for feature in numeric if feature not in usual.values())]
    names = tuple(_named(columns, {feature.key: name for name, feature in usual.items()}))
    chosen = _chosen(names, {name: len(feature.names) for name, feature in usual.items()})
    return {feature.key: len(feature.names) for feature in columns}, names, chosen


def _named(columns: Sequence[Feature], prefixes: Mapping[str, str]) -> Iterator[str]:
    """A name for each number: action.x, state.x, FEATURE.x; FEATURE alone for one without a name. None comes twice."""
    taken: set[str] = set()
    for feature in columns:
        prefix = prefixes.get(feature.key)
        for inner in feature.names:
            alone = not prefix and feature.names == ("0",)
            name = base = printable(feature.key) if alone else f"{prefix or printable(feature.key)}.{inner}"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            taken.add(name)
            yield name


def _chosen(names: Sequence[str], widths: Mapping[str, int]) -> tuple[str, ...]:
    """Patterns of the columns that come first; one for each, where a pattern would catch another feature's as well."""
    patterns = tuple(f"{name}.*" for name in widths)
    count = sum(widths.values())
    if any(fnmatchcase(name, pattern) for name in names[count:] for pattern in patterns):
        return tuple(escape(name) for name in names[:count])
    return patterns


def _compare(info: Info, episodes: Sequence[Episode], finds: Findings) -> None:
    """What is listed against what meta/info.json says there is in all: less of it is a note, more is a fault."""
    path, stated, in_all = finds.root / "meta" / "info.json", info.file.total_episodes, info.file.total_frames
    frames = sum(episode.length for episode in episodes)
    last = max((episode.index for episode in episodes), default=-1)
    if len(episodes) > stated or last >= stated:
        ends = f"{len(episodes)} or more, as meta lists" if len(episodes) > stated else f"over {last}"
        finds.fault(path, ends, f"{stated}", "total_episodes")
    elif len(episodes) < stated and episodes:
        finds.remarks.append(f"{len(episodes)} of {stated} episodes are here")
    if frames > in_all:
        finds.fault(path, f"{frames} or more, as the lengths of episodes make", f"{in_all}", "total_frames")
    elif len(episodes) == stated and frames < in_all:
        words = f"total_frames is {in_all}, but the lengths of all episodes make {frames}"
        finds.warnings.append(f"meta/info.json: {words}")


def _files(top: str, finds: Findings) -> Iterator[str]:
    if may_enter(finds.root / top, finds):
        for folder, names in walk(finds.root / top, finds):
            below = "/".join(folder.relative_to(finds.root).parts)
            yield from (f"{below}/{name}" for name in names)


def _unexpected_files(files: set[str], info: Info, episodes: Sequence[Episode], others: Sequence[Feature]) -> list[str]:
    """Files in data/, videos/ and meta/ that belong neither to an episode that is listed nor to another camera."""
    used = {path for episode in episodes for path in (episode.data, episode.video)}
    used |= {path for path in files if EPISODES_FILE.fullmatch(path)} | _META_V3 if info.three else _META
    left = [path for path in sorted(files - used) if not any(f"/{other.key}/" in path for other in others)]
    return [printable(path) for path in left]


def _unexpected_outside(info: Info, finds: Findings) -> list[str]:
    """Files beside data/, videos/ and meta/, and folders, but for images/, where pictures of tables may lie."""
    files, folders = listing(finds.root, finds)
    known = {"meta", "images", *info.folders}
    return [printable(name) for name in files] + [f"{printable(name)}/" for name in folders if name not in known]


def example(folder: Path) -> None:
    """Write a tiny dataset, v3.0: twelve episodes of 8 to 12 frames, pictures 16x16 in two data files."""
    pa, pq = load_pyarrow()
    lengths = [8 + episode % 5 for episode in range(12)]
    for name in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    first, rows = 0, list[dict[str, Any]]()
    for file, half in enumerate((range(6), range(6, 12))):
        frames = []
        for episode in half:
            frames += [_example_row(episode, frame, first + frame) for frame in range(lengths[episode])]
            place = {"data/chunk_index": 0, "data/file_index": file, "dataset_from_index": first}
            first += lengths[episode]
            rows.append({"episode_index": episode, "tasks": ["Push the square."], "length": lengths[episode], **place})
            rows[-1]["dataset_to_index"] = first
        table = pa.Table.from_pylist(frames, _example_schema(pa))
        pq.write_table(table, str(folder / f"data/chunk-000/file-{file:03d}.parquet"), row_group_size=32)
    pq.write_table(pa.Table.from_pylist(rows), str(folder / "meta/episodes/chunk-000/file-000.parquet"))
    tasks = pa.table({"task_index": [0], "__index_level_0__": ["Push the square."]})
    pq.write_table(tasks, str(folder / "meta/tasks.parquet"))
    numbers = {"dtype": "float32", "names": ["x", "y"], "shape": [2]}
    index = {"dtype": "int64", "names": None, "shape": [1]}
    features = {
        "observation.images.top": {"dtype": "image", "shape": [16, 16, 3], "names": ["height", "width", "channels"]},
        "observation.state": numbers,
        "action": numbers,
        "timestamp": {**index, "dtype": "float32"},
        **dict.fromkeys(BOOKKEEPING[1:], index),
    }
    info = {
        "codebase_version": "v3.0",
        "robot_type": "square",
        "total_episodes": len(lengths),
        "total_frames": first,
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": features,
    }
    for name, value in (("info", info), ("stats", {"action": {"count": [first]}})):
        (folder / f"meta/{name}.json").write_text(json.dumps(value, indent=4) + "\n")


def _example_row(episode: int, frame: int, index: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(example_picture(frame + episode, 16, 16, episode % 4)).save(stream, format="PNG")
    state = [float(np.sin(episode + frame / 5)), float(np.cos(episode + frame / 5))]
    return {
        "observation.images.top": {"bytes": stream.getvalue(), "path": f"frame-{frame:06d}.png"},
        "observation.state": state,
        "action": [0.1 * frame, float(episode)],
        "timestamp": frame / 10,
        "frame_index": frame,
        "episode_index": episode,
        "index": index,
        "task_index": 0,
    }


def _example_schema(pa: Any) -> Any:
    """Types as LeRobot writes them: lists of a fixed width, 32-bit numbers, pictures as bytes beside a path."""
    pair = pa.list_(pa.float32(), 2)
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"observation.images.top": picture, "observation.state": pair, "action": pair, "timestamp": pa.float32()}
    return pa.schema({**kinds, **dict.fromkeys(BOOKKEEPING[1:], pa.int64())})
