"""robomimic and VP2 against files built here with h5py: what is read as what, and every fault told by name."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foreframe.data.formats import hdf5
from foreframe.data.layouts import robomimic, robonet
from foreframe.data.layouts.contract import SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import UsageError

h5py = pytest.importorskip("h5py")

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    close_all()


def close_all() -> None:
    hdf5._STORES.clear()


def demonstration(number: int, length: int = 9, **others: Any) -> Arrays:
    rng = np.random.default_rng(number)
    found = {
        "actions": rng.normal(size=(length, 7)),
        "states": rng.normal(size=(length, 32)),
        "obs/agentview_image": rng.integers(0, 255, (length, 12, 16, 3)).astype(np.uint8),
        "obs/robot0_eye_in_hand_image": rng.integers(0, 255, (length, 12, 16, 3)).astype(np.uint8),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "next_obs/agentview_image": np.zeros((length, 12, 16, 3), np.uint8),
        "rewards": np.zeros(length),
    } | others
    return {name: values for name, values in found.items() if values is not None}


def written(path: Path, demos: dict[str, Arrays], masks: dict[str, Any] | None = None, **how: Any) -> None:
    close_all()
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", **how) as file:
        for demo, arrays in demos.items():
            for name, values in arrays.items():
                file.create_dataset(f"data/{demo}/{name}", data=values)
            file[f"data/{demo}"].attrs["num_samples"] = len(next(iter(arrays.values())))
            file[f"data/{demo}"].attrs["model_file"] = "<mujoco/>" * 1000
        file.require_group("data").attrs["env_args"] = "{}"
        for mask, names in (masks or {}).items():
            file[f"mask/{mask}"] = np.array(names, "S") if isinstance(names, list) else names


def words(survey: SourceIndex) -> list[str]:
    return [str(fault) for fault in (*survey.faults, *(fault for clip in survey.clips for fault in clip.faults))]


def told(folder: Path) -> str:
    (found,) = words(robomimic.survey(folder, Options()))
    return found


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_demonstrations_come_in_the_order_of_their_numbers_with_masks_as_splits(tmp_path: Path, libver: str):
    demos = {f"demo_{number}": demonstration(number, 5 + number) for number in (0, 1, 2, 9, 10, 11)}
    masks = {"train": ["demo_0", "demo_10"], "valid": ["demo_2"], "test": ["demo_9"], "20_percent_train": ["demo_1"]}
    written(tmp_path / "lift.hdf5", demos, masks, libver=libver)
    assert robomimic.recognises(tmp_path)
    assert not robonet.recognises(tmp_path)
    survey = robomimic.survey(tmp_path, Options())
    assert words(survey) == []
    assert [(clip.name, clip.split, clip.length) for clip in survey.clips] == [
        ("lift.hdf5/demo_0", "train", 5),
        ("lift.hdf5/demo_1", "", 6),
        ("lift.hdf5/demo_2", "val", 7),
        ("lift.hdf5/demo_9", "test", 14),
        ("lift.hdf5/demo_10", "train", 15),
        ("lift.hdf5/demo_11", "", 16),
    ]
    assert {clip.file for clip in survey.clips} == {"lift.hdf5"}
    assert (survey.size, survey.cond, survey.chosen, survey.shift) == ((12, 16), "vector", ("action.*",), 1)


def test_pictures_and_all_columns_are_those_of_the_file(tmp_path: Path):
    demos = {"demo_0": demonstration(0), "demo_1": demonstration(1, 30)}
    written(tmp_path / "a" / "x.hdf5", demos)
    survey = robomimic.survey(tmp_path, Options())
    assert survey.columns == (
        *(f"action.{n}" for n in range(7)),
        *(f"state.{n}" for n in range(32)),
        *(f"obs.robot0_eef_pos.{n}" for n in range(3)),
    )
    for clip, arrays in zip(survey.clips, demos.values(), strict=True):
        clip = pickle.loads(pickle.dumps(clip))  # noqa: S301 - as another process gets it
        rows = np.concatenate([arrays["actions"], arrays["states"], arrays["obs/robot0_eef_pos"]], axis=1)
        for start, stop in ((0, clip.length), (2, 5), (5, 6), (clip.length - 1, clip.length)):
            np.testing.assert_array_equal(clip.frames(start, stop).values, arrays["obs/agentview_image"][start:stop])
            assert clip.rows is not None
            piece = clip.rows(start, stop)
            np.testing.assert_array_equal(piece.values, rows[start:stop].astype(np.float32))
            assert not piece.faults


def test_of_t_minus_1_actions_the_last_stands_twice(tmp_path: Path):
    arrays = demonstration(0)
    arrays["actions"] = arrays["actions"][:-1]
    written(tmp_path / "x.hdf5", {"demo_0": arrays | {}})
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file["data/demo_0"].attrs["num_samples"] = 8
    (clip,) = robomimic.survey(tmp_path, Options()).clips
    assert (clip.faults, clip.length) == ((), 9)
    assert clip.rows is not None
    for start, stop in ((6, 9), (8, 9)):
        expected = arrays["actions"][[*range(start, 8), 7]].astype(np.float32)
        np.testing.assert_array_equal(clip.rows(start, stop).values[:, :7], expected)


def test_vp2_cameras_come_first_then_the_first_by_name(tmp_path: Path):
    picture = demonstration(3)["obs/agentview_image"]
    for folder, key in (("suite", "agentview_shift_2_image"), ("desk", "camera_image"), ("plain", "zzz_image")):
        written(tmp_path / folder / "x.hdf5", {"demo_1": demonstration(1, **{f"obs/{key}": picture})})
        survey = robomimic.survey(tmp_path / folder, Options())
        taken = picture if folder != "plain" else demonstration(1)["obs/agentview_image"]
        np.testing.assert_array_equal(survey.clips[0].frames(0, 9).values, taken)
        there = "robot0_eye_in_hand_image, zzz_image" if folder == "plain" else "agentview_image, robot0_eye"
        assert there in survey.notes[0]


def test_a_camera_may_be_named_with_or_without_its_ending(tmp_path: Path):
    written(tmp_path / "x.hdf5", {"demo_1": demonstration(1)})
    wanted = demonstration(1)["obs/robot0_eye_in_hand_image"]
    for camera in ("robot0_eye_in_hand_image", "robot0_eye_in_hand"):
        (clip,) = robomimic.survey(tmp_path, Options(camera=camera)).clips
        np.testing.assert_array_equal(clip.frames(0, 9).values, wanted)
    with pytest.raises(UsageError, match="did you mean 'agentview_image'"):
        robomimic.survey(tmp_path, Options(camera="agentview_imag"))


def test_columns_that_demonstrations_do_not_share_are_left_out_with_a_note(tmp_path: Path):
    demos = {"demo_0": demonstration(0), "demo_1": demonstration(1, states=np.zeros((9, 5)))}
    demos["demo_1"]["obs/object"] = np.zeros((9, 4))
    demos["demo_1"]["obs/agentview_depth"] = np.zeros((9, 12, 16, 1), np.float32)
    demos["demo_1"]["obs/language"] = np.array(["lift"] * 9, "S")
    written(tmp_path / "x.hdf5", demos)
    survey = robomimic.survey(tmp_path, Options())
    assert words(survey) == []
    assert survey.columns[7:] == tuple(f"obs.robot0_eef_pos.{n}" for n in range(3))
    assert [note for note in survey.notes if "not used" in note] == [
        "obs.agentview_depth: neither pictures nor a row of numbers for each frame; not used",
        "obs.language: neither pictures nor a row of numbers for each frame; not used",
        "state: not used, for clips differ in how many numbers it has (5 in 1, 32 in 1)",
        "obs.object: not used, for clips differ in how many numbers it has (no in 1, 4 in 1)",
    ]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"actions": None}, "x.hdf5, data/demo_2/actions: expected it to be there, found nothing of this name"),
        ({"actions": np.zeros(9)}, "data/demo_2/actions: expected a row of numbers for each frame, found shape (9,)"),
        ({"actions": np.zeros((9, 4))}, "data/demo_2/actions: expected 7 numbers in a row, as in most"),
        ({"actions": np.zeros((4, 7))}, "data/demo_2/actions: expected 9 rows, one for each frame, found 4"),
        ({"states": np.zeros((8, 32))}, "data/demo_2/states: expected 9 rows, one for each frame, found 8"),
        ({"obs/agentview_image": None}, "expected pictures of this camera in obs, found none (there is robot0_eye"),
        (
            {"obs/agentview_image": np.zeros((9, 12, 16, 3), np.float32)},
            "pictures as uint8, so that no scale is guessed; scale them to 0 to 255, round, and save them as uint8",
        ),
        (
            {"obs/agentview_image": np.zeros((9, 12, 16, 4), np.uint8)},
            "(T, H, W, 3), found uint8 of shape (9, 12, 16, 4)",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_told_with_its_name(tmp_path: Path, others: Any, message: str):
    demos = {f"demo_{number}": demonstration(number) for number in range(5)}
    demos["demo_2"] = demonstration(2, **others)
    written(tmp_path / "x.hdf5", demos)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        del file["data/demo_2"].attrs["num_samples"]
    assert message in told(tmp_path)
    assert len(robomimic.survey(tmp_path, Options()).clips) == 5


def test_pictures_with_channels_first_or_in_grey_are_turned(tmp_path: Path):
    arrays = demonstration(0)
    colour = arrays["obs/agentview_image"]
    arrays["obs/agentview_image"] = np.moveaxis(colour, -1, 1)
    arrays["obs/robot0_eye_in_hand_image"] = colour[..., :1]
    written(tmp_path / "x.hdf5", {"demo_0": arrays})
    np.testing.assert_array_equal(robomimic.survey(tmp_path, Options()).clips[0].frames(2, 4).values, colour[2:4])
    (clip,) = robomimic.survey(tmp_path, Options(camera="robot0_eye_in_hand")).clips
    np.testing.assert_array_equal(clip.frames(2, 4).values, np.repeat(colour[2:4, ..., :1], 3, axis=-1))


def test_numbers_that_are_not_finite_are_told_with_frame_and_column(tmp_path: Path):
    arrays = demonstration(0)
    arrays["actions"][4, 2] = np.nan
    arrays["states"][8, 31] = -np.inf
    written(tmp_path / "x.hdf5", {"demo_0": arrays})
    (clip,) = robomimic.survey(tmp_path, Options()).clips
    assert clip.rows is not None
    assert [str(fault) for (fault,) in clip.rows(3, 9).faults.values()] == [
        "x.hdf5, data/demo_0, frame 4, action.2: expected a finite number within float32, found nan",
        "x.hdf5, data/demo_0, frame 8, state.31: expected a finite number within float32, found -inf",
    ]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"train": ["demo_0", "demo_7"]}, "mask/train: expected names of groups in data, found demo_7"),
        ({"train": ["demo_0"], "valid": ["demo_0"]}, "mask/valid: expected demo_0 in one mask, found also in that"),
        ({"train": np.zeros(3)}, "mask/train: expected texts, found float64"),
    ],
)
def test_masks_that_cannot_be_are_faults(tmp_path: Path, masks: Any, message: str):
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0)}, masks)
    assert message in told(tmp_path)


def test_other_names_a_missing_group_and_a_wrong_number_of_samples_are_faults(tmp_path: Path):
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0), "episode": demonstration(1)})
    assert "data/episode: expected groups demo_0, demo_1, ..., found another name" in told(tmp_path)
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0)})
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file["data/demo_0"].attrs["num_samples"] = 8
    assert "expected 8 samples, as its attribute says, found 9 actions" in told(tmp_path)
    close_all()
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["observations"] = np.zeros(3)
    assert "data: expected a group of demonstrations, found only observations" in told(tmp_path)


def test_pictures_behind_a_link_or_in_another_file_are_not_read(tmp_path: Path):
    written(tmp_path / "other.bin", {"demo_0": demonstration(0)})
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0, **{"obs/agentview_image": None})})
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file["data/demo_0/obs/agentview_image"] = h5py.ExternalLink("other.bin", "/data/demo_0/obs/agentview_image")
    assert told(tmp_path).endswith("found a link to another file")


def test_unfinished_pictures_are_a_fault(tmp_path: Path):
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0, **{"obs/agentview_image": None})})
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        data = file.create_dataset("data/demo_0/obs/agentview_image", (9, 12, 16, 3), "u1", chunks=(3, 12, 16, 3))
        data[:6] = 1
    assert "expected 3 chunks for shape 9x12x16x3, found 2 of" in words(robomimic.survey(tmp_path, Options()))[0]


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path):
    assert not robomimic.recognises(tmp_path)
    assert robomimic.LOOKS_FOR in told(tmp_path)


def test_a_group_without_demonstrations_is_a_fault(tmp_path: Path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_group("data")
    assert told(tmp_path) == "x.hdf5, data: expected demonstrations demo_0, demo_1, ..., found none"


def test_demonstrations_without_observations_have_no_pictures(tmp_path: Path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((9, 7))
    survey = robomimic.survey(tmp_path, Options(camera="front"))
    assert words(survey) == ["x.hdf5, data/demo_0/obs/front: expected pictures of this camera in obs, found none"]
    assert survey.clips[0].frames(2, 5).values.shape == (3, 1, 1, 3)


def test_a_camera_without_pictures_is_a_fault_told_once(tmp_path: Path):
    empty = demonstration(1, states=None, **{"obs/agentview_image": np.zeros((0, 12, 16, 3), np.uint8)})
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0), "demo_1": empty})
    survey = robomimic.survey(tmp_path, Options())
    assert [fault.found for fault in survey.clips[1].faults if fault.where.endswith("image")] == ["none"]
    written(
        tmp_path / "x.hdf5", {"demo_0": demonstration(0), "demo_1": demonstration(1, **{"obs/agentview_image": None})}
    )
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file.create_dataset("data/demo_1/obs/agentview_image", (9, 12, 16, 3), "u1", chunks=(3, 12, 16, 3))
    (fault,) = robomimic.survey(tmp_path, Options(camera="agentview")).clips[1].faults
    assert str(fault).startswith("x.hdf5, data/demo_1/obs/agentview_image: expected 3 chunks for shape 9x12x16x3")


def test_strange_names_in_a_mask_are_one_fault_however_many(tmp_path: Path):
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0)}, {"train": ["demo_0", "a\nb", *["c"] * 500]})
    assert told(tmp_path) == "x.hdf5, mask/train: expected names of groups in data, found a\\nb and 500 more"
    assert robomimic.survey(tmp_path, Options()).clips[0].split == "train"


@pytest.mark.parametrize(("stated", "shown"), [(np.nan, "nan"), ("a\nb\x1b[31m", "'a\\nb\\x1b[31m'")])
def test_a_number_of_samples_that_is_none_is_a_fault_on_one_line(tmp_path: Path, stated: object, shown: str):
    written(tmp_path / "x.hdf5", {"demo_0": demonstration(0), "demo_1": demonstration(1, actions=None)})
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        for demo in ("demo_0", "demo_1"):
            file[f"data/{demo}"].attrs["num_samples"] = stated
    found = words(robomimic.survey(tmp_path, Options()))
    assert f"x.hdf5, data/demo_0: expected {shown} samples, as its attribute says, found 9 actions" in found
    assert "x.hdf5, data/demo_1/actions: expected it to be there, found nothing of this name" in found
