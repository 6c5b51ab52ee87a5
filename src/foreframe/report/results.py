"""Results of `evaluate` as files and tables: one alone, or several of one protocol side by side."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foreframe import config, disk
from foreframe.errors import ConfigError, UsageError
from foreframe.evaluation import MeasuredProtocol, Result
from foreframe.metrics import METRICS, Difference, Summary, format_mean
from foreframe.metrics.statistics import paired_difference, unpaired_difference

ABOUT_THE_CLIPS = ("clips", "clip_names_sha256", "data_sha256", "too_short")
"""Entries in which results may differ and still be compared, but not clip by clip."""
BASELINES = {"repeat_last": "repeat last context frame", "median_frame": "median frame of the training clips"}
"""Trivial baselines, as tables call them."""


def write_json(result: object, path: Path) -> Path:
    """A result or a diagnosis as JSON.

    Raises:
        DiskError: the disk refused; a file that was there is untouched.
    """
    disk.put(path, json.dumps(config.to_dict(result), indent=1, allow_nan=False) + "\n")
    return path


def read_result(path: Path) -> Result:
    """A result that `foreframe evaluate` wrote.

    Raises:
        ConfigError: not found, or an entry is missing, unknown or contradicts another; the message names it.
    """
    try:
        result = config.from_dict(Result, config.read_json(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: not a result of `foreframe evaluate`: {error}") from error
    if set(result.scores) != set(result.protocol.metrics) or not result.scores:
        raise ConfigError(f"{path}: scores: expected those of the metrics in its protocol")
    for name, summary in result.scores.items():
        if not summary.per_clip:
            raise ConfigError(f"{path}: scores.{name}.per_clip: expected a number for each clip, found none")
        if not math.isclose(summary.mean, sum(summary.per_clip) / len(summary.per_clip), rel_tol=1e-6, abs_tol=1e-9):
            raise ConfigError(f"{path}: scores.{name}: its mean is not that of its clips; was it edited?")
    if (result.fvd is None) != (result.protocol.fvd is None):
        raise ConfigError(f"{path}: fvd: expected a value together with its protocol, found one of them")
    return result


def result_table(result: Result) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a result: the model by the name of its mode, best-of-N, and the trivial baselines."""
    protocol = result.protocol
    last = protocol.context + protocol.horizon
    header = [f"{protocol.clips} clips, frames {protocol.context + 1} to {last}", *map(label, protocol.metrics)]
    rows = [_row(_mode_name(protocol), protocol, result.scores)]
    if result.best_of_n is not None:
        name = f"{protocol.mode}, best of {protocol.samples} (each metric separately)"
        rows.append(_row(name, protocol, result.best_of_n))
    rows += [_row(BASELINES.get(name, name), protocol, scores) for name, scores in result.baselines.items()]
    if result.fvd is not None:
        values = [f"{value:.2f}" for value in (result.fvd.value, *result.fvd.baselines.values())]
        if result.best_of_n is not None:  # no sample is chosen: all of them are one set
            values.insert(1, "")
        header.append("FVD")
        rows = [[*row, value] for row, value in zip(rows, values, strict=True)]
    return header, rows


def print_result(result: Result) -> None:
    """The table on the terminal."""
    protocol = result.protocol
    print_table(*result_table(result), f"split {protocol.split}")
    if result.fvd is not None and protocol.fvd is not None:
        kind = "context included" if protocol.fvd.context_frames else "without context"
        print(f"FVD: {result.fvd.note}; {protocol.fvd.length} frames a clip, {kind}")
    if protocol.too_short:
        listed = ", ".join(protocol.too_short)
        print(f"not scored, too short for this horizon: {len(protocol.too_short)} clips: {listed}")


def label(metric: str) -> str:
    """`PSNR (dB)`, `SSIM`."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{metric.upper()} ({unit})" if unit else metric.upper()


@dataclass(frozen=True)
class Compared:
    """A result beside the first one; over_first: its differences from that, by metric."""

    name: str
    scores: dict[str, Summary]
    over_first: dict[str, Difference]

    @property
    def cells(self) -> list[str]:
        """With 95 % intervals; a difference whose interval excludes 0 ends in *."""
        scores = {metric: format_mean(summary.mean, summary.ci95) for metric, summary in self.scores.items()}
        return [self.name, *(text for metric in scores for text in (scores[metric], self._difference(metric)))]

    def _difference(self, metric: str) -> str:
        found = self.over_first.get(metric)
        return "" if found is None else f"{format_mean(found.mean, found.ci95, 3, '+')}{' *' * found.significant}"


@dataclass(frozen=True)
class Comparison:
    """Results of one protocol."""

    protocol: dict[str, Any]
    results: list[Compared]
    fvd: dict[str, float]
    """By name, if all have it: one number for a set of clips, without interval or difference clip by clip."""

    @property
    def header(self) -> list[str]:
        columns = [column for name in self.results[0].scores for column in (label(name), f"{label(name)}: difference")]
        return ["result", *columns, *(["FVD"] if self.fvd else [])]

    @property
    def rows(self) -> list[list[str]]:
        return [one.cells + ([f"{self.fvd[one.name]:.2f}"] if self.fvd else []) for one in self.results]


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare results with the first of them.

    Raises:
        UsageError: fewer than two, or unequal protocols; each difference is named.
        ConfigError: a file is not a result.
    """
    if len(paths) < 2:
        raise UsageError(f"expected two results or more to compare, found {len(paths)}")
    results = [read_result(path) for path in paths]
    protocols = [how_measured(one) for one in results]
    names = _names(paths, results)
    fvd = {name: one.fvd.value for name, one in zip(names, results, strict=True) if one.fvd is not None}
    if len(fvd) < len(results):  # where one was scored without it, the rest compares
        protocols, fvd = [{**one, "fvd": None} for one in protocols], {}
    methods = [{key: value for key, value in one.items() if key not in ABOUT_THE_CLIPS} for one in protocols]
    refuse_unlike(list(map(str, paths)), methods)
    compared = [Compared(names[0], results[0].scores, {})]
    for name, other, protocol in zip(names[1:], results[1:], protocols[1:], strict=True):
        same = all(protocols[0][key] == protocol[key] for key in ABOUT_THE_CLIPS)
        difference = paired_difference if same else unpaired_difference
        over_first = {
            metric: difference(first.per_clip, other.scores[metric].per_clip)
            for metric, first in results[0].scores.items()
        }
        compared.append(Compared(name, other.scores, over_first))
    return Comparison(protocols[0], compared, fvd)


def how_measured(result: Result) -> dict[str, Any]:
    """A result's protocol without the entry about the model that was scored. Whatever was recorded was given to a model
    that neither predicts measured states nor does without: where there are none, and in earlier results."""
    found = {key: value for key, value in config.to_dict(result.protocol).items() if key != "model_sha256"}
    return found if found["measured"] in ("predicted", "unused") else {**found, "measured": "given"}


def refuse_unlike(names: Sequence[str], protocols: Sequence[dict[str, Any]]) -> None:
    """Raises UsageError for results measured in different ways; each difference from the first is named."""
    unlike = []
    for name, protocol in zip(names[1:], protocols[1:], strict=True):
        lines = config.differences(protocols[0], protocol)
        unlike += [f"{names[0]} and {name}:", *(f"  {line}" for line in lines)] if lines else []
    if unlike:
        listed = "\n  ".join(unlike)
        raise UsageError(f"these were measured in different ways, so their numbers do not compare:\n  {listed}")


def print_comparison(found: Comparison) -> None:
    """The table on the terminal, and its legend."""
    print_table(found.header, found.rows)
    how = next(iter(found.results[-1].over_first.values())).how
    print(f"in brackets: 95 % intervals; difference from the first: {how}; * excludes 0")


def write_comparison(found: Comparison, path: Path) -> None:
    """By the ending of the name: .json with every number, .csv or .md with the table.

    Raises:
        UsageError: another ending.
        DiskError: the disk refused.
    """
    if path.suffix == ".json":
        values = {name: value for name, value in config.to_dict(found).items() if value != {}}
        disk.put(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    elif path.suffix == ".csv":
        disk.put(path, csv_text([found.header, *found.rows]))
    elif path.suffix == ".md":
        disk.put(path, markdown(found.header, found.rows))
    else:
        raise UsageError(f"--out: expected a name that ends in .json, .csv or .md, found {path}")


def csv_text(lines: Sequence[Sequence[Any]]) -> str:
    """Lines of cells as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return text.getvalue()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its text escaped; all columns but the first hold numbers."""
    escaped = [
        [re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(cell.split())) for cell in line] for line in (header, *rows)
    ]
    lines = [f"| {' | '.join(line)} |\n" for line in escaped]
    return "".join([lines[0], "|---" + "|---:" * (len(header) - 1) + "|\n", *lines[1:]])


def _names(paths: Sequence[Path], results: Sequence[Result]) -> list[str]:
    """The names of the runs if they are distinct, else the paths."""
    runs = [str(path) if one.model is None else one.model.run for one, path in zip(results, paths, strict=True)]
    return runs if len(set(runs)) == len(runs) else [str(path) for path in paths]


def _row(name: str, protocol: MeasuredProtocol, scores: dict[str, Summary]) -> list[str]:
    return [name, *(format_mean(scores[metric].mean, scores[metric].ci95) for metric in protocol.metrics)]


def _mode_name(protocol: MeasuredProtocol) -> str:
    parts = [str(protocol.mode)]
    if protocol.samples > 1:
        parts.append(f"mean of {protocol.samples} samples")
    if protocol.conditions != "true":
        parts.append(f"{protocol.conditions} conditions")
    if protocol.measured in ("given", "predicted"):
        parts.append(f"measured states {protocol.measured}")
    return ", ".join(parts)


def print_table(
    header: Sequence[str] | None, rows: Sequence[Sequence[str]], title: str | None = None, text: Sequence[int] = (0,)
) -> None:
    """A table on the terminal; all columns but those of the numbers `text` are set to the right."""
    table = Table(box=None, pad_edge=False, show_header=header is not None, title_justify="left", title=title)
    for number, name in enumerate(header or [""] * max(map(len, rows))):
        table.add_column(name, justify="left" if number in text else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
