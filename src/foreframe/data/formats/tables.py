"""Tables of numbers (CSV, JSON, parquet), read strictly: anything but finite decimal numbers is a fault.

    .csv       rows of numbers; a first row of names if there is one
    .json      [[1, 2], ...] or [{"x": 1, "y": 2}, ...] or {"x": [1, ...], "y": [2, ...]}
    .parquet   columns of numbers, or of lists that are all of one length

`read_table` reads CSV without names, of a size known beforehand; `read_named_table` reads all of these. A column
`action` of lists of three is three columns action_0, action_1, action_2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe import config
from foreframe.data.formats.parquet import Table, holds_numbers, numbers
from foreframe.errors import DataError, Fault, NumberFault, reading, unreadable
from foreframe.files import identity

MAX_TABLE_BYTES = 64 * 2**20
MAX_NUMBERS = 2**24  # numbers in one table; parquet can pack far more of them into a small file
MAX_COLUMNS = 4096
MAX_FAULTS = 10_000  # faults of one table that are listed; with more, the rest of it is not read
TABLES = (".csv", ".json", ".parquet")  # endings of the files that `read_named_table` reads
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_BLOCK = 2**16  # numbers of a parquet table that are checked together
_LARGEST = float(np.finfo(np.float32).max)

NamedTable = tuple[NDArray[np.float32], tuple[str, ...], list[Fault]]
"""Values (T, D), a name for each of the D columns (none at all where the file has no names), and the faults."""


def read_table(path: Path, shown: str, columns: int, rows: int) -> tuple[NDArray[np.float32], list[Fault]]:
    """A table of `rows` lines with `columns` numbers, separated by commas: float32 (rows, columns) and its faults.

    Plain decimal numbers only, as in 1, -0.5, 3.2e-05, perhaps with blanks around them. Refused: nan, inf, numbers
    beyond float32, 1_0, 0x1, quotes, a header, a byte-order mark, any character beyond ASCII, blank lines but at the
    end. Faults count rows and columns from 1; the array holds zeros in their places. `shown` is the path as it is to be
    printed.
    """
    values, _, faults = _read(path, partial(_read_csv, rows=rows), _Builder(shown, columns), rows)
    return values, faults


def read_named_table(path: Path, shown: str, rows: int | None = None) -> NamedTable:
    """A table with or without names of its columns, by the ending of the file: float32 (T, D), names, faults.

    rows: how many there should be, and will be in the array, which holds zeros where there are faults; None: as they
    are. `shown` is the path as it is to be printed. CSV is as strict as in `read_table`; its first row is one of names
    if none of its fields is a number. JSON knows no key twice, NaN or Infinity; true and false are no numbers. Parquet
    may hold integers, floats and booleans (0 or 1), but no nulls and nothing that is not finite.

    Raises UsageError: the file is parquet, and pyarrow is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(TABLES)}")
    return _read(path, reader, _Builder(shown), rows)


class _Builder:
    """A table while it is read. Whatever makes the whole of it unreadable is raised, as a DataError of one fault."""

    def __init__(self, shown: str, columns: int = 0) -> None:
        self.shown = shown
        self.values = np.zeros((0, columns), np.float32)
        self.names: tuple[str, ...] = ()
        self.faults: list[Fault] = []

    def error(self, where: str, expected: str, found: str) -> DataError:
        return unreadable(self.shown, where, expected, found)

    def start(self, rows: int, columns: int, names: tuple[str, ...] = ()) -> None:
        """Make room for the numbers."""
        if rows * columns > MAX_NUMBERS:
            raise self.error("", f"at most {MAX_NUMBERS:,} numbers", f"{rows:,} rows of {columns}")
        self.values, self.names = np.zeros((rows, columns), np.float32), names

    def wrong_rows(self, rows: int, found: int) -> None:
        self.faults.append(Fault(self.shown, "", f"{rows} rows, one for each frame", f"{found}"))

    def bad(
        self, row: int, columns: Sequence[int], expected: str, found: str, label: str = "", header: int = 0
    ) -> None:
        """Note what is wrong with some numbers of a row, counted from 0; with no columns, with the row as a whole.

        label: the columns as the message calls them, unless by number. header: rows of names above the first.
        """
        if len(self.faults) >= MAX_FAULTS:
            raise self.error("", f"at most {MAX_FAULTS:,} faults", "more: the rest was not read")
        where = f"row {row + 1 + header}"
        if columns:
            where += f", column {label or columns[0] + 1}"
            self.faults.append(NumberFault(self.shown, where, expected, found, tuple(columns), row))
        else:
            self.faults.append(Fault(self.shown, where, expected, found))


_Reader = Callable[[Path, _Builder], None]


def _read(path: Path, reader: _Reader, table: _Builder, rows: int | None) -> NamedTable:
    """A table with as many rows as there should be."""
    try:
        reader(path, table)
    except DataError as error:
        table.faults += error.faults
    values = table.values
    if rows is not None and len(values) != rows:
        if all(isinstance(fault, NumberFault) for fault in table.faults):
            table.wrong_rows(rows, len(values))
        values = np.zeros((rows, values.shape[1]), np.float32)
        values[: len(table.values)] = table.values[:rows]
    return values, table.names, table.faults


def _content(path: Path, shown: str, limit: int) -> bytes:
    size = identity(path, shown).size
    if not 0 < size <= limit:
        raise unreadable(shown, "", f"a table of 1 to {limit} bytes", f"{size} bytes")
    with reading(shown, "", "a file that can be read"):
        content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        raise unreadable(shown, "row 1", "plain text", "a byte-order mark; save the file as UTF-8 without BOM")
    return content


def _check_names(table: _Builder, names: Sequence[str], where: str) -> tuple[str, ...]:
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise table.error(where, f"1 to {MAX_COLUMNS} columns", f"{len(names)}")
    for number, name in enumerate(names, start=1):
        if not name or not name.isprintable() or len(name) > 200:
            raise table.error(where, f"a name for column {number}", f"{name[:40]!a}" if name else "none")
        if _like_a_number(name):
            raise table.error(where, "names of columns, or finite decimal numbers", f"{name[:40]!a}")
        if name in names[: number - 1]:
            raise table.error(where, "each name once", f"two columns {name[:40]!a}")
    return tuple(names)


def _like_a_number(text: str) -> bool:
    """Whether somebody may have meant a number: nan, 1_0 and 0x1 are no names."""
    try:
        float(text)
    except ValueError:
        return bool(re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]+", text))
    return True


def _finite(text: str) -> float | None:
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= _LARGEST else None


def _read_csv(path: Path, table: _Builder, rows: int | None = None) -> None:
    """rows: how many there must be, each of as many numbers as `table` has columns, and no names. None: as many as
    there are, each of as many as the first has, which may hold names."""
    content = _content(path, table.shown, MAX_TABLE_BYTES)
    try:
        text = content.decode().rstrip(" \t\r\n")
    except UnicodeDecodeError as error:
        begin = content.rfind(b"\n", 0, error.start) + 1
        row, column = content.count(b"\n", 0, begin) + 1, content.count(b",", begin, error.start) + 1
        where = f"row {row}, column {column}"
        raise table.error(where, "text in UTF-8", f"the byte 0x{content[error.start]:02x}") from error
    head, count = next(_lines(text)), text.count("\n") + 1
    if rows is None:
        columns, names = head.count(",") + 1, _csv_names(table, head)
        count -= bool(names)
    else:
        columns, names = table.values.shape[1], ()
        if count != rows:
            table.wrong_rows(rows, count)
        count = min(count, rows)
    skip = 1 if names else 0
    table.start(count, columns, names)
    for row, line in enumerate(islice(_lines(text), skip, skip + count)):
        found = line.count(",") + 1
        if found != columns:
            table.bad(row, (), f"{columns} numbers", f"{found}" if line.strip() else "a blank row", header=skip)
            continue
        for column, cell in enumerate(line.removesuffix("\r").split(",")):
            value = _finite(cell.strip(" \t"))
            if value is None:
                table.bad(row, [column], "a finite decimal number", f"{cell[:40]!a}", header=skip)
            else:
                table.values[row, column] = value


def _csv_names(table: _Builder, head: str) -> tuple[str, ...]:
    """The names of columns in the first row, if it holds no number."""
    if (columns := head.count(",") + 1) > MAX_COLUMNS:
        raise table.error("row 1", f"1 to {MAX_COLUMNS} columns", f"{columns}")
    cells = [re.sub('^"(.+)"$', r"\1", cell.strip(" \t\r")) for cell in head.split(",")]
    if any(_finite(cell) is not None for cell in cells):
        return ()
    if cells == [""]:
        raise table.error("", "rows of numbers", "blank lines")
    return _check_names(table, cells, "row 1")


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, one by one: all of them at once take many times its memory."""
    at = 0
    while (end := text.find("\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]


def read_json(path: Path, shown: str) -> Any:
    """The content of a JSON file: UTF-8 without byte-order mark, no key twice in one object, no NaN and no Infinity.

    Raises DataError: of a file that is none of this, or takes more bytes or memory than `config` allows.
    """
    try:
        return config.loads(_content(path, shown, config.LARGEST), config.LARGEST, control=True)
    except config.TooLargeError as error:
        raise unreadable(shown, "", "JSON of fewer values, or a table as CSV or parquet", error.why) from error
    except config.JsonProblem as error:
        raise unreadable(shown, error.place, "JSON", error.why) from error


def _read_json(path: Path, table: _Builder) -> None:
    content = read_json(path, table.shown)
    if isinstance(content, dict):
        return _json_columns(table, content)
    if not isinstance(content, list) or not content:
        found = "an empty list" if isinstance(content, list) else _kind(content)
        raise table.error("", "a list of rows, or an object of columns", found)
    if isinstance(content[0], dict):
        return _fill_named(table, content[0], "row 1", _json_cells(table, content))
    if not isinstance(content[0], list):
        raise table.error("row 1", "a list of numbers, or an object", _kind(content[0]))
    return _fill(table, content, len(content[0]), ())


def _json_cells(table: _Builder, content: list[Any]) -> Iterator[list[Any]]:
    """The values of [{"x": 1, "y": 2}, ...], row by row: all have the keys of the first, in any order."""
    keys = content[0].keys()
    for number, item in enumerate(content, start=1):
        if not isinstance(item, dict):
            raise table.error(f"row {number}", "an object as before", _kind(item))
        if item.keys() != keys:
            odd = sorted(keys ^ item.keys())[0][:40]
            raise table.error(f"row {number}", "the keys of row 1", f"{'no' if odd in keys else 'also'} {odd!a}")
        yield [item[key] for key in keys]


def _json_columns(table: _Builder, content: dict[str, Any]) -> None:
    """{"x": [1, ...], "y": [2, ...]}: lists of one length."""
    for key, column in content.items():
        if not isinstance(column, list):
            raise table.error(f"column {key[:40]!a}", "a list of numbers", _kind(column))
    lengths = {key: len(column) for key, column in content.items()}
    if len(set(lengths.values())) > 1:
        low, high = min(lengths, key=lambda key: lengths[key]), max(lengths, key=lambda key: lengths[key])
        found = f"{low[:40]!a} of {lengths[low]} and {high[:40]!a} of {lengths[high]}"
        raise table.error("", "columns of one length", found)
    first = {key: column[0] if column else None for key, column in content.items()}
    _fill_named(table, first, "", zip(*content.values(), strict=True))


def _fill_named(table: _Builder, first: dict[str, Any], where: str, cells: Iterable[Sequence[Any]]) -> None:
    """Rows of numbers out of cells that are such, or lists of them, as in the first row. where: of the names."""
    widths = [len(value) if isinstance(value, list) else 0 for value in first.values()]
    names = _expand(table, tuple(first), widths, where)
    rows = []
    for number, values in enumerate(cells, start=1):
        row: list[Any] = []
        for cell, width, key in zip(values, widths, first, strict=True):
            if width and not (isinstance(cell, list) and len(cell) == width):
                found = f"{len(cell)}" if isinstance(cell, list) else _kind(cell)
                raise table.error(f"row {number}, column {key[:40]!a}", f"a list of {width} numbers", found)
            row += cell if width else [cell]
        rows.append(row)
    if not rows:
        raise table.error("", "rows of numbers", "empty lists")
    _fill(table, rows, len(names), names)


def _expand(table: _Builder, keys: Sequence[str], widths: Sequence[int], where: str) -> tuple[str, ...]:
    """Names of columns, of which those of lists (of a width above 0) become several."""
    if (count := sum(max(width, 1) for width in widths)) > MAX_COLUMNS:
        raise table.error(where, f"1 to {MAX_COLUMNS} columns", f"{count}")
    names = (
        name
        for key, width in zip(keys, widths, strict=True)
        for name in ([f"{key}_{place}" for place in range(width)] if width else [key])
    )
    return _check_names(table, tuple(names), where)


def _fill(table: _Builder, rows: list[Any], width: int, names: tuple[str, ...]) -> None:
    """Check each number of the rows from JSON."""
    if not 1 <= width <= MAX_COLUMNS:
        raise table.error("row 1", f"1 to {MAX_COLUMNS} numbers", f"{width}")
    table.start(len(rows), width, names)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            table.bad(number, (), f"{width} numbers", f"{len(row)}" if isinstance(row, list) else _kind(row))
            continue
        for column, value in enumerate(row):
            if type(value) in (int, float) and -_LARGEST <= value <= _LARGEST:
                table.values[number, column] = value
            else:
                found = "one beyond float32" if type(value) in (int, float) else _kind(value)
                table.bad(number, [column], "a finite number", found)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value[:40]!a}"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "a number"


def _read_parquet(path: Path, table: _Builder) -> None:
    """Columns of numbers, or of lists of one length."""
    try:
        with Table(path, ()) as footer:
            keys, rows = _check_names(table, footer.names, ""), footer.rows
        if not 0 < rows * len(keys) <= MAX_NUMBERS:
            raise table.error("", f"1 to {MAX_NUMBERS:,} numbers", f"{rows:,} rows of {len(keys)}")
        with Table(path, keys) as file:
            for key, kind in file.types.items():
                if not holds_numbers(kind):
                    raise table.error(f"column {key[:40]!a}", "numbers, or lists of numbers", f"{kind}")
            if file.values > MAX_NUMBERS:
                raise table.error("", f"1 to {MAX_NUMBERS:,} numbers", f"{file.values:,}")
            content = file.read(0, rows)
    except DataError as error:
        fault = error.faults[0]
        raise table.error(fault.where, fault.expected, fault.found) from error
    columns = [content.column(key) for key in keys]
    widths = [_width(column) for column in columns]
    names = _expand(table, keys, widths, "")
    table.start(rows, len(names), names)
    ends = np.cumsum([width or 1 for width in widths]).tolist()
    step = _BLOCK // len(names)
    for start in range(0, rows, step):
        parts = [numbers(column.slice(start, step), width or 1) for column, width in zip(columns, widths, strict=True)]
        found = np.concatenate([part for part, _ in parts], axis=1)
        bad = ~(np.abs(found) <= _LARGEST)
        table.values[start : start + step] = np.where(bad, 0, found)
        for key, width, end, (_, missing) in zip(keys, widths, ends, parts, strict=True):
            for row, words in missing.items():
                expected = f"{width} numbers" if width else "a number"
                table.bad(start + row, range(end - (width or 1), end), expected, words, f"{key[:40]!a}")
        for row, column in np.argwhere(bad).tolist():
            table.bad(start + row, [column], "a finite number", f"{found[row, column]}", f"{names[column]!a}")


def _width(cells: Any) -> int:
    """How many numbers the first cell of a column of parquet is a list of; 0 for one that is a number."""
    first = cells[0]
    return len(first) if hasattr(first, "values") and first.is_valid else 0


_READERS: dict[str, _Reader] = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
