"""KTH actions: which stretch of which video a clip is, who is in which split, and what the list may get wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.layouts import kth
from foreframe.data.layouts.kth import ACTIONS, LIST, example, recognises, survey
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault
from foreframe.video import write_mp4
from tests.films import read_video


@pytest.fixture
def source(tmp_path: Path) -> Path:
    example(tmp_path)
    return tmp_path


def all_faults(folder: Path) -> list[Fault]:
    """Everything wrong with a source, as far as it can be read; paths of reading errors made relative."""
    found = survey(folder, Options())
    faults = [*found.faults]
    for clip in found.clips:
        try:
            clip.frames(0, clip.length)
        except DataError as error:
            faults += [Fault(Path(f.path).relative_to(folder).as_posix(), f.where, f.expected, f.found)
                       for f in error.faults]  # fmt: skip
    return faults


def listed(source: Path, text: str) -> list[str]:
    (source / LIST).write_text(text)
    return [str(fault) for fault in survey(source, Options()).faults]


GOOD = """Training: person11, 12

person01_boxing_d1\t\tframes\t1-10, 11-20
person18_running_d1    \tframes\t1-20
person19_walking_d1 frames 11-20, 3-12
person21_walking_d1\tframes\t20-20
"""


def test_each_range_of_the_list_is_a_clip(source: Path):
    assert listed(source, GOOD) == []
    found = survey(source, Options())
    assert [(clip.name, clip.split, clip.length) for clip in found.clips] == [
        ("boxing/person01_boxing_d1/1-10", "train", 10),
        ("boxing/person01_boxing_d1/11-20", "train", 10),
        ("running/person18_running_d1/1-20", "train", 20),
        ("walking/person19_walking_d1/3-12", "val", 10),
        ("walking/person19_walking_d1/11-20", "val", 10),
        ("walking/person21_walking_d1/20-20", "test", 1),
    ]
    assert (found.size, found.fps) == ((24, 32), 25)
    assert (found.cond, found.chosen, found.shift) == ("vector", ("none",), 0)
    assert found.columns == tuple(f"action.{action}" for action in ACTIONS)
    for clip in found.clips:
        clip = pickle.loads(pickle.dumps(clip))  # noqa: S301
        first = int(clip.name.rpartition("/")[2].partition("-")[0]) - 1
        whole = read_video(source / clip.file)
        np.testing.assert_array_equal(clip.frames(0, clip.length).values, whole[first : first + clip.length])
        rows = clip.rows(0, clip.length).values
        assert (rows.dtype, rows.shape) == (np.float32, (clip.length, 6))
        assert [ACTIONS[column] for column in rows.argmax(axis=1)] == [clip.name.split("/")[0]] * clip.length
        assert (rows.sum(axis=1) == 1).all()


def test_without_the_list_each_video_is_a_clip(source: Path):
    (source / LIST).unlink()
    found = survey(source, Options())
    assert [(clip.name, clip.split, clip.length) for clip in found.clips] == [
        ("boxing/person01_boxing_d1", "train", 20),
        ("running/person18_running_d1", "train", 20),
        ("walking/person19_walking_d1", "val", 20),
        ("walking/person21_walking_d1", "test", 20),
    ]
    np.testing.assert_array_equal(found.clips[3].frames(5, 9).values, read_video(source / found.clips[3].file)[5:9])


@pytest.mark.parametrize(("person", "split"), [(1, "train"), (18, "train"), (19, "val"), (20, "val"), (21, "test"),
                                               (25, "test")])  # fmt: skip
def test_persons_decide_the_split(source: Path, person: int, split: str):
    (source / LIST).unlink()
    video = source / "boxing" / "person01_boxing_d1_uncomp.avi"
    video.rename(video.with_name(f"person{person:02d}_boxing_d1_uncomp.avi"))
    assert next(clip.split for clip in survey(source, Options()).clips if "boxing" in clip.name) == split


def test_a_person_who_is_not_in_the_data_set_is_a_fault(source: Path):
    (source / LIST).unlink()
    video = source / "boxing" / "person01_boxing_d1_uncomp.avi"
    video.rename(video.with_name("person26_boxing_d1_uncomp.avi"))
    (fault,) = survey(source, Options()).faults
    assert str(fault) == "boxing/person26_boxing_d1_uncomp.avi: expected a person from 01 to 25, found 26"


def test_videos_lie_up_to_two_folders_below(source: Path):
    inner = source / "a" / "b"
    inner.mkdir(parents=True)
    for path in [*source.glob("*/*.avi"), source / LIST]:
        path.rename(inner / path.name)
    assert recognises(source)
    assert recognises(inner)
    assert len(survey(source, Options()).clips) == 8
    (source / "c").mkdir()
    (source / "a").rename(source / "c" / "a")
    assert not recognises(source)
    assert survey(source, Options()).faults[0].found == "no video"
    assert not recognises(source / "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("18_running_d1    \tframes\t1-20", "18_running_d1\tframes\t0-20", f"{LIST}, row 4: expected ranges of frames"),
        ("\t1-20", "\t9-3", f"{LIST}, row 4: expected ranges of frames from 1 on, as in 1-95, 96-185, found '9-3'"),
        ("\t1-20", "\t1-20,", "found ''"),
        ("\t1-20", "\t1-20, 1-20", "each range once, found 1-20 twice"),
        ("\t1-20", "\t*missing*", "ranges of frames"),
        ("frames\t1-20", "*missing*", "found '*missing*'"),
        ("_d1    \tframes\t1-20", "_d1    \tframs\t1-20", "a video and its frames"),
        ("person18_running_d1", "person18_running_d2", f"{LIST}: expected a line for person18_running_d1, found none"),
        ("person18_running_d1", "person01_boxing_d1", "one line for person01_boxing_d1, found another in row 3"),
        ("person18", "person17", f"{LIST}, row 4: expected the video person17_running_d1_uncomp.avi, found no such"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_a_fault_with_its_row(source: Path, old: str, new: str, words: str):
    faults = listed(source, GOOD.replace(old, new, 1))
    assert any(words in fault for fault in faults), faults


def test_a_video_said_to_be_missing_may_be_missing(source: Path):
    assert listed(source, GOOD + "person20_walking_d3\t*missing*\n") == []


def test_actions_without_any_video_are_a_warning(source: Path):
    assert listed(source, GOOD + "person20_jogging_d3\tframes 1-20\nperson20_jogging_d4\tframes 1-20\n") == []
    assert survey(source, Options()).warnings == (f"{LIST} lists jogging, of which there is no video",)


def test_a_range_beyond_the_video_is_a_fault_of_its_clip_alone(source: Path):
    assert listed(source, GOOD.replace("11-20\nperson18", "11-21\nperson18")) == []
    (fault,) = all_faults(source)
    assert str(fault) == "boxing/person01_boxing_d1_uncomp.avi, frame 20: expected 21 frames or more, found 20"


def test_a_video_cut_short_keeps_the_ranges_before_the_cut(source: Path):
    path = source / "walking" / "person19_walking_d1_uncomp.avi"
    packets = path.read_bytes().split(b"00dc")
    path.write_bytes(b"00dc".join(packets[:15]))
    found = survey(source, Options())
    assert found.faults == ()
    clips = {clip.name: clip for clip in found.clips}
    assert clips["walking/person19_walking_d1/1-10"].frames(0, 10).faults == {}
    with pytest.raises(DataError, match=r"expected 20 frames or more, found 1[0-9]"):
        clips["walking/person19_walking_d1/11-20"].frames(0, 10)
    (source / LIST).unlink()
    (fault,) = survey(source, Options()).faults
    assert fault.path == "walking/person19_walking_d1_uncomp.avi"
    assert "cut short" in fault.found


def test_two_lists_and_two_videos_of_one_name_are_faults_and_other_files_are_told(source: Path):
    (source / "walking" / LIST).write_text(GOOD)
    (source / "more").mkdir()
    video = source / "walking" / "person19_walking_d1_uncomp.avi"
    (source / "more" / video.name).write_bytes(video.read_bytes())
    (source / "more" / "readme.txt").write_text("x")
    found = survey(source, Options())
    assert [(fault.path, fault.expected) for fault in found.faults] == [
        (f"walking/{video.name}", "one video of this name"),
        (f"walking/{LIST}", "one list of sequences"),
    ]
    assert found.notes == ("1 other file not used: more/readme.txt",)


@pytest.mark.parametrize("with_list", [True, False])
@pytest.mark.parametrize("damage", ["half", "empty", "garbage"])
def test_damage_to_any_file_of_the_example_is_a_fault_that_names_it(source: Path, damage: str, with_list: bool):
    assert recognises(source)
    assert all_faults(source) == []
    if not with_list:
        (source / LIST).unlink()
    for path in (path for path in sorted(source.rglob("*")) if path.is_file()):
        good = path.read_bytes()
        path.write_bytes({"half": good[: len(good) // 2], "empty": b"", "garbage": b"no such thing\n" * 99}[damage])
        assert path.relative_to(source).as_posix() in {fault.path for fault in all_faults(source)}
        path.write_bytes(good)


def test_with_the_list_only_a_few_videos_are_opened_to_learn_their_size(source: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    probe = kth.probe_video
    monkeypatch.setattr(kth, "probe_video", lambda path: opened.append(path.name) or probe(path))
    monkeypatch.setattr(kth, "PROBED", 2)
    assert len(survey(source, Options()).clips) == 8
    assert len(opened) == 2


def test_a_folder_named_like_a_video_is_a_fault(source: Path):
    (source / "boxing/person02_boxing_d1_uncomp.avi").mkdir()
    assert [str(fault) for fault in survey(source, Options()).faults] == [
        "boxing/person02_boxing_d1_uncomp.avi: expected a video, found a folder"
    ]


def test_a_list_that_is_too_long_or_may_not_be_read_is_a_fault(source: Path, monkeypatch: pytest.MonkeyPatch):
    with (source / LIST).open("ab") as file:
        file.truncate(kth.MAX_LIST_BYTES + 1)
    found = survey(source, Options())
    assert [str(fault) for fault in found.faults] == [f"{LIST}: expected at most 1048576 bytes, found 1048577"]
    assert found.clips == ()
    (source / LIST).write_text(GOOD)

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    found = survey(source, Options())
    assert [str(fault) for fault in found.faults] == [
        f"{LIST}: expected a file that can be read, found Permission denied"
    ]


def test_a_video_of_another_size_than_most_is_a_fault(source: Path):
    write_mp4(source / "other.mp4", np.zeros((20, 16, 16, 3), np.uint8), 25)
    (source / "other.mp4").rename(source / "walking/person21_walking_d1_uncomp.avi")
    assert {str(fault) for fault in all_faults(source)} == {
        "walking/person21_walking_d1_uncomp.avi: expected 32x24 pixels as other videos have, found 16x16"
    }


def test_a_folder_that_may_not_be_read_does_not_hide_the_others(source: Path, monkeypatch: pytest.MonkeyPatch):
    scandir = os.scandir

    def guarded(path: Path) -> Any:
        if Path(path).name == "boxing":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert recognises(source)
