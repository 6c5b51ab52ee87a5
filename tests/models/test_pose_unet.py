from __future__ import annotations

import pytest
import torch

from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.models.pose_unet import Config, Model
from foreframe.rollout import predict
from tests.conftest import random_clip

SPEC = ClipSpec(3, 16, 32, "image", 3)
LENGTH = 6


def small(spec: ClipSpec = SPEC) -> Model:
    torch.manual_seed(0)
    return Model(Config(width=8, detail=6, latent=2, scene=4), spec).eval()


def draws(model, batch=2, length=LENGTH):
    shape = (batch, length - 1, *model.latent_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_defaults_have_1_6_million_parameters_and_z_is_an_eighth_of_the_frame():
    model = Model(Config(), ClipSpec(3, 32, 64, "image", 3))
    assert model.latent_shape == (4, 4, 8)
    assert sum(p.numel() for p in model.parameters()) == 1_585_900


@pytest.mark.parametrize("size", [(16, 32), (16, 16), (24, 8)])
@torch.no_grad()
def test_frames_are_pixels_of_the_clips_size(size):
    spec = ClipSpec(3, *size, "image", 3)
    model, clip = small(spec), random_clip(spec, 2, 3)
    out = model(clip, 1, torch.zeros(2, 2, dtype=torch.bool), draws(model, length=3))
    assert out.frames.shape == (2, 2, 3, *size)
    assert 0 <= float(out.frames.min()) <= float(out.frames.max()) <= 1


@torch.no_grad()
def test_poses_may_have_another_number_of_channels_than_frames():
    spec = ClipSpec(3, 16, 16, "image", 1)
    model, clip = small(spec), random_clip(spec, 2, 3)
    assert model(clip, 1, torch.zeros(2, 2, dtype=torch.bool), draws(model, length=3)).frames.shape[2] == 3


@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_a_loop_of_steps_equals_forward(context):
    model, clip = small(), random_clip(SPEC, 2, LENGTH)
    noise = draws(model)
    forcing = torch.tensor([[False, True, False, True, False], [False, False, True, True, False]])
    out = model(clip, context, forcing, noise)
    state, own = model.initial(clip.window(0, context), context), clip.frames[:, 0]
    for t in range(1, LENGTH):
        true = forcing[:, t - 1] | (t - 1 < context)
        fed = torch.where(true[:, None, None, None], clip.frames[:, t - 1], own)
        state, step = model.step(state, fed, clip.cond[:, t], noise[:, t - 1], clip.frames[:, t], context - t)
        own = step.frame
        torch.testing.assert_close(step.frame, out.frames[:, t - 1])
        torch.testing.assert_close(step.prior.mean, out.prior.mean[:, t - 1])
        torch.testing.assert_close(step.posterior.logvar, out.posterior.logvar[:, t - 1])


@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_the_pose_of_a_frame_changes_that_frame_and_none_before(context):
    model, clip = small(), random_clip(SPEC, 1, LENGTH)
    noise, forcing = draws(model, 1), torch.zeros(1, LENGTH - 1, dtype=torch.bool)
    before = model(clip, context, forcing, noise).frames
    for t in range(1, LENGTH):
        cond = clip.cond.clone()
        cond[:, t] = 1 - cond[:, t]
        after = model(Clip(clip.frames, cond), context, forcing, noise).frames
        changed = (after != before).flatten(2).any(2)[0]
        assert not changed[: t - 1].any(), f"cond[:, {t}] reaches back"
        assert changed[t - 1], f"cond[:, {t}] does not reach frame {t}"


@torch.no_grad()
def test_a_context_frame_changes_no_frame_before_it():
    """The reference moves on with the context; it is never a frame that is yet to be predicted."""
    model, clip = small(), random_clip(SPEC, 1, LENGTH)
    noise, forcing = draws(model, 1), torch.zeros(1, LENGTH - 1, dtype=torch.bool)
    before = model(clip, 4, forcing, noise).frames
    spoilt = clip.frames.clone()
    spoilt[:, 3] = 1 - spoilt[:, 3]
    after = model(Clip(spoilt, clip.cond), 4, forcing, noise).frames
    assert torch.equal(after[:, :2], before[:, :2])
    assert not torch.equal(after[:, 3], before[:, 3])


@torch.no_grad()
def test_a_batch_of_eight_equals_eight_single_clips():
    model, clip = small(), random_clip(SPEC, 8, LENGTH)
    noise = draws(model, 8)
    together = predict(model, clip.frames[:, :1], clip.cond, noise)
    for i in range(8):
        one = predict(model, clip.frames[i : i + 1, :1], clip.cond[i : i + 1], noise[i : i + 1])
        torch.testing.assert_close(one[0], together[i])


@torch.no_grad()
def test_the_previous_frame_reaches_the_next_one_through_z_alone():
    """So the errors of one frame stay out of the next, and a long rollout does not drift."""
    model, clip = small(), random_clip(SPEC, 1, 3)
    state, zeros = model.initial(clip, 1), torch.zeros(1, *model.latent_shape)
    seen = clip.frames[:, 0]
    _, step = model.step(state, seen, clip.cond[:, 1], zeros, clip.frames[:, 1])
    _, other = model.step(state, 1 - seen, clip.cond[:, 1], zeros, clip.frames[:, 1])
    assert torch.equal(step.frame, other.frame)
    assert not torch.equal(step.prior.mean, other.prior.mean)


def test_gradients_reach_every_parameter():
    model, clip = small().train(), random_clip(SPEC, 2, 3)
    out = model(clip, 1, torch.zeros(2, 2, dtype=torch.bool), draws(model, length=3))
    (out.frames.square().mean() + out.prior.mean.square().mean() + out.posterior.logvar.square().mean()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not idle


def test_a_vector_condition_is_refused_with_what_was_given():
    with pytest.raises(ConfigError, match="takes pose pictures as condition; these clips are 3x32x64 with 7 numbers"):
        Model(Config(), ClipSpec(3, 32, 64, "vector", 7))


def test_sizes_that_do_not_divide_are_refused_with_the_stride():
    with pytest.raises(ConfigError, match="multiples of 8; these clips are 3x30x64"):
        Model(Config(), ClipSpec(3, 30, 64, "image", 3))
