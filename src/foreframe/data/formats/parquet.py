"""Parquet files, read strictly and a block of rows at a time, so that a file of any size takes little memory.

A file is opened once and read forwards; what was decoded lately is kept, so neighbouring and repeated stretches cost
nothing. Before anything is decoded, its size is judged by the footer, which is read here: pyarrow ends the whole
process where the statistics in a damaged one contradict each other. pyarrow, which does the decoding, is an extra.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foreframe.errors import UsageError, reading, unreadable
from foreframe.files import Identity, Recent, identity

MAX_FOOTER_BYTES = 2**28
MAX_VALUES = 2**28
"""Most values that one column of one row group may hold."""
MAX_COLUMN_BYTES = 2**32
"""Most bytes that one column of one row group may take once decompressed; it is decoded in blocks, never at once."""
MAX_GROUPS = 2**17
MAX_ROW_VALUES = 2**23
"""Most values that a row of one column may hold, on average over a row group: a row is decoded as a whole."""
BULK = 2**24
"""Bytes that a page may become, however small it is in the file; a larger one has to be its share of the file."""
MOST_PACKED = 256
"""Bytes in a page of more than `BULK` for each byte in the file."""
BLOCK_BYTES, BLOCK_ROWS = 2**21, 8192
"""A block holds about so many bytes, and never more rows."""
KEPT_BYTES = 2**25
"""Decoded bytes that a process keeps for each open file."""
OPEN = 6
"""Files that a process keeps open."""
_MAGIC = b"PAR1"
_PAGE_HEADERS = (2**12, 2**20)
"""Bytes read for the header of a page; more if these do not do."""


class Table:
    """Some columns of one parquet file. `rows` counts its rows; `types` holds the Arrow type of each column."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        """Reads the footer only.

        Raises:
            DataError: no such file, not a parquet file, cut short, a footer that contradicts itself, a missing column.
            UsageError: pyarrow is not installed.
        """
        pa, pq = load_pyarrow()
        self.path, self.columns = path, columns
        groups = _footer(path, frozenset(columns))
        with _errors(path):
            self._source = pa.OSFile(str(path))
            self._file = pq.ParquetFile(
                self._source, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True
            )
            rows, schema = self._file.metadata.num_rows, self._file.schema_arrow
            self.names: tuple[str, ...] = tuple(schema.names)
        if rows != sum(group.rows for group in groups):
            raise unreadable(path, "footer", f"{rows} rows in its row groups", f"{sum(group.rows for group in groups)}")
        for name in columns:
            if (count := self.names.count(name)) != 1:
                there = ", ".join(self.names[:12]) + ", ..." * (len(self.names) > 12)
                raise unreadable(path, "", f"one column {name}", f"{count} of them" if count else there or "none")
        self.rows: int = rows
        self.types: dict[str, Any] = {name: schema.field(name).type for name in columns}
        self.values: int = sum(chunk.values for group in groups for chunk in group.chunks)
        """How many values the columns hold, those in lists counted one by one, as the footer says."""
        self._groups = groups
        self._starts = [0, *accumulate(group.rows for group in groups)]
        self._steps: dict[int, int] = {}
        self._kept: Recent[int, Any] = Recent(KEPT_BYTES, lambda batch: batch.nbytes)
        self._batches: tuple[int, Iterator[tuple[int, Any]]] = (0, iter(()))

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._batches = (0, iter(()))
        self._source.close()

    def read(self, start: int, stop: int) -> Any:
        """Rows start to stop-1 as a `pyarrow.Table`.

        Raises:
            DataError: the file has fewer rows, or they cannot be decoded.
        """
        if not 0 <= start <= stop <= self.rows:
            raise unreadable(self.path, "", f"{stop} rows or more", f"{self.rows}")
        pa, _ = load_pyarrow()
        pieces, row = [], start
        while row < stop:
            first, batch = self._block(row)
            piece = batch.slice(row - first, stop - row)
            pieces.append(piece)
            row += piece.num_rows
        if not pieces:
            return pa.table({name: pa.array([], kind) for name, kind in self.types.items()})
        return pa.Table.from_batches(pieces)

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """All rows from the first on, as (number of its first row, `pyarrow.RecordBatch`) of each block.

        Raises:
            DataError: they cannot be decoded.
        """
        for group in range(len(self._starts) - 1):
            yield from self._decode(group)

    def _block(self, row: int) -> tuple[int, Any]:
        """The block that holds a row, and the number of its first row."""
        group = bisect_right(self._starts, row) - 1
        first = row - (row - self._starts[group]) % self._step(group)
        if (kept := self._kept.get(first)) is not None:
            return first, kept
        ahead, batches = self._batches
        if not self._starts[group] <= ahead <= first:
            ahead, batches = self._starts[group], self._decode(group)
        while ahead <= first:
            found, batch = next(batches, (-1, None))
            if batch is None:  # the iterator went past the end of the row group before
                found, batch = next(batches := self._decode(group))
            ahead = found + batch.num_rows
            self._batches = (ahead, batches)
            kept = self._kept.put(found, batch)
        return first, kept

    def _decode(self, group: int) -> Iterator[tuple[int, Any]]:
        """The blocks of one row group, each decoded when it is asked for."""
        first, end, step = self._starts[group], self._starts[group + 1], self._step(group)
        with _errors(self.path, f"row group {group}"):
            batches = self._file.iter_batches(step, [group], list(self.columns), use_threads=False)
        while first < end:
            with _errors(self.path, f"rows {first} and on"):
                batch = next(batches, None)
                if batch is not None:
                    batch = batch.select(list(self.columns))
                    batch.validate(full=True)
            found = 0 if batch is None else batch.num_rows
            if found != min(step, end - first):
                raise unreadable(self.path, f"row group {group}", f"{end} rows", f"the end after {first + found}")
            yield first, batch
            first += found

    def _step(self, group: int) -> int:
        """Rows in each block of a row group, once its sizes are found to be possible."""
        if group not in self._steps:
            rows, chunks = self._groups[group]
            total, length = 0, self.path.stat().st_size
            for chunk in chunks:
                limits = (
                    (chunk.values, min(MAX_VALUES, MAX_ROW_VALUES * rows), f"values in {rows} rows"),
                    (chunk.packed, length, "bytes, as long as the file,"),
                    (chunk.unpacked, MAX_COLUMN_BYTES, "bytes once decompressed"),
                )
                for size, most, words in limits:
                    if not 0 <= size <= most:
                        where = f"row group {group}, {chunk.column}"
                        raise unreadable(self.path, where, f"at most {most} {words}", f"{size}")
                if rows:  # of an empty table, nothing says where its pages are
                    _check_pages(self.path, chunk, f"row group {group}, {chunk.column}")
                total += max(chunk.unpacked, 8 * chunk.values)
            self._steps[group] = max(1, min(BLOCK_ROWS, BLOCK_BYTES * rows // max(total, 1)))
        return self._steps[group]


_TABLES: Recent[tuple[Path, tuple[str, ...], Identity], Table] = Recent(OPEN)


def opened(path: Path, columns: tuple[str, ...]) -> Table:
    """A table that this process keeps open, and reads on from where it was left.

    Raises:
        DataError, UsageError: as `Table`.
    """
    key = (path, columns, identity(path, path, "a parquet file"))
    return _TABLES.use(key, lambda: Table(path, columns))


def load_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("reading parquet files needs pyarrow: pip install 'foreframe[lerobot]'") from None
    return pyarrow, pyarrow.parquet


def holds_numbers(kind: Any) -> bool:
    """Whether an Arrow type is a number, a truth value, or a list of them."""
    pa, _ = load_pyarrow()
    if _is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def numbers(column: Any, width: int) -> tuple[NDArray[np.float64], dict[int, str]]:
    """A column of numbers, or of lists of `width` of them, as (rows, width), and in words what else is in which row.

    column: a `pyarrow.Array` or `ChunkedArray` for whose type `holds_numbers`. Rows with something else are zeros.
    """
    pa, _ = load_pyarrow()
    import pyarrow.compute as pc

    values = np.zeros((len(column), width))
    wrong: dict[int, str] = {}
    array = column
    if isinstance(column, pa.ChunkedArray):
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    present = np.ones(len(array), bool)
    if _is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False)
        present = lengths == width
        for row in np.flatnonzero(~present):
            wrong[int(row)] = "nothing" if lengths[row] < 0 else f"{lengths[row]} numbers"
        array = array.filter(pa.array(present)).flatten()
    elif width != 1:
        return values, dict.fromkeys(range(len(array)), "1 number")
    missing = array.is_null().to_numpy(zero_copy_only=False)
    flat = np.zeros(len(array))
    flat[~missing] = array.drop_null().to_numpy(zero_copy_only=False)
    values[present] = flat.reshape(-1, width)
    if missing.any():
        for row in np.flatnonzero(present)[missing.reshape(-1, width).any(1)]:
            wrong[int(row)] = "nothing"
            values[row] = 0
    return values, dict(sorted(wrong.items()))


def _is_list(kind: Any) -> bool:
    pa, _ = load_pyarrow()
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


class _Chunk(NamedTuple):
    """What the footer says of one column in one row group; sizes are in bytes."""

    column: str
    values: int
    unpacked: int
    packed: int
    start: int


class _Group(NamedTuple):
    rows: int
    chunks: tuple[_Chunk, ...]


def _footer(path: Path, columns: Collection[str]) -> list[_Group]:
    """The row groups of a file with the sizes of some of its columns."""
    thrift = _Thrift(_footer_bytes(path))
    groups: list[_Group] = []
    try:
        for field in thrift.fields():
            if field == _ROW_GROUPS:
                for _ in thrift.items(MAX_GROUPS):
                    groups.append(_group(thrift, columns))
    except (IndexError, ValueError, RecursionError) as error:
        raise unreadable(path, "footer", "a footer that can be read", "a damaged one") from error
    for number, group in enumerate(groups):
        if group.rows < 0:
            raise unreadable(path, "footer", "rows in each row group", f"{group.rows} in row group {number}")
    return groups


def _footer_bytes(path: Path) -> bytes:
    """The footer of a file that begins and ends as a whole parquet file does."""
    size = identity(path, path, "a parquet file").size
    with reading(path, "", "a parquet file"), path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        file.seek(max(0, size - 8 - length))
        footer = file.read(min(length, MAX_FOOTER_BYTES))
    if not size:
        raise unreadable(path, "", "a parquet file", "an empty file")
    if head != _MAGIC:
        raise unreadable(path, "first bytes", f"{_MAGIC!r}", f"{head!r}")
    if size < 12 or tail[4:] != _MAGIC:
        raise unreadable(path, "last bytes", f"{_MAGIC!r}", f"{tail[4:]!r}: the file is cut short")
    if length > min(size - 12, MAX_FOOTER_BYTES):
        raise unreadable(path, "footer", f"at most {min(size - 12, MAX_FOOTER_BYTES)} bytes", f"{length}")
    return footer


# Numbers of the fields that are read, from parquet.thrift of apache/parquet-format.
_ROW_GROUPS = 4  # in FileMetaData
_COLUMNS, _ROWS = 1, 3  # in RowGroup
_COLUMN_META = 3  # in ColumnChunk
_COLUMN_PATH, _VALUES, _UNPACKED, _PACKED, _DATA, _DICTIONARY = 3, 5, 6, 7, 9, 11  # in ColumnMetaData
_PAGE_UNPACKED, _PAGE_PACKED, _PAGE_KINDS = 2, 3, (5, 7, 8)  # in PageHeader; the kinds hold as field 1
_PAGE_VALUES = 1


def _group(thrift: _Thrift, columns: Collection[str]) -> _Group:
    rows, chunks = 0, []
    for field in thrift.fields():
        if field == _ROWS:
            rows = thrift.whole()
        elif field == _COLUMNS:
            for _ in thrift.items():
                for inner in thrift.fields():
                    if inner == _COLUMN_META:
                        chunk = _chunk(thrift)
                        if chunk.column in columns:
                            chunks.append(chunk)
    return _Group(rows, tuple(chunks))


def _chunk(thrift: _Thrift) -> _Chunk:
    column, sizes = "", {_VALUES: 0, _UNPACKED: 0, _PACKED: 0, _DATA: 0, _DICTIONARY: 0}
    for field in thrift.fields():
        if field in sizes:
            sizes[field] = thrift.whole()
        elif field == _COLUMN_PATH:
            names = [thrift.text() for _ in thrift.items()]
            column = names[0]
    start = sizes[_DICTIONARY] if 0 < sizes[_DICTIONARY] < sizes[_DATA] else sizes[_DATA]
    return _Chunk(column, sizes[_VALUES], sizes[_UNPACKED], sizes[_PACKED], start)


def _check_pages(path: Path, chunk: _Chunk, where: str) -> None:
    """Insist that the pages of a column become no more than the footer says, and none far more than it is in the file.

    pyarrow takes memory for what the header of a page says, whatever stands in the footer.
    """
    at, end, unpacked = chunk.start, chunk.start + chunk.packed, 0
    with path.open("rb") as file:
        while at < end:
            page = _page(file, at)
            if page is None or not 0 <= page.packed <= end - at - page.header:
                raise unreadable(path, f"{where}, byte {at}", "the header of a page", "a damaged one")
            most = max(BULK, MOST_PACKED * page.packed)
            if not 0 <= page.unpacked <= most:
                raise unreadable(path, f"{where}, byte {at}", f"a page of at most {most} bytes", f"{page.unpacked}")
            if not 0 <= page.values <= chunk.values:
                found = f"{page.values} in a page"
                raise unreadable(path, f"{where}, byte {at}", f"at most {chunk.values} values as in the footer", found)
            unpacked += page.unpacked
            at += page.header + page.packed
    if unpacked > MAX_COLUMN_BYTES:
        raise unreadable(path, where, f"at most {MAX_COLUMN_BYTES} bytes once decompressed", f"{unpacked}")


class _Page(NamedTuple):
    """What the header of a page says, and its own length; in bytes but for the number of values."""

    header: int
    packed: int
    unpacked: int
    values: int


def _page(file: BinaryIO, at: int) -> _Page | None:
    """The page whose header starts at a byte; None if there is none."""
    for length in _PAGE_HEADERS:
        file.seek(at)
        thrift = _Thrift(file.read(length))
        sizes = {_PAGE_UNPACKED: -1, _PAGE_PACKED: -1}
        values = 0
        try:
            for field in thrift.fields():
                if field in sizes:
                    sizes[field] = thrift.whole()
                elif field in _PAGE_KINDS:
                    for inner in thrift.fields():
                        if inner == _PAGE_VALUES:
                            values = thrift.whole()
        except IndexError:
            continue
        except (ValueError, RecursionError):
            break
        return _Page(thrift.at, sizes[_PAGE_PACKED], sizes[_PAGE_UNPACKED], values)
    return None


class _Thrift:
    """Reads structures in Thrift's compact protocol; what the caller leaves is skipped.

    IndexError or ValueError where the bytes end too early or have no meaning.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.kind = data, 0, 0

    def fields(self) -> Iterator[int]:
        """The number of each field of the structure that begins here."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.whole()
            kind, before = head & 15, self.at
            yield number
            if self.at == before:
                self._skip(kind)

    def items(self, most: int = MAX_FOOTER_BYTES) -> Iterator[None]:
        """As often as the list that begins here has items; each has to be read. ValueError if it has more than most."""
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        if count > most:
            raise ValueError
        for _ in range(count):
            self.kind = kind
            yield

    def whole(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def text(self) -> str:
        return self._bytes(self._varint()).decode()

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.data):
            raise IndexError
        return self.data[self.at - count : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError
        return value | byte << shift

    def _skip(self, kind: int, item: bool = False) -> None:
        if kind in (1, 2):
            if item:  # true and false; of a field, its kind already tells which
                self._byte()
        elif kind == 3:
            self._byte()
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 7:
            self._bytes(8)
        elif kind == 8:
            self._bytes(self._varint())
        elif kind in (9, 10):
            for _ in self.items():
                self._skip(self.kind, item=True)
        elif kind == 12:
            for _ in self.fields():
                pass
        else:
            raise ValueError


def _errors(path: Path, where: str = "") -> AbstractContextManager[None]:
    """Errors of pyarrow as a DataError that names the file."""
    pa, _ = load_pyarrow()
    return reading(path, where, "a parquet file that can be decoded", pa.ArrowException, ValueError)
