"""Processes that train together, killed, stopped, hung, poisoned: all end, with one message, and the run continues."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from foreframe import checkpoint
from foreframe.data.pack.pack import Pack
from foreframe.log import read_log
from foreframe.recipe import RunConfig
from foreframe.training import crash
from foreframe.training.trainer import Trainer
from tests.conftest import write_pack

PROC = Path("/proc/self/environ")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="which processes are left is read from /proc")
ENDS_WITHIN, GONE_WITHIN = 30.0, 5.0
STEPS, VALIDATES = 6, 4

# What the command does is the real thing; only, in the process of a rank, the n-th time a place is reached, something
# happens there. It is written down when it did.
SCRIPT = """
    import contextlib, os, signal, sys, time
    from pathlib import Path
    import torch.distributed
    from foreframe import checkpoint, cli, disk, distributed, evaluation, signals
    from foreframe.errors import DataError
    from foreframe.training import trainer as train

    RANK = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "-1")))  # -1: the launcher
    PLAN = [each.split() for each in os.environ["PLAN"].split(",") if each]
    HANGS = Path(os.environ["MARK"] + ".hangs")
    reached = {}

    def happens(place):
        reached[place] = reached.get(place, 0) + 1
        for rank, where, number, what in PLAN:
            if (int(rank), where, int(number)) == (RANK, place, reached[place]):
                if what == "fails-beside-one-that-hangs":
                    while not (HANGS.exists() and is_stopped(HANGS.read_text())):
                        time.sleep(0.01)
                os.write(1, b"HAPPENS %f" % time.time() + bytes([10]))  # in one piece: two processes write here
                do(what)

    def is_stopped(pid):
        return pid and Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "T"

    def do(what):
        to, _, name = what.rpartition("-")
        if what.startswith("fails"):
            raise RuntimeError("a fault")
        elif what == "unreadable":
            raise DataError("clips: cannot be read here")
        elif what == "waits":
            for _ in range(1200):
                time.sleep(0.1)
                signals.poll()
        elif what == "sleeps":
            time.sleep(120)
        elif what == "hangs":
            HANGS.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        elif to == "every":
            for place in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    if ("MARK=" + os.environ["MARK"]).encode() in place.read_bytes().split(bytes(1)):
                        os.kill(int(place.parent.name), getattr(signal, name))
        else:
            os.kill(os.getppid() if to == "launcher" else os.getpid(), getattr(signal, name))

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

    hook(torch.distributed, "init_process_group", "meeting")
    hook(train.Trainer, "one_step", "step")
    hook(distributed.World, "mean_", "reduced", after=True)
    hook(distributed.World, "barrier", "barrier")
    hook(checkpoint, "save", "save")
    disk.sync = renames
    hook(evaluation, "evaluate", "validation")
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
    def messages(self) -> list[str]:
        """What it prints for the user of how it ended."""
        lines = [line for line in self.err.splitlines() if line.startswith("foreframe: ")]
        return lines + [line for line in self.out.splitlines() if ": stopped by " in line or ": complete at " in line]

    @property
    def noise(self) -> list[str]:
        """Lines on stderr that are neither that, nor progress, nor notes of a run."""
        usual = ("foreframe: ", "training ", "step ", "KL ")
        return [line for line in self.err.splitlines() if line.strip() and not line.startswith(usual)]


class Command:
    """`foreframe` with several processes, to which things happen."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.count = folder, data, 0
        (folder / "start.py").write_text(textwrap.dedent(SCRIPT))

    def train(self, run: Path, plan: str = "", *more: str, **others: object) -> Ended:
        return self(
            ["train", *TINY, "--data", str(self.data), "--run", str(run), *more],
            plan,
            **others,
        )

    def resume(self, run: Path, plan: str = "", **others: object) -> Ended:
        return self(["resume", str(run), "--threads", "1", "--device", "cpu"], plan, **others)

    def __call__(
        self,
        arguments: list[str],
        plan: str,
        torchrun: bool = False,
        devices: int = 2,
        nodes: int = 1,
        each: tuple[dict[str, str], ...] = ({},),
        **names: str,
    ) -> Ended:
        """each: Variables of the commands that are started beside each other; the first one's end counts."""
        self.count += 1
        mark = f"{self.folder}/{self.count}"
        launcher = (
            [
                "-m",
                "torch.distributed.run",
                "--nproc-per-node",
                str(devices),
                "-m",
                "--",
            ]
            if torchrun
            else ["-m"]
        )
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        with out.open("w") as out_file, err.open("w") as err_file:
            processes = [
                subprocess.Popen(
                    [
                        sys.executable,
                        *launcher,
                        "start",
                        *arguments,
                        "--devices",
                        str(devices),
                        "--nodes",
                        str(nodes),
                    ],
                    stdout=out_file,
                    stderr=err_file,
                    env=os.environ | {"PYTHONPATH": path, "PLAN": plan, "MARK": mark} | names | variables,
                    start_new_session=True,
                )
                for variables in each
            ]
            try:
                code = processes[0].wait(300)
            finally:
                ended = time.time()
                while (left := marked(mark)) and time.time() < ended + ENDS_WITHIN:
                    time.sleep(0.1)
                gone = time.time()
                for number in left:
                    os.kill(number, signal.SIGKILL)
                for process in processes:
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
    """Within the time promised, leaving no process and one message; torchrun prints a table of its own."""
    assert ended.seconds < ENDS_WITHIN, ended
    assert ended.gone < GONE_WITHIN, ended
    assert torchrun or len(ended.messages) == 1, ended
    assert torchrun or not ended.noise, ended.noise
    return True


def newest(run: Path) -> int:
    """The newest checkpoint, which must be whole, with no note of damage."""
    notes: list[str] = []
    found = checkpoint.newest(run, say=notes.append)
    assert not notes
    return found.step if found else 0


def rows(run: Path) -> list[dict[str, object]]:
    """The log, but for the speed."""
    return [{name: value for name, value in row.items() if name != "steps_per_second"} for row in read_log(run)]


def same_run(found: Path, expected: Path) -> None:
    assert checkpoint.read(found, STEPS).hashes == checkpoint.read(expected, STEPS).hashes
    assert rows(found) == rows(expected)


KILLED = " was killed by SIGKILL, perhaps by the system, out of memory; all processes have ended, and `foreframe resume"


def continues_alone(run: Path, expected: Path) -> None:
    """One process continues what two began: the same batches, and losses within 1e-4."""
    config = RunConfig.read(run)
    trainer = Trainer(config, Pack.open(config.data.path), run, torch.device("cpu"))
    assert trainer.run() == f"complete at step {STEPS} of {STEPS}"
    found, expected_rows = rows(run), rows(expected)
    assert [row["step"] for row in found] == [row["step"] for row in expected_rows]
    for mine, other in zip(found, expected_rows, strict=True):
        if "loss" in mine:
            assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)


@needs_proc
def test_the_first_process_is_killed_and_one_continues_alone(command, tmp_path, figure):
    run, whole = tmp_path / "run", tmp_path / "whole"
    ended = command.train(run, "0 reduced 4 SIGKILL")
    assert ended_well(ended)
    assert ended.code == 1
    assert ended.messages[0].startswith("foreframe: rank 0 of 2 (process ")
    assert KILLED in ended.messages[0]
    assert newest(run) == 2
    whole.mkdir()
    shutil.copy(run / "config.json", whole)
    continues_alone(whole, whole)
    continues_alone(run, whole)
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
def test_a_process_that_hangs_ends_with_the_one_that_failed(command, tmp_path, figure):
    ended = command.train(tmp_path / "run", "1 step 3 hangs,0 step 3 fails-beside-one-that-hangs")
    assert ended_well(ended)
    assert (ended.code, ended.messages) == (
        1,
        ["foreframe: RuntimeError: a fault; --debug shows where"],
    )
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
    continues_alone(alone, whole)
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
    "while it waits for a long validation": (
        "0 validation 1 sleeps,1 barrier 3 SIGKILL",
        RANK_1,
        2,
    ),
    "data that one cannot read": (
        "1 meeting 1 unreadable",
        "foreframe: clips: cannot be read here",
        0,
    ),
    "a fault of the first": ("0 step 3 fails", FAULT, 2),
    "a fault while the first hangs": (
        "0 step 3 hangs,1 step 3 fails-beside-one-that-hangs",
        FAULT,
        2,
    ),
    "a fault while the first hangs in a validation": (
        "0 validation 1 hangs,1 barrier 3 fails-beside-one-that-hangs",
        FAULT,
        2,
    ),
}


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(("plan", "message", "step"), DEATHS.values(), ids=DEATHS)
def test_whatever_ends_one_ends_both_with_one_message(command, tmp_path, figure, plan, message, step):
    run = tmp_path / "run"
    ended = command.train(run, plan)
    assert ended_well(ended)
    assert ended.messages[0].startswith(message), ended
    assert (KILLED in ended.messages[0]) == (message in (RANK_0, RANK_1))
    assert ended.code == 1
    assert newest(run) == step
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("1 reduced 3 SIGKILL", "foreframe: rank 1 of 3 "),
        ("2 step 3 hangs,1 step 3 fails-beside-one-that-hangs", FAULT),
    ],
    ids=["killed", "hangs"],
)
def test_of_three_only_one_message_is_printed(command, tmp_path, figure, plan, message):
    ended = command.train(tmp_path / "run", plan, "--batch", "6", devices=3)
    assert ended_well(ended)
    assert ended.messages[0].startswith(message), ended
    assert newest(tmp_path / "run") == 2
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("plan", "cause"),
    [
        ("0 reduced 3 SIGKILL", "Signal 9 (SIGKILL)"),
        ("1 reduced 3 SIGKILL", "Signal 9 (SIGKILL)"),
        ("1 step 3 fails", "RuntimeError: a fault; --debug shows where"),
    ],
)
def test_under_torchrun_its_table_has_the_cause(command, tmp_path, figure, plan, cause):
    ended = command.train(tmp_path / "run", plan, torchrun=True)
    assert ended_well(ended, torchrun=True)
    assert ended.code == 1
    assert not ended.messages
    assert cause in ended.err.partition("Root Cause")[2].replace("\n", " ")
    assert newest(tmp_path / "run") == 2
    figure("killed or poisoned ranks that ended well", 1, 1)


@needs_proc
@pytest.mark.nightly
def test_processes_whose_launcher_is_killed_save_and_end(command, tmp_path, figure):
    run = tmp_path / "run"
    ended = command.train(run, "1 barrier 3 launcher-SIGKILL,0 validation 1 waits")
    assert ended.code == -signal.SIGKILL
    assert ended.gone < ENDS_WITHIN
    assert not ended.noise
    assert ended.messages == [f"{run}: stopped by SIGTERM at step 4 of {STEPS}"]
    assert newest(run) == 4
    figure("killed or poisoned ranks that ended well", 1, 1)


REQUESTS = {
    "the launcher, in a step": ("1 step 2 launcher-SIGTERM", 2, False),
    "the launcher, while one validates": ("1 barrier 3 launcher-SIGINT", 4, False),
    "the launcher, before they have met": ("1 start 1 launcher-SIGUSR1", 0, False),
    "the first, in a step": ("0 step 2 SIGTERM", 2, False),
    "the other, in a step": ("1 step 2 SIGINT", 2, False),
    "all, in a step": ("1 step 2 every-SIGUSR1", 2, False),
    "one of torchrun's": ("0 step 2 SIGTERM", 2, True),
    "all, in a save": ("0 renaming 1 every-SIGTERM", 2, False),
    "the first, in a validation": ("0 validation 1 SIGINT", 4, False),
    "the other, while the first validates for long": (
        "0 validation 1 waits,1 barrier 3 SIGTERM",
        4,
        False,
    ),
    "all, while one validates": ("1 barrier 3 every-SIGINT", 4, False),
    "the other, before they have met": ("1 start 1 SIGTERM", 0, False),
    "all, before they have met": ("1 start 1 every-SIGINT", 0, False),
    "the other, while the first reads": ("1 barrier 1 SIGUSR1", 0, False),
}


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(("plan", "step", "torchrun"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_to_one_stops_all_at_the_same_step(command, tmp_path, figure, plan, step, torchrun):
    run = tmp_path / "run"
    ended = command.train(run, plan, torchrun=torchrun)
    assert ended_well(ended, torchrun)
    assert ended.code == 0
    name = plan.split("-")[-1].split()[-1]
    if step:
        assert ended.messages == [f"{run}: stopped by {name} at step {step} of {STEPS}"]
    else:
        assert ended.messages[0].startswith(f"foreframe: stopped by {name}; ")
    assert newest(run) == step
    figure("requests to stop, handled by all", 1, 1)


# ---------------------------------------------------------------- other launchers


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def slurm(rank: int) -> dict[str, str]:
    """What srun gives a task of two on this machine."""
    names = {
        "STEP_ID": 0,
        "STEP_NUM_TASKS": 2,
        "PROCID": rank,
        "LOCALID": rank,
        "STEP_NODELIST": "localhost",
    }
    return {f"SLURM_{name}": str(value) for name, value in names.items()} | {"MASTER_PORT": PORT}


def machine(number: int) -> dict[str, str]:
    """What is given by hand to each of two machines, played by this one."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT, "NODE_RANK": str(number)}


PORT = str(free_port())
LAUNCHERS = {"srun": (slurm, 2, 1), "by hand on two machines": (machine, 1, 2)}


@needs_proc
@pytest.mark.nightly
@pytest.mark.parametrize(("variables", "devices", "nodes"), LAUNCHERS.values(), ids=LAUNCHERS)
@pytest.mark.parametrize(
    "plan",
    ["", "1 step 2 SIGTERM", "1 step 3 fails"],
    ids=["whole", "stopped", "fails"],
)
def test_processes_find_each_other_by_what_other_launchers_give(
    command, tmp_path, figure, variables, devices, nodes, plan
):
    run, each = tmp_path / "run", (variables(0), variables(1))
    ended = command.train(run, plan, devices=devices, nodes=nodes, each=each)
    assert ended.seconds + ended.gone < ENDS_WITHIN
    assert not ended.noise
    if "fails" in plan:  # here each task or machine has a message of its own
        lost = "foreframe: another process of this training has ended or cannot be reached: "
        assert ended.code == 1
        assert sorted(message.startswith(lost) for message in ended.messages) == [
            False,
            True,
        ]
        assert "foreframe: RuntimeError: a fault; --debug shows where" in ended.messages
        assert newest(run) == 2
    else:
        end, step = ("stopped by SIGTERM", 2) if plan else ("complete", STEPS)
        assert (ended.code, ended.messages) == (
            0,
            [f"{run}: {end} at step {step} of {STEPS}"],
        )
        assert newest(run) == step
    figure("trainings under other launchers that ended well", 1, 1)


# ---------------------------------------------------------------- numbers


@needs_proc
@pytest.mark.nightly
def test_a_step_that_is_not_finite_in_one_process_is_skipped_in_both(command, tmp_path, figure):
    run = tmp_path / "run"
    ended = command.train(run, "", POISONED="1", STEPS="2")
    assert ended_well(ended)
    assert (ended.code, ended.messages) == (
        0,
        [f"{run}: complete at step {STEPS} of {STEPS}"],
    )
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
    assert "not finite" in ended.messages[0]
    assert f"foreframe replay {run / 'crash'}" in ended.messages[0]
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
    assert "batch: 5 clips cannot be shared equally by 2 devices; give a multiple of 2" in ended.messages[0]
    few = write_pack(tmp_path / "few", clips=3)
    ended = Command(tmp_path, few.path).train(tmp_path / "run", "", "--batch", "40", "--windows", "first")
    assert ended_well(ended)
    assert ended.code == 0
    assert newest(tmp_path / "run") == STEPS
    figure("killed or poisoned ranks that ended well", 2, 2)
