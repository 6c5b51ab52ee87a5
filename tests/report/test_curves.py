from __future__ import annotations

from pathlib import Path

import numpy as np

from foreframe.clip import ClipSpec
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.report.clips.curves import plots_of, unchanging
from foreframe.report.clips.page import sample


def make(path: Path, spec: ClipSpec, lengths: tuple[int, ...] = (12, 3, 40), names: tuple[str, ...] = ()) -> Pack:
    rng = np.random.default_rng(0)
    with PackWriter(path, spec, names) as writer:
        for number, length in enumerate(lengths):
            frames = rng.integers(0, 256, (length, spec.height, spec.width, spec.channels), dtype=np.uint8)
            pictures = rng.integers(0, 256, (length, spec.height, spec.width, 3), dtype=np.uint8)
            vector = rng.normal(size=(length, spec.cond_size))
            cond = {"none": None, "vector": vector, "image": pictures}[spec.cond]
            writer.add(f"clip$_{number}", "train" if number else "val", frames, cond)
    return Pack.open(path)


def test_small_numbers_get_a_plot_apart_from_large_ones_of_the_same_name():
    low, high = np.array([-0.05, -0.02, 0, 0, 0.3]), np.array([0.05, 0.07, 4, 2, 0.5])
    plots = plots_of(("action_0", "action_1", "action_2", "action_3", "position_x"), low, high)
    assert [plot.columns for plot in plots] == [(0, 1), (2, 3), (4,)]
    assert [plot.title for plot in plots] == ["action", "action (2)", "position_x"]
    assert [plot.short for plot in plots] == [("0", "1"), ("2", "3"), ("position_x",)]
    assert all(plot.low < low[[*plot.columns]].min() < high[[*plot.columns]].max() < plot.high for plot in plots)


def test_many_columns_are_divided_into_plots_of_at_most_eight_by_their_names():
    names = [
        f"{kind}.{side}.joint_{n}" for kind in ("action", "state") for side in ("left", "right") for n in range(13)
    ]
    plots = plots_of(names, -np.ones(52), np.ones(52))
    assert sorted(column for plot in plots for column in plot.columns) == list(range(52))
    assert [len(plot.columns) for plot in plots] == [7, 6] * 4
    assert plots[0].title == "action.left.joint"
    assert plots[0].short == tuple("0123456")


def test_columns_without_a_common_beginning_share_plots():
    names = ("x", "y", "grip", "arm_1", "arm_2", "speed", "a", "b", "c", "d", "e")
    plots = plots_of(names, -np.ones(11), np.ones(11))
    assert [plot.columns for plot in plots] == [(0, 1, 2, 5, 6), (3, 4), (7, 8, 9, 10)]
    assert plots[0].title == ""
    assert plots[0].short == ("x", "y", "grip", "speed", "a")


def test_columns_that_never_change_are_named_instead_of_drawn():
    names, low, high = ("a", "b"), np.array([2.5, 0.0]), np.array([2.5, 1.0])
    assert [plot.columns for plot in plots_of(names, low, high)] == [(1,)]
    assert unchanging(names, low, high) == [("a", 2.5)]


def test_a_sample_has_clips_of_every_split_as_far_as_it_reaches(tmp_path: Path):
    pack = make(tmp_path / "pack", ClipSpec(3, 16, 24), (5,) * 9)
    assert [episode.split for episode in sample(pack, 4)] == ["val", "train", "train", "train"]
    assert [episode.split for episode in sample(pack, 1)] == ["val"]
    assert len(sample(pack, 99)) == 9
