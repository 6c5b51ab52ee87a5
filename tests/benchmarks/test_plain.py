"""The plain code is the oracle of the fast models; what it says is checked against them and against itself."""

from __future__ import annotations

import pytest
import torch
from benchmarks.count import training_input

from benchmarks import train
from foreframe.clip import ClipSpec
from foreframe.losses import LossConfig, elbo
from foreframe.models import pose_cvae, pose_unet, svg
from foreframe.rollout import predict
from tests.reference.plain import plain_model, twin_gradients

VECTOR = ClipSpec(3, 64, 64, "vector", 2)


def build(**options):
    torch.manual_seed(0)
    options = {"backbone": "dcgan", "width": 4, "g_dim": 6, "z_dim": 3, "rnn_size": 8, **options}
    return svg.Model(svg.Config(**options), VECTOR).double()


def given(model, spec=VECTOR, batch=2, horizon=3, forcing=1.0):
    return training_input(model, spec, 2, horizon, batch, forcing, "cpu", torch.float64)


@pytest.mark.parametrize("encode", ["twice", "once"])
@pytest.mark.parametrize(
    ("options", "forcing"),
    [
        ({"backbone": "dcgan"}, 1.0),
        ({"backbone": "dcgan", "predictor_norm": True, "prior": "fixed"}, 0.5),
        ({"backbone": "dcgan", "skip": "svg", "prior": "none"}, 0.0),
        ({"backbone": "dcgan", "skip": "last-frame", "detach_feedback": True, "predictor_layers": 3}, 0.5),
        ({"backbone": "vgg", "posterior_layers": 2, "prior_layers": 2}, 0.5),
    ],
)
def test_fast_and_plain_have_one_loss_and_one_gradient(options, forcing, encode):
    torch.manual_seed(0)
    case = train.Case("", svg.Config(**train.TINY | options), VECTOR, forcing, batch=2, horizon=3, encode=encode)
    loss, gradient = train.difference(train.build(case).double().train(), case)
    assert loss <= 1e-12
    assert gradient <= 1e-10


@pytest.mark.parametrize("output", ["clamp", "sigmoid"])
def test_the_pose_network_and_its_plain_twin_have_one_gradient(output):
    torch.manual_seed(0)
    spec = ClipSpec(3, 8, 12, "image", 3)
    config = pose_cvae.Config(f_dim=16, l_dim=4, n_dim=4, d_out=16, output=output, detach_feedback=output == "clamp")
    model = pose_cvae.Model(config, spec).double()
    plain = plain_model(model)
    clip, coins, noise = given(model, spec, forcing=0.5)
    for each in (model, plain):
        elbo(each(clip, 1, coins, noise), clip.frames[:, 1:], 0.1, LossConfig()).loss.backward()
    expected = twin_gradients(plain)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backbone", ["dcgan", "vgg"])
def test_a_twin_has_the_models_parameters_and_training_mode(backbone):
    model = build(backbone=backbone).eval()
    plain = plain_model(model)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())
    assert not plain.training
    assert next(plain.parameters()).dtype == torch.float64


def test_a_twins_gradients_go_by_the_models_names():
    model = build(predictor_layers=2)
    plain = plain_model(model)
    clip, coins, noise = given(model)
    plain(clip, 2, coins, noise).frames.sum().backward()
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    found = {name: tuple(value.shape) for name, value in twin_gradients(plain).items()}
    assert found.items() <= shapes.items()
    assert "predictor.lstm.cells.weight_ih_l1" in found


def test_a_twins_weights_are_copies():
    model = build()
    plain = plain_model(model)
    with torch.no_grad():
        next(plain.encoder.parameters()).add_(1)
    assert not torch.equal(next(plain.encoder.parameters()), next(model.encoder.parameters()))


def test_each_step_encodes_its_frame_and_its_target():
    plain = plain_model(build())
    calls = []
    plain.encoder.register_forward_hook(lambda *_: calls.append(1))
    clip, coins, noise = given(plain)
    plain(clip, 2, coins, noise)
    assert len(calls) == 2 * (len(clip) - 1)


def test_own_frames_are_fed_where_forcing_says_so():
    model = plain_model(build().eval())
    clip, coins, noise = given(model, horizon=4)
    free = torch.zeros_like(coins)
    forced, own = (model(clip, 2, mask, noise).frames for mask in (coins, free))
    # Steps 1 and 2 are fed context frames, step 3 may be fed the model's own: untrained, it hardly differs.
    assert torch.equal(forced[:, :2], own[:, :2])
    assert not torch.equal(forced[:, 2], own[:, 2])


def test_a_clip_in_eval_mode_does_not_depend_on_its_batch():
    model = plain_model(build().eval())
    clip, coins, noise = given(model, batch=3, forcing=0.0)
    both = model(clip, 2, coins, noise).frames
    alone = model(type(clip)(clip.frames[1:2], clip.cond[1:2]), 2, coins[1:2], noise[1:2]).frames
    torch.testing.assert_close(both[1:2], alone)


@pytest.mark.parametrize("options", [{"backbone": "vgg"}, {"prior": "fixed"}, {"prior": "none", "skip": "svg"}])
def test_generated_frames_are_those_of_a_rollout(options):
    model = build(**options).eval()
    clip, _, noise = given(model)
    context = clip.frames[:, :2]
    made = plain_model(model).generate(context, clip.cond, noise)
    torch.testing.assert_close(made, predict(model, context, clip.cond, noise), rtol=0, atol=1e-10)


def test_a_model_without_plain_code_is_refused():
    model = pose_unet.Model(pose_unet.Config(), ClipSpec(3, 32, 64, "image", 3))
    with pytest.raises(ValueError, match="not of pose_unet"):
        plain_model(model)
    with pytest.raises(ValueError, match="normalises over one time step"):
        plain_model(build(norm="group"))
