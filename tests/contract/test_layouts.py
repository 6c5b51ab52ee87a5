"""What every layout must do; each file in foreframe/data/layouts is found and tried on its own example."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import foreframe.data.layouts as folder_of_layouts
from foreframe.clip import ClipSpec
from foreframe.data.check import find_layout, scan
from foreframe.data.clips import Options
from foreframe.data.importing import import_clips
from foreframe.data.layouts import Layout, layouts
from foreframe.errors import DataError

ALL = list(layouts().values())


@pytest.fixture(params=ALL, ids=lambda layout: layout.NAME)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


@pytest.fixture
def source(layout: Layout, tmp_path: Path) -> Path:
    layout.example(tmp_path / "source")
    return tmp_path / "source"


def test_every_file_of_the_folder_is_a_layout():
    files = {path.stem for path in Path(folder_of_layouts.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(layouts()) == files


def test_a_layout_describes_itself_in_one_line(layout: Layout):
    for text in (layout.NAME, layout.DESCRIBE, layout.LOOKS_FOR):
        assert text
        assert "\n" not in text
    assert re.fullmatch("[a-z0-9_]+", layout.NAME)


def test_a_layout_knows_its_own_example_and_no_other_layout_does(layout: Layout, source: Path):
    assert [other.NAME for other in ALL if other.recognises(source)] == [layout.NAME]
    assert find_layout(source) is layout


def test_a_layout_does_not_know_an_empty_folder_nor_a_missing_one(layout: Layout, tmp_path: Path):
    assert not layout.recognises(tmp_path)
    assert not layout.recognises(tmp_path / "missing")


def test_the_example_has_no_fault_and_at_least_two_splits(source: Path):
    report = scan(source)
    assert report.faults == []
    assert {"train", "val"} <= set(report.splits())


def test_a_survey_names_clips_once_and_its_condition_fully(layout: Layout, source: Path):
    survey = layout.survey(source, Options())
    assert isinstance(survey.spec, ClipSpec)
    assert len({clip.name for clip in survey.clips}) == len(survey.clips) > 0
    if survey.spec.cond == "vector":
        assert len(survey.cond_names) == survey.spec.cond_size
    assert survey.shift


def test_reading_a_clip_in_pieces_equals_reading_it_whole(layout: Layout, source: Path):
    for clip in layout.survey(source, Options()).clips:
        whole = clip.read(0, clip.length)
        pieces = [clip.read(start, min(start + 5, clip.length)) for start in range(0, clip.length, 5)]
        np.testing.assert_array_equal(np.concatenate([piece.frames for piece in pieces]), whole.frames)
        if whole.cond is not None:
            np.testing.assert_array_equal(np.concatenate([piece.cond for piece in pieces]), whole.cond)


def test_an_import_holds_what_the_clips_read_as(layout: Layout, source: Path, tmp_path: Path):
    pack = import_clips(source, tmp_path / "pack")
    clips = {clip.name: clip for clip in layout.survey(source, Options()).clips}
    assert {episode.name for episode in pack.episodes} == set(clips)
    for episode in pack.episodes:
        frames, cond = pack.read(episode, 0, episode.length)
        chunk = clips[episode.name].read(0, episode.length)
        np.testing.assert_array_equal(frames, chunk.frames)
        if chunk.cond is not None:
            np.testing.assert_array_equal(cond, chunk.cond)


def test_a_size_may_be_chosen(layout: Layout, source: Path, tmp_path: Path):
    pack = import_clips(source, tmp_path / "pack", size=(8, 24))
    assert (pack.spec.height, pack.spec.width) == (8, 24)


def test_importing_twice_gives_the_same_bytes(source: Path, tmp_path: Path):
    first, second = (import_clips(source, tmp_path / name) for name in ("one", "two"))
    assert first.hash == second.hash
    for name in first.manifest.files:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "words"])
def test_a_damaged_picture_is_a_fault_with_its_path_and_nothing_is_packed(source: Path, tmp_path: Path, damage: str):
    picture = sorted(source.glob("**/train/**/*3.png"))[0]
    content = picture.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 16]) + content[half + 1 :]
    picture.write_bytes({"cut": content[:half], "bit": flipped, "empty": b"", "words": b"not a picture " * 9}[damage])
    with pytest.raises(DataError) as caught:
        import_clips(source, tmp_path / "pack")
    assert [fault.path for fault in caught.value.faults] == [picture.relative_to(source).as_posix()]
    assert "frame 3" in caught.value.faults[0].where
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_picture_of_another_size_or_depth_is_a_fault(source: Path):
    from PIL import Image

    small, deep = sorted(source.glob("**/train/**/*3.png"))[0], sorted(source.glob("**/train/**/*4.png"))[0]
    with Image.open(deep) as image:
        size = image.size
    Image.new("RGB", (5, 7)).save(small)
    Image.new("I;16", size).save(deep)
    found = {fault.path: str(fault) for fault in scan(source).faults}
    assert set(found) == {small.relative_to(source).as_posix(), deep.relative_to(source).as_posix()}
    assert found[small.relative_to(source).as_posix()].endswith(
        f"expected {size[0]}x{size[1]} pixels as elsewhere, found 5x7"
    )
    assert "16 bits" in found[deep.relative_to(source).as_posix()]


def test_a_link_that_leaves_the_source_is_a_fault(source: Path, tmp_path: Path):
    picture = sorted(source.glob("**/train/**/*3.png"))[0]
    picture.rename(tmp_path / "elsewhere.png")
    picture.symlink_to(tmp_path / "elsewhere.png")
    messages = [str(fault) for fault in scan(source).faults]
    assert any("a link that stays inside the source, found a link to" in message for message in messages)


def test_the_files_of_a_folder_are_seen_in_the_same_order_whatever_order_the_disk_gives(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import os

    plain = import_clips(source, tmp_path / "one").hash
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("foreframe.data.folders.os.scandir", Backwards)
    assert import_clips(source, tmp_path / "two").hash == plain
