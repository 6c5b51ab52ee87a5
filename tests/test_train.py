from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from foreframe import checkpoint, models
from foreframe.checkpoint import load_run
from foreframe.data.loading.prefetch import Feed
from foreframe.errors import ConfigError, DataError
from foreframe.log import read_log
from foreframe.models import svg
from foreframe.recipe import DataSource, OptimizerConfig, RunConfig
from foreframe.schedules import Clock, ForcingSchedule
from foreframe.training.optimizer import average_share, update_average
from foreframe.training.step import draw_forcing
from foreframe.training.trainer import Trainer
from tests.conftest import write_pack
from tests.runs import CPU, TINY, again, content, make


@pytest.fixture(scope="module")
def whole(vector_pack, tmp_path_factory):
    """The run that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert make(vector_pack, run).run() == "complete at step 20 of 20"
    return content(run, 20)


def test_a_run_learns_and_leaves_what_it_says(whole):
    files, rows, best = whole
    assert set(files) == {f"{name}.safetensors" for name in ("weights", "ema", "optimizer", "watch")}
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == list(range(1, 21))
    assert losses[-1]["reconstruction"] < losses[0]["reconstruction"]
    checks = [row for row in rows if "val_prediction_psnr" in row]
    assert [row["step"] for row in checks] == [7, 14, 20]
    assert all("val_reconstruction_psnr" in row and "val_repeat_last_psnr" in row for row in checks)
    assert best["psnr"] == max(row["val_prediction_psnr"] for row in checks)


@pytest.mark.parametrize("stops", [[11], [4], [1, 2, 13]], ids=str)
def test_a_run_stopped_and_resumed_is_bitwise_equal(vector_pack, tmp_path, whole, stops, monkeypatch):
    run = tmp_path / "run"
    make(vector_pack, run)
    for stop in stops:
        trainer = again(vector_pack, run)
        step = trainer.one_step

        def once(trainer=trainer, step=step, stop=stop):
            if trainer.state.step == stop - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return step()

        monkeypatch.setattr(trainer, "one_step", once)
        assert trainer.run() == f"stopped by SIGTERM at step {stop} of 20"
    assert again(vector_pack, run).run() == "complete at step 20 of 20"
    assert content(run, 20) == whole


def test_twenty_steps_equal_eleven_a_kill_and_nine(vector_pack, tmp_path, whole):
    """SIGKILL in the middle of step 12, after the checkpoint of step 8: the steps in between are taken again."""
    run = tmp_path / "run"
    make(vector_pack, run)
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from foreframe.data.pack.pack import Pack
        from foreframe.recipe import RunConfig
        from foreframe.training.trainer import Trainer
        run = Path(sys.argv[1])
        config = RunConfig.read(run)
        trainer = Trainer(config, Pack.open(config.data.path), run, torch.device("cpu"))
        step = trainer.one_step
        def once():
            result = step()
            if trainer.state.step == 11:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        trainer.one_step = once
        trainer.run()
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(run)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert checkpoint.newest(run).step == 8
    assert max(row["step"] for row in read_log(run)) == 11
    assert again(vector_pack, run).run() == "complete at step 20 of 20"
    assert content(run, 20) == whole


def test_reading_ahead_and_keeping_the_split_on_the_device_change_no_bit(vector_pack, tmp_path, whole):
    run = tmp_path / "run"
    for stop in (0.0, None):
        trainer = make(vector_pack, run)
        trainer.reads_ahead = True
        trainer.feed = Feed(trainer.windows, trainer.setup.device, resident=True)
        trainer.run(stop)
    assert content(run, 20) == whole


def test_moments_lie_in_memory_as_their_parameters_do_after_a_resume(vector_pack, tmp_path):
    run = tmp_path / "run"
    make(vector_pack, run).run(max_minutes=0.0)
    trainer = make(vector_pack, run)
    trainer.restore()
    strides = {p.stride(): state["exp_avg"].stride() for p, state in trainer.state.optimizer.state.items()}
    assert any(len(stride) == 4 and stride[1] == 1 for stride in strides), "some parameters are channels last"
    assert all(stride == moment for stride, moment in strides.items())


def test_resuming_a_finished_run_says_so(vector_pack, tmp_path):
    run = tmp_path / "run"
    make(vector_pack, run, replace(TINY, steps=2)).run()
    assert again(vector_pack, run).run() == "already complete at step 2"


def test_a_run_stops_in_time_and_saves(vector_pack, tmp_path):
    run = tmp_path / "run"
    assert make(vector_pack, run).run(max_minutes=0.0) == "stopped after 0 minutes at step 1 of 20"
    assert checkpoint.newest(run).step == 1


def test_other_data_than_at_the_start_is_refused(vector_pack, image_pack, tmp_path):
    run = tmp_path / "run"
    make(vector_pack, run)
    record = RunConfig.read(run)
    with pytest.raises(DataError, match="its clips are 3x32x64 with 3-channel pictures; this run takes 3x64x64"):
        Trainer(record, image_pack, run, torch.device("cpu"))
    with pytest.raises(DataError, match="not the data this run was started on"):
        Trainer(replace(record, data=DataSource("x", "0" * 64)), vector_pack, run, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_every_optimiser_trains(vector_pack, tmp_path, kind):
    config = replace(TINY, steps=3, optimizer=OptimizerConfig(kind, 1e-3), ema=0.0, validate_every=0)
    assert make(vector_pack, tmp_path / "run", config).run() == "complete at step 3 of 3"
    assert not (tmp_path / "run" / "checkpoints" / "step-00000003" / "ema.safetensors").exists()


def test_clips_without_condition_train(tmp_path):
    pack = write_pack(tmp_path / "pack", "none")
    assert make(pack, tmp_path / "run", replace(TINY, steps=2)).run() == "complete at step 2 of 2"


def test_a_pack_without_the_split_to_train_on_says_which_there_are(vector_pack, tmp_path):
    with pytest.raises(
        DataError, match="no split 'trian' to train on; it has train, val, test: name one, as in --split train"
    ):
        make(vector_pack, tmp_path / "run", replace(TINY, split="trian"))


def test_validation_clips_too_short_are_refused_at_the_start_and_not_at_the_first_validation(vector_pack, tmp_path):
    with pytest.raises(DataError, match="no clip of split 'val' is 42 frames long"):
        make(vector_pack, tmp_path / "run", replace(TINY, eval_horizon=40))
    assert make(vector_pack, tmp_path / "run", replace(TINY, eval_horizon=40, validate_every=0)).state.step == 0


def test_a_coin_is_shared_as_its_name_says():
    shape = (4, 8)
    each = draw_forcing(ForcingSchedule(coin="clip-step"), 0.5, shape, 1, Clock(3, 10, 5))
    assert each.shape == shape
    assert 0 < each.float().mean() < 1
    for coin, near, far in (("batch", 3, 4), ("epoch", 3, 8)):
        draws = [draw_forcing(ForcingSchedule(coin=coin), 0.5, shape, seed, Clock(near, 10, 5)) for seed in range(40)]
        assert all(draw.all() or not draw.any() for draw in draws)
        assert 5 < sum(bool(draw.all()) for draw in draws) < 35
        later = [draw_forcing(ForcingSchedule(coin=coin), 0.5, shape, seed, Clock(far, 10, 5)) for seed in range(40)]
        assert any(not torch.equal(a, b) for a, b in zip(draws, later, strict=True))
    same = [draw_forcing(ForcingSchedule(coin="epoch"), 0.5, shape, 1, Clock(step, 10, 5)) for step in (5, 9)]
    assert torch.equal(*same)


def test_forcing_of_one_is_always_and_of_zero_never():
    shape = (4, 8)
    assert draw_forcing(ForcingSchedule(), 1.0, shape, 1, Clock(0, 10, 5)).all()
    assert not draw_forcing(ForcingSchedule(), 0.0, shape, 1, Clock(0, 10, 5)).any()


def test_the_average_follows_the_weights_and_copies_counters():
    model, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    model.weight.data.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    for step in range(2000):
        update_average(average, model, torch.tensor(average_share(0.9, step)))
    torch.testing.assert_close(average.weight, model.weight)
    assert int(average.num_batches_tracked) == 7


def test_numbers_that_cannot_be_are_refused(vector_pack, tmp_path):
    for setting in ("batch", "accumulate"):
        with pytest.raises(ConfigError, match=f"{setting}: expected a whole number, 1 to [0-9,]+, found 0"):
            make(vector_pack, tmp_path / "run", replace(TINY, **{setting: 0}))


def test_loading_a_run_builds_one_network_and_gives_what_was_saved(vector_pack, tmp_path, monkeypatch, figure):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, replace(TINY, steps=1, validate_every=0))
    trainer.run()
    built, init = [], svg.Model.__init__
    monkeypatch.setattr(svg.Model, "__init__", lambda *arguments: (built.append(1), init(*arguments))[1])
    loaded = load_run(run, "newest", CPU).model
    figure("networks built to load a run", len(built), 1)
    assert not loaded.training
    saved = trainer.state.scored
    assert {name: value.stride() for name, value in loaded.state_dict().items()} == {
        name: value.stride() for name, value in saved.state_dict().items()
    }
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loaded.parameters())


def test_a_model_with_tensors_that_no_checkpoint_holds_is_refused(vector_pack, monkeypatch):
    init = svg.Model.__init__

    def with_secrets(self, config, spec):
        init(self, config, spec)
        self.scale = torch.ones(1)
        self.encoder.register_buffer("table", torch.ones(1), persistent=False)

    monkeypatch.setattr(svg.Model, "__init__", with_secrets)
    with pytest.raises(ConfigError, match=r"model: svg keeps tensors that no checkpoint holds: encoder.table, scale; "):
        models.build_on_meta(TINY.model, vector_pack.spec)
