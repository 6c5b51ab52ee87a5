"""The page of an experiment: runs side by side, with what their scores are worth, and everything needed to doubt them.

One file without script or network, below about 8 MB; beside it the figures as SVG and PNG, and the table as CSV and
Markdown.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from foreframe import config, disk, signals
from foreframe.errors import UsageError
from foreframe.report import plots
from foreframe.report.experiment import diagnosis as hidden
from foreframe.report.experiment import figures as experiment_figures
from foreframe.report.experiment.figures import Drawn
from foreframe.report.experiment.gather import Panel, RunResults
from foreframe.report.experiment.statistics import (
    Score,
    SeedNoise,
    Variant,
    apart,
    baselines,
    between,
    from_seeds,
    group,
    label,
    number,
    run_names,
    scores,
    seed_noise,
    summary,
    varied,
)
from foreframe.report.html import flat, render
from foreframe.report.results import how_measured, refuse_unlike

GIF_BYTES = 5_200_000
"""All GIFs of a page together; in it they take a third more."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell of a spreadsheet begins with that is calculated."""


class _Figure(NamedTuple):
    svg: Markup
    caption: str


class _Panel(NamedTuple):
    source: str
    alt: str
    caption: str
    width: int
    height: int


def write_report(
    runs: Sequence[RunResults],
    out: Path,
    title: str = "Experiment",
    groups: Mapping[str, str] | None = None,
) -> Path:
    """Write the page OUT/index.html, which needs no other file, after its figures and its table; returns its path.

    Runs that differ only in their seed are one variant, whose numbers are means over its runs; each variant is compared
    with the first, clip by clip.

    Args:
        runs: Of `gather`, with the same request.
        groups: Name of each run to that of its variant, where that is known better.
    Raises:
        UsageError: no run; or runs scored on unlike data or by unlike protocols, each difference named.
        DiskError: the disk refused; a page that was there is as it was.
    """
    if not runs:
        raise UsageError("expected one run or more to report on, found none")
    names = run_names(runs)
    refuse_unlike(names, [how_measured(run.prediction) for run in runs])
    variants = group(names, runs, groups)
    metrics = list(runs[0].prediction.protocol.metrics)
    files: dict[Path, bytes] = {}
    drawn: list[Drawn] = []

    def shown(new: Sequence[Drawn]) -> list[_Figure]:
        made = []
        for each in new:
            signals.poll()
            drawn.append(each)
            for kind in ("svg", "png"):
                path = out / "figures" / f"{each.file}.{kind}"
                files[path] = plots.encoded(each.figure, path)
            made.append(_Figure(Markup(plots.inline(each.figure, len(drawn))), each.caption))
        return made

    training, left = experiment_figures.training(variants)
    best_of_n = experiment_figures.best_of_n(variants)
    panels, panels_note = _panels(variants)
    settings, rows = varied(variants)
    results = [_results(variants, metric) for metric in metrics]
    page = dict(
        title=title,
        intro=[summary(variants)],
        notes=[f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes],
        results=results,
        results_note=_results_note(variants),
        runs=_runs(variants, metrics),
        runs_note=_runs_note(runs[0]),
        per_frame=shown([experiment_figures.per_frame(variants, metric) for metric in metrics]),
        takes=shown(experiment_figures.takes(variants)),
        takes_note=_takes_note(variants),
        training=shown(training),
        training_note=f"Not in any log: {', '.join(left)}." if left else "",
        diagnosis=hidden.tables(variants),
        terms=hidden.terms(runs),
        remarks=hidden.remarks(variants),
        best_of_n=shown([best_of_n] if best_of_n else []),
        panels=panels,
        panels_note=panels_note,
        varied=_table(
            "Settings", ["variant", *settings], [[v.name, *row] for v, row in zip(variants, rows, strict=True)]
        )
        if settings
        else None,
        not_varied="A single run."
        if len(runs) == 1
        else "Nothing: these runs have the same settings and the same seed.",
        machines=_machines(variants),
        protocol=flat(config.to_dict(runs[0].prediction.protocol)),
        settings=flat(config.to_dict(runs[0].config)),
        first_name=names[0],
    )
    header, lines = _plain(variants, metrics)
    files[out / "results.csv"] = _csv(header, lines)
    files[out / "results.md"] = b"\n".join(map(_markdown, results))
    files[out / "index.html"] = render("experiment.html.j2", **page).encode()
    disk.put_all(files, [path for path in _earlier(out) if path not in files])
    return out / "index.html"


def _earlier(out: Path) -> list[Path]:
    """Figures that an earlier report may have left, and nothing that somebody else may have put there."""
    ours = re.compile(r"(?:[a-z0-9-]+-per-frame|training-[a-z-]+|best-of-n|take-\d+)\.(?:svg|png)")
    return [path for path in out.glob("figures/*") if ours.fullmatch(path.name)]


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> dict[str, Any]:
    """A table for the macro of that name; all columns but the first `text` hold numbers."""

    def cells(row: Sequence[str]) -> list[dict[str, Any]]:
        return [{"text": cell, "number": place >= text} for place, cell in enumerate(row)]

    return {"caption": caption, "header": cells(header), "rows": [cells(row) for row in rows]}


def _results(variants: Sequence[Variant], metric: str) -> dict[str, Any]:
    several = any(len(variant.runs) > 1 for variant in variants)
    first = variants[0].runs[0]
    found, free = scores(variants, metric), baselines(first, metric)
    every, noise = [*found, *free.values()], seed_noise(found)
    columns = {"variant" if several else "run": [*(v.name for v in variants), *(f"{name} (baseline)" for name in free)]}
    columns[label(metric)] = [f"{number(metric, score.mean)}{between(metric, score.ci95)}" for score in every]
    if several:
        columns["seeds"] = [str(len(score.by_run)) if score.by_run else "" for score in every]
        columns["from seed to seed"] = [_seed_to_seed(metric, score) for score in every]
    over = variants[0].name if len(variants) > 1 else "this run"
    columns[f"over {over}"] = ["", *(_over(metric, every[0], score, noise) for score in every[1:])]
    caption = f"{metric.upper()} of prediction, split {first.prediction.protocol.split}"
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return _table(f"{caption}; in brackets 95 % intervals over clips", list(columns), rows)


def _seed_to_seed(metric: str, score: Score) -> str:
    if len(score.by_run) < 2:
        return ""
    return f"{number(metric, min(score.by_run))} to {number(metric, max(score.by_run))}"


def _over(metric: str, first: Score, second: Score, noise: SeedNoise | None) -> str:
    found = apart(first, second, noise)
    mark = " *" if found.told else ""
    interval = between(metric, found.clips.ci95, "+")
    return f"{number(metric, found.clips.mean, '+')}{interval}{from_seeds(metric, found)}{mark}"


def _results_note(variants: Sequence[Variant]) -> str:
    how = "Differences: clip by clip, bootstrap over clips"
    if any(len(variant.runs) > 1 for variant in variants):
        how += (
            "; seeds ±: half the interval that follows from the differences between seeds, pooled over the variants "
            "(one trained once is taken to vary as the others do)"
        )
    return (
        f"{how}. * marks differences of which no interval holds 0. Each interval is by itself: of twenty comparisons "
        "without any difference, one gets a mark by chance."
    )


def _runs(variants: Sequence[Variant], metrics: Sequence[str]) -> dict[str, Any]:
    main = metrics[0]
    samples = variants[0].runs[0].prediction.protocol.samples
    header = ["run", "seed", "step scored", f"{label(main)}, prediction"]
    header += [f"best of {samples}"] if samples > 1 else []
    header += ["reconstruction", "trained", "took"]
    rows = []
    for variant in variants:
        for name, run in zip(variant.names, variant.runs, strict=True):
            best = None if run.prediction.best_of_n is None else run.prediction.best_of_n[main]
            rows.append(
                [
                    name,
                    str(run.config.train.seed),
                    f"{run.provenance.step:,}",
                    number(main, run.prediction.scores[main].mean),
                    *([number(main, best.mean)] if best else []),
                    number(main, run.reconstruction.scores[main].mean),
                    f"{run.last_step:,} of {run.config.train.steps:,} steps",
                    _time_taken(run),
                ]
            )
    return _table("Each run", header, rows)


def _runs_note(run: RunResults) -> str:
    samples = run.prediction.protocol.samples
    parts = [f"Best of {samples} has been chosen by the truth, clip by clip."] if samples > 1 else []
    parts.append(
        "Reconstruction draws z from the posterior, which has seen the frame it is scored on: it is no prediction, and "
        "only shows what the decoder can do. Times are the log's steps over steps per second, without pauses."
    )
    return " ".join(parts)


def _time_taken(run: RunResults) -> str:
    """From the rows of the log: the rate of each holds for the steps up to it."""
    seconds, last = 0.0, 0
    for row in run.log:
        rate = row.get("steps_per_second")
        if isinstance(rate, int | float) and rate > 0:
            seconds, last = seconds + (row["step"] - last) / rate, row["step"]
    if not last:
        return "not recorded"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def _takes_note(variants: Sequence[Variant]) -> str:
    if len(variants) > experiment_figures.TAKES:
        return f"The first {experiment_figures.TAKES} of {len(variants)} variants are drawn."
    return (
        "The pose lab draws the reconstruction and calls it validation PSNR; the mean in these titles is prediction's."
    )


def _machines(variants: Sequence[Variant]) -> dict[str, Any]:
    header = ["run", "trained on", "torch", "foreframe", "scored on", "threads", "scored at"]
    rows = []
    for variant in variants:
        for name, run in zip(variant.names, variant.runs, strict=True):
            then, now = run.environment, run.prediction.hardware
            rows.append(
                [
                    name,
                    *(str(then.get(key, "not recorded")) for key in ("device", "torch")),
                    str(run.config.foreframe),
                    now.device,
                    str(now.threads),
                    run.prediction.created,
                ]
            )
    return _table("Machines and versions", header, rows, text=len(header))


def _panels(variants: Sequence[Variant]) -> tuple[list[tuple[str, list[_Panel]]], str]:
    """Panels of each run, as many as the page has room for: the first of every run, then the second ..."""
    names = [name for variant in variants for name in variant.names]
    runs = [run for variant in variants for run in variant.runs]
    taken: dict[int, list[_Panel]] = {place: [] for place in range(len(runs))}
    left, room = 0, GIF_BYTES
    for number_of in range(max(len(run.panels) for run in runs)):
        for place, run in enumerate(runs):
            if number_of < len(run.panels):
                panel = run.panels[number_of]
                if len(panel.gif) > room:
                    left += 1
                    continue
                room -= len(panel.gif)
                taken[place].append(_panel(panel))
    shown = [(names[place], panels) for place, panels in taken.items() if panels]
    note = (
        "Clips spread evenly over the split; of the samples that were scored, the best, the median and the worst by "
        "mean PSNR. Green frames were given, red ones are predicted."
    )
    if left:
        note += f" {left} more did not fit on this page; they lie in eval/report of their runs."
    return shown, note


def _panel(panel: Panel) -> _Panel:
    with Image.open(io.BytesIO(panel.gif)) as image:
        width, height = image.size
    told = ", ".join(f"{name} {value:.2f} dB" for name, value in panel.psnr.items())
    part = f"; the first {panel.shown} of {panel.length} frames" if panel.shown < panel.length else ""
    source = f"data:image/gif;base64,{base64.b64encode(panel.gif).decode()}"
    return _Panel(source, f"Truth and samples of {panel.clip}", f"{panel.clip}: {told}{part}", width, height)


def _plain(variants: Sequence[Variant], metrics: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """The table for other programs: a line for each variant, run and baseline, numbers as they are."""
    header = ["name", "kind", "runs"]
    for metric in metrics:
        header += [metric, *(f"{metric}_{part}" for part in ("low", "high"))]
        header += [f"{metric}_over_first{part}" for part in ("", "_low", "_high", "_seeds", "_marked")]
    by_metric = [scores(variants, metric) for metric in metrics]
    first, noises = [found[0] for found in by_metric], [seed_noise(found) for found in by_metric]
    lines: list[list[Any]] = []

    def line(name: str, kind: str, runs: int | str, found: Sequence[Score]) -> None:
        cells: list[Any] = [name, kind, runs]
        for reference, score, noise in zip(first, found, noises, strict=True):
            cells += [score.mean, *(score.ci95 or ("", ""))]
            if score is reference or kind == "run":
                cells += [""] * 5
                continue
            step = apart(reference, score, noise)
            seeds = "" if step.seeds is None else step.seeds
            cells += [step.clips.mean, *(step.clips.ci95 or ("", "")), seeds, "yes" if step.told else "no"]
        lines.append(cells)

    for place, variant in enumerate(variants):
        line(variant.name, "variant", len(variant.runs), [found[place] for found in by_metric])
        if len(variant.runs) > 1:
            for name, run in zip(variant.names, variant.runs, strict=True):
                alone = Variant(name, (run,), (name,))
                line(name, "run", 1, [scores([alone], metric)[0] for metric in metrics])
    free = [baselines(variants[0].runs[0], metric) for metric in metrics]
    for name in free[0]:
        line(name, "baseline", "", [found[name] for found in free])
    return header, lines


def _csv(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([_safe(cell) for cell in line] for line in lines)
    return text.getvalue().encode()


def _safe(cell: Any) -> Any:
    """Text that a spreadsheet would calculate, behind an apostrophe: it is shown as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _markdown(table: Mapping[str, Any]) -> bytes:
    def row(cells: Sequence[Mapping[str, Any]]) -> str:
        plain = (re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(cell["text"].split())) for cell in cells)
        return f"| {' | '.join(plain)} |\n"

    rule = "".join("|---:" if cell["number"] else "|---" for cell in table["header"]) + "|\n"
    return "".join([row(table["header"]), rule, *map(row, table["rows"])]).encode()
