"""Curves of a clip's vector condition: which columns share a chart, and the charts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from foreframe.data.pack.pack import Episode, Pack
from foreframe.report.plots import Chart, Line, inline, line_figure

COLUMNS, FRAMES = 64, 60
"""Columns whose curves are drawn, and frames of a clip, at most."""
MAX_CHARTS = 120
"""Of a page: a chart takes about 12 kB."""
LINES, MANY = 8, 3
"""Lines in one chart, at most; and groups of columns from which on those of a single column share one."""
SIZE = (3.9, 1.75)
"""Inches of a chart."""


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


def curves(pack: Pack, episodes: Sequence[Episode]) -> tuple[list[list[Markup]], list[tuple[str, float]], int]:
    """The charts of each clip as SVG, the columns that never change in these clips, and how many columns are drawn.

    A number stands over the frame that it leads into, counted from 0; the scales are the same for all clips.
    """
    if pack.spec.cond != "vector" or pack.cond is None:
        return [[] for _ in episodes], [], 0
    names = pack.cond_names[:COLUMNS]
    rows = [pack.cond[e.start : e.start + min(e.length, FRAMES), : len(names)] for e in episodes]
    low = np.min([values.min(axis=0) for values in rows], axis=0).astype(np.float64)
    high = np.max([values.max(axis=0) for values in rows], axis=0).astype(np.float64)
    plots = plots_of(names, low, high)
    shown = plots[: max(1, MAX_CHARTS // len(episodes))]
    charts: list[list[Markup]] = []
    for number, values in enumerate(rows):
        drawn = [line_figure(_chart(plot, values), size=SIZE) for plot in shown]
        charts.append([inline(figure, f"clip-{number}-{place}") for place, figure in enumerate(drawn)])
    still = unchanging(names, low, high)
    return charts, still, len(still) + sum(len(plot.columns) for plot in shown)


def _chart(plot: Plot, rows: NDArray[Any]) -> Chart:
    lines = [
        Line(short if len(plot.columns) > 1 else "", range(len(rows)), rows[:, column].tolist(), number)
        for number, (short, column) in enumerate(zip(plot.short, plot.columns, strict=True))
    ]
    return Chart(plot.title, "", "", lines, ends=(plot.low, plot.high))
