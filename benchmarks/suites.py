"""Inputs and results of every suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.measure import Advance, Rounds


@dataclass(frozen=True)
class BenchContext:
    """Where and how thoroughly a suite runs. `quick` is a rehearsal: tiny sizes, whose times mean nothing."""

    device: torch.device
    rounds: Rounds = field(default_factory=Rounds)
    quick: bool = False
    advance: Advance = lambda _: None


@dataclass
class Suite:
    """Results of a suite: comparisons (`races`), checks (numbers that are no times), counted work, rows left out."""

    races: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)
    counted: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, row: str, why: str) -> None:
        self.left_out.append({"row": row, "why": why})

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "races": self.races,
            "checks": self.checks,
            "counted": self.counted,
            "left_out": self.left_out,
        }


RunSuite = Callable[[BenchContext], Suite]
