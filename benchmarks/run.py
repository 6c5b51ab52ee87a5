"""The entry point: suites one after another, their tables on the terminal, and everything in one JSON file."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from benchmarks import curves, data, growth, guard, metrics, rollout, tables, train
from benchmarks.measure import Rounds
from benchmarks.suites import BenchContext, RunSuite
from foreframe import disk
from foreframe.device import DeviceName, choose_device, describe
from foreframe.errors import UsageError

SuiteName = Literal["train", "rollout", "data", "metrics", "growth", "curves", "guard"]
SUITES: dict[SuiteName, RunSuite] = {
    "train": train.run,
    "rollout": rollout.run,
    "data": data.run,
    "metrics": metrics.run,
    "growth": growth.run,
    "curves": curves.run,
    "guard": guard.run,
}
FORMAT = 1


def run_bench(
    suites: Sequence[SuiteName] = tuple(SUITES),
    device: DeviceName = "auto",
    threads: int = 1,
    rounds: int = 5,
    quick: bool = False,
    json: Path = Path("bench.json"),
) -> dict[str, Any]:
    """Run suites and print their tables; the JSON file is written after each, so that a stopped run leaves results.

    `growth` and `curves` also draw a picture each beside the JSON file.

    Args:
        suites: Names of `SUITES`.
        device: Where to compute. Reading and scores are work of the CPU on any device.
        threads: CPU threads.
        rounds: How often each candidate is timed.
        quick: A rehearsal of seconds at tiny sizes.
        json: Where everything is written.
    Returns:
        format, created, hardware, settings, suites (races, checks, counted, left_out): plain values.
    Raises:
        UsageError: there is no such device, or fewer than one round or thread.
    """
    if rounds < 1 or threads < 1:
        raise UsageError(f"--rounds {rounds} --threads {threads}: expected 1 or more of each")
    chosen = choose_device(device, threads)
    results: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(chosen),
        "settings": {"device": chosen.type, "rounds": rounds, "threads": threads, "quick": quick},
        "suites": {},
    }
    console = Console()
    for name in suites:
        with console.status(name) as status:
            setting = BenchContext(chosen, Rounds(rounds, 1 if quick else 2), quick, status.update)
            found = SUITES[name](setting).plain()
        results["suites"][name] = found
        disk.put(json, dumps(results, indent=1, allow_nan=False) + "\n")
        tables.print_suite(name, found)
        if name == "growth":
            picture = json.with_name(f"{json.stem}-growth.png")
            growth.figure(found["counted"], picture)
            print(f"drawn: {picture}")
        if name == "curves":
            picture = json.with_name(f"{json.stem}-curves.png")
            curves.figure(found["checks"], picture)
            print(f"drawn: {picture}")
    print(f"written: {json}")
    return results


def hardware(device: torch.device) -> dict[str, Any]:
    """`describe`, the processor's name, and versions of what is measured against or measured with."""
    versions: dict[str, str | None] = {}
    for name in ("numpy", "pillow", "scikit-image", "scipy", "onnxruntime"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        **asdict(describe(device)),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "float32_matmul": torch.get_float32_matmul_precision(),
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
