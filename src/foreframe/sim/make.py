"""Simulated clips, packed: `foreframe data make push|dance`. A clip is a function of (seed, index) alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import foreframe
from foreframe.clip import CondKind
from foreframe.data.ingest.pool import Readers
from foreframe.data.ingest.run import pack_source
from foreframe.data.ingest.transform import shape
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack.pack import Pack
from foreframe.data.pack.writer import refuse_existing
from foreframe.errors import UsageError
from foreframe.video.pixels import Size

Kind = Literal["push", "dance"]
Pair = tuple[NDArray[np.uint8], NDArray[Any]]
"""Frames and what is recorded beside them."""

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

    The pack is the same whatever the number of workers. What was killed, or stopped by a signal, continues where it was
    when it is started again.

    Args:
        frames: Of each clip; 0: 30 (push) or 60 (dance).
        size: (H, W) of the frames. Default: 64x64. A push needs a square.
        workers: Processes that simulate; 0: only this one. Default: one a core.
    Raises:
        UsageError: a number that cannot be, or the extra `sim` is missing.
        DataError: `dst` exists, or there is no room for it.
        DiskError: the disk refuses to be written to; what was at `dst` is untouched.
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
    survey, version = _push(clips, seed, frames or 30, (height, width)) if kind == "push" else _dance(
        clips, seed, frames or 60, (height, width)
    )  # fmt: skip
    facts = {"seed": seed, "clips": clips, "mujoco": version}
    source = replace(shape(survey, Options()), options=facts)
    key = f"{kind} {seed} {clips} {frames} {height}x{width} {version} {foreframe.__version__}"
    cores = os.cpu_count() or 1
    with Readers(min(cores if workers is None else workers, clips)) as readers:
        return pack_source(source, Path(kind), dst, key=key, overwrite=overwrite, readers=readers, progress=progress)


def _push(clips: int, seed: int, frames: int, size: Size) -> tuple[SourceIndex, str]:
    from foreframe.data.formats.sample import SAMPLES
    from foreframe.sim import push

    if size[0] != size[1]:
        raise UsageError(f"size: push draws squares; found {size[0]}x{size[1]}")
    made = _survey("push", partial(_push_clip, seed, frames, size[0]), clips, frames)
    return SourceIndex(
        "push_sim", made, size, "vector", SAMPLES["push"].columns, shift=1, fps=SAMPLES["push"].fps
    ), push.version()


def _dance(clips: int, seed: int, frames: int, size: Size) -> tuple[SourceIndex, str]:
    from foreframe.sim import dance, motion

    made = _survey("dance", partial(_dance_clip, seed, frames, size), clips, frames)
    kind: CondKind = "image"
    return SourceIndex("dance_sim", made, size, kind, ("pose",), fps=motion.FPS), dance.version()


def _survey(kind: str, simulate: Callable[[int], Pair], clips: int, frames: int) -> tuple[SourceClip, ...]:
    return tuple(
        SourceClip(
            f"{kind}/{index:06d}",
            TENTHS[index % 10],
            frames,
            partial(_piece, simulate, index, 0),
            partial(_piece, simulate, index, 1),
        )
        for index in range(clips)
    )


def _piece(simulate: Callable[[int], Pair], index: int, part: int, start: int, stop: int) -> RawChunk:
    return RawChunk(simulate(index)[part][start:stop])


@lru_cache(maxsize=1)
def _push_clip(seed: int, frames: int, size: int, index: int) -> Pair:
    from foreframe.sim.push import simulate

    clip = simulate(seed, index, frames, size)
    return clip.frames, np.concatenate([clip.actions, clip.positions], axis=1)


@lru_cache(maxsize=1)
def _dance_clip(seed: int, frames: int, size: Size, index: int) -> Pair:
    from foreframe.sim.dance import simulate

    clip = simulate(seed, index, frames, size)
    return clip.frames, clip.poses
