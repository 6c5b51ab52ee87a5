"""Robot pushing as the lab hands it out: which folders are clips, and what is wrong with their names and tables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foreframe.data.formats.images import example_picture
from foreframe.data.ingest.check import scan
from foreframe.data.layouts import bair_lab
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout
from foreframe.video import write_png


@pytest.fixture
def source(tmp_path: Path) -> Path:
    bair_lab.example(tmp_path)
    return tmp_path


def told(folder: Path) -> list[str]:
    return [str(fault) for fault in scan(folder, "bair_lab").faults]


def test_other_files_and_folders_are_noted_or_told(source: Path):
    root = source / "processed_data"
    (root / "train/readme.txt").write_text("x")
    (root / "train/traj_0/list.txt").write_text("x")
    (root / "train/traj_0/1/note.txt").write_text("x")
    (root / "train/traj_9").mkdir()
    (root / "val").mkdir()
    survey = bair_lab.survey(source, Options())
    assert [str(fault) for fault in survey.faults] == [
        "processed_data/train/traj_9: expected a folder for each clip, found none",
        "processed_data/val: expected one folder for the split, found also validate/",
    ]
    assert survey.notes == (
        "3 other files not used: processed_data/train/readme.txt, processed_data/train/traj_0/list.txt, "
        "processed_data/train/traj_0/1/note.txt",
    )


def test_clips_in_a_split_with_nothing_in_it_are_a_fault(tmp_path: Path):
    assert told(tmp_path) == [f"{tmp_path}: expected {bair_lab.LOOKS_FOR}, found no clip"]
    (tmp_path / "train").mkdir()
    assert told(tmp_path) == ["train: expected folders of clips, found an empty folder"]
    assert not bair_lab.recognises(tmp_path)


def test_a_folder_without_pictures_is_told_with_what_is_in_it_instead(tmp_path: Path):
    for name in ("1/a.jpg", "1/b.jpg", "1/c.\x1b[31m\n", "2/actions.csv"):
        path = tmp_path / "train/group" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert find_layout(tmp_path) is bair_lab
    assert told(tmp_path) == [
        "train/group/1: expected pictures 0.png, 1.png, ..., found none (1 .\\x1b[31m\\n, 2 .jpg)",
        "train/group/2: expected pictures 0.png, 1.png, ..., found none",
    ]


def test_a_huge_number_among_a_few_leaves_one_gap(source: Path):
    write_png(source / "processed_data/train/traj_0/1/999999999.png", example_picture(1, 16, 16))
    assert told(source)[0] == (
        "processed_data/train/traj_0/1: expected pictures 0.png to 999999999.png without a gap, "
        "found no picture 12 to 999999998"
    )


def test_a_source_behind_a_link_that_leads_out_is_not_entered(source: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("other")
    (other / "processed_data").symlink_to(source / "processed_data")
    assert told(other) == [
        "processed_data: expected a folder, or a link that stays inside the source, found a link to "
        f"{source / 'processed_data'}"
    ]


def test_two_pictures_of_a_number_and_folders_of_pipes_are_told(source: Path):
    group = source / "processed_data/train/traj_0"
    write_png(group / "1/03.png", example_picture(3, 16, 16))
    (group / "3").mkdir()
    os.mkfifo(group / "3/0.png")
    assert told(source) == [
        "processed_data/train/traj_0/3/0.png: expected a plain file or a folder, found a pipe, socket or device",
        "processed_data/train/traj_0/1: expected one picture for each number, found 03.png and 3.png",
    ]
