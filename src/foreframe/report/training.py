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


QUANTITIES = (
    Quantity("loss", "Loss", "", "The objective: reconstruction + beta times KL.", log=True),
    Quantity("reconstruction", "Reconstruction term", "", "The loss without the KL; z has seen the target.", log=True),
    Quantity("kl_nats", "KL divergence", "nats a frame", "Of the posterior from the prior, on training clips. Near 0, "
             "z carries no information."),
    Quantity("beta", "KL weight", "beta", "The weight of the KL over the training (KL annealing).", from_zero=True),
    Quantity("forcing", "Teacher forcing ratio", "share of true frames", "The probability that a step is fed the true "
             "frame before it and not its own.", from_zero=True),
    Quantity("lr", "Learning rate", "", "With its schedule.", log=True),
    Quantity("val_prediction_psnr", "Validation PSNR, prediction", "dB", "Own frames fed back, z from the prior; "
             "checkpoints are chosen by it.", baseline="val_repeat_last_psnr"),
    Quantity("val_reconstruction_psnr", "Validation PSNR, reconstruction", "dB", "z from the posterior, which has "
             "seen the target: not a prediction.", baseline="val_repeat_last_psnr"),
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

    Rows may lack any key but "step"; numbers that are missing or not finite leave no point.
    """
    charts = {}
    for quantity in QUANTITIES:
        curves = [(one, *_points(one.log, quantity.key)) for one in trainings]
        lines = [Line(one.name, x, y, one.number, thin=one.thin) for one, x, y in curves if x]
        if not lines:
            continue
        if quantity.baseline:
            x, y = max((_points(one.log, quantity.baseline) for one in trainings), key=lambda points: len(points[0]))
            lines += [Line("repeat last frame", x, y, None)] if x else []
        charts[quantity] = Chart(
            quantity.title, "step", quantity.unit, lines, log=quantity.log, from_zero=quantity.from_zero
        )
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


def _points(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    numbers = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(float(step), float(value)) for step, value in numbers if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]
