"""`python -m benchmarks SUITE --json FILE`, from a checkout: measure this machine against the plain code."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from benchmarks.run import SUITES, SuiteName, run_bench
from foreframe.device import DeviceName


def main(
    suite: tyro.conf.Positional[SuiteName | Literal["all"]] = "all",
    device: DeviceName = "auto",
    json: Path = Path("bench.json"),
    rounds: int = 5,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Measure this machine: training, prediction, reading and scoring, against the plain code they replace.

    Args:
        suite: One of them, or all. growth counts and draws how cost grows with clips, frames, channels and pixels;
            curves trains 500 steps each way and draws their losses; guard measures the cost of checking every step.
        device: Where to compute.
        json: Where everything is written; pictures lie beside it.
        rounds: How often each candidate is timed; candidates alternate within a round.
        threads: CPU threads.
        quick: A rehearsal at tiny sizes: its numbers mean nothing.
    """
    run_bench(tuple(SUITES) if suite == "all" else (suite,), device, threads, rounds, quick, json)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks")
