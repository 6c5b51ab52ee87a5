from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from foreframe.errors import ConfigError
from foreframe.models import svg
from foreframe.nn.backbones import Join, add_per_segment
from foreframe.nn.norm import StepNorm
from foreframe.rollout import draw_noise, predict, prepare_for_inference
from tests.conftest import random_clip


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(channels=5, **options):
    norm = StepNorm(channels, **options).double()
    with torch.no_grad():
        norm.weight.copy_(values(channels, seed=1))
        norm.bias.copy_(values(channels, seed=2))
    return norm


def one_by_one(norm, maps, steps, slope):
    """What the layer is: torch's BatchNorm and LeakyReLU, step after step."""
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    parts = [
        functional.leaky_relu(functional.batch_norm(part, mean, var, norm.weight, norm.bias, True, 0.1, 1e-5), slope)
        for part in maps.chunk(steps)
    ]
    return torch.cat(parts), mean, var


@pytest.mark.parametrize("shape", [(12, 5, 4, 6), (12, 5)])
@pytest.mark.parametrize("slope", [0.2, 1.0])
@pytest.mark.parametrize("formula", [False, True])
def test_each_step_is_normalised_by_its_own_statistics(shape, slope, formula, monkeypatch):
    if formula:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    norm, maps = layer(), values(*shape)
    above = values(*shape, seed=3)
    found = []
    for way in ("plain", "fast"):
        source = maps.clone().requires_grad_()
        norm.zero_grad()
        if way == "plain":
            out, mean, var = one_by_one(norm, source, 3, slope)
        else:
            out = norm(source, 3, slope)
        (out * above).sum().backward()
        found.append((out.detach(), source.grad, norm.weight.grad.clone(), norm.bias.grad.clone()))
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


def test_torch_agrees_that_the_operator_keeps_its_contract():
    from foreframe.nn.norm import step_norm

    inputs = (values(6, 5, 2, 2).requires_grad_(), values(5).requires_grad_(), values(5).requires_grad_())
    torch.library.opcheck(step_norm, (*inputs, 3, 1e-5, 0.2))


def test_batch_takes_all_steps_together_and_group_needs_no_statistics():
    maps = values(12, 32, 4, 4)
    together = layer(32, kind="batch")
    torch.testing.assert_close(together(maps, 3), one_by_one(together, maps, 1, 1.0)[0], rtol=1e-10, atol=1e-10)
    grouped = layer(32, kind="group")
    torch.testing.assert_close(grouped(maps, 3)[:4], grouped(maps[:4], 1))
    assert not dict(grouped.named_buffers())
    torch.testing.assert_close(grouped.train()(maps, 3), grouped.eval()(maps))


def test_one_clip_is_too_few_for_batch_statistics():
    with pytest.raises(ConfigError, match="at least 2 clips"):
        layer()(values(3, 5), steps=3)


@pytest.mark.parametrize("kind", ["transposed", "doubling"])
def test_a_join_is_the_convolution_of_both_maps_side_by_side(kind):
    if kind == "transposed":
        join = Join(torch.nn.ConvTranspose2d(8, 3, 4, 2, 1), None).double()
        maps, skip = values(6, 4, 5, 7), values(2, 4, 5, 7, seed=1)
        plain = join.conv(torch.cat([maps, skip.repeat(3, 1, 1, 1)], 1))
    else:
        join = Join(torch.nn.Conv2d(8, 3, 3, 1, 1), None).double()
        maps, skip = values(6, 4, 5, 7), values(2, 4, 10, 14, seed=1)
        doubled = functional.interpolate(maps, scale_factor=2, mode="nearest")
        plain = join.conv(torch.cat([doubled, skip.repeat(3, 1, 1, 1)], 1))
    weights = join.split_weights()
    fast = join(maps, weights, join.project_skip(skip, weights), (3,), 3)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


def test_stretches_of_steps_hear_what_is_theirs():
    maps, terms = torch.zeros(8, 1), torch.tensor([[1.0], [2], [30], [40]])
    assert add_per_segment(maps, terms, (1, 3))[:, 0].tolist() == [1, 2, 30, 40, 30, 40, 30, 40]
    assert add_per_segment(maps[:4], terms, (1, 1))[:, 0].tolist() == [1, 2, 30, 40]


@pytest.mark.parametrize("backbone", ["dcgan", "vgg"])
def test_a_folded_model_predicts_the_same_frames(backbone, vector_pack):
    torch.manual_seed(0)
    spec = vector_pack.spec
    model = svg.Model(svg.Config(backbone=backbone, width=8, g_dim=8, z_dim=3, rnn_size=8), spec)
    clip = random_clip(spec, 2, 8)
    with torch.no_grad():
        for _ in range(5):
            model(clip, 2, torch.ones(2, 7, dtype=torch.bool), torch.randn(2, 7, 3))
    model.eval()
    noise = draw_noise(model, [0, 1], 8, 0)
    folded = prepare_for_inference(model)
    assert not any(isinstance(part, StepNorm) for part in folded.decoder.modules())
    torch.testing.assert_close(
        predict(folded, clip.frames[:, :2], clip.cond, noise),
        predict(model, clip.frames[:, :2], clip.cond, noise),
        rtol=0,
        atol=1e-5,
    )
