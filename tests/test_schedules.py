from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreframe.schedules import BetaSchedule, Clock, ForcingSchedule, RateSchedule

clocks = st.builds(
    lambda total, share, epoch: Clock(int(total * share), total, epoch),
    st.integers(1, 10**6),
    st.floats(0, 1.2),
    st.integers(1, 10**4),
)


@settings(max_examples=400, deadline=None)
@given(
    clocks,
    st.sampled_from(["constant", "monotonic", "cyclical"]),
    st.integers(0, 50),
    st.floats(0, 2),
    st.sampled_from(["step", "epoch"]),
)
def test_beta_stays_between_start_and_stop(clock, kind, cycles, ratio, unit):
    value = BetaSchedule(kind, 0.0, 1.0, cycles, ratio, unit).value(clock)
    assert 0.0 <= value <= 1.0


@settings(max_examples=400, deadline=None)
@given(
    clocks,
    st.sampled_from(["constant", "linear", "exponential", "inverse-sigmoid"]),
    st.floats(0, 1),
    st.integers(0, 1000),
    st.floats(0, 5),
    st.floats(0, 1),
    st.sampled_from(["step", "epoch"]),
)
def test_forcing_is_a_probability(clock, kind, initial, start, decay, floor, unit):
    assert 0.0 <= ForcingSchedule(kind, initial, start, decay, floor, unit).value(clock) <= 1.0


@settings(max_examples=200, deadline=None)
@given(clocks, st.sampled_from(["constant", "cosine", "multi-step"]), st.integers(0, 2000), st.floats(0, 1))
def test_rate_factor_stays_between_zero_and_one(clock, kind, warmup, floor):
    assert 0.0 <= RateSchedule(kind, warmup, floor, (10, 100)).value(clock) <= 1.0


def values(schedule, total, epoch_steps=1):
    return [schedule.value(Clock(step, total, epoch_steps)) for step in range(total + 1)]


def test_monotonic_beta_rises_once_and_stays():
    got = values(BetaSchedule("monotonic", 0.0, 1.0, ratio=0.5), 100)
    assert got[0] == 0.0
    assert got[25] == pytest.approx(0.5)
    assert all(value == 1.0 for value in got[50:])
    assert got == sorted(got)


def test_cyclical_beta_starts_again_in_each_cycle_and_holds_its_last_value():
    got = values(BetaSchedule("cyclical", 0.1, 0.9, cycles=4, ratio=0.5), 100)
    assert [got[i] for i in (0, 25, 50, 75)] == pytest.approx([0.1] * 4)
    assert [got[i] for i in (13, 24, 38, 99)] == pytest.approx([0.9] * 4)
    assert got[100] == got[99]


def test_constant_beta_is_the_labs_no_annealing():
    assert set(values(BetaSchedule("constant", stop=0.7), 10)) == {0.7}


def test_an_epoch_schedule_is_a_staircase():
    got = values(ForcingSchedule("linear", 1.0, start=2, decay=0.25, unit="epoch"), 80, epoch_steps=10)
    assert got[:30] == [1.0] * 30
    assert got[30:40] == [0.75] * 10
    assert got[60:] == [0.0] * 21


def test_linear_forcing_stops_at_its_floor():
    assert values(ForcingSchedule("linear", 1.0, decay=0.1, floor=0.3), 20)[-1] == 0.3


def test_exponential_forcing_is_a_power():
    assert values(ForcingSchedule("exponential", 0.8, start=3, decay=0.5), 6)[5] == pytest.approx(0.8 * 0.25)


def test_inverse_sigmoid_forcing_starts_at_its_initial_value_and_halves_near_k_log_k():
    schedule = ForcingSchedule("inverse-sigmoid", 1.0, decay=50.0)
    assert schedule.value(Clock(0, 10_000, 1)) == 1.0
    assert schedule.value(Clock(round(50 * math.log(50)), 10_000, 1)) == pytest.approx(0.51, abs=0.02)


def test_cosine_rate_warms_up_and_falls_to_its_floor():
    got = values(RateSchedule("cosine", warmup=10, floor=0.1), 110)
    assert got[0] == pytest.approx(0.1)
    assert got[9] == 1.0
    assert got[60] == pytest.approx(0.55, abs=0.01)
    assert got[110] == pytest.approx(0.1)


def test_multi_step_rate_falls_at_each_milestone():
    got = values(RateSchedule("multi-step", milestones=(2, 5), gamma=0.1, unit="epoch"), 70, epoch_steps=10)
    assert (got[19], got[20], got[50]) == pytest.approx((1.0, 0.1, 0.01))
