"""A result as a table, and as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foreframe import disk


def result_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a result: the model by the name of its mode, best-of-N, and the free baselines."""
    protocol = result["protocol"]
    metrics = list(protocol["metrics"])
    header = [
        f"{protocol['clips']} clips, frames {protocol['context'] + 1} to {protocol['context'] + protocol['horizon']}"
    ]
    rows = [[_mode_name(protocol), *(_cell(result["scores"][name]) for name in metrics)]]
    if "best_of_n" in result:
        name = f"{protocol['mode']}, best of {protocol['samples']} (each metric by itself)"
        rows.append([name, *(_cell(result["best_of_n"][metric]) for metric in metrics)])
    labels = {"repeat_last": "repeat last context frame", "median_frame": "median frame of the training clips"}
    for baseline, scores in result["baselines"].items():
        rows.append([labels.get(baseline, baseline), *(_cell(scores[name]) for name in metrics)])
    header += [f"{name.upper()} (dB)" if name.startswith("psnr") else name.upper() for name in metrics]
    if "fvd" in result:
        found = [result["fvd"]["value"], *result["fvd"]["baselines"].values()]
        if "best_of_n" in result:  # no sample is chosen: all of them are one set
            found.insert(1, None)
        header.append("FVD")
        for row, value in zip(rows, found, strict=True):
            row.append("" if value is None else f"{value:.2f}")
    return header, rows


def print_result(result: dict[str, Any]) -> None:
    """The table on the terminal."""
    header, rows = result_table(result)
    table = Table(box=None, pad_edge=False, title_justify="left", title=f"split {result['protocol']['split']}")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if "fvd" in result:
        known = result["protocol"]["fvd"]
        kind = "context included" if known["context_frames"] else "without context"
        print(f"FVD: {result['fvd']['note']}; {known['length']} frames a clip, {kind}")
    short = result["protocol"]["too_short"]
    if short:
        print(f"not scored, too short for this horizon: {len(short)} clips: {', '.join(short)}")


def write_result(result: dict[str, Any], path: Path) -> Path:
    """The whole result as JSON. Raises DiskError: the disk refused; a result that was there is untouched."""
    disk.put(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return path


def _mode_name(protocol: dict[str, Any]) -> str:
    parts = [protocol["mode"]]
    if protocol["samples"] > 1:
        parts.append(f"mean of {protocol['samples']} samples")
    if protocol["conditions"] != "true":
        parts.append(f"{protocol['conditions']} conditions")
    return ", ".join(parts)


def _cell(summary: dict[str, Any]) -> str:
    if summary["ci95"] is None:
        return f"{summary['mean']:.3f}"
    return f"{summary['mean']:.3f} [{summary['ci95'][0]:.3f}, {summary['ci95'][1]:.3f}]"
