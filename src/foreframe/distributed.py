"""The processes that train one model together: how they are started, find each other, and end together.

`launch` runs the elastic agent of `torch.distributed`, as torchrun does; under SLURM the tasks of a step are used. A
process that fails leaves its message in the file that the agent names, and the agent's process prints the first one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from foreframe import signals
from foreframe.device import DeviceName, choose_device
from foreframe.errors import PeerError, TrainingError, UsageError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

POLL_SECONDS = 0.05
"""How often a process that waits for others looks for them, and the agent for the end of a process."""
GRACE_SECONDS = 5
"""How long a process may take to end once another has failed; then it is killed."""
JOIN_SECONDS = 1800
"""How long processes of several machines wait for each other at the start."""
BARRIER_DAYS = 30
"""How long a barrier waits: as long as a validation or an import may take."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""The environment variable in which an elastic agent names the file for the message of a process that fails."""


class World:
    """The processes that train one model together, seen from one of them; by default it is alone.

    rank, size: this process's number, and how many there are. group: for collectives on the device, None alone.
    store: where they leave notes for each other, once `torch.distributed` has been set up.
    """

    def __init__(self, device: torch.device, store: Store | None = None) -> None:
        self.device, self._store = device, store
        self.rank, self.size = (0, 1) if store is None else (dist.get_rank(), dist.get_world_size())
        self.group = None if store is None else dist.group.WORLD
        # What the hosts agree on must not wait for what the GPUs still have to do.
        self._hosts = None if store is None else dist.new_group(backend="gloo", timeout=timedelta(days=BARRIER_DAYS))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, of one type, by its mean over the processes; all travel as one message."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat, group=self.group)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def all_reduce_max(self, number: int) -> int:
        """The largest of the processes' numbers. They meet on the CPU; a GPU is not waited for."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._hosts)
        return int(numbers)

    def barrier(self) -> None:
        """Wait until all processes have come here, and pass on a request to stop. Raises RuntimeError: one ended."""
        if self._store is None:
            return
        with signals.defer_signals():  # the process that is waited for ends the work in order
            arrived = dist.barrier(group=self._hosts, async_op=True)
            while not arrived.is_completed():
                if signals.asked():
                    with suppress(RuntimeError):  # the store went with the agent
                        self._store.set("stop", str(int(signals.asked())))
                time.sleep(POLL_SECONDS)
            arrived.wait()

    def remote_signal(self) -> int:
        """The signal that a process which waits for this one has received; 0: none."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check(["stop"]):
                return int(self._store.get("stop"))
        return 0

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """For what leaves something on disk that the others then find."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def all_equal(self, values: Tensor) -> bool:
        """Whether these numbers, on the CPU, are the same in every process."""
        if self.size == 1:
            return True
        bounds = torch.cat([values, -values])
        dist.all_reduce(bounds, dist.ReduceOp.MAX, group=self._hosts)
        most, least = bounds[: len(values)], -bounds[len(values) :]
        return torch.equal(most, least)


class Place(NamedTuple):
    """Where a process stands among those that a launcher has started; `rank` on all machines, `local` on this one."""

    rank: int
    local: int
    size: int


def place() -> Place | None:
    """The place that torchrun, `launch` or srun gave this process; None: it was started alone. For SLURM the variables
    that `torch.distributed` reads are set."""
    environ = os.environ
    if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "RANK" not in environ:
        host = re.match(r"([^\[,]+)(?:\[(\d+))?", environ.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        assert host is not None
        environ.setdefault("MASTER_ADDR", "".join(filter(None, host.groups())))
        environ.setdefault("MASTER_PORT", str(15000 + int(environ.get("SLURM_JOB_ID", "0")) % 15000))
        environ["RANK"], environ["WORLD_SIZE"] = environ["SLURM_PROCID"], environ["SLURM_STEP_NUM_TASKS"]
        environ["LOCAL_RANK"] = environ["SLURM_LOCALID"]
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= set(environ):
        return None
    return Place(*(int(environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))


def launch(device: DeviceName, devices: int = 1, nodes: int = 1) -> bool:
    """Run this command on `devices` devices of this machine, each with a process of its own, and wait for them.

    Returns False, at once, for one process, or where a launcher has started them.

    Raises:
        UsageError: there are fewer devices, or a launcher started another number of processes.
        TrainingError: a process failed; all have ended.
    """
    asked = f"--devices {devices} --nodes {nodes}"
    if min(devices, nodes) < 1:
        raise UsageError(f"{asked}: expected 1 or more of each")
    found, size = place(), devices * nodes
    if found is not None and found.size != size:
        raise UsageError(f"{asked}: the launcher started {found.size} processes; expected devices times nodes: {size}")
    if found is not None or size == 1:
        return False
    if choose_device(device).type == "cuda" and torch.cuda.device_count() < devices:
        raise UsageError(f"--devices {devices}: {torch.cuda.device_count()} CUDA devices are visible here")
    by_hand = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= set(os.environ)
    if nodes > 1 and not by_hand:
        how = "by hand on each machine with MASTER_ADDR, MASTER_PORT and NODE_RANK set"
        raise UsageError(f"{asked}: start it with torchrun or srun, or {how}")
    failures = _run_agent(devices, nodes)
    if failures:
        _raise_first(failures, size)
    return True


def _run_agent(devices: int, nodes: int) -> dict[int, ProcessFailure]:
    """The processes of this machine from their start to their end; returns those that failed, by rank."""
    from torch.distributed.elastic.agent.server.api import WorkerGroup, WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    class Agent(LocalElasticAgent):
        def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
            with signals.signals_blocked():  # until a process handles them
                started: dict[int, int] = super()._start_workers(worker_group)
            self.pids = list(started.values())
            if signals.asked():
                self.send(signals.asked())
            return started

        def send(self, number: int) -> None:
            for pid in getattr(self, "pids", ()):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    logging.disable(logging.CRITICAL)  # of what torch prints of failures, `launch` makes one sentence
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGQUIT"  # the others are passed on below
    PContext.close.__defaults__ = (None, GRACE_SECONDS)  # 30 seconds for which there is no option
    if nodes > 1:
        address, port, node = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["NODE_RANK"])
    else:
        # Nobody outside of this machine can reach the store, and no other training can have its port.
        address, node = "127.0.0.1", 0
        server = socket.create_server((address, 0))
        port = server.getsockname()[1]
        store = TCPStore(address, port, is_master=True, multi_tenant=True, master_listen_fd=server.detach())  # noqa: F841
    with tempfile.TemporaryDirectory(prefix="foreframe-") as folder:
        spec = WorkerSpec(
            role="train",
            local_world_size=devices,
            entrypoint=sys.executable,
            args=tuple(sys.orig_argv[1:]),
            rdzv_handler=StaticTCPRendezvous(address, port, node, nodes, "foreframe", JOIN_SECONDS),
            max_restarts=0,
            monitor_interval=POLL_SECONDS,
        )
        agent = Agent(spec, DefaultLogsSpecs(folder), exit_barrier_timeout=GRACE_SECONDS)
        signals.poll()
        signals.forward = agent.send
        with signals.defer_signals():
            return dict(agent.run().failures)


def _raise_first(failures: dict[int, ProcessFailure], size: int) -> None:
    """Raise what ended the processes: the failure of the first that did not only lose another one."""

    def order(rank: int) -> tuple[bool, float]:
        failure = failures[rank]
        report = failure.error_file_data
        return bool(report.get("lost", failure.exitcode > 0)), float(report.get("moment", failure.timestamp))

    rank = min(failures, key=order)
    failure, report = failures[rank], failures[rank].error_file_data
    if report.get("signal"):
        raise signals.Stopped(report["signal"])
    if "moment" in report:
        raise (UsageError if report["code"] == 2 else TrainingError)(report["message"])
    how = f"ended with exit code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was killed by {failure.signal_name()}"
        how += ", perhaps by the system, out of memory" if failure.exitcode == -signal.SIGKILL else ""
    raise TrainingError(
        f"rank {rank} of {size} (process {failure.pid}) {how}; all processes have ended, and `foreframe resume RUN` "
        "continues from the newest checkpoint"
    )


def record(error: BaseException, message: str, code: int) -> None:
    """Leave the message with which this process fails to the agent that started it. torchrun reads `message` and
    `timestamp`, and takes the earliest for the cause."""
    moment, lost = time.time(), isinstance(error, PeerError)
    report = {"message": message, "moment": moment, "timestamp": int(moment) + 10 * lost, "code": code, "lost": lost}
    if isinstance(error, signals.Stopped):
        report["signal"] = int(error.signal)
    Path(os.environ[ERROR_FILE]).write_text(json.dumps(report), encoding="utf-8")


@contextmanager
def join(device: DeviceName, threads: int | None = None, devices: int = 1) -> Iterator[World]:
    """The processes of a training, of which this is one; `devices` of them on this machine. Raises PeerError: another
    one has ended."""
    found = place()
    if found is None or found.size == 1:
        yield World(choose_device(device, threads))
        return
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // devices)
    chosen = choose_device(device, threads)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", found.local % torch.cuda.device_count())
        torch.cuda.set_device(chosen)
    if ERROR_FILE in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        store, rank, size = next(rendezvous("env://"))
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size)
        here = World(chosen, PrefixStore("notes", store))
        signals.remote_signal = here.remote_signal
        yield here
        here.barrier()
    except RuntimeError as error:
        if not _is_of_peers(error):
            raise
        raise PeerError(f"another process of this training has ended or cannot be reached: {error}") from error
    dist.destroy_process_group()


def _is_of_peers(error: RuntimeError) -> bool:
    """Whether it was raised where processes exchange something."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = str(frame.f_globals.get("__name__"))
    return module == __name__ or module.startswith("torch.distributed")


def _end_with(parent: int) -> None:
    """Stop this process, in order, once the launcher has ended without ending it."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
