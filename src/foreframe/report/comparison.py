"""Results of `evaluate` side by side: only of one protocol, with differences whose intervals mean something."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foreframe import config, disk
from foreframe.errors import ConfigError, UsageError
from foreframe.metrics.paired import Difference, paired_difference, unpaired_difference

ABOUT_THE_MODEL = ("model_sha256",)
"""Entries of a protocol that say what was scored, and not how."""
ABOUT_THE_CLIPS = ("clips", "clip_names_sha256", "data_sha256", "too_short")
"""Entries in which results may differ and still be set side by side, but not clip by clip."""


@dataclass(frozen=True)
class Comparison:
    """Results of one protocol; each is compared with the first.

    names: of the results. scores: of each, the summary by metric. differences: of each from the first, by metric.
    """

    names: list[str]
    metrics: list[str]
    scores: list[dict[str, Any]]
    differences: list[dict[str, Difference]]
    protocol: dict[str, Any]
    fvd: list[float]
    """Of each, if all have it: one number for a set of clips, which has no interval and no difference clip by clip."""

    @property
    def header(self) -> list[str]:
        columns = [f"{name} (dB)" if name.startswith("psnr") else name for name in self.metrics]
        fvd = ["FVD"] if self.fvd else []
        return ["result", *(text for name in columns for text in (name, f"{name}: over the first")), *fvd]

    @property
    def rows(self) -> list[list[str]]:
        """Cells with 95 % intervals; a difference whose interval leaves out 0 ends in *."""
        found = []
        for name, scores, apart in zip(self.names, self.scores, self.differences, strict=True):
            cells = [
                text for metric in self.metrics for text in (_cell(scores[metric]), _difference(apart.get(metric)))
            ]
            found.append([name, *cells])
        for row, value in zip(found, self.fvd, strict=False):
            row.append(f"{value:.2f}")
        return found


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare results with the first of them.

    Raises:
        UsageError: fewer than two, or protocols that are not alike; each difference is named.
        ConfigError: a file is not a result.
    """
    if len(paths) < 2:
        raise UsageError(f"expected two results or more to compare, found {len(paths)}")
    results = [read_result(path) for path in paths]
    protocols = [how_measured(one) for one in results]
    together = all("fvd" in one for one in protocols)
    if not together:  # where one was scored without it, the rest compares
        protocols = [{key: value for key, value in one.items() if key != "fvd"} for one in protocols]
    refuse_unlike(list(map(str, paths)), list(map(_method, protocols)))
    metrics = list(results[0]["scores"])
    differences: list[dict[str, Difference]] = [{}]
    for other, protocol in zip(results[1:], protocols[1:], strict=True):
        same = all(protocols[0].get(key) == protocol.get(key) for key in ABOUT_THE_CLIPS)
        of = paired_difference if same else unpaired_difference
        differences.append(
            {name: of(results[0]["scores"][name]["per_clip"], other["scores"][name]["per_clip"]) for name in metrics}
        )
    fvd = [one["fvd"]["value"] for one in results] if together else []
    scores = [one["scores"] for one in results]
    return Comparison(_names(paths, results), metrics, scores, differences, protocols[0], fvd)


def how_measured(result: dict[str, Any]) -> dict[str, Any]:
    """A result's protocol without what is about the model."""
    return {key: value for key, value in result["protocol"].items() if key not in ABOUT_THE_MODEL}


def refuse_unlike(names: Sequence[str], protocols: Sequence[dict[str, Any]]) -> None:
    """Raises UsageError for results measured in different ways; each difference from the first is named."""
    unlike = []
    for name, protocol in zip(names[1:], protocols[1:], strict=True):
        lines = config.differences(protocols[0], protocol)
        unlike += [f"{names[0]} and {name}:", *(f"  {line}" for line in lines)] if lines else []
    if unlike:
        listed = "\n  ".join(unlike)
        raise UsageError(f"these were measured in different ways, so their numbers do not compare:\n  {listed}")


def read_result(path: Path) -> dict[str, Any]:
    """A result that `foreframe evaluate` wrote.

    Raises:
        ConfigError: there is none, or something in it is not as it is written; the message names it.
    """
    result = config.read_json(path)
    if not isinstance(result, dict) or not isinstance(result.get("protocol"), dict):
        raise ConfigError(f"{path}: not a result of `foreframe evaluate` (it has no protocol)")
    scores = result.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise ConfigError(f"{path}: scores: expected a group of metrics, found {scores!r:.60}")
    if set(scores) != set(result["protocol"].get("metrics") or ()):
        raise ConfigError(f"{path}: its scores are not of the metrics in its protocol")
    for name, summary in scores.items():
        values = summary.get("per_clip") if isinstance(summary, dict) else None
        known = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not known or not values or type(summary.get("mean")) not in (int, float):
            raise ConfigError(f"{path}: scores.{name}: expected a mean and numbers per_clip")
        if not math.isclose(summary["mean"], sum(values) / len(values), rel_tol=1e-6, abs_tol=1e-9):
            raise ConfigError(f"{path}: scores.{name}: its mean is not that of its clips; was it edited?")
    if "fvd" in result["protocol"]:
        fvd = result.get("fvd")
        if not isinstance(fvd, dict) or type(fvd.get("value")) not in (int, float):
            raise ConfigError(f"{path}: fvd: expected a value, as its protocol says, found {fvd!r:.60}")
    return result


def print_comparison(found: Comparison) -> None:
    """The table on the terminal, and what its signs mean."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(found.header):
        table.add_column(name, justify="right" if number else "left")
    for row in found.rows:
        table.add_row(*row)
    Console().print(table)
    how = next(iter(found.differences[-1].values()))["how"]
    print(f"in brackets: 95 % intervals; over the first: {how}; * leaves out 0")


def write_comparison(found: Comparison, path: Path) -> None:
    """By the ending of the name: .json with every number, .csv or .md with the table.

    Raises:
        UsageError: another ending.
        DiskError: the disk refused.
    """
    if path.suffix == ".json":
        values: dict[str, Any] = {
            "protocol": found.protocol,
            "results": [
                {"name": name, "scores": scores, "over_first": apart}
                for name, scores, apart in zip(found.names, found.scores, found.differences, strict=True)
            ],
        }
        if found.fvd:
            values["fvd"] = dict(zip(found.names, found.fvd, strict=True))
        disk.put(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    elif path.suffix == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([found.header, *found.rows])
        disk.put(path, text.getvalue())
    elif path.suffix == ".md":
        lines = [found.header, ["---"] * len(found.header), *found.rows]
        disk.put(path, "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines))
    else:
        raise UsageError(f"--out: expected a name that ends in .json, .csv or .md, found {path}")


def _method(protocol: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key not in ABOUT_THE_CLIPS}


def _names(paths: Sequence[Path], results: Sequence[dict[str, Any]]) -> list[str]:
    """The run's name where that tells them apart, else the path."""
    runs = [str((one.get("model") or {}).get("run") or path) for one, path in zip(results, paths, strict=True)]
    return runs if len(set(runs)) == len(runs) else [str(path) for path in paths]


def _cell(summary: dict[str, Any]) -> str:
    interval = summary.get("ci95")
    bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{summary['mean']:.3f}{bounds}"


def _difference(apart: Difference | None) -> str:
    if apart is None:
        return ""
    interval = apart["ci95"]
    bounds = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""
    return f"{apart['mean']:+.3f}{bounds}{' *' if apart['significant'] else ''}"
