"""A contact sheet of a pack: some clips as rows of frames over time, with what leads into them underneath."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foreframe.data.ingest.report import count
from foreframe.data.pack.pack import Episode, Pack
from foreframe.video import write_png

DPI = 100
MARGIN, GAP, LINE = 24, 4, 22
PLOT, LOW_PLOT, MANY = 96, 60, 3
"""Heights in pixels of a plot of a vector condition: of each of up to MANY, and of more."""
LINES, POINTS = 8, 4000
"""Curves in one plot, and points of one curve, at most."""
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
    episodes = sample(pack, clips, split)
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
        self.plots: list[Plot] = []
        self.still: list[tuple[str, float]] = []
        if self.vector:
            values = [cond for item in episodes if (cond := pack.read(item, 0, item.length)[1]) is not None]
            low = np.min([cond.min(axis=0) for cond in values], axis=0)
            high = np.max([cond.max(axis=0) for cond in values], axis=0)
            self.plots, self.still = plots_of(pack.cond_names, low, high), unchanging(pack.cond_names, low, high)
        self.plot_h = PLOT if len(self.plots) <= MANY else LOW_PLOT
        self.left = MARGIN + (40 if self.vector else 0)
        self.width = max(720, self.left + self.frames * (self.cell_w + GAP) + MARGIN)
        self.below = self.cell_h + GAP if self.image else 0
        if self.vector:
            self.below = len(self.plots) * (self.plot_h + 10) + 20
        self.row_h = LINE + self.cell_h + self.below + 26
        self.head = MARGIN + 3 * LINE + (LINE * len(self._legend_rows()) if self.vector else 0) + 8
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
        for line, row in enumerate(self._legend_rows()):
            x, y = float(MARGIN), top + LINE * line
            for title, colour, name in row:
                if title:
                    self._text(x, y + 1, title, size=8.5, colour=FAINT)
                    x += 8 + 7.2 * len(title)
                if colour:
                    axes = self._axes(x, y + 4, 18, 4)
                    axes.axhspan(0, 1, color=colour)
                    axes.axis("off")
                    x += 24
                self._text(x, y + 1, name, size=8.5)
                x += 16 + 7.2 * len(name)

    def _legend_rows(self) -> list[list[tuple[str, str, str]]]:
        """(title of its plot, where it begins one; colour; name) of each curve, in lines that fit on the sheet."""
        entries = [
            (f"{plot.title}:" if not place and plot.title != name else "", COLOURS[place], _shortened(name, 40))
            for plot in self.plots
            for place, name in enumerate(plot.short)
        ]
        entries += [
            ("" if place else "unchanging here:", "", f"{_shortened(name, 40)} = {value:.4g}")
            for place, (name, value) in enumerate(self.still)
        ]
        rows: list[list[tuple[str, str, str]]] = [[]]
        used = 0.0
        for entry in entries:
            wide = 40 + 7.2 * len(entry[2]) + (8 + 7.2 * len(entry[0]) if entry[0] else 0)
            if rows[-1] and used + wide > self.width - 2 * MARGIN:
                rows.append([])
                used = 0.0
            rows[-1].append(entry)
            used += wide
        return rows

    def _clip(self, episode: Episode, top: int) -> None:
        times = spread(range(episode.length), self.frames)
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
            axes = self._axes(self.left, top + number * (self.plot_h + 10), right - self.left, self.plot_h)
            drawn = np.arange(0, len(cond), math.ceil(len(cond) / POINTS))
            x = np.interp(drawn, times, centres) - self.left
            for column, colour in zip(plot.columns, COLOURS, strict=False):
                mark = "." if len(cond) <= 60 else ""
                axes.plot(
                    x, cond[drawn, column], color=colour, linewidth=1.3, marker=mark, markersize=3.5, clip_on=False
                )
            axes.set_xlim(0, right - self.left)
            axes.set_ylim(plot.low, plot.high)
            axes.set_xticks(centres - self.left, [])
            axes.tick_params(axis="y", labelsize=7, colors=FAINT, length=0)
            axes.tick_params(axis="x", length=0)
            axes.locator_params(axis="y", nbins=4 if self.plot_h == PLOT else 3)
            if plot.title and len(self.plots) > 1:
                axes.text(4 / (right - self.left), 0.98, plot.title, transform=axes.transAxes, fontsize=7, color=FAINT,
                          va="top", parse_math=False)  # fmt: skip
            axes.grid(color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            for side in axes.spines.values():
                side.set_visible(False)

    def _picture(self, pixels: NDArray[np.uint8], x: int, y: int) -> None:
        self.pictures.append((rgb(pixels).repeat(self.scale, axis=0).repeat(self.scale, axis=1), x, y))

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
class Plot:
    """Columns of a vector condition that share a plot, and its scale, the same for all clips so that they compare.

    title: what their names begin with, perhaps empty. short: the rest of each name.
    """

    title: str
    columns: tuple[int, ...]
    short: tuple[str, ...]
    low: float
    high: float


def plots_of(names: Sequence[str], low: NDArray[Any], high: NDArray[Any]) -> list[Plot]:
    """Which columns to draw together: by what their names begin with, large numbers apart from small ones, at most
    LINES in a plot; in the order of the first column of each. Columns that never change are left out.

    low, high: (D,), the least and the largest number of each column in all that will be drawn.
    """
    changing = [column for column in range(len(names)) if low[column] < high[column]]
    sizes = np.maximum(np.abs(low), np.abs(high))
    parts = [
        tuple(int(column) for column in some)
        for columns in _groups(names, changing)
        for alike in _alike(columns, sizes)
        for some in np.array_split(alike, math.ceil(len(alike) / LINES))
    ]
    plots = []
    titles: Counter[str] = Counter()
    for part in sorted(parts):
        title, short = _shared([names[column] for column in part])
        titles[title] += 1
        if title and titles[title] > 1:
            title = f"{title} ({titles[title]})"
        bottom, top = float(low[list(part)].min()), float(high[list(part)].max())
        room = 0.06 * (top - bottom)
        plots.append(Plot(title, part, short, bottom - room, top + room))
    return plots


def unchanging(names: Sequence[str], low: NDArray[Any], high: NDArray[Any]) -> list[tuple[str, float]]:
    """The columns that `plots_of` leaves out, and what they always are."""
    return [(name, float(least)) for name, least, most in zip(names, low, high, strict=True) if least == most]


def _groups(names: Sequence[str], columns: Sequence[int], depth: int = 0) -> list[list[int]]:
    """Columns by the first piece of their names, and by further ones where too many share it."""
    found: dict[tuple[str, ...], list[int]] = {}
    for column in columns:
        found.setdefault(_pieces(names[column])[: depth + 1], []).append(column)
    if depth and len(columns) < MANY * len(found):
        return [list(columns)]
    if len(found) > MANY:  # those with nothing in common but that they are alone
        alone = [group for group, members in found.items() if len(members) == 1]
        if len(alone) > 1:
            found[()] = [found.pop(group)[0] for group in alone]
    groups = []
    for key, members in found.items():
        deeper = key and len(members) > LINES and len(key) > depth
        groups += _groups(names, members, depth + 1) if deeper else [members]
    return groups


def _pieces(name: str) -> tuple[str, ...]:
    """The words of a name, without the numbers that follow them: `arm.joint_3` is `arm`, `joint`."""
    return tuple(piece for piece in re.split(r"[._@\[\]/ ]|[0-9]+", name) if piece) or (name,)


def _alike(columns: Sequence[int], sizes: NDArray[Any]) -> list[list[int]]:
    """Columns in bands of sizes within a factor of 8 of the largest of each."""
    bands: list[tuple[float, list[int]]] = []
    for column in sorted(columns, key=lambda column: -sizes[column]):
        if not bands or sizes[column] < bands[-1][0] / 8:
            bands.append((float(sizes[column]), []))
        bands[-1][1].append(column)
    return [sorted(band) for _, band in bands]


def _shared(names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What all names begin with, up to a '.', '_' or '/', and the rest of each; of a single name, all of it."""
    if len(names) == 1:
        return names[0], tuple(names)
    common = ""
    for pieces in zip(*(re.findall(r"[^._/]*[._/]", name) for name in names), strict=False):
        if len(set(pieces)) > 1:
            break
        common += pieces[0]
    return common.rstrip("._/"), tuple(name[len(common) :] or name for name in names)


def sample(pack: Pack, wanted: int, split: str | None = None) -> list[Episode]:
    """Episodes spread evenly over one split, or over all: then at least one of each as far as `wanted` reaches, and
    most of the largest.

    Raises:
        DataError: the pack has no such split.
    """
    if split:
        return spread(pack.split(split), wanted)
    splits = {name: pack.split(name) for name in pack.splits}
    quota = dict.fromkeys(list(splits)[: max(1, wanted)], 1)
    while sum(quota.values()) < min(wanted, len(pack.episodes)):
        open_ones = [name for name in quota if quota[name] < len(splits[name])]
        quota[max(open_ones, key=lambda name: len(splits[name]) / quota[name])] += 1
    return [episode for name, number in quota.items() for episode in spread(splits[name], number)]


_Item = TypeVar("_Item")


def spread(items: Sequence[_Item], wanted: int) -> list[_Item]:
    """`wanted` of the items, at least one, evenly spread, first and last included."""
    if len(items) <= wanted:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, max(1, wanted))]


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (..., C) as pictures (..., 3): one channel becomes grey, of more the first three are taken."""
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"...{text[3 - most :]}"
