"""Folders of pictures, one for each clip: their numbers, their tables, and what is wrong with them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foreframe.data.formats.images import example_picture, picture_size
from foreframe.data.ingest.check import scan
from foreframe.data.layouts import bair_lab, dance_lab, frame_folders, keypoints, pose_folders
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout
from foreframe.video import read_image, write_png


def pictures(folder: Path, pattern: str, numbers: range | list[int], size: tuple[int, int] = (12, 16)) -> Path:
    for number in numbers:
        path = folder / pattern.format(number)
        picture = example_picture(number % 50, *size)
        if path.suffix == ".png":
            write_png(path, picture)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, format="JPEG")
    return folder


def told(folder: Path) -> list[str]:
    return [str(fault) for fault in scan(folder, "frame_folders").faults]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    frame_folders.example(tmp_path / "source")
    return tmp_path / "source"


def test_frames_and_rows_are_those_of_the_files(source: Path):
    survey = frame_folders.survey(source, Options())
    assert (survey.size, survey.cond, survey.columns, survey.shift) == ((24, 32), "vector", ("move", "turn"), 1)
    assert [(clip.name, clip.split) for clip in survey.clips] == [
        ("train/push/a", "train"),
        ("train/push/b", "train"),
        ("val/push/c", "val"),
        ("test/d", "test"),
    ]
    clip = survey.clips[1]
    expected = [read_image(source / f"train/push/b/frame_{number:04d}.png") for number in range(3, 8)]
    np.testing.assert_array_equal(clip.frames(3, 8).values, np.stack(expected))
    assert clip.rows is not None
    np.testing.assert_allclose(clip.rows(3, 5).values, [[0.3, 0.97], [0.4, 0.96]], atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("{}.png", range(8, 12)),
        ("{:05d}.jpg", range(1, 5)),
        ("cam2_{:03d}_left.jpeg", range(98, 102)),
        ("take1.{}.PNG", range(1_700_000_000, 1_700_000_004)),
    ],
)
def test_frames_are_numbered_by_the_last_digits_of_their_names(tmp_path: Path, pattern: str, numbers: range):
    pictures(tmp_path / "deep/er/clip", pattern.replace("PNG", "png"), numbers)
    for path in (tmp_path / "deep/er/clip").iterdir():
        path.rename(path.with_name(path.name.replace("png", "PNG") if "PNG" in pattern else path.name))
    survey = frame_folders.survey(tmp_path, Options())
    assert find_layout(tmp_path) is frame_folders
    assert survey.faults == ()
    (clip,) = survey.clips
    assert (clip.name, clip.split, clip.length, clip.faults) == ("deep/er/clip", "", 4, ())
    expected = [read_image(tmp_path / "deep/er/clip" / pattern.format(number)) for number in numbers]
    np.testing.assert_array_equal(clip.frames(0, 4).values, np.stack(expected))


def test_pictures_right_in_a_folder_are_one_clip(tmp_path: Path):
    pictures(tmp_path / "mine", "{}.png", range(3))
    assert [clip.name for clip in frame_folders.survey(tmp_path / "mine", Options()).clips] == ["mine"]
    pictures(tmp_path / "two/train", "{}.png", range(3))
    assert [clip.name for clip in frame_folders.survey(tmp_path / "two", Options()).clips] == ["train"]


def test_gaps_are_faults(tmp_path: Path):
    pictures(tmp_path / "a", "f{}.png", [1, 2, 4, 5, 9, 10**15])
    assert told(tmp_path) == [
        f"a: expected pictures f1.png to f{10**15}.png without a gap, found no picture 3, 6 to 8, 10 to {10**15 - 1}"
    ]


def test_names_that_differ_in_more_than_their_number_are_faults(tmp_path: Path):
    pictures(tmp_path / "a", "left_{}.png", range(3))
    pictures(tmp_path / "a", "right_{}.png", range(2))
    pictures(tmp_path / "a", "cover.png", [0])
    assert told(tmp_path) == [
        "a/cover.png: expected a picture with a number in its name, found none",
        "a/right_0.png: expected a name that differs from left_0.png in its number only, found another name "
        "(2 such names)",
    ]


def test_two_pictures_of_one_number_are_a_fault(tmp_path: Path):
    pictures(tmp_path / "a", "{}.png", range(3))
    pictures(tmp_path / "a", "{:02d}.png", [1])
    assert told(tmp_path) == ["a: expected one picture for each number, found 01.png and 1.png"]


def test_pictures_beside_folders_of_pictures_are_a_fault(tmp_path: Path):
    pictures(tmp_path / "a", "{}.png", range(3))
    pictures(tmp_path / "a/masks", "{}.png", range(3))
    assert told(tmp_path)[0] == (
        "a/masks: expected pictures, or folders of pictures, but not both, found pictures also in a"
    )


def test_either_all_clips_have_one_table_or_none(source: Path):
    (source / "val/push/c/commands.csv").unlink()
    (source / "test/d/more.json").write_text("[[1, 2]]")
    (source / "test/empty").mkdir()
    (source / "test/empty/a.csv").write_text("1\n")
    assert told(source) == [
        "test/empty/a.csv: expected pictures in the folder of a table, found none",
        "val/push/c: expected a table in each folder of pictures, as others have, found none",
        "test/d/more.json: expected one table in each folder, found also commands.csv",
    ]


def test_a_table_has_a_row_for_each_frame_and_the_columns_of_the_others(source: Path):
    table = source / "val/push/c/commands.csv"
    table.write_text(table.read_text() + "1,2\n")
    other = source / "test/d/commands.csv"
    other.write_text(other.read_text().replace("turn", "bend"))
    assert told(source) == [
        "val/push/c/commands.csv: expected 10 rows, one for each frame, found 11",
        "test/d/commands.csv: expected the columns of train/push/a/commands.csv: move, turn, found move, bend",
    ]


def test_damaged_pictures_and_those_of_another_size_are_faults(tmp_path: Path):
    for kind in ("png", "jpg"):
        folder = pictures(tmp_path / kind, f"{{}}.{kind}", range(6))
        content = (folder / f"1.{kind}").read_bytes()
        (folder / f"1.{kind}").write_bytes(content[: len(content) // 2])
        (folder / f"2.{kind}").write_bytes(b"")
        (folder / f"3.{kind}").write_bytes(b"no picture")
        pictures(folder, f"{{}}.{kind}", [4], (8, 8))
    for kind, found in (("jpg", told(tmp_path)[:4]), ("png", told(tmp_path)[4:])):
        assert [line.split(":")[0].rpartition(", frame ")[0] or line for line in found][1:] == [
            f"{kind}/{number}.{kind}" for number in (2, 3, 4)
        ]
        assert found[0].startswith(f"{kind}/1.{kind}, frame 1")
        assert found[1].endswith("frame 2: expected a PNG or JPEG, found an empty file")
        assert found[2].endswith("frame 3: expected a PNG or JPEG, found another kind of file")
        assert found[3].endswith("frame 4: expected 16x12 pixels as elsewhere, found 8x8")


def test_clips_may_have_sizes_of_their_own(tmp_path: Path):
    pictures(tmp_path / "a", "{}.png", range(3))
    pictures(tmp_path / "b", "{}.png", range(3))
    pictures(tmp_path / "c", "{}.jpg", range(3), (20, 10))
    survey = frame_folders.survey(tmp_path, Options())
    assert survey.size == (12, 16)
    assert survey.notes == ("clips of several sizes: 1 10x20, 2 16x12",)
    assert survey.clips[2].frames(0, 2).values.shape == (2, 20, 10, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(30_000)}])
def test_the_size_of_a_jpeg_is_in_its_header(tmp_path: Path, options: dict[str, object]):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (31, 17)).save(path, **options)
    assert picture_size(path) == (17, 31)
    Image.new("L", (5, 3)).save(path)
    assert picture_size(path) == (3, 5)
    content = path.read_bytes()
    for cut in range(3, content.index(b"\xff\xc0") + 9):
        path.write_bytes(content[:cut])
        assert picture_size(path) == "a cut-off JPEG"


def test_folders_of_layouts_that_say_more_are_not_recognised(tmp_path: Path):
    for layout in (bair_lab, dance_lab, pose_folders, keypoints):
        layout.example(tmp_path / layout.NAME)
        assert not frame_folders.recognises(tmp_path / layout.NAME)


def test_a_folder_without_pictures_is_told(tmp_path: Path):
    (tmp_path / "a/b").mkdir(parents=True)
    assert told(tmp_path) == [f"{tmp_path}: expected {frame_folders.LOOKS_FOR}, found no picture"]
    assert not frame_folders.recognises(tmp_path)


def test_two_clips_that_are_printed_alike_keep_their_own_tables(tmp_path: Path):
    for order, name in enumerate(("x\ny", "x\\ny")):
        pictures(tmp_path / name, "{}.png", range(3 + order))
        (tmp_path / name / "a.csv").write_text(f"{order}\n" * (3 + order))
    survey = frame_folders.survey(tmp_path, Options())
    assert [clip.name for clip in survey.clips] == ["x\\ny", "x\\ny"]
    for order, clip in enumerate(survey.clips):
        assert clip.faults == ()
        assert clip.rows is not None
        np.testing.assert_array_equal(clip.rows(0, 3).values, np.full((3, 1), order))
    assert told(tmp_path) == ["x\\ny: expected one clip of this name, found another one"]


def test_names_are_printed_on_one_line(tmp_path: Path):
    pictures(tmp_path / "a", "x\n{}.png", [1, 2, 4])
    pictures(tmp_path / "a", "x\n{:02d}.png", [1])
    pictures(tmp_path / "a", "y\x1b[31m{}.png", [7])
    for name in ("\t.csv", "\x7f.csv"):
        (tmp_path / "a" / name).write_text("1\n2\n3\n")
    assert told(tmp_path) == [
        "a: expected one picture for each number, found x\\n01.png and x\\n1.png",
        "a/y\\x1b[31m7.png: expected a name that differs from x\\n01.png in its number only, found another name",
        "a: expected pictures x\\n01.png to x\\n4.png without a gap, found no picture 3",
        "a/\\x7f.csv: expected one table in each folder, found also \\t.csv",
    ]


def test_links_to_folders_of_links_do_not_double_the_way_for_ever(tmp_path: Path):
    pictures(tmp_path / "clip", "{}.png", range(3))
    for step in range(16):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        for link in "ab":
            (folder / link).symlink_to(f"../{step + 1}" if step < 15 else "../clip")
    start = time.monotonic()
    survey = frame_folders.survey(tmp_path, Options())
    assert time.monotonic() - start < 10
    assert len(survey.clips) == 64
    assert {(fault.expected, fault.found) for fault in survey.faults} == {
        ("at most 64 ways into one folder", "a link that makes one more")
    }


def test_hidden_files_are_noted_and_folders_named_like_pictures_told(tmp_path: Path):
    pictures(tmp_path / "a", "{}.png", range(3))
    (tmp_path / ".7.png").write_text("x")
    (tmp_path / "b.png").mkdir()
    assert frame_folders.recognises(tmp_path)
    survey = frame_folders.survey(tmp_path, Options())
    assert [str(fault) for fault in survey.faults] == ["b.png: expected a file (.png), found a folder"]
    assert survey.notes == ("1 other file not used: .7.png",)
