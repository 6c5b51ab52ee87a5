"""Signals while clips are packed, checked and handed on: the command ends soon and well, and the same one goes on."""

from __future__ import annotations

import json
import multiprocessing.util
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

import pytest

from foreframe import disk, signals
from foreframe.cli import main
from foreframe.data.exports import bair_lab as bair_form
from foreframe.data.exports import lerobot
from foreframe.data.exports import run as exporting
from foreframe.data.ingest import pool, reading
from foreframe.data.layouts import bair_lab
from foreframe.data.pack import journal, writer
from foreframe.data.pack.journal import Journal
from foreframe.data.pack.pack import Pack, PackWriter
from tests.data.exports.conftest import tiny_pack

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SOON = 60.0
"""Seconds in which a command ends. Two are promised where nothing else is going on; this machine may be busy."""
GONE = 60.0
"""Seconds in which no process of it is left; five are promised, likewise."""
CLIPS = 4
"""In the source."""
LATE = ("header", "hash", "statistics")
"""Stages in which every clip is packed."""
WELL = "signals in packing that ended well"
STAGES = {
    "scan": (Path, "stat"),
    "survey": (pool.Readers, "call"),
    "start": (pool, "_Reader"),
    "chunk": (pool.Readers, "_next"),
    "read": (reading, "_read"),
    "write": (PackWriter, "_write"),
    "note": (Journal, "note"),
    "header": (writer, "header"),
    "hash": (writer, "sha256"),
    "statistics": (writer, "column_stats"),
    "file": (disk, "write"),
    "folder": (disk, "sync"),
    "place": (disk, "replace_folder"),
    "verify": (Pack, "verify"),
    "pictures": (bair_form, "write_pictures"),
    "episode": (lerobot, "_episode"),
    "table": (lerobot, "_write_json"),
    "export": (exporting, "_fill"),
}
"""What a command does, and the function that does it: a moment is just before its n-th call."""


STARTING = """
import os, signal, sys, time
from pathlib import Path
from foreframe.cli import main
from foreframe.data.ingest import pool, reading
start, begun = pool._Reader, []
def signalled(*arguments):
    reader = start(*arguments)
    status = Path(f"/proc/{reader.process.pid}/status").read_text()
    asked = sum(1 << signal.Signals[name] - 1 for name in ("SIGTERM", "SIGINT", "SIGUSR1"))
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line[:6] in ("SigBlk", "SigIgn")]
    begun.append(time.monotonic())
    print((masks[0] | masks[1]) & asked == asked, end=" ")
    os.killpg(0, signal.SIGTERM)
    pool._Reader = start
    return reader
pool._Reader = signalled
main(["data", "import", *sys.argv[1:], "--workers", "2"])
print(time.monotonic() - begun[0])
"""


class Moment(NamedTuple):
    stage: str
    number: int


class End(NamedTuple):
    """How a command ended.

    code: its exit status, or minus the signal that ended it. seconds: from the signal on. left: its processes that
    were alive so much later. calls: of each stage.
    """

    code: int
    seconds: float
    said: str
    left: list[int]
    calls: dict[str, int]


def run(arguments: list[object], log: Path, at: Moment | None = None, *numbers: int, everyone: bool = False) -> End:
    """A command in a process forked from this one, and signals to it at a moment; `everyone`: to its workers too."""
    log.mkdir(parents=True)
    for name in ("said", "calls", "told"):
        (log / name).touch()
    child = os.fork()
    if not child:
        _child([str(item) for item in arguments], log, at, numbers, everyone)
    deadline = time.monotonic() + 120
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    ended = time.monotonic()
    while (left := _alive(child)) and time.monotonic() < ended + GONE:
        time.sleep(0.01)
    told = (log / "told").read_text()
    return End(
        os.waitstatus_to_exitcode(found[1]),
        ended - float(told) if told else 0.0,
        (log / "said").read_text(),
        left,
        json.loads((log / "calls").read_text() or "{}"),
    )


def _child(arguments: list[str], log: Path, at: Moment | None, numbers: tuple[int, ...], everyone: bool) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        said = os.open(log / "said", os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        tracker = resource_tracker._resource_tracker  # that of the tests is not in this session
        tracker._fd = tracker._pid = None
        calls: Counter[str] = Counter()
        for stage, (owner, name) in STAGES.items():
            setattr(owner, name, _hooked(getattr(owner, name), stage, calls, log, at, numbers, everyone))
        main(arguments)
        code = 0
        (log / "calls").write_text(json.dumps(calls))
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        multiprocessing.util._exit_function()  # as the interpreter does at its end
        os._exit(code)


def _hooked(real, stage, calls, log, at, numbers, everyone):
    def call(*arguments, **options):
        number = calls[stage]
        calls[stage] += 1
        if (stage, number) == at:
            (log / "told").write_text(repr(time.monotonic()))
            for sign in numbers:
                if everyone:
                    os.killpg(0, sign)
                else:
                    os.kill(os.getpid(), sign)
        return real(*arguments, **options)

    return call


def _alive(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if own == str(session) and state not in "ZX":
            found.append(int(entry.name))
    return found


def spread(calls: dict[str, int], each: int) -> list[Moment]:
    """So many moments of each stage, from the first call to the last."""
    return [
        Moment(stage, number)
        for stage, count in calls.items()
        for number in sorted({round(i * (count - 1) / max(1, each - 1)) for i in range(each)})
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    bair_lab.example(tmp_path / "bair")
    return tmp_path / "bair"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks and hashed blocks in a little source, and every clip on the disk at once."""
    monkeypatch.setattr(pool, "CHUNK", 12)
    monkeypatch.setattr(writer, "BLOCK", 2**12)
    monkeypatch.setattr(journal, "SECONDS", 0.0)


def ended_well(end: End, what: object) -> bool:
    good = end.code == 0 and end.seconds < SOON and not end.left and "Traceback" not in end.said
    assert good, (what, end)
    return good


def packs(tmp_path: Path, command: list[object], tries: list[tuple[Moment, int]], everyone: bool = False) -> int:
    """Stop a command that packs at each of these moments, and let it go on: how many ended well, with the same pack."""
    plain, good = tmp_path / "plain", 0
    assert run([*command[:3], plain, *command[3:]], tmp_path / "log").code == 0
    for number, (moment, sign) in enumerate(tries):
        place = tmp_path / f"at{number}"
        arguments = [*command[:3], place / "pack", *command[3:]]
        end = run(arguments, place / "log", moment, sign, everyone=everyone)
        if ended_well(end, (moment, sign)) and not (place / "pack").exists():
            assert f"stopped by {signal.Signals(sign).name}; what was packed is kept" in end.said, (moment, end)
            again = run([*arguments, "--workers", "0"], place / "again")
            assert again.code == 0, (moment, again)
            done = moment.number + 1 if moment.stage == "note" else CLIPS if moment.stage in LATE else 0
            assert done < 1 or f"continuing with {done} clip" in again.said, (moment, again)
        else:  # the signal came when nothing was left to do but to put the pack in place
            assert moment.stage in ("folder", "place", "file", "scan"), moment
        pack = Pack.open(place / "pack")
        pack.verify()
        good += pack.hash == Pack.open(plain).hash
        assert {path.name for path in place.iterdir()} <= {"pack", "log", "again"}
    return good


def test_an_import_that_is_asked_to_stop_goes_on_and_gives_the_same_pack(source: Path, tmp_path: Path, figure):
    moments = [Moment("survey", 0), Moment("note", 2), Moment("hash", 1)]
    tries = list(zip(moments, SIGNALS, strict=True))
    command = ["data", "import", source, "--workers", "0"]
    figure(WELL, packs(tmp_path, command, tries), len(tries))


@pytest.mark.nightly
@pytest.mark.parametrize(("workers", "each", "some"), [(0, 4, 1), (2, 3, 2)])
def test_an_import_may_be_asked_to_stop_at_any_moment(
    source: Path, tmp_path: Path, figure, workers: int, each: int, some: int
):
    command = ["data", "import", source, "--workers", str(workers)]
    calls = run([*command[:3], tmp_path / "first", *command[3:]], tmp_path / "count").calls
    tries = [(moment, SIGNALS[n % 3]) for n, moment in enumerate(spread(calls, each)[::some])]
    if not workers:  # each of the three signals at each moment
        tries = [(moment, sign) for moment, _ in tries for sign in SIGNALS]
    figure(WELL, packs(tmp_path, command, tries, everyone=bool(workers)), len(tries))


@pytest.mark.nightly
@pytest.mark.skipif(not (find_spec("mujoco") and find_spec("gymnasium_robotics")), reason="needs the extra `sim`")
def test_the_making_of_clips_may_be_asked_to_stop_at_any_moment(tmp_path: Path, figure):
    command = ["data", "make", "push", "--clips", str(CLIPS), "--frames", "3", "--workers", "0"]
    tries = [(Moment(stage, 1), SIGNALS[n % 3]) for n, stage in enumerate(("read", "write", "note", "hash", "file"))]
    figure(WELL, packs(tmp_path, command, tries), len(tries))


def test_a_check_that_is_asked_to_stop_ends_well(source: Path, tmp_path: Path, figure):
    end = run(["data", "check", source], tmp_path / "log", Moment("chunk", 1), signal.SIGINT)
    assert "stopped by SIGINT; nothing is left half done" in end.said
    assert end.calls["chunk"] == 2  # of many
    figure(WELL, int(ended_well(end, "check")), 1)


def test_hashing_a_long_file_ends_at_the_next_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "long").write_bytes(bytes(9 * writer.BLOCK))
    polls, poll = [], signals.poll

    def polled() -> None:
        polls.append(1)
        if len(polls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        poll()

    monkeypatch.setattr(signals, "poll", polled)
    with signals.handle_signals(), signals.defer_signals(), pytest.raises(signals.Stopped):
        writer.sha256(tmp_path / "long")
    assert len(polls) == 3


@pytest.mark.nightly
def test_a_check_of_a_pack_may_be_asked_to_stop_at_any_moment(tmp_path: Path, figure):
    tiny_pack(tmp_path / "pack")
    command = ["data", "check", tmp_path / "pack", "--workers", "0"]
    moments = spread(run(command, tmp_path / "log").calls, 3)
    ends = [run(command, tmp_path / f"log{n}", at, SIGNALS[n % 3]) for n, at in enumerate(moments)]
    figure(WELL, sum(map(ended_well, ends, moments)), len(moments))


@pytest.mark.parametrize("form", ["bair_lab", pytest.param("lerobot", marks=pytest.mark.nightly)])
def test_an_export_that_is_asked_to_stop_leaves_nothing_half_done(tmp_path: Path, figure, form: str):
    tiny_pack(tmp_path / "pack")
    command = ["data", "export", tmp_path / "pack"]
    moments = [Moment("verify", 0), Moment("pictures", 2)]
    if form == "lerobot":
        moments = spread(run([*command, tmp_path / "first", "--to", form], tmp_path / "log").calls, 2)
    good = 0
    for number, moment in enumerate(moments):
        out = tmp_path / f"out{number}"
        end = run([*command, out, "--to", form], tmp_path / f"log{number}", moment, SIGNALS[number % 3])
        good += ended_well(end, moment)
        assert out.exists() == ("stopped by" not in end.said), (moment, end)
        assert moment.stage != "pictures" or end.calls["pictures"] == moment.number + 1  # it did not write on
        assert not out.exists() or moment.stage in ("folder", "place", "scan"), moment
        assert not list(tmp_path.glob(".out*"))
    figure(WELL, good, len(moments))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_second_signal_ends_the_command_at_once(source: Path, tmp_path: Path, workers: int):
    command = ["data", "import", source, tmp_path / "pack", "--workers", workers]
    moment = Moment("chunk", 2)
    end = run(command, tmp_path / "log", moment, signal.SIGTERM, signal.SIGINT, everyone=bool(workers))
    assert end.code == -signal.SIGINT
    assert end.seconds < SOON
    assert not end.left
    assert "Traceback" not in end.said
    assert run(command, tmp_path / "again").code == 0
    Pack.open(tmp_path / "pack").verify()


@pytest.mark.nightly
@pytest.mark.parametrize("moment", [Moment("chunk", 0), Moment("chunk", 2)])
def test_reading_processes_end_with_a_command_that_is_killed(source: Path, tmp_path: Path, moment: Moment):
    command = ["data", "import", source, tmp_path / "pack", "--workers", 2]
    end = run(command, tmp_path / "log", moment, signal.SIGKILL)
    assert (end.code, end.left, end.said.count("Traceback")) == (-signal.SIGKILL, [], 0)


def test_reading_processes_hear_no_signal_from_their_first_moment_on_and_the_command_still_ends(tmp_path: Path):
    bair_lab.example(tmp_path / "bair")
    script = tmp_path / "script.py"
    script.write_text(STARTING)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "bair", tmp_path / "pack"], capture_output=True, text=True, timeout=100,
        start_new_session=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("foreframe: stopped by SIGTERM; what was packed is kept")
    assert "Traceback" not in done.stderr
    ignored, seconds = done.stdout.split()
    assert float(seconds) < SOON
    assert ignored == "True"
