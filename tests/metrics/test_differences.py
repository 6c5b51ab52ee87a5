from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from foreframe.metrics.statistics import paired_difference, unpaired_difference


def test_what_clips_share_falls_out_of_a_paired_difference():
    draw = np.random.default_rng(0)
    hard = draw.normal(20, 4, 40)
    first, second = (hard + draw.normal(shift, 0.2, 40) for shift in (0.0, 0.3))
    found = paired_difference(first.tolist(), second.tolist())
    assert found.mean == pytest.approx(float((second - first).mean()))
    assert found.significant
    assert 0 < found.ci95[0] < found.mean < found.ci95[1]
    assert found.higher == int((second > first).sum())
    assert not unpaired_difference(first.tolist(), second.tolist()).significant


def test_the_interval_is_the_bootstrap_of_scipy():
    draw = np.random.default_rng(1)
    first, second = draw.normal(0, 1, 60), draw.normal(0.2, 1, 60)
    theirs = stats.bootstrap((second - first,), np.mean, n_resamples=20_000, method="percentile", rng=2)
    found = paired_difference(first.tolist(), second.tolist()).ci95
    assert found == pytest.approx(list(theirs.confidence_interval), abs=0.02)


def test_the_interval_of_other_clips_is_welchs():
    draw = np.random.default_rng(3)
    first, second = draw.normal(0, 1, 30), draw.normal(0.5, 3, 12)
    theirs = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    found = unpaired_difference(first.tolist(), second.tolist())
    assert found.ci95 == pytest.approx([theirs.low, theirs.high], rel=1e-4)
    assert found.higher is None


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(4)
    holds = 0
    for seed in range(200):
        first = draw.normal(0, 1, 30)
        low, high = paired_difference(first.tolist(), (first + draw.normal(0.5, 1, 30)).tolist(), seed).ci95
        holds += low <= 0.5 <= high
    assert 180 <= holds <= 199


def test_one_clip_has_no_interval_and_equal_results_no_difference():
    assert paired_difference([1.0], [2.0]).ci95 is None
    assert not paired_difference([1.0], [2.0]).significant
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).ci95 == (0.0, 0.0)
    assert not paired_difference([1.0, 2.0], [1.0, 2.0]).significant
    assert unpaired_difference([1.0], [1.0, 2.0]).ci95 is None
    assert unpaired_difference([1.0, 1.0], [2.0, 2.0]).ci95 == (1.0, 1.0)


def test_scores_of_other_numbers_of_clips_are_refused():
    with pytest.raises(ValueError, match="expected scores of the same clips, got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="expected scores, got 0 and 1"):
        unpaired_difference([], [1.0])
