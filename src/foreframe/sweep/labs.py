"""The comparisons of the two lab reports, with their settings: length, forcing, annealing, optimiser, output.

Each comes twice: with the faults of the labs' training repaired, and, with `-lab` in its name, exactly as the lab
trained. The reports' own numbers are in docs/from-the-labs.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foreframe.presets.bair import svg_bair_fixed, svg_bair_fixed_lab
from foreframe.presets.dance import LAB_EPOCH, pose_dance, pose_dance_lab
from foreframe.recipe import OptimizerConfig, TrainConfig
from foreframe.schedules import BetaSchedule

Grid = dict[str, TrainConfig[Any]]


def seed_a_forcing() -> Grid:
    """Pose lab, 100 epochs: with which probability should training begin to see true frames (0.3, 0.8, 1.0)?"""
    return _forcing(pose_dance())


def seed_a_forcing_lab() -> Grid:
    """`seed-a-forcing` as the lab trained: one draw of forcing an epoch, its activations, decay and learning rate."""
    return _forcing(pose_dance_lab())


def seed_a_kl() -> Grid:
    """Pose lab, 100 epochs: does annealing of the KL weight matter (cyclical, monotonic, none)?"""
    return _annealing(pose_dance())


def seed_a_kl_lab() -> Grid:
    """`seed-a-kl` as the lab trained: one draw of forcing an epoch, its activations, decay and learning rate."""
    return _annealing(pose_dance_lab())


def seed_a_optimizer() -> Grid:
    """Pose lab, 500 epochs: Adam or AdamW at 5e-4, or SGD at 1e-2 with momentum 0.9?"""
    return _optimizer(pose_dance())


def seed_a_optimizer_lab() -> Grid:
    """`seed-a-optimizer` as the lab trained: one draw of forcing an epoch, its activations, decay and learning rate."""
    return _optimizer(pose_dance_lab())


def seed_a_output() -> Grid:
    """Pose lab, 500 epochs: are the last layer's numbers clamped to pixels, or passed through a sigmoid?"""
    return _output(pose_dance())


def seed_a_output_lab() -> Grid:
    """`seed-a-output` as the lab trained: one draw of forcing an epoch, its activations, decay and learning rate."""
    return _output(pose_dance_lab())


def seed_b_schedules() -> Grid:
    """Action lab: two decays of teacher forcing, times monotonic and cyclical annealing of the KL weight."""
    return _schedules(svg_bair_fixed())


def seed_b_schedules_lab() -> Grid:
    """`seed-b-schedules` as the lab trained: one draw of forcing a batch, beta to 1, frozen skip, raw conditions."""
    return _schedules(svg_bair_fixed_lab())


def seed_b_prior() -> Grid:
    """Action lab: a fixed prior N(0, I), or one learned from the past?"""
    return _prior(svg_bair_fixed())


def seed_b_prior_lab() -> Grid:
    """`seed-b-prior` as the lab trained: one draw of forcing a batch, beta to 1, frozen skip, raw conditions."""
    return _prior(svg_bair_fixed_lab())


def _forcing(base: TrainConfig[Any]) -> Grid:
    base = _dance(base, 100)
    return {
        f"forcing-{first}": replace(base, forcing=replace(base.forcing, initial=first)) for first in (0.3, 0.8, 1.0)
    }


def _annealing(base: TrainConfig[Any]) -> Grid:
    base = _dance(base, 100)
    base = replace(base, forcing=replace(base.forcing, initial=1.0))
    rise = BetaSchedule(kind="monotonic", ratio=10 / 100, unit="epoch")  # over ten epochs
    return {"cyclical": base, "monotonic": replace(base, beta=rise), "none": replace(base, beta=BetaSchedule())}


def _optimizer(base: TrainConfig[Any]) -> Grid:
    base = _dance(base, 500)
    kinds = {
        "adam": replace(base.optimizer, kind="adam", weight_decay=1e-5),
        "adamw": replace(base.optimizer, weight_decay=1e-5),
        "sgd": OptimizerConfig(kind="sgd", lr=1e-2, momentum=0.9, clip_norm=base.optimizer.clip_norm),
    }
    return {name: replace(base, optimizer=optimizer) for name, optimizer in kinds.items()}


def _output(base: TrainConfig[Any]) -> Grid:
    base = _dance(base, 500)
    return {output: replace(base, model=replace(base.model, output=output)) for output in ("clamp", "sigmoid")}


def _schedules(base: TrainConfig[Any]) -> Grid:
    forcing = replace(base.forcing, floor=0.001)
    decays = {"from-20-by-0.01666": forcing, "from-30-by-0.004": replace(forcing, start=30, decay=0.004)}
    rises = {"monotonic": base.beta, "cyclical": replace(base.beta, kind="cyclical", cycles=4, integer_periods=True)}
    return {
        f"{decay}-{rise}": replace(base, forcing=forcing, beta=beta)
        for decay, forcing in decays.items()
        for rise, beta in rises.items()
    }


def _prior(base: TrainConfig[Any]) -> Grid:
    return {prior: replace(base, model=replace(base.model, prior=prior)) for prior in ("fixed", "learned")}


def _dance(base: TrainConfig[Any], epochs: int) -> TrainConfig[Any]:
    """That number of the lab's epochs; their length is fixed, so that schedules keep their form for any data."""
    return replace(base, steps=epochs * LAB_EPOCH, epoch_steps=LAB_EPOCH)
