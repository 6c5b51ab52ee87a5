"""The sample in the package is what it says it is; damage is found; encoding and decoding agree."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from foreframe.data.formats import sample
from foreframe.errors import DataError
from foreframe.sim import samples
from foreframe.sim.dance import DanceClip
from foreframe.sim.push import PushClip
from foreframe.video.skeleton import OPENPOSE_25, draw_poses


class Clip(NamedTuple):
    """One clip of a sample; `rows` of push are its actions and positions, those of dance its poses."""

    name: str
    split: str
    frames: np.ndarray
    rows: np.ndarray

    @property
    def actions(self) -> np.ndarray:
        return self.rows[:, :4]

    @property
    def positions(self) -> np.ndarray:
        return self.rows[:, 4:]


def decoded(path: Path) -> list[Clip]:
    return [Clip(*clip) for clip in sample.decode_sample(path)]


def joints_of(path: Path) -> np.ndarray:
    """Joints of all dances of a sample, (N, T, 25, 3)."""
    return sample._read(path)[1]


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return decoded(sample.PUSH)


@pytest.fixture(scope="module")
def dances() -> list[Clip]:
    return decoded(sample.DANCE)


def tiny(seed: int, length: int = 3) -> PushClip:
    """A clip (length, 16, 16, 3) of a smooth picture with a bright square that moves."""
    rng = np.random.default_rng(seed)
    frames = np.full((length, 16, 16, 3), rng.integers(40, 200, 3), np.uint8)
    for t in range(length):
        frames[t, 4:9, 2 + t : 7 + t] = rng.integers(0, 255, 3)
    values = rng.normal(size=(length, 7)).astype(np.float32)
    return PushClip(frames, values[:, :4], values[:, 4:])


def tiny_dance(seed: int, length: int = 3) -> DanceClip:
    """A clip (length, 16, 24, 3) of a smooth picture, and joints anywhere in it and a little outside."""
    rng = np.random.default_rng(seed)
    frames = np.full((length, 16, 24, 3), rng.integers(40, 200, 3), np.uint8)
    joints = rng.uniform(-4, 20, (length, 25, 3)).astype(np.float32)
    joints[..., 2] = (joints[..., :2] >= -0.5).all(-1)
    return DanceClip(frames, draw_poses(joints, OPENPOSE_25.bones, (16, 24)), joints)


@pytest.fixture
def small_dance(tmp_path: Path) -> Path:
    path = tmp_path / "dance.sample"
    path.write_bytes(samples.encode_sample([tiny_dance(0), tiny_dance(1)], ["train", "val"], {"seed": 7}))
    return path


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.sample"
    path.write_bytes(samples.encode_sample([tiny(0), tiny(1)], ["train", "val"], {"seed": 7}))
    return path


def test_every_clip_decodes_to_its_stored_hash(clips: list[Clip]) -> None:
    header = sample.header()
    lines = [f"{clip.name} {clip.split} {sample.clip_hash(header, clip)}" for clip in clips]
    assert lines == header["clips"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == header["sha256"]


def test_the_splits_hold_as_many_clips_as_they_should(clips: list[Clip]) -> None:
    assert Counter(clip.split for clip in clips) == sample.SAMPLES["push"].splits == sample.header()["splits"]


def test_shapes_types_and_ranges_are_those_promised(clips: list[Clip]) -> None:
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


def test_no_clip_is_there_twice(clips: list[Clip]) -> None:
    assert len({clip.frames.tobytes() for clip in clips}) == len(clips)
    assert len({clip.frames[0].tobytes() for clip in clips}) == len(clips)
    assert len({clip.name for clip in clips}) == len(clips)


def test_actions_explain_the_motion_of_the_gripper(clips: list[Clip]) -> None:
    actions = np.stack([clip.actions[:-1, :3] for clip in clips])
    moved = np.diff(np.stack([clip.positions for clip in clips]), axis=1)
    for axis in range(3):
        assert np.corrcoef(actions[..., axis].ravel(), moved[..., axis].ravel())[0, 1] > 0.95
        assert actions[..., axis].std() > 0.005


def test_the_picture_moves_at_nearly_every_step(clips: list[Clip]) -> None:
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
    monkeypatch.setattr(sample, "decode_video", lambda video: iter(()))
    with pytest.raises(DataError, match="decodes to nothing"):
        next(sample.decode_sample(small_file))


def test_what_was_encoded_comes_back(small_file: Path) -> None:
    first, second = decoded(small_file)
    assert (first.name, first.split, second.name, second.split) == ("push-0000", "train", "push-0001", "val")
    for seen, given in ((first, tiny(0)), (second, tiny(1))):
        np.testing.assert_array_equal(seen.actions, given.actions)
        np.testing.assert_array_equal(seen.positions, given.positions)
        assert np.abs(seen.frames.astype(int) - given.frames).mean() < 4
    assert sample.header(small_file)["seed"] == 7


def test_encoding_twice_gives_the_same_bytes(small_file: Path) -> None:
    again = samples.encode_sample([tiny(0), tiny(1)], ["train", "val"], {"seed": 7})
    assert again == small_file.read_bytes()


def test_too_few_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="2 clips and 1 splits"):
        samples.encode_sample([tiny(0), tiny(1)], ["train"])


def test_colours_come_back_within_rounding() -> None:
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    back = sample._to_rgb(samples._to_ycc(rgb))
    assert np.abs(back.astype(int) - rgb).max() <= 2


def test_every_dance_decodes_to_its_stored_hash(dances: list[Clip]) -> None:
    header = sample.header(sample.DANCE)
    lines = [f"{clip.name} {clip.split} {sample.clip_hash(header, clip)}" for clip in dances]
    assert lines == header["clips"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == header["sha256"]
    assert header["simulator"] == "foreframe.data.dance_sim"
    assert Counter(clip.split for clip in dances) == sample.SAMPLES["dance"].splits == header["splits"]


def test_dances_have_the_shapes_and_types_promised(dances: list[Clip]) -> None:
    for clip in dances:
        assert (clip.frames.shape, clip.frames.dtype) == ((60, 64, 64, 3), np.uint8)
        assert (clip.rows.shape, clip.rows.dtype) == ((60, 64, 64, 3), np.uint8)
    joints = joints_of(sample.DANCE)
    assert (joints.shape, joints.dtype) == ((len(dances), 60, 25, 3), np.float32)
    assert (joints[..., 2] == 1).all()
    assert joints[..., :2].min() >= -0.5
    assert joints[..., :2].max() < 63.5


def test_dances_are_small_enough_to_ship() -> None:
    assert sample.DANCE.stat().st_size <= 4_000_000


def test_no_person_dances_in_two_splits(dances: list[Clip]) -> None:
    assert len({clip.name for clip in dances}) == len(dances)
    assert len({clip.frames[0].tobytes() for clip in dances}) == len(dances)
    pictures = np.stack([clip.frames[0] for clip in dances]).astype(int)
    for number, clip in enumerate(dances):
        others = [other for other in range(len(dances)) if dances[other].split != clip.split]
        assert np.abs(pictures[others] - pictures[number]).mean(axis=(1, 2, 3)).min() > 8


def test_a_pose_fits_the_frame_of_its_number_better_than_any_near_it(dances: list[Clip]) -> None:
    for number in (0, 3):
        clip = dances[number]
        empty = np.median(clip.frames, axis=0)  # the room without the person, who moves about
        person = np.abs(clip.frames - empty).max(-1) > 40
        pose = clip.rows.max(-1) > 128
        fit = {
            lag: np.mean([person[t][pose[t + lag]].mean() for t in range(5, 55)]) for lag in (-5, -3, -1, 0, 1, 3, 5)
        }
        assert max(fit, key=lambda lag: fit[lag]) == 0
        assert fit[0] > 0.75
        assert fit[0] > max(fit[3], fit[-3]) + 0.1


def test_poses_are_drawn_from_the_joints_that_come_with_them(dances: list[Clip]) -> None:
    for clip, joints in zip(dances[:2], joints_of(sample.DANCE), strict=False):
        np.testing.assert_array_equal(draw_poses(joints, OPENPOSE_25.bones, (64, 64)), clip.rows)


def test_what_was_encoded_of_a_dance_comes_back(small_dance: Path) -> None:
    first, second = decoded(small_dance)
    assert (first.name, first.split, second.name, second.split) == ("dance-0000", "train", "dance-0001", "val")
    for seen, joints, given in zip((first, second), joints_of(small_dance), map(tiny_dance, (0, 1)), strict=True):
        assert np.abs(joints - given.joints).max() <= 0.5 / sample.UNIT
        np.testing.assert_array_equal(joints[..., 2], given.joints[..., 2])
        assert np.abs(seen.frames.astype(int) - given.frames).mean() < 4
        assert np.abs(seen.rows.astype(int) - given.poses).max() <= 0.05 * 255
    again = samples.encode_sample([tiny_dance(0), tiny_dance(1)], ["train", "val"], {"seed": 7})
    assert again == small_dance.read_bytes()


def test_another_way_of_drawing_poses_is_found(small_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = draw_poses
    monkeypatch.setattr(sample, "draw_poses", lambda joints, bones, size: right(joints, bones, size) ^ np.uint8(1))
    with pytest.raises(DataError, match="clip dance-0000 should decode to SHA-256"):
        next(sample.decode_sample(small_dance))


def test_a_sample_opens_by_name_with_all_that_a_pack_needs(clips: list[Clip], dances: list[Clip]) -> None:
    push, dance = sample.open_sample("push"), sample.open_sample("dance")
    assert (str(push.spec), push.shift, push.fps) == ("3x64x64 with 7 numbers", 1, 10)
    assert (str(dance.spec), dance.shift, dance.fps) == ("3x64x64 with 3-channel pictures", 0, 15)
    assert len(push.columns) == 7
    assert dance.columns == ("pose",)
    assert push.sha256 == sample.header()["sha256"]
    name, split, frames, rows = next(push.clips)
    assert (name, split) == (clips[0].name, clips[0].split)
    np.testing.assert_array_equal(frames, clips[0].frames)
    np.testing.assert_array_equal(rows, clips[0].rows)
    name, split, frames, rows = next(dance.clips)
    assert (name, split) == (dances[0].name, dances[0].split)
    np.testing.assert_array_equal(frames, dances[0].frames)
    np.testing.assert_array_equal(rows, dances[0].rows)


def test_a_sample_that_there_is_not_is_named() -> None:
    with pytest.raises(DataError, match=r"danse: no such sample; there is push, dance; did you mean 'dance'\?"):
        sample.open_sample("danse")
