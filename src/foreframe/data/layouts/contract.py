"""What a layout finds in a folder of somebody's clips, before any of it is shaped and packed.

A layout is one file in `foreframe/data/layouts/` with

    NAME: str                                   as given to --layout
    DESCRIBE: str                               one line for help texts
    LOOKS_FOR: str                              the paths by which it knows its folders, for error messages
    TAKES: tuple[str, ...]                      which of the options camera, cuts and count it understands
    recognises(folder: Path) -> bool            a quick look; never raises
    survey(folder: Path, options: Options) -> Survey
    example(folder: Path) -> None               writes a tiny source of this layout without fault

`survey` looks at names, headers and tables; pixels are read piece by piece, through `SourceClip.frames`. A layout
hands everything out as it was recorded: at its own size, and with row t of the conditions beside frame t. Sizes,
columns, shifts, strides, windows and splits are the same for all layouts and are applied in `shaping`. The contract
tests find each layout by its file and try it on its own example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import CondKind
from foreframe.data.formats.images import Fit
from foreframe.errors import Fault
from foreframe.video.pixels import Size

Between = Literal["join", "last"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Options:
    """What a user may decide about an import.

    For every source:
    size: (H, W) to bring every picture to; None leaves it to the source.
    fit: how, where that changes the shape of a picture: stretch it, crop its middle, or pad it with black.
    stride: keep every so many-th frame.
    between: with a stride, what becomes of the conditions of the frames left out: joined to one long row, or only the
        last is kept.
    window: cut clips into pieces of this many frames (counted after the stride); 0 leaves them whole.
    shares: of train, val and test, drawn by the hash of each clip's name; None keeps the source's own.
    lists: a JSON file {"train": [names of clips], ...}, instead of both.
    columns: which numbers of a row are the condition, by name or pattern (`action*`); empty: as the source says.
    shift: row t leads into frame t + shift; None: as the source says.

    For layouts that say so in TAKES:
    camera: which of several cameras.
    cuts: frame numbers at which a new take starts, for sources that record several takes in one row of numbers.
    count: how many clips to make, for sources that are made on the fly.
    """

    size: Size | None = None
    fit: Fit = "stretch"
    stride: int = 1
    between: Between = "join"
    window: int = 0
    shares: tuple[float, float, float] | None = None
    lists: Path | None = None
    columns: tuple[str, ...] = ()
    shift: int | None = None
    camera: str = ""
    cuts: tuple[int, ...] = ()
    count: int = 0

    def used(self) -> dict[str, Any]:
        """The options that differ from the defaults, ready for JSON."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {
            name: [*value] if isinstance(value, tuple) else (value.name if isinstance(value, Path) else value)
            for name, value in found.items()
        }


@dataclass(frozen=True)
class RawChunk:
    """A stretch of a clip as its source holds it: pictures uint8 (T, H, W, 3), or rows float32 (T, D).

    `faults` maps the index of a frame in this piece to what is wrong there; its values are zeros. What is wrong with
    single numbers of a row is a `NumberFault`.
    """

    values: NDArray[Any]
    faults: Mapping[int, tuple[Fault, ...]] = field(default_factory=dict)


Read = Callable[[int, int], RawChunk]
"""`read(start, stop)` decodes frames start to stop-1. May raise DataError where nothing of the clip can be read."""


@dataclass(frozen=True)
class SourceClip:
    """One clip as it lies in its source. It can be pickled, so that another process may read it.

    split: "train", "val" or "test"; empty where the source has none, and a hash of the name decides.
    length: number of frames.
    frames: reads pictures. rows: reads what was recorded beside them: numbers, or pose pictures; None without any.
    faults: what is wrong with it as far as names and tables tell; with single numbers of a table, as a `NumberFault`.
    part: name of the part (start, stop), for clips that may be cut in two at a bad frame; None for those that may not.
    file: clips of the same file are read one after another by the same process, so that a video is decoded once.
    """

    name: str
    split: str
    length: int
    frames: Read
    rows: Read | None = None
    faults: tuple[Fault, ...] = ()
    part: Callable[[int, int], str] | None = None
    file: str = ""


@dataclass(frozen=True)
class SourceIndex:
    """Everything that a layout found: the clips in their order, and what belongs to no clip.

    size: (H, W) that pictures have, or shall have unless the user says otherwise; None where not one picture can be
        read: `faults` then says why.
    cond: what stands beside each frame. columns: a name for each number of a row, or one for pose pictures.
    chosen: names or patterns of the columns that are the condition unless the user says otherwise; empty: all.
    shift: row t leads into frame t + shift. 1 for actions recorded with the frame they start from, 0 for poses.
    notes: facts worth a line that are no faults. warnings: what is probably not as the user means it.
    """

    layout: str
    clips: tuple[SourceClip, ...]
    size: Size | None
    cond: CondKind = "none"
    columns: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    shift: int = 0
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fps: float | None = None


@dataclass(frozen=True)
class ClipChunk:
    """A stretch of a clip made ready: frames uint8 (T, H, W, C), cond float32 (T, D), uint8 (T, H, W, 3) or None.

    `faults` maps the index of a frame in this chunk to what is wrong there.
    """

    frames: NDArray[np.uint8]
    cond: NDArray[Any] | None
    faults: Mapping[int, tuple[Fault, ...]] = field(default_factory=dict)
