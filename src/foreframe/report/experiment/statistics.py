"""The numbers of an experiment: runs grouped by what was varied, their scores, and what may be claimed of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foreframe import config
from foreframe.errors import UsageError
from foreframe.metrics import METRICS, Difference, Summary, summarize, t_quantile
from foreframe.metrics.statistics import paired_difference
from foreframe.report.experiment.gather import RunResults
from foreframe.report.results import BASELINES

NAMED = 6
"""Names that a sentence lists, at most."""
_NOT_VARIED = ("data.path", "foreframe", "train.seed")
"""Settings in which runs of one variant may differ: where clips lie, which version trained, the seed."""


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed; names: of the runs, each its own."""

    name: str
    runs: tuple[RunResults, ...]
    names: tuple[str, ...]

    @property
    def seeds(self) -> list[int]:
        return [run.config.train.seed for run in self.runs]


@dataclass(frozen=True)
class Score:
    """Of one variant and metric: the mean over runs and clips, its interval over clips, and the mean of each run.

    per_clip: mean over the runs.
    """

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
class Apart:
    """How far a second score is from a first, clip by clip.

    seeds: half the 95 % interval that follows from the noise between seeds; None where no variant has several.
    """

    clips: Difference
    seeds: float | None

    @property
    def told(self) -> bool:
        """Whether no interval holds 0: only then may the difference be claimed."""
        return self.clips.significant and (self.seeds is None or abs(self.clips.mean) > self.seeds)


def run_names(runs: Sequence[RunResults]) -> list[str]:
    """The folders' last names where these tell the runs apart, else their paths."""
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
    parts: dict[Any, list[int]] = {}
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        key = groups[name] if groups is not None else repr(sorted(_settings(run, _NOT_VARIED).items()))
        parts.setdefault(key, []).append(number)
    made: list[Variant] = []
    for key, numbers in parts.items():
        own = [names[number] for number in numbers]
        name = key if groups is not None else _shared([(names[n], runs[n].config.train.seed) for n in numbers])
        if any(name == other.name for other in made):
            name = own[0]
        made.append(Variant(name, tuple(runs[number] for number in numbers), tuple(own)))
    return made


def _settings(run: RunResults, without: tuple[str, ...]) -> dict[str, Any]:
    flat = config.flatten(config.to_dict(run.config))
    return {name: value for name, value in flat.items() if name not in without}


def _shared(runs: Sequence[tuple[str, int]]) -> str:
    """What names are alike in but for the seed they end with; of a single run its name, else the first."""
    if len(runs) == 1:
        return runs[0][0]
    without = {re.sub(rf"[-_. ]*(?:seed|s)?[-_. ]*{seed}$", "", name) for name, seed in runs}
    (name,) = without if len(without) == 1 else {""}
    return name or runs[0][0]


def varied(variants: Sequence[Variant]) -> tuple[list[str], list[list[str]]]:
    """What the variants' settings differ in, and nothing else: names, and of each variant the values."""
    flat = [[_settings(run, _NOT_VARIED[:2]) for run in variant.runs] for variant in variants]
    names = list(dict.fromkeys(name for runs in flat for values in runs for name in values))
    every = [values for runs in flat for values in runs]
    names = [name for name in names if len({repr(values.get(name, _ABSENT)) for values in every}) > 1]
    rows = [
        [", ".join(dict.fromkeys(_setting(values.get(name, _ABSENT)) for values in runs)) for name in names]
        for runs in flat
    ]
    return names, rows


_ABSENT = "(absent)"


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
    found = {name: scores[metric] for name, scores in run.prediction.baselines.items()}
    return {BASELINES.get(name, name): Score(one.mean, one.ci95, one.per_clip, []) for name, one in found.items()}


def seed_noise(found: Sequence[Score]) -> SeedNoise | None:
    """Over variants of which one at least has several runs: their variance is taken to be the same, as in an ANOVA."""
    df = sum(len(score.by_run) - 1 for score in found)
    if not df:
        return None
    squares = [(run - sum(score.by_run) / len(score.by_run)) ** 2 for score in found for run in score.by_run]
    return SeedNoise(math.sqrt(sum(squares) / df), df)


def apart(first: Score, second: Score, noise: SeedNoise | None = None) -> Apart:
    """How much higher the second is; a score with no runs, such as a baseline's, has no noise between seeds."""
    seeds = None
    if noise is not None:
        error = noise.deviation * math.sqrt(sum(1 / len(score.by_run) for score in (first, second) if score.by_run))
        seeds = t_quantile(0.975, noise.df) * error
    return Apart(paired_difference(first.per_clip, second.per_clip), seeds)


def label(metric: str) -> str:
    """`PSNR (dB)`, `SSIM`."""
    unit = METRICS[metric].unit
    return f"{metric.upper()} ({unit})" if unit else metric.upper()


def number(metric: str, value: float, sign: str = "") -> str:
    """A score, or with sign `+` a difference of two, in the decimals that mean something."""
    decimals = 2 if METRICS[metric].unit and not sign else 3 if METRICS[metric].unit else 4
    return format(value, f"{sign}.{decimals}f")


def between(metric: str, interval: Sequence[float] | None, sign: str = "") -> str:
    """An interval in brackets, empty where there is none."""
    return "" if interval is None else f" [{number(metric, interval[0], sign)}, {number(metric, interval[1], sign)}]"


def stated(metric: str, score: Score) -> str:
    """`21.30 dB [20.95, 21.66]`."""
    unit = METRICS[metric].unit
    return f"{number(metric, score.mean)}{' ' + unit if unit else ''}{between(metric, score.ci95)}"


def by_how_much(metric: str, found: Apart) -> str:
    """`+0.420 dB [+0.300, +0.550]`, and what seeds make of it."""
    unit = METRICS[metric].unit
    return (
        f"{number(metric, found.clips.mean, '+')}{' ' + unit if unit else ''}"
        f"{between(metric, found.clips.ci95, '+')}{from_seeds(metric, found)}"
    )


def from_seeds(metric: str, found: Apart) -> str:
    """`, seeds ±0.120`; empty where nothing is known of seeds."""
    return "" if found.seeds is None else f", seeds ±{number(metric, found.seeds, '-')}"


def summary(variants: Sequence[Variant]) -> str:
    """One paragraph on who is best by how much and what that is worth; no difference is claimed whose interval holds 0.

    By the first metric of the protocol, and where another says otherwise, by that; intervals are of 95 % over the
    clips, and where there are several seeds over these too.
    """
    run = variants[0].runs[0]
    metric, *others = run.prediction.protocol.metrics
    found = scores(variants, metric)
    sentences = [_what_was_done(variants, run), *_ranking(variants, found, metric)]
    sentences += _over_free(variants, found, metric)
    for other in others:
        sentences += _otherwise(variants, _order(found, metric)[0], other)
    return " ".join([*sentences, *_reservations(variants, run)])


def _what_was_done(variants: Sequence[Variant], run: RunResults) -> str:
    protocol, count = run.prediction.protocol, sum(len(variant.runs) for variant in variants)
    runs = "One run was" if count == 1 else f"{count} runs were"
    if 1 < count != len(variants):
        runs = f"{count} runs of {_count(len(variants), 'variant')} were"
    samples = protocol.samples
    averaged = f", the scores of {samples} samples of each clip averaged" if samples > 1 else ""
    return (
        f"{runs} scored on {_count(protocol.clips, 'clip')} of the split {protocol.split} of "
        f"{run.prediction.data}: {_count(protocol.context, 'frame')} given, the {protocol.horizon} after "
        f"{'it' if protocol.context == 1 else 'them'} predicted{averaged}."
    )


def _ranking(variants: Sequence[Variant], found: Sequence[Score], metric: str) -> list[str]:
    lower = METRICS[metric].lower_is_better
    best, *others = _order(found, metric)
    name, score = variants[best].name, stated(metric, found[best])
    if not others:
        return [f"{name} scores {score} in {metric.upper()}."]
    word, mean = ("below", "lowest") if lower else ("above", "highest")
    noise = seed_noise(found)
    steps = {other: apart(found[other], found[best], noise) for other in others}
    told = [f"{variants[i].name} ({by_how_much(metric, steps[i])})" for i in others if steps[i].told]
    not_told = [f"{variants[i].name} ({by_how_much(metric, steps[i])})" for i in others if not steps[i].told]
    begin = f"The {mean} mean {metric.upper()} is {name}'s, {score}"
    if not told:
        return [f"{begin}, but an interval of its difference from each other one holds 0: these clips name no winner."]
    sentences = [f"{begin}; clip by clip it is {word} {_listed(told)}."]
    if not_told:
        sentences.append(f"It is not told apart from {_listed(not_told)}: an interval holds 0.")
    return sentences


def _order(found: Sequence[Score], metric: str) -> list[int]:
    """Places of scores, the best first."""
    lower = METRICS[metric].lower_is_better
    return sorted(range(len(found)), key=lambda place: found[place].mean, reverse=not lower)


def _otherwise(variants: Sequence[Variant], best: int, metric: str) -> list[str]:
    """Where a further metric puts another variant before the best one, or doing nothing before any."""
    lower, found = METRICS[metric].lower_is_better, scores(variants, metric)
    noise, free = seed_noise(found), baselines(variants[0].runs[0], metric)

    def beats(step: Apart) -> bool:
        return step.told and (step.clips.mean < 0) == lower

    steps = {place: apart(found[best], score, noise) for place, score in enumerate(found) if place != best}
    before = [f"{variants[place].name} ({by_how_much(metric, step)})" for place, step in steps.items() if beats(step)]
    sentences = [f"By {metric.upper()}, better than {variants[best].name}: {_listed(before)}."] if before else []
    for name, baseline in free.items():
        below = [
            variant.name for variant, score in zip(variants, found, strict=True) if beats(apart(score, baseline, noise))
        ]
        if below:
            sentences.append(
                f"By {metric.upper()}, {name} ({number(metric, baseline.mean)}) is better than {_listed(below)}."
            )
    return sentences


def _over_free(variants: Sequence[Variant], found: Sequence[Score], metric: str) -> list[str]:
    free = baselines(variants[0].runs[0], metric)
    lower, noise = METRICS[metric].lower_is_better, seed_noise(found)
    scored = _listed([f"{name} {number(metric, score.mean)}" for name, score in free.items()])
    hardest = (min if lower else max)(free, key=lambda name: free[name].mean)
    better: list[str] = []
    worse: list[str] = []
    neither: list[str] = []
    for variant, score in zip(variants, found, strict=True):
        step = apart(free[hardest], score, noise)
        gain = -step.clips.mean if lower else step.clips.mean
        kind = neither if not step.told else better if gain > 0 else worse
        kind.append(f"{variant.name} ({by_how_much(metric, step)})")
    parts = [f"Trivial baselines: {scored}."]
    if better:
        parts.append(f"Better than {hardest}: {_listed(better)}.")
    if neither:
        parts.append(f"Not told apart from {hardest}: {_listed(neither)}.")
    if worse:
        parts.append(f"Worse than {hardest}, that is than doing nothing: {_listed(worse)}.")
    return parts


def _reservations(variants: Sequence[Variant], run: RunResults) -> list[str]:
    """What a careful reader would ask."""
    found = []
    once = [variant.name for variant in variants if len(variant.runs) == 1]
    if len(variants) > 1 and len(once) == len(variants):
        found.append("Each was trained once, so nothing here says what another seed would give.")
    elif len(variants) > 1 and once:
        found.append(f"Trained once, so without a spread between seeds: {_listed(once)}.")
    split = run.prediction.protocol.split
    if any(one.provenance.chosen_on_split == split for variant in variants for one in variant.runs):
        found.append(f"Checkpoints were chosen by their score on this same split, {split}: that flatters them.")
    short = [
        f"{name} ({one.last_step} of {one.config.train.steps} steps)"
        for variant in variants
        for name, one in zip(variant.names, variant.runs, strict=True)
        if one.last_step < one.config.train.steps
    ]
    if short:
        found.append(f"Stopped before the end of training: {_listed(short)}.")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    shown = list(parts[:NAMED])
    if len(parts) > NAMED:
        shown.append(f"{len(parts) - NAMED} more in the table")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
