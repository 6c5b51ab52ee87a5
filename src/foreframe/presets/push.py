"""The sample inside: a simulated robot arm pushes objects in a bin, 64x64, 4 actions and 3 positions."""

from __future__ import annotations

from dataclasses import replace

from foreframe.models.svg import Config
from foreframe.presets.bair import svg_bair_learned
from foreframe.recipe import OptimizerConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule


def push_demo() -> TrainConfig[Config]:
    """A small SVG for the sample `push`, sized for a few minutes on two CPU cores.

    DCGAN of a quarter of the width. Fed its own frames from the start most of the time, since in a few
    minutes that is what prediction needs.
    """
    return TrainConfig(
        model=Config(backbone="dcgan", prior="fixed", width=32, g_dim=64, z_dim=8, rnn_size=128),
        context=2,
        horizon=10,
        steps=700,
        batch=12,
        optimizer=OptimizerConfig(kind="adam", lr=1e-3, clip_norm=1.0),
        rate=RateSchedule(kind="cosine", warmup=20, floor=0.05),
        beta=BetaSchedule(stop=1e-4),
        forcing=ForcingSchedule(kind="linear", decay=1 / 200),
        ema=0.98,
        validate_every=350,
        save_every=175,
    )


def svg_push() -> TrainConfig[Config]:
    """`svg-bair-learned` for the sample `push`: VGG-64 with a learned prior, for a GPU or a night on a CPU."""
    return replace(svg_bair_learned(), steps=20_000, epoch_steps=0, validate_every=1000, save_every=500)
