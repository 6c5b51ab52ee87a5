"""The sample in the package is what it says it is; damage is found; encoding and decoding agree."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from foreframe.data import sample
from foreframe.data.push_sim import PushClip
from foreframe.data.sample import SampleClip
from foreframe.errors import DataError


@pytest.fixture(scope="module")
def clips() -> list[SampleClip]:
    return list(sample.decode_sample())


def tiny(seed: int, length: int = 3) -> PushClip:
    """A clip (length, 16, 16, 3) of a smooth picture with a bright square that moves."""
    rng = np.random.default_rng(seed)
    frames = np.full((length, 16, 16, 3), rng.integers(40, 200, 3), np.uint8)
    for t in range(length):
        frames[t, 4:9, 2 + t : 7 + t] = rng.integers(0, 255, 3)
    values = rng.normal(size=(length, 7)).astype(np.float32)
    return PushClip(frames, values[:, :4], values[:, 4:])


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.sample"
    path.write_bytes(sample.encode_sample([tiny(0), tiny(1)], ["train", "val"], {"seed": 7}))
    return path


def test_every_clip_decodes_to_its_stored_hash(clips: list[SampleClip]) -> None:
    header = sample.header()
    lines = [f"{clip.name} {clip.split} {sample.clip_hash(clip)}" for clip in clips]
    assert lines == header["clips"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == header["sha256"]


def test_the_splits_hold_as_many_clips_as_they_should(clips: list[SampleClip]) -> None:
    assert Counter(clip.split for clip in clips) == sample.SPLITS == sample.header()["splits"]


def test_shapes_types_and_ranges_are_those_promised(clips: list[SampleClip]) -> None:
    for clip in clips:
        assert (clip.frames.shape, clip.frames.dtype) == ((30, 64, 64, 3), np.uint8)
        assert (clip.actions.shape, clip.actions.dtype) == ((30, 4), np.float32)
        assert (clip.positions.shape, clip.positions.dtype) == ((30, 3), np.float32)
    actions = np.stack([clip.actions for clip in clips])
    assert np.abs(actions[..., :3]).max() <= 0.07 + 1e-6
    assert actions[..., 3].min() >= 0
    assert actions[..., 3].max() <= 0.1 + 1e-6
    positions = np.stack([clip.positions for clip in clips])
    assert (positions > [1.0, 0.4, 0.4]).all()
    assert (positions < [1.6, 1.1, 0.6]).all()


def test_no_clip_is_there_twice(clips: list[SampleClip]) -> None:
    assert len({clip.frames.tobytes() for clip in clips}) == len(clips)
    assert len({clip.frames[0].tobytes() for clip in clips}) == len(clips)
    assert len({clip.name for clip in clips}) == len(clips)


def test_actions_explain_the_motion_of_the_gripper(clips: list[SampleClip]) -> None:
    actions = np.stack([clip.actions[:-1, :3] for clip in clips])
    moved = np.diff(np.stack([clip.positions for clip in clips]), axis=1)
    for axis in range(3):
        assert np.corrcoef(actions[..., axis].ravel(), moved[..., axis].ravel())[0, 1] > 0.95
        assert actions[..., axis].std() > 0.005


def test_the_picture_moves_at_nearly_every_step(clips: list[SampleClip]) -> None:
    frames = np.stack([clip.frames[..., 1] for clip in clips[::8]]).astype(int)
    changed = (np.abs(np.diff(frames, axis=1)) > 16).mean(axis=(2, 3))
    assert (changed > 0.01).mean() > 0.99


def test_the_header_says_how_the_sample_was_made() -> None:
    header = sample.header()
    assert header["seed"] == 0
    assert header["mujoco"].split(".")[0] == "3"
    assert header["simulator"] == "foreframe.data.push_sim"


def test_the_sample_is_small_enough_to_ship() -> None:
    assert sample.PUSH.stat().st_size <= 8_000_000


@pytest.mark.parametrize("place", [30, 0.1, 0.5, 0.9, -1])
def test_one_flipped_byte_is_found(tmp_path: Path, place: float) -> None:
    raw = bytearray(sample.PUSH.read_bytes())
    raw[int(place * len(raw)) if isinstance(place, float) else place] ^= 1
    path = tmp_path / "damaged.sample"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"damaged\.sample: the file is damaged"):
        next(sample.decode_sample(path))


@pytest.mark.parametrize("length", [40, 200, 100_000])
def test_a_file_cut_short_is_found(tmp_path: Path, length: int) -> None:
    path = tmp_path / "short.sample"
    path.write_bytes(sample.PUSH.read_bytes()[:length])
    with pytest.raises(DataError, match=r"short\.sample: the file is damaged"):
        next(sample.decode_sample(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "movie.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftypmp42")
    with pytest.raises(DataError, match=r"movie\.mp4: expected a foreframe sample"):
        next(sample.decode_sample(path))
    with pytest.raises(DataError, match="no readable file"):
        next(sample.decode_sample(tmp_path / "nothing"))


def test_a_decoder_that_gives_other_pixels_is_found(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = sample._to_rgb
    monkeypatch.setattr(sample, "_to_rgb", lambda ycc: right(ycc) ^ np.uint8(1))
    with pytest.raises(DataError, match=r"small\.sample: clip push-0000 should decode to SHA-256"):
        next(sample.decode_sample(small_file))


def test_a_decoder_that_stops_early_is_found(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_decode_video", lambda video: iter(()))
    with pytest.raises(DataError, match="decodes to nothing"):
        next(sample.decode_sample(small_file))


def test_what_was_encoded_comes_back(small_file: Path) -> None:
    first, second = sample.decode_sample(small_file)
    assert (first.name, first.split, second.name, second.split) == ("push-0000", "train", "push-0001", "val")
    for seen, given in ((first, tiny(0)), (second, tiny(1))):
        np.testing.assert_array_equal(seen.actions, given.actions)
        np.testing.assert_array_equal(seen.positions, given.positions)
        assert np.abs(seen.frames.astype(int) - given.frames).mean() < 4
    assert sample.header(small_file)["seed"] == 7


def test_encoding_twice_gives_the_same_bytes(small_file: Path) -> None:
    again = sample.encode_sample([tiny(0), tiny(1)], ["train", "val"], {"seed": 7})
    assert again == small_file.read_bytes()


def test_too_few_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="2 clips and 1 splits"):
        sample.encode_sample([tiny(0), tiny(1)], ["train"])


def test_colours_come_back_within_rounding() -> None:
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    back = sample._to_rgb(sample._to_ycc(rgb))
    assert np.abs(back.astype(int) - rgb).max() <= 2
