"""A robot that is about to be moved: the next frame composed from the last, for any robot's clips with actions."""

from __future__ import annotations

from foreframe.losses import LossConfig
from foreframe.models.recurrent_unet import Config
from foreframe.recipe import OptimizerConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule


def robot_small() -> TrainConfig[Config]:
    """A small recurrent U-Net for robot clips with actions: about 20 minutes on two CPU cores.

    It begins as a copy of the last frame and is fed its own frames from the first step on. The loss is the logarithm of
    each frame's error: quiet frames count as much as busy ones.
    """
    return TrainConfig(
        model=Config(prior="none"),
        context=2,
        horizon=4,
        eval_horizon=10,
        steps=2500,
        batch=8,
        optimizer=OptimizerConfig(kind="adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, clip_norm=1.0),
        rate=RateSchedule(kind="cosine", warmup=100, floor=0.02),
        beta=BetaSchedule(stop=0.0),
        forcing=ForcingSchedule(initial=0.0),
        loss=LossConfig(reconstruction="log-mse", steps="mean"),
        ema=0.995,
        validate_every=500,
        save_every=250,
    )
