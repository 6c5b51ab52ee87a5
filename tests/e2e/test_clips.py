"""Clips through the command line: out in one form, in from another, checked, shown, killed, trained on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from foreframe.data.pack.pack import Pack
from tests.e2e.test_whole_way import COMMAND, foreframe

pytestmark = pytest.mark.e2e


def processes_of(parent: int) -> list[int]:
    """Processes whose parent this is or was: a reader that outlived it would still say so on its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
        if f"parent_pid={parent}".encode() in words or f"pipe_handle={parent}".encode() in words:
            found.append(int(entry.name))
    return found


def test_the_sample_goes_out_as_a_lerobot_dataset_and_comes_back_and_is_trained_on(tmp_path):
    exported, pack, run = tmp_path / "lerobot", tmp_path / "pack", tmp_path / "run"
    foreframe("data", "export", "push", exported, "--to", "lerobot")
    assert "nothing wrong found" in foreframe("data", "check", exported)
    said = foreframe("data", "import", exported, pack)
    assert "test 32, train 288, val 32" in said or "train 288, val 32, test 32" in said
    opened = Pack.open(pack)
    assert opened.cond_names[0] == "action.move_x"
    foreframe("data", "show", pack, "--out", tmp_path / "clips.html", "--clips", 3)
    assert "<script" not in (tmp_path / "clips.html").read_text()
    settings = ("--steps", 2, "--batch", 2, "--validate-every", 0, "--threads", 1, "--model.width", 8)
    foreframe("train", "push-demo", "--data", pack, "--run", run, *settings)
    config = json.loads((run / "config.json").read_text())
    assert [item["name"] for item in config["cond_stats"]] == list(opened.cond_names)
    foreframe("evaluate", run, "--threads", 1, "--clips", 2, "--json", tmp_path / "scores.json")


def test_an_import_killed_twice_ends_with_the_same_bytes_and_leaves_no_process(tmp_path):
    foreframe("data", "export", "push", tmp_path / "lab", "--to", "bair_lab")
    foreframe("data", "import", tmp_path / "lab", tmp_path / "plain", "--workers", 0)
    command = [str(COMMAND), "data", "import", str(tmp_path / "lab"), str(tmp_path / "pack"), "--workers", "2"]
    landed = 0
    for _ in range(2):
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = tmp_path / ".pack.partial" / "arrays" / "frames.npy"
        size = partial.stat().st_size if partial.exists() else 0
        for _ in range(6000):
            time.sleep(0.05)
            if started.poll() is not None or (partial.exists() and partial.stat().st_size > size + 2_000_000):
                break
        os.kill(started.pid, signal.SIGKILL)
        landed += started.wait() == -signal.SIGKILL
        for _ in range(6000):
            if not processes_of(started.pid):
                break
            time.sleep(0.02)
        assert not processes_of(started.pid)
    assert landed == 2
    assert not (tmp_path / "pack").exists()
    foreframe("data", "import", tmp_path / "lab", tmp_path / "pack", "--workers", 2)
    assert Pack.open(tmp_path / "pack").hash == Pack.open(tmp_path / "plain").hash


@pytest.mark.skipif(
    not (find_spec("mujoco") and find_spec("gymnasium_robotics") and find_spec("pybullet_data")),
    reason="needs the extra `sim`",
)
@pytest.mark.parametrize("kind", ["push", "dance"])
def test_simulated_clips_are_made_shown_and_checked(tmp_path, kind):
    for name, workers in (("one", 0), ("two", 2)):
        settings = ("--clips", 4, "--frames", 12, "--seed", 3, "--workers", workers)
        foreframe("data", "make", kind, tmp_path / name, *settings)
    one, two = Pack.open(tmp_path / "one"), Pack.open(tmp_path / "two")
    assert one.hash == two.hash
    np.testing.assert_array_equal(one.frames, two.frames)
    foreframe("data", "check", tmp_path / "one")
    foreframe("data", "show", tmp_path / "one", "--out", tmp_path / "clips.png")


def test_wrong_usage_and_bad_clips_have_their_own_exit_codes(tmp_path):
    for verb in (("show", "--out", tmp_path / "x.html"), ("check",)):
        said = foreframe("data", verb[0], "push", *verb[1:], "--columns", "move*", code=2)
        assert "push: packed already, so columns cannot be chosen any more" in said
    foreframe("data", "export", "push", tmp_path / "lab", "--to", "bair_lab")
    assert "no column is called 'acton'; did you mean 'action_" in foreframe(
        "data", "import", tmp_path / "lab", tmp_path / "pack", "--columns", "acton", code=2
    )
    next((tmp_path / "lab").rglob("3.png")).write_bytes(b"")
    assert "found an empty file" in foreframe("data", "import", tmp_path / "lab", tmp_path / "pack", code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab"]
