"""Where the runs of a grid are executed: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from foreframe import signals
from foreframe.errors import UsageError

EngineName = Literal["local", "ray"]
POLL_SECONDS = 0.2
OUTPUT = "output.txt"
"""In the run's folder: the output of its process."""


class Task(Protocol):
    def poll(self) -> int | None:
        """The exit code, or None while it works."""

    def stop(self) -> None:
        """Ask it to save and end; it is waited for by `poll`."""


Engine = Callable[[Path, str], Task]
"""Starts a run, given its folder and its job."""


class LocalTask:
    """A process that runs `foreframe.sweep.cell`; signals of the terminal do not reach it."""

    def __init__(self, run: Path, job: str) -> None:
        with (run / OUTPUT).open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "foreframe.sweep.cell", job],
                stdin=subprocess.PIPE,  # it ends with this process
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is not None and self.process.stdin is not None:
            self.process.stdin.close()
        return code

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@dataclass
class RayTask:
    """The same process, started by a Ray worker, which passes on a request to stop."""

    ray: Any
    reference: Any

    def poll(self) -> int | None:
        if not self.ray.wait([self.reference], timeout=0)[0]:
            return None
        try:
            return int(self.ray.get(self.reference))
        except (self.ray.exceptions.RayError, KeyboardInterrupt):  # cancelled, or its worker was lost
            return 1

    def stop(self) -> None:
        self.ray.cancel(self.reference, force=False)


def carry(run: str, job: str) -> int:
    """Start the process of a run where this is called, and wait for it; interrupted, it is asked to stop."""
    task = LocalTask(Path(run), job)
    while True:
        try:
            while task.poll() is None:  # Ray's interrupt is seen between Python's steps, not in a wait for the process
                time.sleep(POLL_SECONDS)
            return int(task.poll() or 0)
        except KeyboardInterrupt:
            task.stop()


def engine(name: EngineName, threads: int, gpus: float) -> Engine:
    """Processes of this machine, or tasks of a Ray cluster whose machines all see the folder of the sweep and the pack.

    Raises UsageError if Ray is not installed.
    """
    if name == "local":
        return LocalTask
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed: pip install 'foreframe[ray]'") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        signals.reinstall_handlers()
    remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(carry)
    return lambda run, job: RayTask(ray, remote.remote(str(run), job))
