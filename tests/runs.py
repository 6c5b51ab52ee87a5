"""A run of twenty steps in which everything happens that happens in a run, and what is left of it in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from foreframe.data.pack.pack import Pack
from foreframe.log import read_log
from foreframe.models.svg import Config
from foreframe.recipe import OptimizerConfig, RunConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule
from foreframe.training.trainer import Trainer

CPU = torch.device("cpu")
TINY = TrainConfig(
    model=Config(backbone="dcgan", prior="learned", width=4, g_dim=8, z_dim=3, rnn_size=8),
    context=2,
    horizon=3,
    steps=20,
    batch=2,
    optimizer=OptimizerConfig("adam", 2e-3, clip_norm=1.0),
    rate=RateSchedule("cosine", warmup=3),
    beta=BetaSchedule("cyclical", stop=1e-2, cycles=3),
    forcing=ForcingSchedule("linear", decay=0.05),
    ema=0.9,
    log_every=1,
    validate_every=7,
    save_every=4,
)


def make(pack: Pack, run: Path, config: TrainConfig[Any] = TINY) -> Trainer:
    """The trainer of a new run."""
    record = RunConfig.of("tiny", config, pack)
    run.mkdir(parents=True, exist_ok=True)
    record.write(run)
    return Trainer(record, pack, run, CPU)


def again(pack: Pack, run: Path) -> Trainer:
    """The trainer of a run that is there."""
    return Trainer(RunConfig.read(run), pack, run, CPU)


def content(run: Path, step: int) -> tuple[dict[str, bytes], list[dict[str, Any]], dict[str, Any]]:
    """Every tensor's file of a checkpoint, and the log without its clock."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    rows = [{k: v for k, v in row.items() if k != "steps_per_second"} for row in read_log(run)]
    return files, rows, json.loads((folder / "state.json").read_text())["best"]
