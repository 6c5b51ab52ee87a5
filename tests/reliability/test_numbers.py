"""Numbers that are not finite, put in everywhere: weights stay finite, the step is named, and can be taken again."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from foreframe import checkpoint, evaluation
from foreframe.errors import CheckpointError, ConfigError, TrainingError
from foreframe.gaussian import Gaussian
from foreframe.log import read_log
from foreframe.losses import LossConfig, elbo, kl_per_unit
from foreframe.recipe import OptimizerConfig
from foreframe.training import crash, health, watch
from foreframe.training.watch import Buffers, Skipped, Spike, Watch
from foreframe.unrolled import Unrolled
from tests.runs import CPU, TINY, again, make

LONG = replace(TINY, steps=24, horizon=2, validate_every=0, save_every=1000, log_every=5)
BAD = (math.nan, math.inf, -math.inf)


def state_of(trainer):
    """Every number that an update may change."""
    tensors = {f"weights {name}": value for name, value in trainer.state.model.state_dict().items()}
    if trainer.state.average is not None:
        tensors |= {f"average {name}": value for name, value in trainer.state.average.state_dict().items()}
    for index, values in enumerate(trainer.state.optimizer.state_dict()["state"].values()):
        tensors |= {f"moment {index} {name}": value for name, value in values.items()}
    return {name: value.clone() for name, value in tensors.items()}


def inject(trainer, what, value, monkeypatch):
    """Have the next step meet such a number, once."""
    if what in ("frames", "condition", "noise"):
        place = trainer.place

        def placed(drawn):
            given = place(drawn)
            tensor = {"frames": given.clip.frames, "condition": given.clip.cond, "noise": given.noise}[what]
            tensor[0, 1].fill_(value)
            return given

        monkeypatch.setattr(trainer, "place", placed)
    elif what == "gradient":
        parameter = trainer.state.model.decoder.out.conv.weight
        parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
    else:
        hooked = trainer.state.model.decoder.stem
        hooked.register_forward_hook(lambda _module, _given, output: output * value)


@pytest.mark.parametrize("warm", [0, 1, *(pytest.param(n, marks=pytest.mark.nightly) for n in (2, 3, 5))])
@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_step_that_is_not_finite_leaves_no_trace(vector_pack, tmp_path, kind, warm, figure, monkeypatch):
    config = replace(LONG, optimizer=OptimizerConfig(kind, 1e-3, clip_norm=1.0))
    survived = tried = 0
    for what, value in itertools.product(("frames", "condition", "noise", "gradient", "output"), BAD):
        with monkeypatch.context() as patched:
            trainer = make(vector_pack, tmp_path / "run", config)
            for _ in range(warm):
                trainer.one_step()
                trainer.state.step += 1
            before = state_of(trainer)
            inject(trainer, what, value, patched)
            trainer.one_step()
            trainer.state.step += 1
            events = trainer.state.watch.drain_events(trainer.state.step)
            assert [event.step for event in events] == [warm], (what, value)
            after = state_of(trainer)
            untouched = all(torch.equal(value, after[name]) for name, value in before.items())
            # An optimiser that has not made its moments yet makes them now, of nothing.
            new = all(not value.any() for name, value in after.items() if name not in before)
            survived, tried = survived + (untouched and new), tried + 1
    figure("numbers not finite put in, and nothing changed by their step", survived, tried)


def test_the_module_and_the_clips_of_a_skipped_step_are_named_and_training_goes_on(vector_pack, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, LONG)
    place = trainer.place

    def placed(drawn):
        given = place(drawn)
        if drawn.step == 6:
            given.noise[0, 1] = math.inf
        return given

    monkeypatch.setattr(trainer, "place", placed)
    assert trainer.run() == "complete at step 24 of 24"
    (note,) = [row for row in read_log(run) if "note" in row]
    assert note["step"] == 7
    assert note["note"].startswith("not finite: loss, reconstruction, ")
    assert "clips clip-" in note["note"]
    assert note["note"].endswith("first the noise given; this step is skipped")
    saved = checkpoint.newest(run)
    assert not watch.not_finite(trainer.state.model.state_dict())
    assert saved.step == 24


@pytest.mark.parametrize(
    ("bad", "ends"),
    [([3, 4, 5], 6), ([3, 4, 6, 7], 0), ([0, 2, 4, 6, 8, 10, 12, 14, 16, 18], 19)],
    ids=["three in a row", "two and two", "ten"],
)
def test_a_run_ends_at_the_third_in_a_row_or_the_tenth_of_a_thousand(vector_pack, tmp_path, monkeypatch, bad, ends):
    run = tmp_path / "run"
    config = replace(LONG, save_every=4)
    trainer = make(vector_pack, run, config)
    place = trainer.place
    monkeypatch.setattr(crash, "examine", lambda *_: ((), ""))

    def placed(drawn):
        given = place(drawn)
        if drawn.step in bad:
            given.clip.frames.fill_(math.nan)
        return given

    monkeypatch.setattr(trainer, "place", placed)
    if not ends:
        assert trainer.run() == "complete at step 24 of 24"
        return
    with pytest.raises(TrainingError, match=rf"step {ends}: not finite: loss.* 3 such steps in a row, or 10 of 1000"):
        trainer.run()
    assert [row["step"] for row in read_log(run) if "note" in row] == [step + 1 for step in bad][: len(bad)]
    assert checkpoint.newest(run).step == ends // 4 * 4
    # What was skipped before the checkpoint is remembered by the run that goes on.
    later = again(vector_pack, run)
    later.restore()
    assert list(later.state.watch._skipped) == [step for step in bad if step < later.state.step]


def test_a_crash_is_kept_and_taken_again_elsewhere(vector_pack, tmp_path, figure):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, LONG)
    trainer.run(max_minutes=0)
    trainer = again(vector_pack, run)
    trainer.restore()
    with torch.no_grad():
        trainer.state.model.predictor.lstm.embed.weight.fill_(3e38)
    trainer.restore = lambda: None
    with pytest.raises(
        TrainingError, match=r"first the output of predictor.lstm.embed .Linear.; .*`foreframe replay /"
    ):
        trainer.run()
    folder = (run / "crash").rename(tmp_path / "elsewhere") / "step-00000004"
    found = crash.replay(folder)
    assert found.first == found.record.first == "the output of predictor.lstm.embed (Linear)"
    assert found.values == found.record.values
    assert found.values[0] == "nan"
    assert "step 4, clips clip-" in str(found)
    assert all(row["step"] == 1 or "note" in row for row in read_log(run))
    figure("crashes taken again with the same numbers", 1, 1)

    record = json.loads((folder / "crash.json").read_text())
    for change, message in (
        ({"free_running": [[]] * 3}, "2 clips in 3 parts are no step"),
        ({"stepp": 1}, "unknown key 'stepp'"),
    ):
        (folder / "crash.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(ConfigError, match=message):
            crash.replay(folder)
    (folder / "crash.json").write_text(json.dumps(record))
    content = (folder / "batch.safetensors").read_bytes()
    (folder / "batch.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"batch.safetensors: its tensors are those of another model"):
        crash.replay(folder)
    (folder / "batch.safetensors").write_bytes(content)
    (folder / "crash.json").unlink()
    with pytest.raises(CheckpointError, match=r"there is no crash.json in it; expected a folder RUN/crash/step-"):
        crash.replay(folder)


def test_statistics_that_overflow_in_a_step_that_is_finite_otherwise_are_put_back(vector_pack, tmp_path):
    """BatchNorm divides by what it then remembers: a variance beyond float32 leaves the loss as it is."""
    trainer = make(vector_pack, tmp_path / "run", LONG)
    trainer.one_step()
    trainer.state.step += 1
    before = state_of(trainer)
    (conv,) = [module for name, module in trainer.state.model.named_modules() if name == "encoder.head.conv"]
    conv.register_forward_hook(lambda _module, _given, output: output * 1e30)
    trainer.one_step()
    trainer.state.step += 1
    (event,) = trainer.state.watch.drain_events(trainer.state.step)
    assert event.wrong[-1] == "statistics"
    assert all(torch.equal(value, state_of(trainer)[name]) for name, value in before.items())


@pytest.mark.parametrize("where", ["weights", "running statistics", "average", "moments"])
def test_no_checkpoint_ever_holds_a_number_that_is_not_finite(vector_pack, tmp_path, where):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, replace(LONG, save_every=3))
    step = trainer.one_step

    def poisoned():
        done = step()
        if trainer.state.step == 4:
            with torch.no_grad():
                target = {
                    "weights": lambda: trainer.state.model.decoder.out.conv.weight,
                    "running statistics": lambda: next(trainer.state.model.buffers()),
                    "average": lambda: next(trainer.state.average.parameters()),
                    "moments": lambda: next(iter(trainer.state.optimizer.state.values()))["exp_avg"],
                }[where]()
                target.index_fill_(0, torch.tensor([0]), math.nan)
        return done

    trainer.one_step = poisoned
    with pytest.raises(TrainingError, match=r"not saved, since . tensors are not finite|not finite: loss"):
        trainer.run()
    found = checkpoint.newest(run)
    assert found.step == 3
    assert again(vector_pack, run).run() == "complete at step 24 of 24"


@pytest.mark.parametrize("cases", [100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_are_finite_whatever_a_head_says(dtype, cases, figure):
    """Log variances over [-1e4, 1e4] and means up to 1e6, as far as the type goes, under autocast."""
    draw = torch.Generator().manual_seed(0)
    most = min(1e6, torch.finfo(dtype).max / 2)

    def head():
        spread = torch.rand(cases, 1, 2, generator=draw) * 2 - 1
        mean, logvar = spread[..., 0] * most, spread[..., 1] * 1e4
        logvar[:8] = torch.tensor([-1e4, 1e4, 0, 10, -10, 11.1, 88.8, -88.8])[:, None]
        return (part[..., None].to(dtype).requires_grad_() for part in (mean, logvar))

    leaves = [*head(), *head()]
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        posterior, prior = Gaussian.bounded(*leaves[:2]), Gaussian.bounded(*leaves[2:])
        noise = torch.randn(cases, 1, 1, generator=draw).to(dtype)
        drawn = posterior.sample(noise)
        frames = torch.sigmoid(drawn[..., None, None])
    terms = elbo(Unrolled(frames, posterior, prior), torch.zeros(cases, 1, 1, 1, 1), 1e-4, LossConfig())
    assert torch.isfinite(terms.loss)
    units = kl_per_unit(posterior, prior)
    assert torch.isfinite(units).all()
    assert drawn.isfinite().all()
    wide = [leaf.detach().float().requires_grad_() for leaf in leaves]
    kl_per_unit(Gaussian.bounded(*wide[:2]), Gaussian.bounded(*wide[2:])).sum().backward()
    finite = torch.stack([leaf.grad.isfinite().flatten() for leaf in wide]).all(0)
    figure(f"heads with finite loss and gradient, {str(dtype).removeprefix('torch.')}", int(finite.sum()), cases)


def feed(rows, start=0):
    eye = Watch(CPU)
    eye.reset_to(start)
    for step, values in enumerate(rows, start):
        skipped = eye.record(torch.tensor(step), torch.tensor(values))
        assert bool(skipped) == (not all(map(math.isfinite, values)))
    return eye


def test_a_loss_far_above_those_before_it_is_a_spike():
    losses = [1.0 + 0.01 * (step % 7) for step in range(200)]
    losses[150] = 2.0
    (event,) = feed([[loss, 0.0, 0.0, 1.0, 1.0] for loss in losses]).drain_events(200)
    assert isinstance(event, Spike)
    assert event.step == 150
    assert event.sigmas > 6
    assert not feed([[1.0, 0.0, 0.0, 1.0, 1.0]] * 150 + [[1.0, 0.0, 0.0, 1.0, 1.0]]).drain_events(151), (
        "equal losses have no deviation"
    )
    assert not feed([[loss, 0.0, 0.0, 1.0, 1.0] for loss in losses[100:]]).drain_events(100), "too few before it"


def test_how_often_one_looks_changes_nothing_of_what_is_seen():
    draw = torch.Generator().manual_seed(1)
    rows = torch.rand(3000, 5, generator=draw)
    rows[torch.rand(3000, generator=draw) < 0.01] = math.nan
    rows[::401, 0] = 50.0
    seen = []
    for every in (1, 20, 500):
        eye, events = Watch(CPU), []
        for step in range(3000):
            eye.record(torch.tensor(step), rows[step])
            if (step + 1) % every == 0:
                events += eye.drain_events(step + 1)
        seen.append([(type(event), event.step, getattr(event, "fatal", None)) for event in events])
    assert seen[0] == seen[1]
    assert {kind for kind, *_ in seen[0]} == {Skipped, Spike}
    assert [event[:2] for event in seen[0]] == [event[:2] for event in seen[2]]


def test_buffers_are_put_back_bit_for_bit_or_left_alone():
    module = torch.nn.BatchNorm1d(3)
    for back in (True, False):
        kept = Buffers(module)
        before = [buffer.clone() for buffer in module.buffers()]
        module(torch.full((2, 3), math.nan))
        kept.put_back(torch.tensor(back))
        same = [torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True)]
        assert all(same) if back else not any(same)


def test_a_collapsed_and_an_exploded_posterior_are_said_in_the_log(vector_pack, tmp_path, monkeypatch):
    run = tmp_path / "run"
    make(vector_pack, run, replace(LONG, steps=2, validate_every=1)).run()
    notes = [row["note"] for row in read_log(run) if "note" in row]
    assert len(notes) == 2
    assert all("the posterior has collapsed, z carries nothing" in note for note in notes)
    monkeypatch.setattr(health, "COLLAPSED_NATS", 0.0)
    monkeypatch.setattr(health, "EXPLODED_NATS", 0.0)
    make(vector_pack, tmp_path / "other", replace(LONG, steps=1, validate_every=1)).run()
    (note,) = [row["note"] for row in read_log(tmp_path / "other") if "note" in row]
    assert "it explodes" in note


def test_a_validation_that_is_not_finite_is_told_of_and_is_never_the_best(vector_pack, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, replace(LONG, steps=4, validate_every=2))
    noise = evaluation.draw_noise
    monkeypatch.setattr(evaluation, "draw_noise", lambda *a: noise(*a) * (math.inf if trainer.state.step == 2 else 1))
    assert trainer.run() == "complete at step 4 of 4"
    assert any("validation: frame 3 of 4 is not finite" in row.get("note", "") for row in read_log(run))
    assert checkpoint.newest(run).best["step"] == 4
