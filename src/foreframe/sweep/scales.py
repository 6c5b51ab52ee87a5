"""One grid at three sizes: as it is written, as a CPU can train it, and as a test can.

The smaller ones have narrower networks, fewer and shorter clips in a step, and fewer steps, over which the schedules
keep their form. Their scores do not predict those of the full size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from foreframe import models
from foreframe.recipe import TrainConfig
from foreframe.schedules import ForcingSchedule

ScaleName = Literal["tiny", "short", "paper"]


@dataclass(frozen=True)
class Scale:
    """Upper bounds, and settings of the model that take the place of its own."""

    steps: int
    batch: int
    horizon: int
    eval_horizon: int
    validate_clips: int
    model: dict[str, Any] = field(default_factory=dict)


_WHOLE = 2**20
SCALES: dict[str, dict[str, Scale]] = {
    "tiny": {
        "pose_cvae": Scale(6, 2, 3, 4, 1, {"f_dim": 16, "l_dim": 8, "n_dim": 4, "d_out": 32}),
        "pose_unet": Scale(6, 2, 3, 4, 1, {"width": 8, "detail": 8, "latent": 2, "scene": 2}),
        "svg": Scale(6, 2, 3, 4, 1, {"backbone": "dcgan", "width": 4, "g_dim": 8, "z_dim": 3, "rnn_size": 8}),
        "": Scale(6, 2, 3, 4, 1),
    },
    "short": {
        "pose_cvae": Scale(600, 4, 4, _WHOLE, 16, {"f_dim": 32, "l_dim": 16, "n_dim": 12, "d_out": 32}),
        "svg": Scale(
            800, 8, 10, _WHOLE, 16, {"backbone": "dcgan", "width": 32, "g_dim": 64, "z_dim": 16, "rnn_size": 128}
        ),
        "": Scale(500, 4, 5, _WHOLE, 16),
    },
}
"""By the name of the scale and that of the model; "" is for any other model, which keeps its size."""


def scaled(config: TrainConfig[Any], scale: ScaleName) -> TrainConfig[Any]:
    """An experiment at another size; `paper` leaves it as it is."""
    if scale == "paper":
        return config
    sizes, name = SCALES[scale], models.name_of(config.model)
    to = sizes.get(name, sizes[""])
    steps = min(config.steps, to.steps)
    share = steps / config.steps
    ahead = config.eval_horizon or config.horizon
    to_the_end = -1 if to.eval_horizon == _WHOLE else to.eval_horizon
    milestones = config.rate.milestones
    if config.rate.unit == "step":
        milestones = tuple(round(milestone * share) for milestone in milestones)
    return replace(
        config,
        model=replace(config.model, **to.model),
        horizon=min(config.horizon, to.horizon),
        eval_horizon=min(ahead, to.eval_horizon) if ahead > 0 else to_the_end,
        steps=steps,
        batch=min(config.batch, to.batch),
        accumulate=1,
        epoch_steps=max(1, round(config.epoch_steps * share)) if config.epoch_steps else 0,
        rate=replace(config.rate, warmup=round(config.rate.warmup * share), milestones=milestones),
        forcing=_sooner(config.forcing, share) if config.forcing.unit == "step" else config.forcing,
        validate_clips=min(config.validate_clips, to.validate_clips) if config.validate_clips else to.validate_clips,
        log_every=max(1, steps // 100),
        validate_every=max(1, steps // 5) if config.validate_every else 0,
        save_every=max(1, steps // 10),
    )


def _sooner(forcing: ForcingSchedule, share: float) -> ForcingSchedule:
    """The same decay within a part of the steps."""
    decay = forcing.decay
    if forcing.kind == "linear":
        decay /= share
    elif forcing.kind == "exponential":
        decay = decay ** (1 / share)
    elif forcing.kind == "inverse-sigmoid":
        # It falls about position k log k, and its steepness depends on k: the fall can be kept, its form only nearly.
        falls, low, high = share * decay * math.log(max(decay, 1.0)), 1.0, max(decay, 1.0)
        while high - low > 1e-6 * high:
            decay = (low + high) / 2
            low, high = (decay, high) if decay * math.log(decay) < falls else (low, decay)
    return replace(forcing, start=round(forcing.start * share), decay=decay)
