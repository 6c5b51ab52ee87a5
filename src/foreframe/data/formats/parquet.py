"""Parquet files, read strictly and a block of rows at a time, so that a file of any size takes little memory.

Blocks decoded last are kept, so that neighboring and repeated reads cost nothing. Sizes in the footer are checked
before anything is decoded. What pyarrow does with a file whose pages contradict its footer is bounded by the process
that reads (`ingest.pool`). pyarrow is an extra.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foreframe.errors import UsageError, reading, unreadable
from foreframe.files import Identity, Recent, identity

MAX_FOOTER_BYTES = 2**28
MAX_VALUES = 2**28  # values in one column of one row group
MAX_COLUMN_BYTES = 2**32  # decompressed bytes of one column of one row group; it is decoded in blocks, never at once
MAX_GROUPS = 2**17
MAX_ROW_VALUES = 2**23  # values in a row of one column, on average over a row group: a row is decoded as a whole
BLOCK_BYTES, BLOCK_ROWS = 2**21, 8192  # a block holds about this many bytes, and never more rows
KEPT_BYTES = 2**25  # decoded bytes that a process keeps for each open file
OPEN = 6  # files that a process keeps open
_MAGIC = b"PAR1"


class Table(AbstractContextManager["Table"]):
    """Some columns of one parquet file. `rows` counts its rows; `types` holds the Arrow type of each column."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        """Reads the footer only.

        Raises DataError: no whole parquet file, a footer that contradicts itself, a missing column. UsageError: no
        pyarrow.
        """
        pa, pq = load_pyarrow()
        self.path, self.columns = path, columns
        _check_ends(path)
        with _errors(path):
            self._source = pa.OSFile(str(path))
            self._file = pq.ParquetFile(
                self._source,
                buffer_size=2**20,
                pre_buffer=False,
                page_checksum_verification=True,
                thrift_string_size_limit=MAX_FOOTER_BYTES,
                thrift_container_size_limit=MAX_GROUPS,
            )
            footer, schema = self._file.metadata, self._file.schema_arrow
            groups = _groups(footer, schema, columns)
        self.names: tuple[str, ...] = tuple(schema.names)
        rows, found = footer.num_rows, sum(group.rows for group in groups)
        if rows != found or any(group.rows < 0 for group in groups):
            raise unreadable(path, "footer", f"{rows} rows in its row groups", f"{found}")
        for name in columns:
            if (count := self.names.count(name)) != 1:
                there = ", ".join(self.names[:12]) + ", ..." * (len(self.names) > 12)
                raise unreadable(path, "", f"one column {name}", f"{count} of them" if count else there or "none")
        self.rows: int = rows
        self.types: dict[str, Any] = {name: schema.field(name).type for name in columns}
        self.values: int = sum(values for group in groups for _, values, _, _ in group.columns)
        """Values in the columns by the footer, those in lists counted one by one."""
        self._groups = groups
        self._starts = [0, *accumulate(group.rows for group in groups)]
        self._steps: dict[int, int] = {}
        self._kept: Recent[int, Any] = Recent(KEPT_BYTES, lambda batch: batch.nbytes)
        self._batches: tuple[int, Iterator[tuple[int, Any]]] = (0, iter(()))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._batches = (0, iter(()))
        self._source.close()

    def read(self, start: int, stop: int) -> Any:
        """Rows start to stop-1 as a `pyarrow.Table`. Raises DataError: there are fewer, or they cannot be decoded."""
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
        """All rows as (number of its first row, `pyarrow.RecordBatch`) of each block. Raises DataError."""
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
            rows, columns = self._groups[group]
            total, length = 0, self.path.stat().st_size
            for name, values, packed, unpacked in columns:
                limits = (
                    (values, min(MAX_VALUES, MAX_ROW_VALUES * rows), f"values in {rows} rows"),
                    (packed, length, "bytes, as long as the file,"),
                    (unpacked, MAX_COLUMN_BYTES, "bytes once decompressed"),
                )
                for size, most, words in limits:
                    if not 0 <= size <= most:
                        where = f"row group {group}, {name}"
                        raise unreadable(self.path, where, f"at most {most} {words}", f"{size}")
                total += max(unpacked, 8 * values)
            self._steps[group] = max(1, min(BLOCK_ROWS, BLOCK_BYTES * rows // max(total, 1)))
        return self._steps[group]


_TABLES: Recent[tuple[Path, tuple[str, ...], Identity], Table] = Recent(OPEN)


def opened(path: Path, columns: tuple[str, ...]) -> Table:
    """A table that this process keeps open, and reads on from where it was left. Raises as `Table` does."""
    key = (path, columns, identity(path, path, "a parquet file"))
    return _TABLES.use(key, lambda: Table(path, columns))


def load_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises UsageError: it is not installed."""
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


class _Group(NamedTuple):
    """One row group in the footer: its rows, and for each column its name, values, bytes, and decompressed bytes."""

    rows: int
    columns: tuple[tuple[str, int, int, int], ...]


def _groups(footer: Any, schema: Any, names: tuple[str, ...]) -> list[_Group]:
    """The row groups of a file, with the sizes of the columns of these names, each part of a list or record alone."""
    leaves = [field.name for field in schema for _ in range(_leaves(field.type))]
    wanted = [(number, name) for number, name in zip(range(footer.num_columns), leaves, strict=True) if name in names]
    groups = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        chunks = ((name, group.column(leaf)) for leaf, name in wanted)
        sizes = ((name, c.num_values, c.total_compressed_size, c.total_uncompressed_size) for name, c in chunks)
        groups.append(_Group(group.num_rows, tuple(sizes)))
    return groups


def _leaves(kind: Any) -> int:
    """How many columns of the file hold a column of this Arrow type."""
    kind = getattr(kind, "storage_type", kind)
    return sum(_leaves(kind.field(number).type) for number in range(kind.num_fields)) or 1


def _check_ends(path: Path) -> None:
    """Raises DataError unless a file begins and ends as a whole parquet file does."""
    size = identity(path, path, "a parquet file").size
    with reading(path, "", "a parquet file"), path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if not size:
        raise unreadable(path, "", "a parquet file", "an empty file")
    if head != _MAGIC:
        raise unreadable(path, "first bytes", f"{_MAGIC!r}", f"{head!r}")
    if size < 12 or tail[4:] != _MAGIC:
        raise unreadable(path, "last bytes", f"{_MAGIC!r}", f"{tail[4:]!r}: the file is cut short")
    length, most = int.from_bytes(tail[:4], "little"), min(size - 12, MAX_FOOTER_BYTES)
    if length > most:
        raise unreadable(path, "footer", f"at most {most} bytes", f"{length}")


def _errors(path: Path, where: str = "") -> AbstractContextManager[None]:
    pa, _ = load_pyarrow()
    return reading(path, where, "a parquet file that can be decoded", pa.ArrowException, ValueError)
