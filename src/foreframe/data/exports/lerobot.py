"""LeRobotDataset v3.0 with lossless pictures, as Hugging Face's LeRobot reads it.

    DST/meta/info.json                             shapes, names, frames a second, which episodes are in which split
        meta/stats.json                            of each feature: least, largest, mean, deviation, count, quantiles
        meta/tasks.parquet                         one task
        meta/episodes/chunk-000/file-000.parquet   a row for each episode: where it lies, and its own statistics
        data/chunk-000/file-000.parquet            a row for each frame, pictures as PNG; files of about 100 MB

Features: `observation.images.main`, `observation.images.pose` where a picture leads into each frame; of numbers, those
whose name begins with `state.` or `position` are `observation.state`, the others `action`. An action in row t is given
at frame t and leads into frame t+1, so it is cond[t+1]; the last row, which leads to a frame that is not there, repeats
the one before. The pose in row t belongs to frame t.

Facts about the format: the source of lerobot 0.4.4, whose own data sets have the same columns and metadata.
"""

from __future__ import annotations

import io
import json
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foreframe.data.exports import Tick
from foreframe.data.exports._recorded import check_form, lost, ordered, pieces, rows, threads
from foreframe.data.exports._statistics import STATISTICS, Stats, histogram, of_columns, of_pixels, of_rows
from foreframe.data.formats.parquet import load_pyarrow
from foreframe.data.pack.pack import Episode, Pack

NAME = "lerobot"
DESCRIBE = "LeRobotDataset v3.0 with lossless pictures, for Hugging Face's LeRobot"

FILE_BYTES = 100 * 2**20
"""A parquet file gets no further episode beyond this size."""
GROUP_BYTES = 2**23
"""Rows are written together once they take this many bytes."""
CHUNK_FILES = 1000
"""Files in a folder chunk-000."""
EPISODES_AT_ONCE = 500
"""Rows of meta/episodes that are written together."""
DEFAULT_FPS = 10.0
"""Where the pack knows none."""
TASK = "not described"
"""The one task, which every frame must have."""

MAIN, POSE, STATE, ACTION = "observation.images.main", "observation.images.pose", "observation.state", "action"
FIXED = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"
}  # fmt: skip


@dataclass(frozen=True)
class _Numbers:
    """Some of the numbers of a condition as one feature: which, what they are called, and how they stand in rows."""

    columns: tuple[int, ...]
    names: tuple[str, ...]
    shift: int

    def rows(self, pack: Pack, episode: Episode, start: int, stop: int) -> NDArray[np.float32]:
        return rows(pack, episode, start, stop, self.shift)[:, list(self.columns)]


def write(pack: Pack, dst: Path, tick: Tick) -> list[str]:
    """Write all clips of a pack as episodes; see `foreframe.data.exports`.

    Memory: a piece of an episode, its numbers, and for statistics one number of every frame of the pack.

    Raises:
        UsageError: pyarrow is missing; the pack's pictures are neither RGB nor grey.
    """
    check_form(pack, NAME, any_split=True)
    pa, parquet = load_pyarrow()
    fps = pack.fps or DEFAULT_FPS
    numbers = _numbers(pack)
    features = _features(pack, numbers)
    episodes = ordered(pack)
    pictures = [key for key, feature in features.items() if feature["dtype"] == "image"]
    totals = {key: np.zeros((3, 256), np.int64) for key in pictures}
    first = 0
    with (
        _Files(pa, parquet, dst / "data", _data_schema(pa, features)) as data,
        _Files(pa, parquet, dst / "meta/episodes", _episode_schema(pa, features)) as meta,
        threads() as pool,
    ):
        waiting: list[dict[str, Any]] = []
        for number, episode in enumerate(episodes):
            place = data.place(episode.length)
            fixed = _fixed(number, first, episode, fps)
            counts = {key: np.zeros((3, 256), np.int64) for key in pictures}
            for start, stop in pieces(pack, episode):
                shown = _pictures(pack, episode, start, stop)
                encoded = {key: pool.map(_png, values) for key, values in shown.items()}
                columns: dict[str, Any] = {}
                for key, values in shown.items():
                    counts[key] += histogram(values)
                    pngs = enumerate(encoded[key], start)
                    columns[key] = [{"bytes": png, "path": f"frame-{index:06d}.png"} for index, png in pngs]
                columns |= {key: _column(pa, item.rows(pack, episode, start, stop)) for key, item in numbers.items()}
                columns |= {key: values[start:stop] for key, values in fixed.items()}
                data.write(pa.table({key: columns[key] for key in features}, data.schema))
                tick(stop - start)
            stats = {key: of_pixels(count, episode.length) for key, count in counts.items()}
            beside = {key: item.rows(pack, episode, 0, episode.length) for key, item in numbers.items()}
            stats |= of_columns(beside | {key: values[:, None] for key, values in fixed.items()})
            waiting.append(_episode(number, first, episode, place, stats))
            if len(waiting) == EPISODES_AT_ONCE or number == len(episodes) - 1:
                _write_episodes(pa, meta, waiting)
                waiting = []
            for key in pictures:
                totals[key] += counts[key]
            first += episode.length
    parquet.write_table(_tasks(pa), dst / "meta/tasks.parquet")
    _write_json(dst / "meta/stats.json", _total_stats(pack, numbers, totals, episodes, fps))
    _write_json(dst / "meta/info.json", _info(pack, features, episodes, fps))
    return _notes(pack, numbers)


class _Files(AbstractContextManager["_Files"]):
    """Parquet files chunk-000/file-000.parquet, ...: a new one once the next rows would make one too large."""

    def __init__(self, pa: Any, parquet: Any, folder: Path, schema: Any) -> None:
        self.folder, self.schema = folder, schema
        self._pa, self._parquet = pa, parquet
        self._number = -1
        self._rows = 0
        self._waiting: list[Any] = []  # tables that will be one group of rows
        self._waiting_bytes = 0
        self._sink: Any = None
        self._writer: Any = None

    def place(self, length: int) -> tuple[int, int]:
        """(chunk, file) in which the next `length` rows will lie; all of them go there."""
        size = self._sink.tell() + self._waiting_bytes if self._sink is not None else 0
        if self._sink is None or (self._rows and size + size / self._rows * length > FILE_BYTES):
            self._finish()
            self._number += 1
            path = self.folder / f"chunk-{self.index[0]:03d}" / f"file-{self.index[1]:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink, self._writer = path.open("wb"), None
            self._writer = self._parquet.ParquetWriter(self._sink, self.schema, write_page_checksum=True)
            self._rows = 0
        return self.index

    @property
    def index(self) -> tuple[int, int]:
        return divmod(self._number, CHUNK_FILES)

    def write(self, table: Any) -> None:
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        self._rows += table.num_rows
        if self._waiting_bytes > GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._pa.concat_tables(self._waiting))
            self._waiting, self._waiting_bytes = [], 0

    def _finish(self) -> None:
        """Write what is left of the file that is open."""
        if self._sink is not None:
            self._flush()
            self._writer.close()
            self._sink.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._writer is not None:
                self._writer.is_open = False  # its destructor would continue to write
            if self._sink is not None:
                with suppress(OSError):
                    self._sink.close()


def _numbers(pack: Pack) -> dict[str, _Numbers]:
    """Which numbers of a condition are states and which are actions; neither for a pack without numbers."""
    if pack.spec.cond != "vector":
        return {}
    found: dict[str, _Numbers] = {}
    states = {column for column, name in enumerate(pack.cond_names) if name in pack.manifest.measured_columns}
    # A state belongs to its frame, wherever the import put it; an action leads into the next one.
    for key, shift in ((STATE, pack.manifest.shift), (ACTION, 1)):
        columns = tuple(column for column in range(pack.spec.cond_size) if (column in states) == (key == STATE))
        full = tuple(pack.cond_names[column] for column in columns)
        short = tuple(name.removeprefix("state.").removeprefix("action.") for name in full)
        if columns:
            found[key] = _Numbers(columns, short if len(set(short)) == len(short) else full, shift)
    return found


def _features(pack: Pack, numbers: dict[str, _Numbers]) -> dict[str, dict[str, Any]]:
    """The entries of info.json, in the order of the columns."""
    shape = [pack.spec.height, pack.spec.width, 3]
    picture = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
    features: dict[str, dict[str, Any]] = {MAIN: picture}
    if pack.spec.cond == "image":
        features[POSE] = picture
    for key, chosen in numbers.items():
        features[key] = {"dtype": "float32", "shape": [len(chosen.columns)], "names": [*chosen.names]}
    return features | {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in FIXED.items()}


def _fixed(number: int, first: int, episode: Episode, fps: float) -> dict[str, NDArray[Any]]:
    """The columns that every data set has, of one episode whose first frame is row `first` of all."""
    index = np.arange(episode.length)
    return {
        "timestamp": (index / fps).astype(np.float32),
        "frame_index": index,
        "episode_index": np.full(episode.length, number),
        "index": first + index,
        "task_index": np.zeros(episode.length, np.int64),
    }


def _pictures(pack: Pack, episode: Episode, start: int, stop: int) -> dict[str, NDArray[np.uint8]]:
    """RGB pictures (T, H, W, 3) of some frames, for each feature that is one."""
    frames, cond = pack.read(episode, start, stop - start)
    shown = {MAIN: frames if pack.spec.channels == 3 else frames.repeat(3, axis=3)}
    if pack.spec.cond == "image" and cond is not None:
        shown[POSE] = cond
    return shown


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=4)  # as small as level 6, and quicker
    return buffer.getvalue()


def _column(pa: Any, values: NDArray[np.float32]) -> Any:
    """Rows (T, D) as a column of lists; of plain numbers where D is 1, as LeRobot has it."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _data_schema(pa: Any, features: dict[str, dict[str, Any]]) -> Any:
    """Columns of data/, with the `huggingface` metadata by which `datasets` knows pictures from bytes."""
    fields: list[Any] = []
    known: dict[str, Any] = {}
    for key, feature in features.items():
        if feature["dtype"] == "image":
            kind, known[key] = pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}
        else:
            value: dict[str, Any] = {"dtype": feature["dtype"], "_type": "Value"}
            kind, known[key] = pa.type_for_alias(feature["dtype"]), value
            if feature["shape"] != [1]:
                kind = pa.list_(kind, feature["shape"][0])
                known[key] = {"feature": value, "length": feature["shape"][0], "_type": "Sequence"}
        fields.append(pa.field(key, kind))
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": known}})})


def _episode_schema(pa: Any, features: dict[str, dict[str, Any]]) -> Any:
    """Columns of meta/episodes."""
    whole, real = pa.int64(), pa.float64()
    names = ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
    fields = [("episode_index", whole), ("tasks", pa.list_(pa.string())), ("length", whole)]
    fields += [*((name, whole) for name in names), ("name", pa.string())]
    for key, feature in features.items():
        for name in STATISTICS:
            kind = pa.list_(real)
            if name == "count" or (feature["dtype"] == "int64" and name in ("min", "max")):
                kind = pa.list_(whole)
            elif feature["dtype"] == "image":
                kind = pa.list_(pa.list_(kind))
            fields.append((f"stats/{key}/{name}", kind))
    return pa.schema([*fields, ("meta/episodes/chunk_index", whole), ("meta/episodes/file_index", whole)])


def _episode(
    number: int, first: int, episode: Episode, place: tuple[int, int], stats: dict[str, Stats]
) -> dict[str, Any]:
    """A row of meta/episodes, but for where it lies itself."""
    return {
        "episode_index": number,
        "tasks": [TASK],
        "length": episode.length,
        "data/chunk_index": place[0],
        "data/file_index": place[1],
        "dataset_from_index": first,
        "dataset_to_index": first + episode.length,
        "name": episode.name,
        **{f"stats/{key}/{name}": value for key, own in stats.items() for name, value in own.items()},
    }


def _write_episodes(pa: Any, meta: _Files, waiting: list[dict[str, Any]]) -> None:
    chunk, file = meta.place(len(waiting))
    here = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
    meta.write(pa.Table.from_pylist([episode | here for episode in waiting], meta.schema))


def _tasks(pa: Any) -> Any:
    """The table of tasks as pandas would write it: their text is the index."""
    index = "__index_level_0__"
    text: dict[str, Any] = {"name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    described = {
        "index_columns": [index],
        "column_indexes": [{**text, "field_name": None, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {**text, "name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {**text, "field_name": index},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    fields = [("task_index", pa.int64()), (index, pa.string())]
    schema = pa.schema(fields, {"pandas": json.dumps(described)})
    return pa.table({"task_index": [0], index: [TASK]}, schema)


def _info(pack: Pack, features: dict[str, dict[str, Any]], episodes: list[Episode], fps: float) -> dict[str, Any]:
    splits: dict[str, str] = {}
    for number, episode in enumerate(episodes):
        begin = splits.get(episode.split, f"{number}:").split(":")[0]
        splits[episode.split] = f"{begin}:{number + 1}"
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": len(pack.frames),
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": FILE_BYTES // 2**20,
        "video_files_size_in_mb": 200,
        "fps": int(fps) if fps == int(fps) else fps,
        "splits": splits,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": features,
    }


def _total_stats(
    pack: Pack, numbers: dict[str, _Numbers], counts: dict[str, NDArray[np.int64]], episodes: list[Episode], fps: float
) -> dict[str, Stats]:
    """Statistics of each feature over everything, one number after another."""
    total = len(pack.frames)
    stats = {key: of_pixels(count, total) for key, count in counts.items()}
    for key, chosen in numbers.items():
        assert pack.cond is not None
        taken = np.concatenate([
            item.start + np.clip(np.arange(item.length) + chosen.shift, 0, item.length - 1) for item in episodes
        ])  # fmt: skip
        each = [of_rows(pack.cond[taken, column][:, None]) for column in chosen.columns]
        stats[key] = {name: [column[name][0] for column in each] for name in each[0]} | {"count": [total]}
    for key in FIXED:
        first, parts = 0, []
        for number, episode in enumerate(episodes):
            parts.append(_fixed(number, first, episode, fps)[key])
            first += episode.length
        stats[key] = of_rows(np.concatenate(parts)[:, None])
    return stats


def _notes(pack: Pack, numbers: dict[str, _Numbers]) -> list[str]:
    """What is not in the data set as it was in the pack, or will not come back by itself."""
    notes = []
    if pack.spec.channels == 1:
        notes.append("grey pictures are written as RGB")
    if pack.spec.cond == "image":
        notes.append(f"{POSE} is a second camera here; an import takes one camera, and no pictures as a condition")
    if pack.fps is None:
        notes.append(f"frames a second: the pack does not know; {DEFAULT_FPS:g} written")
    if STATE in numbers and pack.manifest.shift != 1:
        notes.append(
            f"states stand beside their frame as recorded: cond[t{pack.manifest.shift:+d}]; actions: cond[t+1]"
        )
    order = [column for key in (ACTION, STATE) if key in numbers for column in numbers[key].columns]
    if order != sorted(order):
        notes.append("an import has the actions first and the states after them, which is another order than here")
    led = [column for chosen in numbers.values() if chosen.shift > 0 for column in chosen.columns]
    return [*notes, *lost(pack, led)]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
