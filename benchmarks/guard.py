"""The cost of watching every step for numbers that are not finite: the same step of the trainer with and without."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Candidate, compare
from benchmarks.suites import BenchContext, Suite
from foreframe.data.open import open_clips
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.training.state import Speed
from foreframe.training.trainer import Trainer
from foreframe.training.watch import Buffers, Watch

PRESETS = ("push-demo", "svg-bair-learned")
STEPS = 5
"""Steps of each call: the difference of single ones is less than the machine's noise."""
TINY: dict[str, Any] = {"width": 4, "g_dim": 8, "z_dim": 4, "rnn_size": 8}
"""Sizes of a rehearsal."""


class _Nothing(Buffers):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(nn.Module())


class NullWatch(Watch):
    """Records nothing."""

    keep = _Nothing

    def record(self, step: Tensor, values: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.bool, device=values.device)

    def drain_events(self, stop: int) -> list[Any]:
        return []


def run(setting: BenchContext) -> Suite:
    """One comparison for each preset, on the clips inside the package."""
    suite = Suite()
    for preset in PRESETS:
        ways = [Candidate(name, _steps(preset, name, setting)) for name in ("without", "watched")]
        suite.races.append(compare(preset, ways, setting.device, setting.rounds, setting.advance))
    return suite


def _steps(preset: str, name: str, setting: BenchContext) -> Any:
    """Some steps of a training as a call, with the report on them."""
    pack, config = open_clips("push"), replace(find(preset), validate_every=0)
    if setting.quick:
        config = replace(config, batch=2, horizon=3, model=replace(config.model, **TINY))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(RunConfig.of(preset, config, pack), pack, Path(folder), setting.device, speed=Speed())
    if name == "without":
        trainer.state.watch = NullWatch(setting.device)
    given = trainer.place(trainer.draw(0))

    def steps() -> None:
        for _ in range(STEPS):
            numbers = given.numbers.clone()
            numbers[3] = trainer.state.step
            trainer.update(given._replace(numbers=numbers))
            trainer.state.step += 1
            trainer.state.watch.drain_events(trainer.state.step)

    return steps
