"""The numbers of an experiment: runs grouped by what was varied, their scores, and what may be claimed about them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from foreframe import config
from foreframe.data.ingest.report import count
from foreframe.errors import UsageError
from foreframe.metrics import METRICS, Difference, Summary, format_mean, summarize, t_quantile
from foreframe.metrics.statistics import paired_difference
from foreframe.report.experiment.collect import RunResults
from foreframe.report.html import listed
from foreframe.report.results import BASELINES

NAMED = 6
"""Names that a sentence lists, at most."""
_NOT_VARIED = ("data.path", "foreframe", "train.seed")
"""Settings in which runs of one variant may differ: where clips lie, which version trained, the seed."""
_ABSENT = "(absent)"


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed; names: of the runs, each its own."""

    name: str
    runs: tuple[RunResults, ...]
    names: tuple[str, ...]

    @property
    def seeds(self) -> list[int]:
        return [run.config.train.seed for run in self.runs]


def named_runs(variants: Sequence[Variant]) -> list[tuple[str, RunResults]]:
    """All runs, each with its name."""
    return [pair for variant in variants for pair in zip(variant.names, variant.runs, strict=True)]


@dataclass(frozen=True)
class Score:
    """Of one variant and metric: the mean over runs and clips, its interval over clips, each clip's mean over runs."""

    mean: float
    ci95: tuple[float, float] | None
    per_clip: tuple[float, ...]
    by_run: list[float]


@dataclass(frozen=True)
class SeedNoise:
    """How much scores differ from seed to seed: a deviation pooled over the variants, and its degrees of freedom."""

    deviation: float
    df: int


@dataclass(frozen=True)
class ScoreDifference:
    """A second score minus a first, clip by clip.

    seeds: half the 95 % interval that follows from the noise between seeds; None where no variant has several.
    """

    clips: Difference
    seeds: float | None

    @property
    def is_significant(self) -> bool:
        """Whether no interval holds 0: only then may the difference be claimed."""
        return self.clips.significant and (self.seeds is None or abs(self.clips.mean) > self.seeds)


def run_names(runs: Sequence[RunResults]) -> list[str]:
    """The folders' last names where these differ, else their paths."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.run) for run in runs]


def group(names: Sequence[str], runs: Sequence[RunResults], groups: Mapping[str, str] | None = None) -> list[Variant]:
    """Runs of one variant together, in the order of their first runs.

    Args:
        groups: Name of a run to its variant; without it, runs whose settings differ only in the seed are one variant.
    Raises:
        UsageError: `groups` leaves a run out.
    """
    if groups is not None and (left := [name for name in names if name not in groups]):
        raise UsageError(f"groups: expected the variant of each run, found none of {', '.join(left)}")
    parts: dict[str, list[tuple[str, RunResults]]] = {}
    for name, run in zip(names, runs, strict=True):
        key = groups[name] if groups is not None else repr(sorted(_settings(run, _NOT_VARIED).items()))
        parts.setdefault(key, []).append((name, run))
    made: list[Variant] = []
    for key, part in parts.items():
        name = key if groups is not None else _shared([(name, run.config.train.seed) for name, run in part])
        if any(name == other.name for other in made):
            name = part[0][0]
        made.append(Variant(name, tuple(run for _, run in part), tuple(name for name, _ in part)))
    return made


def _settings(run: RunResults, without: tuple[str, ...]) -> dict[str, Any]:
    flat = config.flatten(config.to_dict(run.config))
    return {name: value for name, value in flat.items() if name not in without}


def _shared(runs: Sequence[tuple[str, int]]) -> str:
    """What names are alike in but for the seed they end with; else the first."""
    if len(runs) == 1:
        return runs[0][0]
    without = {re.sub(rf"[-_. ]*(?:seed|s)?[-_. ]*{seed}$", "", name) for name, seed in runs}
    (name,) = without if len(without) == 1 else {""}
    return name or runs[0][0]


def varied(variants: Sequence[Variant]) -> tuple[list[str], list[list[str]]]:
    """What the variants' settings differ in, and nothing else: names, and of each variant the values."""
    flat = [[_settings(run, _NOT_VARIED[:2]) for run in variant.runs] for variant in variants]
    every = [values for runs in flat for values in runs]
    names = [
        name
        for name in dict.fromkeys(name for values in every for name in values)
        if len({repr(values.get(name, _ABSENT)) for values in every}) > 1
    ]
    found = [[[values.get(name, _ABSENT) for values in runs] for name in names] for runs in flat]
    return names, [[", ".join(dict.fromkeys(map(_setting, values))) for values in row] for row in found]


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else config.shown(value)


def score_of(summaries: Sequence[Summary]) -> Score:
    """The score of a variant from its runs' summaries of the same clips."""
    if len(summaries) == 1:
        (one,) = summaries
        return Score(one.mean, one.ci95, one.per_clip, [one.mean])
    means = torch.tensor([summary.per_clip for summary in summaries], dtype=torch.float64).mean(0)
    whole = summarize(means[:, None])
    return Score(whole.mean, whole.ci95, whole.per_clip, [summary.mean for summary in summaries])


def scores(variants: Sequence[Variant], metric: str) -> list[Score]:
    """Of each variant's predictions, the mean of the samples."""
    return [score_of([run.prediction.scores[metric] for run in variant.runs]) for variant in variants]


def baselines(run: RunResults, metric: str) -> dict[str, Score]:
    """Trivial baselines, by their names in tables; the same for all runs on these clips."""
    found = {BASELINES.get(name, name): scores[metric] for name, scores in run.prediction.baselines.items()}
    return {name: Score(one.mean, one.ci95, one.per_clip, []) for name, one in found.items()}


def seed_noise(found: Sequence[Score]) -> SeedNoise | None:
    """Over variants of which one at least has several runs: their variance is taken to be the same, as in an ANOVA."""
    df = sum(len(score.by_run) - 1 for score in found)
    if not df:
        return None
    squares = [(run - sum(score.by_run) / len(score.by_run)) ** 2 for score in found for run in score.by_run]
    return SeedNoise(math.sqrt(sum(squares) / df), df)


def difference(first: Score, second: Score, noise: SeedNoise | None = None) -> ScoreDifference:
    """Second minus first; a score with no runs, such as a baseline's, has no noise between seeds."""
    seeds = None
    if noise is not None:
        error = noise.deviation * math.sqrt(sum(1 / len(score.by_run) for score in (first, second) if score.by_run))
        seeds = t_quantile(0.975, noise.df) * error
    return ScoreDifference(paired_difference(first.per_clip, second.per_clip), seeds)


def verdict(metric: str, found: ScoreDifference) -> Literal["yes", "no", "not shown"]:
    """Whether the second score is better than the first: claimed either way only where no interval holds 0."""
    if not found.is_significant:
        return "not shown"
    return "yes" if (found.clips.mean < 0) == METRICS[metric].lower_is_better else "no"


def best(metric: str, found: Sequence[Score]) -> int:
    """The place of the best mean."""
    choose = min if METRICS[metric].lower_is_better else max
    return choose(range(len(found)), key=lambda place: found[place].mean)


def format_number(metric: str, value: float, sign: str = "") -> str:
    """A score, or with sign `+` a difference of two, in the decimals that mean something."""
    return format(value, f"{sign}.{_decimals(metric, sign)}f")


def format_score(metric: str, score: Score) -> str:
    """`21.30 [20.95, 21.66]`."""
    return format_mean(score.mean, score.ci95, _decimals(metric, ""))


def format_difference(metric: str, found: ScoreDifference) -> str:
    """`+0.420 [+0.300, +0.550], seeds ±0.120`; the last part only where several seeds were trained."""
    seeds = "" if found.seeds is None else f", seeds ±{format_number(metric, found.seeds, '-')}"
    return f"{format_mean(found.clips.mean, found.clips.ci95, _decimals(metric, '+'), '+')}{seeds}"


def _decimals(metric: str, sign: str) -> int:
    return 4 if not METRICS[metric].unit else 3 if sign else 2


def summary(variants: Sequence[Variant]) -> str:
    """What was scored, and how."""
    run = variants[0].runs[0]
    protocol, number = run.prediction.protocol, sum(len(variant.runs) for variant in variants)
    counted = count(number, "run") + (f" of {count(len(variants), 'variant')}" if number > len(variants) else "")
    averaged = f"; scores are means over {protocol.samples} samples of each clip" if protocol.samples > 1 else ""
    return (
        f"{counted}, scored on {count(protocol.clips, 'clip')} of the split {protocol.split} of {run.prediction.data}: "
        f"{count(protocol.context, 'frame')} given, {protocol.horizon} predicted{averaged}."
    )


def caveats(variants: Sequence[Variant]) -> list[str]:
    """Up to three sentences on what limits the results."""
    runs = named_runs(variants)
    split = runs[0][1].prediction.protocol.split
    once = [variant.name for variant in variants if len(variant.runs) == 1]
    stopped = [
        f"{name} ({run.last_step} of {run.config.train.steps} steps)"
        for name, run in runs
        if run.last_step < run.config.train.steps
    ]
    found = []
    if len(variants) > 1 and once:
        found.append(f"Trained with one seed, so the variation between seeds is unknown: {listed(once, NAMED)}.")
    if any(run.provenance.chosen_on_split == split for _, run in runs):
        found.append(f"Checkpoints were chosen on the split that is scored, {split}: the scores are optimistic.")
    if stopped:
        found.append(f"Stopped before the end of training: {listed(stopped, NAMED)}.")
    return found
