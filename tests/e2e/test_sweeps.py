"""Grids through the command line: the scripts of runs/ at toy size, and grids that are killed, stopped and met."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from foreframe.sweep.table import newest
from tests.e2e.test_whole_way import COMMAND, ROOT, bair, call, dance, foreframe  # noqa: F401
from tests.sweep.test_grids import VARIANTS

pytestmark = pytest.mark.e2e
needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="which processes are left is read from /proc")


@pytest.mark.parametrize("name", [*(name for name in VARIANTS if not name.endswith("-lab")), "seed-a-kl-lab"])
def test_each_table_of_the_labs_is_one_command_that_ends_in_a_page(name, request, tmp_path):
    data = request.getfixturevalue("dance" if name.startswith("seed-a") else "bair")
    settings = {"DATA": str(data), "OUT": str(tmp_path), "TOY": "1", "CUTS": "30", "WINDOW": "10"}
    report, comparison = name[:6], name[7:].removesuffix("-lab")
    settings |= {"LAB": "1"} if name.endswith("-lab") else {}
    said = call("bash", ROOT / "runs" / f"{report}.sh", comparison, **settings)
    page = tmp_path / name / "index.html"
    assert f"page: {page}" in said
    text = page.read_text()
    assert all(variant in text for variant in VARIANTS[name])
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert (page.parent / "results.csv").read_text().count("\n") > len(VARIANTS[name])
    assert len(list((tmp_path / "runs").iterdir())) == len(VARIANTS[name])
    again = call("bash", ROOT / "runs" / f"{report}.sh", comparison, **settings)
    assert again.count("done before") == len(VARIANTS[name])


GRID = """
from dataclasses import replace
from foreframe.presets import find
from foreframe.sweep.scales import scaled

def two():
    tiny = replace(scaled(find("push-demo"), "tiny"), steps=STEPS, save_every=25, validate_every=100, log_every=1)
    return {"slow": replace(tiny, ema=0.5), "quick": replace(tiny, steps=20)}
"""


@pytest.fixture(scope="module")
def pack(bair, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("pack") / "pack"
    foreframe("data", "import", bair, folder)
    return folder


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.py"
    path.write_text(GRID.replace("STEPS", "300"))
    return path


def start(grid, pack, out):
    command = [COMMAND, "sweep", grid, "--data", pack, "--out", out, "--workers", "2", "--threads", "1"]
    return subprocess.Popen(
        [*map(str, command), "--samples", "2", "--clips", "2", "--no-diagnosis"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_step(out: Path, step: int, since: float):
    """Until a process begun after `since` has logged so many steps."""
    for _ in range(30_000):
        for log in out.glob("runs/slow*/log.jsonl"):
            if log.stat().st_mtime > since and newest(log.parent).get("step", 0) >= step and running_cells(out):
                return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}")


def content(out: Path):
    files = {}
    for run in sorted((out / "runs").iterdir()):
        newest = sorted((run / "checkpoints").iterdir())[-1]
        files[run.name] = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        files[run.name]["log"] = [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]
    return files


def running_cells(out: Path):
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if b"foreframe.sweep.cell" in words and str(out).encode() in words:
            found.append(int(entry.parent.name))
    return found


@needs_proc
def test_a_grid_that_was_killed_and_stopped_ends_as_one_that_was_not(grid, pack, tmp_path):
    whole = start(grid, pack, tmp_path / "whole")
    said, _ = whole.communicate(timeout=1200)
    assert whole.returncode == 0, said
    out = tmp_path / "out"
    for step, number in ((20, signal.SIGKILL), (90, signal.SIGTERM), (160, signal.SIGINT), (230, signal.SIGKILL)):
        since = time.time()
        process = start(grid, pack, out)
        wait_for_step(out, step, since)
        process.send_signal(number)
        said, _ = process.communicate(timeout=600)
        if number == signal.SIGKILL:
            assert process.returncode == -number
            for _ in range(1200):
                if not running_cells(out):
                    break
                time.sleep(0.1)
        else:
            assert process.returncode == 0, said
            assert f"stopped by {number.name}; each run has saved" in said
        assert not running_cells(out)
    assert not list(out.glob("runs/slow*/cell.json")), "it was to be stopped before its end"
    process = start(grid, pack, out)
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said
    assert content(out) == content(tmp_path / "whole")
    assert (out / "two" / "index.html").exists()


@needs_proc
def test_the_second_of_two_grids_in_one_folder_says_so_and_stops(grid, pack, tmp_path):
    grid.write_text(GRID.replace("STEPS", "100_000"))
    out = tmp_path / "out"
    first = start(grid, pack, out)
    wait_for_step(out, 1, 0.0)
    second = start(grid, pack, out)
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 1
    assert f"{out}: another sweep is running here (process {first.pid} on " in said
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=600)
    assert first.returncode == 0, said
    assert not running_cells(out)


def test_a_run_that_fails_does_not_stop_the_others_and_is_named(grid, pack, tmp_path):
    text = GRID.replace("STEPS", "300").replace("ema=0.5", "optimizer=replace(tiny.optimizer, lr=1e9, clip_norm=0.0)")
    grid.write_text(text)
    process = start(grid, pack, tmp_path / "out")
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 1
    assert "1 of 2 runs failed:" in said
    assert "slow, seed 1: " in said
    assert "not finite" in said
    assert "Traceback" not in said
    (done,) = (tmp_path / "out").glob("runs/quick*/cell.json")
    assert done.exists()
