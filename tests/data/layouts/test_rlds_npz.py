"""Flattened RLDS against files of numpy: episodes, invalid last actions, names, and every fault told by name."""

from __future__ import annotations

import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.formats import npz
from foreframe.data.layouts import npz_episodes, rlds_npz
from foreframe.data.layouts.contract import SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import UsageError


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    npz._ARRAYS.clear()
    npz._ARCHIVES.clear()


def steps(*lengths: int, **others: Any) -> dict[str, Any]:
    """Arrays of episodes of these lengths in a row; the last action of each is not valid."""
    rng = np.random.default_rng(sum(lengths))
    count = sum(lengths)
    ends = np.cumsum(lengths)
    first, last, action = np.zeros(count, bool), np.zeros(count, bool), rng.normal(size=(count, 4))
    first[[0, *ends[:-1]]] = True
    last[ends - 1] = True
    action[ends - 1] = np.nan
    found = {
        "observation/image": rng.integers(0, 255, (count, 12, 16, 3)).astype(np.uint8),
        "observation/wrist_image": rng.integers(0, 255, (count, 12, 16, 3)).astype(np.uint8),
        "observation/state": rng.normal(size=(count, 7)).astype(np.float32),
        "observation/gripper": np.arange(count, dtype=np.float64),
        "observation/depth": np.zeros((count, 12, 16), np.float32),
        "action": action,
        "is_first": first,
        "is_last": last,
        "is_terminal": last,
        "reward": np.full(count, np.nan),
        "discount": np.ones(count),
        "language_instruction": np.array(["push it"] * count),
    } | others
    return {name: values for name, values in found.items() if values is not None}


def saved(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def words(survey: SourceIndex) -> list[str]:
    return [str(fault) for fault in (*survey.faults, *(fault for clip in survey.clips for fault in clip.faults))]


def told(folder: Path) -> str:
    (found,) = words(rlds_npz.survey(folder, Options()))
    return found


@pytest.mark.parametrize("style", ["{}", "steps/{}", "."])
def test_episodes_begin_at_is_first_and_rows_are_those_of_the_file(tmp_path: Path, style: str):
    arrays = steps(5, 3, 9)
    saved(
        tmp_path / "train" / "x.npz",
        {name.replace("/", ".") if style == "." else style.format(name): values for name, values in arrays.items()},
    )
    assert rlds_npz.recognises(tmp_path)
    assert not npz_episodes.recognises(tmp_path)
    survey = rlds_npz.survey(tmp_path, Options())
    assert words(survey) == []
    assert (survey.size, survey.cond, survey.chosen, survey.shift) == ((12, 16), "vector", ("action.*",), 1)
    assert survey.columns == (
        *(f"action.{n}" for n in range(4)),
        *(f"observation.state.{n}" for n in range(7)),
        "observation.gripper.0",
    )
    assert [(clip.name, clip.split, clip.length) for clip in survey.clips] == [
        ("train/x.npz/0", "train", 5),
        ("train/x.npz/1", "train", 3),
        ("train/x.npz/2", "train", 9),
    ]
    action = arrays["action"].copy()
    action[[4, 7, 16]] = action[[3, 6, 15]]
    rows = np.concatenate([action, arrays["observation/state"], arrays["observation/gripper"][:, None]], axis=1)
    for clip, begin in zip(survey.clips, (0, 5, 8), strict=True):
        clip = pickle.loads(pickle.dumps(clip))  # noqa: S301 - as another process gets it
        for start, stop in ((0, clip.length), (1, 2), (clip.length - 1, clip.length)):
            place = slice(begin + start, begin + stop)
            np.testing.assert_array_equal(clip.frames(start, stop).values, arrays["observation/image"][place])
            assert clip.rows is not None
            piece = clip.rows(start, stop)
            np.testing.assert_array_equal(piece.values, rows[place].astype(np.float32))
            assert not piece.faults


def test_a_file_of_one_episode_is_named_without_a_number_and_needs_no_flags(tmp_path: Path):
    saved(tmp_path / "a.npz", steps(6, is_first=None, is_last=None))
    saved(tmp_path / "b.npz", steps(6, is_last=None))
    saved(tmp_path / "c.npz", steps(6, 4, is_first=None))
    survey = rlds_npz.survey(tmp_path, Options())
    assert words(survey) == []
    names = [(clip.name, clip.length) for clip in survey.clips]
    assert names == [("a.npz", 6), ("b.npz", 6), ("c.npz/0", 6), ("c.npz/1", 4)]


def test_a_last_action_that_is_finite_stays(tmp_path: Path):
    action = np.arange(20.0).reshape(5, 4)
    saved(tmp_path / "a.npz", steps(5, action=action))
    (clip,) = rlds_npz.survey(tmp_path, Options()).clips
    assert clip.rows is not None
    np.testing.assert_array_equal(clip.rows(3, 5).values[:, :4], action[3:])


def test_actions_in_several_arrays_are_all_condition(tmp_path: Path):
    others = {"action": None, "action/rotation": np.ones((5, 3)), "action/gripper": np.full((5, 1), 2.0)}
    saved(tmp_path / "a.npz", steps(5, **others))
    survey = rlds_npz.survey(tmp_path, Options())
    assert survey.columns[:4] == ("action.rotation.0", "action.rotation.1", "action.rotation.2", "action.gripper.0")
    assert survey.chosen == ("action.*",)


def test_a_camera_may_be_chosen_and_the_others_are_noted(tmp_path: Path):
    arrays = steps(5)
    saved(tmp_path / "a.npz", arrays)
    notes = rlds_npz.survey(tmp_path, Options()).notes
    assert notes[0] == "pictures of image; also there: wrist_image (--camera)"
    assert notes[1] == "arrays not used: language_instruction, observation/depth"
    for name in ("wrist_image", "observation/wrist_image"):
        (clip,) = rlds_npz.survey(tmp_path, Options(camera=name)).clips
        np.testing.assert_array_equal(clip.frames(0, 5).values, arrays["observation/wrist_image"])
    with pytest.raises(UsageError, match="did you mean 'wrist_image'"):
        rlds_npz.survey(tmp_path, Options(camera="wrist_imag"))


def flags(count: int, *places: int) -> Any:
    found = np.zeros(count, bool)
    found[[*places]] = True
    return found


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"observation/image": None, "observation/wrist_image": None}, "expected pictures, found none"),
        ({"observation/image": np.zeros((9, 12, 16, 3), np.float32)}, "scale them to 0 to 255, round, and save"),
        ({"observation/image": np.zeros((9, 12, 16, 4), np.uint8)}, "found uint8 of shape (9, 12, 16, 4)"),
        ({"observation/image": np.zeros((8, 12, 16, 3), np.uint8)}, "expected 9 rows, one for each step, found 8"),
        ({"action": np.zeros((8, 4))}, "c.npz, action: expected 9 rows, one for each step, found 8"),
        ({"action": np.zeros((9, 2))}, "expected action of 4 numbers, as in most files, found 2"),
        ({"action": None}, "c.npz: expected action of 4 numbers, as in most files, found no action"),
        ({"action": np.array([{}] * 9)}, "found Python objects (a pickle), which are never read"),
        ({"is_first": flags(9, 3)}, "is_first: expected step 0 to be the first of an episode, found false"),
        ({"is_last": flags(9, 2, 8)}, "is_last: expected step 2 to be no last one of an episode, found true"),
        ({"is_last": flags(9, 4)}, "is_last: expected step 8 to be the last one of an episode, found false"),
        ({"is_last": flags(8, 4)}, "is_last: expected 9 flags, one for each step, found shape (8,)"),
        ({"is_last": np.full(9, 7)}, "is_last: expected flags: true or false, found 7"),
        ({"is_last": np.array(["no"] * 9)}, "is_last: expected 9 flags, one for each step, found texts"),
        ({"steps/action": np.zeros((9, 4))}, "expected one array for each field, found also"),
    ],
)
def test_what_does_not_fit_is_told_with_file_and_array(tmp_path: Path, others: dict[str, Any], message: str):
    for name in ("a", "b", "d"):
        saved(tmp_path / f"{name}.npz", steps(9))
    arrays = steps(5, 4) if "is_last" in others and len(others["is_last"]) == 9 else steps(9)
    arrays = {name: values for name, values in (arrays | others).items() if values is not None}
    saved(tmp_path / "c.npz", arrays)
    found = told(tmp_path)
    assert found.startswith("c.npz")
    assert message in found
    assert len(rlds_npz.survey(tmp_path, Options()).clips) == 3


def test_numbers_that_are_not_finite_are_told_with_frame_and_column(tmp_path: Path):
    arrays = steps(5, 6)
    arrays["action"][7, 3] = np.inf
    arrays["observation/state"][10, 2] = np.nan
    saved(tmp_path / "a.npz", arrays)
    clip = rlds_npz.survey(tmp_path, Options()).clips[1]
    assert clip.rows is not None
    assert [str(fault) for (fault,) in clip.rows(0, 6).faults.values()] == [
        "a.npz, episode 1, frame 2, action.3: expected a finite number within float32, found inf",
        "a.npz, episode 1, frame 5, observation.state.2: expected a finite number within float32, found nan",
    ]


def test_the_only_action_of_an_episode_of_one_step_may_not_be_missing(tmp_path: Path):
    saved(tmp_path / "a.npz", steps(1, 4))
    clip = rlds_npz.survey(tmp_path, Options()).clips[0]
    assert clip.rows is not None
    assert "frame 0, action.0" in str(clip.rows(0, 1).faults[0][0])


def test_files_that_cannot_be_read_are_faults_beside_good_clips(tmp_path: Path):
    saved(tmp_path / "a.npz", steps(9))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.npz").write_bytes(pickle.dumps(steps(4)))
    np.savez(tmp_path / "d.npz", image=np.zeros((4, 8, 8, 3), np.uint8))
    survey = rlds_npz.survey(tmp_path, Options())
    assert [clip.name for clip in survey.clips] == ["a.npz"]
    assert [fault.path for fault in survey.faults] == ["b.npz", "c.npz", "d.npz"]
    assert "expected an array observation/image, found only image" in words(survey)[2]


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path):
    assert not rlds_npz.recognises(tmp_path)
    assert rlds_npz.LOOKS_FOR in told(tmp_path)


def test_arrays_whose_names_cannot_be_printed_are_noted_and_left(tmp_path: Path):
    saved(tmp_path / "a.npz", steps(9, **{"observation/a\tb": np.zeros((9, 3))}))
    survey = rlds_npz.survey(tmp_path, Options())
    assert words(survey) == []
    assert "observation/a\\tb" in survey.notes[1]
    assert not any("\t" in name for name in survey.columns)


def test_an_array_that_cannot_be_read_is_a_fault_of_its_file(tmp_path: Path):
    saved(tmp_path / "a.npz", steps(9))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("observation/wrist.npy", b"no array")
    assert told(tmp_path) == "a.npz, observation/wrist: expected an array in numpy's format, found something else"


@pytest.mark.parametrize("count", [0, 2**20 + 1])
def test_a_file_has_some_steps_but_no_more_than_can_be_kept_in_mind(tmp_path: Path, count: int):
    saved(tmp_path / "a.npz", steps(9, is_first=np.zeros(count, bool), is_last=None))
    tracemalloc.start()
    assert told(tmp_path) == (f"a.npz, is_first: expected a row for each of 1 to 1048576 steps, found shape ({count},)")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
