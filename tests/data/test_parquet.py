"""The strict parquet reader: any stretch of a file as pyarrow reads it whole, and a clear fault for what is broken."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.formats import parquet
from foreframe.data.formats.parquet import Table, holds_numbers, numbers, opened
from foreframe.data.ingest.pool import Readers
from foreframe.errors import DataError, UsageError, printable

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(path: Path, rows: int = 100, group: int = 30, **options: Any) -> Path:
    table = pa.table(
        {
            "a": pa.array(np.arange(rows, dtype=np.int64)),
            "b": pa.array([[float(row), row / 2] for row in range(rows)], pa.list_(pa.float32(), 2)),
            "b.c": pa.array([f"{row}" for row in range(rows)]),
        }
    )
    pq.write_table(table, str(path), row_group_size=group, **options)
    return path


def found(path: Path, columns: tuple[str, ...] = ("a",)) -> str:
    with pytest.raises(DataError) as caught, Table(path, columns) as table:
        table.read(0, table.rows)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].path == printable(str(path))
    return str(caught.value.faults[0])


def test_any_stretch_is_what_pyarrow_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "BLOCK_ROWS", 7)
    path = write(tmp_path / "a.parquet")
    whole = pq.read_table(str(path))
    with Table(path, ("b", "a")) as table:
        assert table.rows == 100
        assert table.names == ("a", "b", "b.c")
        for start, stop in [(0, 100), (29, 31), (95, 100), (3, 4), (50, 50), (60, 90), (0, 1)]:
            got = table.read(start, stop)
            assert got.column_names == ["b", "a"]
            for name in ("a", "b"):
                assert got.column(name).to_pylist() == whole.column(name).slice(start, stop - start).to_pylist()
        assert [first for first, _ in table.blocks()][:6] == [0, 7, 14, 21, 28, 30]


def test_reading_on_decodes_each_row_group_once_and_keeps_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "BLOCK_ROWS", 5)
    monkeypatch.setattr(parquet, "KEPT_BYTES", 500)
    started = []
    decode = Table._decode
    monkeypatch.setattr(Table, "_decode", lambda self, group: started.append(group) or decode(self, group))
    with Table(write(tmp_path / "a.parquet"), ("a", "b")) as table:
        for row in range(99):
            assert table.read(row, row + 2).column("a").to_pylist() == [row, row + 1]
        assert started == [0, 1, 2, 3]
        assert 0 < sum(batch.nbytes for batch in table._kept._items.values()) <= 500
        assert table.read(2, 3).column("a").to_pylist() == [2]
        assert started == [0, 1, 2, 3, 0]


def test_a_file_that_changed_is_opened_anew_and_few_are_kept_open(tmp_path: Path):
    path = write(tmp_path / "a.parquet", 10)
    assert opened(path, ("a",)) is opened(path, ("a",))
    write(path, 20)
    assert opened(path, ("a",)).rows == 20
    for number in range(2 * parquet.OPEN):
        opened(write(tmp_path / f"{number}.parquet", 3), ("a",))
    assert len(parquet._TABLES) == parquet.OPEN


def test_what_is_no_whole_parquet_file_is_a_fault(tmp_path: Path):
    path = write(tmp_path / "a.parquet")
    content = path.read_bytes()
    path.write_bytes(b"")
    assert found(path).endswith("expected a parquet file, found an empty file")
    path.write_bytes(b"some garbage, no parquet")
    assert "first bytes" in found(path)
    path.write_bytes(content[: len(content) // 2])
    assert found(path).endswith("the file is cut short")
    path.write_bytes(content[:-8] + b"\xff\xff\xff\x7fPAR1")
    assert "footer" in found(path)
    path.write_bytes(b"PAR1")
    assert "last bytes" in found(path)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:footer] + bytes(len(content) - 8 - footer) + content[-8:])
    assert found(path)
    path.write_bytes(content[:footer] + content[footer:-8].replace(b"\x18", b"\xff") + content[-8:])
    assert "expected a parquet file that can be decoded, found" in found(path)
    assert found(tmp_path).endswith("found a folder")
    assert found(tmp_path / "none").endswith("found No such file or directory")
    with pytest.raises(DataError, match="No such file"):
        opened(tmp_path / "none", ("a",))


def read_damaged(path: Path, content: bytes, places: list[int], log: Path) -> int:
    """Read a file with each of these bytes changed; how that ended stands in `log`, a line for each."""
    for at in places:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        with log.open("a") as lines:
            lines.write(f"{at} ")
        try:
            with Table(path, ("a", "b")) as table:
                found = f"{table.read(0, table.rows).num_rows} rows"
        except DataError as error:
            (fault,) = error.faults
            found = f"fault of {fault.path}"
        with log.open("a") as lines:
            lines.write(f"{found}\n")
    return len(places)


def test_a_damaged_byte_anywhere_is_a_fault_or_changes_nothing(tmp_path: Path):
    """Pages carry checksums here; damage in the footer that pyarrow does not survive ends a process made for that."""
    path, log = write(tmp_path / "a.parquet", 12, write_page_checksum=True, compression="none"), tmp_path / "log.txt"
    content = path.read_bytes()
    tried = left = [*range(4, len(content) - 8, 7)]
    while left:
        try:
            with Readers(1) as readers:
                readers.call(partial(read_damaged, path, content, left, log), tmp_path)
        except DataError as error:
            (fault,) = error.faults
            log.write_text(log.read_text() + f"fault of {fault.path}\n")
        left = tried[len(log.read_text().splitlines()) :]
    ends = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert {*ends} == {"12 rows", f"fault of {path}"}
    assert ends.count(f"fault of {path}") > 20


def test_a_missing_or_doubled_column_is_a_fault(tmp_path: Path):
    path = write(tmp_path / "a.parquet")
    assert found(path, ("x",)).endswith("expected one column x, found a, b, b.c")
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), str(path))
    assert found(path).endswith("expected one column a, found 2 of them")


def test_more_rows_than_there_are_is_a_fault(tmp_path: Path):
    with Table(write(tmp_path / "a.parquet"), ("a",)) as table, pytest.raises(DataError, match="101 rows or more"):
        table.read(90, 101)


@pytest.mark.parametrize("limit", ["MAX_VALUES", "MAX_COLUMN_BYTES"])
def test_sizes_are_judged_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str):
    monkeypatch.setattr(parquet, limit, 20)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("it was decoded"))
    assert "row group 0, a: expected at most 20" in found(write(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int8", "int64", "uint8", "uint64", "bool_"])
def test_numbers_of_every_kind_alone_and_in_lists(kind: str):
    kind = getattr(pa, kind)()
    cast = np.float16 if pa.types.is_float16(kind) else (bool if pa.types.is_boolean(kind) else int)
    alone = pa.chunked_array([pa.array([cast(1), None, cast(0)], kind), pa.array([cast(1)], kind)])
    assert holds_numbers(alone.type)
    values, wrong = numbers(alone, 1)
    assert values.tolist() == [[1], [0], [0], [1]]
    assert wrong == {1: "nothing"}
    rows = [[cast(1), cast(0)], None, [cast(0), None], [cast(1), cast(1)]]
    for lists in (pa.list_(kind), pa.list_(kind, 2), pa.large_list(kind)):
        assert holds_numbers(lists)
        column = pa.chunked_array([pa.array([[cast(0), cast(0)], *rows], lists).slice(1)])
        values, wrong = numbers(column, 2)
        assert values.tolist() == [[1, 0], [0, 0], [0, 0], [1, 1]]
        assert wrong == {1: "nothing", 2: "nothing"}


def test_lists_of_another_width_are_told_by_row():
    values, wrong = numbers(pa.array([[1.0, 2.0], [3.0], [], [4.0, 5.0]]), 2)
    assert values.tolist() == [[1, 2], [0, 0], [0, 0], [4, 5]]
    assert wrong == {1: "1 numbers", 2: "0 numbers"}
    assert numbers(pa.array([1.0, 2.0]), 3)[1] == {0: "1 number", 1: "1 number"}
    assert numbers(pa.chunked_array([], pa.list_(pa.float32())), 3)[0].shape == (0, 3)


def test_texts_pictures_and_lists_of_lists_are_no_numbers():
    for kind in (pa.string(), pa.list_(pa.string()), pa.struct({"bytes": pa.binary()}), pa.list_(pa.list_(pa.int8()))):
        assert not holds_numbers(kind)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow: pip install 'foreframe\[lerobot\]'"):
        Table(tmp_path / "a.parquet", ("a",))


# -- footers put together by hand


def footed(path: Path, footer: bytes) -> Path:
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


@pytest.mark.parametrize(
    "footer",
    [
        b"",
        b"\x18\xff\x01abc",  # a text longer than what is left
        b"\x15" + b"\xff" * 11 + b"\x01",  # a number that never ends
        b"\x1f\x00\x00",  # a kind that there is not
        b"\x19\x2f\x01\x02\x00",  # a list of them
        b"\x19\xf1\xff\xff\xff\xff\x7f\x01",  # 34 billion truth values
        b"\x1c" * 5000,  # structures in structures without end
    ],
)
def test_a_footer_without_meaning_is_a_damaged_one(tmp_path: Path, footer: bytes):
    assert "expected a parquet file that can be decoded, found" in found(footed(tmp_path / "a.parquet", footer))


@pytest.mark.parametrize(
    ("changed", "block", "fault"),
    [
        ([0], 100, "footer: expected 51 rows in its row groups, found 50"),
        ([0, -1], 100, "row group 0: expected 51 rows, found the end after 50"),
        ([0, -1], 25, "row group 0: expected 51 rows, found the end after 50"),
    ],
)
def test_a_footer_that_counts_other_rows_than_there_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: list[int], block: int, fault: str
):
    """The first 50 in the footer counts the rows of the file, the last one those of its row group."""
    monkeypatch.setattr(parquet, "BLOCK_ROWS", block)
    path = tmp_path / "a.parquet"
    table = pa.table({"a": [*range(50)]})
    pq.write_table(table, path, write_statistics=False, store_schema=False, compression="NONE", use_dictionary=False)
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    places = [at for at in range(footer, len(content) - 8) if content[at] == 2 * 50]  # zigzag
    for place in changed:
        content[places[place]] = 2 * 51
    path.write_bytes(content)
    assert found(path).endswith(fault)


def test_many_row_groups_are_read_and_too_many_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", 20, group=1)
    with Table(path, ("a",)) as table:
        assert table.read(0, 20).column("a").to_pylist() == [*range(20)]
        assert table.values == 20
    monkeypatch.setattr(parquet, "MAX_GROUPS", 19)
    assert "expected a parquet file that can be decoded, found" in found(path)


def test_an_empty_table_is_read_as_one(tmp_path: Path):
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with Table(tmp_path / "a.parquet", ("a",)) as table:
        assert table.rows == table.read(0, 0).num_rows == 0
        assert [*table.blocks()] == []


def test_more_values_than_rows_can_hold_are_refused_by_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "MAX_ROW_VALUES", 1)
    path = write(tmp_path / "a.parquet")
    assert "row group 0, b: expected at most 30 values in 30 rows, found 60" in found(path, ("a", "b"))


@pytest.mark.parametrize("name", ["a b", "\U0001f916", "line\nbreak", "e\u0301", "x" * 247])
def test_a_file_may_have_any_name(tmp_path: Path, name: str):
    path = write(tmp_path / f"{name}.parquet")
    with Table(path, ("a",)) as table:
        assert table.rows == 100
    path.write_bytes(b"words")
    assert "first bytes" in found(path)


def test_a_pipe_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert found(tmp_path / "pipe").endswith("expected a parquet file, found a pipe, socket or device")
    assert found(tmp_path / "loop").endswith("found Too many levels of symbolic links")
