"""Measured states of the future: predicted by the model or left out, and never looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foreframe import measured, models
from foreframe.checkpoint import load_run
from foreframe.clip import Clip, ClipSpec
from foreframe.conformance import check_model, small
from foreframe.data.open import open_clips
from foreframe.errors import ConfigError, InputError
from foreframe.losses import LossConfig, elbo
from foreframe.models import recurrent_unet, svg
from foreframe.predictor import Predictor
from foreframe.presets import robot
from foreframe.recipe import RunConfig
from foreframe.rollout import predict
from foreframe.training.state import compile_parts
from tests.conftest import write_pack
from tests.runs import CPU, TINY, make

SPEC = ClipSpec(3, 32, 32, "vector", 5)
COLUMNS = (1, 4)
KINDS = {"svg": small(svg.Config(backbone="dcgan")), "recurrent_unet": small(recurrent_unet.Config())}


def built(name: str, use: measured.Use, spec: ClipSpec = SPEC) -> models.Model:
    torch.manual_seed(0)
    model = models.build(measured.around(KINDS[name], spec, COLUMNS, use), spec)
    with torch.no_grad():
        for parameter in model.parameters():  # a head that has learned something, and layers that begin at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def clip(length: int = 8, spec: ClipSpec = SPEC) -> Clip:
    draws = torch.Generator().manual_seed(1)
    frames = torch.rand(3, length, spec.channels, spec.height, spec.width, generator=draws)
    return Clip(frames, torch.randn(3, length, spec.cond_size, generator=draws))


@pytest.mark.parametrize("use", ["predicted", "unused"])
@pytest.mark.parametrize("name", KINDS)
def test_the_model_around_another_keeps_the_contract(name: str, use: measured.Use):
    spec = replace(SPEC, height=64, width=64)
    assert check_model(measured.around(KINDS[name], spec, COLUMNS, use), spec) == []


@pytest.mark.parametrize("use", ["given", "predicted", "unused"])
@pytest.mark.parametrize("name", KINDS)
def test_measured_states_beyond_the_context_are_seen_only_where_they_are_given(name: str, use: measured.Use):
    spec = replace(SPEC, height=64, width=64)
    model, known, given = built(name, use, spec), 2, clip(spec=spec)
    noise = torch.randn(3, len(given) - 1, *model.latent_shape, generator=torch.Generator().manual_seed(2))

    def frames(*, of: tuple[int, ...], start: int) -> torch.Tensor:
        """Predictions where these columns are other numbers from a frame on."""
        cond = given.cond.clone()
        cond[:, start:, list(of)] += 3
        return predict(model, given.frames[:, :known], cond, noise)

    asked = frames(of=(), start=0)
    assert torch.equal(frames(of=COLUMNS, start=known), asked) == (use != "given")
    assert torch.equal(frames(of=COLUMNS, start=0), asked) == (use == "unused")
    assert not torch.equal(frames(of=(0,), start=known), asked)


@pytest.mark.parametrize("name", KINDS)
def test_training_shows_the_model_inside_what_prediction_will(name: str):
    """`forward` and `step` feed it the same states, also where none beyond the context can be read."""
    spec = replace(SPEC, height=64, width=64)
    model, given, known = built(name, "predicted", spec), clip(spec=spec), 2
    seen: list[torch.Tensor] = []
    inner = model.inner
    inner.register_forward_pre_hook(lambda _, args: seen.append(args[0].cond))
    noise = torch.zeros(3, len(given) - 1, *model.latent_shape)
    model(given, known, torch.zeros(3, len(given) - 1, dtype=torch.bool), noise)
    state = model.initial(given.window(0, known), known)
    for t in range(1, len(given)):
        cond = given.cond[:, t].clone()
        if t >= known:
            cond[:, list(COLUMNS)] = torch.nan
        state, _ = model.step(state, given.frames[:, t - 1], cond, noise[:, t - 1], None, known - t)
        torch.testing.assert_close(state.measured, seen[0][:, t, list(COLUMNS)])
    assert torch.equal(seen[0][:, :known], given.cond[:, :known])


def test_the_state_head_learns_what_controls_do_to_states():
    """A position is the sum of the moves; after 150 steps the head is right to a tenth of a deviation, 8 frames on."""
    torch.manual_seed(0)
    model = models.build(measured.around(KINDS["recurrent_unet"], SPEC, COLUMNS, "predicted"), SPEC)
    moves = torch.randn(64, 10, 5)
    moves[..., list(COLUMNS)] = 0.5 * moves[..., [0, 2]].cumsum(1)
    model.fit_condition(moves.mean((0, 1)).tolist(), moves.std((0, 1)).tolist())
    head = [*model.cell.parameters(), *model.change.parameters()]
    optimizer = torch.optim.Adam(head, 0.01)
    model.inner = Still(model.inner)
    given, errors = Clip(torch.zeros(64, 10, 3, 8, 8), moves), []
    for _ in range(150):
        out = model(given, 2, torch.ones(64, 9, dtype=torch.bool), torch.zeros(64, 9, 0))
        terms = elbo(out, given.frames[:, 1:], 1.0, LossConfig())
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        errors.append(terms.state_error.item())
    assert errors[0] > 0.3
    assert errors[-1] < 0.01


class Still(torch.nn.Module):
    """In the place of a model: only the head is looked at."""

    def __init__(self, model: models.Model) -> None:
        super().__init__()
        self.latent_shape = model.latent_shape

    def forward(self, clip: Clip, *_: object) -> object:
        return measured.Unrolled(clip.frames[:, :-1], None, None)


@pytest.mark.parametrize("use", ["given", "predicted", "unused"])
def test_a_predictor_asks_for_the_controls_alone_where_states_are_not_given(tmp_path: Path, use: measured.Use):
    pack = write_pack(tmp_path / "pack", measured=("dy",))
    train = replace(TINY, measured=use, steps=1, ema=0.0, validate_every=0, horizon=3, context=2)
    trainer = make(pack, tmp_path / "run", train)
    trainer.acquire_lock()
    trainer.save()
    trainer.lock.release()
    model = Predictor(load_run(tmp_path / "run", "newest", CPU), CPU)
    assert model.control_columns == (("dy", "dx") if use == "given" else ("dx",))
    assert f"measured states beyond the context: {use}" in model.card
    frames, cond = pack.read(pack.episodes[0], 0, 6)
    asked = model.rollout(frames[:2], cond[2:], samples=1, past=cond[:2]).frames
    alone: list[Any] = [cond[2:, 1:], {"dx": cond[2:, 1]}, torch.tensor(cond[2:, 1:]), cond[2:, 1:].tolist()]
    for controls in alone:
        if use == "given":
            with pytest.raises(InputError, match="dy"):
                model.rollout(frames[:2], controls, past=cond[:2])
        else:
            assert (model.rollout(frames[:2], controls, samples=1, past=cond[:2]).frames == asked).all()
    if use != "given":
        state = model.start(frames[:2], past=cond[:2], samples=1)
        for t in range(2, 6):
            state, frame = model.step(state, {"dx": cond[t, 1]})
            assert (frame == asked[0, t - 2]).all()
        state = model.start(frames[:2], past=cond[:2], samples=1)
        with pytest.raises(InputError, match="dy"):  # with a frame that is known, its states are
            model.step(state, {"dx": cond[2, 1]}, frames[2])
        with pytest.raises(InputError, match="expected"):  # what leads to given frames has to be known whole
            model.rollout(frames[:2], cond[:, 1:])
        with pytest.raises(InputError, match="'dz'"):
            model.rollout(frames[:2], {"dx": cond[2:, 1], "dz": cond[2:, 1]}, past=cond[:2])


def test_without_measured_states_or_where_they_are_given_the_model_is_what_it_was():
    assert measured.around(KINDS["svg"], SPEC, COLUMNS, "given") is KINDS["svg"]
    assert measured.around(KINDS["svg"], SPEC, (), "predicted") is KINDS["svg"]


@pytest.mark.parametrize("use", ["predicted", "unused"])
def test_without_controls_there_is_nothing_to_predict_from(use: measured.Use):
    with pytest.raises(ConfigError, match=f"'{use}' needs a control, but all 5 columns are measured"):
        measured.around(KINDS["svg"], SPEC, range(5), use)


def test_a_size_that_cannot_be_is_refused_in_the_model_inside_too():
    wrong = measured.around(replace(KINDS["recurrent_unet"], half=0), SPEC, COLUMNS, "predicted")
    with pytest.raises(ConfigError, match=r"model\.half: expected 1 to 65536, found 0"):
        models.build_on_meta(wrong, SPEC)


def test_of_the_model_inside_each_part_is_compiled(monkeypatch: pytest.MonkeyPatch):
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(module))
    model = built("svg", "predicted", replace(SPEC, height=64, width=64))
    compile_parts(model)
    through = [*compiled]
    compiled.clear()
    compile_parts(model.inner)
    assert through == compiled != []


def test_a_run_keeps_which_columns_are_measured_and_builds_the_head():
    pack = open_clips("push")
    train = replace(robot.robot_small(), model=KINDS["recurrent_unet"], measured="predicted")
    run = RunConfig.of("robot-small", train, pack)
    assert run.cond_measured == ("position_x", "position_y", "position_z")
    assert isinstance(run.check(), measured.Model)
    assert measured.use_of(run.check(), run.cond_measured) == "predicted"
    given = replace(run, train=replace(train, measured="given"))
    assert measured.use_of(given.check(), run.cond_measured) == "given"
    assert measured.use_of(given.check(), ()) == "none"
    with pytest.raises(ConfigError, match="cond_measured: expected names of cond_names, found speed"):
        replace(run, cond_measured=("speed",)).check()
