"""Folders of videos with and without tables: splits, names, shifts, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from foreframe.data.formats.images import example_picture
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.transform import open_source
from foreframe.data.layouts import kth, videos
from foreframe.data.layouts.lerobot import layout as lerobot
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout
from foreframe.errors import DataError
from foreframe.video import write_gif, write_mp4
from tests.films import read_video


def video(path: Path, length: int = 4, fps: float = 10, size: int = 16, colour: int = 0) -> Path:
    frames = np.stack([example_picture(number + 3 * colour, size, size, colour) for number in range(length)])
    (write_gif if path.suffix == ".gif" else write_mp4)(path, frames, fps)
    return path


def told(folder: Path) -> list[str]:
    return [str(fault) for fault in scan(folder, "videos").faults]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    videos.example(tmp_path / "source")
    return tmp_path / "source"


def test_frames_and_rows_are_those_of_the_files(source: Path):
    survey = videos.survey(source, Options())
    assert survey.cond == "vector"
    assert survey.columns == ("move", "turn")
    assert survey.shift == 1
    assert survey.fps == 10
    assert [clip.name for clip in survey.clips] == ["train/2", "train/push/0", "train/push/1", "val/3", "test/4"]
    clip = survey.clips[1]
    np.testing.assert_array_equal(clip.frames(2, 7).values, read_video(source / "train/push/0.mp4")[2:7])
    assert clip.rows is not None
    table = np.loadtxt(source / "train/push/0.csv", delimiter=",", skiprows=1, dtype=np.float32)
    np.testing.assert_array_equal(clip.rows(2, 7).values, table[2:7])


def test_a_row_leads_into_the_next_frame(source: Path):
    clip = next(clip for clip in open_source(source, "videos", Options()).clips if clip.name == "train/push/0")
    cond = clip.read(0, clip.length).cond
    assert cond is not None
    np.testing.assert_allclose(cond[:4, 0], [0, 0, 0.1, 0.2], atol=1e-6)


def test_videos_without_tables_have_no_condition_and_lie_in_any_folders(tmp_path: Path):
    for colour, name in enumerate(("b.mp4", "a/9.gif", "a/10.gif", "a/c/d/e.MP4")):
        video(tmp_path / name.replace("MP4", "mp4"), colour=colour).rename(tmp_path / name)
    survey = videos.survey(tmp_path, Options())
    assert find_layout(tmp_path) is videos
    assert [clip.name for clip in survey.clips] == ["b", "a/10", "a/9", "a/c/d/e"]
    assert {clip.split for clip in survey.clips} == {""}
    assert survey.cond == "none"
    assert survey.shift == 0
    assert told(tmp_path) == []


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_splits_may_have_other_names(tmp_path: Path, name: str):
    video(tmp_path / "train/a.gif")
    video(tmp_path / name / "a.gif", colour=1)
    assert [(clip.name, clip.split) for clip in videos.survey(tmp_path, Options()).clips] == [
        ("train/a", "train"),
        (f"{name}/a", "val"),
    ]


def test_a_split_of_two_names_and_videos_in_none_are_faults(tmp_path: Path):
    for name in ("train/a.gif", "val/a.gif", "valid/a.gif", "a.gif", "more/a.gif"):
        video(tmp_path / name)
    found = told(tmp_path)
    assert "valid: expected one folder for the split, found also val/" in found
    assert "a.gif: expected clips in train/, val/ and test/ only, found one outside of them" in found
    assert "more/a.gif: expected clips in train/, val/ and test/ only, found one outside of them" in found


def test_either_all_videos_have_a_table_or_none(source: Path):
    (source / "val/3.json").unlink()
    assert told(source) == ["val/3.gif: expected a table of the same name beside it, as other videos have, found none"]


def test_two_tables_and_tables_of_no_video_are_faults(source: Path):
    (source / "val/3.csv").write_text("move,turn\n1,2\n")
    (source / "train/none.json").write_text("[[1, 2]]")
    assert told(source) == [
        "train/none.json: expected a video of this name beside it (.mp4, .avi, .gif, .webm, .mov, .mkv), found none",
        "val/3.json: expected one table for each video, found also 3.csv",
        "val/3.csv: expected 9 rows, one for each frame, found 1",
    ]


def test_two_videos_of_one_name_are_a_fault(tmp_path: Path):
    video(tmp_path / "a.gif")
    video(tmp_path / "a.mp4")
    assert told(tmp_path) == ["a.mp4: expected one video of this name, found also a.gif"]


def test_all_tables_have_the_same_columns(source: Path):
    text = (source / "test/4.csv").read_text()
    (source / "test/4.csv").write_text(text.replace("move", "go"))
    assert told(source) == ["test/4.csv: expected the columns of train/2.csv: move, turn, found go, turn"]
    (source / "test/4.csv").write_text(text.split("\n", 1)[1])
    assert told(source) == ["test/4.csv: expected the columns of train/2.csv: move, turn, found 2 without names"]


def test_columns_without_names_are_numbered(tmp_path: Path):
    video(tmp_path / "a.gif", 2)
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    assert videos.survey(tmp_path, Options()).columns == ("column_0", "column_1")


def test_a_table_in_parquet_is_read(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    video(tmp_path / "a.gif", 2)
    parquet.write_table(arrow.table({"action": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "a.parquet")
    survey = videos.survey(tmp_path, Options())
    assert survey.columns == ("action_0", "action_1")
    assert survey.clips[0].rows is not None
    assert survey.clips[0].rows(0, 2).values.tolist() == [[1, 2], [3, 4]]


def test_a_video_that_cannot_be_read_is_left_out_with_a_fault_and_the_others_stay(source: Path):
    path = source / "train/push/0.mp4"
    path.write_bytes(path.read_bytes()[:-100])
    survey = videos.survey(source, Options())
    assert len(survey.clips) == 4
    assert [fault.path for fault in survey.faults] == ["train/push/0.mp4"]


def test_other_speeds_and_sizes_are_told_and_uneven_times_by_name(tmp_path: Path):
    for name, fps, size in (("a.gif", 10, 16), ("b.gif", 10, 16), ("c.mp4", 25, 24)):
        video(tmp_path / name, fps=fps, size=size)
    with av.open(str(tmp_path / "d.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        for number, time in enumerate((0, 1, 2, 7, 8)):
            frame = av.VideoFrame.from_ndarray(example_picture(number, 16, 16), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    survey = videos.survey(tmp_path, Options())
    assert survey.size == (16, 16)
    assert survey.fps == 10
    assert survey.notes == ("clips of several sizes: 3 16x16, 1 24x24",)
    assert survey.warnings == (
        "d: frames are not evenly spaced: 0.100 to 0.500 s apart, most 0.100 s",
        "videos differ in their frames per second: 2 at 10, 1 at 25",
    )
    for name in ("a.gif", "b.gif", "c.mp4"):
        (tmp_path / name).unlink()
    survey = videos.survey(tmp_path, Options())
    assert (survey.fps, survey.warnings) == (
        None, ("d: frames are not evenly spaced: 0.100 to 0.500 s apart, most 0.100 s",)
    )  # fmt: skip


def test_a_list_of_splits_in_the_folder_is_no_table(tmp_path: Path):
    video(tmp_path / "a.gif")
    (tmp_path / "splits.json").write_text('{"train": ["a"]}')
    assert videos.survey(tmp_path, Options(lists=tmp_path / "splits.json")).faults == ()
    assert len(videos.survey(tmp_path, Options()).faults) == 1


def test_folders_of_other_layouts_and_files_that_are_no_videos_are_not_recognised(tmp_path: Path):
    for name, layout in (("kth", kth), ("lerobot", lerobot)):
        layout.example(tmp_path / name)
        assert not videos.recognises(tmp_path / name)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("no video")
    assert not videos.recognises(tmp_path / "text")
    with pytest.raises(DataError):
        find_layout(tmp_path / "text")


def test_a_link_to_a_folder_around_it_is_a_fault_and_no_endless_walk(tmp_path: Path):
    video(tmp_path / "a/b.gif")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert videos.recognises(tmp_path)
    assert [fault.path for fault in videos.survey(tmp_path, Options()).faults] == ["a/loop"]


def test_a_folder_without_videos_is_told(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert told(tmp_path) == [f"{tmp_path}: expected {videos.LOOKS_FOR}, found no video"]
    assert not videos.recognises(tmp_path)


def test_two_clips_that_are_printed_alike_keep_their_own_tables(tmp_path: Path):
    for order, name in enumerate(("x\ny", "x\\ny")):
        video(tmp_path / f"{name}.gif", 3 + order)
        (tmp_path / f"{name}.csv").write_text(f"{order}\n" * (3 + order))
    survey = videos.survey(tmp_path, Options())
    for order, clip in enumerate(survey.clips):
        assert clip.faults == ()
        assert clip.rows is not None
        np.testing.assert_array_equal(clip.rows(0, 3).values, np.full((3, 1), order))
    assert told(tmp_path) == ["x\\ny: expected one clip of this name, found another one"]
