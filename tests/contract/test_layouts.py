"""What every layout must do; each file in foreframe/data/layouts is found and tried on its own example."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import foreframe.data.layouts as folder_of_layouts
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.ingest.transform import open_source
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import GENERAL, NOT_LAYOUTS, Layout, find_layout, layouts
from foreframe.errors import DataError, UsageError

ALL = list(layouts().values())
SPARE = {"stats.json", "tasks.parquet"}
"""Files that are checked where they are, but that no clip depends on."""


@pytest.fixture(params=ALL, ids=lambda layout: layout.NAME)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


@pytest.fixture
def source(layout: Layout, tmp_path: Path) -> Path:
    layout.example(tmp_path / "source")
    return tmp_path / "source"


def packed_files(layout: Layout, source: Path) -> list[Path]:
    """The files of an example that an import reads; test inputs of the dance lab have no truth and stay out."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return [path for path in files if (layout.NAME, path.relative_to(source).parts[0]) != ("dance_lab", "test")]


def test_every_file_of_the_folder_is_a_layout():
    names = {path.stem for path in Path(folder_of_layouts.__file__).parent.glob("[!_]*")}
    files = names - set(NOT_LAYOUTS)
    assert set(layouts()) == files


def test_a_layout_describes_itself_in_one_line(layout: Layout):
    for text in (layout.NAME, layout.DESCRIBE, layout.LOOKS_FOR):
        assert text
        assert "\n" not in text
    assert set(layout.TAKES) <= {"camera", "cuts", "count"}
    assert re.fullmatch("[a-z0-9_]+", layout.NAME)


def test_a_layout_knows_its_own_example_and_no_other_layout_does(layout: Layout, source: Path):
    fitting = [other.NAME for other in ALL if other.recognises(source)]
    assert [name for name in fitting if name not in GENERAL or name == layout.NAME] == [layout.NAME]
    assert find_layout(source) is layout


def test_a_layout_does_not_know_an_empty_folder_nor_a_missing_one(layout: Layout, tmp_path: Path):
    assert not layout.recognises(tmp_path)
    assert not layout.recognises(tmp_path / "missing")


def test_the_example_has_no_fault_and_at_least_two_splits(source: Path):
    report = scan(source)
    assert report.faults == []
    assert {"train", "val"} <= set(report.splits())
    assert not any("not used" in note for note in report.notes)


def test_a_survey_names_clips_once_and_its_condition_fully(layout: Layout, source: Path):
    survey = layout.survey(source, Options())
    assert survey.size
    assert len({clip.name for clip in survey.clips}) == len(survey.clips) > 0
    assert len(set(survey.columns)) == len(survey.columns)
    assert {clip.split for clip in survey.clips} <= {"train", "val", "test", ""}
    for clip in survey.clips:
        assert pickle.loads(pickle.dumps(clip)).name == clip.name  # noqa: S301
        assert (clip.rows is None) == (survey.cond == "none")


def test_reading_a_clip_in_pieces_equals_reading_it_whole(layout: Layout, source: Path):
    survey = layout.survey(source, Options())
    for clip in survey.clips:
        for read in filter(None, (clip.frames, clip.rows)):
            whole = read(0, clip.length).values
            pieces = [read(start, min(start + 5, clip.length)).values for start in range(0, clip.length, 5)]
            np.testing.assert_array_equal(np.concatenate(pieces), whole)
            np.testing.assert_array_equal(read(2, 4).values, whole[2:4])
        frames = clip.frames(0, clip.length).values
        assert frames.dtype == np.uint8
        assert frames.shape[0] == clip.length
        assert frames.shape[3] == 3
        assert frames.max() > 0
        rows = clip.rows(0, clip.length).values if clip.rows else None
        if rows is not None and survey.cond == "vector":
            assert rows.dtype == np.float32
            assert rows.shape == (clip.length, len(survey.columns))
        elif rows is not None:
            assert rows.dtype == np.uint8
            assert rows.shape[3] == 3


def test_an_import_holds_what_the_clips_read_as(layout: Layout, source: Path, tmp_path: Path):
    pack = import_clips(source, tmp_path / "pack")
    clips = {clip.name: clip for clip in open_source(source, layout.NAME, Options()).clips}
    assert {episode.name for episode in pack.episodes} == set(clips)
    for episode in pack.episodes:
        frames, cond = pack.read(episode, 0, episode.length)
        chunk = clips[episode.name].read(0, episode.length)
        np.testing.assert_array_equal(frames, chunk.frames)
        if chunk.cond is not None:
            np.testing.assert_array_equal(cond, chunk.cond)


def test_a_size_may_be_chosen(layout: Layout, source: Path, tmp_path: Path):
    pack = import_clips(source, tmp_path / "pack", options=Options(size=(8, 24)))
    assert (pack.spec.height, pack.spec.width) == (8, 24)


def test_importing_twice_gives_the_same_bytes(source: Path, tmp_path: Path):
    first, second = (import_clips(source, tmp_path / name) for name in ("one", "two"))
    assert first.hash == second.hash
    for name in first.manifest.files:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


@pytest.mark.parametrize("damage", ["half", "empty", "words"])
def test_each_damaged_file_is_named_and_nothing_is_packed(layout: Layout, source: Path, tmp_path: Path, damage: str):
    files = packed_files(layout, source)
    for path in files[:: max(1, len(files) // 20)]:
        content = path.read_bytes()
        path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "words": b"not a clip " * 9}[damage])
        with pytest.raises(DataError) as caught:
            import_clips(source, tmp_path / "pack", layout.NAME)
        name = path.relative_to(source).as_posix()
        assert any(fault.path == name or name in str(fault) for fault in caught.value.faults), (name, caught.value)
        assert not any(str(source) in str(fault) for fault in caught.value.faults)
        path.write_bytes(content)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_no_file_can_be_missing_without_a_trace(layout: Layout, source: Path):
    whole = scan(source, layout.NAME).clips
    files = packed_files(layout, source)
    for path in files[:: max(1, len(files) // 10)]:
        aside = source.parent / "aside"
        path.rename(aside)
        try:
            report = scan(source, layout.NAME)
            assert report.faults or report.clips != whole or path.name in SPARE, path.name
        except (DataError, UsageError):
            pass
        aside.rename(path)


def test_a_link_that_leaves_the_source_is_a_fault(layout: Layout, source: Path, tmp_path: Path):
    file = sorted(path for path in source.rglob("*") if path.is_file())[-1]
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    messages = [str(fault) for fault in scan(source, layout.NAME).faults]
    assert any("a link that stays inside the source, found a link to" in message for message in messages)


@pytest.mark.parametrize("layout", [layouts()["lerobot"]], indirect=True, ids=["lerobot"])
def test_reading_in_other_processes_gives_the_same_pack(source: Path, tmp_path: Path):
    plain, spread = (import_clips(source, tmp_path / str(n), workers=n) for n in (0, 2))
    assert plain.hash == spread.hash


def test_the_files_of_a_folder_are_seen_in_the_same_order_whatever_order_the_disk_gives(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import os

    plain = import_clips(source, tmp_path / "one").hash
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.entries)

        def close(self):
            pass

    monkeypatch.setattr("foreframe.data.formats.folders.os.scandir", Backwards)
    assert import_clips(source, tmp_path / "two").hash == plain


def test_a_folder_whose_path_is_as_long_as_can_be_is_looked_at_without_an_error(layout: Layout, tmp_path: Path):
    folder = tmp_path
    while len(str(folder)) < 3890:
        folder /= "x" * 200
    folder /= "y" * (4094 - len(str(folder)))
    folder.mkdir(parents=True)
    assert not layout.recognises(folder)  # every path below it is longer than the system takes


def test_a_thousand_folders_in_each_other_end_no_layout(tmp_path: Path):
    """Deeper than functions may call each other."""
    known = layouts()
    known["npz_episodes"].example(tmp_path)
    depth = 1100
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a", dir_fd=folder)
        folder = _stepped(folder, "a")
    try:
        fitting = [name for name, other in known.items() if other.recognises(tmp_path)]
        survey = known["npz_episodes"].survey(tmp_path, Options())
    finally:
        for _ in range(depth):  # what tidies up after tests cannot go so deep
            folder = _stepped(folder, "..")
            os.rmdir("a", dir_fd=folder)
        os.close(folder)
    assert fitting == ["npz_episodes"]
    assert len(survey.clips) == 5
    assert [fault.expected for fault in survey.faults] == ["folders 24 deep at most"]


def _stepped(folder: int, name: str) -> int:
    inner = os.open(name, os.O_RDONLY, dir_fd=folder)
    os.close(folder)
    return inner


def test_each_message_is_one_line_and_names_a_path_below_the_source(layout: Layout, source: Path):
    for folder in (source, *sorted(path for path in source.rglob("*") if path.is_dir())):
        (folder / "a\nb\x1b[31m.bin").write_text("x")
        (folder / ("\U0001f600" * 63)).mkdir()
        (folder / "u\u0308.json").symlink_to("/etc/passwd")
        os.mkfifo(folder / "pipe\n")
    survey = layout.survey(source, Options())
    faults = [*survey.faults, *(fault for clip in survey.clips for fault in clip.faults)]
    assert any("a pipe, socket or device" in fault.found for fault in faults)
    for text in (*map(str, faults), *survey.notes, *survey.warnings):
        assert text.isprintable()
        assert "root:" not in text
    for fault in faults:
        assert not Path(fault.path).is_absolute()
