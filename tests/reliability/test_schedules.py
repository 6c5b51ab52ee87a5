"""Schedules at settings that nobody would choose: always finite, always in [0, 1], and beta never falls in a cycle."""

from __future__ import annotations

import math
import random

import pytest

from foreframe.schedules import BetaSchedule, Clock, ForcingSchedule, RateSchedule

SHARES = (0.0, 5e-324, 1e-300, 1e-9, 0.1, 0.5, 1 - 1e-16, 1.0)
COUNTS = (0, 1, 2, 3, 7, 1000, 10**6, 10**9)


@pytest.mark.parametrize("cases", [10_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_every_schedule_stays_in_its_range(cases, figure):
    draw = random.Random(0)

    def share():
        return draw.choice(SHARES) if draw.random() < 0.5 else draw.random()

    good = 0
    for _ in range(cases):
        total = max(1, draw.choice(COUNTS))
        step = draw.choice((0, 1, total - 1, total, total + 1, draw.randint(0, total)))
        epoch, unit = max(1, draw.choice(COUNTS)), draw.choice(("step", "epoch"))
        clock, later = Clock(step, total, epoch), Clock(step + 1, total, epoch)
        beta = BetaSchedule(
            draw.choice(("constant", "monotonic", "cyclical")), 0.0, 1.0, draw.choice(COUNTS), 2 * share(), unit
        )
        forcing = ForcingSchedule(
            draw.choice(("constant", "linear", "exponential", "inverse-sigmoid")),
            share(), draw.choice(COUNTS), draw.choice((0.0, 1e-9, 0.05, 1.0, 5.0, 1e9)), share(), unit,
        )  # fmt: skip
        rate = RateSchedule(
            draw.choice(("constant", "cosine", "multi-step")), draw.choice(COUNTS), share(), (10, 100), share(), unit
        )
        values = [schedule.value(clock) for schedule in (beta, forcing, rate)]
        rises = beta.kind != "monotonic" or beta.value(later) >= values[0]
        falls = forcing.value(later) <= max(values[1], forcing.floor)
        good += all(math.isfinite(value) and 0 <= value <= 1 for value in values) and rises and falls
    figure("schedules in [0, 1]", good, cases)
