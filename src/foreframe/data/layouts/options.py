"""What a user may decide about an import; the flags of the command line are read from here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

Between = Literal["join", "last"]
LAYOUT_OPTIONS = ("camera", "cuts", "count")
"""Options that concern single layouts, which name them in TAKES; the others are the same for all."""


@dataclass(frozen=True)
class Options:
    """How clips of any source are made ready."""

    size: tuple[int, int] | None = None
    """Height and width of the packed frames. Default: the source's."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """Where that changes the shape of a picture: stretch it, crop its middle, or pad it with black."""
    stride: int = 1
    """Keep every n-th frame."""
    between: Between = "join"
    """With a stride: join the conditions of the frames left out to one long row, or keep only the last."""
    window: int = 0
    """Cut clips into pieces of this many frames, counted after the stride; 0: leave them whole."""
    shares: tuple[float, float, float] | None = None
    """Of train, val and test, drawn by the hash of each clip's name. Default: the source's own splits."""
    lists: Path | None = None
    """A JSON file {"train": [names of clips], "val": [...], ...} instead."""
    columns: tuple[str, ...] = ()
    """Which numbers are the condition, by name or pattern, as in 'action*'; none: no condition. Default: as is usual
    for the source."""
    controls: tuple[str, ...] = ()
    """Which of them are controls, known in advance, by name or pattern. Default: as is usual for the source."""
    measured: tuple[str, ...] = ()
    """Which of them are measured states, not known beyond the context. Default: as is usual for the source."""
    shift: int | None = None
    """The row recorded with frame t leads into frame t + this. Default: as is usual for the source."""
    camera: str = ""
    """Which of several cameras."""
    cuts: tuple[int, ...] = ()
    """Numbers of the training frames at which a new take begins; no clip crosses one (dance_lab)."""
    count: int = 0
    """How many clips to make, for sources that are made on the fly (moving_mnist)."""

    def used(self) -> dict[str, Any]:
        """The options that differ from the defaults, ready for JSON."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {
            name: [*value] if isinstance(value, tuple) else (value.name if isinstance(value, Path) else value)
            for name, value in found.items()
        }
