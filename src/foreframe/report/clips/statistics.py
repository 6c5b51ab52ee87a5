"""Distributions of a pack: of the columns of its condition, of clip lengths and of brightness.

Of a large pack evenly spaced parts are read, so this takes seconds and little memory whatever its size; only
`manifest.stats` covers every frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.ingest.report import count
from foreframe.data.pack.manifest import ColumnStats
from foreframe.data.pack.pack import Pack
from foreframe.evaluation import evenly_spaced
from foreframe.report.clips.moving import rgb

LISTED = 256
"""Columns that get a histogram, at most."""
ROWS, BLOCK = 1_000_000, 4096
"""Rows that a histogram counts, at most about; and rows read at once."""
PICTURES, PIXELS = 400, 2**16
"""Pictures whose brightness is measured, and pixels of each, at most."""
BINS, LEVELS, LENGTHS = 40, 64, 30
"""Bars in the histograms of columns, of brightness and of clip lengths."""


@dataclass(frozen=True)
class Bars:
    """A histogram as the outline of an SVG path, as many units wide as it has bars and 100 high."""

    bars: int
    path: str
    low: str
    high: str


@dataclass(frozen=True)
class Column:
    """A number of a vector condition over train. `bars` is None where it is constant, or beyond what is drawn."""

    name: str
    constant: bool
    numbers: tuple[tuple[str, str], ...]
    bars: Bars | None


def columns(pack: Pack, stats: Sequence[ColumnStats], known: str) -> list[Column]:
    """Histograms of the first columns and the numbers of all."""
    counts = histograms(pack, stats[:LISTED], known) if stats else ()
    made = []
    for item, counted in zip_longest(stats, counts):
        constant = item.min == item.max
        bars = None if constant or counted is None else bars_of(counted, "", "")
        values = {"mean": item.mean, "deviation": item.std, "min": item.min, "max": item.max}
        numbers = tuple((what, format_number(value)) for what, value in values.items())
        made.append(Column(item.name, constant, numbers, bars))
    return made


def histograms(pack: Pack, stats: Sequence[ColumnStats], known: str) -> NDArray[np.int64]:
    """(D, BINS) counts between the least and the largest number of each column."""
    low, high = np.array([item.min for item in stats]), np.array([item.max for item in stats])
    scale = BINS / np.where(high > low, high - low, 1)
    offsets = BINS * np.arange(len(stats))
    counts = np.zeros(BINS * len(stats), np.int64)
    for rows in rows_of(pack, known):
        places = np.clip(((rows[:, : len(stats)] - low) * scale).astype(np.int64), 0, BINS - 1)
        counts += np.bincount((places + offsets).ravel(), minlength=len(counts))
    return counts.reshape(len(stats), BINS)


def rows_of(pack: Pack, split: str) -> Iterator[NDArray[Any]]:
    """Conditions of a split (of all, if it is empty) in blocks; of more than ROWS rows, evenly spaced blocks."""
    assert pack.cond is not None
    runs: list[list[int]] = []
    for episode in pack.split(split) if split else pack.episodes:
        if runs and runs[-1][1] == episode.start:
            runs[-1][1] += episode.length
        else:
            runs.append([episode.start, episode.start + episode.length])
    blocks = [(start, min(start + BLOCK, stop)) for begin, stop in runs for start in range(begin, stop, BLOCK)]
    for start, stop in blocks[:: math.ceil(total(pack, split) / ROWS)]:
        yield pack.cond[start:stop]


def total(pack: Pack, split: str) -> int:
    """The frames of a split, or of all if it is empty."""
    return sum(number["frames"] for name, number in pack.manifest.splits.items() if not split or name == split)


def lengths(pack: Pack) -> list[tuple[str, str, Bars]]:
    """(split, number of its clips, histogram) on one scale; nothing where all clips are equally long."""
    every = [episode.length for episode in pack.episodes]
    low, high = min(every), max(every)
    if low == high:
        return []
    width = math.ceil((high - low + 1) / LENGTHS)
    edges = np.arange(low, high + width + 1, width)
    found = []
    for split in pack.splits:
        counts, _ = np.histogram([episode.length for episode in pack.split(split)], edges)
        number = count(pack.manifest.splits[split]["episodes"], "clip")
        found.append((split, number, bars_of(counts, f"{low:,}", f"{high:,} frames")))
    return found


@dataclass(frozen=True)
class Brightness:
    """Evenly spaced pictures: their brightness, 0 to 255, and how many are blank or equal to the next one."""

    pictures: int
    bars: Bars
    mean: str
    deviation: str
    blank: int
    pairs: int
    same: int


def brightness(pack: Pack, known: str) -> Brightness:
    """Of the pictures of a split, or of all if it is empty."""
    episodes = pack.split(known) if known else list(pack.episodes)
    ends = np.cumsum([episode.length for episode in episodes])
    levels = np.zeros(256, np.int64)
    blank = pairs = same = 0
    places = evenly_spaced(int(ends[-1]), PICTURES)
    thin = max(1, math.ceil(math.sqrt(pack.spec.height * pack.spec.width / PIXELS)))
    for place in places:
        number = int(np.searchsorted(ends, place, side="right"))
        index = episodes[number].start + place - int(ends[number]) + episodes[number].length
        picture = pack.frames[index]
        gray = rgb(picture[::thin, ::thin]).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        levels += np.bincount(np.rint(gray).astype(np.int64).ravel(), minlength=256)
        blank += bool((picture == picture[0, 0]).all())
        if place + 1 < ends[number]:
            pairs += 1
            same += bool(np.array_equal(picture, pack.frames[index + 1]))
    mean = float((levels * np.arange(256)).sum() / levels.sum())
    deviation = math.sqrt(float((levels * (np.arange(256) - mean) ** 2).sum() / levels.sum()))
    bars = bars_of(levels.reshape(LEVELS, -1).sum(axis=1), "0 (black)", "255 (white)")
    return Brightness(len(places), bars, f"{mean:.1f}", f"{deviation:.1f}", blank, pairs, same)


def bars_of(counts: NDArray[np.int64], low: str, high: str) -> Bars:
    """The tallest bar reaches the top; one that is not empty can always be seen."""
    top = max(1, int(counts.max()))
    heights = [100 - max(2.0, round(100 * int(number) / top, 1)) if number else 100 for number in counts]
    steps = "".join(f"V{height:g}H{place}" for place, height in enumerate(heights, 1))
    return Bars(len(counts), f"M0,100{steps}V100Z", low, high)


def format_number(value: float) -> str:
    """A number in four digits or so."""
    if value == 0 or 1e-4 <= abs(value) < 1e4:
        return f"{value:.4g}".replace("-", "−")
    return (f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.3g}").replace("-", "−")
