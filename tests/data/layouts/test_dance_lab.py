"""The lab's dancing person: which frames make a take, and what is wrong with their pairs and their numbers."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts import dance_lab, frame_folders
from foreframe.data.layouts.options import Options
from foreframe.data.open import find_inputs
from foreframe.errors import ConfigError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    dance_lab.example(tmp_path)
    return tmp_path


def told(folder: Path) -> list[str]:
    return [str(fault) for fault in scan(folder, "dance_lab").faults]


def test_a_frame_number_of_a_thousand_million_takes_no_memory(source: Path):
    for part in ("img", "label"):
        folder = source / "train" / f"train_{part}"
        shutil.copy(folder / "frame000000.png", folder / "frame999999999.png")
    start = time.monotonic()
    survey = dance_lab.survey(source, Options())
    assert time.monotonic() - start < 5
    assert survey.warnings == ("train: no frame 12 to 999999998; the take is cut there",)
    assert [clip.length for clip in survey.clips] == [12, 1, 9]


def test_only_frames_that_neither_side_has_are_called_missing(source: Path):
    for number, parts in ((0, ("img", "label")), (4, ("img", "label")), (7, ("label",)), (11, ("img",))):
        for part in parts:
            (source / f"train/train_{part}/frame{number:06d}.png").unlink()
    last = source / "train/train_img/frame000010.png"
    shutil.copy(last, last.with_name("frame000015.png"))  # no take reaches there
    survey = dance_lab.survey(source, Options())
    assert survey.warnings == ("train: no frame 4; the take is cut there",)
    assert [str(fault) for fault in survey.faults] == [
        "train/train_label/frame000007.png, frame 7: expected a picture, found no pose for this frame",
        "train/train_img/frame000011.png, frame 11: expected a picture, found no frame for this pose",
        "train/train_label/frame000015.png, frame 15: expected a picture, found no pose for this frame",
    ]


def test_a_cut_at_no_frame_is_refused(source: Path):
    with pytest.raises(ConfigError, match="cuts: no frame of train has the number 99"):
        dance_lab.survey(source, Options(cuts=(3, 99)))


def test_two_pictures_of_one_number_are_in_no_take(source: Path):
    shutil.copy(source / "train/train_img/frame000003.png", source / "train/train_img/frame3.png")
    survey = dance_lab.survey(source, Options())
    assert [str(fault) for fault in survey.faults] == [
        "train/train_img: expected one picture for each number, found frame000003.png and frame3.png"
    ]
    assert [clip.name for clip in survey.clips] == ["train/000000-000002", "train/000004-000011", "val/000000-000008"]


def test_a_side_that_is_missing_or_empty_is_told(source: Path):
    shutil.rmtree(source / "train/train_label")
    for path in (source / "val/val_img").iterdir():
        path.unlink()
    (source / "val/val_img/readme.txt").write_text("x")
    assert told(source) == [
        "train/train_label: expected a folder of poses, found no such folder",
        "val/val_img: expected pictures frame000000.png, ..., found none",
    ]


def test_poses_behind_a_link_that_leads_out_are_not_read(source: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("other") / "poses"
    (source / "train/train_label").rename(other)
    (source / "train/train_label").symlink_to(other)
    assert told(source) == [
        f"train/train_label: expected a folder, or a link that stays inside the source, found a link to {other}"
    ]


def test_test_inputs_alone_are_no_clips_and_their_names_are_printed_on_one_line(source: Path):
    for split in ("train", "val"):
        shutil.rmtree(source / split)
    (source / "test/test_label/0").rename(source / "test/test_label/a\nb")
    assert dance_lab.recognises(source)
    survey = dance_lab.survey(source, Options())
    assert [str(fault) for fault in survey.faults] == [
        f"{source}: expected train or val with frames and poses, found test inputs only: predict them with `rollout`"
    ]
    assert "not packed: a\\nb (4 poses);" in survey.notes[0]
    shutil.rmtree(source / "test")
    assert told(source) == [f"{source}: expected {dance_lab.LOOKS_FOR}, found none of them"]


def test_the_folders_of_test_sequences_are_found_by_the_split(source: Path, tmp_path_factory: pytest.TempPathFactory):
    found = find_inputs(source, "test")
    assert found == dance_lab.inputs(source)["test"]
    assert found is not None
    assert found.frames.is_dir()
    assert found.cond is not None
    assert found.cond.is_dir()
    other = tmp_path_factory.mktemp("other")
    frame_folders.example(other)
    for data, split in ((source, "val"), (other, "test"), (source / "none", "test"), ("push", "test")):
        assert find_inputs(data, split) is None
    pack = other / "pack"
    import_clips(source, pack, "dance_lab", workers=0)
    assert find_inputs(pack, "test") is None
