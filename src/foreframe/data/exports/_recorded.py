"""A pack seen as somebody would have recorded it: with row t of the numbers beside frame t, from which they lead on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.layouts.contract import SPLITS
from foreframe.data.pack.pack import Episode, Pack
from foreframe.errors import UsageError
from foreframe.video.write import encode_png

PIECE = 256
"""Frames in memory at a time, where they are small."""
PIECE_BYTES = 2**25
"""Bytes of pictures in memory at a time, at most."""


def ordered(pack: Pack) -> list[Episode]:
    """All episodes, split after split: train, val, test, then others; in the order of the pack within each."""
    splits = [*SPLITS, *(split for split in pack.splits if split not in SPLITS)]
    return sorted(pack.episodes, key=lambda episode: splits.index(episode.split))


def check_form(pack: Pack, form: str, any_split: bool = False) -> None:
    """UsageError for pictures or splits that the form cannot hold: it has RGB, and usually a folder for each split."""
    if pack.spec.channels not in (1, 3):
        raise UsageError(f"{form} holds RGB or grey pictures; this pack has {pack.spec.channels} channels")
    others = [split for split in pack.splits if split not in SPLITS and not any_split]
    if others:
        raise UsageError(f"{form} holds the splits {', '.join(SPLITS)}; this pack has also {', '.join(others)}")


def pieces(pack: Pack, episode: Episode) -> Iterator[tuple[int, int]]:
    """Where the pieces begin and end in which an episode is read, so that memory stays flat."""
    step = max(1, min(PIECE, PIECE_BYTES // (pack.spec.channels * pack.spec.height * pack.spec.width)))
    for start in range(0, episode.length, step):
        yield start, min(start + step, episode.length)


def write_pictures(folder: Path, names: Iterable[str], pictures: NDArray[np.uint8]) -> None:
    """Write each picture (H, W, 1 or 3) as a PNG of this name, several at a time.

    They are not brought to the disk one by one: an export is nothing before all of it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if pictures.shape[3] == 1:
        pictures = pictures.repeat(3, axis=3)
    with threads() as pool:
        list(pool.map(lambda name, picture: (folder / name).write_bytes(encode_png(picture)), names, pictures))


def threads() -> ThreadPoolExecutor:
    """For encoding pictures, which mostly leaves the interpreter to others."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def rows(pack: Pack, episode: Episode, start: int, stop: int, shift: int = 1) -> NDArray[Any]:
    """What stood beside frames start to stop-1 of an episode: row t is cond[t + shift]; the last one is repeated.

    shift: 1 for what is done at frame t and leads into frame t + 1; 0 for what belongs to frame t itself.
    """
    assert pack.cond is not None
    return pack.cond[episode.start + np.clip(np.arange(start, stop) + shift, 0, episode.length - 1)]


def lost(pack: Pack, columns: Sequence[int]) -> list[str]:
    """A note if some of these numbers lead otherwise into a first frame than into the second.

    No row of a recording leads into the first frame, so they are left behind; an import puts those of the second there.
    """
    if pack.cond is None or not columns:
        return []
    first = np.array([episode.start for episode in pack.episodes])
    second = first + np.array([episode.length > 1 for episode in pack.episodes])
    differing = int((pack.cond[first] != pack.cond[second])[:, list(columns)].any(axis=1).sum())
    if not differing:
        return []
    return [
        f"the numbers that lead into the first frame, which nothing predicts, have no row here; in {differing} of "
        f"{len(first)} clips they are not those of the second frame, which an import puts there"
    ]
