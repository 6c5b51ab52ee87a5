"""All that a run has to remember: stopped anywhere it goes on bitwise equal, and each piece left out is noticed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch

from foreframe import checkpoint, evaluation
from foreframe.errors import CheckpointError, DataError, TrainingError
from foreframe.log import read_log
from foreframe.recipe import RunConfig
from foreframe.training import step
from foreframe.training.optimizer import make_optimizer
from foreframe.training.trainer import Trainer
from tests.conftest import write_pack
from tests.runs import CPU, TINY, again, content, make

SHORT = replace(TINY, steps=8, horizon=2, validate_every=4, save_every=3)
STOP = 5


@pytest.fixture(scope="module")
def whole(vector_pack, tmp_path_factory):
    """The run that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    make(vector_pack, run, SHORT).run()
    return content(run, SHORT.steps)


def stop_at(trainer: Trainer, step: int, monkeypatch) -> str:
    """Train until a signal comes during this step; 0: before the first."""
    real = trainer.one_step if step else trainer.restore

    def asked(*arguments):
        if trainer.state.step == max(0, step - 1):
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(*arguments)

    monkeypatch.setattr(trainer, "one_step" if step else "restore", asked)
    return trainer.run()


def part(trainer: Trainer, name: str):
    """What a run would be without a piece of its state, from `STOP` on."""
    if name == "optimizer":
        trainer.state.optimizer = make_optimizer(SHORT.optimizer, trainer.state.model)
    elif name == "average":
        trainer.state.average.load_state_dict(trainer.state.model.state_dict())
    elif name == "running statistics":
        fresh = dict(
            Trainer(trainer.setup.config, trainer.setup.pack, trainer.setup.path, CPU).state.model.named_buffers()
        )
        for key, buffer in trainer.state.model.named_buffers():
            buffer.copy_(fresh[key])


@pytest.mark.parametrize(
    "forgotten",
    ["noise", "position in the data", "beta", "forcing", "average", "running statistics", "optimizer", "nothing"],
)
def test_a_piece_of_state_left_out_is_noticed(vector_pack, tmp_path, whole, forgotten, monkeypatch, figure):
    run = tmp_path / "run"
    assert "at step 5" in stop_at(make(vector_pack, run, SHORT), STOP, monkeypatch)
    trainer = again(vector_pack, run)
    restore, settings = trainer.restore, step.StepPlan.settings
    generator, indices = step.seeds.generator, step.batch_indices

    def forget():
        restore()
        part(trainer, forgotten)

    monkeypatch.setattr(trainer, "restore", forget)
    # Streams that begin anew, as those of a program do that draws from a state and does not save it.
    if forgotten == "noise":
        late = {"noise": STOP}
        monkeypatch.setattr(
            step.seeds, "generator", lambda seed, name, n=0, *rest: generator(seed, name, n - late.get(name, 0), *rest)
        )
    elif forgotten == "position in the data":
        monkeypatch.setattr(step, "batch_indices", lambda *a: indices(*a[:-1], a[-1] - STOP))
    elif forgotten in ("beta", "forcing"):
        monkeypatch.setattr(
            step.StepPlan,
            "settings",
            lambda plan, n: {**settings(plan, n), forgotten: settings(plan, n - STOP)[forgotten]},
        )
    trainer.run()
    equal = content(run, SHORT.steps)[0] == whole[0]
    assert equal == (forgotten == "nothing")
    if not equal:
        figure("negative controls noticed", 1, 1)


@pytest.mark.parametrize(
    "stops",
    [[0], [3], [2, 5], [4], [8], [8, 8]],
    ids=["before the first step", "as it saves", "twice in a pass", "as it validates", "the last step", "the end"],
)
def test_a_run_stopped_anywhere_goes_on_bitwise_equal(vector_pack, tmp_path, whole, stops, monkeypatch):
    run = tmp_path / "run"
    make(vector_pack, run, SHORT)
    for stop in stops:
        stop_at(again(vector_pack, run), stop, monkeypatch)
    assert again(vector_pack, run).run().startswith(("complete", "already complete"))
    assert content(run, SHORT.steps) == whole


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("times", [1, 2])
def test_a_validation_that_was_stopped_is_made_up_for(vector_pack, tmp_path, whole, step, times, monkeypatch):
    run = tmp_path / "run"
    make(vector_pack, run, SHORT)
    unroll = evaluation.unroll
    for _ in range(times):
        trainer = again(vector_pack, run)

        def asked(*arguments, trainer=trainer):
            if trainer.state.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return unroll(*arguments)

        monkeypatch.setattr(evaluation, "unroll", asked)
        assert trainer.run() == f"stopped by SIGTERM at step {step} of 8"
        assert checkpoint.newest(run).state["validation_pending"] is True
        assert [row["step"] for row in read_log(run) if "val_prediction_psnr" in row] == [4][: step > 4]
    monkeypatch.setattr(evaluation, "unroll", unroll)
    assert again(vector_pack, run).run() == "complete at step 8 of 8"
    assert content(run, SHORT.steps) == whole
    assert again(vector_pack, run).run() == "already complete at step 8"


def test_how_often_it_is_looked_at_changes_nothing_of_what_is_trained(vector_pack, tmp_path, whole):
    run = tmp_path / "run"
    make(vector_pack, run, replace(SHORT, validate_every=3, save_every=5, log_every=4)).run()
    files, rows, _ = content(run, SHORT.steps)
    assert files == whole[0]
    losses = {row["step"]: row["loss"] for row in whole[1] if "loss" in row}
    assert {row["step"]: row["loss"] for row in rows if "loss" in row} == {4: losses[4], 8: losses[8]}


def test_two_trainings_cannot_share_a_run(vector_pack, tmp_path):
    run = tmp_path / "run"
    first, second = make(vector_pack, run, SHORT), again(vector_pack, run)
    first.acquire_lock()
    with pytest.raises(TrainingError, match=rf"another training is running here \(process {os.getpid()} on .*\); wait"):
        second.run()
    assert first.run() == "complete at step 8 of 8"
    assert second.run() == "already complete at step 8"


def test_a_run_moved_to_another_folder_goes_on_bitwise_equal(vector_pack, tmp_path, whole, monkeypatch):
    stop_at(make(vector_pack, tmp_path / "here", SHORT), STOP, monkeypatch)
    (tmp_path / "there").mkdir()
    run = (tmp_path / "here").rename(tmp_path / "there" / "run")
    assert again(vector_pack, run).run() == "complete at step 8 of 8"
    assert content(run, SHORT.steps) == whole


def test_a_configuration_changed_by_hand_is_refused_with_the_differences(vector_pack, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    stop_at(make(vector_pack, run, SHORT), STOP, monkeypatch)
    record = RunConfig.read(run)
    changed = replace(record, train=replace(SHORT, steps=6, ema=0.8))
    changed.write(run)
    with pytest.raises(
        CheckpointError, match=r"changed since step 5(.|\n)*train.steps: 8 -> 6\n  train.ema: 0.9 -> 0.8"
    ):
        again(vector_pack, run).run()
    assert Trainer(changed, vector_pack, run, CPU, accept_changes=True).run() == "complete at step 6 of 6"
    assert "train.steps: 8 -> 6" in capsys.readouterr().out


def test_another_number_of_threads_is_told_of(vector_pack, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    stop_at(make(vector_pack, run, SHORT), STOP, monkeypatch)
    torch.set_num_threads(2)
    try:
        again(vector_pack, run).run(max_minutes=0)
    finally:
        torch.set_num_threads(1)
    assert "not as at step 5, so numbers will differ: threads: 1 -> 2" in capsys.readouterr().out


def test_other_clips_of_the_same_kind_are_refused_when_a_run_goes_on(vector_pack, tmp_path):
    run = tmp_path / "run"
    make(vector_pack, run, SHORT)
    other = write_pack(tmp_path / "other", clips=9)
    with pytest.raises(DataError, match=r"not the data this run was started on \(manifest .*, expected .*\)"):
        again(other, run)


def test_rows_of_the_log_beyond_the_checkpoint_are_cut(vector_pack, tmp_path, whole, monkeypatch):
    run = tmp_path / "run"
    stop_at(make(vector_pack, run, SHORT), STOP, monkeypatch)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss": 1.0}\n{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    again(vector_pack, run).run()
    assert content(run, SHORT.steps) == whole
