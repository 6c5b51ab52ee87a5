"""A grid as it would be trained, in words: every setting of every variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foreframe import config, disk
from foreframe.sweep import Grid
from foreframe.sweep.scales import ScaleName, scaled

Settings = dict[str, dict[str, Any]]


def settings(grid: Grid, scale: ScaleName) -> Settings:
    """By variant and dotted name."""
    return {name: config.flatten(config.to_dict(scaled(train, scale))) for name, train in grid.variants.items()}


def text(found: Settings) -> str:
    """A table of the settings in which variants differ, a column each; then those that all share."""
    rows = {
        name: [config.shown(values[name]) if name in values else "-" for values in found.values()]
        for name in dict.fromkeys(name for values in found.values() for name in values)
    }
    apart = [[name, *cells] for name, cells in rows.items() if len(set(cells)) > 1]
    shared = [[name, cells[0]] for name, cells in rows.items() if len(set(cells)) == 1]
    return f"{_aligned([['', *found], *apart])}\n\nin all of them\n{_aligned(shared)}"


def write(found: Settings, path: Path) -> None:
    """As JSON, for other programs. Raises DiskError."""
    disk.put(path, json.dumps(found, indent=1) + "\n")


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
