"""One run of a grid, in a process of its own: trained to its end, then scored and diagnosed for the report.

    python -m foreframe.sweep.cell JOB

JOB is a `Job` as JSON. The standard input ends with the parent, and then so does the process, with a checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from foreframe import __version__, config, disk, models, signals
from foreframe.data.pack.pack import Pack
from foreframe.device import DeviceName, choose_device
from foreframe.errors import ForeframeError
from foreframe.recipe import RunConfig
from foreframe.report.experiment.collect import Request, collect
from foreframe.training.trainer import Trainer

DONE = "cell.json"
"""In the folder of a finished run."""
MESSAGE = "foreframe: "
"""Start of the message with which such a process fails."""


@dataclass(frozen=True)
class Job:
    """The work of such a process. threads: of the CPU; None: torch's choice. model_file: run first, if there is one."""

    run: str
    pack: str
    request: Request
    device: DeviceName = "auto"
    threads: int | None = None
    model_file: str | None = None

    def to_json(self) -> str:
        return json.dumps(config.to_dict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return config.from_dict(cls, config.loads(text.encode()))


def finish(job: Job) -> str:
    """Train a run to its end, then score and diagnose it for the report; returns how the training ended."""
    run, pack = Path(job.run), Pack.open(job.pack)
    device = choose_device(job.device, job.threads)
    if job.model_file is not None:
        models.run_file(Path(job.model_file))
    trainer = Trainer(RunConfig.read(run), pack, run, device)
    ended = trainer.run()
    if not signals.asked():
        collect(run, job.request, device, pack)
        disk.put(run / DONE, json.dumps(mark(job.request), indent=1) + "\n")
    return ended


def mark(request: Request) -> dict[str, object]:
    """The content of `DONE` for a request."""
    return {"foreframe": __version__, "request": config.to_dict(request)}


def is_finished(run: Path, request: Request) -> bool:
    try:
        return bool(config.read_json(run / DONE) == json.loads(json.dumps(mark(request))))
    except ForeframeError:
        return False


def main(arguments: list[str]) -> int:
    """The process; returns its exit code, 0 if it is done or was asked to stop."""
    try:
        with signals.handle_signals():
            threading.Thread(target=_end_with_starter, daemon=True).start()
            job = Job.from_json(arguments[0])
            print(f"{job.run}: {finish(job)}", flush=True)
    except signals.Stopped as stopped:
        print(f"stopped by {stopped}", flush=True)
    except ForeframeError as error:
        print(f"\n{MESSAGE}{error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _end_with_starter() -> None:
    while sys.stdin.buffer.read(1):
        pass
    if not signals.asked():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
