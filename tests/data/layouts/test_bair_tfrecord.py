"""Robot pushing as published: what is read from records that were packed by hand, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from foreframe.data.formats.tfrecord import crc32c
from foreframe.data.layouts import bair_lab, bair_tfrecord
from foreframe.data.layouts.bair_tfrecord import example, recognises, survey
from foreframe.data.layouts.contract import SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault, UsageError
from tests.data.test_tfrecord import floats, framed, packed_example, strings, whole

FRAMES = 5
SIDE = 6


def pixels(seed: int, camera: str, frame: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng((seed, len(camera), frame)).integers(0, 256, (side, side, 3), dtype=np.uint8)


def numbers(seed: int, frame: int) -> np.ndarray:
    return np.random.default_rng((seed, frame)).normal(size=7).astype(np.float32)


def features(seed: int, frames: int = FRAMES, side: int = SIDE) -> dict[str, bytes]:
    """The features of one trajectory by key, each packed."""
    found = {}
    for i in range(frames):
        for camera in ("image_main", "image_aux1"):
            found[f"{i}/{camera}/encoded"] = strings(pixels(seed, camera, i, side).tobytes())
        found[f"{i}/action"] = floats(*numbers(seed, i)[:4], packed=i % 2 == 0)
        found[f"{i}/endeffector_pos"] = floats(*numbers(seed, i)[4:])
    return found


def write(path: Path, records: list[dict[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(packed_example(record), crc32c) for record in records))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "softmotion30_44k"
    write(root / "train" / "traj_1024_to_1025.tfrecords", [features(0), features(1)])
    write(root / "train" / "traj_256_to_256.tfrecords", [features(2)])
    write(root / "test" / "traj_0_to_1.tfrecords", [features(3), features(4)])
    return tmp_path


def one(folder: Path, record: dict[str, bytes], first: dict[str, bytes] | None = None) -> SourceIndex:
    """A source of a good trajectory and `record`, as clips 0 and 1 of one file."""
    write(folder / "train" / "traj_0_to_1.tfrecords", [first or features(0), record])
    return survey(folder, Options())


def faults_of(found: SourceIndex, clip: int = 1) -> dict[int, tuple[Fault, ...]]:
    frames, rows = found.clips[clip].frames(0, FRAMES), found.clips[clip].rows(0, FRAMES)
    return {**frames.faults, **rows.faults}


def all_faults(folder: Path) -> list[Fault]:
    """Everything wrong with a source, as far as it can be read."""
    found = survey(folder, Options())
    faults = [*found.faults]
    for clip in found.clips:
        try:
            for read in (clip.frames, clip.rows):
                faults += [fault for these in read(0, clip.length).faults.values() for fault in these]
        except DataError as error:
            faults += error.faults
    return faults


def test_frames_and_rows_are_those_of_the_record(source: Path):
    found = survey(source, Options())
    assert found.faults == ()
    assert (found.size, found.cond, found.shift) == ((SIDE, SIDE), "vector", 1)
    assert found.columns == bair_lab.COND_NAMES
    assert [(clip.name, clip.split, clip.length, clip.file) for clip in found.clips] == [
        ("train/traj_256_to_256/0", "val", FRAMES, "softmotion30_44k/train/traj_256_to_256.tfrecords"),
        ("train/traj_1024_to_1025/0", "train", FRAMES, "softmotion30_44k/train/traj_1024_to_1025.tfrecords"),
        ("train/traj_1024_to_1025/1", "train", FRAMES, "softmotion30_44k/train/traj_1024_to_1025.tfrecords"),
        ("test/traj_0_to_1/0", "test", FRAMES, "softmotion30_44k/test/traj_0_to_1.tfrecords"),
        ("test/traj_0_to_1/1", "test", FRAMES, "softmotion30_44k/test/traj_0_to_1.tfrecords"),
    ]
    for seed, clip in zip((2, 0, 1, 3, 4), found.clips, strict=True):
        clip = pickle.loads(pickle.dumps(clip))  # noqa: S301
        for start, stop in ((0, FRAMES), (1, 2), (3, 5)):
            frames, rows = clip.frames(start, stop), clip.rows(start, stop)
            expected = [pixels(seed, "image_aux1", i) for i in range(start, stop)]
            np.testing.assert_array_equal(frames.values, np.stack(expected))
            np.testing.assert_array_equal(rows.values, np.stack([numbers(seed, i) for i in range(start, stop)]))
            assert (frames.values.dtype, rows.values.dtype) == (np.uint8, np.float32)
            assert not frames.faults
            assert not rows.faults


def test_the_inner_folder_is_a_source_too_and_names_stay_the_same(source: Path):
    outer, inner = survey(source, Options()), survey(source / "softmotion30_44k", Options())
    assert [clip.name for clip in inner.clips] == [clip.name for clip in outer.clips]
    assert recognises(source)
    assert recognises(source / "softmotion30_44k")
    assert not recognises(source / "softmotion30_44k" / "train")
    assert not recognises(source / "nowhere")


def test_a_folder_val_is_validation(source: Path):
    root = source / "softmotion30_44k"
    (root / "val").mkdir()
    (root / "train" / "traj_256_to_256.tfrecords").rename(root / "val" / "traj_256_to_256.tfrecords")
    assert [clip.split for clip in survey(source, Options()).clips] == ["train", "train", "val", "test", "test"]


@pytest.mark.parametrize(("asked", "camera"), [("", "image_aux1"), ("aux1", "image_aux1"), ("main", "image_main"),
                                               ("image_main", "image_main"), ("image_aux1", "image_aux1")])  # fmt: skip
def test_the_camera_is_aux1_or_the_one_asked_for(source: Path, asked: str, camera: str):
    found = survey(source, Options(camera=asked))
    np.testing.assert_array_equal(found.clips[0].frames(2, 3).values[0], pixels(2, camera, 2))
    assert f"camera {camera};" in found.notes[0]


def test_another_camera_is_refused(source: Path):
    with pytest.raises(UsageError, match=r"camera: expected one of image_aux1.*did you mean 'image_main'"):
        survey(source, Options(camera="image_man"))


def test_a_camera_that_is_not_recorded_is_a_fault(tmp_path: Path):
    lonely = {key: value for key, value in features(0).items() if "aux1" not in key}
    write(tmp_path / "test" / "traj_0_to_0.tfrecords", [lonely])
    (fault,) = survey(tmp_path, Options()).faults
    assert fault.found == "none; cameras there: image_main"
    assert survey(tmp_path, Options(camera="main")).faults == ()


def test_fewer_records_than_the_name_says_are_a_fault(tmp_path: Path):
    write(tmp_path / "train" / "traj_0_to_2.tfrecords", [features(0), features(1)])
    (fault,) = survey(tmp_path, Options()).faults
    assert str(fault) == "train/traj_0_to_2.tfrecords: expected 3 records as its name says, found 2"


def test_a_missing_picture_and_a_missing_action_are_faults_of_their_frames(tmp_path: Path):
    record = features(1)
    del record["2/image_aux1/encoded"], record["4/action"], record["1/image_main/encoded"]
    found = one(tmp_path, record)
    faults = faults_of(found)
    assert sorted(faults) == [2, 4]
    start = len(framed(packed_example(features(0)), crc32c))
    assert str(faults[2][0]) == (
        f"train/traj_0_to_1.tfrecords, record 1 at byte {start}, frame 2: expected one byte string "
        "2/image_aux1/encoded of 108 bytes, found none"
    )
    assert "4 finite floats 4/action, found none" in str(faults[4][0])
    assert not found.clips[1].frames(2, 3).values.any()
    assert sorted(found.clips[1].frames(1, 5).faults) == [1]
    assert faults_of(found, 0) == {}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("3/action", floats(1, 2, 3), "4 finite floats 3/action, found 3: 1 2 3"),
        ("3/action", floats(1, 2, 3, 4, 5), "found 5: 1 2 3 4 5"),
        ("3/action", floats(*range(9)), "found 9 floats"),
        ("3/action", floats(1, float("nan"), 3, 4), "found 4: 1 nan 3 4"),
        ("3/endeffector_pos", floats(1, float("-inf"), 3), "3 finite floats 3/endeffector_pos, found 3: 1 -inf 3"),
        ("3/endeffector_pos", whole(1, -2, 3), "found 3 whole numbers"),
        ("3/action", strings(b"abcd"), "found a byte string of 4 bytes"),
        ("3/image_aux1/encoded", strings(bytes(107)), "of 108 bytes, found a byte string of 107 bytes"),
        ("3/image_aux1/encoded", strings(bytes(54), bytes(54)), "found 2 byte strings"),
        ("3/image_aux1/encoded", b"", "found 0 byte strings"),
        ("3/image_aux1/encoded", floats(1.5), "found 1: 1.5"),
    ],
)
def test_a_wrong_feature_is_a_fault_of_its_frame(tmp_path: Path, key: str, value: bytes, words: str):
    faults = faults_of(one(tmp_path, {**features(1), key: value}))
    assert sorted(faults) == [3]
    assert ", frame 3: " in str(faults[3][0])
    assert words in str(faults[3][0])


@pytest.mark.parametrize("frames", [FRAMES - 1, FRAMES + 1, 0])
def test_a_record_with_another_number_of_frames_is_a_fault_of_that_clip(tmp_path: Path, frames: int):
    found = one(tmp_path, features(1, frames))
    assert found.faults == ()
    assert faults_of(found, 0) == {}
    for read in (found.clips[1].frames, found.clips[1].rows):
        with pytest.raises(DataError, match=f"{FRAMES} frames as in other records of the file, found {frames}"):
            read(0, FRAMES)


def test_a_damaged_first_record_costs_its_own_clip_only(tmp_path: Path):
    path = write(tmp_path / "train" / "traj_0_to_1.tfrecords", [features(0), features(1)])
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    found = survey(tmp_path, Options())
    assert found.faults == ()
    assert faults_of(found, 1) == {}
    with pytest.raises(DataError, match="record 0 at byte 0: expected data that fits its CRC"):
        found.clips[0].frames(0, 1)


def test_pictures_of_another_size_are_taken_if_square_and_alike(tmp_path: Path):
    big, small = [features(seed, side=side) for seed, side in ((0, 9), (1, SIDE))]
    write(tmp_path / "train" / "traj_0_to_0.tfrecords", [big])
    assert survey(tmp_path, Options()).size == (9, 9)
    write(tmp_path / "train" / "traj_1_to_1.tfrecords", [small])
    found = survey(tmp_path, Options())
    (fault,) = found.faults
    assert "pictures of 9x9 as in the files before it, found 6x6" in str(fault)
    assert len(found.clips) == 1
    write(tmp_path / "train" / "traj_1_to_1.tfrecords", [{**big, "0/image_aux1/encoded": strings(b"\xff\xd8" * 50)}])
    (fault,) = survey(tmp_path, Options()).faults
    assert "3*n*n bytes of a square picture" in fault.expected
    assert fault.found == "a byte string of 100 bytes"


def test_a_file_changed_between_two_reads_is_not_read_from_memory(source: Path):
    clip = survey(source, Options()).clips[0]
    clip.frames(0, 2)
    path = source / clip.file
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="wrong CRC"):
        clip.frames(2, 4)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        clip.frames(2, 4)


def test_no_more_than_a_few_trajectories_are_kept(source: Path):
    for clip in survey(source, Options()).clips:
        clip.frames(0, 1)
        clip.rows(0, 1)
    assert len(bair_tfrecord._TRAJECTORIES) == bair_tfrecord.KEPT


def test_folders_without_such_files_and_other_files_are_told(source: Path):
    (source / "softmotion30_44k" / "train" / "notes.txt").write_text("x")
    assert survey(source, Options()).notes[1:] == ("1 other file not used: softmotion30_44k/train/notes.txt",)
    empty = source / "empty"
    (empty / "train").mkdir(parents=True)
    assert "files named like" in str(survey(empty, Options()).faults[0])
    (empty / "train").rmdir()
    assert survey(empty, Options()).faults[0].found == "no clip"
    assert survey(empty, Options()).size is None


@pytest.mark.parametrize("damage", ["half", "empty", "garbage"])
def test_damage_to_any_file_of_the_example_is_a_fault_that_names_it(tmp_path: Path, damage: str):
    example(tmp_path)
    assert recognises(tmp_path)
    assert all_faults(tmp_path) == []
    assert {clip.split for clip in survey(tmp_path, Options()).clips} == {"train", "val", "test"}
    for path in (path for path in sorted(tmp_path.rglob("*")) if path.is_file()):
        good = path.read_bytes()
        path.write_bytes({"half": good[: len(good) // 2], "empty": b"", "garbage": b"no such thing\n" * 99}[damage])
        assert path.relative_to(tmp_path).as_posix() in {fault.path for fault in all_faults(tmp_path)}
        path.write_bytes(good)


def test_a_name_that_counts_backwards_is_a_fault(source: Path):
    folder = source / "softmotion30_44k" / "train"
    (folder / "traj_1024_to_1025.tfrecords").rename(folder / "traj_1025_to_1024.tfrecords")
    assert [str(fault) for fault in all_faults(source)] == [
        "softmotion30_44k/train/traj_1025_to_1024.tfrecords: expected a name from a first to a last trajectory, "
        "found 1025 to 1024"
    ]
    assert {clip.name.split("/")[1] for clip in survey(source, Options()).clips} == {
        "traj_256_to_256", "traj_0_to_1"
    }  # fmt: skip


def test_a_folder_named_like_a_file_is_a_fault(source: Path):
    (source / "softmotion30_44k" / "test" / "traj_2_to_3.tfrecords").mkdir()
    assert [str(fault) for fault in all_faults(source)] == [
        "softmotion30_44k/test/traj_2_to_3.tfrecords: expected a TFRecord file, found a folder"
    ]


@pytest.mark.parametrize(
    ("picture", "found"),
    [(floats(1.0, 2.0), "2: 1 2"), (strings(b"a", b"b"), "2 byte strings")],
)
def test_a_first_picture_that_is_none_is_a_fault_of_the_file(tmp_path: Path, picture: bytes, found: str):
    write(tmp_path / "train" / "traj_0_to_0.tfrecords", [features(0) | {"0/image_aux1/encoded": picture}])
    (fault,) = all_faults(tmp_path)
    assert str(fault).endswith(f"expected one byte string 0/image_aux1/encoded, found {found}")
