"""The table of a sweep: each run's state, step, and latest numbers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable

from foreframe.recipe import RunConfig

PLAIN_SECONDS = 60.0
"""Without a terminal, lines of the running runs are printed this often."""
TAIL = 2**16
"""Bytes at the end of a log that hold its latest numbers."""
SHOWN = (("loss", "loss", ".4f"), ("kl_nats", "KL (nats)", ".2f"), ("val_prediction_psnr", "validation (dB)", ".2f"))


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Cell:
    """One run of a grid: a variant with a seed. skipped: it was finished before this sweep began."""

    variant: str
    seed: int
    record: RunConfig
    folder: Path
    state: State = State.WAITING
    skipped: bool = False

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"


class Table:
    """Drawn in place on a terminal; elsewhere a line when a state changes, and from time to time of running runs."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        console = Console(file=sys.stderr)
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.printed: dict[str, State] = {}
        self.last_time = time.monotonic()

    def show(self, last: bool = False) -> None:
        if self.live is not None:
            table = RichTable("run", "state", "step", *(label for _, label, _ in SHOWN), box=None, pad_edge=False)
            for cell in self.cells:
                table.add_row(*_texts(cell, bare=True))
            self.live.update(table, refresh=True)
            return
        again = time.monotonic() - self.last_time > PLAIN_SECONDS
        for cell in self.cells:
            changed = self.printed.get(cell.name) is not cell.state
            if changed or (again and cell.state is State.RUNNING):
                self.printed[cell.name] = cell.state
                if not (changed and cell.state is State.WAITING) or last:
                    print(f"{cell.name}: {', '.join(filter(None, _texts(cell)[1:]))}", file=sys.stderr, flush=True)
        if again:
            self.last_time = time.monotonic()


def _texts(cell: Cell, bare: bool = False) -> list[str]:
    rows = newest(cell.folder)
    steps = cell.record.train.steps
    state = "done before" if cell.skipped else cell.state.value
    if cell.state is State.RUNNING and rows.get("step") == steps:
        state = "being scored"
    step = f"{rows['step']:,} of {steps:,}" if "step" in rows else ""
    numbers = [
        ((f"{rows[key]:{form}}" if bare else f"{label} {rows[key]:{form}}") if key in rows else "")
        for key, label, form in SHOWN
    ]
    return [cell.name, state, step if bare or not step else f"step {step}", *numbers]


def newest(run: Path) -> dict[str, Any]:
    """The latest value of each number in a run's log; an incomplete row is skipped."""
    found: dict[str, Any] = {}
    try:
        with (run / "log.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.update({key: value for key, value in row.items() if type(value) in (int, float)})
    return found
