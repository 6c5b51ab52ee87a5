"""Where the work runs: the device, its threads and its names; and the processes that share a training.

This is the only file that knows the launcher, Lightning Fabric, and it asks for it only where several processes are
wanted: its import takes seconds. By itself a training is one process and needs none of it.

Several processes end together. Each says in a place that all can read, the notes, that it ends and why; only the first
to do so is heard by the user. A process that is killed says nothing: what tells of it is a connection to the first
process, its line, which the system closes with it. Whoever does not end by itself is ended after a while.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from foreframe import signals
from foreframe.device import DeviceName, choose_device
from foreframe.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

POLL_SECONDS = 0.05
"""How often a process that waits for another looks whether it is there."""
LOOK_SECONDS = 0.5
"""How often a process looks whether another has ended."""
GRACE_SECONDS = 5.0
"""So long the first process, which may be writing, has to end by itself once another has failed."""
PATIENCE_SECONDS = 2.0
"""The same for the others; and so long one waits for an answer that would come at once, if it came."""
MEETING_SECONDS = 1800.0
"""So long the processes have to come together."""
_ENDED, _ASKED = "ended", "asked"
_LAUNCHERS = ("TORCHELASTIC_", "SLURM_", "LSB_", "JSM_", "OMPI_", "PMI", "MPI", "LOCAL_RANK")
"""How names begin that launchers of processes leave in the environment."""
_STARTED_BY = "FOREFRAME_STARTED_BY"
_LOOPBACK = "127.0.0.1"
_GOODBYE = b"."


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
    def is_main(self) -> bool:
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

    def all_reduce_max(self, number: int) -> int:
        """The largest of the processes' numbers. They meet on the CPU; a GPU is not waited for."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._hosts)
        return int(numbers)

    def barrier(self) -> None:
        """Until all processes have come here, however long it takes: a collective would lose patience."""
        if self._store is None:
            return
        self._meetings += 1
        place = f"meeting {self._meetings}"
        store, left = self._store, f"{place} left"
        store.add(place, 1)
        _until(store, lambda: store.add(place, 0) == self.size)
        # The first process may hold the notes: it leaves last.
        if self.is_main:
            _until(store, lambda: store.add(left, 0) == self.size - 1)
        else:
            store.add(left, 1)

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
    chosen = choose_device(device)
    if chosen.type == "cuda" and torch.cuda.device_count() < devices:
        raise UsageError(f"--devices {devices}: {torch.cuda.device_count()} CUDA devices are visible here")
    with _started(chosen, devices, nodes) as place, _Watch(place) as watch:
        try:
            importlib.import_module("lightning.fabric")  # takes its time, and the others are on their way
            watch.meet()
            world = _join(_fabric(chosen, devices, nodes), threads, watch.notes)
            yield world
            world.barrier()
        except BaseException as error:
            # Who is asked to stop now is ending already, and must not leave the others behind.
            with signals.defer_signals():
                ending = watch.last_word(error)
            if ending is error:
                raise
            raise ending from error
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


@dataclass(frozen=True)
class _Place:
    """Where a process stands among those that train together, and where they find each other.

    store: the notes' keeper, if it is in this process. children: those that this process has started. starter: the
    process that started this one, 0 if a launcher did.
    """

    rank: int
    size: int
    nodes: int
    address: str
    port: int
    store: TCPStore | None = None
    children: Sequence[subprocess.Popen[bytes]] = ()
    starter: int = 0


def _fabric(device: torch.device, devices: int, nodes: int) -> Fabric:
    from lightning.fabric import Fabric

    for name in ("lightning.fabric", "lightning.pytorch"):  # either may be what Fabric's notes go through
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp")
    except ValueError as error:
        raise UsageError(f"--devices {devices} --nodes {nodes}: {error}") from error


@contextmanager
def _started(device: torch.device, devices: int, nodes: int) -> Iterator[_Place]:
    """Start the other processes of this machine, unless a launcher has; whoever is left of them in the end is killed.

    Fabric could start them, but it kills the process that called it, in silence, when one of them ends.
    """
    starter, size = int(os.environ.pop(_STARTED_BY, "0")), devices * nodes
    node = int(os.environ["NODE_RANK"]) if nodes > 1 and "NODE_RANK" in os.environ else 0
    if starter:
        rank = node * devices + int(os.environ["LOCAL_RANK"])
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        yield _Place(rank, size, nodes, address, port, starter=starter)
        return
    if any(name.startswith(_LAUNCHERS) for name in os.environ):
        strategy: Any = _fabric(device, devices, nodes).strategy
        launcher = strategy.cluster_environment
        if launcher.creates_processes_externally:
            rank = launcher.node_rank() * devices + launcher.local_rank()
            address, port = launcher.main_address, launcher.main_port
            keeps = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            yield _Place(rank, size, nodes, address, port, _keep(address, port) if keeps else None)
            return
    if nodes == 1:
        # Nobody outside of this machine has anything to do with the notes.
        address = _LOOPBACK
        with socket.create_server((address, 0)) as server:
            port = server.getsockname()[1]
            store: TCPStore | None = _keep(address, port, server.detach())
    else:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = _keep(address, port) if node == 0 else None
    known = {"MASTER_ADDR": address, "MASTER_PORT": str(port), "NODE_RANK": str(node)}
    before = {name: os.environ.get(name) for name in (*known, "LOCAL_RANK")}
    children = []
    try:
        with signals.defer_signals():
            for number in range(1, devices):
                children.append(_start(known | {"LOCAL_RANK": str(number)}))
        signals.poll()
        os.environ.update(known, LOCAL_RANK="0")
        yield _Place(node * devices, size, nodes, address, port, store, children)
    finally:
        with signals.defer_signals():
            _end(children)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start(names: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run the command of this process again, with these names in its environment.

    A signal that comes while it is not with the others yet waits until it is, so that they answer it together. What
    torch has to say of a lost connection is left out: we say it.
    """
    environment = os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"} | names | {_STARTED_BY: str(os.getpid())}
    blocks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS) if blocks else ()
    try:
        return subprocess.Popen([sys.executable, *sys.orig_argv[1:]], stdin=subprocess.DEVNULL, env=environment)
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(children: Sequence[subprocess.Popen[bytes]], seconds: float = 2 * PATIENCE_SECONDS) -> None:
    """Wait for processes, and kill those that are still there after so many seconds: one may hang."""
    deadline = time.monotonic() + seconds
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        child.kill()
        child.wait()


def _keep(address: str, port: int, listens: int | None = None) -> TCPStore:
    """A store kept by this process: others find it at an address, where a socket may listen for them already."""
    return TCPStore(address, port, is_master=True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listens)


def _store(address: str, port: int) -> TCPStore:
    """The store that is kept at an address; a connection of one's own, since a process group's may be busy."""
    return TCPStore(address, port, is_master=False, wait_for_workers=False)


def _join(fabric: Fabric, threads: int | None, notes: Store) -> World:
    """Set up collectives. All processes are there; what else may go wrong, the watch hears."""
    try:
        fabric.launch()
    except ValueError as error:
        raise UsageError(str(error)) from error
    if threads is not None:
        torch.set_num_threads(threads)
    return World(fabric.device, notes)


def _until(store: Store, come: Callable[[], bool]) -> None:
    """Until something has come; once a process has ended it will not come any more."""
    while not come():
        if store.check([_ENDED]):
            raise SystemExit(1)
        time.sleep(POLL_SECONDS)


class _Watch:
    """Hears when another process ends, and sees to it that this one does, too, with one message among all of them."""

    def __init__(self, place: _Place) -> None:
        self._place, self._rank, self._size = place, place.rank, place.size
        self._notes: Store | None = None
        self._lines: dict[int, socket.socket] = {}
        self._names: dict[int, str] = {}
        self._heard = selectors.DefaultSelector()
        self._lost = ""
        """Who ended without a word; nobody that is known of as long as it is empty."""
        self._claim = threading.Lock()
        self._speaks: bool | None = None
        self._ended, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    @property
    def notes(self) -> Store:
        assert self._notes is not None
        return self._notes

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """This process ends in order: it is said, so that nobody takes it for lost."""
        self._over.set()
        for line in self._lines.values():
            with suppress(OSError):
                line.sendall(_GOODBYE)
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_SECONDS)
        if self._place.starter:
            atexit.register(self._hurry, failed=kind is not None)
            return
        self._heard.close()
        for line in self._lines.values():
            line.close()

    # ---------------------------------------------------------------- coming together

    def meet(self) -> None:
        """Until all processes have come.

        Raises:
            TrainingError: one of them will not.
        """
        place, deadline = self._place, time.monotonic() + MEETING_SECONDS
        store = place.store or self._visit(deadline)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._notes = PrefixStore(f"foreframe {attempt}", store)
        if place.starter:
            _hear_signals()
        if self._rank == 0:
            self._receive(deadline)
            self._thread.start()
            self.notes.add("all are here", 1)
        else:
            self._call()
            self._thread.start()
            _until(self.notes, lambda: self.notes.check(["all are here"]))

    def _visit(self, deadline: float) -> TCPStore:
        """The store that another process keeps, as soon as it does."""
        place = self._place
        while time.monotonic() < deadline:
            try:
                socket.create_connection((place.address, place.port), PATIENCE_SECONDS).close()
                return _store(place.address, place.port)
            except (OSError, RuntimeError):
                if place.starter and place.nodes == 1:  # it was there before this process was
                    raise self._left_alone() from None
            time.sleep(POLL_SECONDS)
        raise TrainingError(
            f"{place.address}:{place.port}: no answer for {MEETING_SECONDS / 60:g} minutes; expected the first process "
            "of this training there"
        )

    def _receive(self, deadline: float) -> None:
        """Take the calls of all others."""
        with _listening(_LOOPBACK if self._place.nodes == 1 else "") as server:
            server.settimeout(POLL_SECONDS)
            self.notes.set("call", f"{server.getsockname()[1]} {_name()}")
            while len(self._lines) < self._size - 1:
                self._look_before()
                if time.monotonic() > deadline:
                    raise TrainingError(
                        f"{len(self._lines) + 1} of {self._size} processes came within {MEETING_SECONDS / 60:g} minutes"
                    )
                with suppress(TimeoutError):
                    self._answer(server.accept()[0])

    def _answer(self, line: socket.socket) -> None:
        """Find out who calls; a stranger is left alone."""
        line.settimeout(PATIENCE_SECONDS)
        try:
            number, name = line.recv(1000).decode().split(maxsplit=1)
            rank = int(number)
        except (OSError, ValueError):
            rank, name = 0, ""
        if 0 < rank < self._size and rank not in self._lines:
            self._hold(line, rank, name)
        else:
            line.close()

    def _call(self) -> None:
        """Call the first process."""
        address = _LOOPBACK if self._place.nodes == 1 else self._place.address
        try:
            _until(self.notes, lambda: self.notes.check(["call"]))
            port, name = self.notes.get("call").decode().split(maxsplit=1)
            line = socket.create_connection((address, int(port)), GRACE_SECONDS)
            line.sendall(f"{self._rank} {_name()}".encode())
        except (OSError, RuntimeError):
            raise self._left_alone() from None
        self._hold(line, 0, name)

    def _hold(self, line: socket.socket, rank: int, name: str) -> None:
        line.setblocking(False)
        self._lines[rank], self._names[rank] = line, name
        self._heard.register(line, selectors.EVENT_READ, rank)

    def _look_before(self) -> None:
        """Raises what is to be raised if a process has ended before all have come."""
        if self.notes.check([_ENDED]):
            raise SystemExit(1)
        for number, child in enumerate(self._place.children, 1):
            code = child.poll()
            if code is None:
                continue
            if code > 0:  # it has said why
                raise SystemExit(1)
            self._lost = f"rank {number} of {self._size} (process {child.pid})"
            raise TrainingError(self._told())

    def _left_alone(self) -> BaseException:
        """What to raise where the first process has gone before this one came to it."""
        self._lost = f"rank 0 of {self._size}"
        return TrainingError(self._told()) if self._rank == 1 else SystemExit(1)

    # ---------------------------------------------------------------- ending

    def last_word(self, error: BaseException) -> BaseException:
        """What this process ends with: what went wrong if it is the first to say so, or else nothing that is told."""
        if self._notes is None:
            return error
        if isinstance(error, RuntimeError):
            # Where a collective has broken off, the reason is another process, of which the watch is about to hear.
            self._ended.wait(PATIENCE_SECONDS)
        if not self._speaks_first("stopped" if isinstance(error, signals.Stopped) else "failed"):
            return SystemExit(self._code())
        return TrainingError(self._told()) if self._lost else error

    def _speaks_first(self, why: str) -> bool:
        """Note that this process ends; returns whether none has before."""
        mine = f"{why} {self._rank}"
        answers: list[bool] = []

        def ask() -> None:
            try:
                answers.append(self.notes.compare_set(_ENDED, "", mine) == mine.encode())
            except RuntimeError:  # the notes went with the first process, and the second one speaks
                answers.append(not self._lost or self._rank == 1)

        with self._claim:
            if self._speaks is None:
                asking = threading.Thread(target=ask, daemon=True)
                asking.start()
                asking.join(PATIENCE_SECONDS)
                # No answer: the first process hangs and will say nothing.
                self._speaks = answers[0] if answers else True
            return self._speaks

    def _code(self) -> int:
        """The exit code where another process was the first to end: 0 if it was asked to stop."""
        try:
            return int(not self.notes.get(_ENDED).startswith(b"stopped"))
        except RuntimeError:  # the notes went with the first process
            return 1

    def _told(self) -> str:
        return (
            f"{self._lost} ended without a word: perhaps the system killed it, for want of memory; all processes have "
            "ended, and `foreframe resume RUN` goes on from the newest checkpoint"
        )

    def _look(self) -> None:
        """What the thread does: listen, and end this process if its work does not come to an end by itself."""
        while not self._ended.is_set():
            self._listen(LOOK_SECONDS)
            if self._over.is_set():
                return
            try:
                self._pass_on()
                ended = self.notes.check([_ENDED])
            except RuntimeError:  # a moment later than the notes the line to the first process breaks, too
                self._listen(PATIENCE_SECONDS)
                self._lost = self._lost or "what started the processes of this training"
            if self._lost:
                self._speaks_first("failed")
            if self._lost or ended:
                self._ended.set()
        if not self._over.wait(GRACE_SECONDS if self._rank == 0 else PATIENCE_SECONDS):
            self._leave()

    def _pass_on(self) -> None:
        """A request to stop is one to all: while one validates, only those that wait for it may have heard of it."""
        asked, known = signals.asked(), self.notes.check([_ASKED])
        if asked and not known:
            self.notes.set(_ASKED, str(asked))
        elif known and not asked:
            signals.tell(int(self.notes.get(_ASKED)))

    def _listen(self, seconds: float) -> None:
        """Hear what comes over the lines: a goodbye, or that one breaks."""
        for key, _ in self._heard.select(seconds):
            line = self._lines[key.data]
            try:
                said = line.recv(1)
            except OSError:
                said = b""
            self._heard.unregister(line)
            if said != _GOODBYE:
                self._lost = f"rank {key.data} of {self._size} ({self._names[key.data]})"

    def _leave(self) -> None:
        """End this process wherever its work is; what it writes is whole or not there at any moment."""
        if self._speaks and self._lost:
            print(f"foreframe: {self._told()}", file=sys.stderr, flush=True)
        for child in self._place.children:
            child.kill()
        if sys.stderr.isatty():
            print("\x1b[?25h", end="", file=sys.stderr, flush=True)  # the progress bar has hidden the cursor
        os._exit(1 if self._speaks else self._code())

    def _hurry(self, failed: bool) -> None:
        """End a process that another one has started: nothing is left to do, and taking Python down takes a second.

        If the other one does not answer although this one has failed, it hangs; nobody else would end it.
        """
        starter, waits = self._place.starter, GRACE_SECONDS + 2 * PATIENCE_SECONDS
        hangs = failed and self._place.nodes == 1 and self._heard.get_map() and not self._heard.select(waits)
        if hangs and os.getppid() == starter:
            os.kill(starter, signal.SIGKILL)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(failed))


def _name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _listening(address: str) -> socket.socket:
    """A socket others can connect to, at any free port; with no address at all of this machine's."""
    if not address and socket.has_dualstack_ipv6():
        return socket.create_server((address, 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server((address, 0))


def _hear_signals() -> None:
    """Answer the signals that `_start` has kept from this process, now that it is with the others."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
