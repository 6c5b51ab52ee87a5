"""Tables that are no files, too large, or wrong everywhere: told in a few words, and never by an exception."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.formats import tables
from foreframe.data.formats.tables import read_json, read_named_table, read_table
from foreframe.errors import DataError


def fixed(path: Path, columns: int = 2, rows: int = 3) -> list[str]:
    values, faults = read_table(path, path.name, columns, rows)
    assert values.shape == (rows, columns)
    assert np.isfinite(values).all()
    return [str(fault) for fault in faults]


def named(path: Path, rows: int | None = None) -> list[str]:
    values, _, faults = read_named_table(path, path.name, rows)
    assert np.isfinite(values).all()
    return [str(fault) for fault in faults]


def saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_no_plain_file_is_a_fault_and_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name, words in {
        "pipe.csv": "a pipe, socket or device",
        "folder.csv": "a folder",
        "loop.csv": "Too many levels of symbolic links",
        "none.csv": "No such file or directory",
        "x" * 300 + ".csv": "File name too long",
    }.items():
        told = [f"{name}: expected a file that can be read, found {words}"]
        assert fixed(tmp_path / name) == named(tmp_path / name, 3) == told
        with pytest.raises(DataError, match=words):
            read_json(tmp_path / name, name)


def test_names_may_be_odd_and_the_message_says_what_it_was_told(tmp_path: Path):
    for name in ("a b", "\U0001f916", "line\nbreak", "e\u0301", "x" * 251, os.fsdecode(b"\xff")):
        path = saved(tmp_path / f"{name}.csv", "1,2\n3,4\n5,nan")
        for _, faults in (read_table(path, "shown", 2, 3), read_named_table(path, "shown", 3)[1:]):
            assert [str(fault) for fault in faults] == [
                "shown, row 3, column 2: expected a finite decimal number, found 'nan'"
            ]


def test_a_table_of_another_ending_is_an_error_of_the_caller(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected a file that ends in \.csv, \.json, \.parquet"):
        read_named_table(tmp_path / "a.txt", "a.txt")


def test_a_file_larger_than_tables_are_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 9)
    path = saved(tmp_path / "a.csv", "1,2\n3,4\n5,6\n")
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert fixed(path) == ["a.csv: expected a table of 1 to 9 bytes, found 12 bytes"]
    assert named(path) == ["a.csv: expected a table of 1 to 9 bytes, found 12 bytes"]


def test_a_number_of_very_many_digits_is_none(tmp_path: Path):
    path = saved(tmp_path / "a.csv", "0." + "1" * 398 + "\n0." + "1" * 399)
    assert len(fixed(path, 1, 2)) == len(named(path)) == 1


def test_of_rows_beyond_the_last_frame_only_the_number_is_told(tmp_path: Path):
    path = saved(tmp_path / "a.csv", "1,2\n3,4\nx,y\n,,,\n7")
    assert fixed(path, 2, 2) == ["a.csv: expected 2 rows, one for each frame, found 5"]
    assert named(path, 2)[0] == "a.csv, row 3, column 1: expected a finite decimal number, found 'x'"
    assert fixed(path, 2, 3)[1:] == [
        f"a.csv, row 3, column {column}: expected a finite decimal number, found '{text}'"
        for column, text in ((1, "x"), (2, "y"))
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "1,2\n3,4\n5,6", "expected at most 5 numbers, found 3 rows of 2"),
        ("a.csv", "x,y\n1,2\n3,4\n5,6", "expected at most 5 numbers, found 3 rows of 2"),
        ("a.json", [[1, 2], [3, 4], [5, 6]], "expected at most 5 numbers, found 3 rows of 2"),
        ("a.json", {"x": [1, 2, 3], "y": [1, 2, 3]}, "expected at most 5 numbers, found 3 rows of 2"),
    ],
)
def test_a_table_of_too_many_numbers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, words: str
):
    assert named(saved(tmp_path / name, content)) == []
    monkeypatch.setattr(tables, "MAX_NUMBERS", 5)
    assert named(tmp_path / name) == [f"{name}: {words}"]


def test_a_table_that_is_wrong_everywhere_is_told_in_a_bounded_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "MAX_FAULTS", 3)
    for name, content in (
        ("a.csv", "1,2\n" + "1;2\n" * 9),
        ("b.csv", "1,2\n" + "x,y\n" * 9),
        ("a.json", [[1, 2], *[[1, None]] * 9]),
        ("b.json", [[1, 2], *[[1]] * 9]),
    ):
        told = named(saved(tmp_path / name, content), 10)
        assert len(told) == 4
        assert told[3] == f"{name}: expected at most 3 faults, found more: the rest was not read"
    assert len(named(saved(tmp_path / "c.json", [[1, 2], *[[1]] * 3]))) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"x": 1}, 2], "row 2: expected an object as before, found a number"),
        ([{"x": 1}, [2]], "row 2: expected an object as before, found a list"),
        ([[1], [{}]], "row 2, column 1: expected a finite number, found an object"),
        ([[1], [[]]], "row 2, column 1: expected a finite number, found a list"),
        ([[1], [False]], "row 2, column 1: expected a finite number, found false"),
        ([{"x": [1, 2]}, {"x": 3}], "row 2, column 'x': expected a list of 2 numbers, found a number"),
        ({"x": [[1, 2]], "y" * 200: [["a"] * 5000]}, "expected 1 to 4096 columns, found 5002"),
        ({"": [1]}, "expected a name for column 1, found none"),
        ({"\ud800": [1]}, "expected JSON, found half a surrogate pair in '\\ud800'"),
        ({"a\nb": [1]}, "expected a name for column 1, found 'a\\nb'"),
        ({"x" * 201: [1]}, "expected a name for column 1"),
    ],
)
def test_json_that_is_no_table_is_told_where(tmp_path: Path, content: Any, words: str):
    assert words in named(saved(tmp_path / "a.json", content))[0]


def test_nan_is_told_by_line_and_column_and_not_where_it_stands_in_a_text(tmp_path: Path):
    saved(tmp_path / "a.json", '{"a": "NaN \\" NaN \\\\",\n "b": [1,\n  NaN]}')
    with pytest.raises(DataError, match=r"a\.json, line 3, column 3: expected JSON, found NaN is not a JSON number"):
        read_json(tmp_path / "a.json", "a.json")


def test_json_that_is_no_text_or_takes_much_memory_is_told(tmp_path: Path):
    path = tmp_path / "a.json"
    for content, words in (
        (b'["caf\xe9"]', "a.json, byte 5: expected JSON, found not UTF-8: 0xe9"),
        (b"[" + b"{}," * 2**18 + b"{}]", "CSV or parquet, found values that would take more than 60 MiB of memory"),
    ):
        path.write_bytes(content)
        assert words in named(path)[0]
        with pytest.raises(DataError, match=words):
            read_json(path, "a.json")


def test_a_table_of_known_rows_that_is_wrong_everywhere_is_told_in_a_bounded_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "MAX_FAULTS", 3)
    for content in ("x\n" * 9, "1,2\n" * 9):
        path = saved(tmp_path / "a.csv", content)
        told = [str(fault) for fault in read_table(path, "a.csv", 1, 9)[1]]
        assert len(told) == 4
        assert told[2].startswith("a.csv, row 3")
        assert told[3] == "a.csv: expected at most 3 faults, found more: the rest was not read"


pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_parquet_table_of_too_many_numbers_or_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    many = parquet(tmp_path / "many.parquet", a=[1.0] * 3, b=[2.0] * 3)
    lists = parquet(tmp_path / "lists.parquet", a=[[1.0] * 3] * 2)
    uneven = parquet(tmp_path / "uneven.parquet", a=[[1.0, 2.0], [], []])
    empty = parquet(tmp_path / "empty.parquet", a=pa.array([], pa.float32()))
    assert named(many) == named(lists) == []
    assert named(empty) == ["empty.parquet: expected 1 to 16,777,216 numbers, found 0 rows of 1"]
    monkeypatch.setattr(tables, "MAX_NUMBERS", 5)
    assert named(many) == ["many.parquet: expected 1 to 5 numbers, found 3 rows of 2"]
    assert named(lists) == ["lists.parquet: expected 1 to 5 numbers, found 6"]
    assert named(uneven) == ["uneven.parquet: expected at most 5 numbers, found 3 rows of 2"]
    monkeypatch.setattr(tables, "MAX_COLUMNS", 1)
    assert named(uneven) == ["uneven.parquet: expected 1 to 1 columns, found 2"]


def test_a_parquet_table_is_looked_at_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "_BLOCK", 8)
    values = np.arange(30, dtype=np.float32)
    path = parquet(tmp_path / "a.parquet", x=values, y=np.where(values == 17, np.nan, -values))
    found, names, faults = read_named_table(path, "a.parquet", 30)
    assert names == ("x", "y")
    np.testing.assert_array_equal(found, np.stack([values, np.where(values == 17, 0, -values)], 1))
    assert [str(fault) for fault in faults] == ["a.parquet, row 18, column 'y': expected a finite number, found nan"]
    monkeypatch.setattr(tables, "MAX_FAULTS", 3)
    told = named(parquet(tmp_path / "b.parquet", x=pa.array([None] * 30, pa.float32())))
    assert told[2:] == [
        "b.parquet, row 3, column 'x': expected a number, found nothing",
        "b.parquet: expected at most 3 faults, found more: the rest was not read",
    ]


def test_a_parquet_table_may_begin_with_a_row_of_nothing(tmp_path: Path):
    path = parquet(tmp_path / "a.parquet", x=pa.array([None, [1.0]], pa.list_(pa.float32())))
    assert named(path) == ["a.parquet, row 1, column 'x': expected a number, found nothing"]
