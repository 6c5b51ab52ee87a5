"""What it costs to watch every step for numbers that are not finite: the same step of the trainer with and without."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Candidate, race
from benchmarks.suites import BenchContext, Suite
from foreframe.data.open import open_clips
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.training.speed import Speed
from foreframe.training.trainer import Trainer
from foreframe.training.watch import Buffers, Watch

PRESETS = ("push-demo", "svg-bair-learned")
STEPS = 5
"""Steps of each call: one by itself is told from another by less than the machine's noise."""
TINY: dict[str, Any] = {"width": 4, "g_dim": 8, "z_dim": 4, "rnn_size": 8}
"""Sizes of a rehearsal."""


class _Nothing(Buffers):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(nn.Module())


class Blind(Watch):
    """Watches nothing."""

    keep = _Nothing

    def see(self, step: Tensor, values: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.bool, device=values.device)

    def look(self, stop: int) -> list[Any]:
        return []


def run(setting: BenchContext) -> Suite:
    """One race for each preset, on the clips inside the package."""
    suite = Suite()
    for preset in PRESETS:
        ways = [Candidate(name, _steps(preset, name, setting)) for name in ("without", "watched")]
        suite.races.append(race(preset, ways, setting.device, setting.rounds, setting.advance))
    return suite


def _steps(preset: str, name: str, setting: BenchContext) -> Any:
    """Some steps of a training as a call, the look at them included."""
    pack, config = open_clips("push"), replace(find(preset), validate_every=0)
    if setting.quick:
        config = replace(config, batch=2, horizon=3, model=replace(config.model, **TINY))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(RunConfig.of(preset, config, pack), pack, Path(folder), setting.device, speed=Speed())
    if name == "without":
        trainer.watch = Blind(setting.device)
    given = trainer.place(trainer.draw(0))

    def steps() -> None:
        for _ in range(STEPS):
            trainer.update(given._replace(step=torch.tensor(trainer.step, device=setting.device)))
            trainer.step += 1
            trainer.watch.look(trainer.step)

    return steps
