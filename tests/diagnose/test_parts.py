"""Formulas of a diagnosis against brute force, closed forms and made-up futures."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from foreframe.clip import Clip
from foreframe.diagnose.collapse import Collapse
from foreframe.diagnose.diversity import Diversity, best_of, sizes
from foreframe.diagnose.obedience import Reading
from foreframe.diagnose.unrolling import Batch
from foreframe.gaussian import Gaussian
from foreframe.losses import kl_per_frame
from foreframe.metrics.statistics import Ratio, finite, ratio
from foreframe.unrolled import Step


def gaussians(batch, steps, shape, seed=0):
    """Posteriors and priors of each step."""
    draw = torch.Generator().manual_seed(seed)
    size = (batch, steps, *shape)
    return [Gaussian(torch.randn(size, generator=draw), torch.randn(size, generator=draw)) for _ in range(2)]


def as_steps(q, p):
    parts = [Gaussian(q.mean[:, t], q.logvar[:, t]) for t in range(q.mean.shape[1])]
    priors = [Gaussian(p.mean[:, t], p.logvar[:, t]) for t in range(q.mean.shape[1])]
    frame = torch.zeros(len(q.mean), 1, 1, 1)
    return [Step(frame, None, prior, part) for part, prior in zip(parts, priors, strict=True)]


def futures(samples, truth, last=None):
    """A batch of nothing but futures (S, B, h, C, H, W) and what came."""
    known = torch.zeros_like(truth[:, 0]) if last is None else last
    clip = Clip(torch.cat([known[:, None], truth], 1))
    return Batch(clip, known, truth, {}, {"true": samples[0]}, samples, samples[0], lambda: iter(()))


@pytest.mark.parametrize("shape", [(5,), (3, 2, 4), (300,)])
def test_the_kl_by_dimension_sums_to_the_kl_and_stays_short(shape):
    q, p = gaussians(4, 3, shape)
    part = Collapse(shape)
    for rows in (slice(0, 1), slice(1, 4)):
        part.add(as_steps(Gaussian(q.mean[rows], q.logvar[rows]), Gaussian(p.mean[rows], p.logvar[rows])))
    found = part.result()
    assert found.kl.mean == pytest.approx(float(kl_per_frame(q, p).mean()), rel=1e-5)
    assert sum(found.kl_by_dimension) == pytest.approx(found.kl.mean, rel=1e-5)
    assert len(found.kl_by_dimension) == {(5,): 5, (3, 2, 4): 3, (300,): 256}[shape]
    assert found.collapsed is False


def test_units_are_active_where_the_posterior_mean_varies_and_not_where_it_is_only_far_away():
    q, p = gaussians(200, 2, (4,))
    q.mean[..., 1] *= 0.09  # a variance of 0.0081
    q.mean[..., 2] = 5.0
    part = Collapse((4,))
    part.add(as_steps(q, p))
    assert part.result().active_units == 2


def test_a_posterior_equal_to_its_prior_has_collapsed_and_one_that_hardly_differs_too():
    q, _ = gaussians(4, 3, (5,))
    for apart, collapsed in ((0.0, True), (0.05, True), (0.5, False)):
        part = Collapse((5,))
        part.add(as_steps(Gaussian(q.mean + apart, torch.zeros_like(q.logvar)), Gaussian(q.mean, q.logvar * 0)))
        # KL of N(m + a, 1) from N(m, 1) is a^2 / 2 for each of five units.
        assert part.result().kl.mean == pytest.approx(5 * apart**2 / 2, abs=1e-6)
        assert part.result().collapsed is collapsed


def test_best_of_n_is_the_mean_over_all_choices():
    scores = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for n in range(1, 8):
        brute = torch.stack([scores[:, list(rows)].amax(1) for rows in combinations(range(7), n)]).mean(0)
        torch.testing.assert_close(best_of(scores, n), brute)
    for wrong in (0, 8):
        with pytest.raises(ValueError, match="expected 1 to 7"):
            best_of(scores, wrong)


def test_the_sizes_of_n_end_with_all_samples():
    assert sizes(1) == [1]
    assert sizes(10) == [1, 2, 5, 10]
    assert sizes(70) == [1, 2, 5, 10, 20, 50, 70]


def test_futures_drawn_from_the_truths_own_distribution_are_calibrated():
    draw = torch.Generator().manual_seed(0)
    mean = 0.3 + 0.4 * torch.rand(12, 3, 3, 16, 16, generator=draw)
    part = Diversity(4)
    for rows in (slice(0, 5), slice(5, 12)):
        noise = 0.05 * torch.randn(5, *mean[rows].shape, generator=draw)
        part.add(futures(mean[rows] + noise[1:], mean[rows] + noise[0]))
    found = part.result()
    assert found.calibration.ratio == pytest.approx(1, abs=0.02)
    low, high = found.calibration.ci95
    assert low < found.calibration.ratio < high
    assert found.ranks.values == mean.numel()
    assert found.ranks.shares == pytest.approx([0.2] * 5, abs=0.01)
    assert found.ranks.outside == pytest.approx(0.4, abs=0.02)
    # The mean deviation of 4 samples is below sigma: c4(4) = 0.9213.
    assert found.diversity.deviation.mean == pytest.approx(0.05 * 0.9213, rel=0.02)


def test_futures_that_are_too_alike_are_said_to_be_too_sure():
    draw = torch.Generator().manual_seed(0)
    truth = 0.45 + 0.1 * torch.rand(4, 3, 3, 16, 16, generator=draw)
    noise = 0.05 * torch.randn(truth.shape, generator=draw)
    part = Diversity(4)
    part.add(futures(truth + noise + 0.005 * torch.randn(4, *truth.shape, generator=draw), truth))
    found = part.result()
    assert found.calibration.ratio < 0.2
    assert found.ranks.outside > 0.8


def test_ranks_share_out_ties_and_pixels_that_stay_are_not_counted():
    truth = torch.full((1, 1, 1, 2, 2), 0.5)
    last = truth[:, 0].clone()
    last[..., 0] = 0.0  # only the left column moves
    samples = torch.stack([torch.full_like(truth, value) for value in (0.1, 0.5, 0.5)])
    part = Diversity(3)
    part.add(futures(samples, truth, last))
    found = part.result().ranks
    assert found.values == 2
    assert found.shares == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def test_where_nothing_moves_and_nothing_errs_the_figures_are_none():
    truth = torch.full((1, 2, 1, 2, 2), 0.5)
    part = Diversity(2)
    part.add(futures(truth.expand(2, *truth.shape), truth, truth[:, 0]))
    found = part.result()
    assert found.ranks.shares is None
    assert found.calibration.ratio is None
    assert found.diversity.share_of_rmse is None


def test_of_one_sample_there_is_no_spread_but_its_score():
    truth = torch.full((2, 2, 1, 2, 2), 0.5)
    part = Diversity(1)
    part.add(futures(truth[None] + 0.1, truth))
    found = part.result()
    assert found.calibration is None
    assert found.best_of_n.psnr["1"].mean == pytest.approx(20, abs=1e-4)


def test_r2_is_that_of_all_rows_however_they_come_and_leaves_out_what_has_no_target():
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(6, 4, 2, generator=draw)
    wanted[..., 1] = 1.3
    seen = wanted + 0.5 * torch.randn(6, 4, 2, generator=draw)
    there = torch.rand(6, 4, generator=draw) > 0.3
    there[5] = False
    part = Reading()
    part.add(seen[:2], wanted[:2], there[:2])
    part.add(seen[2:], wanted[2:], there[2:])
    y, e = wanted[there][:, 0].double(), (seen - wanted)[there][:, 0].double()
    found = part.r2(("a", "b"))
    assert found["a"].value == pytest.approx(float(1 - e.square().sum() / (y - y.mean()).square().sum()))
    assert found["a"].ci95[0] < found["a"].value < found["a"].ci95[1]
    assert found["b"] == Ratio(None, None)
    assert part.without == int((~there).sum())
    by_clip = [(seen - wanted)[i][there[i]].norm(dim=1).mean() for i in range(5)]
    assert part.distance().mean == pytest.approx(float(torch.stack(by_clip).mean()), rel=1e-5)


def test_intervals_of_a_mean_are_those_of_its_standard_error():
    values = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = ratio(torch.cat([values, torch.ones_like(values)], 1), lambda sums: sums[..., 0] / sums[..., 1]).ci95
    error = float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.15 * error)


def test_an_interval_of_one_clip_or_of_nothing_is_none():
    assert ratio(torch.ones(1, 1), lambda sums: sums[..., 0]).ci95 is None
    assert ratio(torch.ones(3, 1), lambda sums: sums[..., 0] * torch.nan) == Ratio(None, None)
    assert finite(float("nan")) is None
