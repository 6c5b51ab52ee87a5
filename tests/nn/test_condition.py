from __future__ import annotations

import torch

from foreframe.nn.condition import Standardize


def fit(module, cond):
    module.fit(cond.double().mean(0).tolist(), cond.double().std(0, correction=0).tolist())


def test_before_it_is_fitted_it_is_the_identity():
    cond = torch.randn(4, 3)
    assert torch.equal(Standardize(3)(cond), cond)


def test_fitted_conditions_have_mean_zero_and_deviation_one():
    cond = torch.randn(500, 3) * torch.tensor([0.01, 1.0, 100.0]) + torch.tensor([5.0, 0.0, -3.0])
    module = Standardize(3)
    fit(module, cond)
    out = module(cond)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_a_column_that_never_changes_is_only_shifted():
    cond = torch.stack([torch.full((10,), 7.3), torch.arange(10.0)], 1)
    module = Standardize(2)
    fit(module, cond)
    out = module(cond + torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(out[:, 0], torch.full((10,), 0.5), atol=1e-5, rtol=0)


def test_the_statistics_travel_with_the_weights():
    module, other = Standardize(2), Standardize(2)
    fit(module, torch.randn(50, 2) * 3 + 1)
    other.load_state_dict(module.state_dict())
    cond = torch.randn(5, 2)
    assert torch.equal(module(cond), other(cond))
