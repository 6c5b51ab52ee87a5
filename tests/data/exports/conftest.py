"""Tiny packs to hand on, and a look at what an import would make of the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foreframe.clip import ClipSpec
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts.options import Options
from foreframe.data.pack.pack import Pack, PackWriter

CLIPS = (("a", "train", 5), ("b", "test", 3), ("c", "val", 4), ("d", "train", 1), ("e", "train", 6))
BAIR = ("action_0", "action_1", "action_2", "action_3", "position_x", "position_y", "position_z")


class Read(NamedTuple):
    """A clip as it was imported again."""

    split: str
    frames: np.ndarray
    cond: np.ndarray | None


def tiny_pack(
    path: Path,
    names: Sequence[str] | str = BAIR,
    *,
    clips: Sequence[tuple[str, str, int]] = CLIPS,
    size: tuple[int, int] = (8, 10),
    channels: int = 3,
    fps: float | None = 10,
    shift: int = 1,
) -> Pack:
    """Random pictures; `names` of random numbers, or "pose" for pictures. cond[0] is cond[1], as an import has it."""
    kind = "image" if names == "pose" else "vector" if names else "none"
    spec = ClipSpec(channels, *size, kind, 3 if kind == "image" else len(names))
    draw = np.random.default_rng(0)
    with PackWriter(path, spec, ("pose",) if kind == "image" else names, fps=fps, shift=shift) as writer:
        for name, split, length in clips:
            frames = draw.integers(0, 256, (length, *size, channels), np.uint8)
            cond = draw.integers(0, 256, (length, *size, 3), np.uint8)
            if kind == "vector":
                cond = draw.normal(size=(length, len(names))).astype(np.float32)
                cond[0] = cond[min(1, length - 1)]
            writer.add(name, split, frames, None if kind == "none" else cond)
    return Pack.open(path)


def read_again(folder: Path, layout: str, **options) -> list[Read]:
    """Every clip of a folder after an import, which finds out by itself what it is."""
    pack = import_clips(folder, folder.parent / "again", options=Options(**options))
    assert pack.manifest.source["layout"] == layout
    return [Read(item.split, *pack.read(item, 0, item.length)) for item in pack.episodes]
