"""The contract of `foreframe.models.Model`, held against every file found in that folder."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.rollout import draw_noise, predict
from tests.conftest import random_clip

SPECS = (ClipSpec(3, 64, 64, "vector", 3), ClipSpec(3, 32, 64, "image", 3), ClipSpec(3, 64, 64))
CONTEXT, LENGTH = 2, 5


def small(name: str):
    """The model's default configuration, made quick: every whole number of 32 or more is divided by 8."""
    config = models.module(name).Config()
    wide = {
        f.name: getattr(config, f.name) // 8 for f in fields(config) if getattr(config, f.name) in range(32, 10_000)
    }
    return replace(config, **wide)


def accepted() -> list[tuple[str, ClipSpec]]:
    found = []
    for name in models.names():
        for spec in SPECS:
            try:
                with torch.device("meta"):
                    models.build(small(name), spec)
            except ConfigError:
                continue
            found.append((name, spec))
    assert {name for name, _ in found} == set(models.names()), "a model takes none of the usual clips"
    return found


@pytest.fixture(scope="module", params=accepted(), ids=lambda pair: f"{pair[0]}-{pair[1].cond}")
def made(request):
    name, spec = request.param
    torch.manual_seed(0)
    model = models.build(small(name), spec)
    clip = random_clip(spec, 2, LENGTH)
    # A few steps in training mode give BatchNorm statistics that differ from their start.
    with torch.no_grad():
        for _ in range(2):
            model(clip, CONTEXT, torch.ones(2, LENGTH - 1, dtype=torch.bool), noise(model, 2))
    return model.eval(), spec, clip


def noise(model, batch, length=LENGTH):
    return torch.randn(batch, length - 1, *model.latent_shape, generator=torch.Generator().manual_seed(1))


def roll(model, clip, draws, length=LENGTH, **options):
    cond = None if clip.cond is None else clip.cond[:, :length]
    return predict(model, clip.frames[:, :CONTEXT], cond, draws[:, : length - 1], **options)


def test_frames_are_of_the_clips_shape_and_between_zero_and_one(made):
    model, _, clip = made
    with torch.no_grad():
        out = model(clip, CONTEXT, torch.zeros(2, LENGTH - 1, dtype=torch.bool), noise(model, 2))
    assert out.frames.shape == clip.frames[:, 1:].shape
    assert out.frames.min() >= 0
    assert out.frames.max() <= 1
    if out.posterior is not None:
        assert out.posterior.mean.shape == out.prior.mean.shape == (2, LENGTH - 1, *model.latent_shape)


def test_a_batch_gives_what_single_clips_give(made):
    model, _, clip = made
    draws = noise(model, 2)
    together = roll(model, clip, draws)
    for i in range(2):
        one = Clip(clip.frames[i : i + 1], None if clip.cond is None else clip.cond[i : i + 1])
        torch.testing.assert_close(roll(model, one, draws[i : i + 1])[0], together[i], atol=2e-5, rtol=1e-4)


def test_samples_of_a_clip_are_what_they_are_one_by_one(made):
    model, _, clip = made
    draws = noise(model, 6)
    together = roll(model, clip, draws).unflatten(0, (3, 2))
    for sample, frames in enumerate(together):
        alone = roll(model, clip, draws[2 * sample : 2 * sample + 2])
        torch.testing.assert_close(frames, alone, atol=2e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="multiple of the 2 clips"):
        roll(model, clip, draws[:5])


def test_the_condition_of_a_frame_changes_that_frame_and_none_before(made):
    model, _, clip = made
    if clip.cond is None:
        return
    draws = noise(model, 2)
    before = roll(model, clip, draws)
    for t in range(CONTEXT, LENGTH):
        cond = clip.cond.clone()
        cond[:, t] = 1 - cond[:, t]
        after = roll(model, Clip(clip.frames, cond), draws)
        changed = (after - before).abs().flatten(2).amax((0, 2)) > 0
        assert not changed[: t - CONTEXT].any(), f"cond[:, {t}] reaches back"
        assert changed[t - CONTEXT], f"cond[:, {t}] does not reach frame {t}"


def test_prediction_never_looks_at_the_frames_it_predicts(made):
    model, _, clip = made
    draws = noise(model, 2)
    spoilt = clip.frames.clone()
    spoilt[:, CONTEXT:] = 1 - spoilt[:, CONTEXT:]
    torch.testing.assert_close(roll(model, clip, draws), roll(model, Clip(spoilt, clip.cond), draws), rtol=0, atol=0)


def test_forcing_of_ones_equals_the_teacher_forced_rollout_and_of_zeros_the_reconstruction(made):
    model, _, clip = made
    draws = noise(model, 2)
    for forced, mode in ((True, "teacher-forced"), (False, "reconstruction")):
        forcing = torch.full((2, LENGTH - 1), forced)
        with torch.no_grad():
            trained = model(clip, CONTEXT, forcing, draws).frames[:, CONTEXT - 1 :]
        rolled = roll(model, clip, draws, mode=mode, truth=clip.frames)
        torch.testing.assert_close(rolled, trained, atol=2e-5, rtol=1e-4)


def test_mixed_forcing_follows_each_clips_own_coins(made):
    model, _, clip = made
    draws = noise(model, 2)
    forcing = torch.tensor([[True] * (LENGTH - 1), [False] * (LENGTH - 1)])
    with torch.no_grad():
        mixed = model(clip, CONTEXT, forcing, draws).frames
        forced = model(clip, CONTEXT, torch.ones_like(forcing), draws).frames
        free = model(clip, CONTEXT, torch.zeros_like(forcing), draws).frames
    torch.testing.assert_close(mixed[0], forced[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(mixed[1], free[1], atol=2e-5, rtol=1e-4)


def test_a_rollout_goes_on_beyond_the_trained_length(made):
    model, _, clip = made
    long = random_clip(clip.spec, 1, 12)
    draws = draw_noise(model, [0], 12, seed=3)
    frames = roll(model, long, draws, length=12)
    assert frames.shape[1] == 12 - CONTEXT
    assert torch.isfinite(frames).all()


def test_every_parameter_learns(made):
    model, _, clip = made
    model.train().requires_grad_(True)
    out = model(clip, CONTEXT, torch.zeros(2, LENGTH - 1, dtype=torch.bool), noise(model, 2))
    loss = out.frames.square().mean()
    if out.posterior is not None:
        loss = loss + sum(part.square().mean() for part in (*out.posterior, *out.prior))
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    model.zero_grad()
    model.eval()
    assert not idle
