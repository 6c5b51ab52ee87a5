"""Figures of runs and results: scores over the horizon, and how trainings went. PNG or SVG, by suffix, or in a page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from foreframe import disk

# Okabe and Ito (2008): told apart under the common kinds of colour blindness. Yellow is left out: faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_GREY, _INK = "#6b7280", "#1e2126"
_EDGE, _GRID = "#9aa0a8", "#e4e6ea"
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

# The custom properties of a page that stand for these colours, so that figures inside it follow light and dark.
_PROPERTIES = {
    **{colour.lower(): f"c{number}" for number, colour in enumerate(COLOURS)},
    _GREY: "soft",
    _INK: "ink",
    _EDGE: "edge",
    _GRID: "line",
}
_STROKES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (2, 1.2)))
_NAME = 42
"""Letters of a name in a legend, at most."""

# Panels of `training_figure`: title, unit, whether the axis is logarithmic, and (key of the log, label) of each curve.
_PANELS: tuple[tuple[str, str, bool, tuple[tuple[str, str], ...]], ...] = (
    ("Loss", "", True, (("loss", "loss"), ("reconstruction", "reconstruction"))),
    ("KL divergence", "nats", False, (("kl_nats", "KL"),)),
    ("KL weight", "beta", False, (("beta", "beta"),)),
    ("Teacher forcing", "share of true frames", False, (("forcing", "forcing"),)),
    ("Learning rate", "", True, (("lr", "learning rate"),)),
    (
        "Validation PSNR",
        "dB",
        False,
        (
            ("val_prediction_psnr", "prediction"),
            ("val_reconstruction_psnr", "reconstruction (saw the target)"),
            ("val_one_step_psnr", "one step"),
            ("val_repeat_last_psnr", "repeat last frame"),
        ),
    ),
)


def per_frame_figure(
    curves: Mapping[str, Mapping[str, Any]],
    context: int,
    ylabel: str,
    title: str,
    path: str | Path,
    baselines: Sequence[str] = (),
) -> None:
    """Write a score over the horizon, one curve for each name, with a band where it has an interval.

    Frame numbers start at 1 and count the K context frames, so the first score stands over K + 1.

    Args:
        curves: Name to "per_frame" (T scores) and perhaps "per_frame_ci95" (T pairs [low, high], or None).
        baselines: Names drawn grey and dashed; a name that says repeat, mean frame or baseline is one anyway.
        path: Ends in .png or .svg.
    Raises:
        ValueError: no curve, an interval of another length than its curve, or another suffix.
        DiskError: the disk refused; a figure that was there is untouched.
    """
    disk.put(Path(path), per_frame_picture(curves, context, ylabel, title, path, baselines))


def per_frame_picture(
    curves: Mapping[str, Mapping[str, Any]],
    context: int,
    ylabel: str,
    title: str,
    path: str | Path,
    baselines: Sequence[str] = (),
) -> bytes:
    """What `per_frame_figure` writes."""
    if not curves:
        raise ValueError("curves: expected at least one, got none")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        colours, dashes = cycle(COLOURS), cycle([(0, (5, 2.5)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2))])
        for name, curve in curves.items():
            scores, band = curve["per_frame"], curve.get("per_frame_ci95")
            if band is not None and len(band) != len(scores):
                raise ValueError(f"curve {name!r}: expected {len(scores)} intervals, got {len(band)}")
            frames = range(context + 1, context + 1 + len(scores))
            if name in baselines or any(
                word in name.lower().replace("_", " ") for word in ("repeat", "mean frame", "baseline")
            ):
                axes.plot(frames, scores, color=_GREY, linestyle=next(dashes), linewidth=1.6, label=name, zorder=2)
                continue
            colour = next(colours)
            marker = "o" if len(scores) <= 40 else None
            axes.plot(frames, scores, color=colour, marker=marker, markersize=3.2, linewidth=1.8, label=name, zorder=3)
            if band is not None:
                low, high = zip(*band, strict=True)
                axes.fill_between(frames, low, high, color=colour, alpha=0.18, linewidth=0)
        shaded = any(curve.get("per_frame_ci95") for curve in curves.values())
        given = f"the first {context} were given" if context != 1 else "the first was given"
        bands = "; bands: 95 % interval of the mean over clips" if shaded else ""
        axes.set(xlabel=f"frame ({given}{bands})", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, loc="left", fontweight="bold", fontsize=12)
        figure.legend(loc="outside lower left", ncols=2, fontsize=9.5)  # never on top of a curve
        return encoded(figure, path)


def training_figure(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """How a training went, from the rows of its log: a panel for each kind of number, over steps.

    Rows may lack any key but "step", and numbers that are missing or not finite leave no point; a panel none of whose
    numbers was logged is left out. Prediction and reconstruction PSNR keep their own names.

    Raises:
        ValueError: nothing in the rows can be drawn, or the path ends in neither .png nor .svg.
        DiskError: the disk refused; a figure that was there is untouched.
    """
    drawn = [
        (title, unit, log, found)
        for title, unit, log, keys in _PANELS
        if (found := [(label, *points) for key, label in keys if (points := _points(rows, key))[0]])
    ]
    if not drawn:
        raise ValueError(f"rows: none of the {len(rows)} rows of this log holds a number that can be drawn")
    columns = min(3, len(drawn))
    lines = math.ceil(len(drawn) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(3.9 * columns, 2.9 * lines), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        )
        for place, (title, unit, log, found) in enumerate(drawn, 1):
            _panel(figure.add_subplot(lines, columns, place), title, unit, log, found)
        save(figure, path)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    numbers = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(float(step), float(value)) for step, value in numbers if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _panel(axes: Axes, title: str, unit: str, log: bool, found: list[tuple[str, list[float], list[float]]]) -> None:
    colours = cycle(COLOURS)
    for label, steps, values in found:
        baseline = label.startswith("repeat")
        colour, style = (_GREY, (0, (5, 2.5))) if baseline else (next(colours), "-")
        marker = "o" if len(steps) <= 30 and not baseline else None
        axes.plot(steps, values, color=colour, linestyle=style, linewidth=1.5, marker=marker, markersize=3, label=label)
    lowest = min(min(values) for _, _, values in found)
    if log and lowest > 0 and max(max(values) for _, _, values in found) > 10 * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    elif title in ("Teacher forcing", "KL weight"):
        axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10.5)
    axes.set(xlabel="step", ylabel=unit)
    axes.yaxis.set_major_formatter(lambda value, _: format(value, "g"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    if len(found) > 1:
        axes.legend(loc="best", fontsize=8.5)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure, PNG or SVG by suffix. Raises DiskError: the disk refused; what was there is untouched."""
    disk.put(Path(path), encoded(figure, path))


def encoded(figure: Figure, path: str | Path) -> bytes:
    """What a file of this name holds, PNG or SVG by its suffix."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"{path}: expected a name ending in .png or .svg, got {Path(path).suffix!r}")
    FigureCanvasAgg(figure)
    with _unknown_signs():
        figure.savefig(made := io.BytesIO(), format=kind, metadata={"Date": None} if kind == "svg" else None)
    return made.getvalue()


@dataclass(frozen=True)
class Line:
    """A curve of a `line_figure`: N values over N places, and perhaps a band from `low` to `high` (N each).

    number: Lines of one number share colour and stroke, and a legend names the first of them; None is a baseline,
    grey and dashed. thin: one of many, such as a training of several.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    number: int | None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    thin: bool = False


def line_figure(
    lines: Sequence[Line],
    title: str,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    from_zero: bool = False,
) -> Figure:
    """Curves with a legend under them, small enough for a phone; `encoded` and `inline` write it.

    Args:
        log: A logarithmic axis, where all values are above 0 and they span a factor of ten.
        from_zero: The y axis begins at 0.
    Raises:
        ValueError: no line, or one whose values are not as many as its places.
    """
    if not lines:
        raise ValueError("lines: expected at least one, got none")
    names = {_legible(line.name) for line in lines}
    columns = 1 if max(map(len, names)) > 30 else 2 if max(map(len, names)) > 14 else 3
    height = 2.75 + 0.19 * math.ceil(len(names) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, height), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        dashes = cycle([(0, (5, 2.5)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2))])
        named: dict[str, Any] = {}
        for line in lines:
            if not len(line.x) == len(line.y) == len(line.low or line.y) == len(line.high or line.y):
                raise ValueError(f"line {line.name!r}: {len(line.y)} values and bounds for {len(line.x)} places")
            if line.number is None:
                colour, stroke, width = _GREY, next(dashes), 1.6
            else:
                colour = COLOURS[line.number % len(COLOURS)]
                stroke = _STROKES[line.number % len(_STROKES)]
                width = 1.1 if line.thin else 1.8
            marker = "o" if line.number is not None and len(line.x) <= 30 else None
            (drawn,) = axes.plot(
                line.x, line.y, color=colour, linestyle=stroke, linewidth=width, marker=marker, markersize=3
            )
            named.setdefault(_legible(line.name), drawn)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        values = [value for line in lines for value in line.y]
        if log and min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
        elif from_zero:
            axes.set_ylim(bottom=0)
        axes.set_title(_legible(title, 70), loc="left", fontweight="bold", fontsize=10.5)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.yaxis.set_major_formatter(lambda value, _: format(value, "g"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        figure.legend(
            list(named.values()), list(named), loc="outside lower left", ncols=columns, fontsize=9.5, handlelength=2.2
        )
        with _unknown_signs():
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it has done its work, once for all formats
        return figure


def inline(figure: Figure, number: int) -> str:
    """A figure as an SVG element for a page that defines --ink, --soft, --edge, --line and --c0 to --c6.

    Its text stays text in the page's font. `number` keeps its names apart from those of the page's other figures.
    """
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none"}), _unknown_signs():
        FigureCanvasAgg(figure)
        figure.savefig(made := io.BytesIO(), format="svg", metadata={"Date": None}, transparent=True)
    text = made.getvalue().decode()
    text = re.sub(r"<(metadata|style).*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>f{number}-", text)
    text = re.sub(r'\b(width|height)="[\d.]+pt" ?', "", text, count=2)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    return re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})",
        lambda found: f"{found[1]}: var(--{_PROPERTIES[found[2]]})" if found[2] in _PROPERTIES else found[0],
        text,
    )


@contextmanager
def _unknown_signs() -> Iterator[None]:
    """In here no warning is given of signs that DejaVu lacks: a run's name may be in any script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def _legible(name: str, most: int = _NAME) -> str:
    """A name as text of a figure: on one line, not too long, and never taken for a formula or for hidden."""
    name = " ".join(name.split())
    name = name if len(name) <= most else f"{name[: most * 2 // 3]}…{name[-most // 3 + 1 :]}"
    return f" {name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")
