"""Frames with pictures of their poses beside them: pairs by name, takes by number, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foreframe.data.formats.images import example_picture
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts import pose_folders
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout
from foreframe.video import read_image, write_png


def pair(root: Path, below: str, numbers: range | list[int], frames: str = "frames", poses: str = "poses") -> None:
    for number in numbers:
        write_png(root / frames / below / f"{number:03d}.png", example_picture(number, 12, 16))
        write_png(root / poses / below / f"{number:03d}.png", example_picture(number, 6, 8, 4))


def told(folder: Path) -> list[str]:
    return [str(fault) for fault in scan(folder, "pose_folders").faults]


def clips(folder: Path) -> list[tuple[str, str, int]]:
    return [(clip.name, clip.split, clip.length) for clip in pose_folders.survey(folder, Options()).clips]


def test_poses_stand_beside_their_frames_at_their_own_size(tmp_path: Path):
    pair(tmp_path, "a", range(5, 9))
    survey = pose_folders.survey(tmp_path, Options())
    assert find_layout(tmp_path) is pose_folders
    assert (survey.size, survey.cond, survey.columns, survey.shift) == ((12, 16), "image", ("pose",), 0)
    (clip,) = survey.clips
    assert clip.rows is not None
    for read, side in ((clip.frames, "frames"), (clip.rows, "poses")):
        expected = [read_image(tmp_path / side / "a" / f"{number:03d}.png") for number in range(6, 9)]
        np.testing.assert_array_equal(read(1, 4).values, np.stack(expected))


@pytest.mark.parametrize("frames", ["frames", "images", "img", "rgb", "Frames"])
@pytest.mark.parametrize("poses", ["poses", "pose", "labels", "label", "maps"])
def test_both_folders_have_several_names(tmp_path: Path, frames: str, poses: str):
    pair(tmp_path, "", range(2), frames, poses)
    assert pose_folders.recognises(tmp_path)
    assert clips(tmp_path) == [("000000-000001", "", 2)]


def test_splits_may_stand_above_the_frames_or_below(tmp_path: Path):
    for name in ("train", "val"):
        pair(tmp_path / "above" / name, "a/b", range(2))
        pair(tmp_path / "below", f"{name}/a/b", range(2))
    assert clips(tmp_path / "above") == clips(tmp_path / "below") == [("train/a/b", "train", 2), ("val/a/b", "val", 2)]


def test_pictures_right_in_the_frames_are_named_by_their_numbers(tmp_path: Path):
    pair(tmp_path / "train", "", range(3, 6))
    assert clips(tmp_path) == [("train/000003-000005", "train", 3)]


def test_takes_are_cut_where_numbers_are_missing_and_a_warning_says_so(tmp_path: Path):
    pair(tmp_path, "a", [1, 2, 3, 7, 8])
    assert clips(tmp_path) == [("a/000001-000003", "", 3), ("a/000007-000008", "", 2)]
    assert pose_folders.survey(tmp_path, Options()).warnings == ("a: no frame 4 to 6; the take is cut there",)
    assert told(tmp_path) == []


def test_frames_without_a_pose_and_poses_without_a_frame_are_faults(tmp_path: Path):
    pair(tmp_path, "a", range(6))
    pair(tmp_path, "b", range(2))
    (tmp_path / "poses/a/002.png").unlink()
    (tmp_path / "frames/a/004.png").unlink()
    write_png(tmp_path / "poses/c/000.png", example_picture(0, 6, 8))
    for path in (tmp_path / "poses/b").iterdir():
        path.unlink()
    (tmp_path / "poses/b").rmdir()
    assert told(tmp_path) == [
        "poses/a/002.png, frame 2: expected a picture, found no pose for this frame",
        "frames/a/004.png: expected a picture, found no frame for the pose poses/a/004.png",
        "poses/b: expected a folder of poses for frames/b, found no such folder",
        "frames/c: expected a folder of frames, found none for the poses in poses/c",
    ]


def test_a_pose_may_be_a_jpeg_beside_a_png_but_not_both(tmp_path: Path):
    pair(tmp_path, "a", range(3))
    Image.new("RGB", (8, 6)).save(tmp_path / "poses/a/001.jpg")
    assert told(tmp_path) == ["poses/a/001.png: expected one pose of this name, found also 001.jpg"]
    (tmp_path / "poses/a/001.png").unlink()
    assert told(tmp_path) == []


def test_both_folders_have_to_be_there_and_only_once(tmp_path: Path):
    pair(tmp_path / "train", "", range(2))
    pair(tmp_path / "val", "", range(2), "img")
    pair(tmp_path / "val", "", range(2), "rgb")
    pair(tmp_path / "test", "", range(2), "img", "other")
    assert told(tmp_path) == [
        "val: expected one folder of frames (frames, images, img, rgb), found img and rgb",
        "test: expected one folder of poses (poses, pose, labels, label, maps), found none",
    ]


def test_pairs_outside_of_the_splits_are_faults(tmp_path: Path):
    pair(tmp_path / "train", "", range(2))
    pair(tmp_path, "", range(2))
    assert told(tmp_path)[0] == (
        "frames/000.png: expected clips in train/, val/ and test/ only, found one outside of them (2 there)"
    )


def test_a_bad_frame_or_pose_cuts_a_take_when_faults_are_skipped(tmp_path: Path):
    pair(tmp_path / "source/train", "a", range(12))
    (tmp_path / "source/train/frames/a/003.png").write_bytes(b"")
    (tmp_path / "source/train/poses/a/008.png").write_bytes(b"no picture")
    assert told(tmp_path / "source") == [
        "train/frames/a/003.png, frame 3: expected a PNG or JPEG, found an empty file",
        "train/poses/a/008.png, frame 8: expected a PNG or JPEG, found another kind of file",
    ]
    pack = import_clips(tmp_path / "source", tmp_path / "pack", on_bad="skip")
    names = [f"train/a/{first:06d}-{last:06d}" for first, last in ((0, 2), (4, 7), (9, 11))]
    assert [episode.name for episode in pack.episodes] == names


def test_a_folder_of_poses_with_nothing_in_it_is_told_once(tmp_path: Path):
    pair(tmp_path, "a", range(3))
    pair(tmp_path, "b", range(3))
    for path in (tmp_path / "poses/a").iterdir():
        path.unlink()
    assert told(tmp_path) == ["poses/a: expected poses for the frames in frames/a, found none"]
    (tmp_path / "poses/a").rmdir()
    (tmp_path / "poses/a").write_text("x")
    assert told(tmp_path) == ["poses/a: expected a folder of poses for frames/a, found no such folder"]


def test_other_files_among_the_poses_are_noted(tmp_path: Path):
    pair(tmp_path, "a", range(3))
    (tmp_path / "poses/a/readme.txt").write_text("x")
    survey = pose_folders.survey(tmp_path, Options())
    assert (survey.faults, survey.notes) == ((), ("1 other file not used: poses/a/readme.txt",))


def test_poses_that_may_not_be_read_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pair(tmp_path, "a", range(3))
    scandir = os.scandir

    def guarded(path: Path) -> Any:
        if Path(path) == tmp_path / "poses/a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert told(tmp_path) == ["poses/a: expected a folder that can be read, found Permission denied"]
