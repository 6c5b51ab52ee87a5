"""The recurrent U-Net: it begins as a copy of the last frame, and its parts do what its equations say."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.models.recurrent_unet import Config, warp
from foreframe.rollout import predict
from tests.conftest import random_clip

SMALL = Config(16, 16, 16, 1, 1, 1, hidden=16, latent=4)
SIZES = {
    "S": (Config(), 0.97),
    "M": (Config(64, 128, 192, 2, 2, 3, hidden=192, latent=32), 9.0),
    "L": (Config(96, 256, 384, 2, 3, 4, hidden=384, latent=32), 43.4),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", SIZES)
def test_the_three_sizes_have_the_parameters_they_should(size):
    config, millions = SIZES[size]
    model = models.build_on_meta(config, ClipSpec(3, 64, 64, "vector", 7))
    assert sum(weights.numel() for weights in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("config", [SMALL, Config(prior="none", flow=0.0, still=False)])
@pytest.mark.parametrize("spec", [ClipSpec(3, 64, 64, "vector", 7), ClipSpec(1, 24, 40), ClipSpec(3, 48, 64)])
def test_untrained_it_repeats_the_last_frame_to_the_level(config, spec):
    model = models.build(config, spec).eval()
    clip = random_clip(spec, 2, 12)
    frames = torch.randint(0, 256, clip.frames.shape) / 255
    with torch.no_grad():
        found = predict(model, frames[:, :2], clip.cond, torch.randn(2, 11, *model.latent_shape))
    assert torch.equal((255 * found).round(), (255 * frames[:, 1:2]).round().expand_as(found))


def test_a_frame_costs_what_the_table_of_layers_says():
    model = models.build(Config(prior="none"), ClipSpec(3, 64, 64, "vector", 7)).eval()
    clip = random_clip(ClipSpec(3, 64, 64, "vector", 7), 1, 2)
    state = model.initial(clip, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.step(state, clip.frames[:, 0], clip.cond[:, 1], torch.zeros(1, 0))
    assert counted.get_total_flops() / 1e6 == pytest.approx(205, abs=5)


def test_a_posterior_begins_with_a_fifth_of_the_priors_deviation():
    spec = ClipSpec(3, 64, 64, "vector", 7)
    model = models.build(Config(), spec)
    clip = random_clip(spec, 3, 3)
    out = model(clip, 1, torch.zeros(3, 2, dtype=torch.bool), torch.randn(3, 2, 16))
    shares = torch.exp(0.5 * (out.posterior.logvar - out.prior.logvar))
    assert shares.mean().item() == pytest.approx(0.2, rel=0.1)


def test_a_warped_frame_is_seen_from_where_the_flow_points():
    frame = torch.rand(2, 3, 8, 12)
    flow = torch.zeros(2, 2, 8, 12)
    assert torch.allclose(warp(frame, flow), frame, atol=1e-6)
    flow[:, 0], flow[:, 1] = 2.0, -1.0
    seen = warp(frame, flow)
    assert torch.allclose(seen[:, :, 1:, :-2], frame[:, :, :-1, 2:], atol=1e-5)
    assert torch.allclose(seen[:, :, 0, -1], frame[:, :, 0, -1], atol=1e-5)


def test_the_still_frame_is_the_last_that_was_given():
    model = models.build(SMALL, ClipSpec(3, 64, 64)).eval()
    clip = random_clip(ClipSpec(3, 64, 64), 2, 6)
    state = model.initial(clip, 3)
    for t in range(1, 6):
        state, _ = model.step(state, clip.frames[:, t - 1], None, torch.zeros(2, 4), context_left=3 - t)
        assert torch.equal(state.still, clip.frames[:, min(t - 1, 2)])


def test_a_condition_is_seen_with_its_change():
    spec = ClipSpec(3, 64, 64, "vector", 2)
    model = models.build(SMALL, spec).eval()
    model.fit_condition([1.0, 2.0], [0.5, 4.0])
    clip = random_clip(spec, 2, 2)
    seen = []
    model.embed_past.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.step(model.initial(clip, 1), clip.frames[:, 0], clip.cond[:, 1], torch.zeros(2, 4))
    now, before = ((clip.cond[:, t] - torch.tensor([1.0, 2.0])) / torch.tensor([0.5, 4.0]) for t in (1, 0))
    torch.testing.assert_close(seen[0], torch.cat([now, now - before], 1))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ClipSpec(3, 32, 64, "image", 3), "takes a vector condition or none, these clips have pictures"),
        (ClipSpec(3, 60, 64), "multiples of 8, these clips are .*; import them with --size 64 64"),
    ],
)
def test_other_clips_are_refused_with_what_to_do(spec, message):
    with pytest.raises(ConfigError, match=message):
        models.build_on_meta(Config(), spec)


def test_it_learns_to_move_what_moves_and_to_leave_the_rest():
    """A square moves by its action: after some steps of training it is predicted better than by standing still."""
    spec = ClipSpec(1, 16, 16, "vector", 1)
    model = models.build(Config(16, 16, 16, hidden=16, prior="none"), spec)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    draws = torch.Generator().manual_seed(0)

    def clips(count):
        moves = torch.randint(-2, 3, (count, 4, 1), generator=draws)
        places = 6 + moves.cumsum(1)
        columns = torch.arange(16)
        inside = (columns >= places) & (columns < places + 4)
        frames = 0.1 + 0.8 * inside[:, :, None, None].float() * ((columns >= 6) & (columns < 10))[:, None].float()
        return Clip(frames, moves.float())

    def error(clip, shown):
        return float((shown - clip.frames[:, 1:]).square().mean())

    for _ in range(60):
        clip = clips(16)
        out = model(clip, 1, torch.zeros(16, 3, dtype=torch.bool), torch.zeros(16, 3, 0)).frames
        optimizer.zero_grad()
        (out - clip.frames[:, 1:]).square().mean().backward()
        optimizer.step()
    clip = clips(64)
    with torch.no_grad():
        found = model(clip, 1, torch.zeros(64, 3, dtype=torch.bool), torch.zeros(64, 3, 0)).frames
    still = error(clip, clip.frames[:, :1].expand_as(found))
    assert math.isfinite(still)
    assert error(clip, found) < 0.4 * still
