"""Charts of a training, from the rows of its log: one for each quantity, over steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from foreframe.report.plots import Chart, Line, line_figure

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Quantity:
    """What is drawn over the steps of a training, from one key of the log."""

    key: str
    title: str
    unit: str
    caption: str
    log: bool = False
    from_zero: bool = False
    baseline: str = ""
    by_epoch: bool = False
    """Also the mean of each epoch: single steps are too noisy to be compared."""


QUANTITIES = (
    Quantity("loss", "Loss", "", "The objective: reconstruction + beta times KL.", log=True,
             by_epoch=True),
    Quantity("reconstruction", "Reconstruction term", "", "The loss without the KL; z has seen the target.", log=True,
             by_epoch=True),
    Quantity("kl_nats", "KL divergence", "nats a frame", "Of the posterior from the prior, on training clips. Near 0, "
             "z carries no information.", by_epoch=True),
    Quantity("beta", "KL weight", "beta", "The weight of the KL over the training (KL annealing).", from_zero=True),
    Quantity("forcing", "Teacher forcing ratio", "share of true frames", "The probability that a step is fed the true "
             "frame before it and not its own.", from_zero=True),
    Quantity("lr", "Learning rate", "", "With its schedule.", log=True),
    Quantity("val_prediction_psnr", "Validation PSNR, prediction", "dB", "Own frames fed back, z from the prior; "
             "checkpoints are chosen by it.", baseline="val_repeat_last_psnr"),
    Quantity("val_reconstruction_psnr", "Validation PSNR, reconstruction", "dB", "z is the mean of the "
             "posterior, which has seen the target: not a prediction.", baseline="val_repeat_last_psnr"),
    Quantity("val_one_step_psnr", "Validation PSNR, one step", "dB", "Each frame from the true frames before it."),
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """The log of a training as a line: named, of a color by its number, thin where several share both."""

    name: str
    number: int
    log: Rows
    thin: bool = False


def training_charts(trainings: Sequence[Training]) -> dict[Quantity, Chart]:
    """A chart for each quantity that a log holds, with a line for each training.

    Rows may lack any key but "step"; numbers that are missing or not finite leave no point. Where rows are of several
    epochs, a point stands at the end of each, the mean of its rows, and the line of the rows is faint.
    """
    charts = {}
    for quantity in QUANTITIES:
        lines = [line for one in trainings for line in _lines(one, quantity)]
        if not lines:
            continue
        title = f"{quantity.title} (points: epochs)" if any(line.dots for line in lines) else quantity.title
        if quantity.baseline:
            x, y = max((_points(one.log, quantity.baseline) for one in trainings), key=lambda points: len(points[0]))
            lines += [Line("repeat last frame", x, y, None)] if x else []
        charts[quantity] = Chart(title, "step", quantity.unit, lines, log=quantity.log, from_zero=quantity.from_zero)
    return charts


def training_figure(log: Rows) -> Figure:
    """All charts of one training.

    Raises:
        ValueError: no number in the rows can be drawn.
    """
    charts = training_charts([Training("", 0, log)])
    if not charts:
        raise ValueError(f"log: none of its {len(log)} rows holds a number that can be drawn")
    return line_figure(*charts.values(), size=(3.9, 2.7))


def final(rows: Rows, key: str) -> float | None:
    """The last number of a key; of the quantities that an epoch smooths, the mean of the last one's rows."""
    _, values = _points(rows, key)
    smooth = any(quantity.by_epoch for quantity in QUANTITIES if quantity.key == key)
    _, means = _epochs(rows, key) if smooth else ([], [])
    return next(iter([*means[-1:], *values[-1:]]), None)


def _lines(one: Training, quantity: Quantity) -> list[Line]:
    """The rows of a training, and before them the means of its epochs where there are several."""
    x, y = _points(one.log, quantity.key)
    ends, means = _epochs(one.log, quantity.key) if quantity.by_epoch else ([], [])
    several = len(means) > 1
    line = Line(one.name, x, y, one.number, thin=one.thin or several, faint=several)
    return [
        *([Line(one.name, ends, means, one.number, thin=one.thin, dots=True)] if several else []),
        *([line] if x else []),
    ]


def _epochs(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    """The last logged step of each epoch, and the mean of its rows."""
    by_epoch: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if isinstance(row.get("epoch"), int):
            by_epoch.setdefault(row["epoch"], []).append(row)
    points = [_points(found, key) for found in by_epoch.values()]
    return [x[-1] for x, _ in points if x], [sum(y) / len(y) for _, y in points if y]


def _points(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    numbers = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(float(step), float(value)) for step, value in numbers if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]
