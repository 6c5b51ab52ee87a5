"""Carrying out a grid: planning its runs, running several at a time, stopping them.

A run is an ordinary one, in a folder whose name ends in the hash of its settings and data: finished ones are skipped,
others continue, and an edited variant is another run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from foreframe import config, disk, models, signals
from foreframe.data.pack.pack import Pack
from foreframe.device import DeviceName
from foreframe.errors import ConfigError, TrainingError, UsageError
from foreframe.recipe import RunConfig
from foreframe.report.experiment.collect import Request
from foreframe.sweep import Grid
from foreframe.sweep.cell import MESSAGE, Job, is_finished
from foreframe.sweep.engines import OUTPUT, Engine, Task
from foreframe.sweep.scales import ScaleName, scaled
from foreframe.sweep.table import Cell, State, Table

POLL_SECONDS = 0.2
MOST_SEEDS = 1000


def plan(grid: Grid, pack: Pack, out: Path, scale: ScaleName, seeds: int) -> list[Cell]:
    """The runs of a grid, seed by seed. Raises ConfigError, naming a variant that it refuses, or UsageError."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds: expected 1 to {MOST_SEEDS}, found {seeds}")
    cells = []
    for number in range(seeds):
        for variant, full in grid.variants.items():
            recipe = scaled(full, scale)
            recipe = replace(recipe, seed=recipe.seed + number)
            record = RunConfig.of(f"{grid.name}:{variant}", recipe, pack)
            try:
                record.check()
            except ConfigError as error:
                raise ConfigError(f"{grid.name}, variant {variant}: {error}") from error
            digest = identity(record)
            known = sorted((out / "runs").glob(f"*-{digest}"))
            folder = known[0] if known else out / "runs" / f"{variant}-seed-{recipe.seed}-{digest}"
            cells.append(Cell(variant, recipe.seed, record, folder))
    return cells


def identity(record: RunConfig) -> str:
    """Eight digits of the hash of a run's settings and data, without its name."""
    values = config.to_dict(record)
    for name in ("preset", "foreframe", "model_file", *([] if record.model_file else ["model_sha256"])):
        del values[name]
    values["data"] = {"hash": record.data.hash}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def lock_sweep(out: Path) -> Iterator[None]:
    """Lock the folder of a sweep for one process. Raises TrainingError if another sweep has it, or DiskError."""
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.refused(out, error) from error
    lock = disk.Lock(out / ".lock")
    holder = lock.take()
    if holder:
        raise TrainingError(
            f"{out}: another sweep is running here ({holder}); wait for it, end it, or give another folder with --out"
        )
    try:
        yield
    finally:
        lock.release()


def run_all(
    cells: Sequence[Cell],
    pack: Pack,
    request: Request,
    engine: Engine,
    workers: int,
    device: DeviceName,
    threads: int | None,
) -> None:
    """Complete every run, several at a time, with a table of their progress.

    A signal to stop is passed on: each running one saves, `signals.Stopped` is raised, and the same command continues
    all.
    Raises TrainingError if runs failed, with the name of each; the others were completed.
    """
    for cell in cells:
        if not (cell.folder / "config.json").exists():
            cell.record.write(cell.folder)
        elif not cell.folder.name.endswith(identity(RunConfig.read(cell.folder))):
            raise ConfigError(f"{cell.folder / 'config.json'}: was edited; remove this folder or put it back")
    running: dict[Path, tuple[Cell, Task]] = {}
    table, data = Table(cells), str(pack.path.resolve())
    with signals.defer_signals(), table.live or nullcontext():
        try:
            while any(cell.state in (State.WAITING, State.RUNNING) for cell in cells) and not signals.asked():
                waiting = (c for c in cells if c.state is State.WAITING and c.folder not in running)
                for cell in waiting:
                    if is_finished(cell.folder, request):  # before, or by another variant with the same settings
                        cell.state, cell.skipped = State.DONE, True
                    elif len(running) < workers and _is_free(cell.folder):
                        own_model = str(cell.folder / models.COPY) if cell.record.model_file else None
                        job = Job(str(cell.folder), data, request, device, threads, own_model)
                        running[cell.folder] = (cell, engine(cell.folder, job.to_json()))
                        cell.state = State.RUNNING
                _collect(running, request)
                table.show()
                time.sleep(POLL_SECONDS)
        finally:
            for _, task in running.values():
                task.stop()
            while running:
                _collect(running, request)
                time.sleep(POLL_SECONDS)
            table.show(last=True)
    signals.poll()
    failed = [cell for cell in cells if cell.state is State.FAILED]
    if failed:
        listed = "\n  ".join(f"{cell.name}: {_last_message(cell.folder)} ({cell.folder / OUTPUT})" for cell in failed)
        raise TrainingError(
            f"{len(failed)} of {len(cells)} runs failed:\n  {listed}\nthe same command tries them again and skips what "
            "is finished"
        )


def workers_and_threads(workers: int, threads: int | None, cells: int, device: str) -> tuple[int, int]:
    """Runs at a time, and threads of each: by default one run on a GPU, one for two cores without."""
    if workers < 0 or (threads is not None and threads < 1):
        raise UsageError(f"--workers, --threads: expected 0 and 1 or more, found {workers} and {threads}")
    cores = os.cpu_count() or 1
    workers = min(workers or (1 if device == "cuda" else max(1, cores // 2)), cells)
    return workers, threads or max(1, cores // workers)


def _is_free(folder: Path) -> bool:
    """Whether no process trains this run: one whose sweep was killed needs time to save and end."""
    lock = disk.Lock(folder / ".lock")
    free = not lock.take()
    lock.release()
    return free


def _collect(running: dict[Path, tuple[Cell, Task]], request: Request) -> None:
    for folder, (cell, task) in list(running.items()):
        if task.poll() is not None:
            del running[folder]
            unfinished = State.WAITING if signals.asked() else State.FAILED
            cell.state = State.DONE if is_finished(folder, request) else unfinished


def _last_message(folder: Path) -> str:
    """The message with which a run's process ended, or else the last line of its output."""
    try:
        text = (folder / OUTPUT).read_text(errors="replace")
    except OSError:
        text = ""
    _, _, message = text.rpartition(f"\n{MESSAGE}")
    last = " ".join(message.split()) or (text.strip().splitlines() or [""])[-1]
    return last[:500] or "exited without an error message; possibly killed by the out-of-memory killer"
