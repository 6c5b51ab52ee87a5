"""Times of several ways to do the same work, taken so that a noisy machine cannot favour one of them.

Ways go in turn, A B C A B C, and are compared inside a round, so that a machine that slows down slows all of them.
The number to compare by is process CPU time on a CPU, which other processes hardly touch, and the time between two
events on a GPU. A matrix product of the same precision runs in every round: the yardstick of what the machine gives.
"""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

Precision = Literal["float32", "bfloat16", "int8"]
Advance = Callable[[str], None]
_YARDSTICK = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices that are multiplied."""


@dataclass(frozen=True)
class Candidate:
    """One way to do the work of a comparison. Work is that of one call of `run`; 0 where it is not known."""

    name: str
    run: Callable[[], object]
    flops: float = 0.0
    frames: float = 0.0
    precision: Precision = "float32"


SLOW_SECONDS = 5.0
"""What takes longer than this is warm after one call."""


@dataclass(frozen=True)
class Rounds:
    """How a comparison is run. Warm-up calls are not timed; memory is measured in the last of them."""

    rounds: int = 5
    warmup: int = 2


def compare(
    name: str, candidates: Sequence[Candidate], device: torch.device, rounds: Rounds, advance: Advance
) -> dict[str, Any]:
    """Run the candidates in turn; all measurements, as plain values for JSON.

    The others are compared with the first candidate: `factor` says how many times faster they are,
    by the times of one round; its median, least and greatest over the rounds are given.

    Args:
        name: Of the comparison.
        advance: Called with a description, once for each call of a candidate.
    """
    entries = [*candidates, *_yardsticks(device, {one.precision for one in candidates})]
    times: list[list[dict[str, float]]] = [[] for _ in entries]
    peaks: list[int | None] = []
    for one in entries:
        for _ in range(max(1, rounds.warmup)):
            advance(f"{name}: {one.name}, warm-up")
            begun = time.perf_counter()
            peak = peak_bytes(one.run, device)
            if time.perf_counter() - begun > SLOW_SECONDS:
                break
        peaks.append(peak)
    for number in range(rounds.rounds):
        for one, found in zip(entries, times, strict=True):
            advance(f"{name}: {one.name}, round {number + 1}")
            found.append(timed(one.run, device))
    rows = [
        _row(one, found, peak, times[0], clock(device)) for one, found, peak in zip(entries, times, peaks, strict=True)
    ]
    ways, yardsticks = rows[: len(candidates)], rows[len(candidates) :]
    best = {row["precision"]: row["gflops_per_second"] for row in yardsticks}
    for row in ways:
        yardstick = best.get(row["precision"])
        row["share_of_matmul"] = row["gflops_per_second"] / yardstick if yardstick and row["flops"] else None
    return {"race": name, "clock": clock(device), "ways": ways, "yardsticks": yardsticks}


def clock(device: torch.device) -> str:
    """Which of the times of `timed` is compared on this device."""
    return "event_seconds" if device.type == "cuda" else "cpu_seconds"


def timed(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds of one call: wall time, process CPU time of all threads, and on a GPU the time between two events."""
    if device.type != "cuda":
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    before.record()
    run()
    after.record()
    torch.cuda.synchronize(device)
    return {
        "event_seconds": before.elapsed_time(after) / 1000,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
    }


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Most memory held during one call beyond what was held before it; None where nothing says it.

    On a GPU what torch's allocator gave out. On a CPU growth of the resident set, which Linux keeps the peak of. Pages
    that earlier calls have freed are given back to the system first: used again, they would not be seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    known = _trim() and _reset_peak()
    held = _resident("VmRSS")
    run()
    most = _resident("VmHWM")
    return None if not known or held is None or most is None else max(0, most - held)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of some rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """One quotient for each round. Never of medians: the rounds of a noisy machine are alike only one by one.

    A clock that saw no time pass makes a round worth nothing: it is left out.

    Raises:
        ValueError: the numbers of rounds differ.
    """
    return [over / under for over, under in zip(numerators, denominators, strict=True) if under > 0]


def _row(
    one: Candidate, found: list[dict[str, float]], peak: int | None, base: list[dict[str, float]], key: str
) -> dict[str, Any]:
    seconds = [times[key] for times in found]
    factors = ratios([times[key] for times in base], seconds)
    middle = max(statistics.median(seconds), math.ulp(1.0))
    return {
        "name": one.name,
        "precision": one.precision,
        "rounds": found,
        "seconds": spread(seconds),
        "factor": spread(factors) if factors else None,
        "flops": one.flops,
        "gflops_per_second": one.flops / middle / 1e9,
        "frames": one.frames,
        "frames_per_second": one.frames / middle,
        "peak_bytes": peak,
    }


def _yardsticks(device: torch.device, precisions: set[Precision]) -> list[Candidate]:
    side = _YARDSTICK[device.type]
    found = []
    for precision in sorted(precisions - {"int8"}):
        left, right = (torch.rand(side, side, device=device, dtype=getattr(torch, precision)) for _ in range(2))
        found.append(
            Candidate(
                f"matrix product {side}x{side}",
                partial(torch.mm, left, right),
                flops=2.0 * side**3,
                precision=precision,
            )
        )
    return found


def _trim() -> bool:
    """Have the C library give back what is free; only glibc can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return False
    return True


def _reset_peak() -> bool:
    """Ask Linux to forget this process's peak of memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(key: str) -> int | None:
    """VmRSS (held now) or VmHWM (the peak), in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")]
    return sizes[0] if sizes else None
