"""The tables of an experiment, for its page and for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreframe.report.experiment.collect import RunResults
from foreframe.report.experiment.statistics import (
    Score,
    ScoreDifference,
    SeedNoise,
    Variant,
    baselines,
    best,
    difference,
    format_difference,
    format_number,
    format_score,
    named_runs,
    score_of,
    scores,
    seed_noise,
    varied,
    verdict,
)
from foreframe.report.html import TableText, duration, text_table
from foreframe.report.results import csv_text, label, markdown
from foreframe.report.training import final

LAST = {
    "loss": "loss",
    "reconstruction": "reconstruction term",
    "kl_nats": "KL (nats a frame)",
    "val_prediction_psnr": "validation, prediction (dB)",
    "val_reconstruction_psnr": "validation, reconstruction (dB)",
}


def results(variants: Sequence[Variant], metric: str) -> TableText:
    """Scores of variants and baselines, each compared with the first variant, the best one and the best baseline."""
    several = any(len(variant.runs) > 1 for variant in variants)
    first = variants[0].runs[0]
    found, trivial = scores(variants, metric), baselines(first, metric)
    every, noise = [*found, *trivial.values()], seed_noise(found)
    names = [*(variant.name for variant in variants), *(f"{name} (baseline)" for name in trivial)]
    columns = {"variant" if several else "run": names, label(metric): [format_score(metric, score) for score in every]}
    if several:
        columns["seeds"] = [str(len(score.by_run)) if score.by_run else "" for score in every]
        columns["from seed to seed"] = [_seed_to_seed(metric, score) for score in every]
    references = {variants[place].name: found[place] for place in (0, best(metric, found))} if len(variants) > 1 else {}
    hardest = list(trivial)[best(metric, list(trivial.values()))]
    for name, reference in {**references, hardest: trivial[hardest]}.items():
        columns[f"better than {name}"] = _better(metric, reference, every, noise)
    caption = f"{metric.upper()} of prediction, split {first.prediction.protocol.split}"
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return text_table(f"{caption}; in brackets 95 % intervals over clips", list(columns), rows)


def _better(metric: str, reference: Score, every: Sequence[Score], noise: SeedNoise | None) -> list[str]:
    """Of each score: yes, no or not shown, and its difference from the reference."""
    found = [None if score is reference else difference(reference, score, noise) for score in every]
    return ["" if one is None else f"{verdict(metric, one)}: {format_difference(metric, one)}" for one in found]


def _seed_to_seed(metric: str, score: Score) -> str:
    if len(score.by_run) < 2:
        return ""
    return f"{format_number(metric, min(score.by_run))} to {format_number(metric, max(score.by_run))}"


def runs(variants: Sequence[Variant], main: str) -> TableText:
    """Scores and lengths of each run."""
    samples = variants[0].runs[0].prediction.protocol.samples
    header = ["run", "seed", "step scored", f"{label(main)}, prediction"]
    header += [f"best of {samples}"] if samples > 1 else []
    header += ["reconstruction", "trained", "took"]
    rows = []
    for name, run in named_runs(variants):
        found = [run.prediction.scores, run.prediction.best_of_n, run.reconstruction.scores]
        rows.append(
            [
                name,
                str(run.config.train.seed),
                f"{run.provenance.step:,}",
                *(format_number(main, scores[main].mean) for scores in found if scores is not None),
                f"{run.last_step:,} of {run.config.train.steps:,} steps",
                _time_taken(run),
            ]
        )
    return text_table("Each run", header, rows)


def ends(variants: Sequence[Variant]) -> TableText:
    """Each training at its end, as the legends of the pose lab's figures give it: last values, step and duration."""
    named = named_runs(variants)
    last = {name: [final(run.log, key) for _, run in named] for key, name in LAST.items()}
    last = {name: values for name, values in last.items() if any(value is not None for value in values)}
    rows = [
        [
            name,
            *("" if values[place] is None else f"{values[place]:.4g}" for values in last.values()),
            f"{run.last_step:,}",
            _time_taken(run),
        ]
        for place, (name, run) in enumerate(named)
    ]
    caption = "At the end of training; loss, reconstruction and KL are means of the last epoch's logged steps"
    return text_table(caption, ["run", *last, "step", "took"], rows)


def _time_taken(run: RunResults) -> str:
    """From the rows of the log: the rate of each holds for the steps up to it."""
    seconds, last = 0.0, 0
    for row in run.log:
        rate = row.get("steps_per_second")
        if isinstance(rate, int | float) and rate > 0:
            seconds, last = seconds + (row["step"] - last) / rate, row["step"]
    return duration(seconds) if last else "not recorded"


def settings(variants: Sequence[Variant]) -> TableText | None:
    """The settings in which the variants differ; None where there are none."""
    names, rows = varied(variants)
    cells = [[variant.name, *row] for variant, row in zip(variants, rows, strict=True)]
    return text_table("Settings", ["variant", *names], cells) if names else None


def machines(variants: Sequence[Variant]) -> TableText:
    """What each run was trained and scored with."""
    header = ["run", "trained on", "torch", "foreframe", "scored on", "threads", "scored at"]
    rows = []
    for name, run in named_runs(variants):
        trained_on, torch = (str(run.environment.get(key, "not recorded")) for key in ("device", "torch"))
        now, created = run.prediction.hardware, run.prediction.created
        rows.append([name, trained_on, torch, str(run.config.foreframe), now.device, str(now.threads), created])
    return text_table("Machines and versions", header, rows, text=len(header))


def as_csv(variants: Sequence[Variant], metrics: Sequence[str]) -> bytes:
    """The table for other programs: a line for each variant, run and baseline, numbers as they are."""
    header = ["name", "kind", "runs"]
    for metric in metrics:
        header += [metric, f"{metric}_low", f"{metric}_high"]
        header += [f"{metric}_over_first{part}" for part in ("", "_low", "_high", "_seeds", "_marked")]
    by_variant = list(zip(*(scores(variants, metric) for metric in metrics), strict=True))
    trivial = [baselines(variants[0].runs[0], metric) for metric in metrics]
    listed: list[tuple[str, str, int | str, Sequence[Score]]] = []
    for variant, means in zip(variants, by_variant, strict=True):
        listed.append((variant.name, "variant", len(variant.runs), means))
        for name, run in named_runs([variant]) if len(variant.runs) > 1 else ():
            listed.append((name, "run", 1, [score_of([run.prediction.scores[metric]]) for metric in metrics]))
    listed += [(name, "baseline", "", [found[name] for found in trivial]) for name in trivial[0]]
    noises = [seed_noise(found) for found in zip(*by_variant, strict=True)]
    lines = []
    for name, kind, number, found in listed:
        line: list[Any] = [name, kind, number]
        for first, score, noise in zip(by_variant[0], found, noises, strict=True):
            line += [score.mean, *(score.ci95 or ("", ""))]
            line += [""] * 5 if score is first or kind == "run" else _over_first(difference(first, score, noise))
        lines.append(line)
    return csv_text([header, *([_safe(cell) for cell in line] for line in lines)]).encode()


def _over_first(found: ScoreDifference) -> list[Any]:
    seeds, marked = "" if found.seeds is None else found.seeds, "yes" if found.is_significant else "no"
    return [found.clips.mean, *(found.clips.ci95 or ("", "")), seeds, marked]


def _safe(cell: Any) -> Any:
    """Text that a spreadsheet would calculate, behind an apostrophe: it is shown as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def as_markdown(table: TableText) -> bytes:
    """A table in Markdown, its text escaped."""
    return markdown([cell.text for cell in table.header], [[cell.text for cell in row] for row in table.rows]).encode()
