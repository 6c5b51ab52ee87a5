"""A grid on its way: which runs there are, which are at work, and what stops them.

Every run is an ordinary one, in a folder whose name ends in the hash of all that decides it. What is finished is not
done again, what was begun goes on, and a variant that was edited is another run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from foreframe import config, disk, signals
from foreframe.data.pack.pack import Pack
from foreframe.device import DeviceName
from foreframe.errors import ConfigError, TrainingError, UsageError
from foreframe.recipe import RunConfig
from foreframe.report.experiment.gather import Request
from foreframe.sweep import Grid
from foreframe.sweep.cell import SAYS, Job, is_finished
from foreframe.sweep.engines import OUTPUT, Engine, Task
from foreframe.sweep.scales import ScaleName, scaled
from foreframe.sweep.table import Cell, State, Table

POLL_SECONDS = 0.2
MOST_SEEDS = 1000


def plan(grid: Grid, pack: Pack, out: Path, scale: ScaleName, seeds: int) -> list[Cell]:
    """The runs of a grid, all variants of the first seed before those of the next.

    Raises:
        ConfigError: a variant cannot be trained on these clips; it is named.
        UsageError: a number of seeds that cannot be.
    """
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
    """Eight digits of the hash of all that decides a run's numbers: its settings and its data, not its name."""
    values = config.to_dict(record)
    for name in ("preset", "foreframe"):
        del values[name]
    values["data"] = {"hash": record.data.hash}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder of a sweep, so that no other one works in it.

    Raises:
        TrainingError: another one does.
        DiskError: the folder cannot be made.
    """
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.refused(out, error) from error
    lock = disk.Lock(out / ".lock")
    holder = lock.take()
    if holder:
        raise TrainingError(
            f"{out}: another sweep is at work here ({holder}); wait for it, end it, or give another folder with --out"
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
    """Bring every run to its end, so many at a time; shows a table of them while it works.

    A signal to stop is passed on: each run at work saves, and the same command goes on with all of them.

    Raises:
        signals.Stopped: a signal asked to.
        TrainingError: a run failed; the others were carried out, and each failed one is named.
    """
    jobs = {
        cell.folder: Job(str(cell.folder), str(pack.path.resolve()), request, device, threads).to_json()
        for cell in cells
    }
    for cell in cells:
        _write_record(cell)
    at_work: dict[Path, tuple[Cell, Task]] = {}
    with signals.defer_signals(), Table(cells) as table:
        try:
            while any(cell.state in (State.WAITING, State.RUNNING) for cell in cells) and not signals.asked():
                waiting = (c for c in cells if c.state is State.WAITING and c.folder not in at_work)
                for cell in waiting:
                    if is_finished(cell.folder, request):  # before, or by another variant with the same settings
                        cell.state, cell.skipped = State.DONE, True
                    elif len(at_work) < workers and _is_free(cell.folder):
                        at_work[cell.folder] = (cell, engine.start(cell.folder, jobs[cell.folder]))
                        cell.state = State.RUNNING
                _collect(at_work, request)
                table.show()
                time.sleep(POLL_SECONDS)
        finally:
            for _, task in at_work.values():
                task.stop()
            while at_work:
                _collect(at_work, request)
                time.sleep(POLL_SECONDS)
            table.show(last=True)
    signals.poll()
    failed = [cell for cell in cells if cell.state is State.FAILED]
    if failed:
        listed = "\n  ".join(f"{cell.name}: {_last_words(cell.folder)} ({cell.folder / OUTPUT})" for cell in failed)
        raise TrainingError(
            f"{len(failed)} of {len(cells)} runs failed:\n  {listed}\nthe same command tries them again and skips what "
            "is finished"
        )


def workers_and_threads(workers: int, threads: int | None, cells: int, device: str) -> tuple[int, int]:
    """How many runs at a time, and threads of each: where not given, one run on a GPU, one for two cores without.

    Raises:
        UsageError: fewer than none.
    """
    if workers < 0 or (threads is not None and threads < 1):
        raise UsageError(f"--workers, --threads: expected 0 and 1 or more, found {workers} and {threads}")
    cores = os.cpu_count() or 1
    workers = min(workers or (1 if device == "cuda" else max(1, cores // 2)), cells)
    return workers, threads or max(1, cores // workers)


def _write_record(cell: Cell) -> None:
    """Prepare a run's folder, whose name says what is in it."""
    if (cell.folder / "config.json").exists():
        found = identity(RunConfig.read(cell.folder))
        if not cell.folder.name.endswith(found):
            raise ConfigError(f"{cell.folder / 'config.json'}: was edited; remove this folder or put it back")
        return
    try:
        cell.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.refused(cell.folder, error) from error
    cell.record.write(cell.folder)


def _is_free(folder: Path) -> bool:
    """Whether nobody trains this run: one whose sweep was killed takes a moment to save and end."""
    lock = disk.Lock(folder / ".lock")
    free = not lock.take()
    lock.release()
    return free


def _collect(at_work: dict[Path, tuple[Cell, Task]], request: Request) -> None:
    for folder, (cell, task) in list(at_work.items()):
        code = task.poll()
        if code is not None:
            del at_work[folder]
            ended = State.DONE if is_finished(folder, request) else State.WAITING if signals.asked() else State.FAILED
            cell.state = ended


def _last_words(folder: Path) -> str:
    """The message with which a run's process ended, or else the last line that it has said."""
    try:
        text = (folder / OUTPUT).read_text(errors="replace")
    except OSError:
        text = ""
    _, _, message = text.rpartition(f"\n{SAYS}")
    said = " ".join(message.split()) or (text.strip().splitlines() or [""])[-1]
    return said[:500] or "it ended without a word; perhaps the system killed it, for want of memory"
