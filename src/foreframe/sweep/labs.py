"""The comparisons of the two lab reports as foreframe implements them; docs/from-the-labs.md says what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foreframe.losses import LossConfig
from foreframe.presets.bair import svg_bair_fixed, svg_bair_learned
from foreframe.presets.dance import pose_dance
from foreframe.recipe import OptimizerConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule

EPOCH_STEPS = 121
"""Steps in the pose lab's epoch: 1,463 windows in batches of 12. Fixed here, so that schedules keep their form for any
data and length of the run."""


def seed_a_forcing() -> dict[str, TrainConfig[Any]]:
    """Pose lab: with which probability should training begin to see true frames (0.3, 0.8, 1.0)?"""
    dance = _dance()
    return {
        f"forcing-{share}": replace(dance, forcing=replace(dance.forcing, initial=share)) for share in (0.3, 0.8, 1.0)
    }


def seed_a_kl() -> dict[str, TrainConfig[Any]]:
    """Pose lab: does annealing of the KL weight matter (cyclical, monotonic, none)?"""
    return _annealed(_dance())


def seed_a_kl_lab() -> dict[str, TrainConfig[Any]]:
    """Pose lab: the same with the lab's own loss, a KL summed over 24,576 numbers beside a mean over pixels."""
    return _annealed(replace(_dance(), loss=LossConfig()))


def seed_a_optimizer() -> dict[str, TrainConfig[Any]]:
    """Pose lab: Adam, AdamW or SGD, at one learning rate?"""
    dance = _dance()
    kinds = {
        "adam": OptimizerConfig(kind="adam", lr=5e-4, clip_norm=1.0),
        "adamw": dance.optimizer,
        "sgd": OptimizerConfig(kind="sgd", lr=5e-4, clip_norm=1.0),
    }
    return {name: replace(dance, optimizer=optimizer) for name, optimizer in kinds.items()}


def seed_a_output() -> dict[str, TrainConfig[Any]]:
    """Pose lab: are the last layer's numbers clamped to pixels, or passed through a sigmoid?"""
    dance = _dance()
    return {output: replace(dance, model=replace(dance.model, output=output)) for output in ("clamp", "sigmoid")}


def seed_b_schedules() -> dict[str, TrainConfig[Any]]:
    """Action lab: two decays of teacher forcing, times monotonic and cyclical annealing of the KL weight."""
    fixed = svg_bair_fixed()
    decays = {
        "from-20-by-0.01666": fixed.forcing,
        "from-30-by-0.004": ForcingSchedule(kind="linear", start=30, decay=0.004, unit="epoch"),
    }
    rises = {"monotonic": fixed.beta, "cyclical": replace(fixed.beta, kind="cyclical", cycles=3)}
    return {
        f"{decay}-{rise}": replace(fixed, forcing=forcing, beta=beta)
        for decay, forcing in decays.items()
        for rise, beta in rises.items()
    }


def seed_b_prior() -> dict[str, TrainConfig[Any]]:
    """Action lab: a fixed prior N(0, I), or one learned from the past?"""
    return {"fixed": svg_bair_fixed(), "learned": svg_bair_learned()}


def _dance() -> TrainConfig[Any]:
    return replace(pose_dance(), epoch_steps=EPOCH_STEPS)


def _annealed(base: TrainConfig[Any]) -> dict[str, TrainConfig[Any]]:
    return {
        "cyclical": base,
        "monotonic": replace(base, beta=replace(base.beta, kind="monotonic", ratio=0.5)),
        "none": replace(base, beta=BetaSchedule(stop=base.beta.stop)),
    }
