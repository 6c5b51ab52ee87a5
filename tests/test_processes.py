"""Two processes that train together, killed, stopped, hung and poisoned: both end, with one message, and go on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from foreframe import checkpoint, distributed, signals
from foreframe.data.pack.pack import Pack
from foreframe.errors import TrainingError
from foreframe.log import read_log
from foreframe.recipe import RunConfig
from foreframe.training import crash
from foreframe.training.trainer import Trainer
from tests.conftest import write_pack

PROC = Path("/proc/self/environ")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="which processes are left is read from /proc")
ENDS_WITHIN, GONE_WITHIN = 30.0, 5.0
STEPS, VALIDATES = 6, 4

# What the command does is the real thing; only, in the process of a rank, the n-th time a place is come to, something
# happens there. It is written down when it did.
SCRIPT = """
    import contextlib, os, signal, sys, time
    from pathlib import Path
    import torch
    from foreframe import checkpoint, cli, disk, distributed
    from foreframe import evaluation
    from foreframe import signals
    from foreframe.training import trainer as train
    from foreframe.errors import DataError

    RANK = int(os.environ.get("LOCAL_RANK", "0"))
    PLAN = [each.split() for each in os.environ["PLAN"].split(",") if each]
    come = {}

    def happens(place):
        come[place] = come.get(place, 0) + 1
        for rank, where, number, what in PLAN:
            if (int(rank), where, int(number)) == (RANK, place, come[place]):
                os.write(1, b"HAPPENS %f" % time.time() + bytes([10]))  # in one piece: two processes write here
                do(what)

    def do(what):
        if what == "fails":
            raise RuntimeError("a fault")
        elif what == "fails-later":
            time.sleep(1)
            raise RuntimeError("a fault")
        elif what == "unreadable":
            raise DataError("clips: cannot be read here")
        elif what == "waits":
            for _ in range(1200):
                time.sleep(0.1)
                signals.poll()
        elif what == "sleeps":
            time.sleep(120)
        elif what.startswith("every-"):
            for place in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    if ("MARK=" + os.environ["MARK"]).encode() in place.read_bytes().split(bytes(1)):
                        os.kill(int(place.parent.name), getattr(signal, what.removeprefix("every-")))
        elif what.startswith("all-"):
            os.killpg(0, getattr(signal, what.removeprefix("all-")))
        else:
            os.kill(os.getpid(), getattr(signal, what))

    def hook(owner, name, place, after=False):
        work = getattr(owner, name)

        def hooked(*arguments, **named):
            if not after:
                happens(place)
            done = work(*arguments, **named)
            if after:
                happens(place)
            return done

        setattr(owner, name, hooked)

    def renames(folder, sync=disk.sync):
        if folder.name.startswith(disk.TEMPORARY):
            happens("renaming")
        sync(folder)

    def poison(trainer, drawn):
        given = place(trainer, drawn)
        if drawn.step in map(int, os.environ["STEPS"].split()):
            batch = trainer.setup.train.batch
            rows = torch.arange(batch) if given.clip.batch == batch else trainer.rows
            shares = rows * trainer.setup.world.size // batch
            given.clip.frames[shares == int(os.environ["POISONED"])] = float("nan")
        return given

    hook(distributed._Watch, "meet", "before")
    hook(distributed, "_join", "meeting")
    hook(train.Trainer, "one_step", "step")
    hook(distributed.World, "mean_", "reduced", after=True)
    hook(distributed.World, "barrier", "wait")
    hook(checkpoint, "save", "save")
    disk.sync = renames
    hook(evaluate, "evaluate", "validation")
    if "POISONED" in os.environ:
        place = train.Trainer.place
        train.Trainer.place = poison
    happens("start")
    cli.main()
"""
TINY = [
    "push-demo", "--steps", str(STEPS), "--batch", "4", "--horizon", "3", "--eval-horizon", "3",
    "--log-every", "1", "--validate-every", str(VALIDATES), "--save-every", "2", "--threads", "1", "--device", "cpu",
    "--model.backbone", "dcgan", "--model.width", "4", "--model.g-dim", "8", "--model.z-dim", "3",
    "--model.rnn-size", "8",
]  # fmt: skip


@dataclass
class Ended:
    """How a command ended: seconds from what happened last to its end, and from there until all its processes were
    gone."""

    code: int
    out: str
    err: str
    seconds: float
    gone: float

    @property
    def told(self) -> list[str]:
        """What it has to say to the user of how it ended."""
        said = [line for line in self.err.splitlines() if line.startswith("foreframe: ")]
        return said + [line for line in self.out.splitlines() if ": stopped by " in line or ": complete at " in line]

    @property
    def noise(self) -> list[str]:
        """Lines on stderr that are neither that, nor progress, nor notes of a run."""
        usual = ("foreframe: ", "training ", "step ", "KL ")
        return [line for line in self.err.splitlines() if line.strip() and not line.startswith(usual)]


class Command:
    """`foreframe` with two processes, to which things happen."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.count = folder, data, 0
        (folder / "start.py").write_text(textwrap.dedent(SCRIPT))

    def train(self, run: Path, plan: str = "", *more: str, **others: object) -> Ended:
        return self(["train", *TINY, "--data", str(self.data), "--run", str(run), *more], plan, **others)

    def resume(self, run: Path, plan: str = "", **others: object) -> Ended:
        return self(["resume", str(run), "--threads", "1", "--device", "cpu"], plan, **others)

    def __call__(
        self, arguments: list[str], plan: str, torchrun: bool = False, devices: int = 2, **names: str
    ) -> Ended:
        self.count += 1
        mark = f"{self.folder}/{self.count}"
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(devices), "-m", "--"] if torchrun else ["-m"]
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        with out.open("w") as out_file, err.open("w") as err_file:
            process = subprocess.Popen(
                [sys.executable, *launcher, "start", *arguments, "--devices", str(devices)],
                stdout=out_file,
                stderr=err_file,
                env=os.environ | {"PYTHONPATH": path, "PLAN": plan, "MARK": mark} | names,
                start_new_session=True,
            )
            try:
                code = process.wait(300)
            finally:
                ended = time.time()
                while (left := marked(mark)) and time.time() < ended + 2 * GONE_WITHIN:
                    time.sleep(0.1)
                gone = time.time()
                for number in left:
                    os.kill(number, signal.SIGKILL)
                process.wait()
        happened = [float(line.split()[1]) for line in out.read_text().splitlines() if line.startswith("HAPPENS")]
        assert bool(happened) == bool(plan), f"what was planned did not happen: {out.read_text()} {err.read_text()}"
        since = happened[-1] if happened else ended
        return Ended(code, out.read_text(), err.read_text(), ended - since, gone - ended)


def marked(mark: str) -> list[int]:
    """Processes with this mark in their environment that have not ended."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and f"MARK={mark}\0".encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.fixture(scope="module")
def command(vector_pack, tmp_path_factory) -> Command:
    return Command(tmp_path_factory.mktemp("command"), vector_pack.path)


def ended_well(ended: Ended, torchrun: bool = False) -> bool:
    """Within the time promised, leaving no process and one message."""
    assert ended.seconds < ENDS_WITHIN, ended
    assert ended.gone < GONE_WITHIN, ended
    assert len(ended.told) == 1, ended
    assert torchrun or not ended.noise, ended.noise
    return True


def newest(run: Path) -> int:
    """The newest checkpoint, which must be whole, with nothing said of damage."""
    said: list[str] = []
    found = checkpoint.newest(run, say=said.append)
    assert not said
    return found.step if found else 0


def rows(run: Path) -> list[dict[str, object]]:
    """The log, but for the speed."""
    return [{name: value for name, value in row.items() if name != "steps_per_second"} for row in read_log(run)]


def same_run(found: Path, expected: Path) -> None:
    assert checkpoint.read(found, STEPS).hashes == checkpoint.read(expected, STEPS).hashes
    assert rows(found) == rows(expected)


KILLED = "ended without a word: perhaps the system killed it"


def goes_on_alone(run: Path, expected: Path) -> None:
    """One process goes on with what two began: the same batches, and losses within 1e-4."""
    config = RunConfig.read(run)
    trainer = Trainer(config, Pack.open(config.data.path), run, torch.device("cpu"))
    assert trainer.run() == f"complete at step {STEPS} of {STEPS}"
    found, expected_rows = rows(run), rows(expected)
    assert [row["step"] for row in found] == [row["step"] for row in expected_rows]
    for mine, other in zip(found, expected_rows, strict=True):
        if "loss" in mine:
            assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)


@needs_proc
def test_the_first_process_is_killed_and_one_goes_on_alone(command, tmp_path, figure):
    run, whole = tmp_path / "run", tmp_path / "whole"
    ended = command.train(run, "0 reduced 4 SIGKILL")
    assert ended_well(ended)
    assert ended.code == -signal.SIGKILL
    assert ended.told[0].startswith("foreframe: rank 0 of 2 (process ")
    assert KILLED in ended.told[0]
    assert newest(run) == 2
    whole.mkdir()
    shutil.copy(run / "config.json", whole)
    goes_on_alone(whole, whole)
    goes_on_alone(run, whole)
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
def test_a_process_that_hangs_ends_with_the_one_that_failed(command, tmp_path, figure):
    ended = command.train(tmp_path / "run", "1 step 3 SIGSTOP,0 step 3 fails-later")
    assert ended_well(ended)
    assert (ended.code, ended.told) == (1, ["foreframe: RuntimeError: a fault; --debug shows where"])
    assert newest(tmp_path / "run") == 2
    figure("killed or poisoned ranks that ended well", 1, 1)


# ---------------------------------------------------------------- all the others, at length


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> Path:
    """A run of two processes that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    ended = command.train(run)
    assert ended_well(ended)
    assert ended.code == 0
    return run


@needs_proc
@pytest.mark.nightly
def test_a_run_of_two_killed_and_stopped_on_its_way_is_bit_for_bit_the_one_that_was_not(
    command, whole, tmp_path, figure
):
    run = tmp_path / "run"
    deaths = ["0 reduced 4 SIGKILL", "1 reduced 2 SIGKILL", "0 renaming 1 SIGKILL"]
    assert ended_well(command.train(run, deaths[0]))
    ended = command.resume(run, "1 step 1 SIGUSR1")
    assert ended_well(ended)
    assert ended.code == 0
    for death in deaths[1:]:
        assert ended_well(command.resume(run, death))
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    ended = command.resume(run)
    assert ended.code == 0, ended
    same_run(run, whole)
    goes_on_alone(alone, whole)
    figure("killed or poisoned ranks that ended well", 3, 3)


RANK_0, RANK_1 = "foreframe: rank 0 of 2 ", "foreframe: rank 1 of 2 "
FAULT = "foreframe: RuntimeError: a fault; "
DEATHS = {
    "before it has met the other": ("1 start 1 SIGKILL", RANK_1, 0),
    "while the other comes to it": ("0 meeting 1 SIGKILL", RANK_0, 0),
    "while it comes to the other": ("1 meeting 1 SIGKILL", RANK_1, 0),
    "at the first step": ("0 step 1 SIGKILL", RANK_0, 0),
    "in a step": ("1 reduced 3 SIGKILL", RANK_1, 2),
    "in a save": ("0 renaming 2 SIGKILL", RANK_0, 2),
    "in a validation": ("0 validation 2 SIGKILL", RANK_0, 2),
    "while it waits for a long validation": ("0 validation 1 sleeps,1 wait 3 SIGKILL", RANK_1, 2),
    "data that one cannot read": ("1 before 1 unreadable", "foreframe: clips: cannot be read here", 0),
    "a fault of the first": ("0 step 3 fails", FAULT, 2),
    "a fault while the first hangs": ("0 step 3 SIGSTOP,1 step 3 fails-later", FAULT, 2),
    "a fault while the first hangs in a validation": ("0 validation 1 SIGSTOP,1 wait 3 fails-later", FAULT, 2),
}


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(("plan", "told", "step"), DEATHS.values(), ids=DEATHS)
def test_whatever_ends_one_ends_both_with_one_message(command, tmp_path, figure, plan, told, step):
    run = tmp_path / "run"
    ended = command.train(run, plan)
    assert ended_well(ended)
    assert ended.told[0].startswith(told), ended
    assert (KILLED in ended.told[0]) == (told in (RANK_0, RANK_1))
    assert ended.code in (1, -signal.SIGKILL)
    assert newest(run) == step
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("plan", "told"),
    [("1 reduced 3 SIGKILL", "foreframe: rank 1 of 3 "), ("2 step 3 SIGSTOP,1 step 3 fails-later", FAULT)],
    ids=["killed", "hangs"],
)
def test_of_three_only_one_speaks(command, tmp_path, figure, plan, told):
    ended = command.train(tmp_path / "run", plan, "--batch", "6", devices=3)
    assert ended_well(ended)
    assert ended.told[0].startswith(told), ended
    assert newest(tmp_path / "run") == 2
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun_it_is_the_same(command, tmp_path, figure, rank):
    ended = command.train(tmp_path / "run", f"{rank} reduced 3 SIGKILL", torchrun=True)
    assert ended_well(ended, torchrun=True)
    assert ended.told[0].startswith(f"foreframe: rank {rank} of 2 "), ended
    assert newest(tmp_path / "run") == 2
    figure("killed or poisoned ranks that ended well", 1, 1)


REQUESTS = {
    "the first, in a step": ("0 step 2 SIGTERM", 2, False),
    "the other, in a step": ("1 step 2 SIGINT", 2, False),
    "both, in a step": ("1 step 2 all-SIGUSR1", 2, False),
    "one of torchrun's": ("0 step 2 SIGTERM", 2, True),
    "both, in a save": ("0 renaming 1 all-SIGTERM", 2, False),
    "the first, in a validation": ("0 validation 1 SIGINT", 4, False),
    "the other, while the first validates for long": ("0 validation 1 waits,1 wait 3 SIGTERM", 4, False),
    "both, while one validates": ("1 wait 3 all-SIGINT", 4, False),
    "the other, before they have met": ("1 start 1 SIGTERM", 0, False),
    "both, before they have met": ("1 start 1 all-SIGINT", 0, False),
    "the other, while the first reads": ("1 wait 1 SIGUSR1", 0, False),
}


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(("plan", "step", "torchrun"), REQUESTS.values(), ids=REQUESTS)
def test_whoever_is_asked_to_stop_both_do_at_the_same_step(command, tmp_path, figure, plan, step, torchrun):
    run = tmp_path / "run"
    ended = command.train(run, plan, torchrun=torchrun)
    assert ended_well(ended, torchrun)
    assert ended.code == 0
    name = plan.split("-")[-1].split()[-1]
    if step:
        assert ended.told == [f"{run}: stopped by {name} at step {step} of {STEPS}"]
    else:
        assert ended.told[0].startswith(f"foreframe: stopped by {name}; ")
    assert newest(run) == step
    figure("requests to stop, heard by both", 1, 1)


@needs_proc
@pytest.mark.nightly
def test_what_a_scheduler_sends_to_all_and_torchrun_passes_on_is_one_request(command, tmp_path, figure):
    run = tmp_path / "run"
    ended = command.train(run, "1 step 2 every-SIGTERM", torchrun=True)
    assert ended_well(ended, torchrun=True)
    assert ended.told == [f"{run}: stopped by SIGTERM at step 2 of {STEPS}"]
    assert newest(run) == 2
    figure("requests to stop, heard by both", 1, 1)


@needs_proc
@pytest.mark.nightly
def test_a_step_that_is_not_finite_in_one_process_is_skipped_in_both(command, tmp_path, figure):
    run = tmp_path / "run"
    ended = command.train(run, "", POISONED="1", STEPS="2")
    assert ended_well(ended)
    assert (ended.code, ended.told) == (0, [f"{run}: complete at step {STEPS} of {STEPS}"])
    notes = [row["note"] for row in read_log(run) if "not finite" in row.get("note", "")]
    assert len(notes) == 1
    assert notes[0].endswith("this step is skipped")
    assert newest(run) == STEPS
    logged = [row["step"] for row in read_log(run) if "loss" in row]
    assert logged == [step for step in range(1, STEPS + 1) if step != 3]
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize("rank", [0, 1])
def test_steps_that_are_not_finite_in_one_process_end_both_with_one_message(command, tmp_path, figure, rank):
    run = tmp_path / "run"
    ended = command.train(run, "", POISONED=str(rank), STEPS="2 3 4")
    assert ended_well(ended)
    assert ended.code == 1
    assert "not finite" in ended.told[0]
    assert f"foreframe replay {run / 'crash'}" in ended.told[0]
    assert newest(run) == 4
    assert crash.replay(next((run / "crash").iterdir())).first == "the frames given"
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
def test_clips_that_cannot_be_shared_are_refused_once_and_too_few_for_a_batch_are_drawn_again(
    command, tmp_path, figure
):
    ended = command.train(tmp_path / "run", "", "--batch", "5")
    assert ended_well(ended)
    assert ended.code == 1
    assert "batch: 5 clips cannot be shared equally by 2 devices; give a multiple of 2" in ended.told[0]
    few = write_pack(tmp_path / "few", clips=3)
    ended = Command(tmp_path, few.path).train(tmp_path / "run", "", "--batch", "40", "--windows", "first")
    assert ended_well(ended)
    assert ended.code == 0
    assert newest(tmp_path / "run") == STEPS
    figure("killed or poisoned ranks that ended well", 2, 2)


# ---------------------------------------------------------------- coming together, in this process


@pytest.fixture
def _no_network() -> None:
    """Connections within this machine are what these tests are about."""


@pytest.fixture
def watches(monkeypatch):
    """Two processes that have not met yet, played by this one."""
    monkeypatch.setattr(distributed, "GRACE_SECONDS", 600.0)
    monkeypatch.setattr(distributed, "PATIENCE_SECONDS", 600.0)
    store = distributed._keep("127.0.0.1", 0)
    places = [distributed._Place(rank, 2, 1, "127.0.0.1", store.port, None if rank else store) for rank in (0, 1)]
    both = [distributed._Watch(place) for place in places]
    yield both
    for watch in both:
        watch.__exit__(None)


def meet(watches) -> None:
    other = threading.Thread(target=watches[1].meet)
    other.start()
    watches[0].meet()
    other.join()


def test_of_two_that_fail_one_speaks_and_a_goodbye_is_no_loss(watches):
    meet(watches)
    faults = [ValueError("one"), TrainingError("two")]
    assert watches[1].last_word(faults[1]) is faults[1]
    silent = watches[0].last_word(faults[0])
    assert isinstance(silent, SystemExit)
    assert silent.code == 1
    watches[1].__exit__(None)
    watches[0].__exit__(None)
    assert watches[0]._lost == watches[1]._lost == ""


def test_where_one_was_asked_to_stop_the_other_has_not_failed(watches):
    meet(watches)
    asked = signals.Stopped(signal.SIGTERM)
    assert watches[0].last_word(asked) is asked
    silent = watches[1].last_word(ValueError("a consequence"))
    assert isinstance(silent, SystemExit)
    assert silent.code == 0


def test_a_line_that_breaks_is_a_process_that_was_killed(watches):
    meet(watches)
    watches[1]._over.set()
    watches[1]._thread.join()
    watches[1]._lines[0].shutdown(socket.SHUT_RDWR)
    told = watches[0].last_word(RuntimeError("Connection closed by peer"))
    assert isinstance(told, TrainingError)
    assert str(told).startswith(f"rank 1 of 2 (process {os.getpid()} on {socket.gethostname()}) {KILLED}")


def test_a_stranger_who_calls_is_not_taken_for_a_process(watches):
    thread = threading.Thread(target=watches[0].meet)
    thread.start()
    while watches[0]._notes is None or not watches[0].notes.check(["call"]):
        time.sleep(0.01)
    port = int(watches[0].notes.get("call").split()[0])
    for said in (b"GET / HTTP/1.1", b"7 out of range", b"0 the first itself", b"\xff\xfe", b""):
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(said)
    watches[1].meet()
    thread.join()
    assert watches[0]._names == {1: distributed._name()}


def test_who_does_not_come_is_not_waited_for_without_end(watches, monkeypatch):
    monkeypatch.setattr(distributed, "MEETING_SECONDS", 0.2)
    with pytest.raises(TrainingError, match=r"1 of 2 processes came within 0\.00333333 minutes"):
        watches[0].meet()
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = replace(watches[1]._place, port=server.getsockname()[1])
    with pytest.raises(TrainingError, match=r"no answer for .* minutes; expected the first process of this training"):
        distributed._Watch(nobody).meet()
    with pytest.raises(TrainingError, match="rank 0 of 2 ended without a word"):
        distributed._Watch(replace(nobody, starter=os.getpid())).meet()


def test_processes_that_were_started_know_their_place_and_are_not_left_behind(monkeypatch, tmp_path):
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    code = f"import os, sys; print(*map(os.environ.get, {names}), file=open(os.environ['OUT'], 'w')); sys.exit(3)"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", code])
    monkeypatch.setattr(distributed, "_LAUNCHERS", ())
    with distributed._started(torch.device("cpu"), 2, 1) as place:
        assert os.environ["LOCAL_RANK"] == "0"
        assert (place.rank, place.size, place.port) == (0, 2, place.store.port)
        place.children[0].wait()
        with pytest.raises(SystemExit):  # it has said why
            distributed._Watch(place).meet()
    assert (tmp_path / "out").read_text().split() == ["127.0.0.1", str(place.port), "0", "1"]
    assert not set(names) & set(os.environ)

    monkeypatch.setattr(distributed, "_end", partial(distributed._end, seconds=0.1))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "import time; time.sleep(60)"])
    with distributed._started(torch.device("cpu"), 3, 1) as place:
        pass
    assert [child.returncode for child in place.children] == [-signal.SIGKILL] * 2
