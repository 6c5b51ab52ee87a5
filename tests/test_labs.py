"""Schedules, presets and grids against the two lab reports, written down here once more from their own formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foreframe import cli, presets, sweep
from foreframe.cli.shared import Reporting
from foreframe.data.pack.pack import Pack
from foreframe.evaluation import Protocol, evaluate
from foreframe.log import read_log
from foreframe.schedules import BetaSchedule, Clock, ForcingSchedule, RateSchedule
from tests.runs import CPU, TINY, make

# -- the pose lab (seed A): one value an epoch, from the epoch's number


def pose_lab_beta(kind: str, epoch: int, epochs: int, cycles: int, ratio: float) -> float:
    """Its annealing; `ratio` is its flag, of which the monotonic rise takes ten times as many epochs."""
    if epoch == 0:
        return 1.0 if kind == "None" else 0.0
    if kind == "Monotonic":
        return min(1.0, epoch / (ratio * 10))
    if kind == "None":
        return 1.0
    period = epochs / cycles
    within = epoch - int(epoch / period) * period
    return min(1.0, within / (period * ratio))


def pose_lab_forcing(epoch: int, first: float, after: int, less: float) -> float:
    """Its ratio of teacher forcing, lowered at the end of each epoch once more than `after` of them are over."""
    ratio = first
    for over in range(1, epoch + 1):
        if over > after:
            ratio = max(0.0, ratio - less)
    return ratio


def pose_lab_rate(epoch: int, epochs: int, rate: float) -> float:
    """Half a cosine down to a tenth, one value an epoch."""
    return rate / 10 + (rate - rate / 10) * (1 + math.cos(math.pi * epoch / epochs)) / 2


# -- the action lab (seed B)


def action_lab_betas(epochs: int, cycles: int, ratio: float) -> list[float]:
    """Its list of betas; monotonic is one cycle with half the ratio."""
    betas = [1.0] * epochs
    period = epochs / cycles
    for cycle in range(cycles):
        beta, place = 0.0, 0
        while beta <= 1.0 and int(place + cycle * period) < epochs:
            betas[int(place + cycle * period)] = beta
            beta += 1.0 / (period * ratio)
            place += 1
    return betas


def action_lab_forcing(epoch: int, first: float, after: int, less: float, least: float) -> float:
    return max(least, first - less * max(0, epoch - after))


# -- ours, at the first step of each epoch


def over_epochs(schedule: BetaSchedule | ForcingSchedule | RateSchedule, epochs: int, epoch_steps: int) -> list[float]:
    return [schedule.value(Clock(epoch * epoch_steps, epochs * epoch_steps, epoch_steps)) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("epochs", "cycles", "ratio"),
    [(500, 10, 1.0), (100, 10, 1.0), (100, 10, 0.5), (70, 10, 1.0), (100, 4, 0.5), (100, 3, 0.5), (100, 7, 0.3)],
)
def test_the_pose_labs_cycles_of_beta_are_ours(epochs: int, cycles: int, ratio: float):
    ours = over_epochs(BetaSchedule("cyclical", cycles=cycles, ratio=ratio, unit="epoch"), epochs, 7)
    assert ours == pytest.approx([pose_lab_beta("Cyclical", e, epochs, cycles, ratio) for e in range(epochs)], abs=1e-9)


@pytest.mark.parametrize("epochs", [100, 300, 500])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_pose_labs_monotonic_beta_rises_over_ten_epochs_times_its_ratio(epochs: int, ratio: float):
    ours = over_epochs(BetaSchedule("monotonic", ratio=10 * ratio / epochs, unit="epoch"), epochs, 7)
    assert ours == pytest.approx([pose_lab_beta("Monotonic", e, epochs, 10, ratio) for e in range(epochs)])


def test_the_pose_labs_beta_without_annealing_is_constant():
    assert over_epochs(BetaSchedule(), 100, 7) == [pose_lab_beta("None", e, 100, 10, 1.0) for e in range(100)]


@pytest.mark.parametrize("first", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("epochs", [100, 500])
def test_the_pose_labs_teacher_forcing_is_ours(first: float, epochs: int):
    ours = over_epochs(ForcingSchedule("linear", first, start=10, decay=0.1, unit="epoch"), epochs, 7)
    assert ours == pytest.approx([pose_lab_forcing(e, first, 10, 0.1) for e in range(epochs)], abs=1e-9)


def test_the_pose_labs_learning_rate_is_a_cosine_to_a_tenth():
    ours = over_epochs(RateSchedule("cosine", floor=0.1), 500, 121)
    assert [5e-4 * rate for rate in ours] == pytest.approx([pose_lab_rate(e, 500, 5e-4) for e in range(500)])


@pytest.mark.parametrize(
    ("epochs", "cycles", "ratio"),
    [(100, 4, 0.5), (300, 3, 0.5), (100, 3, 0.5), (100, 3, 1.0), (70, 3, 1.0), (100, 7, 0.3), (10, 4, 0.5)],
)
def test_the_action_labs_cycles_begin_at_whole_epochs(epochs: int, cycles: int, ratio: float):
    schedule = BetaSchedule("cyclical", cycles=cycles, ratio=ratio, unit="epoch", integer_periods=True)
    assert over_epochs(schedule, epochs, 600) == pytest.approx(action_lab_betas(epochs, cycles, ratio), abs=1e-9)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_action_labs_monotonic_beta_rises_over_half_its_ratio(ratio: float):
    ours = over_epochs(BetaSchedule("monotonic", ratio=ratio / 2, unit="epoch"), 100, 600)
    assert ours == pytest.approx(action_lab_betas(100, 1, ratio / 2))


@pytest.mark.parametrize("ratio", [1.5, 2.0])
def test_a_ratio_above_one_is_a_rise_that_does_not_reach_one(ratio: float):
    schedule = BetaSchedule("cyclical", stop=1 / ratio, cycles=4, ratio=1.0, unit="epoch")
    assert over_epochs(schedule, 100, 600) == pytest.approx(action_lab_betas(100, 4, ratio), abs=1e-9)


@pytest.mark.parametrize(("after", "less"), [(20, 0.01666), (30, 0.004)])
def test_the_action_labs_teacher_forcing_ends_at_its_lower_bound(after: int, less: float):
    schedule = ForcingSchedule("linear", start=after, decay=less, floor=0.001, unit="epoch")
    ours = over_epochs(schedule, 100, 600)
    assert ours == pytest.approx([action_lab_forcing(e, 1.0, after, less, 0.001) for e in range(100)])


# -- presets and grids: what the reports give, variant by variant

POSE_LAB = {"epochs": 100, "first": 1.0, "beta": "Cyclical", "rate": 5e-4, "optimizer": "adamw", "output": "clamp"}
POSE_LAB_GRIDS = {
    "seed-a-forcing": {f"forcing-{first}": {"first": first} for first in (0.3, 0.8, 1.0)},
    "seed-a-kl": {kind.lower(): {"beta": kind} for kind in ("Cyclical", "Monotonic", "None")},
    "seed-a-optimizer": {
        "adam": {"epochs": 500, "first": 0.3, "optimizer": "adam"},
        "adamw": {"epochs": 500, "first": 0.3},
        "sgd": {"epochs": 500, "first": 0.3, "optimizer": "sgd", "rate": 1e-2},
    },
    "seed-a-output": {output: {"epochs": 500, "first": 0.3, "output": output} for output in ("clamp", "sigmoid")},
}
POSE_LAB_VARIANTS = [
    (f"{grid}{end}", variant, POSE_LAB | given)
    for grid, variants in POSE_LAB_GRIDS.items()
    for variant, given in variants.items()
    for end in ("", "-lab")
]


@pytest.mark.parametrize(("grid", "variant", "given"), POSE_LAB_VARIANTS)
def test_the_grids_of_the_pose_lab_are_those_of_its_report(grid: str, variant: str, given: dict[str, Any]):
    train, epochs = sweep.find(grid).variants[variant], given["epochs"]
    assert (train.batch, train.context, train.horizon, train.windows) == (12, 1, 15, "tiled")
    assert (train.epoch_steps, train.steps) == (1463 // 12, epochs * (1463 // 12))
    optimizer = train.optimizer
    assert (optimizer.kind, optimizer.lr) == (given["optimizer"], given["rate"])
    assert (optimizer.momentum, optimizer.clip_norm) == (0.9, 1.0)
    assert train.model.output == given["output"]
    assert train.loss.latents == "mean"
    beta, forcing = (over_epochs(schedule, epochs, 121) for schedule in (train.beta, train.forcing))
    assert beta == pytest.approx([pose_lab_beta(given["beta"], e, epochs, 10, 1.0) for e in range(epochs)], abs=1e-9)
    assert forcing == pytest.approx([pose_lab_forcing(e, given["first"], 10, 0.1) for e in range(epochs)], abs=1e-9)


@pytest.mark.parametrize(("grid", "variant", "given"), [case for case in POSE_LAB_VARIANTS if case[0].endswith("-lab")])
def test_the_lab_grids_keep_what_the_pose_lab_did(grid: str, variant: str, given: dict[str, Any]):
    train, epochs = sweep.find(grid).variants[variant], given["epochs"]
    assert train.forcing.coin == "epoch"
    assert train.model.identity_activations
    assert train.model.logvar_limit == 20
    assert train.optimizer.weight_decay == (0 if given["optimizer"] == "sgd" else 1e-5)
    rates = [train.optimizer.lr * rate for rate in over_epochs(train.rate, epochs, 121)]
    assert rates == pytest.approx([pose_lab_rate(epoch, epochs, given["rate"]) for epoch in range(epochs)])
    inside = [train.rate.value(Clock(step, epochs * 121, 121)) for step in range(121)]
    assert set(inside) == {1.0}, "the rate falls once an epoch"


def test_the_template_of_the_pose_lab_has_its_own_defaults():
    train = presets.find("pose-dance-template")
    assert (train.batch, train.steps, train.loss.latents) == (2, 70 * (1463 // 2), "sum")
    assert (train.optimizer.kind, train.optimizer.lr, train.optimizer.clip_norm) == ("adam", 1e-3, 1.0)
    rates = over_epochs(train.rate, 70, 731)
    assert rates == pytest.approx([1.0] * 2 + [0.1] * 3 + [0.01] * 65)
    assert over_epochs(train.forcing, 70, 731) == pytest.approx([pose_lab_forcing(e, 1.0, 10, 0.1) for e in range(70)])


@pytest.mark.parametrize("end", ["", "-lab"])
@pytest.mark.parametrize(("after", "less"), [(20, 0.01666), (30, 0.004)])
@pytest.mark.parametrize("kind", ["monotonic", "cyclical"])
def test_the_schedules_of_the_action_lab_are_those_of_its_report(end: str, after: int, less: float, kind: str):
    train = sweep.find(f"seed-b-schedules{end}").variants[f"from-{after}-by-{less}-{kind}"]
    assert (train.steps, train.epoch_steps, train.batch, train.context, train.horizon) == (60_000, 600, 12, 2, 10)
    assert (train.optimizer.kind, train.optimizer.lr) == ("adam", 2e-3)
    betas = action_lab_betas(100, 4, 0.5) if kind == "cyclical" else action_lab_betas(100, 1, 0.5)
    weight = 1.0 if end else 1e-4
    assert over_epochs(train.beta, 100, 600) == pytest.approx([weight * beta for beta in betas], abs=1e-9)
    forcing = [action_lab_forcing(epoch, 1.0, after, less, 0.001) for epoch in range(100)]
    assert over_epochs(train.forcing, 100, 600) == pytest.approx(forcing)


@pytest.mark.parametrize("prior", ["fixed", "learned"])
def test_the_lab_grids_keep_what_the_action_lab_did(prior: str):
    train = sweep.find("seed-b-prior-lab").variants[prior]
    assert train == presets.find(f"svg-bair-{prior}-lab")
    assert (train.forcing.coin, train.forcing.floor, train.forcing.own_context) == ("batch", 0.001, True)
    assert (train.model.skip, train.standardise, train.windows) == ("svg", False, "first")
    assert (train.beta.stop, train.loss.latents) == (1.0, "sum")


@pytest.mark.parametrize("name", [name for name in presets.presets() if name.endswith(("-lab", "-template"))])
def test_the_labs_runs_are_validated_by_their_own_psnr(name: str):
    """The action lab averages the PSNR of channels; the pose lab's code has one error over all of them."""
    assert presets.find(name).metric == ("psnr-channel" if name.startswith("svg") else "psnr")


def test_a_grid_is_scored_by_what_its_runs_are_validated_by():
    assert Reporting().request("psnr-channel").metrics == ("psnr-channel", "ssim")
    assert Reporting(metrics=("ssim",)).request("psnr-channel").metrics == ("ssim",)


def test_validation_reconstructs_from_the_mean_of_the_posterior_by_the_labs_psnr(vector_pack: Pack, tmp_path: Path):
    trainer = make(vector_pack, tmp_path, replace(TINY, metric="psnr-channel", steps=2, validate_every=2))
    trainer.run()
    (row,) = [row for row in read_log(tmp_path) if "val_prediction_psnr" in row]
    protocol = Protocol("val", TINY.context, TINY.horizon, metrics=("psnr-channel",))
    expected = {
        "prediction": protocol,
        "reconstruction": replace(protocol, mode="reconstruction", temperature=0.0),
    }
    for mode, asked in expected.items():
        found = evaluate(trainer.state.scored, vector_pack, asked, CPU)
        assert row[f"val_{mode}_psnr"] == found.scores["psnr-channel"].mean


# -- what a student types


@pytest.mark.parametrize(
    ("typed", "here"),
    [
        ("--num_epoch 100", "--epochs N"),
        ("--tfr-d-step=0.1", "--forcing.decay"),
        ("--kl_anneal_ratio 2", "ratio / 2"),
        ("--DR LAB4_Dataset", "--data"),
        ("--fast_train", "--max-minutes"),
    ],
)
def test_a_flag_of_a_lab_is_answered_with_ours(typed: str, here: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "pose-dance-lab", "--data", "x", "--run", "y", *typed.split()])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foreframe: {typed.split()[0].partition('=')[0]} is a flag of the labs; here it is ")
    assert here in line
