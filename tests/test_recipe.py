"""A preset in another number of steps: its schedules keep their place in the run, and a run says where they lead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foreframe.api import with_settings
from foreframe.cli import main
from foreframe.presets import find, presets
from foreframe.schedules import Clock, ForcingSchedule, RateSchedule


def values(train, part, passes=121):
    """beta, forcing and the rate's factor at a part of the run; passes: steps of a pass over the windows."""
    clock = Clock(round(train.steps * part), train.steps, train.epoch_steps or passes)
    return [schedule.value(clock) for schedule in (train.beta, train.forcing, train.rate)]


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("share", [0.1, 0.5, 3])
def test_every_preset_has_the_same_course_in_another_number_of_steps(name, share):
    full = find(name)
    other = replace(full, steps=round(full.steps * share)).of_length(full, 121)
    assert other.steps == round(full.steps * share)
    for part in (0.055, 0.155, 0.255, 0.47, 0.73, 0.97):
        assert values(other, part) == pytest.approx(values(full, part), abs=0.12), part


def changed(preset, settings):
    return with_settings(preset, settings).of_length(preset)


def test_a_preset_that_was_too_short_to_meet_its_own_frames_meets_them_now():
    full = find("svg-bair-fixed")
    short = changed(full, {"steps": 1200})
    assert (short.epoch_steps, values(short, 0.99)[1]) == (12, 0)
    assert values(replace(full, steps=1200), 0.99)[1] == 1


def test_what_is_given_with_the_steps_stays_as_it_is_given():
    full = find("svg-bair-fixed")
    mine = changed(full, {"steps": 1200, "epoch_steps": 300, "forcing.start": 2})
    assert (mine.epoch_steps, mine.forcing.start, mine.forcing.decay) == (300, 2, full.forcing.decay)
    assert changed(full, {"steps": 600, "forcing.coin": "batch"}).forcing.coin == "batch"
    counted = replace(full, forcing=ForcingSchedule("linear", start=600, decay=0.001), epoch_steps=0)
    assert changed(counted, {"steps": 6000, "forcing.coin": "batch"}).forcing.start == 60


def test_milestones_and_warm_up_move_with_the_steps():
    full = replace(find("push-demo"), steps=1000, rate=RateSchedule("multi-step", warmup=100, milestones=(500, 800)))
    assert changed(full, {"steps": 100}).rate.milestones == (50, 80)
    assert changed(full, {"steps": 100}).rate.warmup == 10
    epochs = replace(full, epoch_steps=10, rate=replace(full.rate, unit="epoch"))
    assert changed(epochs, {"steps": 100}).rate.milestones == (500, 800)


SMALL = ["--batch", "2", "--context", "2", "--horizon", "2", "--validate-every", "0", "--model.backbone", "dcgan"]
SMALL += ["--model.width", "4", "--model.g-dim", "8", "--model.z-dim", "2", "--model.rnn-size", "8", "--threads", "1"]


def trained(vector_pack, run, capsys, *given):
    main(["train", "svg-bair-fixed", "--data", str(vector_pack.path), "--run", str(run), *given, *SMALL])
    return capsys.readouterr().out


def test_a_run_prints_what_its_schedules_reach(vector_pack, tmp_path, capsys):
    out = trained(vector_pack, tmp_path / "run", capsys, "--steps", "100")
    assert "100 steps (100 epochs of 1): beta 0 to 0.0001, forcing 1.00 to 0.00, rate 0.002 to 0.002\n" in out
    assert "warning" not in out


def test_schedules_that_lead_nowhere_are_warned_of(vector_pack, tmp_path, capsys):
    out = trained(vector_pack, tmp_path / "run", capsys, "--steps", "3", "--epoch-steps", "500")
    assert "warning: beta never rises in this run" in out
    assert "warning: forcing never falls in this run: it begins to at epoch 20 (--forcing.start, --steps)" in out


def test_epochs_are_as_long_as_in_the_preset(vector_pack, tmp_path, capsys):
    out = trained(vector_pack, tmp_path / "run", capsys, "--epochs", "2", "--epoch-steps", "2")
    assert "4 steps (2 epochs of 2)" in out
    windows = trained(vector_pack, tmp_path / "pass", capsys, "--epochs", "1", "--epoch-steps", "0")
    count = int(windows.split(" windows of 4 frames")[0].split()[-1])
    assert f"{count // 2} steps (1 epochs of {count // 2})" in windows


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--steps", "5", "--epochs", "5"], "--steps 5 and --epochs 5: give one of them"),
        (["--epochs", "0"], "--epochs: expected 1 or more, found 0"),
        (["--steps", "0"], "--steps: expected 1 or more, found 0"),
    ],
)
def test_a_length_that_cannot_be_is_refused(vector_pack, tmp_path, capsys, given, message):
    with pytest.raises(SystemExit):
        trained(vector_pack, tmp_path / "run", capsys, *given)
    assert message in capsys.readouterr().err
