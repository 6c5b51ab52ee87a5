from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreframe.clip import Clip, ClipSpec
from foreframe.data.loading.windows import Windows, batch_indices
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError


def make(path: Path, lengths: tuple[int, ...], cond: str = "vector") -> Pack:
    """A pack whose pixels and conditions all tell the number of their frame."""
    spec = ClipSpec(3, 4, 6, cond, {"none": 0, "vector": 2, "image": 3}[cond])  # type: ignore[arg-type]
    number = 0
    with PackWriter(path, spec, ("a", "b") if cond == "vector" else ()) as writer:
        for index, length in enumerate(lengths):
            values = np.arange(number, number + length)
            frames = np.broadcast_to(values[:, None, None, None], (length, 4, 6, 3)).astype(np.uint8)
            conds = {"none": None, "vector": np.stack([values, -values], 1), "image": 255 - frames}[cond]
            writer.add(f"clip{index}", "train", frames, conds)
            number += length
    return Pack.open(path)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return make(tmp_path / "pack", (7, 3, 10))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all", [f"clip0@{s}" for s in range(4)] + [f"clip2@{s}" for s in range(7)]),
        ("tiled", ["clip0@0", "clip2@0", "clip2@4"]),
        ("first", ["clip0@0", "clip2@0"]),
    ],
)
def test_the_windows_of_each_policy(pack: Pack, policy, expected):
    windows = Windows(pack, "train", 4, policy)
    assert windows.names(range(len(windows))) == expected
    assert [episode.name for episode in windows.short] == ["clip1"]


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 12), st.sampled_from(["all", "tiled", "first"])
)
def test_no_window_crosses_an_episode_and_none_is_lost(tmp_path_factory, lengths, length, policy):
    pack = make(tmp_path_factory.mktemp("pack") / "p", tuple(lengths))
    if max(lengths) < length:
        with pytest.raises(DataError):
            Windows(pack, "train", length, policy)
        return
    windows = Windows(pack, "train", length, policy)
    places = [windows.place(index) for index in range(len(windows))]
    assert len(set(places)) == len(places)
    assert all(start + length <= episode.length for episode, start in places)
    counts = {"all": lambda n: n - length + 1, "tiled": lambda n: n // length, "first": lambda n: 1}[policy]
    assert len(windows) == sum(counts(n) for n in lengths if n >= length)


def test_a_batch_holds_the_frames_and_the_conditions_that_lead_into_them(pack: Pack):
    windows = Windows(pack, "train", 4, "all")
    clip = windows.batch(torch.tensor([1, 10]))
    assert clip.frames.shape == (2, 4, 3, 4, 6)
    assert clip.frames.dtype == torch.uint8
    assert clip.frames[:, :, 0, 0, 0].tolist() == [[1, 2, 3, 4], [16, 17, 18, 19]]
    assert clip.cond is not None
    assert clip.cond.dtype == torch.float32
    assert clip.cond[..., 0].tolist() == clip.frames[:, :, 0, 0, 0].tolist()


def test_picture_conditions_come_channels_first_like_frames(tmp_path: Path):
    windows = Windows(make(tmp_path / "p", (5,), "image"), "train", 3, "all")
    clip = windows.batch([2])
    assert clip.cond is not None
    assert clip.cond.shape == clip.frames.shape == (1, 3, 3, 4, 6)
    assert torch.equal(clip.cond, 255 - clip.frames)


def test_a_batch_without_condition_has_none(tmp_path: Path):
    assert Windows(make(tmp_path / "p", (5,), "none"), "train", 3, "first").batch([0]).cond is None


def test_writing_into_a_batch_does_not_touch_the_pack(pack: Pack):
    windows = Windows(pack, "train", 4, "all")
    windows.batch([0]).frames.fill_(9)
    assert windows.batch([0]).frames[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_where_every_episode_is_too_short_each_is_listed(pack: Pack):
    with pytest.raises(DataError) as caught:
        Windows(pack, "train", 11)
    assert [str(fault) for fault in caught.value.faults] == [
        "clip0: expected 11 frames or more, found 7",
        "clip1: expected 11 frames or more, found 3",
        "clip2: expected 11 frames or more, found 10",
    ]


def test_a_window_that_is_not_there_is_refused(pack: Pack):
    windows = Windows(pack, "train", 4, "first")
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"window {index}: expected 0 to 1"):
            windows.batch([index])


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
def test_each_index_comes_at_most_once_an_epoch_and_all_where_batches_fit(length, batch, seed):
    if length < batch:
        return
    per_epoch = length // batch
    for epoch in range(3):
        drawn = [batch_indices(length, batch, seed, epoch * per_epoch + k) for k in range(per_epoch)]
        assert all(number == epoch and len(indices) == batch for number, indices in drawn)
        seen = torch.cat([indices for _, indices in drawn]).tolist()
        assert len(set(seen)) == len(seen) == per_epoch * batch
        assert set(seen) <= set(range(length))


@given(st.integers(1, 12), st.integers(13, 40))
def test_with_fewer_windows_than_a_batch_each_index_comes_equally_often(length, batch):
    seen = torch.cat([batch_indices(length, batch, 3, step)[1] for step in range(length)])
    assert torch.bincount(seen, minlength=length).tolist() == [batch] * length
    assert batch_indices(length, batch, 3, length)[0] == batch


def test_batches_do_not_depend_on_those_asked_for_before():
    forward = [batch_indices(23, 4, 1, step) for step in range(40)]
    backward = [batch_indices(23, 4, 1, step) for step in reversed(range(40))][::-1]
    for (one, first), (two, second) in zip(forward, backward, strict=True):
        assert one == two
        assert torch.equal(first, second)
    forward[0][1].fill_(0)
    assert not torch.equal(batch_indices(23, 4, 1, 0)[1], forward[0][1])


def test_epochs_and_seeds_are_shuffled_differently():
    orders = {tuple(batch_indices(50, 50, seed, step)[1].tolist()) for seed in range(3) for step in range(3)}
    assert len(orders) == 9


def moving() -> Clip:
    frames = torch.randint(0, 256, (4, 3, 3, 8, 10), dtype=torch.uint8)
    return Clip(frames, 255 - frames)


def test_strided_windows_take_every_so_many_frame_and_stay_inside_their_episode(tmp_path: Path) -> None:
    windows = Windows(make(tmp_path / "pack", (30, 9)), "train", 4)
    clip = windows.batch([0, 5, 26, 27], strides=[3, 9, 2, 5])
    assert clip.cond is not None
    # The third window begins at frame 26 of 30, the fourth at frame 0 of an episode of 9 frames.
    numbers = clip.cond[:, :, 0].int().tolist()
    assert numbers == [[0, 3, 6, 9], [5, 13, 21, 29], [26, 27, 28, 29], [30, 32, 34, 36]]
    assert torch.equal(clip.frames[:, :, 0, 0, 0].int(), clip.cond[:, :, 0].int())


def test_windows_and_batches_that_cannot_be_are_mistakes_in_the_code(pack: Pack):
    with pytest.raises(ValueError, match="length: expected 1 frame or more, got 0"):
        Windows(pack, "train", 0)
    for length, batch, step in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(ValueError, match="expected length >= 1, batch >= 1, step >= 0"):
            batch_indices(length, batch, 0, step)


def test_windows_of_one_frame_have_no_stride(pack: Pack):
    assert Windows(pack, "train", 1).numbers([0, 6, 7], strides=[3, 9, 2]).tolist() == [[0], [6], [7]]
