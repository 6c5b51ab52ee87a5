"""The whole way through the command line, as its users go it: real processes, real files, toy sizes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foreframe import video
from tests.conftest import moving_square

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "foreframe"


def call(*arguments, code=0, **environment):
    # One thread: two tests at once must not fight for cores.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{COMMAND.parent}:{os.environ['PATH']}", **environment}
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def foreframe(*arguments, **options):
    return call(COMMAND, *arguments, **options)


@pytest.fixture(scope="module")
def bair(tmp_path_factory):
    """The action lab's hand-out, three clips of each split."""
    root = tmp_path_factory.mktemp("bair")
    for number, split in enumerate(["train", "validate", "test"] * 3):
        folder = root / "processed_data" / split / "traj_0_to_255.tfrecords" / str(number + 1)
        folder.mkdir(parents=True)
        frames, actions = moving_square(number, 14, 64, 64)
        for t, frame in enumerate(frames):
            video.write_png(folder / f"{t}.png", frame)
        np.savetxt(folder / "actions.csv", np.hstack([actions, actions]), delimiter=",", fmt="%.6f")
        np.savetxt(folder / "endeffector_positions.csv", np.cumsum(actions, 0)[:, [0, 1, 1]], delimiter=",", fmt="%.6f")
    return root


@pytest.fixture(scope="module")
def dance(tmp_path_factory):
    """The pose lab's hand-out: a train and a val take, and a test input without truth."""
    root = tmp_path_factory.mktemp("dance")
    for number, (split, length) in enumerate({"train": 60, "val": 30}.items()):
        frames, _ = moving_square(number, length, 32, 64)
        for kind, pictures in (("img", frames), ("label", 255 - frames)):
            folder = root / split / f"{split}_{kind}"
            folder.mkdir(parents=True)
            for t, picture in enumerate(pictures):
                video.write_png(folder / f"frame{t:06d}.png", picture)
    for kind, count in (("img", 1), ("label", 30)):
        folder = root / "test" / f"test_{kind}" / "0"
        folder.mkdir(parents=True)
        for t in range(count):
            (folder / f"frame{t:06d}.png").write_bytes(
                (root / "val" / f"val_{kind}" / f"frame{t:06d}.png").read_bytes()
            )
    return root


def test_the_action_labs_clips_from_folder_to_gif(bair, tmp_path):
    assert "Traceback" not in foreframe("data", "check", bair, "--json", tmp_path / "check.json")
    call("bash", ROOT / "runs" / "bair.sh", DATA=str(bair), OUT=str(tmp_path), TOY="1")
    scores = {
        (preset, conditions): json.loads((tmp_path / f"svg-bair-{preset}-{conditions}.json").read_text())
        for preset in ("fixed", "learned")
        for conditions in ("true", "shuffled")
    }
    for (_, conditions), result in scores.items():
        assert result["protocol"]["conditions"] == conditions
        assert result["protocol"]["mode"] == "prediction"
        assert len(result["scores"]["psnr"]["per_frame"]) == 10
    assert (tmp_path / "svg-bair-learned-rollout" / "rollout.gif").stat().st_size > 1000


def test_the_pose_labs_clips_from_folder_to_gif_and_without_a_future(dance, tmp_path):
    call("bash", ROOT / "runs" / "dance.sh", DATA=str(dance), OUT=str(tmp_path), CUTS="30", TOY="1")
    for preset in ("pose-dance", "pose-dance-unet"):
        prediction, reconstruction = (
            json.loads((tmp_path / f"{preset}-{mode}.json").read_text()) for mode in ("prediction", "reconstruction")
        )
        assert prediction["protocol"]["latent"] == "prior"
        assert reconstruction["protocol"]["latent"] == "posterior"
        assert len(prediction["scores"]["psnr"]["per_frame"]) == 20
    inputs = dance / "test"
    foreframe(
        "rollout", tmp_path / "pose-dance-unet", "--frames", inputs / "test_img" / "0" / "frame000000.png",
        "--cond", inputs / "test_label" / "0", "--out", tmp_path / "free",
    )  # fmt: skip
    assert len(list((tmp_path / "free" / "frames" / "sample-1").iterdir())) == 29


def test_a_training_stopped_by_a_signal_saves_and_resumes(bair, tmp_path):
    run = tmp_path / "run"
    small = [
        "--model.backbone",
        "dcgan",
        "--model.width",
        "8",
        "--batch",
        "2",
        "--threads",
        "1",
        "--validate-every",
        "0",
    ]
    process = subprocess.Popen(
        [COMMAND, "train", "svg-bair-fixed", "--data", bair, "--run", run, "--log-every", "1", *small],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    log = run / "log.jsonl"
    for _ in range(6000):
        if log.exists() and len(log.read_text().splitlines()) >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert "stopped by SIGTERM at step" in out
    assert "stopped after 0.01 minutes" in foreframe("resume", run, "--max-minutes", "0.01", "--threads", "1")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_the_demo_leaves_its_page_and_pictures(tmp_path):
    out = foreframe("demo", "--out", tmp_path, "--max-minutes", "0.05", "--threads", "1")
    assert "repeat last context frame" in out
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/gif") == 6
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(list(tmp_path.glob("clip-*/rollout.gif"))) == 6
