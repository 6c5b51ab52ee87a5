"""Where the work runs: the device, its threads and its names; and the processes that share a training.

This is the only file that knows the launcher, Lightning Fabric, and it asks for it only where several processes are
wanted: its import takes seconds. By itself a training is one process and needs none of it.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from foreframe.errors import ConfigError, TrainingError, UsageError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]

POLL_SECONDS = 0.05
"""How often a process that waits for another looks whether it is there."""
GRACE_SECONDS = 5.0
"""So long a process has to end by itself, once another has failed."""
_FAILED = "failed"


def choose_device(name: DeviceName, threads: int | None = None) -> torch.device:
    """The device of that name (`auto` takes a GPU where there is one), with so many CPU threads.

    Raises:
        UsageError: there is no such device here.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible here; use --device cpu or --device auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        keep_memory()
    return torch.device(name)


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware and versions, as they are written into runs and results."""
    import foreframe

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "foreframe": foreframe.__version__,
    }


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raises ConfigError where a precision would be emulated, and so be slower than fp32 and worse."""
    if precision == "fp32":
        return
    if device.type == "cpu" and "amx_bf16" not in _processor_flags():
        raise ConfigError(
            "precision bf16: this processor has no matrix unit for it (AMX) and would take 1.1 to 2 times as long as "
            "with fp32; use --precision fp32"
        )
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"precision bf16: {torch.cuda.get_device_name(device)} has none; use --precision fp32")


@functools.cache
def _processor_flags() -> frozenset[str]:
    """What the processor says it can do; nothing where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return frozenset(word for line in lines if line.startswith("flags") for word in line.split())


@dataclass(frozen=True)
class Speed:
    """Ways to do the same work sooner that are paid for in advance, in seconds or minutes; no numbers but roundings
    change, so they belong to the machine and not to the experiment."""

    compile: bool = False
    """Have torch compile the parts of the model that hold convolutions."""
    graphs: bool = False
    """Record a step as a CUDA graph and replay it."""

    def check(self, device: torch.device, world: World) -> None:
        """Raises UsageError for what cannot be done here."""
        if self.graphs and device.type != "cuda":
            raise UsageError(f"--graphs: recordings are a matter of CUDA devices, this is {device.type}; leave it out")
        if self.graphs and world.size > 1:
            raise UsageError("--graphs: a step that other devices take part in cannot be recorded; use one device")


def keep_memory() -> None:
    """Have the C library keep freed memory for the next step instead of giving it back to the system at once.

    Each step takes the same large blocks again. Given back, every page of them would be asked for, and zeroed by the
    system, anew: measured, up to half the time of layers that only read and write. Linux with glibc; elsewhere nothing.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    trim_threshold, mmap_threshold = -1, -3
    if hasattr(library, "mallopt"):
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_threshold, 2**30)


class World:
    """The processes that train one model together, seen from one of them. By default it is alone.

    rank, size: this process's number, and how many there are. group: for collectives on the device, None alone.

    Args:
        device: The device of this process.
        store: Where the processes leave notes for each other; given when `torch.distributed` has been set up.
    """

    def __init__(self, device: torch.device, store: Store | None = None) -> None:
        self.device, self._store = device, store
        self.rank, self.size = (0, 1) if store is None else (dist.get_rank(), dist.get_world_size())
        self.group = None if store is None else dist.group.WORLD
        # What the hosts agree on must not wait for what the GPUs still have to do.
        self._hosts = dist.new_group(backend="gloo") if self.group and device.type == "cuda" else self.group
        self._meetings = 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
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

    def most(self, number: int) -> int:
        """The largest of the processes' numbers. They meet on the CPU; a GPU is not waited for."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._hosts)
        return int(numbers)

    def wait(self) -> None:
        """Until all processes have come here, however long it takes: a collective would lose patience."""
        if self._store is None:
            return
        self._meetings += 1
        place = f"meeting {self._meetings}"
        self._store.add(place, 1)
        _until(self._store, place, self.size)
        # The first process may hold the notes: it leaves last.
        if self.first:
            _until(self._store, f"{place} left", self.size - 1)
        else:
            self._store.add(f"{place} left", 1)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """For what leaves something on disk that the others then find."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def same(self, values: Tensor) -> bool:
        """Whether these numbers, on the CPU, are the same in every process."""
        if self.size == 1:
            return True
        bounds = torch.cat([values, -values])
        dist.all_reduce(bounds, dist.ReduceOp.MAX, group=self._hosts)
        most, least = bounds[: len(values)], -bounds[len(values) :]
        return torch.equal(most, least)


@contextmanager
def processes(device: DeviceName, threads: int | None = None, devices: int = 1, nodes: int = 1) -> Iterator[World]:
    """The world of a training on `devices` devices of each of `nodes` machines.

    On one machine the other processes are started here, by running the same command again; under torchrun and SLURM
    those that are there are used. An error in one process ends all of them, and only it is told.

    Raises:
        UsageError: so many devices are not there, or the launcher started another number of processes.
    """
    if min(devices, nodes) < 1:
        raise UsageError(f"--devices {devices} --nodes {nodes}: expected 1 or more of each")
    _check_launcher(devices, nodes)
    if devices * nodes == 1:
        yield World(choose_device(device, threads))
        return
    world, store = _join(device, threads, devices, nodes)
    with _Watch(store):
        try:
            yield world
            world.wait()
        except BaseException as error:
            # What all meet (a loss that is not finite) is told by whoever comes first; the others end silently.
            if not _is_first_to_fail(store):
                raise SystemExit(1) from None
            if isinstance(error, RuntimeError) and "by peer" in str(error):
                raise TrainingError(
                    "another process of this training ended without a word: perhaps the system killed it, for want of "
                    "memory; `foreframe resume` goes on from the newest checkpoint"
                ) from error
            raise
    dist.destroy_process_group()


def _check_launcher(devices: int, nodes: int) -> None:
    """Raises UsageError if a launcher started another number of processes than was asked for."""
    expected, asked = devices * nodes, f"--devices {devices} --nodes {nodes}"
    found, launcher = expected, ""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        found, launcher = int(os.environ["WORLD_SIZE"]), "torchrun"
    elif "SLURM_STEP_ID" in os.environ:
        # A single task is a job of one process, which may start others like any.
        tasks, launcher = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")), "srun"
        found = expected if tasks == 1 and nodes == 1 else tasks
    if found != expected:
        raise UsageError(f"{asked}: {launcher} started {found} processes; expected devices times nodes: {expected}")
    if nodes > 1 and not launcher and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= set(os.environ):
        raise UsageError(
            f"{asked}: start it with torchrun or srun, or by hand on each machine with MASTER_ADDR, MASTER_PORT and "
            "NODE_RANK set"
        )


def _join(device: DeviceName, threads: int | None, devices: int, nodes: int) -> tuple[World, Store]:
    """Start the other processes, unless a launcher has, and meet them."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and torch.cuda.device_count() < devices:
        raise UsageError(f"--devices {devices}: {torch.cuda.device_count()} CUDA devices are visible here")
    from lightning.fabric import Fabric

    for name in ("lightning.fabric", "lightning.pytorch"):  # either may be what Fabric's notes go through
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        fabric = Fabric(accelerator=chosen.type, devices=devices, num_nodes=nodes, strategy="ddp")
        fabric.launch()
    except ValueError as error:
        raise UsageError(f"--devices {devices} --nodes {nodes}: {error}") from error
    if threads is not None:
        torch.set_num_threads(threads)
    # A connection of one's own: the one of the process group may be busy for as long as a collective takes to set up.
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    notes = PrefixStore(f"foreframe {attempt}", store)
    return World(fabric.device, notes), notes


def _until(store: Store, place: str, count: int) -> None:
    """Until `count` processes have left their mark in a place; a failed one will not come any more."""
    while store.add(place, 0) < count:
        if store.check([_FAILED]):
            raise SystemExit(1)
        time.sleep(POLL_SECONDS)


def _is_first_to_fail(store: Store) -> bool:
    try:
        return bool(store.add(_FAILED, 1) == 1)
    except RuntimeError:  # the store went with the first process
        return False


class _Watch:
    """Ends this process a while after another one failed: on a GPU it would wait for the other without end."""

    def __init__(self, store: Store) -> None:
        self._store, self._done = store, threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _look(self) -> None:
        while not self._done.wait(1.0):
            try:
                failed = self._store.check([_FAILED])
            except RuntimeError:
                failed = True
            if failed and not self._done.wait(GRACE_SECONDS):
                os._exit(1)
