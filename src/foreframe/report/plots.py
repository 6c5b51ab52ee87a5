"""Figures of lines over frames or steps: as PNG or SVG files, and inside a page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from foreframe import disk

# Okabe and Ito (2008): distinct under the common kinds of color blindness. Yellow is left out: faint on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_GRAY, _INK, _EDGE, _GRID = "#6b7280", "#1e2126", "#9aa0a8", "#e4e6ea"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _EDGE,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "foreframe",
}

_PROPERTIES = {color: f"--c{number}" for number, color in enumerate(COLORS)} | {
    _GRAY: "--soft", _INK: "--ink", _EDGE: "--edge", _GRID: "--line"
}  # fmt: skip
"""The custom properties of a page that stand for these colors, so that its figures follow light and dark."""
_STROKES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (2, 1.2)))
_BASELINE_STROKES = ((0, (5, 2.5)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_NAME, _TITLE = 42, 70
"""Letters of a name in a legend, and of a title, at most."""


@dataclass(frozen=True)
class Line:
    """A curve of a chart: N values over N places, and perhaps a band from `low` to `high` (N each).

    number: Lines of one number share color and stroke, and a legend names the first of them; None is a baseline,
    gray and dashed. thin: one of many, such as a training of several. faint: what another line is the mean of. dots:
    each value is a point.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    number: int | None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    thin: bool = False
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines on one pair of axes.

    log: A logarithmic axis, where all values are above 0 and they span a factor of ten. from_zero: The y axis begins
    at 0. ends: those of the y axis, where they do not follow from the lines.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    log: bool = False
    from_zero: bool = False
    ends: tuple[float, float] | None = None


def per_frame(
    name: str,
    scores: Sequence[float],
    context: int,
    number: int | None,
    intervals: Sequence[Sequence[float]] | None = None,
) -> Line:
    """T scores over the frames that they belong to: counted from 1 with the K context frames, the first is K + 1."""
    low, high = zip(*intervals, strict=True) if intervals else (None, None)
    return Line(name, range(context + 1, context + 1 + len(scores)), scores, number, low, high)


def over_frames(title: str, ylabel: str, context: int, lines: Sequence[Line]) -> Chart:
    """The chart of lines of `per_frame`."""
    given = "the first was given" if context == 1 else f"the first {context} were given"
    return Chart(title, f"frame ({given})", ylabel, lines)


def line_figure(*charts: Chart, size: tuple[float, float] = (5.2, 2.75)) -> Figure:
    """Charts in at most three columns, each with its legend underneath; `save`, `encoded` and `inline` write it.

    size: Width and height in inches of a chart without its legend.

    Raises:
        ValueError: no line, or one whose values are not as many as its places.
    """
    if not charts or not all(chart.lines for chart in charts):
        raise ValueError("lines: expected at least one, got none")
    columns = min(3, len(charts))
    rows = math.ceil(len(charts) / columns)
    lines_below = max(_legend(chart)[1] for chart in charts)
    with matplotlib.rc_context(STYLE):
        height = rows * (size[1] + 0.19 * lines_below)
        figure = Figure(figsize=(size[0] * columns, height), dpi=150, layout="constrained")
        places: Any = figure.subfigures(rows, columns, squeeze=False).flat if len(charts) > 1 else [figure]
        for chart, place in zip(charts, places, strict=False):
            _draw(chart, place)
        with _missing_glyphs():
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it has done its work, once for all formats
        return figure


def _legend(chart: Chart) -> tuple[int, int]:
    """How many columns and lines the names in a legend take."""
    names = {_legible(line.name) for line in chart.lines if line.name}
    longest = max(map(len, names), default=0)
    columns = 1 if longest > 30 else 2 if longest > 14 else 3
    return columns, math.ceil(len(names) / columns)


def _draw(chart: Chart, place: Figure | SubFigure) -> None:
    axes = place.add_subplot()
    dashes = cycle(_BASELINE_STROKES)
    named: dict[str, Any] = {}
    for line in chart.lines:
        if not len(line.x) == len(line.y) == len(line.low or line.y) == len(line.high or line.y):
            raise ValueError(f"line {line.name!r}: {len(line.y)} values and bounds for {len(line.x)} places")
        if line.number is None:
            color, stroke, width = _GRAY, next(dashes), 1.6
        else:
            color, stroke = COLORS[line.number % len(COLORS)], _STROKES[line.number % len(_STROKES)]
            width = 1.1 if line.thin else 1.8
        few = line.number is not None and not line.faint and len(line.x) <= 30
        marker = "o" if line.dots or few else None
        size, alpha = 3 if len(line.x) <= 30 else 2, 0.4 if line.faint else 1.0
        (drawn,) = axes.plot(
            line.x, line.y, color=color, linestyle=stroke, linewidth=width, marker=marker, markersize=size, alpha=alpha
        )
        if line.name:
            named.setdefault(_legible(line.name), drawn)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)
    values = [value for line in chart.lines for value in line.y]
    if chart.log and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    elif chart.from_zero:
        axes.set_ylim(bottom=0)
    if chart.ends:
        axes.set_ylim(*chart.ends)
    axes.set_title(_legible(chart.title, _TITLE), loc="left", fontweight="bold", fontsize=10.5)
    axes.set(xlabel=chart.xlabel, ylabel=chart.ylabel)
    axes.yaxis.set_major_formatter(lambda value, _: format(value, ".6g"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if named:
        place.legend(
            list(named.values()),
            list(named),
            loc="outside lower left",
            ncols=_legend(chart)[0],
            fontsize=9.5,
            handlelength=2.2,
        )


def save(figure: Figure, path: str | Path) -> None:
    """Write what `encoded` makes. Raises also DiskError: the disk refused; what was there is untouched."""
    disk.put(Path(path), encoded(figure, path))


def encoded(figure: Figure, path: str | Path) -> bytes:
    """The bytes of a file of this name, PNG or SVG by its suffix. Raises ValueError for another."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"{path}: expected a name ending in .png or .svg, got {Path(path).suffix!r}")
    FigureCanvasAgg(figure)
    with matplotlib.rc_context(STYLE), _missing_glyphs():
        figure.savefig(made := io.BytesIO(), format=kind, metadata={"Date": None} if kind == "svg" else None)
    return made.getvalue()


def inline(figure: Figure, name: str) -> Markup:
    """A figure as an SVG element for a page that defines --ink, --soft, --edge, --line and --c0 to --c6.

    Its text stays text. `name` keeps its ids apart from those of the page's other figures.
    """
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none"}), _missing_glyphs():
        FigureCanvasAgg(figure)
        figure.savefig(made := io.BytesIO(), format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(made.getvalue())
    used = set(re.findall(r'#([\w-]+)["\)]', made.getvalue().decode()))
    for element in root.iter():
        for child in [child for child in element if child.tag.endswith(("}metadata", "}style"))]:
            element.remove(child)
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "style":
                for color, own in _PROPERTIES.items():
                    value = value.replace(color, f"var({own})")
            elif key == "id":
                if value not in used:
                    continue
                value = f"{name}-{value}"
            element.set(key, re.sub(r"^#|(?<=url\()#", f"#{name}-", value) if "#" in value else value)
    root.set("class", "chart")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


@contextmanager
def _missing_glyphs() -> Iterator[None]:
    """Without a warning of signs that DejaVu lacks: a run's name may be in any script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def _legible(name: str, most: int = _NAME) -> str:
    """A name as text of a figure: on one line, not too long, and never taken for a formula or for hidden."""
    name = " ".join(name.split())
    name = name if len(name) <= most else f"{name[: most * 2 // 3]}…{name[-most // 3 + 1 :]}"
    return f" {name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")
