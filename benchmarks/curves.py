"""The first steps of a real training by every way to make them: do the loss curves lie on each other?

They begin together and part as rounding does in any training, step by step; what must agree is where they go.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from tests.reference.plain import plain_model
from torch import Tensor

from benchmarks.suites import BenchContext, Suite
from foreframe.clip import Clip
from foreframe.data.open import open_clips
from foreframe.device import Precision
from foreframe.models import Model
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.report import plots
from foreframe.training.optimizer import make_optimizer
from foreframe.training.state import Speed
from foreframe.training.trainer import VALUES, Trainer
from foreframe.unrolled import Unrolled

PRESETS = {"cpu": "push-demo", "cuda": "svg-push"}
"""On the sample inside: what the device trains in minutes."""
STEPS, QUICK_STEPS = 500, 4
SMOOTH = 25
"""Steps of the running mean that is drawn and compared."""
SHOWN = ("loss", "kl_nats")

Curve = dict[str, list[float]]


def run(setting: BenchContext) -> Suite:
    """`checks["curves"]`: loss and KL of each step by each way; `apart`: how far the smoothed losses are from the first
    way's at most, relative."""
    suite = Suite()
    steps = QUICK_STEPS if setting.quick else STEPS
    ways: list[tuple[str, Precision]] = [("plain", "fp32"), ("fast", "fp32")]
    if setting.device.type == "cuda":
        ways.append(("fast", "bf16"))
    curves = {}
    for name, precision in ways:
        curves[f"{name} {precision}"] = _train(name == "plain", precision, steps, setting)
    smooth = {name: smoothed(curve["loss"]) for name, curve in curves.items()}
    first = next(iter(smooth.values()))
    apart = {name: max(abs(a / b - 1) for a, b in zip(values, first, strict=True)) for name, values in smooth.items()}
    suite.checks = {"preset": PRESETS[setting.device.type], "curves": curves, "apart": apart}
    return suite


def _train(plain: bool, precision: Precision, steps: int, setting: BenchContext) -> Curve:
    pack, preset = open_clips("push"), PRESETS[setting.device.type]
    config = replace(find(preset), precision=precision, validate_every=0)
    with tempfile.TemporaryDirectory() as folder:
        record = RunConfig.of(preset, config, pack)
        trainer = Trainer(record, pack, Path(folder), setting.device, speed=Speed())
    if plain:
        trainer.state.model = _Twin(trainer.state.model)
        trainer.state.optimizer = make_optimizer(config.optimizer, trainer.state.model)
        trainer.state.average = None
    curve: Curve = {name: [] for name in SHOWN}
    for step in range(steps):
        setting.advance(f"curves: {'plain' if plain else 'fast'} {precision}, step {step + 1} of {steps}")
        trainer.state.step = step
        values = trainer.one_step()
        for name in SHOWN:
            curve[name].append(float(values[VALUES.index(name)]))
    return curve


class _Twin(Model):
    """The plain code in the place of a model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.twin = plain_model(model)
        self.latent_shape = model.latent_shape

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        unrolled: Unrolled = self.twin(clip, context, forcing, noise)
        return unrolled


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of each value and those before it, as far as `SMOOTH` reaches."""
    return [sum(part := values[max(0, at - SMOOTH + 1) : at + 1]) / len(part) for at in range(len(values))]


def figure(checks: dict[str, Any], path: Path) -> None:
    """Loss and KL over the steps, each way a line, the first one broad and pale behind the others."""
    with matplotlib.rc_context(plots.STYLE):
        drawn = Figure(figsize=(10, 4), dpi=150, layout="constrained")
        for panel, name, label in zip(drawn.subplots(1, 2), SHOWN, ("loss", "KL, nats a frame"), strict=True):
            for number, (way, curve) in enumerate(checks["curves"].items()):
                style = {"linewidth": 1.2} if number else {"linewidth": 5.0, "alpha": 0.35}
                values = smoothed(curve[name])
                panel.plot(range(1, len(values) + 1), values, color=plots.COLORS[number], label=way, **style)
            panel.set(xlabel=f"step of {checks['preset']}, mean of the last {SMOOTH}", ylabel=label, yscale="log")
            panel.legend()
        plots.save(drawn, path)
