"""What a layout finds in a folder of somebody's clips, before any of it is shaped and packed.

A layout is one file in `foreframe/data/layouts/`, or one of a user's own (`--layout FILE.py`), with

    NAME: str                                   as given to --layout
    DESCRIBE: str                               one line for help texts
    LOOKS_FOR: str                              the paths by which it knows its folders, for error messages
    TAKES: tuple[str, ...]                      which of the options camera, cuts and count it understands
    recognises(folder: Path) -> bool            a quick look; never raises
    survey(folder: Path, options: Options) -> SourceIndex
    example(folder: Path) -> None               writes a tiny source of this layout without fault
    UNREAD, SPARE: tuple[str, ...]              patterns of files of the example that are never read, or on which no
                                                clip depends; may be absent
    inputs(folder: Path) -> dict[str, Inputs]   by split: where sequences lie that can be predicted and are not packed,
                                                having no truth; names paths and looks at nothing; may be absent

`survey` looks at names, headers and tables; pixels are read through `SourceClip.frames`. A layout hands everything out
as it was recorded: at its own size, and with row t of the conditions beside frame t. `ingest.transform` applies sizes,
columns, shifts, strides, windows and splits. `ingest.conformance.check_layout` tries a layout on its own example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import CondKind
from foreframe.errors import Fault
from foreframe.video.pixels import Size

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RawChunk:
    """A span of a clip as its source holds it: pictures uint8 (T, H, W, 3), or rows float32 (T, D).

    faults: what is wrong, by the index of its frame here, whose values are zeros; with single numbers, a `NumberFault`.
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
    faults: what is wrong with it as far as names and tables show; with single numbers of a table, as a `NumberFault`.
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


class Reader(Protocol):
    """Reads the clips of a file by two methods."""

    def frames(self, start: int, stop: int) -> RawChunk: ...
    def rows(self, start: int, stop: int) -> RawChunk: ...


def reads_of(reader: Reader) -> tuple[Read, Read]:
    """Its methods `frames` and `rows`, pickled by the name of the function: as methods they would need `getattr`."""
    return partial(type(reader).frames, reader), partial(type(reader).rows, reader)


@dataclass(frozen=True)
class SourceIndex:
    """Everything that a layout found: the clips in their order, and what belongs to no clip.

    size: (H, W) that pictures have, or shall have unless the user says otherwise; None where not one picture can be
        read: `faults` then says why.
    cond: what stands beside each frame. columns: a name for each number of a row, or one for pose pictures.
    chosen: names or patterns of the columns that are the condition unless the user says otherwise; empty: all.
    measured: likewise, of those that were measured (positions, joint readings) and so are not known in advance; the
        others are controls.
    shift: row t leads into frame t + shift. 1 for actions recorded with the frame they start from, 0 for poses.
    notes: facts worth a line that are no faults. warnings: what is probably not as the user means it.
    """

    layout: str
    clips: tuple[SourceClip, ...]
    size: Size | None
    cond: CondKind = "none"
    columns: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    shift: int = 0
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fps: float | None = None


@dataclass(frozen=True)
class Inputs:
    """Where sequences lie of which only the beginning is known: a folder for each sequence in each of these, or one
    sequence in them.

    frames: the context frames; further ones are truth. cond: pose pictures, or a CSV NAME.csv of each sequence, a row a
    frame, context included. truth: true frames, where somebody has them; it may be missing, whole or in part.
    scored: of the predicted frames, the first N also have a score by themselves; 0: only all of them have.
    """

    frames: Path
    cond: Path | None = None
    truth: Path | None = None
    scored: int = 0


@dataclass(frozen=True)
class ClipChunk:
    """A span of a clip made ready: frames uint8 (T, H, W, C), cond float32 (T, D), uint8 (T, H, W, 3) or None; and what
    is wrong, by the index of its frame here."""

    frames: NDArray[np.uint8]
    cond: NDArray[Any] | None
    faults: Mapping[int, tuple[Fault, ...]] = field(default_factory=dict)
