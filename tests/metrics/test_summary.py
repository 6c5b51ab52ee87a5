"""Means and intervals over clips, against scipy."""

import json
import math

import pytest
import torch
from scipy import stats

from foreframe.config import to_dict
from foreframe.metrics import summarize, t_quantile


@pytest.mark.parametrize("df", [1, 1.5, 2, 3, 5, 10, 30, 99, 255, 1e4, 1e6])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.9999])
def test_the_t_quantile_is_that_of_scipy(df: float, probability: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(float(stats.t.ppf(probability, df)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("probability", "df"), [(0.4, 3), (1.0, 3), (0.9, 0.5), (math.nan, 3)])
def test_a_quantile_that_does_not_exist_is_refused(probability: float, df: float) -> None:
    with pytest.raises(ValueError, match="expected a probability"):
        t_quantile(probability, df)


def test_two_clips_have_the_interval_of_the_textbook() -> None:
    summary = summarize(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
    # Means 2 and 4: mean 3, standard error 1, and t with one degree of freedom is 12.706.
    assert summary.mean == 3
    assert summary.ci95 == pytest.approx([3 - 12.7062, 3 + 12.7062], abs=1e-3)
    assert summary.per_frame == (2, 4)
    assert summary.per_clip == (2, 4)
    assert summary.per_frame_ci95[1] == pytest.approx([4 - 12.7062, 4 + 12.7062], abs=1e-3)


def test_intervals_are_those_of_scipy() -> None:
    scores = torch.rand(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    summary = summarize(scores)
    means = scores.mean(1).numpy()
    low, high = stats.t.interval(0.95, 19, means.mean(), stats.sem(means))
    assert summary.ci95 == pytest.approx([low, high], abs=1e-9)
    first = scores[:, 0].numpy()
    low, high = stats.t.interval(0.95, 19, first.mean(), stats.sem(first))
    assert summary.per_frame_ci95[0] == pytest.approx([low, high], abs=1e-9)
    json.dumps(to_dict(summary), allow_nan=False)


def test_one_clip_has_no_interval() -> None:
    summary = summarize(torch.tensor([[1.0, 2.0]]))
    assert summary.mean == 1.5
    assert summary.ci95 is summary.per_frame_ci95 is None


def test_a_score_that_is_not_finite_is_refused_with_its_place() -> None:
    scores = torch.zeros(3, 4)
    scores[2, 1] = math.nan
    with pytest.raises(ValueError, match="nan for clip 2, frame 1"):
        summarize(scores)


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 3, 4)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected \\(N clips, T frames\\)"):
        summarize(torch.zeros(shape))
