from __future__ import annotations

import math

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


LOG = LossConfig(reconstruction="log-mse")


def two_frames(latent=True):
    """Predictions of unlike errors, whose gradients are asked for."""
    torch.manual_seed(1)
    target = torch.rand(2, 3, 3, 4, 4, dtype=torch.float64)
    pixels = (target + torch.randn_like(target) * torch.tensor([0.02, 0.1, 0.3])[:, None, None, None]).requires_grad_()
    q, p = gaussian(2, 3, 5, seed=3), gaussian(2, 3, 5, seed=4)
    for part in (*q, *p):
        part.requires_grad_()
    return Unrolled(pixels, p if latent else None, q if latent else None), target


def test_the_logarithmic_loss_is_psnr_up_to_a_factor_and_a_floor_of_40_db():
    out, target = two_frames(latent=False)
    mse = (out.frames - target).square().flatten(2).mean(2)
    terms = elbo(out, target, 1.0, LOG)
    torch.testing.assert_close(terms.loss, (0.5 * (mse + 1e-4).log()).sum(1).mean())
    exact = elbo(Unrolled(target, None, None), target, 1.0, LOG)
    torch.testing.assert_close(exact.loss, torch.tensor(3 * 0.5 * math.log(1e-4), dtype=torch.float64))


def test_beta_means_the_same_for_the_logarithmic_loss():
    """Each frame's gradients are those of the plain loss over twice that frame's error, the KL's too."""
    out, target = two_frames()
    given = [out.frames, *out.posterior, *out.prior]
    plain = torch.autograd.grad(elbo(out, target, 0.3, LossConfig()).loss, given)
    ours = torch.autograd.grad(elbo(out, target, 0.3, LOG).loss, given)
    twice = 2 * ((out.frames - target).square().flatten(2).mean(2) + 1e-4).detach()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs / twice.view(2, 3, *[1] * (theirs.ndim - 2)), rtol=1e-5, atol=1e-6)


def test_a_split_kl_trains_the_posterior_by_beta_and_the_prior_by_its_own_weight():
    out, target = two_frames()
    sides = [*out.posterior, *out.prior]
    whole = torch.autograd.grad(elbo(out, target, 1.0, LossConfig()).loss, sides)
    split = torch.autograd.grad(elbo(out, target, 0.1, LossConfig(prior_beta=5.0)).loss, sides)
    for part, (mine, theirs) in enumerate(zip(split, whole, strict=True)):
        torch.testing.assert_close(mine, theirs * (0.1 if part < 2 else 5.0))


def test_free_nats_leave_a_small_kl_alone_and_count_the_rest_whole():
    out, target = two_frames()
    nats = kl_per_frame(out.posterior, out.prior)
    between = float(nats.detach().flatten().sort().values[2:4].mean())
    terms = elbo(out, target, 1.0, LossConfig(free_nats=between))
    torch.testing.assert_close(terms.kl, nats.clamp(min=between).sum(1).mean())
    pulled = torch.autograd.grad(terms.loss, out.posterior.mean)[0].abs().sum(2) > 0
    assert torch.equal(pulled, nats > between)
    torch.testing.assert_close(terms.kl_nats, nats.mean().detach())
