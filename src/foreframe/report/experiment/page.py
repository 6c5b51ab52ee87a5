"""The page of an experiment: runs side by side, what their scores are worth, and everything needed to doubt them.

One file without script or network, below about 8 MB; beside it the figures as SVG and PNG, and the table as CSV and
Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from foreframe import config, disk, signals
from foreframe.errors import UsageError
from foreframe.report import diagnosis
from foreframe.report.experiment import figures, tables
from foreframe.report.experiment.collect import RunResults
from foreframe.report.experiment.panels import Panel
from foreframe.report.experiment.statistics import Variant, caveats, group, named_runs, run_names, summary
from foreframe.report.html import Picture, Section, TableText, embedded, flat, page
from foreframe.report.plots import encoded
from foreframe.report.results import how_measured, refuse_unlike

GIF_BYTES = 5_200_000
"""All GIFs of a page together; in it they take a third more."""


def write_report(
    runs: Sequence[RunResults],
    out: Path,
    title: str = "Experiment",
    groups: Mapping[str, str] | None = None,
) -> Path:
    """Write the page OUT/index.html, which needs no other file, after its figures and its table; returns its path.

    Runs that differ only in their seed are one variant, whose numbers are means over its runs; each variant is compared
    with the first one, the best one and the best baseline, clip by clip.

    Args:
        runs: Of `collect`, with the same request.
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
    results = [tables.results(variants, metric) for metric in metrics]
    sections = [
        _results(variants, results, metrics[0]),
        Section("Score per frame", figures=[figures.per_frame(variants, metric) for metric in metrics]),
        _takes(variants),
        _training(variants),
        _diagnosis(variants),
        _samples(variants),
        _varied(variants),
        _how_made(variants),
    ]
    files: dict[Path, bytes] = {}
    for drawn in (each for section in sections for each in section.figures):
        signals.poll()
        for kind in ("svg", "png"):
            path = out / "figures" / f"{drawn.name}.{kind}"
            files[path] = encoded(drawn.figure, path)
    notes = [f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes]
    files[out / "results.csv"] = tables.as_csv(variants, metrics)
    files[out / "results.md"] = b"\n".join(map(tables.as_markdown, results))
    files[out / "index.html"] = page(title, [summary(variants), *caveats(variants)], sections, notes).encode()
    disk.put_all(files, [path for path in _earlier(out) if path not in files])
    return out / "index.html"


def _earlier(out: Path) -> list[Path]:
    """Figures that an earlier report may have left, and nothing that somebody else may have put there."""
    ours = re.compile(r"(?:[a-z0-9-]+-per-frame|training-[a-z-]+|best-of-n|take-\d+)\.(?:svg|png)")
    return [path for path in out.glob("figures/*") if ours.fullmatch(path.name)]


def _results(variants: Sequence[Variant], results: Sequence[TableText], metric: str) -> Section:
    protocol = variants[0].runs[0].prediction.protocol
    seeds = (
        " Seeds ±: half the interval that follows from the differences between seeds, pooled over the variants (one "
        "trained once is taken to vary as the others do)."
        if any(len(variant.runs) > 1 for variant in variants)
        else ""
    )
    notes = [
        "Better than: yes or no where no interval of the difference holds 0, else not shown. Differences are paired "
        f"clip by clip, their intervals bootstrapped over clips.{seeds} Each interval stands alone: of twenty "
        "comparisons without any difference, one is claimed by chance.",
        "Reconstruction takes for z the mean of the posterior, which has seen the frame it is scored on: it is no "
        "prediction, and only shows what the decoder can do. Times are the log's steps over steps per second, without "
        "pauses.",
    ]
    if protocol.samples > 1:
        notes.append(f"Best of {protocol.samples} is chosen by the truth, clip by clip.")
    return Section("Results", [*results, tables.runs(variants, metric)], notes=notes)


def _takes(variants: Sequence[Variant]) -> Section:
    drawn = figures.takes(variants)
    note = (
        "The pose lab draws the reconstruction, z at the posterior's mean, and calls it validation PSNR; the mean in "
        "these titles is prediction's."
    )
    if len(variants) > figures.TAKES:
        note = f"The first {figures.TAKES} of {len(variants)} variants are drawn."
    return Section("Over the whole take", figures=drawn, notes=[note] if drawn else ())


def _training(variants: Sequence[Variant]) -> Section:
    drawn, missing = figures.training(variants)
    notes = [f"Not in any log: {', '.join(missing)}."] if missing else ()
    return Section("Training", [tables.ends(variants)], drawn, notes)


def _diagnosis(variants: Sequence[Variant]) -> Section:
    best_of_n = figures.best_of_n(variants)
    runs = named_runs(variants)
    terms = diagnosis.terms(runs)
    return Section(
        "What the scores hide",
        diagnosis.tables(runs),
        [best_of_n] if best_of_n else (),
        diagnosis.remarks(runs),
        folded=[("What these columns mean", terms)] if terms else (),
    )


def _samples(variants: Sequence[Variant]) -> Section:
    """Panels of each run, as many as the page has room for: the first of every run, then the second ..."""
    runs = named_runs(variants)
    taken: list[list[Picture]] = [[] for _ in runs]
    left, room = 0, GIF_BYTES
    for panels in zip_longest(*(run.panels for _, run in runs)):
        for pictures, panel in zip(taken, panels, strict=True):
            if panel is None:
                continue
            if len(panel.gif) > room:
                left += 1
                continue
            room -= len(panel.gif)
            pictures.append(_picture(panel))
    notes = [
        "Evenly spaced clips; of the samples that were scored, the best, the median and the worst by mean PSNR. Green "
        "frames were given, red ones are predicted."
    ]
    if left:
        notes.append(f"{left} more did not fit on this page; they lie in eval/report of their runs.")
    shown = [(name, pictures) for (name, _), pictures in zip(runs, taken, strict=True) if pictures]
    return Section("Samples", notes=notes if shown or left else (), pictures=shown)


def _picture(panel: Panel) -> Picture:
    scores = ", ".join(f"{name} {value:.2f} dB" for name, value in panel.psnr.items())
    part = f"; the first {panel.shown} of {panel.length} frames" if panel.shown < panel.length else ""
    return embedded(panel.gif, f"{panel.clip}: {scores}{part}", f"Truth and samples of {panel.clip}")


def _varied(variants: Sequence[Variant]) -> Section:
    table = tables.settings(variants)
    if table is not None:
        note = "Settings in which these runs differ; all others are the same."
    elif sum(len(variant.runs) for variant in variants) == 1:
        note = "A single run."
    else:
        note = "Nothing: these runs have the same settings and the same seed."
    return Section("What was varied", [table] if table is not None else (), notes=[note])


def _how_made(variants: Sequence[Variant]) -> Section:
    run = variants[0].runs[0]
    folded = [
        ("Protocol, in full", flat(config.to_dict(run.prediction.protocol))),
        (f"All settings of {variants[0].names[0]}", flat(config.to_dict(run.config))),
    ]
    return Section("How this was made", [tables.machines(variants)], folded=folded)
