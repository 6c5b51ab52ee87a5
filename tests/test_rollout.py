from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from foreframe.clip import ClipSpec
from foreframe.errors import NotFiniteError
from foreframe.models.svg import Config, Model
from foreframe.rollout import draw_noise, predict, rollout, stream_noise
from tests.conftest import random_clip

SPEC = ClipSpec(3, 64, 64, "vector", 2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Model(Config(backbone="dcgan", width=8, g_dim=12, z_dim=4, rnn_size=16), SPEC).eval().requires_grad_(False)
    for module in model.modules():  # SVG's initial weights are so small that nothing passes through them
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            module.weight.mul_(8)
    return model


def test_noise_depends_on_clip_and_sample_and_not_on_the_batch(model):
    both = draw_noise(model, [3, 5], 6, seed=1)
    assert torch.equal(both[1], draw_noise(model, [5], 6, seed=1)[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(draw_noise(model, [3], 6, seed=1), draw_noise(model, [3], 6, seed=1, sample=1))
    assert not draw_noise(model, [3], 6, seed=1, temperature=0.0).any()


def test_frames_come_one_after_another(model):
    clip = random_clip(SPEC, 1, 6)
    steps = rollout(model, clip.frames[:, :2], clip.cond, draw_noise(model, [0], 6, 0))
    first = next(steps)
    assert first.frame.shape == (1, 3, 64, 64)
    assert len(list(steps)) == 3


def test_context_frames_are_observed_with_the_posterior_and_predicted_ones_with_the_prior(model):
    clip = random_clip(SPEC, 1, 6)
    steps = list(rollout(model, clip.frames[:, :2], clip.cond, draw_noise(model, [0], 6, 0)))
    assert all(step.posterior is None and step.prior is not None for step in steps)
    other = clip.frames[:, :2].clone()
    other[:, 1] = 1 - other[:, 1]
    assert not torch.equal(next(rollout(model, other, clip.cond, draw_noise(model, [0], 6, 0))).frame, steps[0].frame)


def test_the_four_modes_differ(model):
    clip = random_clip(SPEC, 1, 6)
    noise = draw_noise(model, [0], 6, 0)
    modes = ("prediction", "one-step", "reconstruction", "teacher-forced")
    outs = [predict(model, clip.frames[:, :2], clip.cond, noise, mode, clip.frames) for mode in modes]
    assert len({out.sum().item() for out in outs}) == 4
    assert torch.equal(outs[0][:, 0], outs[1][:, 0]), "the first predicted frame is fed true frames in both"


def test_a_mode_that_looks_at_the_truth_must_be_given_it(model):
    clip = random_clip(SPEC, 1, 6)
    with pytest.raises(ValueError, match="mode 'reconstruction' looks at the true frames: give all 6"):
        predict(model, clip.frames[:, :2], clip.cond, draw_noise(model, [0], 6, 0), "reconstruction")


def test_too_few_conditions_are_refused(model):
    clip = random_clip(SPEC, 1, 4)
    with pytest.raises(ValueError, match="cond has 4 frames, but 6"):
        predict(model, clip.frames[:, :2], clip.cond, draw_noise(model, [0], 6, 0))


def test_a_model_in_training_mode_is_refused(model):
    clip = random_clip(SPEC, 1, 4)
    model.train()
    try:
        with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
            predict(model, clip.frames[:, :2], clip.cond, draw_noise(model, [0], 4, 0))
    finally:
        model.eval()


def test_a_frame_that_is_not_finite_ends_the_rollout_with_its_number(model):
    clip = random_clip(SPEC, 2, 6)
    noise = draw_noise(model, [0, 1], 6, 0)
    noise[1, 3] = float("inf")
    with pytest.raises(NotFiniteError, match=r"frame 5 of 6 is not finite \(rollout 2 of 2\)"):
        predict(model, clip.frames[:, :2], clip.cond, noise)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (16,), (4, 8, 2)])
def test_noise_frame_by_frame_is_that_of_all_frames_at_once(shape):
    model = SimpleNamespace(latent_shape=shape)
    whole = draw_noise(model, [3, 1], 9, 5, 2, 0.7)
    assert torch.equal(torch.stack(list(stream_noise(model, [3, 1], 9, 5, 2, 0.7)), 1), whole)
