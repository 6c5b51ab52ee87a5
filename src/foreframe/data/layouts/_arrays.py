"""What layouts of arrays (HDF5, .npz) have in common: finding their files, telling pictures by shape, columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import SPLIT_OF, Findings, relative
from foreframe.data.layouts._shared import named_like_a_file, walk
from foreframe.data.layouts.contract import RawChunk
from foreframe.errors import NumberFault
from foreframe.video import MAX_SIDE
from foreframe.video.pixels import Size


def files_below(folder: Path, finds: Findings, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of these endings anywhere below a folder, in the order of their names; others are noted."""
    found: list[Path] = []
    for path, names in walk(folder, finds):
        known = len(found)
        for name in names:
            if Path(name).suffix.lower() in suffixes:
                found.append(path / name)
            else:
                finds.ignored.append(relative(path / name, finds.root))
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
    """How an array holds pictures: (T, H, W, 3), (T, 3, H, W), (T, H, W, 1), (T, 1, H, W) or (T, H, W), uint8.

    Where it does not: what would be expected, and what was found instead.
    """
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


def usual_camera(cameras: Mapping[str, int], preferred: Sequence[str]) -> str:
    """Of the cameras that most clips have: the first of the preferred ones, or the first by name.

    cameras: in how many clips there is each.
    """
    most = max(cameras.values(), default=0)
    usual = sorted(name for name, number in cameras.items() if 2 * number > most)
    return next((name for name in (*preferred, *usual) if name in usual), preferred[0])


def columns(widths: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the columns of groups of numbers: {"action": 2} gives action.0 and action.1."""
    return tuple(f"{group}.{number}" for group, width in widths.items() for number in range(width))


def shared_columns(found: Sequence[Mapping[str, int]], needed: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Groups of columns that all clips have alike, with their widths, and notes on those that had to be left out.

    found: the widths of each clip. needed: groups that are not left out unless most clips are without: their commonest
    width is taken, and clips that have another are at fault.
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
    return shared, tuple(notes)


def no_frames(start: int, stop: int) -> RawChunk:
    """Black frames of one pixel in the place of what cannot be read, for a clip whose faults say so already."""
    return RawChunk(np.zeros((stop - start, 1, 1, 3), np.uint8))


@dataclass(frozen=True)
class ArrayReader:
    """Reads a clip that lies in arrays of one file.

    opens: `open_file` or `open_npz`. shown: its path for messages. pictures: name and form of the array of pictures.
    arrays: (name, rows) of the arrays of numbers, side by side; `columns` names all of their numbers. clip: which one
    it is, where a file has several. first: the row of all arrays that belongs to frame 0.
    """

    opens: Callable[[Path, str], Any]
    path: Path
    shown: str
    pictures: tuple[str, Pictures]
    arrays: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    clip: str = ""
    first: int = 0

    def frames(self, start: int, stop: int) -> RawChunk:
        """Pictures start to stop-1."""
        name, form = self.pictures
        return RawChunk(
            form.frames(self.opens(self.path, self.shown).read(name, self.first + start, self.first + stop))
        )

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
    """Rows (T, D) of any numbers as float32; what is not finite, or too large, is a fault of its frame, one for each
    group of columns (what stands before the last dot of their names).

    names: of the D columns. start: the frame that row 0 belongs to. clip: which one it is, where a file has several.
    """
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
