"""A sweep on a real Ray cluster of this machine, in an environment of its own: Ray is half a gigabyte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

from foreframe.sweep.cell import DONE
from foreframe.sweep.engines import OUTPUT
from tests.conftest import write_pack

GRID = """
from dataclasses import replace
from foreframe.presets import find
from foreframe.sweep.scales import scaled

def two():
    tiny = replace(scaled(find("push-demo"), "tiny"), horizon=3, eval_horizon=3, save_every=5)
    tiny = replace(tiny, validate_every=0, log_every=1)
    return {"slow": replace(tiny, steps=STEPS), "quick": replace(tiny, steps=3)}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A Python that has Ray, and all that this one has."""
    folder = tmp_path_factory.mktemp("ray")
    venv.create(folder, with_pip=True)
    found = folder / "bin" / "python"
    there = subprocess.run(
        [found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (Path(there) / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run(
        [found, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir", "ray>=2.50"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip cannot install Ray here: {done.stderr.strip().splitlines()[-1]}")
    return found


def start(python: Path, tmp_path: Path) -> subprocess.Popen[str]:
    command = [python, "-c", "from foreframe.cli import main; main()", "sweep", tmp_path / "grid.py:two"]
    options = ["--data", tmp_path / "pack", "--out", tmp_path / "out", "--engine", "ray", "--threads", "1"]
    few = ["--device", "cpu", "--samples", "2", "--clips", "1", "--no-diagnosis"]
    return subprocess.Popen(
        [str(word) for word in (*command, *options, *few)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_sweep_on_ray_that_is_stopped_saves_and_the_same_command_finishes_it(python, tmp_path, figure):
    write_pack(tmp_path / "pack")
    (tmp_path / "grid.py").write_text(GRID.replace("STEPS", "60"))
    process = start(python, tmp_path)
    for _ in range(6000):  # for a test that hangs
        logs = list(tmp_path.glob("out/runs/slow*/log.jsonl"))
        if process.poll() is not None or (logs and logs[0].stat().st_size):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert "stopped by SIGTERM; each run has saved" in out
    assert "stopped by SIGTERM at step" in (logs[0].parent / OUTPUT).read_text()
    assert not (logs[0].parent / DONE).exists()
    process = start(python, tmp_path)
    out, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, out
    assert len(list(tmp_path.glob(f"out/runs/*/{DONE}"))) == 2
    assert (tmp_path / "out" / "two" / "index.html").exists()
    figure("runs on a Ray cluster, stopped and finished", 2, 2)
