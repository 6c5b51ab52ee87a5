"""Simulated clips, packed: `foreframe data make push|dance`. A clip is a function of (seed, index) alone."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import foreframe
from foreframe.data.formats.sample import SAMPLES
from foreframe.data.ingest.pool import Readers
from foreframe.data.ingest.run import pack_source
from foreframe.data.ingest.transform import shape
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack.pack import Pack
from foreframe.data.pack.writer import refuse_existing
from foreframe.errors import UsageError
from foreframe.sim import dance, push
from foreframe.sim.renderer import version
from foreframe.video.pixels import Size

Kind = Literal["push", "dance"]
TENTHS = ("train",) * 8 + ("val", "test")
"""The split of clip i is that of i modulo ten, so that more clips of the same seed only add to what was there."""


def make_clips(
    kind: Kind,
    dst: Path | str,
    *,
    clips: int = 1000,
    seed: int = 0,
    frames: int = 0,
    size: Size | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Pack:
    """Simulate `clips` clips and pack them into the new folder `dst`; see `push` and `dance`.

    The pack is the same whatever the number of workers. What was killed or stopped continues where it was.

    Args:
        frames: Of each clip; 0: 30 (push) or 60 (dance).
        size: (H, W) of the frames. Default: 64x64. A push needs a square.
        workers: Processes that simulate; 0: only this one. Default: one a core.
    Raises:
        UsageError: a number that cannot be, or the extra `sim` is missing.
        DataError, DiskError: `dst` exists, or the disk has no room or refuses; what was at `dst` is untouched.
    """
    height, width = size or (64, 64)
    if seed < 0:
        raise UsageError(f"seed: expected 0 or more, found {seed}")
    if clips < 1 or frames < 0 or frames == 1:
        raise UsageError(f"expected 1 clip or more of 2 frames or more, found {clips} of {frames}")
    if not (16 <= height <= 512 and 16 <= width <= 512):
        raise UsageError(f"size: expected 16 to 512 pixels a side, found {height}x{width}")
    dst = Path(dst)
    refuse_existing(dst, overwrite)
    if kind == "push" and height != width:
        raise UsageError(f"size: push draws squares; found {height}x{width}")
    sample, mujoco = SAMPLES[kind], version((push if kind == "push" else dance).PACKAGES)
    length = frames or (30 if kind == "push" else 60)
    part = partial(_part, kind, seed, length, (height, width))
    simulated = tuple(
        SourceClip(f"{kind}/{index:06d}", TENTHS[index % 10], length, partial(part, index, 0), partial(part, index, 1))
        for index in range(clips)
    )
    survey = SourceIndex(
        f"{kind}_sim",
        simulated,
        (height, width),
        sample.cond,
        sample.columns,
        measured=sample.measured,
        shift=sample.shift,
        fps=sample.fps,
    )
    source = replace(shape(survey, Options()), options={"seed": seed, "clips": clips, "mujoco": mujoco})
    key = f"{kind} {seed} {clips} {frames} {height}x{width} {mujoco} {foreframe.__version__}"
    cores = os.cpu_count() or 1
    with Readers(min(cores if workers is None else workers, clips)) as readers:
        return pack_source(source, Path(kind), dst, key=key, overwrite=overwrite, readers=readers, progress=progress)


def _part(kind: Kind, seed: int, frames: int, size: Size, index: int, number: int, start: int, stop: int) -> RawChunk:
    """Frames (0) or conditions (1) of a clip, from start to stop-1."""
    return RawChunk(_simulate(kind, seed, index, frames, size)[number][start:stop])


@lru_cache(maxsize=1)
def _simulate(kind: Kind, seed: int, index: int, frames: int, size: Size) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    if kind == "push":
        pushed = push.simulate(seed, index, frames, size[0])
        return pushed.frames, pushed.rows
    danced = dance.simulate(seed, index, frames, size)
    return danced.frames, danced.poses
