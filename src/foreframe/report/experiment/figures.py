"""The figures of an experiment: scores over frames, trainings over steps, best of N, and whole takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from foreframe.metrics import METRICS
from foreframe.report.experiment.statistics import Variant, label
from foreframe.report.plots import Line, line_figure
from foreframe.report.results import BASELINES

TAKES = 6
"""Variants whose take is drawn in a figure of its own, at most."""


@dataclass(frozen=True)
class Drawn:
    """A figure, the name of its files, and what stands under it."""

    file: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class _Quantity:
    """What is drawn over the steps of a training, from one key of the log."""

    key: str
    title: str
    unit: str
    caption: str
    log: bool = False
    from_zero: bool = False
    baseline: str = ""


_QUANTITIES = (
    _Quantity("loss", "Loss", "", "What training lowers: reconstruction + beta times KL.", log=True),
    _Quantity("reconstruction", "Reconstruction term", "", "The loss without the KL; z has seen the target.", log=True),
    _Quantity("kl_nats", "KL divergence", "nats a frame", "Posterior from prior, of the training clips. Near 0, z says "
              "nothing."),
    _Quantity("beta", "KL weight", "beta", "The weight of the KL over the training (KL annealing).", from_zero=True),
    _Quantity("forcing", "Teacher forcing ratio", "share of true frames", "The probability that a step is fed the true "
              "frame before it and not its own.", from_zero=True),
    _Quantity("lr", "Learning rate", "", "With its schedule.", log=True),
    _Quantity("val_prediction_psnr", "Validation PSNR, prediction", "dB", "Own frames fed back, z from the prior; "
              "checkpoints are chosen by it.", baseline="val_repeat_last_psnr"),
    _Quantity("val_reconstruction_psnr", "Validation PSNR, reconstruction", "dB", "z from the posterior, which has "
              "seen the target: not a prediction.", baseline="val_repeat_last_psnr"),
)  # fmt: skip


def per_frame(variants: Sequence[Variant], metric: str) -> Drawn:
    """A metric over the horizon, a curve for each variant, and the trivial baselines."""
    protocol = variants[0].runs[0].prediction.protocol
    lines = [_over_frames(variant, number, metric, protocol.context) for number, variant in enumerate(variants)]
    for name, found in variants[0].runs[0].prediction.baselines.items():
        curve = found[metric].per_frame
        lines.append(Line(BASELINES.get(name, name), _frames(curve, protocol.context), curve, None))
    known, several = protocol.context, any(len(variant.runs) > 1 for variant in variants)
    given = "the first was given" if known == 1 else f"the first {known} were given"
    bands = "Bands: 95 % intervals of the mean over clips"
    bands += "; of several seeds, from the lowest to the highest." if several else "."
    samples = protocol.samples
    what = f"Mean of {samples} samples of each clip. " if samples > 1 else ""
    figure = line_figure(lines, f"{label(metric)} per frame", f"frame ({given})", label(metric))
    return Drawn(f"{metric}-per-frame", f"{what}{bands}", figure)


def _frames(curve: Sequence[float], known: int) -> list[float]:
    return [float(frame) for frame in range(known + 1, known + 1 + len(curve))]


def _over_frames(variant: Variant, number: int, metric: str, known: int) -> Line:
    summaries = [run.prediction.scores[metric] for run in variant.runs]
    curves = np.array([summary.per_frame for summary in summaries])
    mean = curves.mean(0).tolist()
    low = high = None
    if len(summaries) > 1:
        low, high = curves.min(0).tolist(), curves.max(0).tolist()
    elif summaries[0].per_frame_ci95 is not None:
        low, high = (list(bound) for bound in zip(*summaries[0].per_frame_ci95, strict=True))
    return Line(variant.name, _frames(mean, known), mean, number, low, high)


def training(variants: Sequence[Variant]) -> tuple[list[Drawn], list[str]]:
    """A figure for each quantity in the logs, a curve for each run; and the titles of those that no log has."""
    drawn, left = [], []
    for quantity in _QUANTITIES:
        lines = []
        for number, variant in enumerate(variants):
            for run in variant.runs:
                steps, values = _points(run.log, quantity.key)
                if steps:
                    lines.append(Line(variant.name, steps, values, number, thin=len(variant.runs) > 1))
        if not lines:
            left.append(quantity.title)
            continue
        if quantity.baseline:
            logs = [run.log for variant in variants for run in variant.runs]
            steps, values = max((_points(log, quantity.baseline) for log in logs), key=lambda found: len(found[0]))
            if steps:
                lines.append(Line("repeat last frame", steps, values, None))
        figure = line_figure(lines, quantity.title, "step", quantity.unit, quantity.log, quantity.from_zero)
        drawn.append(Drawn(f"training-{quantity.key.replace('_', '-')}", quantity.caption, figure))
    return drawn, left


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    numbers = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(float(step), float(value)) for step, value in numbers if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def best_of_n(variants: Sequence[Variant]) -> Drawn | None:
    """The PSNR of the best of N samples over N; None where no run's diagnosis has more than one sample."""
    lines = []
    for number, variant in enumerate(variants):
        found = [run.diagnosis.spread.best_of_n.psnr for run in variant.runs if run.diagnosis is not None]
        if len(found) != len(variant.runs) or len(found[0]) < 2:
            continue
        sizes = list(found[0])
        values = np.array([[curve[size].mean for size in sizes] for curve in found])
        low = high = None
        if len(found) > 1:
            low, high = values.min(0).tolist(), values.max(0).tolist()
        elif all(intervals := [found[0][size].ci95 for size in sizes]):
            low, high = (list(bound) for bound in zip(*intervals, strict=True))
        lines.append(Line(variant.name, [float(size) for size in sizes], values.mean(0).tolist(), number, low, high))
    if not lines:
        return None
    caption = (
        "PSNR of the best of N samples of a clip, chosen by its mean over frames: what a table of best-of-N gains by N "
        "alone. Bands: 95 % intervals over clips; of several seeds, from the lowest to the highest."
    )
    return Drawn("best-of-n", caption, line_figure(lines, "Best of N", "N, samples of a clip", "PSNR (dB)"))


def takes(variants: Sequence[Variant]) -> list[Drawn]:
    """PSNR per frame over the whole take, a figure for each variant with the mean in its title: the pose lab's form.

    Only for runs conditioned on pose pictures. The lab draws reconstruction alone; here prediction leads.
    """
    if variants[0].runs[0].config.spec.cond != "image" or "psnr" not in METRICS:
        return []
    drawn = []
    for number, variant in enumerate(variants[:TAKES]):
        runs = variant.runs
        if "psnr" not in runs[0].prediction.scores:
            return []
        known = runs[0].prediction.protocol.context
        predicted, rebuilt = (
            np.array([getattr(run, mode).scores["psnr"].per_frame for run in runs]).mean(0).tolist()
            for mode in ("prediction", "reconstruction")
        )
        free = runs[0].prediction.baselines["repeat_last"]["psnr"].per_frame
        places = _frames(predicted, known)
        lines = [
            Line("prediction", places, predicted, number),
            Line("reconstruction: has seen each frame", places, rebuilt, number + 1, thin=True),
            Line(BASELINES["repeat_last"], places, free, None),
        ]
        mean = sum(predicted) / len(predicted)
        figure = line_figure(lines, f"PSNR per frame, mean {mean:.2f} dB", "frame", "PSNR (dB)")
        caption = f"{variant.name}, over the whole take; the mean is that of prediction."
        drawn.append(Drawn(f"take-{number + 1}", caption, figure))
    return drawn
