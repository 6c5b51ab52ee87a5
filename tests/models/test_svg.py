from __future__ import annotations

import pytest
import torch

from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.models.svg import Config, Model
from foreframe.rollout import predict
from foreframe.unrolled import free_running_steps
from tests.conftest import random_clip


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(**options):
    options = {"backbone": "dcgan", "width": 8, "g_dim": 12, "z_dim": 4, "rnn_size": 16, **options}
    torch.manual_seed(0)
    return Model(Config(**options), ClipSpec(3, 64, 64, "vector", 2))


def test_vgg_has_the_originals_parameters():
    model = Model(Config(), ClipSpec(3, 64, 64))
    assert count(model.encoder) == 8_689_600
    assert count(model.decoder) == 11_822_659
    assert count(model.predictor) == 1_134_976
    assert count(model.posterior) == count(model.prior) == 592_256


def test_dcgan_has_the_originals_parameters():
    model = Model(Config(backbone="dcgan"), ClipSpec(1, 64, 64))
    assert count(model.encoder) == 3_805_376
    assert count(model.decoder) == 6_558_529


def test_the_labs_predictor_takes_seven_conditions_and_a_batchnorm():
    model = Model(Config(predictor_norm=True), ClipSpec(3, 64, 64, "vector", 7))
    assert count(model.predictor) == 1_137_024


def test_initial_weights_are_the_originals():
    model = Model(Config(backbone="dcgan"), ClipSpec(3, 64, 64))
    weights = model.encoder.stages[2].conv.weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.encoder.stages[2].norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert model.predictor.out.bias.abs().max().item() == 0.0


@pytest.mark.parametrize("backbone", ["dcgan", "vgg"])
@pytest.mark.parametrize("size", [64, 128])
def test_both_backbones_predict_at_both_sizes(backbone, size):
    model = Model(Config(backbone=backbone, width=4, g_dim=8, z_dim=2, rnn_size=8), ClipSpec(1, size, size))
    clip = random_clip(ClipSpec(1, size, size), 2, 3)
    out = model(clip, 1, torch.zeros(2, 2, dtype=torch.bool), torch.randn(2, 2, 2))
    assert out.frames.shape == (2, 2, 1, size, size)


def used_skip(skip, context, length=6):
    """Index of the true frame whose maps the decoder sees at each step, found by what the decoder remembers."""
    model = small(skip=skip).eval()
    clip = random_clip(ClipSpec(3, 64, 64, "vector", 2), 1, length)
    marks = [
        model.decoder.prepare(model.encoder(clip.frames[:, t])[1], model.decoder.split_weights()).terms[0]
        for t in range(length)
    ]
    seen = []
    state = model.initial(clip, context)
    for t in range(1, length):
        state, _ = model.step(state, clip.frames[:, t - 1], clip.cond[:, t], torch.zeros(1, 4), None, context - t)
        seen.append(next(i for i, mark in enumerate(marks) if torch.equal(mark, state.skip_terms[0])))
    return seen


def test_the_frozen_skip_is_the_last_context_frame():
    assert used_skip("last-context", 3) == [0, 1, 2, 2, 2]
    assert used_skip("last-context", 1) == [0, 0, 0, 0, 0]


def test_the_originals_frozen_skip_is_the_frame_before_it():
    assert used_skip("svg", 3) == [0, 1, 1, 1, 1]
    assert used_skip("svg", 2) == [0, 0, 0, 0, 0]


def test_last_frame_skip_follows_every_frame():
    assert used_skip("last-frame", 2) == [0, 1, 2, 3, 4]


def test_without_a_prior_there_is_no_latent():
    model = small(prior="none")
    clip = random_clip(ClipSpec(3, 64, 64, "vector", 2), 2, 4)
    out = model(clip, 2, torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, 0))
    assert model.latent_shape == (0,)
    assert out.posterior is None
    assert out.prior is None


def test_each_true_frame_is_encoded_once_when_teacher_forced():
    model = small()
    rows = []
    model.encoder.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    clip = random_clip(ClipSpec(3, 64, 64, "vector", 2), 2, 6)
    model(clip, 2, torch.ones(2, 5, dtype=torch.bool), torch.randn(2, 5, 4))
    assert sum(rows) == 6 * 2


def test_the_context_is_encoded_once_for_all_samples():
    model = small().eval()
    rows = []
    model.encoder.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    clip = random_clip(ClipSpec(3, 64, 64, "vector", 2), 2, 6)
    predict(model, clip.frames[:, :2], clip.cond, torch.randn(2 * 7, 5, 4))
    # Frames 0 and 1 of two clips (frame 1 as the posterior's target, and as what is fed), then those of 7 samples.
    assert rows == [2, 2, 2, 14, 14, 14]


def test_gradient_flows_through_own_frames_unless_it_is_cut():
    norms = {}
    for cut in (False, True):
        model = small(detach_feedback=cut, prior="none").eval().double()
        clip = random_clip(ClipSpec(3, 64, 64, "vector", 2), 1, 4)
        cond = clip.cond.double().requires_grad_(True)
        noise = torch.zeros(1, 3, 0, dtype=torch.float64)
        out = model(Clip(clip.frames.double(), cond), 1, torch.zeros(1, 3, dtype=torch.bool), noise)
        # The LSTM carries the condition on in both cases; the picture's own path only without the cut.
        out.frames[:, 2].square().sum().backward()
        norms[cut] = cond.grad[:, 1].norm().item()
    assert norms[True] != norms[False]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ClipSpec(3, 32, 64), "64x64 or 128x128 pixels, these are 32x64"),
        (ClipSpec(3, 64, 64, "image", 3), "svg takes a vector condition or none"),
    ],
)
def test_clips_it_cannot_take_are_refused_with_the_reason(spec, message):
    with pytest.raises(ConfigError, match=message):
        Model(Config(), spec)


def test_the_action_labs_own_frames_inside_the_context_are_a_plain_loop_that_feeds_frame_one_predicted():
    model = small(skip="svg", prior="fixed").double().eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4)  # the first ones are so small that no frame would matter
    clip = random_clip(ClipSpec(3, 64, 64, "vector", 2), 2, 6)
    clip = Clip(clip.frames.double(), clip.cond.double())
    noise = torch.randn(2, 5, 4, dtype=torch.float64)
    own = free_running_steps(torch.zeros(2, 5, dtype=torch.bool), 1)
    assert own == {2, 3, 4, 5}
    ours = model(clip, 2, torch.zeros(2, 5, dtype=torch.bool), noise, own).frames

    state, fed, plain = model.initial(clip, 2), clip.frames[:, 0], []
    for t in range(1, 6):
        state, step = model.step(state, fed, clip.cond[:, t], noise[:, t - 1], clip.frames[:, t], context_left=2 - t)
        plain.append(fed := step.frame)
    torch.testing.assert_close(ours, torch.stack(plain, 1))
    usual = model(clip, 2, torch.zeros(2, 5, dtype=torch.bool), noise).frames
    assert (ours[:, 1] - usual[:, 1]).abs().max() > 1e-3
