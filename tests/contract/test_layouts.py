"""What every layout must do; each file in foreframe/data/layouts is found and tried on its own example."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import foreframe.data.layouts as folder_of_layouts
from foreframe.data.ingest import conformance
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import NOT_LAYOUTS, Layout, find_layout, layouts

ALL = list(layouts().values())


@pytest.fixture(params=ALL, ids=lambda layout: layout.NAME)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


@pytest.fixture
def source(layout: Layout, tmp_path: Path) -> Path:
    layout.example(tmp_path / "source")
    return tmp_path / "source"


def test_every_file_of_the_folder_is_a_layout():
    names = {path.stem for path in Path(folder_of_layouts.__file__).parent.glob("[!_]*")}
    files = names - set(NOT_LAYOUTS)
    assert set(layouts()) == files


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_a_layout_keeps_its_contract(layout: Layout, source: Path, tmp_path: Path, rule: conformance.Rule):
    assert list(rule(layout, layout.NAME, source, tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "aside"))] == []


def test_an_example_is_found_by_its_layout(layout: Layout, source: Path):
    assert find_layout(source) is layout


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
