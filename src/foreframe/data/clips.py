"""What a layout finds in a folder of somebody's clips, before any of it is packed.

A layout is one file in `foreframe/data/layouts/` with

    NAME: str                                   as given to --layout
    DESCRIBE: str                               one line for help texts
    LOOKS_FOR: str                              the paths by which it knows its folders, for error messages
    recognises(folder: Path) -> bool            a quick look; never raises
    survey(folder: Path, options: Options) -> Survey
    example(folder: Path) -> None               writes a tiny source of this layout without fault

`survey` looks at names and tables only; pixels are read clip by clip, through `SourceClip.read`. The contract
tests find each layout by its file and try it on its own example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec
from foreframe.errors import Fault


@dataclass(frozen=True)
class Options:
    """What a user may decide about an import.

    size: (H, W) to bring every picture to; None leaves it to the layout.
    cuts: frame numbers at which a new take starts, for sources that record several takes in one row of numbers.
    """

    size: tuple[int, int] | None = None
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Frames uint8 (T, H, W, 3) and conditions (T, D) or (T, H, W, 3) of a stretch of a clip.

    `faults` maps the index of a frame in this chunk to what is wrong there; its pixels are zeros.
    """

    frames: NDArray[np.uint8]
    cond: NDArray[Any] | None
    faults: Mapping[int, tuple[Fault, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceClip:
    """One clip as it lies in its source: `read(start, stop)` decodes a stretch of it.

    faults: What is wrong with it as far as names and tables tell.
    part: Name of the part (start, stop), for clips that may be cut in two at a bad frame; None for those that may not.
    """

    name: str
    split: str
    length: int
    read: Callable[[int, int], Chunk]
    faults: tuple[Fault, ...] = ()
    part: Callable[[int, int], str] | None = None


@dataclass(frozen=True)
class Survey:
    """Everything that a layout found: the clips in their order, and what belongs to no clip.

    spec: None where not one picture can be read; `faults` then says why.
    shift: How conditions were brought to "cond[t] leads into frame t", one clause.
    notes: Facts worth a line that are no faults. warnings: what is probably not as the user means it.
    """

    layout: str
    spec: ClipSpec | None
    clips: tuple[SourceClip, ...]
    cond_names: tuple[str, ...]
    shift: str
    options: Mapping[str, Any]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fps: float | None = None
