"""Frames with keypoints beside them: every form of the files, what is drawn, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.formats.images import example_picture
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts import keypoints
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout
from foreframe.errors import DataError
from foreframe.video import write_png
from foreframe.video.skeleton import COCO_17, OPENPOSE_25, draw_pose

HEIGHT, WIDTH, LENGTH = 24, 20, 4


def pose(number: int, joints: int = 25) -> np.ndarray:
    """(J, 3) with one joint that is not there."""
    draw = np.random.default_rng(number)
    places = draw.uniform(0, [WIDTH, HEIGHT], (joints, 2)).round(1)
    sure = draw.uniform(0.1, 1, (joints, 1)).round(2)
    sure[number % joints] = 0
    return np.concatenate([places, sure], axis=1)


def frames(folder: Path, numbers: range | list[int] = range(LENGTH)) -> None:
    for number in numbers:
        write_png(folder / f"{number:03d}.png", example_picture(number, HEIGHT, WIDTH))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def openpose(folder: Path, joints: int) -> None:
    for number in range(LENGTH):
        people = {"version": 1.3, "people": [{"pose_keypoints_2d": pose(number, joints).ravel().tolist()}]}
        write(folder / f"a/{number:03d}_keypoints.json", people)


def rows(joints: int, columns: int = 3) -> list[list[float]]:
    return [pose(number, joints)[:, :columns].ravel().tolist() for number in range(LENGTH)]


def table(header: list[str], lines: list[list[float]]) -> str:
    return "\n".join(",".join(map(str, line)) for line in [header, *lines]) + "\n"


def indexed(folder: Path, joints: int) -> None:
    header = ["frame", *(f"{axis}{joint}" for joint in range(joints) for axis in "xyc")]
    write(folder / "a.csv", table(header, [[number, *row] for number, row in enumerate(rows(joints))]))


def named(folder: Path, joints: int) -> None:
    skeleton = COCO_17 if joints == 17 else OPENPOSE_25
    header = [f"{joint}_{axis}" for joint in skeleton.joints for axis in "xyc"]
    order = np.random.default_rng(0).permutation(len(header))
    write(
        folder / "a/any.csv",
        table([header[place] for place in order], [[row[place] for place in order] for row in rows(joints)]),
    )


def listed(folder: Path, joints: int) -> None:
    write(folder / "a.json", rows(joints))


def coco(name: str) -> Callable[[Path, int], None]:
    def make(folder: Path, joints: int) -> None:
        images = [{"id": 7 + number, "file_name": name.format(number)} for number in reversed(range(LENGTH))]
        notes = [{"image_id": 7 + number, "keypoints": row} for number, row in enumerate(rows(joints))]
        write(folder / "person_keypoints.json", {"info": {}, "images": images, "annotations": notes})

    return make


FORMS: dict[str, Callable[[Path, int], None]] = {
    "OpenPose": openpose,
    "x0, y0, c0": indexed,
    "names": named,
    "JSON": listed,
    "COCO": coco("a/{:03d}.png"),
    "COCO from above": coco("frames/a/{:03d}.jpg"),
}


@pytest.mark.parametrize("joints", [17, 25])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_is_drawn_alike(tmp_path: Path, form: str, joints: int):
    frames(tmp_path / "frames/a")
    FORMS[form](tmp_path / "keypoints", joints)
    assert find_layout(tmp_path) is keypoints
    survey = keypoints.survey(tmp_path, Options())
    assert (survey.faults, survey.size, survey.cond, survey.columns) == ((), (HEIGHT, WIDTH), "image", ("pose",))
    assert survey.shift == 0
    (clip,) = survey.clips
    assert (clip.name, clip.length) == ("a", LENGTH)
    assert clip.rows is not None
    bones = (COCO_17 if joints == 17 else OPENPOSE_25).bones
    # A table of CSV holds its numbers in float32.
    exact = form not in ("x0, y0, c0", "names")
    poses = [pose(number, joints) if exact else pose(number, joints).astype(np.float32) for number in (1, 2, 3)]
    drawn = np.stack([draw_pose(one, bones, HEIGHT, WIDTH) for one in poses])
    np.testing.assert_array_equal(clip.rows(1, 4).values, drawn)
    assert drawn.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("joints", [17, 25])
def test_without_confidences_joints_at_the_corner_are_not_there(tmp_path: Path, joints: int):
    frames(tmp_path / "img/a", range(1))
    line = pose(1, joints)[:, :2]
    line[3] = 0
    write(tmp_path / "json/a.json", [line.ravel().tolist()])
    clip = keypoints.survey(tmp_path, Options()).clips[0]
    bones = (COCO_17 if joints == 17 else OPENPOSE_25).bones
    sure = line.any(axis=1, keepdims=True).astype(float)
    assert clip.rows is not None
    np.testing.assert_array_equal(
        clip.rows(0, 1).values[0], draw_pose(np.concatenate([line, sure], axis=1), bones, HEIGHT, WIDTH)
    )


def test_of_several_people_the_surest_is_taken(tmp_path: Path):
    frames(tmp_path / "frames", range(1))
    people = [pose(number).ravel().tolist() for number in range(3)]
    people[1][2::3] = [1.0] * 25
    write(tmp_path / "openpose/000_keypoints.json", {"people": [{"pose_keypoints_2d": one} for one in people]})
    clip = keypoints.survey(tmp_path, Options()).clips[0]
    expected = draw_pose(np.reshape(people[1], (25, 3)), OPENPOSE_25.bones, HEIGHT, WIDTH)
    assert clip.rows is not None
    np.testing.assert_array_equal(clip.rows(0, 1).values[0], expected)


def test_one_coco_file_may_be_about_several_folders(tmp_path: Path):
    images, notes = [], []
    for order, name in enumerate("ab"):
        frames(tmp_path / "frames" / name)
        images += [{"id": f"{name}{n}", "file_name": f"{name}/{n:03d}.png"} for n in range(LENGTH)]
        notes += [{"image_id": f"{name}{n}", "keypoints": pose(order, 17).ravel().tolist()} for n in range(LENGTH)]
    write(tmp_path / "keypoints/all.json", {"images": images, "annotations": notes})
    for order, clip in enumerate(keypoints.survey(tmp_path, Options()).clips):
        assert clip.rows is not None
        drawn = draw_pose(pose(order, 17), COCO_17.bones, HEIGHT, WIDTH)
        np.testing.assert_array_equal(clip.rows(0, LENGTH).values, np.stack([drawn] * LENGTH))
    assert told(tmp_path) == []
    write(tmp_path / "keypoints/all.json", rows(17) * 2)
    assert told(tmp_path)[0] == (
        "keypoints/all.json: expected COCO annotations, as frames of several folders are in one file, found a list"
    )


def test_takes_are_cut_at_gaps_and_keep_their_rows(tmp_path: Path):
    frames(tmp_path / "frames", [3, 4, 8, 9])
    write(tmp_path / "keypoints/all.json", rows(25))
    survey = keypoints.survey(tmp_path, Options())
    assert [(clip.name, clip.length) for clip in survey.clips] == [("000003-000004", 2), ("000008-000009", 2)]
    assert survey.warnings == ("frames: no frame 5 to 7; the take is cut there",)
    later = survey.clips[1]
    assert later.rows is not None
    np.testing.assert_array_equal(later.rows(1, 2).values[0], draw_pose(pose(3), OPENPOSE_25.bones, HEIGHT, WIDTH))


def told(folder: Path) -> list[str]:
    return [str(fault) for fault in scan(folder, "keypoints").faults]


GOOD = pose(0).ravel().tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"people": []}, ", frame 1: expected a person, found nobody"),
        ({"people": [{"pose_keypoints_2d": [0] * 75}]}, ", frame 1: expected a person, found no joint of a confidence"),
        ({"people": [{"pose_keypoints_2d": [1] * 54}]}, ", frame 1: expected 51 numbers (17 joints) or 75 (25 joints)"),
        ({"people": [{"face_keypoints_2d": [1]}]}, ", frame 1: expected a list of numbers, found none"),
        ({"people": [{"pose_keypoints_2d": [*GOOD[:-1], "1"]}]}, ", frame 1: expected numbers within a million pixels"),
        ({"people": [{"pose_keypoints_2d": [1e7, *GOOD[1:]]}]}, ", frame 1: expected numbers within a million pixels"),
        ({"persons": []}, ", frame 1: expected an object with a list of people, found none"),
        ([1, 2], ", frame 1: expected an object with a list of people, found none"),
        ('{"people": [NaN]}', ", line 1, column 13: expected JSON, found NaN is not a JSON number"),
        ('{"people": [', ", line 1, column 13: expected JSON"),
        ("", ": expected a table of 1 to"),
    ],
)
def test_a_file_of_openpose_without_one_whole_person_is_a_fault_of_its_frame(tmp_path: Path, content: Any, words: str):
    frames(tmp_path / "frames/a")
    openpose(tmp_path / "keypoints", 25)
    write(tmp_path / "keypoints/a/001_keypoints.json", content)
    (found,) = told(tmp_path)
    assert found.startswith(f"keypoints/a/001_keypoints.json{words}")


def test_frames_without_keypoints_and_keypoints_without_frames_are_faults(tmp_path: Path):
    frames(tmp_path / "frames/a")
    frames(tmp_path / "frames/b")
    openpose(tmp_path / "keypoints", 25)
    (tmp_path / "keypoints/a/002_keypoints.json").unlink()
    write(tmp_path / "keypoints/a/999_keypoints.json", {})
    write(tmp_path / "keypoints/c.csv", "x\n")
    assert told(tmp_path) == [
        "keypoints/a/002_keypoints.json, frame 2: expected keypoints of one frame, found none for this frame",
        "keypoints/b: expected keypoints for the frames in frames/b: NAME_keypoints.json, or one CSV or JSON, "
        "found no such folder",
        "keypoints/c.csv: expected keypoints of frames of this name, found no such frames in frames/",
        "keypoints/a/999_keypoints.json: expected keypoints of frames of this name, found no such frames in frames/",
    ]


def test_two_tables_for_one_clip_are_a_fault(tmp_path: Path):
    frames(tmp_path / "frames/a")
    indexed(tmp_path / "keypoints", 25)
    listed(tmp_path / "keypoints", 25)
    assert told(tmp_path)[0] == (
        "keypoints/a.json: expected one table for the frames of frames/a, found also keypoints/a.csv"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", rows(25)[:3], "expected 4 poses, one for each frame, found 3"),
        ("a.json", [*rows(25)[:3], [1] * 36], ", frame 3: expected 51 numbers (17 joints) or 75 (25 joints), or 34"),
        ("a.json", [*rows(25)[:3], None], ", frame 3: expected a person, found nobody"),
        ("a.json", "7", "expected a list of frames, or COCO annotations, found something else"),
        ("a.json", {"images": []}, "found an object without a list of annotations"),
        ("a.json", {"images": [{"id": 1}], "annotations": []}, "image 0: expected an id and a file_name, found none"),
        ("a.json", {"images": [], "annotations": [{}]}, "annotation 0: expected an image_id, found none"),
        (
            "a.json",
            {"images": [{"id": n, "file_name": "000.png"} for n in (1, 2)], "annotations": []},
            "image 1: expected each file_name once, found '000.png' twice",
        ),
        ("a.csv", table([f"{axis}{j}" for j in range(18) for axis in "xy"], [[1] * 36] * 4), "of 17 or 25 joints"),
        ("a.csv", table(["nose_x", "nose_y"], [[1, 2]] * 4), "expected x, y and perhaps c of 17 or 25 joints"),
        ("a.csv", table(["knee_x", "knee_y"], [[1, 2]] * 4), "expected x0, y0, c0, ... or JOINT_x, JOINT_y, JOINT_c"),
        ("a.csv", "x0,y0\n1,two\n", "row 2, column 2: expected a finite decimal number, found 'two'"),
        (
            "a.csv",
            table(["frame", *(f"{a}{j}" for j in range(17) for a in "xy")], [[n] + [1] * 34 for n in (0, 1, 2, 2)]),
            "column 1: expected the number of a frame, each once",
        ),
        (
            "a.csv",
            table(["frame", *(f"{a}{j}" for j in range(17) for a in "xy")], [[n] + [1] * 34 for n in (0, 1, 2, 4)]),
            ", frame 3: expected a pose for this frame, found none",
        ),
    ],
)
def test_a_table_that_does_not_fit_its_frames_is_a_fault(tmp_path: Path, name: str, content: Any, words: str):
    frames(tmp_path / "frames/a")
    write(tmp_path / "keypoints" / name, content)
    found = told(tmp_path)
    assert words in found[0]
    assert found[0].startswith(f"keypoints/{name}")


def test_a_frame_without_a_person_cuts_a_take_when_faults_are_skipped(tmp_path: Path):
    frames(tmp_path / "source/train/frames/a", range(7))
    poses = [pose(number).ravel().tolist() for number in range(7)]
    poses[3] = []
    write(tmp_path / "source/train/keypoints/a.json", poses)
    pack = import_clips(tmp_path / "source", tmp_path / "pack", on_bad="skip")
    assert [episode.name for episode in pack.episodes] == ["train/a/000000-000002", "train/a/000004-000006"]


def test_changed_keypoints_are_read_anew(tmp_path: Path):
    frames(tmp_path / "frames/a")
    listed(tmp_path / "keypoints", 25)
    first = keypoints.survey(tmp_path, Options()).clips[0]
    assert first.rows is not None
    before = first.rows(0, LENGTH).values
    listed(tmp_path / "keypoints", 17)
    assert (first.rows(0, LENGTH).values != before).any()


def test_other_files_beside_keypoints_are_noted(tmp_path: Path):
    frames(tmp_path / "frames/a")
    indexed(tmp_path / "keypoints", 17)
    write(tmp_path / "keypoints/readme.txt", "x")
    survey = keypoints.survey(tmp_path, Options())
    assert survey.faults == ()
    assert survey.notes == ("1 other file not used: keypoints/readme.txt",)


def test_a_table_without_names_is_read_in_its_order(tmp_path: Path):
    frames(tmp_path / "frames/a")
    write(tmp_path / "keypoints/a.csv", "".join(",".join(map(str, row)) + "\n" for row in rows(25)))
    (clip,) = keypoints.survey(tmp_path, Options()).clips
    poses = [pose(number).astype(np.float32).astype(np.float64) for number in range(LENGTH)]
    expected = [draw_pose(each, OPENPOSE_25.bones, HEIGHT, WIDTH) for each in poses]
    np.testing.assert_array_equal(clip.rows(0, LENGTH).values, np.stack(expected))


def test_a_table_that_is_gone_is_a_fault(tmp_path: Path):
    frames(tmp_path / "frames/a")
    indexed(tmp_path / "keypoints", 17)
    (clip,) = keypoints.survey(tmp_path, Options()).clips
    (tmp_path / "keypoints/a.csv").unlink()
    with pytest.raises(DataError, match=r"keypoints/a.csv: expected a file that can be read, found No such file"):
        clip.rows(0, 1)


def test_a_number_of_a_frame_that_float32_does_not_hold_is_not_taken_for_another(tmp_path: Path):
    frames(tmp_path / "frames/a", [0])
    (tmp_path / "frames/a/000.png").rename(tmp_path / f"frames/a/{2**24}.png")
    header = ["frame", *(f"{axis}{joint}" for joint in range(17) for axis in "xyc")]
    write(tmp_path / "keypoints/a.csv", table(header, [[2**24 + 1, *pose(0, 17).ravel()]]))
    assert told(tmp_path) == [
        "keypoints/a.csv, row 2, column 1: expected the number of a frame below 16777216, found about 16777216"
    ]


def test_frames_without_a_picture_are_told(tmp_path: Path):
    (tmp_path / "frames/a").mkdir(parents=True)
    indexed(tmp_path / "keypoints", 17)
    assert told(tmp_path)[0] == "frames: expected pictures, or a folder of pictures for each clip, found none"
