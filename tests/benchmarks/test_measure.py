from __future__ import annotations

import pytest
import torch
from benchmarks.measure import Candidate, Rounds, compare, ratios, spread

from benchmarks import measure

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_yardstick(monkeypatch):
    monkeypatch.setitem(measure._YARDSTICK, "cpu", 8)


def made_up(monkeypatch, times):
    """Contestants `a`, `b`, ... and a clock that says they took these seconds, one row for each round."""
    rows = iter(seconds for row in times for seconds in (*row, 0.5))  # the yardstick runs last in each round
    monkeypatch.setattr(measure, "timed", lambda run, device: {"cpu_seconds": next(rows), "wall_seconds": 0.0})
    return [Candidate(name, lambda: None, flops=1e9, frames=10) for name, _ in zip("abc", times[0], strict=False)]


def test_candidates_run_in_turn_after_their_warm_up():
    said, order = [], []
    candidates = [Candidate(name, lambda name=name: order.append(name)) for name in "abc"]
    compare("r", candidates, CPU, Rounds(rounds=2, warmup=2), said.append)
    assert "".join(order) == "aabbcc" + "abc" + "abc"
    assert said[0] == "r: a, warm-up"
    assert said[-2] == "r: c, round 2"


def test_a_factor_is_taken_inside_a_round(monkeypatch):
    candidates = made_up(monkeypatch, [(4.0, 1.0), (8.0, 4.0), (30.0, 10.0)])
    rows = compare("r", candidates, CPU, Rounds(3), lambda _: None)["ways"]
    assert rows[0]["factor"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    # 4, 2 and 3 times faster; the medians of the times, 8 and 4, would say 2.
    assert rows[1]["factor"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert rows[1]["seconds"] == {"median": 4.0, "min": 1.0, "max": 10.0}
    assert [times["cpu_seconds"] for times in rows[1]["rounds"]] == [1.0, 4.0, 10.0]


def test_rates_come_from_the_median_round(monkeypatch):
    candidates = made_up(monkeypatch, [(4.0,), (2.0,), (1.0,)])
    found = compare("r", candidates, CPU, Rounds(3), lambda _: None)
    row, yardstick = found["ways"][0], found["yardsticks"][0]
    assert row["gflops_per_second"] == 0.5
    assert row["frames_per_second"] == 5.0
    assert yardstick["gflops_per_second"] == pytest.approx(2 * 8**3 / 0.5 / 1e9)
    assert row["share_of_matmul"] == pytest.approx(0.5 / yardstick["gflops_per_second"])


def test_a_candidate_without_a_yardstick_has_no_share():
    found = compare("r", [Candidate("a", lambda: None, flops=1, precision="int8")], CPU, Rounds(1), lambda _: None)
    assert found["yardsticks"] == []
    assert found["ways"][0]["share_of_matmul"] is None


def test_ratios_leave_out_rounds_in_which_no_time_passed():
    assert ratios([2.0, 3.0], [1.0, 0.0]) == [2.0]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_spread_is_median_least_and_greatest():
    assert spread([3.0, 1.0, 2.0, 10.0]) == {"median": 2.5, "min": 1.0, "max": 10.0}


def test_peak_memory_is_what_one_call_held_on_top():
    def hold():
        torch.ones(16 * 2**20)  # 64 MiB, touched

    found = measure.peak_bytes(hold, CPU)
    if found is None:
        pytest.skip("this system does not tell a process its peak of memory")
    assert 60 * 2**20 < found < 90 * 2**20
