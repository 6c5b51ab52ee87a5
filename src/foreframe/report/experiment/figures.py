"""The figures of an experiment: scores over frames, trainings over steps, best of N, and whole takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreframe.metrics.statistics import Interval
from foreframe.report import plots
from foreframe.report.experiment.statistics import Variant
from foreframe.report.html import Drawn
from foreframe.report.plots import Chart, Line, line_figure
from foreframe.report.results import BASELINES, label
from foreframe.report.training import QUANTITIES, Training, training_charts

TAKES = 6
"""Variants whose take is drawn in a figure of its own, at most."""


def per_frame(variants: Sequence[Variant], metric: str) -> Drawn:
    """A metric over the horizon, a curve for each variant, and the trivial baselines."""
    protocol = variants[0].runs[0].prediction.protocol
    lines = [_over_frames(variant, number, metric, protocol.context) for number, variant in enumerate(variants)]
    for name, found in variants[0].runs[0].prediction.baselines.items():
        curve = found[metric].per_frame
        lines.append(plots.per_frame(BASELINES.get(name, name), curve, protocol.context, None))
    several = any(len(variant.runs) > 1 for variant in variants)
    bands = "Bands: 95 % intervals of the mean over clips"
    bands += "; of several seeds, from the lowest to the highest." if several else "."
    samples = protocol.samples
    what = f"Mean of {samples} samples of each clip. " if samples > 1 else ""
    chart = plots.over_frames(f"{label(metric)} per frame", label(metric), protocol.context, lines)
    return Drawn(f"{metric}-per-frame", f"{what}{bands}", line_figure(chart))


def _over_frames(variant: Variant, number: int, metric: str, known: int) -> Line:
    summaries = [run.prediction.scores[metric] for run in variant.runs]
    curves = [summary.per_frame for summary in summaries]
    mean, bands = _mean_and_bands(curves, summaries[0].per_frame_ci95)
    return plots.per_frame(variant.name, mean, known, number, bands)


def _mean_and_bands(
    curves: Sequence[Sequence[float]], intervals: Sequence[Interval] | None
) -> tuple[list[float], Sequence[Interval] | None]:
    """The mean of the curves of several runs, and from the lowest to the highest; of one run its intervals."""
    values = np.array(curves)
    bands = intervals if len(curves) == 1 else list(zip(values.min(0).tolist(), values.max(0).tolist(), strict=True))
    return values.mean(0).tolist(), bands


def training(variants: Sequence[Variant]) -> tuple[list[Drawn], list[str]]:
    """A figure for each quantity in the logs, a curve for each run; and the titles of those that no log has."""
    charts = training_charts(
        [
            Training(variant.name, number, run.log, thin=len(variant.runs) > 1)
            for number, variant in enumerate(variants)
            for run in variant.runs
        ]
    )
    drawn = [
        Drawn(f"training-{quantity.key.replace('_', '-')}", quantity.caption, line_figure(chart))
        for quantity, chart in charts.items()
    ]
    return drawn, [quantity.title for quantity in QUANTITIES if quantity not in charts]


def best_of_n(variants: Sequence[Variant]) -> Drawn | None:
    """The PSNR of the best of N samples over N; None where no run's diagnosis has more than one sample."""
    lines = []
    for number, variant in enumerate(variants):
        found = [run.diagnosis.spread.best_of_n.psnr for run in variant.runs if run.diagnosis is not None]
        if len(found) != len(variant.runs) or len(found[0]) < 2:
            continue
        intervals = [summary.ci95 for summary in found[0].values() if summary.ci95 is not None]
        curves = [[summary.mean for summary in curve.values()] for curve in found]
        mean, bands = _mean_and_bands(curves, intervals or None)
        low, high = zip(*bands, strict=True) if bands else (None, None)
        lines.append(Line(variant.name, [float(size) for size in found[0]], mean, number, low, high))
    if not lines:
        return None
    caption = (
        "PSNR of the best of N samples of a clip, chosen by its mean over frames: what a table of best-of-N gains by N "
        "alone. Bands: 95 % intervals over clips; of several seeds, from the lowest to the highest."
    )
    return Drawn("best-of-n", caption, line_figure(Chart("Best of N", "N, samples of a clip", "PSNR (dB)", lines)))


def takes(variants: Sequence[Variant]) -> list[Drawn]:
    """PSNR per frame over the whole take, a figure for each variant with the mean in its title: the pose lab's form.

    Only for runs conditioned on pose pictures. The lab draws reconstruction alone; here prediction leads.
    """
    first = variants[0].runs[0]
    metric = next((name for name in first.prediction.scores if name.startswith("psnr")), None)
    if first.config.spec.cond != "image" or metric is None:
        return []
    drawn, known = [], first.prediction.protocol.context
    for number, variant in enumerate(variants[:TAKES]):
        runs = variant.runs
        predicted, _ = _mean_and_bands([run.prediction.scores[metric].per_frame for run in runs], None)
        rebuilt, _ = _mean_and_bands([run.reconstruction.scores[metric].per_frame for run in runs], None)
        baseline = runs[0].prediction.baselines["repeat_last"][metric].per_frame
        lines = [
            plots.per_frame("prediction", predicted, known, number),
            plots.per_frame("reconstruction: has seen each frame", rebuilt, known, number + 1),
            plots.per_frame(BASELINES["repeat_last"], baseline, known, None),
        ]
        title = f"{metric.upper()} per frame, mean {sum(predicted) / len(predicted):.2f} dB"
        figure = line_figure(plots.over_frames(title, label(metric), known, lines))
        caption = f"{variant.name}, over the whole take; the mean is that of prediction."
        drawn.append(Drawn(f"take-{number + 1}", caption, figure))
    return drawn
