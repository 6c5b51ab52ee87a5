"""Frames and rows of one episode of a LeRobot dataset, checked row by row against what its meta folder says."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import relative
from foreframe.data.formats.images import each_picture, picture_size, size_of
from foreframe.data.formats.parquet import Table, holds_numbers, numbers, opened
from foreframe.data.layouts._shared import safely
from foreframe.data.layouts.contract import RawChunk
from foreframe.data.layouts.lerobot.files import MAX_ROWS
from foreframe.data.layouts.lerobot.meta import Episode, inside
from foreframe.errors import DataError, Fault, NumberFault, printable, unreadable
from foreframe.video import Pixels, decode_image, read_at, read_image
from foreframe.video.pixels import Size
from foreframe.video.stream import frame_rate

TIMES = ("timestamp", "frame_index", "episode_index")
TOLERANCE = 1e-4  # seconds by which a timestamp may differ from its place, beside the rounding of 32-bit numbers
MAX_TIME = 1e9
OFF = 0.1  # share by which the rate of a video may differ from that of the dataset
FEW = 3  # of more frames of a span that are at fault in one way, only the first is named, and the others counted


@dataclass(frozen=True)
class Source:
    """What all episodes of a dataset have in common.

    camera: the feature that holds the pictures, in videos if `video`. single: each episode has a data file of its own.
    widths: {feature: numbers in it} in the order of the columns. names: of all columns.
    """

    root: Path
    camera: str
    video: bool
    single: bool
    native: Size
    fps: float
    widths: Mapping[str, int]
    names: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*TIMES, *(name for name in self.widths if name not in TIMES))


@dataclass(frozen=True)
class EpisodeReader:
    """Reads one episode."""

    source: Source
    episode: Episode

    def frames(self, start: int, stop: int) -> RawChunk:
        """Pictures of frames start to stop-1, uint8 (T, H, W, 3), and what is wrong with them or their times.

        Raises DataError: a file cannot be read, does not hold the episode, or has pictures of another size.
        """
        times, faults = self._times(start, stop)
        good = [index for index in range(stop - start) if index not in faults]
        frames = np.zeros((stop - start, *self.source.native, 3), np.uint8)
        if self.source.video:
            found = self._from_video(start, {index: times[index] for index in good}, frames)
        else:
            found = self._from_parquet(start, stop, good, frames)
        _check_few(found)
        return RawChunk(frames, dict(sorted((faults | found).items())))

    def rows(self, start: int, stop: int) -> RawChunk:
        """The numbers beside frames start to stop-1, float32 (T, D), and what is wrong with them.

        Raises DataError: the data file cannot be read or does not hold the episode.
        """
        table, first = self._located()
        block = table.read(first + start, first + stop)
        values = np.zeros((stop - start, len(self.source.names)), np.float32)
        faults: dict[int, list[Fault]] = {}
        at = 0
        for feature, width in self.source.widths.items():
            found, wrong = numbers(block.column(feature), width)
            with np.errstate(over="ignore"):
                values[:, at : at + width] = found
            expected = "1 number" if width == 1 else f"{width} numbers"
            found_by_row = {i: self._fault(start + i, expected, words, feature) for i, words in wrong.items()}
            odd = {}
            finite = np.isfinite(values[:, at : at + width])
            for index in np.flatnonzero(~finite.all(1)).tolist():
                bad = at + np.flatnonzero(~finite[index])
                some = ", ".join(self.source.names[column] for column in bad[:3])
                more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
                odd[index] = self._fault(start + index, "finite numbers", str(values[index, bad[0]]), some + more)
            for index, fault in (*_few(found_by_row).items(), *_few(odd).items()):
                columns = tuple(range(at, at + width))
                fault = NumberFault(fault.path, fault.where, fault.expected, fault.found, columns)
                faults.setdefault(index, []).append(fault)
            at += width
        for index in faults:
            values[index] = 0
        return RawChunk(values, {index: tuple(faults[index]) for index in sorted(faults)})

    def _located(self) -> tuple[Table, int]:
        """The table that holds an episode, and the row of its first frame."""
        path = self.source.root / self.episode.data
        table = opened(path, self.source.columns)
        for name, kind in table.types.items():
            if not holds_numbers(kind):
                raise unreadable(self.episode.data, "", f"numbers in the column {name}", str(kind)[:80])
            width = self.source.widths.get(name, 1)
            if getattr(kind, "list_size", width) != width:
                expected = f"{width} numbers in each row of the column {name}"
                raise unreadable(self.episode.data, "", expected, f"{kind.list_size}")
        spans = _spans(path, table.rows, path.stat().st_mtime_ns)
        first, length, pieces = spans.get(self.episode.index, (0, 0, 0))
        where, data = f"episode {self.episode.index}", printable(self.episode.data)
        if not pieces:
            there = ", ".join(map(str, list(spans)[:5])) + ", ..." * (len(spans) > 5)
            found = f"none; episode_index is {there}" if spans else "an empty table"
            raise unreadable(data, where, f"{self.episode.length} rows of this episode", found)
        if length != self.episode.length or pieces > 1:
            expected = f"{self.episode.length} rows in one span, as meta says"
            raise unreadable(data, where, expected, f"{length}" + f" in {pieces} spans" * (pieces > 1))
        if self.source.single and len(spans) > 1:
            raise unreadable(data, where, "rows of this episode only", f"rows of {len(spans)} episodes")
        return table, first

    def _times(self, start: int, stop: int) -> tuple[NDArray[np.float64], dict[int, tuple[Fault, ...]]]:
        """Seconds of each frame by its timestamp, and the rows that are out of their place: neither a number of frames
        after 0, nor one frame after the timestamp before."""
        table, first = self._located()
        ahead = min(start, 1)
        block = table.read(first + start - ahead, first + stop)
        (times, no_time), (frames, no_frame) = (numbers(block.column(name), 1) for name in TIMES[:2])
        faults: dict[int, tuple[Fault, ...]] = {}
        for row in range(ahead, len(times)):
            index, number, time = row - ahead, row - ahead + start, float(times[row, 0])
            if row in no_frame or frames[row, 0] != number:
                found = no_frame.get(row) or f"{frames[row, 0]:g}"
                faults[index] = (self._fault(number, f"frame_index {number}", found),)
                continue
            steps = [number / self.source.fps] if number else [max(0.0, time)]  # max(0.0, nan) is 0.0
            if row and row - 1 not in no_time:
                steps.append(float(times[row - 1, 0]) + 1 / self.source.fps)
            slack = TOLERANCE + 2**-22 * abs(time)
            if row in no_time or not time < MAX_TIME or not any(abs(time - step) <= slack for step in steps):
                found = no_time.get(row) or f"{time:.6f}"
                faults[index] = (self._fault(number, f"timestamp {steps[0]:.6f}", found),)
        _check_few(faults)
        return times[ahead:, 0], faults

    def _from_video(self, first: int, times: Mapping[int, float], frames: Pixels) -> dict[int, tuple[Fault, ...]]:
        """Fill in the frames at `times` ({index: seconds into the episode}), and say which are not there."""
        if not times:
            return {}
        path = self.source.root / self.episode.video
        rate = _rate(path, path.stat().st_mtime_ns) if path.is_file() else None
        if rate is not None and abs(rate - self.source.fps) > OFF * self.source.fps:
            expected = f"{self.source.fps:g} frames a second as meta/info.json says"
            raise unreadable(self.episode.video, "", expected, f"{rate:g}")
        indices, wanted = list(times), [self.episode.start + time for time in times.values()]
        found, missing = read_at(path, wanted, 0.25 / self.source.fps)
        _check_size(self.source, self.episode.video, found.shape[1:3])
        frames[indices] = found
        faults: dict[int, tuple[Fault, ...]] = {}
        for place, (index, time) in enumerate(zip(indices, wanted, strict=True)):
            words = missing.get(place, "")
            if time + 0.5 / self.source.fps > self.episode.end:
                words = f"the end of the episode at {self.episode.end:.4f} s"  # the next one of the file begins there
            if words:
                where = f"episode {self.episode.index}, frame {first + index}"
                faults[index] = (Fault(self.episode.video, where, f"a frame at {time:.4f} s", words),)
                frames[index] = 0
        return faults

    def _from_parquet(self, start: int, stop: int, wanted: list[int], frames: Pixels) -> dict[int, tuple[Fault, ...]]:
        """Fill in the pictures that lie in the table itself, or below the root under a path that it gives."""
        _, first = self._located()
        table = opened(self.source.root / self.episode.data, (self.source.camera,))
        kind = table.types[self.source.camera]
        if not {"bytes", "path"} <= {kind.field(number).name for number in range(kind.num_fields)}:
            raise unreadable(
                self.episode.data, "", f"bytes and path in the column {self.source.camera}", str(kind)[:80]
            )
        cells = table.read(first + start, first + stop).column(self.source.camera)

        def read(index: int) -> Fault | None:
            try:
                picture = _picture(self.source, table.path, cells[index].as_py() or {})
            except DataError as error:
                inner = error.faults[0]
                path = relative(Path(inner.path), self.source.root) if inner.path else ""
                return self._fault(start + index, inner.expected, inner.found, self.source.camera, path)
            frames[index] = picture
            return None

        return each_picture(read, wanted, self.source.native)

    def _fault(self, frame: int, expected: str, found: str, column: str = "", path: str = "") -> Fault:
        where = ", ".join(filter(None, (f"episode {self.episode.index}", f"frame {frame}", column)))
        return Fault(path or self.episode.data, where, expected, found)


@lru_cache(maxsize=64)
def _rate(path: Path, changed: int) -> float | None:
    """Frames a second of a video that was last changed then."""
    return frame_rate(path)


@lru_cache(maxsize=4)
def _spans(path: Path, rows: int, changed: int) -> dict[int, tuple[int, int, int]]:
    """{episode: (its first row, number of its rows, number of spans they are in)} of a data file."""
    spans: dict[int, tuple[int, int, int]] = {}
    last, count = None, 0
    with Table(path, ("episode_index",)) as table:
        for first, block in table.blocks():
            found, wrong = numbers(block.column("episode_index"), 1)
            wrong |= {row: f"{found[row, 0]}" for row in np.flatnonzero(~np.isfinite(found[:, 0])).tolist()}
            if wrong:
                where = f"row {first + min(wrong) + 1}, episode_index"
                raise unreadable(str(path), where, "a number", wrong[min(wrong)])
            edges = np.flatnonzero(np.diff(found[:, 0])) + 1
            starts, ends = np.append(0, edges), np.append(edges, len(found))
            for start, end in zip(starts, ends, strict=True):
                number = int(found[start, 0])
                before, length, pieces = spans.get(number, (first + int(start), 0, 0))
                spans[number] = (before, length + int(end - start), pieces + (number != last))
                count += number != last
                last = number
            if count > MAX_ROWS:
                raise unreadable(str(path), "episode_index", f"at most {MAX_ROWS} spans of episodes", "more")
    return spans


def _picture(source: Source, table: Path, cell: Mapping[str, Any]) -> Pixels:
    """The picture in a cell of a table, or in the file that it names."""
    data, path = cell.get("bytes"), cell.get("path")
    if isinstance(data, bytes) and data:
        _check_claim(source, size_of(io.BytesIO(data)))
        picture = decode_image(data, table)
    elif isinstance(path, str) and path:
        file = source.root / path
        if not inside(path) or not safely(lambda: file.resolve().is_relative_to(source.root.resolve())):
            raise unreadable("", "", "a path that stays inside the dataset", f"'{path[:120]}'")
        if not safely(file.is_file):  # to open a pipe may take for ever
            raise unreadable(str(file), "", "a PNG or JPEG", "no such file, or not a plain one")
        _check_claim(source, picture_size(file))
        picture = read_image(file)
    else:
        raise unreadable("", "", "a picture", "nothing")
    _check_size(source, "", picture.shape[:2])
    return picture


def _check_claim(source: Source, size: Size | str) -> None:
    """Whether a picture has the right size by its header, before it is decoded, which reports what is no picture."""
    if isinstance(size, tuple):
        _check_size(source, "", size)


def _check_size(source: Source, path: str, size: tuple[int, ...]) -> None:
    if size != source.native:
        (height, width), (h, w) = source.native, size
        raise unreadable(path, "", f"{width}x{height} pixels as meta/info.json says", f"{w}x{h}")


def _few(faults: Mapping[int, Fault]) -> Mapping[int, Fault]:
    """What is wrong with rows, in few words: of many faults the first stands for all, and is reported once."""
    if len(faults) <= FEW:
        return faults
    first, *others = faults.values()
    found = f"{first.found}; and something like it in {len(others)} more frames"
    return dict.fromkeys(faults, replace(first, found=found))


def _check_few(faults: Mapping[int, tuple[Fault, ...]]) -> None:
    """DataError where most frames of a span are at fault."""
    if len(faults) > FEW:
        first, *_ = _few({index: found[0] for index, found in faults.items()}).values()
        raise DataError("this file cannot be read:", [first])
