"""Figures of a run and of a result: PSNR over the horizon, and how the training went. PNG or SVG, by suffix."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
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
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#9aa0a8",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "foreframe",
}

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
    figure.savefig(made := io.BytesIO(), format=kind, metadata={"Date": None} if kind == "svg" else None)
    return made.getvalue()
