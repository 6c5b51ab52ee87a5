"""The sample inside: a simulated robot arm pushes objects in a bin, 64x64, 4 actions and 3 positions."""

from __future__ import annotations

from dataclasses import replace

from foreframe.models.svg import Config
from foreframe.presets.bair import svg_bair_learned
from foreframe.recipe import OptimizerConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule


def push_demo() -> TrainConfig[Config]:
    """A small SVG for the sample `push`, sized for a few minutes on two CPU cores.

    DCGAN of half the width, trained on 5 frames ahead and scored on 10. It soon has to live on its own frames,
    since that is what prediction asks. Two CPU cores: about four minutes.
    """
    return TrainConfig(
        model=Config(backbone="dcgan", prior="fixed", width=32, g_dim=64, z_dim=8, rnn_size=128),
        context=2,
        horizon=5,
        eval_horizon=10,
        steps=520,
        batch=12,
        optimizer=OptimizerConfig(kind="adam", lr=2e-3, clip_norm=1.0),
        rate=RateSchedule(kind="cosine", warmup=20, floor=0.05),
        beta=BetaSchedule(stop=1e-4),
        forcing=ForcingSchedule(kind="linear", decay=1 / 150),
        ema=0.98,
        validate_every=260,
        save_every=130,
    )


def svg_push() -> TrainConfig[Config]:
    """`svg-bair-learned` for the sample `push`: VGG-64 with a learned prior, for a GPU or a night on a CPU."""
    return replace(svg_bair_learned(), steps=20_000, epoch_steps=0, validate_every=1000, save_every=500)
