"""What strangers named and wrote is shown, does nothing to the terminal that shows it, and is never much."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from foreframe.data.ingest.report import Report
from foreframe.errors import ConfigError, DataError, Fault, ForeframeError, NumberFault, printable
from foreframe.report import starts as gallery

EVIL = "a\x1b]0;owned\x07\x1b[2J\r\u202e\x9b1m\udcff"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\r\u202e\x9b1m\udcff"


def test_signs_that_steer_a_terminal_are_escaped_and_all_others_kept():
    assert printable(EVIL) == SHOWN
    assert printable("a\nb\tc") == r"a\nb\tc"
    for text in ("", "two words", "caf\u00e9 \u4f60\u597d \U0001f600", r"C:\clips\x1b"):
        assert printable(text) == text


@pytest.mark.parametrize("kind", [Fault, NumberFault])
def test_a_fault_steers_no_terminal_and_takes_one_line(kind: type[Fault]):
    more = ((0,),) if kind is NumberFault else ()
    fault = kind(f"{EVIL}\n", f"{EVIL}\n", EVIL, EVIL, *more)
    assert str(fault) == rf"{SHOWN}\n, {SHOWN}\n: expected {SHOWN}, found {SHOWN}"
    assert str(DataError("clips\ncannot be used", [fault])) == f"clips\ncannot be used\n  {fault}"


@pytest.mark.parametrize("kind", [ForeframeError, ConfigError, DataError])
def test_an_error_breaks_its_own_lines_only(kind: type[ForeframeError]):
    assert str(kind(f"{EVIL}: first\nsecond")) == f"{SHOWN}: first\nsecond"


def test_a_report_steers_no_terminal():
    report = Report(EVIL, "videos", None, faults=[Fault(EVIL, EVIL, EVIL, EVIL)], warnings=[EVIL], notes=[EVIL])
    console = Console(width=300, record=True, force_terminal=False, file=StringIO())
    console.print(report)
    text = console.export_text()
    assert text.count(SHOWN) == 7
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_file_of_a_name_that_steers_is_named_by_its_escapes(tmp_path: Path):
    path = tmp_path / "a\x1b[2J.csv"
    path.write_text("1,x\n")
    with pytest.raises(DataError) as caught:
        gallery._table(path, 2)
    assert r"a\x1b[2J.csv" in str(caught.value)
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def told(path: Path, content: bytes, columns: int = 2) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        gallery._table(path, columns)
    return str(caught.value)


def test_of_many_faults_of_conditions_the_first_are_told_and_how_many_there_are(tmp_path: Path):
    path = tmp_path / "rows.csv"
    for rows, words in ((1, "2 faults"), (2, "4 faults"), (500, "1,000 faults, the first 5 are")):
        lines = told(path, b"x,y\n" * rows).split("\n")
        assert lines[0] == f"--cond {path}: cannot be used; {words}"
        assert lines[1].endswith("row 1, column 1: expected a finite decimal number, found 'x'")
        assert len(lines) == 1 + min(5, 2 * rows)
    assert "10,001 faults, the first 5 are" in told(path, b"x\n" * 20_000, 1)


def test_conditions_larger_than_any_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.csv"
    monkeypatch.setattr(gallery, "MAX_COND_BYTES", 100)
    assert told(path, b"1,2\n" * 26) == f"--cond {path}: 104 bytes, expected at most 100"
    assert told(path, b"1\n" * 30, 2) == f"--cond {path}: expected 2 numbers in each of its 30 rows, found fewer"
    path.write_bytes(b"1,2\n" * 25)
    assert gallery._table(path, 2).shape == (25, 2)


def test_no_conditions_are_told(tmp_path: Path):
    with pytest.raises(DataError, match="expected a CSV file with 2 columns, not found"):
        gallery._table(tmp_path / "none.csv", 2)
