"""Statistics of conditions: those of NumPy, over the chosen clips and no other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreframe.data.pack.manifest import Episode
from foreframe.data.pack.stats import column_stats


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99), data=st.data())
def test_they_are_those_of_the_chosen_clips_joined(lengths: list[int], seed: int, data: st.DataObject):
    ends = np.cumsum(lengths).tolist()
    episodes = [
        Episode(f"c{n}", "train", end - length, length)
        for n, (end, length) in enumerate(zip(ends, lengths, strict=True))
    ]
    cond = np.random.default_rng(seed).normal(3, 100, (ends[-1], 2)).astype(np.float32)
    chosen = data.draw(st.lists(st.sampled_from(episodes), min_size=1, unique_by=lambda episode: episode.name))
    joined = np.concatenate([cond[item.start : item.start + item.length] for item in chosen]).astype(np.float64)
    for number, stats in enumerate(column_stats(("a", "b"), cond, chosen)):
        column = joined[:, number]
        assert (stats.name, stats.min, stats.max) == ("ab"[number], column.min(), column.max())
        assert stats.mean == pytest.approx(column.mean(), rel=1e-9, abs=1e-9)
        assert stats.std == pytest.approx(column.std(), rel=1e-9, abs=1e-9)


def test_a_column_that_never_changes_has_no_deviation_whatever_rounding_does():
    cond = np.full((1000, 1), 0.1)  # their sum is not 100
    (stats,) = column_stats(("a",), cond, [Episode("a", "train", 0, 300), Episode("b", "train", 300, 700)])
    assert (stats.std, stats.min, stats.max) == (0, 0.1, 0.1)


def test_numbers_near_the_end_of_float32_neither_overflow_nor_vanish():
    cond = np.array([[3e38], [-3e38], [3e38], [-3e38]], np.float32)
    (stats,) = column_stats(("a",), cond, [Episode("a", "train", 0, 4)])
    assert (stats.mean, stats.std) == (0, pytest.approx(3e38, rel=1e-6))
