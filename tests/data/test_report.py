"""What a report says to people, and what it holds for programs."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from foreframe.clip import ClipSpec
from foreframe.data.ingest.alignment import AlignmentResult
from foreframe.data.ingest.report import SHOWN, ClipLine, Report, count
from foreframe.data.pack.manifest import LeftOut
from foreframe.errors import DataError, Fault

SPEC = ClipSpec(3, 8, 10, "vector", 2)


def printed(report: Report) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(report)
    return out.getvalue()


def test_clips_are_counted_by_split_and_nothing_wrong_is_said_so():
    clips = [ClipLine("a", "train", 1200), ClipLine("b", "train", 34), ClipLine("c", "val", 5)]
    report = Report("somewhere", "videos", SPEC, clips)
    lines = [line.split() for line in printed(report).splitlines()]
    assert lines[2:4] == [["train", "2", "1,234", "34", "1,200"], ["val", "1", "5", "5", "5"]]
    assert report.splits() == {"train": [1200, 34], "val": [5]}
    assert lines[-1] == ["nothing", "wrong", "found"]


def test_without_a_readable_picture_there_is_no_table_and_it_is_said():
    text = printed(Report("somewhere", "videos", None, faults=[Fault("x", "", "this", "that")]))
    assert "somewhere  videos, no readable picture" in text
    assert "shortest" not in text
    assert "nothing wrong found" not in text


def test_faults_of_one_path_stand_below_it_and_those_of_the_folder_have_no_place():
    faults = [Fault("a.png", "frame 3", "this", "that"), Fault("a.png", "frame 4", "1", "2"), Fault("b", "", "c", "d")]
    lines = printed(Report("somewhere", "videos", SPEC, faults=faults)).splitlines()
    assert lines[1:] == [
        "3 faults:",
        "  a.png",
        "    frame 3: expected this, found that",
        "    frame 4: expected 1, found 2",
        "  b",
        "    expected c, found d",
    ]


def test_of_very_many_lines_the_first_are_printed_and_all_are_counted_and_kept():
    report = Report("somewhere", "videos", SPEC)
    report.faults = [Fault(f"f{n}", "", "this", "that") for n in range(SHOWN + 1_005)]
    report.warnings = [f"w{n}" for n in range(SHOWN + 2)]
    report.notes = [f"n{n}" for n in range(SHOWN)]
    text = printed(report)
    assert "1,205 faults:" in text
    assert f"f{SHOWN - 1}\n" in text
    assert f"f{SHOWN}\n" not in text
    assert "... and 1,005 more; the JSON form lists all of them" in text
    assert "... and 2 more warnings" in text
    assert "more notes" not in text
    assert len(json.loads(json.dumps(report.to_dict()))["faults"]) == SHOWN + 1_005


def test_the_alignment_is_told_once_as_a_line_or_as_a_warning():
    well, odd = (AlignmentResult({0: 0.5, 1: 0.9}, best) for best in (0, 1))
    assert well.words in printed(Report("x", "videos", SPEC, alignment=well))
    text = printed(Report("x", "videos", SPEC, warnings=[odd.warning], alignment=odd))
    assert "".join(text.split()).count("".join(odd.warning.split())) == 1
    assert text.count("R2 at shift") == 1


def test_a_report_with_faults_stops_whoever_insists():
    report = Report("x", "videos", SPEC, faults=[Fault("a", "", "this", "that")], left_out=[LeftOut("a", ("why",))])
    with pytest.raises(DataError, match=r"x \(videos\): 1 fault; mend it\n  a: expected this, found that") as caught:
        report.raise_if_faults("mend it")
    assert caught.value.faults == tuple(report.faults)
    assert (report.ok, report.to_dict()["ok"]) == (False, False)
    Report("x", "videos", SPEC, warnings=["odd"]).raise_if_faults("mend it")


def test_what_is_counted_has_its_plural():
    assert [count(n, "clip") for n in (0, 1, 2, 1_000)] == ["0 clips", "1 clip", "2 clips", "1,000 clips"]
