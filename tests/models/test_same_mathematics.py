"""The fast step of a model against the plain loop over time: equal up to rounding, whatever is fed back."""

from __future__ import annotations

import itertools

import pytest
import torch

from foreframe.clip import Clip, ClipSpec
from foreframe.losses import LossConfig, elbo
from foreframe.models import pose_cvae, svg
from tests.conftest import random_clip
from tests.reference.plain import plain_model, twin_gradients

LENGTH = 6
ACTIONS = ClipSpec(3, 64, 64, "vector", 2)
POSES = ClipSpec(3, 16, 32, "image", 3)
FORCING = {
    "forced": torch.ones(3, LENGTH - 1),
    "free": torch.zeros(3, LENGTH - 1),
    "mixed": torch.tensor([[1, 1, 0, 1, 1], [1, 1, 0, 1, 0], [1, 1, 1, 1, 0]]),
    "forced again": torch.tensor([[1, 1, 0, 0, 1]] * 3),
}


def equal(model, spec, context, forcing):
    """In float64: loss within 1e-12 of the plain twin's, gradients within 1e-10 of the largest."""
    twin = plain_model(model)
    clip = random_clip(spec, 3, LENGTH)
    clip = Clip(clip.frames.double(), clip.cond.double())
    noise = torch.randn(3, LENGTH - 1, *model.latent_shape, dtype=torch.float64)
    losses = []
    for each in (model, twin):
        unrolled = each(clip, context, forcing.bool(), noise)
        losses.append(elbo(unrolled, clip.frames[:, 1:], 1e-2, LossConfig()).loss)
        losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    plain = twin_gradients(twin)
    fast = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(fast) == set(plain)
    scale = max(grad.abs().max() for grad in plain.values())
    assert scale > 0
    for name, grad in plain.items():
        torch.testing.assert_close(fast[name], grad, rtol=0, atol=1e-10 * scale.item(), msg=name)


def small_svg(**options):
    torch.manual_seed(0)
    config = svg.Config(**{"width": 4, "g_dim": 8, "z_dim": 3, "rnn_size": 8, **options})
    return svg.Model(config, ACTIONS).double()


@pytest.mark.parametrize("forcing", FORCING)
@pytest.mark.parametrize(("backbone", "prior"), list(itertools.product(("dcgan", "vgg"), ("learned", "fixed", "none"))))
def test_svg_equals_the_plain_loop(backbone, prior, forcing):
    equal(small_svg(backbone=backbone, prior=prior), ACTIONS, 2, FORCING[forcing])


@pytest.mark.parametrize("forcing", FORCING)
@pytest.mark.parametrize(("skip", "context"), list(itertools.product(("last-context", "svg", "last-frame"), (1, 3))))
def test_svg_equals_the_plain_loop_with_every_skip_and_context(skip, context, forcing):
    model = small_svg(backbone="dcgan", skip=skip, predictor_norm=True, detach_feedback=context == 3)
    equal(model, ACTIONS, context, FORCING[forcing])


@pytest.mark.parametrize("forcing", FORCING)
@pytest.mark.parametrize("context", [1, 3])
def test_pose_cvae_equals_the_plain_loop(context, forcing):
    torch.manual_seed(0)
    config = pose_cvae.Config(f_dim=16, l_dim=4, n_dim=4, d_out=24, detach_feedback=context == 1)
    equal(pose_cvae.Model(config, POSES).double(), POSES, context, FORCING[forcing])


@pytest.mark.parametrize("forcing", FORCING)
def test_running_statistics_are_those_of_encoding_each_true_frame_once_in_the_order_of_time(forcing):
    model = small_svg(backbone="dcgan")
    twin = plain_model(model, encode="once")
    clip = random_clip(ACTIONS, 3, LENGTH)
    clip = Clip(clip.frames.double(), clip.cond.double())
    noise = torch.randn(3, LENGTH - 1, 3, dtype=torch.float64)
    for each in (model, twin):
        each(clip, 2, FORCING[forcing].bool(), noise)
    plain = dict(twin.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, plain[name], msg=name)


@pytest.mark.parametrize("forcing", FORCING)
def test_a_step_may_be_said_to_be_fed_back_though_no_clip_is(forcing):
    model = small_svg(backbone="dcgan")
    clip = random_clip(ACTIONS, 3, LENGTH)
    clip = Clip(clip.frames.double(), clip.cond.double())
    noise = torch.randn(3, LENGTH - 1, 3, dtype=torch.float64)
    exact = model(clip, 2, FORCING[forcing].bool(), noise)
    every = model(clip, 2, FORCING[forcing].bool(), noise, frozenset(range(3, LENGTH)))
    torch.testing.assert_close(every.frames, exact.frames, rtol=1e-10, atol=1e-12)
