"""The first losses of a tiny training of each model, kept in files beside this one.

A change that is not meant to change numbers reproduces them. One that is meant to says why in CHANGELOG.md, and then
writes them anew: `python -m tests.golden.test_golden`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from foreframe.log import read_log
from foreframe.models import pose_cvae, pose_unet, svg
from foreframe.recipe import OptimizerConfig, RunConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule
from foreframe.training.trainer import Trainer
from tests.conftest import write_pack

HERE = Path(__file__).parent
NUMBERS = ("loss", "reconstruction", "kl_nats", "grad_norm")
TINY = {"backbone": "dcgan", "width": 8, "g_dim": 16, "z_dim": 4, "rnn_size": 16}
RUNS = {
    "svg-learned": ("vector", svg.Config(**TINY, prior="learned")),
    "svg-fixed": ("vector", svg.Config(**TINY, prior="fixed", predictor_norm=True, skip="svg")),
    "svg-none": ("vector", svg.Config(**TINY, prior="none", skip="last-frame")),
    "pose-cvae": ("image", pose_cvae.Config(f_dim=16, l_dim=4, n_dim=4, d_out=24)),
    "pose-unet": ("image", pose_unet.Config(width=8, detail=8, latent=2, scene=2)),
}


def losses(name: str, folder: Path) -> str:
    """Six steps of training as text, a line each."""
    cond, model = RUNS[name]
    pack = write_pack(folder / "pack", cond, (64, 64) if cond == "vector" else (32, 64))
    config = TrainConfig(
        model=model,
        context=2,
        horizon=3,
        steps=6,
        batch=2,
        optimizer=OptimizerConfig("adam", 1e-3, clip_norm=1.0),
        beta=BetaSchedule("monotonic", start=1e-3, stop=1e-2),
        forcing=ForcingSchedule("linear", decay=0.2),
        log_every=1,
        validate_every=0,
    )
    run = folder / "run"
    run.mkdir()
    record = RunConfig.of(name, config, pack)
    Trainer(record, pack, run, torch.device("cpu")).run()
    rows = [" ".join(f"{row[key]:.6e}" for key in NUMBERS) for row in read_log(run)]
    return "\n".join([" ".join(NUMBERS), *rows]) + "\n"


@pytest.mark.parametrize("name", list(RUNS))
def test_a_tiny_training_reproduces_its_losses(name, tmp_path):
    found = losses(name, tmp_path).splitlines()
    kept = (HERE / f"{name}.txt").read_text().splitlines()
    assert found[0] == kept[0]
    assert len(found) == len(kept)
    for step, (line, expected) in enumerate(zip(found[1:], kept[1:], strict=True), 1):
        numbers, wanted = [[float(text) for text in part.split()] for part in (line, expected)]
        # Processors differ in the last bits, and a training amplifies them.
        assert numbers == pytest.approx(wanted, rel=2e-3, abs=1e-7), f"step {step}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            (HERE / f"{each}.txt").write_text(losses(each, Path(folder)))
            print(f"written: {each}.txt")
