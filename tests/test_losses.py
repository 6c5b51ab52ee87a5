from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from foreframe.gaussian import Gaussian
from foreframe.losses import LossConfig, elbo, kl_per_frame
from foreframe.unrolled import Unrolled


def gaussian(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Gaussian(
        torch.randn(shape, generator=draw, dtype=torch.float64), torch.randn(shape, generator=draw, dtype=torch.float64)
    )


def test_kl_agrees_with_torch_distributions():
    q, p = gaussian(2, 3, 5, seed=1), gaussian(2, 3, 5, seed=2)
    expected = kl_divergence(Normal(q.mean, (0.5 * q.logvar).exp()), Normal(p.mean, (0.5 * p.logvar).exp())).sum(2)
    torch.testing.assert_close(kl_per_frame(q, p), expected, rtol=1e-12, atol=1e-12)


def test_kl_of_a_distribution_with_itself_is_zero():
    q = gaussian(2, 3, 4, 2, 2)
    assert kl_per_frame(q, q).abs().max() < 1e-12


def test_kl_against_the_standard_normal_is_the_labs_formula_of_clip_sums():
    q = gaussian(4, 3, 6)
    labs = -0.5 * torch.sum(1 + q.logvar - q.mean**2 - q.logvar.exp()) / 4
    ours = kl_per_frame(q, Gaussian.standard_like(q.mean)).sum(1).mean()
    torch.testing.assert_close(ours, labs)


def test_kl_of_unlike_shapes_names_both():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and prior \(1, 2, 4\)"):
        kl_per_frame(gaussian(1, 2, 3), gaussian(1, 2, 4))


def unrolled(pixels, latent=True):
    q = gaussian(2, 3, 5) if latent else None
    return Unrolled(pixels, None if q is None else Gaussian.standard_like(q.mean), q)


def test_loss_of_svg_is_summed_over_steps_and_averaged_over_clips():
    torch.manual_seed(0)
    predicted, target = torch.rand(2, 3, 3, 4, 4), torch.rand(2, 3, 3, 4, 4)
    terms = elbo(unrolled(predicted), target, 0.5, LossConfig())
    expected = sum(torch.nn.functional.mse_loss(predicted[:, t], target[:, t]) for t in range(3))
    torch.testing.assert_close(terms.reconstruction, expected)
    torch.testing.assert_close(terms.loss, terms.reconstruction + 0.5 * terms.kl)
    assert float(terms.kl_nats) == pytest.approx(float(terms.kl) / 3)


def test_named_reductions_differ_by_exactly_their_sizes():
    torch.manual_seed(0)
    predicted, target = torch.rand(2, 3, 3, 4, 4), torch.rand(2, 3, 3, 4, 4)
    base = elbo(unrolled(predicted), target, 1.0, LossConfig())
    summed = elbo(unrolled(predicted), target, 1.0, LossConfig(pixels="sum", latents="mean", steps="mean"))
    torch.testing.assert_close(summed.reconstruction, base.reconstruction * 48 / 3)
    torch.testing.assert_close(summed.kl, base.kl / 5 / 3)


def test_a_model_without_a_latent_has_no_kl():
    pixels = torch.rand(2, 3, 3, 4, 4)
    terms = elbo(unrolled(pixels, latent=False), pixels, 1.0, LossConfig())
    assert float(terms.loss) == float(terms.kl) == float(terms.active_units) == 0.0


def test_active_units_counts_those_that_differ_from_the_prior():
    mean = torch.zeros(2, 3, 5)
    mean[..., :2] = 1.0
    q = Gaussian(mean, torch.zeros_like(mean))
    pixels = torch.rand(2, 3, 3, 4, 4)
    terms = elbo(Unrolled(pixels, Gaussian.standard_like(mean), q), pixels, 1.0, LossConfig())
    assert float(terms.active_units) == 2
    assert float(terms.kl_nats) == pytest.approx(1.0)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(-1e3, 1e3), st.sampled_from([torch.float32, torch.bfloat16])
)
def test_kl_and_its_gradient_are_finite_whatever_a_head_says(q_logvar, p_logvar, mean, dtype):
    raw = torch.tensor([[[q_logvar]], [[p_logvar]], [[mean]]], dtype=dtype, requires_grad=True)
    q, p = Gaussian.bounded(raw[2:], raw[:1]), Gaussian.bounded(torch.zeros_like(raw[2:]), raw[1:2])
    loss = kl_per_frame(q, p).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(raw.grad).all()
