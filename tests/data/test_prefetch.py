from __future__ import annotations

import threading

import pytest
import torch

from foreframe.data.loading import prefetch
from foreframe.data.loading.prefetch import Ahead, Feed, fits, size
from foreframe.data.loading.windows import Windows
from tests.conftest import write_pack

CPU = torch.device("cpu")


@pytest.mark.parametrize("cond", ["none", "vector", "image"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_kept_on_the_device_gives_the_batches_that_are_read(tmp_path, monkeypatch, cond, split):
    monkeypatch.setattr(prefetch, "CHUNK", 3)
    windows = Windows(write_pack(tmp_path / "pack", cond, (32, 40)), split, 3)
    read, kept = (Feed(windows, CPU, resident) for resident in (False, True))
    indices = torch.arange(len(windows)).flip(0)
    for strides in (None, torch.randint(1, 5, indices.shape, generator=torch.Generator().manual_seed(0))):
        expected = windows.batch(indices, strides)
        for feed in (read, kept):
            found = feed.place(feed.fetch(indices, strides))
            assert torch.equal(found.frames, expected.frames)
            assert found.frames.stride() == expected.frames.stride()
            if expected.cond is None:
                assert found.cond is None
            else:
                assert torch.equal(found.cond, expected.cond)


def test_only_numbers_of_frames_travel_to_where_the_split_is_kept(vector_pack):
    fetched = Feed(Windows(vector_pack, "val", 4), CPU, resident=True).fetch([0, 1])
    assert fetched.dtype == torch.int64
    assert fetched.shape == (2, 4)


def test_a_split_is_kept_on_a_gpu_that_has_room_and_never_on_a_cpu(vector_pack, monkeypatch):
    windows = Windows(vector_pack, "train", 4)
    assert not fits(windows, CPU)
    # From the first episode of the split to its last: 6 of 8 clips of 8 frames of 64x64, two float32 a frame.
    assert size(windows) == 6 * 8 * (64 * 64 * 3 + 2 * 4)
    for free, expected in ((4 * size(windows), True), (4 * size(windows) - 4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert fits(windows, torch.device("cuda")) is expected


def test_what_is_made_ahead_is_what_is_made_when_asked():
    names = {}

    def make(step):
        names[step] = threading.current_thread().name
        return step * step

    with Ahead(make, stop=6) as ahead:
        assert [ahead.take(step) for step in (2, 3, 4)] == [4, 9, 16]
        assert ahead.take(1) == 1, "a step out of order is made when asked for"
        assert [ahead.take(step) for step in (2, 3, 4, 5)] == [4, 9, 16, 25]
    assert max(names) == 5
    assert names[3].startswith("prefetch")


def test_an_error_of_the_thread_is_raised_at_its_step():
    def make(step):
        if step == 2:
            raise OSError("the disk is gone")
        return step

    with Ahead(make, stop=9) as ahead:
        assert [ahead.take(0), ahead.take(1)] == [0, 1]
        with pytest.raises(OSError, match="the disk is gone"):
            ahead.take(2)
