"""One grid at three sizes: as it is written, as a CPU can train it, and as a test can.

The smaller ones have narrower networks, fewer and shorter clips in a step, and fewer steps, over which the schedules
keep their form. Their scores do not predict those of the full size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from foreframe import models
from foreframe.recipe import TrainConfig

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
    ahead = config.eval_horizon or config.horizon
    to_the_end = -1 if to.eval_horizon == _WHOLE else to.eval_horizon
    config = config.within(steps)
    return replace(
        config,
        model=replace(config.model, **to.model),
        horizon=min(config.horizon, to.horizon),
        eval_horizon=min(ahead, to.eval_horizon) if ahead > 0 else to_the_end,
        batch=min(config.batch, to.batch),
        accumulate=1,
        validate_clips=min(config.validate_clips, to.validate_clips) if config.validate_clips else to.validate_clips,
        log_every=max(1, steps // 100),
        validate_every=max(1, steps // 5) if config.validate_every else 0,
        save_every=max(1, steps // 10),
    )
