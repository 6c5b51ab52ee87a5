"""Episodes in .npz against files of numpy: what is read as what, and every fault told by name."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foreframe.data.formats import npz
from foreframe.data.layouts import npz_episodes, rlds_npz
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    npz._ARRAYS.clear()
    npz._ARCHIVES.clear()


def images(length: int = 9) -> NDArray[np.uint8]:
    return RNG.integers(0, 255, (length, 12, 16, 3)).astype(np.uint8)


def saved(path: Path, **arrays: Any) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return arrays


def words(survey: SourceIndex) -> list[str]:
    return [str(fault) for fault in (*survey.faults, *(fault for clip in survey.clips for fault in clip.faults))]


def told(folder: Path) -> str:
    (found,) = words(npz_episodes.survey(folder, Options()))
    return found


def only(folder: Path) -> SourceClip:
    survey = npz_episodes.survey(folder, Options())
    assert words(survey) == []
    (clip,) = survey.clips
    return pickle.loads(pickle.dumps(clip))  # noqa: S301 - as another process gets it


def test_pictures_and_rows_are_those_of_the_file(tmp_path: Path):
    arrays = saved(tmp_path / "a.npz", image=images(), action=RNG.normal(size=(9, 4)), state=RNG.normal(size=(9, 7)))
    assert npz_episodes.recognises(tmp_path)
    assert not rlds_npz.recognises(tmp_path)
    survey = npz_episodes.survey(tmp_path, Options())
    assert (survey.size, survey.cond, survey.chosen, survey.shift) == ((12, 16), "vector", ("action.*",), 1)
    assert survey.columns == (*(f"action.{n}" for n in range(4)), *(f"state.{n}" for n in range(7)))
    clip = only(tmp_path)
    assert (clip.name, clip.split, clip.length) == ("a.npz", "", 9)
    rows = np.concatenate([arrays["action"], arrays["state"]], axis=1).astype(np.float32)
    for start, stop in ((0, 9), (0, 3), (3, 8), (2, 4), (8, 9)):
        np.testing.assert_array_equal(clip.frames(start, stop).values, arrays["image"][start:stop])
        assert clip.rows is not None
        np.testing.assert_array_equal(clip.rows(start, stop).values, rows[start:stop])


def test_folders_are_splits(tmp_path: Path):
    for name in ("train/a", "train/deep/b", "val/a", "valid/c", "validation/d", "test/a", "other/a", "e"):
        saved(tmp_path / f"{name}.npz", image=images(), action=np.zeros((9, 2)))
    survey = npz_episodes.survey(tmp_path, Options())
    assert {clip.name: clip.split for clip in survey.clips} == {
        "train/a.npz": "train",
        "train/deep/b.npz": "train",
        "val/a.npz": "val",
        "valid/c.npz": "val",
        "validation/d.npz": "val",
        "test/a.npz": "test",
        "other/a.npz": "",
        "e.npz": "",
    }


@pytest.mark.parametrize("name", ["image", "images", "frames", "obs"])
@pytest.mark.parametrize("action", ["action", "actions"])
def test_the_usual_names_of_arrays_are_known(tmp_path: Path, name: str, action: str):
    arrays = saved(tmp_path / "a.npz", **{name: images(), action: np.arange(9)}, proprio=np.ones((9, 1)), x=np.zeros(3))
    clip = only(tmp_path)
    np.testing.assert_array_equal(clip.frames(0, 9).values, arrays[name])
    assert clip.rows is not None
    np.testing.assert_array_equal(clip.rows(2, 4).values, [[2, 1], [3, 1]])
    assert npz_episodes.survey(tmp_path, Options()).notes == ("arrays not used: x",)


def test_channels_first_and_grey_are_turned(tmp_path: Path):
    colour = images()
    forms = {
        "first": np.moveaxis(colour, -1, 1),
        "one_last": colour[..., :1],
        "one_first": colour[:, None, :, :, 0],
        "plain": colour[..., 0],
    }
    for name, values in forms.items():
        saved(tmp_path / name / "a.npz", image=values)
        grey = np.repeat(colour[..., :1], 3, axis=-1)
        expected = colour if name == "first" else grey
        np.testing.assert_array_equal(only(tmp_path / name).frames(3, 7).values, expected[3:7])


def test_of_t_minus_1_actions_the_last_stands_twice(tmp_path: Path):
    arrays = saved(tmp_path / "a.npz", image=images(), action=RNG.normal(size=(8, 2)).astype(np.float32))
    clip = only(tmp_path)
    assert clip.rows is not None
    for start, stop in ((0, 9), (6, 9), (8, 9)):
        np.testing.assert_array_equal(clip.rows(start, stop).values, arrays["action"][[*range(start, 8), 7]])


def test_pictures_alone_are_clips_without_condition(tmp_path: Path):
    saved(tmp_path / "a.npz", image=images())
    survey = npz_episodes.survey(tmp_path, Options())
    assert (survey.cond, survey.columns, survey.chosen, survey.clips[0].rows) == ("none", (), (), None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"picture": images()}, "c.npz: expected an array image, images, frames or obs, found only picture"),
        (
            {"image": images() / np.float32(255)},
            "scale them to 0 to 255, round, and save them as uint8, found float32 of shape (9, 12, 16, 3)",
        ),
        ({"image": images().astype(np.int32)}, "c.npz, image: expected pictures as uint8 (T, H, W, 3), found int32"),
        (
            {"image": np.zeros((9, 12, 16, 4), np.uint8)},
            "expected pictures as uint8 (T, H, W, 3), found uint8 of shape",
        ),
        ({"image": np.zeros((9, 12), np.uint8)}, "expected pictures as uint8 (T, H, W, 3), found uint8 of shape"),
        ({"image": np.zeros((9, 0, 16, 3), np.uint8)}, "expected 1x1 to 8192x8192 pixels, found 16x0"),
        ({"image": np.array([b"jpg", None], object)}, "found Python objects (a pickle), which are never read"),
        (
            {"image": images(), "action": np.zeros((5, 2))},
            "c.npz, action: expected 9 rows, one for each frame, found 5",
        ),
        ({"image": images(), "action": np.zeros((9, 2, 2))}, "expected a row of numbers for each frame, found shape"),
        ({"image": images(), "action": np.array(["up"] * 9)}, "a row of numbers for each frame, found texts"),
        ({"image": images(), "action": np.array([{}] * 9)}, "found Python objects (a pickle), which are never read"),
        ({"image": images(), "action": np.zeros((9, 3))}, "expected action of 2 numbers, as in most files, found 3"),
        ({"image": images()}, "c.npz: expected action of 2 numbers, as in most files, found no action"),
        (
            {"image": images(), "action": np.zeros((9, 2)), "actions": np.zeros((9, 2))},
            "expected one array of each action, found action and actions",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_file_and_array(tmp_path: Path, arrays: dict[str, Any], message: str):
    for name in ("a", "b"):
        saved(tmp_path / f"{name}.npz", image=images(), action=np.zeros((9, 2)))
    saved(tmp_path / "c.npz", **arrays)
    found = told(tmp_path)
    assert found.startswith("c.npz")
    assert message in found


def test_states_that_some_files_lack_are_left_out_with_a_note(tmp_path: Path):
    saved(tmp_path / "a.npz", image=images(), action=np.zeros((9, 2)), state=np.zeros((9, 3)))
    saved(tmp_path / "b.npz", image=images(), action=np.zeros((9, 2)))
    survey = npz_episodes.survey(tmp_path, Options())
    assert survey.columns == ("action.0", "action.1")
    assert survey.notes == ("state: not used, for clips differ in how many numbers it has (no in 1, 3 in 1)",)
    assert words(survey) == []


def test_numbers_that_are_not_finite_are_told_with_frame_and_column(tmp_path: Path):
    action = np.zeros((9, 4))
    action[5, 1] = np.nan
    action[7, 2] = 1e200
    saved(tmp_path / "a.npz", image=images(), action=action)
    rows = only(tmp_path).rows
    assert rows is not None
    assert {index: str(fault) for index, (fault,) in rows(4, 9).faults.items()} == {
        1: "a.npz, frame 5, action.1: expected a finite number within float32, found nan",
        3: "a.npz, frame 7, action.2: expected a finite number within float32, found 1e+200",
    }


def test_files_that_cannot_be_read_are_faults_beside_good_clips(tmp_path: Path):
    saved(tmp_path / "a.npz", image=images(), action=np.zeros((9, 2)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.npz").write_bytes(pickle.dumps({"image": images()}))
    (tmp_path / "d.npz").write_bytes(b"")
    survey = npz_episodes.survey(tmp_path, Options())
    assert [clip.name for clip in survey.clips] == ["a.npz"]
    assert [fault.path for fault in survey.faults] == ["b.npz", "c.npz", "d.npz"]


def test_a_wrong_crc_is_a_fault_when_the_pictures_are_read(tmp_path: Path):
    np.savez(tmp_path / "a.npz", image=images(), action=np.zeros((9, 2)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DataError) as error:
        only(tmp_path).frames(0, 1)
    assert error.value.faults[0].path == "a.npz"


def test_a_link_to_a_folder_around_it_or_out_of_the_source_is_a_fault(tmp_path: Path):
    saved(tmp_path / "src" / "train" / "a.npz", image=images())
    saved(tmp_path / "outside" / "b.npz", image=images())
    (tmp_path / "src" / "train" / "again").symlink_to(tmp_path / "src", target_is_directory=True)
    (tmp_path / "src" / "out").symlink_to(tmp_path / "outside", target_is_directory=True)
    survey = npz_episodes.survey(tmp_path / "src", Options())
    assert [clip.name for clip in survey.clips] == ["train/a.npz"]
    assert [fault.path for fault in survey.faults] == ["out", "train/again"]


def test_memory_stays_flat_over_many_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(npz._ARRAYS, "limit", 2**20)
    for number in range(30):
        saved(tmp_path / f"{number}.npz", image=np.full((100, 32, 32, 3), number, np.uint8), action=np.zeros((100, 4)))
    survey = npz_episodes.survey(tmp_path, Options())
    tracemalloc.start()
    for clip in survey.clips:
        for start in range(0, 100, 25):
            assert clip.frames(start, start + 25).values.any() or clip.name == "0.npz"
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path):
    assert not npz_episodes.recognises(tmp_path)
    assert npz_episodes.LOOKS_FOR in told(tmp_path)


def test_an_array_without_pictures_is_a_fault(tmp_path: Path):
    saved(tmp_path / "a.npz", image=np.zeros((0, 12, 16, 3), np.uint8))
    assert told(tmp_path) == "a.npz, image: expected pictures, found none, with shape (0, 12, 16, 3)"


def test_actions_that_most_files_lack_are_left_out_with_a_note(tmp_path: Path):
    saved(tmp_path / "a.npz", image=images(), action=np.zeros((9, 2)))
    for name in "bc":
        saved(tmp_path / f"{name}.npz", image=images())
    survey = npz_episodes.survey(tmp_path, Options())
    assert words(survey) == []
    assert (survey.cond, survey.columns) == ("none", ())
    assert survey.notes == ("action: not used, for clips differ in how many numbers it has (no in 2, 2 in 1)",)


def test_folders_of_numbers_come_by_their_number(tmp_path: Path):
    for number in (10, 9, 1):
        saved(tmp_path / "train" / f"{number}" / "a.npz", image=images(2))
    assert [clip.name for clip in npz_episodes.survey(tmp_path, Options()).clips] == [
        f"train/{number}/a.npz" for number in (1, 9, 10)
    ]
