"""Every command before every hostile file: refused in one sentence that names it, and nothing in it runs.

The commands run in a process of their own (`tests/hostile/child.py`), which listens to what Python does meanwhile.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Figure
from tests.hostile import zoo

MEGABYTES, SECONDS = 64, 20
GROUPS = ("run", "input", "source")
SHARE = 101
"""Every so many-th meeting of a file and a command takes place at a change; all of them by night."""
ENDS_WELL = {
    ("PNG and zip", "0.png"),  # a picture of one pixel; what follows it is not looked at
    # Tensors have no pointers and no code, and each byte was compared with the manifest: it does not matter where the
    # file lies, and caches of models are made of such links.
    *(("symlink out of the folder", f"{name}.safetensors") for name in ("weights", "optimizer", "watch", "ema")),
}
"""(file, name of its place): what is right in this place."""


NAMED_OTHERWISE = {("folder", "c.json")}
"""Told as the clip that has no keypoints: `train/keypoints/c`."""


def wrong(found: dict[str, Any]) -> list[str]:
    """What is wrong with how a command met a file; nothing, as a rule."""
    said, place = found["err"] + found["out"], found["place"].split("/")[-1]
    may_end_well = not found["reads"] or (found["hostile"], place) in ENDS_WELL or not found["hostile"]
    refused = found["code"] in (1, 2)
    named = place in said.replace("\n", "") or (found["hostile"], place) in NAMED_OTHERWISE
    told_by_report = found["command"] == "check" and bool(found["out"])
    return [
        problem
        for problem, is_so in (
            (f"ran {found['ran']}", found["ran"]),
            (f"did {found['alarms']}", found["alarms"]),
            (f"ended with {found['code']}", not refused and not (may_end_well and found["code"] == 0)),
            ("does not name the file", refused and not named),
            (
                "more or less than one message",
                refused and not told_by_report and found["err"].count("foreframe: ") != 1,
            ),
            ("a traceback", "Traceback" in said),
            ("an error that was not foreseen", "--debug shows where" in said),
            ("a warning of Python", "Warning:" in said),
            ("steers the terminal", "\x1b" in said),
            ("a long message", len(said) > 20_000),
            (f"{found['growth']:.0f} MiB", found["growth"] > MEGABYTES and refused),
            (f"{found['seconds']:.0f} s", found["seconds"] > SECONDS and refused),
        )
        if is_so
    ]


def _environment(root: Path) -> dict[str, str]:
    """Every process of a command is listened to."""
    paths = [str(Path(__file__).parent / "site"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    place = {"HOSTILE_ROOT": str(root), "TMPDIR": str(root), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **place}


def meet(groups: str, root: Path, share: int) -> list[dict[str, Any]]:
    environment = _environment(root)
    command = [sys.executable, "-m", "tests.hostile.child", groups, str(root), str(share)]
    ended = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    said = (root / "err.txt").read_text(errors="replace") if (root / "err.txt").exists() else ended.stderr
    assert ended.returncode == 0, said[-3000:]
    return [json.loads(line) for line in (root / "results.jsonl").read_text().splitlines()]


def judge(results: list[dict[str, Any]], figure: Figure) -> None:
    faults = [
        f"{found['hostile'] or 'the honest file'} as {found['place']} to {found['command']}: {', '.join(problems)}"
        f": {(found['err'] + found['out'])[-300:]!r}"
        for found in results
        if (problems := wrong(found))
    ]
    assert faults == [], f"{len(faults)} of {len(results)}:\n" + "\n".join(faults[:40])
    hostile = [found for found in results if found["hostile"]]
    figure("hostile files met by commands", len(hostile))
    figure("payloads run", sum(len(found["ran"]) + len(found["alarms"]) for found in results), 0)


def test_hostile_files_are_refused_by_name_and_nothing_in_them_runs(tmp_path: Path, figure: Figure):
    results = meet(",".join(GROUPS), tmp_path, SHARE)
    assert len({found["hostile"] for found in results}) > 40
    assert len({found["place"] for found in results}) > 30
    assert len({found["command"] for found in results}) >= 8
    judge(results, figure)


@pytest.mark.nightly
@pytest.mark.parametrize("group", GROUPS)
def test_every_hostile_file_is_refused_by_every_command(group: str, tmp_path: Path, figure: Figure):
    results = meet(group, tmp_path, 1)
    assert len({found["hostile"] for found in results}) > 70
    judge(results, figure)


def test_the_listener_hears_and_sees_what_a_payload_does(tmp_path: Path):
    """The test of the test: a command that opens a pickle, as this package never does, is found out in every way."""
    (tmp_path / "canaries").mkdir()
    path = tmp_path / "theirs.pkl"
    path.write_bytes(zoo.pickle_of(tmp_path / "canaries")("ran"))
    program = f"""
import os, sys
from functools import partial
from pathlib import Path
from tests.hostile import listening
sys.addaudithook(listening.hear)
import marshal, pickle
from foreframe.data.ingest.pool import Readers
with Readers(1) as readers:
    readers.call(partial(os.system, "true"), Path("."))
listening.ARMED = True
pickle.loads(open({str(path)!r}, "rb").read())
exec(marshal.loads(marshal.dumps(compile("x = 1  # {zoo.CANARY}", {zoo.CANARY!r}, "exec"))))
eval("1 or {zoo.CANARY}")
open("/tmp/elsewhere-{os.getpid()}", "w").close()
listening.ARMED = False
print(*listening.ALARMS, sep="\\n")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        env=_environment(tmp_path),
    )  # fmt: skip
    Path(f"/tmp/elsewhere-{os.getpid()}").unlink()
    heard = {line.split()[0] for line in ended.stdout.splitlines()}
    in_reader = {line.split()[0] for line in (tmp_path / "alarms.txt").read_text().splitlines()}
    assert in_reader == {"pickle.find_class", "os.system"}
    assert heard == {"pickle.find_class", "os.system", "compile", "marshal.loads", "exec", "open"}, ended.stderr
    assert (tmp_path / "canaries" / "ran").exists()


def test_the_payloads_of_the_zoo_run_where_they_are_let(tmp_path: Path, figure: Figure):
    """Without this, a zoo of payloads that cannot run would prove nothing."""
    for name, content in zoo.pickles(tmp_path).items():
        if "giant" not in name:
            with suppress(Exception):  # some are pickles of another kind than this
                pickle.loads(content)  # noqa: S301 (in a folder of our own)
    ran = {path.name for path in tmp_path.iterdir()}
    assert {"system", "exec", "eval", "pieces", "inner", "zero", "inst", "obj", "build"} <= ran
    figure("payloads that run where they are let", len(ran))
