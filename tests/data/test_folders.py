"""Looks into folders: sorted alike everywhere, never out of the source, and never an exception for what is there."""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import pytest

from foreframe.data.formats import folders
from foreframe.data.formats.folders import (
    Findings,
    by_number,
    counted,
    listing,
    may_enter,
    numbered,
    relative,
    runs,
)
from foreframe.errors import Fault
from foreframe.files import not_plain

NFD = unicodedata.normalize("NFD", "é")


def told(finds: Findings) -> list[str]:
    return [str(fault) for fault in finds.faults]


def test_files_and_folders_are_listed_apart_and_sorted_by_the_bytes_of_their_nfc_form(tmp_path: Path):
    names = ["b", "a", "Z", "10", "9", "\U0001f916", NFD + "1", "é2", "line\nbreak", "x" * 255, os.fsdecode(b"\xff")]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    for name in ("two words", ".hidden", "sub"):
        (tmp_path / name).mkdir()
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "inside").symlink_to("sub")
    finds = Findings(tmp_path)
    files, inner = listing(tmp_path, finds)
    assert files == [
        "10", "9", "Z", "a", "b", "line\nbreak", "link", "x" * 255, NFD + "1", "é2", "\U0001f916", os.fsdecode(b"\xff")
    ]  # fmt: skip
    assert inner == ["inside", "sub", "two words"]
    assert finds.faults == []
    assert sorted(finds.ignored) == [".DS_Store", ".hidden", "Thumbs.db"]
    assert finds.notes()[0].startswith("3 other files not used: ")
    finds.ignored[1:] = ["b", "c", "d"]
    assert finds.notes()[0].endswith("b, c, ...")
    finds.ignored[:] = ["just\none"]
    assert finds.notes() == ("1 other file not used: just\none",)
    assert Findings(tmp_path).notes() == ()


def test_what_is_no_plain_file_or_leads_elsewhere_is_a_fault_and_never_opened(tmp_path: Path):
    root = tmp_path / "src"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"")
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "nowhere").symlink_to("none")
    (root / "loop").symlink_to("loop")
    (root / "null").symlink_to("/dev/null")
    finds = Findings(root)
    assert listing(root, finds) == ([], [])
    assert sorted(told(finds)) == [
        "loop: expected a file, or a link that stays inside the source, found a link that leads nowhere (a loop)",
        "nowhere: expected a file, or a link that stays inside the source, "
        "found a link that leads nowhere (no such file)",
        "null: expected a file, or a link that stays inside the source, found a link to /dev/null",
        f"out: expected a file, or a link that stays inside the source, found a link to {tmp_path / 'secret'}",
        "pipe: expected a plain file or a folder, found a pipe, socket or device",
    ]


def test_a_folder_that_cannot_be_read_is_a_fault(tmp_path: Path):
    finds = Findings(tmp_path)
    assert listing(tmp_path / "none", finds) == ([], [])
    assert told(finds) == ["none: expected a folder that can be read, found No such file or directory"]


def test_a_folder_may_be_entered_if_it_is_inside(tmp_path: Path):
    root = tmp_path / "src"
    (root / "a").mkdir(parents=True)
    (root / "file").write_bytes(b"")
    (root / "link").symlink_to("a")
    (root / "out").symlink_to(tmp_path)
    finds = Findings(root)
    assert [may_enter(root / name, finds) for name in ("a", "link", "file", "none")] == [True, True, False, False]
    assert finds.faults == []
    assert not may_enter(root / "out", finds)
    assert not may_enter(root / ("x" * 300), finds)
    assert told(finds) == [
        f"out: expected a folder, or a link that stays inside the source, found a link to {tmp_path}",
        f"{'x' * 300}: expected a folder that can be read, found File name too long",
    ]


def test_what_is_no_plain_file_is_said_in_words(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert not_plain((tmp_path / "pipe").stat().st_mode) == "a pipe, socket or device"
    assert not_plain(Path("/dev/null").stat().st_mode) == "a pipe, socket or device"
    assert not_plain(tmp_path.stat().st_mode) == "a folder"
    assert not_plain(Path(__file__).stat().st_mode) == ""


def test_numbers_count_and_not_their_digits():
    found, others, twice = numbered(["10.png", "9.png", "x", "09.png"], re.compile(r"(\d+)\.png"))
    assert list(found.items()) == [(9, "9.png"), (10, "10.png")]
    assert others == ["x"]
    assert twice == [("9.png", "09.png")]
    names = ["b", "10", "9", "\u0663", "1" * 30, "a"]
    assert sorted(names, key=by_number) == ["9", "10", "1" * 30, "a", "b", "\u0663"]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], ""),
        ([5], "5"),
        ([7, 5, 6, 11, 3], "3, 5 to 7, 11"),
        (range(0, 40, 2), "0, 2, 4, 6, 8, 10, 12, 14 and 12 more spans"),
    ],
)
def test_numbers_are_told_in_a_few_words(numbers: list[int], words: str):
    assert runs(numbers) == words


def test_paths_are_told_on_one_line(tmp_path: Path):
    assert relative(tmp_path / "a" / "b\nc\x1b", tmp_path) == r"a/b\nc\x1b"
    assert relative(tmp_path, tmp_path) == str(tmp_path)
    assert relative(tmp_path / os.fsdecode(b"\xff"), tmp_path) == r"\udcff"
    assert counted({".png": 2, "": 1}) == "1 without ending, 2 .png"
    finds = Findings(tmp_path)
    finds.fault(tmp_path / "x", "this", "that", "row 1")
    assert finds.faults == [Fault("x", "row 1", "this", "that")]


def test_names_of_one_form_come_in_the_same_order_whatever_order_the_disk_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("é", NFD, "e", "f"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / f"{name}.d").mkdir()
    real = os.scandir
    seen = []
    for backwards in (False, True):
        with real(tmp_path) as entries:
            given = sorted(entries, key=lambda entry: entry.name, reverse=backwards)
        monkeypatch.setattr("foreframe.data.formats.folders.os.scandir", lambda _, given=given: nullcontext(given))
        seen.append(listing(tmp_path, Findings(tmp_path)))
    assert seen[0] == seen[1] == (["e", "f", NFD, "é"], ["e.d", "f.d", f"{NFD}.d", "é.d"])


def test_a_quick_look_enters_links_only_where_it_may(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.h5").write_bytes(b"")
    (tmp_path / "a/.hidden").write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/up").symlink_to("..")
    found = [path.relative_to(tmp_path).as_posix() for path in folders.some_files(tmp_path, links=False)]
    assert sorted(found) == ["a/b.h5", "a/up", "link"]
    assert "link/b.h5" in [path.relative_to(tmp_path).as_posix() for path in folders.some_files(tmp_path, 2)]
    assert list(folders.some_files(tmp_path / "none")) == []
