"""Tables that bring names of their columns: CSV, JSON, parquet; what they may hold and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from foreframe.data.formats.tables import read_json, read_named_table
from foreframe.errors import DataError, UsageError


def table(tmp_path: Path, name: str, text: str | bytes, rows: int | None = None):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    values, names, faults = read_named_table(path, name, rows)
    assert values.dtype == np.float32
    return values.tolist(), names, [str(fault) for fault in faults]


ROWS = [[1.0, 2.0], [3.5, -4.0]]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.csv", "1,2\n3.5,-4\n", ()),
        ("a.csv", "x,y\n1,2\n3.5,-4\n", ("x", "y")),
        ("a.CSV", '"left arm", y\r\n 1 ,2\r\n3.5e0,-4\r\n\r\n', ("left arm", "y")),
        ("a.json", "[[1, 2], [3.5, -4]]", ()),
        ("a.json", '[{"x": 1, "y": 2}, {"y": -4.0, "x": 3.5}]', ("x", "y")),
        ("a.json", '{"x": [1, 3.5], "y": [2, -4]}', ("x", "y")),
        ("a.json", '[{"a": [1, 2]}, {"a": [3.5, -4]}]', ("a_0", "a_1")),
        ("a.json", '{"a": [[1, 2], [3.5, -4]]}', ("a_0", "a_1")),
    ],
)
def test_tables_may_have_names_or_not(tmp_path: Path, name: str, text: str, names: tuple[str, ...]):
    assert table(tmp_path, name, text) == (ROWS, names, [])
    assert table(tmp_path, name, text, 2) == (ROWS, names, [])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "", "expected a table of 1 to 67108864 bytes, found 0 bytes"),
        ("a.csv", "\n \n", "expected rows of numbers, found blank lines"),
        ("a.csv", "x,x\n1,2\n", "row 1: expected each name once, found two columns 'x'"),
        ("a.csv", ",x\n1,2\n", "row 1: expected a name for column 1, found none"),
        ("a.csv", "nan,inf\n1,2\n", "row 1: expected names of columns, or finite decimal numbers, found 'nan'"),
        ("a.csv", "0x1,1_0\n1,2\n", "row 1: expected names of columns, or finite decimal numbers, found '0x1'"),
        ("a.csv", "1,nan\n1,2\n", "row 1, column 2: expected a finite decimal number, found 'nan'"),
        ("a.csv", "x,y\n1,\n", "row 2, column 2: expected a finite decimal number, found ''"),
        ("a.csv", "x,y\n1,1e39\n", "row 2, column 2: expected a finite decimal number, found '1e39'"),
        ("a.csv", "x,y\n1,2,3\n", "row 2: expected 2 numbers, found 3"),
        ("a.csv", "x,y\n\n1,2\n", "row 2: expected 2 numbers, found a blank row"),
        ("a.csv", "x;y\n1;2\n", "row 2, column 1: expected a finite decimal number, found '1;2'"),
        ("a.csv", b"\xef\xbb\xbfx,y\n1,2\n", "row 1: expected plain text, found a byte-order mark"),
        ("a.csv", b"x,\xff\n1,2\n", "row 1, column 2: expected text in UTF-8, found the byte 0xff"),
        ("a.csv", "x," * 5000 + "x\n", "row 1: expected 1 to 4096 columns, found 5001"),
        ("a.json", "[[1, 2], [3", "line 1, column 12: expected JSON"),
        ("a.json", "[" * 5000, "expected JSON, found lists and objects more than 32 deep"),
        ("a.json", f"[[{'9' * 5000}]]", "expected JSON, found 999999999999999999999999999999 does not fit"),
        ("a.json", "[[1, NaN]]", "column 6: expected JSON, found NaN is not a JSON number"),
        ("a.json", "[[1, -Infinity]]", "column 6: expected JSON, found -Infinity is not a JSON number"),
        ("a.json", "[[1, 1e999]]", "expected JSON, found 1e999 is larger than any number"),
        ("a.json", f"[[1, {'9' * 50}]]", "expected JSON, found 999999999999999999999999999999 does not fit into"),
        ("a.json", "[[1, true], [2, null]]", "row 1, column 2: expected a finite number, found true"),
        ("a.json", '[[1, "2"]]', "row 1, column 2: expected a finite number, found '2'"),
        ("a.json", "[[1, 2], [3]]", "row 2: expected 2 numbers, found 1"),
        ("a.json", "[[1, 2], 3]", "row 2: expected 2 numbers, found a number"),
        ("a.json", "[[]]", "row 1: expected 1 to 4096 numbers, found 0"),
        ("a.json", "[1, 2]", "row 1: expected a list of numbers, or an object, found a number"),
        ("a.json", "[]", "expected a list of rows, or an object of columns, found an empty list"),
        ("a.json", "{}", "expected 1 to 4096 columns, found 0"),
        ("a.json", "null", "expected a list of rows, or an object of columns, found null"),
        ("a.json", '{"x": [1], "x": [2]}', "expected JSON, found the key 'x' is given twice"),
        ("a.json", '{"x": [1, 2], "y": [3]}', "expected columns of one length, found 'y' of 1 and 'x' of 2"),
        ("a.json", '{"x": 3}', "column 'x': expected a list of numbers, found a number"),
        ("a.json", '{"x": [], "y": []}', "expected rows of numbers, found empty lists"),
        ("a.json", '[{"x": 1}, {"y": 1}]', "row 2: expected the keys of row 1, found no 'x'"),
        ("a.json", '[{"x": 1}, {"x": 1, "y": 1}]', "row 2: expected the keys of row 1, found also 'y'"),
        ("a.json", '[{"x": [1, 2]}, {"x": [1]}]', "row 2, column 'x': expected a list of 2 numbers, found 1"),
        ("a.json", '[{"x": [1], "x_0": 2}]', "row 1: expected each name once, found two columns 'x_0'"),
        ("a.json", b"\xef\xbb\xbf[[1]]", "row 1: expected plain text, found a byte-order mark"),
        ("a.parquet", b"", "expected a parquet file, found an empty file"),
        ("a.parquet", b"words " * 9, "first bytes: expected b'PAR1', found b'word'"),
    ],
)
def test_what_is_no_table_of_finite_numbers_is_a_fault(tmp_path: Path, name: str, text: str | bytes, told: str):
    _, _, faults = table(tmp_path, name, text)
    assert told in faults[0]
    assert faults[0].startswith(name)


@pytest.mark.parametrize(("text", "name"), [("x\n1\n2\n", "a.csv"), ("[[1], [2]]", "a.json")])
def test_other_numbers_of_rows_are_faults_and_the_array_fits_the_frames_all_the_same(
    tmp_path: Path, text: str, name: str
):
    for rows in (1, 3):
        values, _, faults = table(tmp_path, name, text, rows)
        assert faults == [f"{name}: expected {rows} rows, one for each frame, found 2"]
        assert values == [[1.0], [2.0], [0.0]][:rows]


def test_a_fault_in_one_row_leaves_the_others(tmp_path: Path):
    values, _, faults = table(tmp_path, "a.csv", "x,y\n1,2\n3,four\n5,6\n", 3)
    assert values == [[1, 2], [3, 0], [5, 6]]
    assert len(faults) == 1


def test_a_missing_file_is_a_fault(tmp_path: Path):
    _, _, faults = read_named_table(tmp_path / "a.csv", "a.csv", 2)
    assert str(faults[0]) == "a.csv: expected a file that can be read, found No such file or directory"


def test_a_parquet_table_may_hold_numbers_truth_values_and_lists_of_one_length(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "action": arrow.array([[1.0, 2.0], [3.0, 4.0]], arrow.list_(arrow.float32(), 2)),
        "state": arrow.array([[5], [6]]),
        "done": arrow.array([False, True]),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    values, names, faults = read_named_table(tmp_path / "a.parquet", "a.parquet", 2)
    assert faults == []
    assert names == ("action_0", "action_1", "state_0", "done")
    assert values.tolist() == [[1, 2, 5, 0], [3, 4, 6, 1]]


def test_in_parquet_nulls_words_and_uneven_lists_are_faults(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for column, told in (
        (arrow.array([1.0, None]), "row 2, column 'x': expected a number, found nothing"),
        (arrow.array([1.0, float("nan")]), "row 2, column 'x': expected a finite number, found nan"),
        (arrow.array(["1", "2"]), "column 'x': expected numbers, or lists of numbers, found string"),
        (arrow.array([[1, 2], [3]]), "row 2, column 'x': expected 2 numbers, found 1 numbers"),
    ):
        parquet.write_table(arrow.table({"x": column}), path)
        _, _, faults = read_named_table(path, "a.parquet", 2)
        assert [str(fault) for fault in faults] == [f"a.parquet, {told}"]


def test_half_a_parquet_table_is_a_fault(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"x": list(range(100))}), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    values, _, faults = read_named_table(path, "a.parquet", 100)
    assert "the file is cut short" in str(faults[0])
    assert len(values) == 100


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'foreframe\[lerobot\]'"):
        read_named_table(tmp_path / "a.parquet", "a.parquet")


def test_json_of_any_form_can_be_read_and_names_its_file_when_it_cannot(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"people": [{"id": 1}]}')
    assert read_json(path, "a.json") == {"people": [{"id": 1}]}
    path.write_text('{"people": [')
    with pytest.raises(DataError) as caught:
        read_json(path, "a.json")
    assert str(caught.value.faults[0]).startswith("a.json, line 1, column 13: expected JSON")
    with pytest.raises(DataError, match="No such file"):
        read_json(tmp_path / "b.json", "b.json")
