"""The alignment test on pictures whose motion is known, and on real clips where they are at hand."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data.formats import sample
from foreframe.data.ingest.alignment import Alignment
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.transform import rows_for
from foreframe.data.layouts.options import Options

REAL = Path(os.environ.get("FOREFRAME_REALDATA", Path(__file__).parents[3] / "shared" / "realdata"))


def moving_ball(rng: np.random.Generator, length: int, held: int) -> tuple[np.ndarray, np.ndarray]:
    """A soft ball that does what rows (dy, dx) say: row t moves it from frame t to t+1."""
    rows = np.repeat(rng.uniform(-3, 3, (length // held + 1, 2)), held, axis=0)[:length]
    places = 32 + np.concatenate([np.zeros((1, 2)), np.cumsum(rows[:-1], axis=0)])
    places = 32 + np.clip(places - 32, -22, 22)
    y, x = np.mgrid[:64, :64]
    distance = (y - places[:, 0, None, None]) ** 2 + (x - places[:, 1, None, None]) ** 2
    frames = (40 + 200 * np.exp(-distance / 60)).astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=-1), rows.astype(np.float32)


def found(clips, off: int, cond: str = "vector", lead: int = 1):
    """The answer when rows that lead `lead` frames on are stored `off` frames later than that."""
    alignment = Alignment()
    for frames, rows in clips:
        alignment.add(frames, rows[rows_for(np.arange(len(rows)), len(rows), lead + off)[:, 0]], new=True)
    width = clips[0][1].shape[1] if cond == "vector" else 3
    return alignment.result(ClipSpec(3, 64, 64, cond, width))


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("held", [1, 2])
def test_commands_that_move_a_ball_are_found_where_they_are(off: int, held: int):
    rng = np.random.default_rng(3)
    result = found([moving_ball(rng, 30, held) for _ in range(30)], off)
    assert result.best == off
    assert bool(result.warning) == (off != 0)


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_the_push_sample_is_told_apart(off: int):
    clips = [(frames, rows) for (_, _, frames, rows), _ in zip(sample.decode_sample(), range(25), strict=False)]
    assert found(clips, off).best == off


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_the_dance_sample_is_told_apart(off: int):
    clips = [
        (frames, poses) for (_, _, frames, poses), _ in zip(sample.open_sample("dance").clips, range(8), strict=False)
    ]
    assert found(clips, off, "image", lead=0).best == off


def test_noise_says_nothing():
    rng = np.random.default_rng(0)
    clips = [(frames, rng.normal(size=rows.shape)) for frames, rows in (moving_ball(rng, 30, 1) for _ in range(20))]
    result = found(clips, 0)
    assert result.best is None
    assert not result.warning
    assert "is unclear" in result.words


def test_without_conditions_or_with_too_little_there_is_no_answer():
    rng = np.random.default_rng(0)
    alignment = Alignment()
    alignment.add(moving_ball(rng, 30, 1)[0], None, new=True)
    assert alignment.result(ClipSpec(3, 64, 64)) is None
    assert found([moving_ball(rng, 8, 1)], 0) is None


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_measured_states_alone_belong_to_their_own_frame(shift: int, off: int):
    """Where a ball is, recorded `off` frames late and stored as commands would be."""
    rng = np.random.default_rng(4)
    alignment = Alignment(shift)
    for frames, rows in [moving_ball(rng, 40, 1) for _ in range(20)]:
        places = np.concatenate([np.zeros((1, 2)), np.cumsum(rows[:-1], axis=0)])
        alignment.add(frames, places[rows_for(np.arange(len(rows)), len(rows), shift + off)[:, 0]], new=True)
    result = alignment.result(ClipSpec(3, 64, 64, "vector", 2))
    assert result is not None
    assert result.best == off


def test_reading_in_pieces_changes_nothing_and_only_so_many_frames_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(5)
    clips = [moving_ball(rng, 40, 1) for _ in range(10)]
    alignment = Alignment()
    for frames, rows in clips:
        rows = rows[rows_for(np.arange(len(rows)), len(rows), 1)[:, 0]]
        for start, stop in ((0, 1), (1, 2), (2, 30), (30, 40)):
            alignment.add(frames[start:stop], rows[start:stop], new=start == 0)
    assert alignment.result(ClipSpec(3, 64, 64, "vector", 2)) == found(clips, 0)
    monkeypatch.setattr("foreframe.data.ingest.alignment.MAX_FRAMES", 100)
    enough = Alignment()
    for start in range(0, 400, 40):
        enough.add(clips[0][0], clips[0][1], new=start in (0, 80, 120))
    assert enough._frames == 120


@pytest.mark.parametrize("cond", ["vector", "image"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 40), (4, 4), (7, 33)])
def test_very_small_pictures_do_no_harm(size: tuple[int, int], cond: str):
    rng, alignment = np.random.default_rng(0), Alignment()
    for _ in range(4):
        frames = rng.integers(0, 256, (40, *size, 3), dtype=np.uint8)
        alignment.add(frames, frames if cond == "image" else rng.normal(size=(40, 2)), new=True)
    result = alignment.result(ClipSpec(3, *size, cond, 3 if cond == "image" else 2))
    assert (result is None) == (min(size) < 4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_conditions_of_any_size_are_looked_at_alike(scale: float):
    rng = np.random.default_rng(3)
    clips = [moving_ball(rng, 30, 1) for _ in range(20)]
    assert found([(frames, rows * scale) for frames, rows in clips], 1).best == 1


def test_still_pictures_and_constant_conditions_do_no_harm():
    still = np.zeros((40, 64, 64, 3), np.uint8), np.ones((40, 3), np.float32)
    assert found([still] * 5, 0).best is None


def test_a_warning_says_which_way_and_how_far():
    rng = np.random.default_rng(1)
    early = found([moving_ball(rng, 30, 1) for _ in range(20)], -1)
    assert "by the condition 1 frame before it" in early.words
    assert "--shift that is larger by 1" in early.warning


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.skipif(not (REAL / "bair").is_dir(), reason="the real BAIR trajectory is not at hand")
def test_the_real_bair_trajectory_is_told_apart(shift: int):
    assert scan(REAL / "bair", options=Options(shift=shift)).alignment.best == shift - 1


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.skipif(not (REAL / "g1").is_dir(), reason="the real LeRobot recording is not at hand")
def test_the_real_robot_recording_is_told_apart(shift: int):
    report = scan(REAL / "g1", options=replace(Options(), shift=shift))
    assert report.alignment.best == shift - 1
    assert any("--shift" in warning for warning in report.warnings) == (shift != 1)


@pytest.mark.parametrize("shift", [-1, 0, 1])
@pytest.mark.skipif(not (REAL / "dance").is_dir(), reason="the real dance takes are not at hand")
def test_the_real_dancer_is_told_apart(shift: int):
    assert scan(REAL / "dance", options=Options(shift=shift, cuts=(630,))).alignment.best == shift
