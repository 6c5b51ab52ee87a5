"""A contact sheet of a pack: some clips as rows of frames over time, with what leads into them underneath."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foreframe.data.pack import Episode, Pack
from foreframe.data.report import count
from foreframe.video import write_png

DPI = 100
MARGIN, GAP, LINE = 24, 4, 22
PLOT = 96
"""Heights in pixels: a line of text, a plot of a vector condition."""
INK, FAINT, GRID = "#1e2126", "#6b7280", "#e5e7eb"
HAIRLINE = (209, 213, 219)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#b59f00", "#332288", "#882255")


def contact_sheet(
    pack: Pack,
    path: Path | str,
    *,
    split: str | None = None,
    clips: int = 4,
    frames: int = 10,
    scale: int | None = None,
) -> Path:
    """Write a PNG that shows `clips` clips of a pack, spread evenly over it, each as a row of `frames` frames.

    Pixels are enlarged `scale` times (by default to at least 96 pixels a side, at most 4 times) without smoothing.
    Under each row stand its conditions: numbers as one curve each, at the time of the frame that they lead into;
    pictures as a second row. The head counts what the pack holds.

    Raises:
        DataError: the pack has no such split.
    """
    episodes = _spread(pack.split(split), clips) if split else _of_all_splits(pack, clips)
    scale = scale or min(4, max(1, math.ceil(96 / min(pack.spec.height, pack.spec.width))))
    return _Sheet(pack, episodes, frames, scale).draw(Path(path))


class _Sheet:
    """Lays out everything in pixels from the upper left corner."""

    def __init__(self, pack: Pack, episodes: Sequence[Episode], frames: int, scale: int) -> None:
        self.pack, self.episodes, self.frames = pack, episodes, min(frames, max(item.length for item in episodes))
        self.scale = scale
        self.pictures: list[tuple[NDArray[np.uint8], int, int]] = []
        self.cell_w, self.cell_h = pack.spec.width * scale, pack.spec.height * scale
        self.vector, self.image = pack.spec.cond == "vector", pack.spec.cond == "image"
        values = [cond for item in episodes if (cond := pack.read(item, 0, item.length)[1]) is not None]
        self.plots = _plots(pack.cond_names, np.concatenate(values)) if self.vector else []
        self.left = MARGIN + (40 if self.vector else 0)
        self.width = max(720, self.left + self.frames * (self.cell_w + GAP) + MARGIN)
        self.below = len(self.plots) * (PLOT + 10) + 20 if self.vector else (self.cell_h + GAP if self.image else 0)
        self.row_h = LINE + self.cell_h + self.below + 26
        self.head = MARGIN + 3 * LINE + (LINE * self._legend_lines() if self.vector else 0) + 8
        self.height = self.head + len(episodes) * self.row_h + 4
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")

    def draw(self, path: Path) -> Path:
        self._head()
        for row, episode in enumerate(self.episodes):
            self._clip(episode, self.head + row * self.row_h)
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        sheet = np.array(canvas.buffer_rgba())[..., :3]
        for picture, x, y in self.pictures:  # pasted here, because Matplotlib resamples what it draws
            sheet[y - 1 : y + self.cell_h + 1, x - 1 : x + self.cell_w + 1] = HAIRLINE
            sheet[y : y + self.cell_h, x : x + self.cell_w] = picture
        write_png(path, np.ascontiguousarray(sheet))
        return path

    def _head(self) -> None:
        pack = self.pack
        counts = ", ".join(
            f"{split} {count(number['episodes'], 'clip')} / {number['frames']:,} frames"
            for split, number in ((split, pack.manifest.splits[split]) for split in pack.splits)
        )
        rate = f", {pack.fps:g} frames/s" if pack.fps else ""
        name = str(pack.manifest.source.get("folder") or pack.path.resolve().name)
        self._text(MARGIN, MARGIN + 4, _shortened(name, 60), size=13, weight="bold")
        self._text(MARGIN, MARGIN + LINE + 4, f"{pack.spec.height} x {pack.spec.width} pixels{rate}.  {counts}")
        self._text(MARGIN, MARGIN + 2 * LINE + 2, self._condition(), colour=FAINT)
        if self.vector:
            self._legend(MARGIN + 3 * LINE + 2)

    def _condition(self) -> str:
        if not (self.vector or self.image):
            return "no condition"
        what = f"{self.pack.spec.cond_size} numbers" if self.vector else f"pictures ({', '.join(self.pack.cond_names)})"
        return f"Condition: {what}; {self.pack.manifest.alignment}"

    def _legend(self, top: float) -> None:
        x, y = float(MARGIN), top
        for plot in self.plots:
            for column in plot.columns:
                name = self.pack.cond_names[column]
                wide = 40 + 7.2 * len(name)
                if x + wide > self.width - MARGIN:
                    x, y = float(MARGIN), y + LINE
                axes = self._axes(x, y + 4, 18, 4)
                axes.axhspan(0, 1, color=COLOURS[column % len(COLOURS)])
                axes.axis("off")
                self._text(x + 24, y + 1, name, size=8.5)
                x += wide
            x += 14

    def _legend_lines(self) -> int:
        total = sum(40 + 7.2 * len(name) for name in self.pack.cond_names) + 14 * len(self.plots)
        return math.ceil(total / max(1, self.width - 2 * MARGIN) * 1.1)

    def _clip(self, episode: Episode, top: int) -> None:
        times = _spread(range(episode.length), self.frames)
        pixels, cond = self.pack.read(episode, 0, episode.length)
        self._text(self.left, top, _shortened(episode.name, 70), size=10, weight="bold")
        note = f"{episode.split}, {episode.length:,} frames"
        self._text(self.width - MARGIN, top, note, size=9, colour=FAINT, right=True)
        y = top + LINE
        for column, time in enumerate(times):
            x = self.left + column * (self.cell_w + GAP)
            self._picture(pixels[time], x, y)
            if self.image and cond is not None:
                self._picture(cond[time], x, y + self.cell_h + GAP)
            under = y + self.cell_h + (self.below if self.image else 0) + 3
            self._text(x + self.cell_w / 2, under, str(time), size=7.5, colour=FAINT, centre=True)
        if self.vector and cond is not None:
            self._curves(cond, times, y + self.cell_h + 22)

    def _curves(self, cond: NDArray[Any], times: Sequence[int], top: float) -> None:
        """One plot a group, on the time axis of the frames above it: frame t stands over the value that led into it."""
        centres = self.left + np.arange(len(times)) * (self.cell_w + GAP) + self.cell_w / 2
        right = self.left + len(times) * (self.cell_w + GAP) - GAP
        for number, plot in enumerate(self.plots):
            axes = self._axes(self.left, top + number * (PLOT + 10), right - self.left, PLOT)
            x = np.interp(np.arange(len(cond)), times, centres) - self.left
            for column in plot.columns:
                colour = COLOURS[column % len(COLOURS)]
                mark = "." if len(cond) <= 60 else ""
                axes.plot(x, cond[:, column], color=colour, linewidth=1.3, marker=mark, markersize=3.5, clip_on=False)
            axes.set_xlim(0, right - self.left)
            axes.set_ylim(plot.low, plot.high)
            axes.set_xticks(centres - self.left, [])
            axes.tick_params(axis="y", labelsize=7, colors=FAINT, length=0)
            axes.tick_params(axis="x", length=0)
            axes.locator_params(axis="y", nbins=4)
            axes.grid(color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            for side in axes.spines.values():
                side.set_visible(False)

    def _picture(self, pixels: NDArray[np.uint8], x: int, y: int) -> None:
        shown = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
        self.pictures.append((shown.repeat(self.scale, axis=0).repeat(self.scale, axis=1), x, y))

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def _text(
        self, x: float, y: float, text: str, *, size: float = 9, weight: str = "normal", colour: str = INK,
        right: bool = False, centre: bool = False,
    ) -> None:  # fmt: skip
        side = "right" if right else ("center" if centre else "left")
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, fontweight=weight, color=colour,
                         ha=side, va="top", parse_math=False)  # fmt: skip


@dataclass(frozen=True)
class _Plot:
    """Columns of a vector condition that share a plot, and its scale, the same in all rows so that they compare."""

    columns: tuple[int, ...]
    low: float
    high: float


def _plots(names: Sequence[str], values: NDArray[Any]) -> list[_Plot]:
    """Columns by the part of their names before the last '_', small numbers apart from large ones of the same name.

    values: (N, D), all that will be drawn.
    """
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        groups.setdefault(name.rpartition("_")[0] or name, []).append(column)
    whole = list(groups.values()) if len(groups) <= 4 else [list(range(len(names)))]
    sizes = np.abs(values).max(axis=0)
    plots = []
    for columns in whole:
        largest = max(sizes[column] for column in columns)
        small = [column for column in columns if 0 < sizes[column] < largest / 8]
        for part in (small, [column for column in columns if column not in small]):
            if part:
                low, high = float(values[:, part].min()), float(values[:, part].max())
                room = 0.06 * (high - low) or max(1e-3, abs(high) * 0.1)
                plots.append(_Plot(tuple(part), low - room, high + room))
    return plots


def _of_all_splits(pack: Pack, wanted: int) -> list[Episode]:
    """Episodes spread over the pack, at least one of each split as far as `wanted` reaches, most of the largest."""
    splits = {split: pack.split(split) for split in pack.splits}
    quota = dict.fromkeys(list(splits)[:wanted], 1)
    while sum(quota.values()) < min(wanted, len(pack.episodes)):
        open_ones = [split for split in quota if quota[split] < len(splits[split])]
        quota[max(open_ones, key=lambda split: len(splits[split]) / quota[split])] += 1
    return [episode for split, number in quota.items() for episode in _spread(splits[split], number)]


def _spread(items: Sequence[Any], wanted: int) -> list[Any]:
    """`wanted` of the items, evenly spread, first and last included."""
    if len(items) <= wanted:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, max(1, wanted))]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"...{text[3 - most :]}"
