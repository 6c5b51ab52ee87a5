"""What layouts of arrays (HDF5, .npz) have in common: finding their files, telling pictures by shape, columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import SPLIT_OF, Findings
from foreframe.data.layouts._shared import index_of, named_like_a_file, walk
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.errors import Fault, NumberFault, UsageError, nearest
from foreframe.video import MAX_SIDE
from foreframe.video.pixels import Size

T = TypeVar("T", bound=tuple[Any, ...])


def files_below(folder: Path, finds: Findings, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of these endings anywhere below a folder, in the order of their names; others are noted."""
    found: list[Path] = []
    for path, names in walk(folder, finds):
        known = len(found)
        for name in names:
            if Path(name).suffix.lower() in suffixes:
                found.append(path / name)
            else:
                finds.ignore(path, [name])
        if len(found) == known:
            named_like_a_file(path, suffixes, finds)
    return found


def split_of(path: Path, root: Path) -> str:
    """The split that the uppermost folder of a file is named for, or an empty string."""
    parts = path.relative_to(root).parts
    return SPLIT_OF.get(parts[0].lower(), "") if len(parts) > 1 else ""


@dataclass(frozen=True)
class Pictures:
    """Pictures by the shape of their array: (H, W), and the axis of 3 or 1 channels; None: grey without one."""

    size: Size
    axis: int | None

    def frames(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An array of this form as (T, H, W, 3); grey is repeated."""
        if self.axis is None:
            values = values[..., None]
        elif self.axis == 1:
            values = np.moveaxis(values, 1, -1)
        return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:3], 3)))


def pictures(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pictures | tuple[str, str]:
    """How an array holds pictures: (T, H, W, 3), (T, 3, H, W), (T, H, W, 1), (T, 1, H, W) or (T, H, W), uint8; or what
    would be expected, and what was found instead."""
    found = f"{dtype} of shape {shape}"
    if dtype != np.uint8:
        if dtype.kind == "f" and len(shape) in (3, 4):
            advice = "; scale them to 0 to 255, round, and save them as uint8"
            return f"pictures as uint8, so that no scale is guessed{advice}", found
        return "pictures as uint8 (T, H, W, 3)", found
    if len(shape) == 4 and shape[3] in (3, 1):
        size, axis = (shape[1], shape[2]), 3
    elif len(shape) == 4 and shape[1] in (3, 1):
        size, axis = (shape[2], shape[3]), 1
    elif len(shape) == 3:
        size, axis = (shape[1], shape[2]), None
    else:
        return "pictures as uint8 (T, H, W, 3)", found
    if not all(1 <= side <= MAX_SIDE for side in size):
        return f"1x1 to {MAX_SIDE}x{MAX_SIDE} pixels", f"{size[1]}x{size[0]}"
    return Pictures(size, axis)


def looks_like_pictures(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Pictures, or what somebody meant to be pictures, but of float or with an alpha channel."""
    channels = {shape[1], shape[3]} if len(shape) == 4 else set()
    return 3 in channels or (dtype == np.uint8 and bool({1, 4} & channels))


@dataclass(frozen=True)
class Camera:
    """The array that holds the pictures of a camera, its rows, and their form, or what is wrong with it."""

    array: str
    length: int
    form: Pictures | tuple[str, str]


@dataclass(frozen=True)
class Recording:
    """An episode, or a file of several, by the headers of its arrays.

    group: the place of the episode in its file. groups: the array of each group of columns, its rows and its width.
    others: names of what is not used.
    """

    path: Path
    shown: str
    split: str
    cameras: Mapping[str, Camera]
    groups: Mapping[str, tuple[str, int, int]]
    others: tuple[str, ...]
    faults: tuple[Fault, ...]
    group: str = ""

    @property
    def widths(self) -> dict[str, int]:
        return {group: width for group, (_, _, width) in self.groups.items()}

    def other_width(self, widths: Mapping[str, int]) -> list[Fault]:
        """The first group that has another width than in most files, as a fault."""
        for group, width in widths.items():
            array, _, found = self.groups.get(group, ("", 0, 0))
            if found != width:
                expected = f"{group} of {width} numbers, as in most files"
                return [Fault(self.shown, array, expected, str(found) if found else f"no {group}")]
        return []


R = TypeVar("R", bound=Recording)


def find_camera(
    found: Sequence[Recording], option: str, names: Sequence[str], preferred: Sequence[str], what: str, finds: Findings
) -> str:
    """The camera that was asked for, else of those that most recordings have, the first preferred or first by name.

    option: as the user gave it; names: what it may mean. what: the recordings, in a word.
    """
    usable = Counter(name for item in found for name, cam in item.cameras.items() if isinstance(cam.form, Pictures))
    cameras = usable or Counter(name for item in found for name in item.cameras)
    if option:
        camera = next((name for name in names if name in cameras), names[0])
        if cameras and camera not in cameras:
            there = ", ".join(sorted(cameras))
            raise UsageError(f"camera: no {what} has '{option}'{nearest(names[0], cameras)} (there is {there})")
    else:
        most = max(cameras.values(), default=0)
        usual = sorted(name for name, number in cameras.items() if 2 * number > most)
        camera = next((name for name in (*preferred, *usual) if name in usual), preferred[0])
    if len(usable) > 1:
        there = ", ".join(sorted({*usable} - {camera}))
        finds.remarks.append(f"pictures of {camera}; also there: {there} (--camera)")
    return camera


def commonest(items: Iterable[T]) -> T | None:
    """The commonest of some tuples, of equals the largest; None of none."""
    counts = Counter(items)
    return max(counts, key=lambda item: (counts[item], item)) if counts else None


def index_of_arrays(
    layout: str,
    found: Sequence[R],
    camera: str,
    clips_of: Callable[[R, Mapping[str, int], tuple[str, ...]], Iterable[SourceClip]],
    looks_for: str,
    finds: Findings,
) -> SourceIndex:
    """The clips of recordings with the columns that they share; their actions are the condition.

    clips_of: makes them, given the width of each group of columns and the names of all columns.
    """
    actions = {group for item in found for group in item.groups if group.split(".")[0] == "action"}
    widths, left = shared_columns([item.widths for item in found if not item.faults], actions)
    names = columns(widths)
    clips = [clip for item in found for clip in clips_of(item, widths, names)]
    if not clips and not finds.faults:
        finds.fault(finds.root, looks_for, "none")
    finds.remarks += left
    cameras = (item.cameras[camera].form for item in found if camera in item.cameras)
    size = commonest(form.size for form in cameras if isinstance(form, Pictures))
    chosen = ("action.*",) if actions & {*widths} else ()
    measured = tuple(f"{group}.*" for group in widths if group.split(".")[0] != "action")
    return index_of(layout, clips, size, finds, "vector" if names else "none", names, chosen, 1, measured=measured)


def columns(widths: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the columns of groups of numbers: {"action": 2} gives action.0 and action.1."""
    return tuple(f"{group}.{number}" for group, width in widths.items() for number in range(width))


def shared_columns(found: Sequence[Mapping[str, int]], needed: Collection[str]) -> tuple[dict[str, int], list[str]]:
    """Groups of columns that all clips have alike, with their widths, and notes on those that had to be left out.

    found: the widths of each clip. needed: groups of which the commonest width is taken; clips with another are at
    fault.
    """
    names = list(dict.fromkeys(name for widths in found for name in widths))
    shared: dict[str, int] = {}
    notes = []
    for name in names:
        counts = Counter(widths.get(name, 0) for widths in found)
        usual = max(counts, key=lambda width: (counts[width], width))
        if name in needed and usual:
            shared[name] = usual
        elif len(counts) == 1:
            shared[name] = next(iter(counts))
        else:
            kinds = ", ".join(f"{width or 'no'} in {number}" for width, number in sorted(counts.items()))
            notes.append(f"{name}: not used, for clips differ in how many numbers it has ({kinds})")
    return shared, notes


@dataclass(frozen=True)
class ArrayReader:
    """Reads a clip that lies in arrays of one file.

    opens: `open_file` or `open_npz`. arrays: (name, rows) of the arrays of numbers, side by side; `columns` names all
    of their numbers. image, form: the array of pictures. clip: which one it is, where a file has several. first: its
    row 0.
    """

    opens: Callable[[Path, str], Any]
    path: Path
    shown: str
    arrays: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    image: str = ""
    form: Pictures | tuple[str, str] = ("pictures", "none")
    clip: str = ""
    first: int = 0

    def frames(self, start: int, stop: int) -> RawChunk:
        """Pictures start to stop-1; black ones of one pixel where there are none, as the clip's faults say."""
        if not isinstance(self.form, Pictures):
            return RawChunk(np.zeros((stop - start, 1, 1, 3), np.uint8))
        file = self.opens(self.path, self.shown)
        return RawChunk(self.form.frames(file.read(self.image, self.first + start, self.first + stop)))

    def rows(self, start: int, stop: int) -> RawChunk:
        """All columns of frames start to stop-1; the last row of an array stands again where it has fewer."""
        file = self.opens(self.path, self.shown)
        parts = []
        for name, length in self.arrays:
            first = min(start, length - 1)
            values = file.read(name, first, min(stop, length))
            values = values.reshape(len(values), -1)
            parts.append(values[np.minimum(np.arange(start, stop), length - 1) - first])
        return finite_rows(np.concatenate(parts, axis=1), self.columns, start, self.shown, self.clip)


def finite_rows(values: NDArray[Any], names: Sequence[str], start: int, shown: str, clip: str = "") -> RawChunk:
    """Rows (T, D) of any numbers as float32. What is not finite, or too large, is a fault of its frame, one for each
    group of columns (what stands before the last dot of their names). start: the frame that row 0 belongs to."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = values.astype(np.float32)
    bad = ~np.isfinite(rows)
    faults = {}
    for index in np.flatnonzero(bad.any(axis=1)).tolist():
        wrong = []
        for _, same in groupby(np.flatnonzero(bad[index]).tolist(), key=lambda at: names[at].rpartition(".")[0]):
            at = tuple(same)
            more = f", and {len(at) - 1} more in this row" if len(at) > 1 else ""
            where = ", ".join(filter(None, (clip, f"frame {start + index}", names[at[0]])))
            found = f"{values[index, at[0]]}{more}"
            wrong.append(NumberFault(shown, where, "a finite number within float32", found, at))
        faults[index] = tuple(wrong)
    rows[bad] = 0
    return RawChunk(rows, faults)
