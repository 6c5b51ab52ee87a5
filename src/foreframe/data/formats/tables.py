"""Tables of numbers (CSV, JSON, parquet), read strictly: what is not a finite decimal number is a fault.

`read_table` reads CSV without a header, of a size known beforehand. `read_named_table` reads tables that may bring
names of their columns, in one of these forms:

    .csv       rows of numbers; a first row of names if there is one
    .json      [[1, 2], ...] or [{"x": 1, "y": 2}, ...] or {"x": [1, ...], "y": [2, ...]}
    .parquet   columns of numbers, or of lists that are all of one length

A column `action` of lists of three is three columns action_0, action_1, action_2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe import config
from foreframe.data.formats.parquet import Table, holds_numbers, numbers
from foreframe.errors import DataError, Fault, NumberFault
from foreframe.files import not_plain

MAX_TABLE_BYTES = 64 * 2**20
MAX_NUMBERS = 2**24
"""Numbers in one table; parquet can pack far more of them into a small file."""
MAX_COLUMNS = 4096
MAX_FAULTS = 10_000
"""Faults of one table that are listed; with more, the rest of it is not looked at."""
TABLES = (".csv", ".json", ".parquet")
"""Endings of the files that `read_named_table` reads."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_BLOCK = 2**16
"""Numbers of a parquet table that are looked at together."""
_LARGEST = float(np.finfo(np.float32).max)


def read_table(path: Path, shown: str, columns: int, rows: int) -> tuple[NDArray[np.float32], list[Fault]]:
    """A table of `rows` lines with `columns` numbers, separated by commas: float32 (rows, columns) and its faults.

    Plain decimal numbers only, as in 1, -0.5, 3.2e-05; blanks around them and blank lines at the end are allowed.
    Refused: nan, inf, numbers beyond float32, 1_0, 0x1, quotes, a header, a byte-order mark, any sign that is
    not ASCII, blank lines between rows. Rows and columns are counted from 1 as in an editor; row 1 goes with
    frame 0. Of rows beyond the last frame only the number is told. `shown` is the path as it is to be printed. With
    faults, the array holds zeros where they are.
    """
    table = np.zeros((rows, columns), np.float32)
    faults: list[Fault] = []
    try:
        facts = path.stat()
        if odd := not_plain(facts.st_mode):
            return table, [Fault(shown, "", "a file that can be read", odd)]
        if facts.st_size > MAX_TABLE_BYTES:
            return table, [Fault(shown, "", f"at most {MAX_TABLE_BYTES} bytes", f"{facts.st_size}")]
        content = path.read_bytes()
    except OSError as error:
        return table, [Fault(shown, "", "a file that can be read", error.strerror or type(error).__name__)]
    if content.startswith(b"\xef\xbb\xbf"):
        faults.append(Fault(shown, "row 1", "plain text", "a byte-order mark; save the file as UTF-8 without BOM"))
        content = content[3:]
    content = content.rstrip(b" \t\r\n")
    count = content.count(b"\n") + 1 if content else 0
    if count != rows:
        faults.append(Fault(shown, "", f"{rows} rows, one for each frame", f"{count}"))
    for number, raw in enumerate(islice(BytesIO(content), min(rows, count)), start=1):
        if len(faults) > MAX_FAULTS:
            faults[MAX_FAULTS:] = [_too_many(shown)]
            break
        raw = raw.removesuffix(b"\n")
        found = raw.count(b",") + 1
        if found != columns:
            faults.append(
                Fault(shown, f"row {number}", f"{columns} numbers", f"{found}" if raw.strip() else "a blank row")
            )
            continue
        line = raw.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        for column, text in enumerate(line.split(","), start=1):
            value = _finite(text.strip(" \t"))
            if value is None:
                where = f"row {number}, column {column}"
                words = f"{text[:40]!a}"
                faults.append(NumberFault(shown, where, "a finite decimal number", words, (column - 1,), number - 1))
            else:
                table[number - 1, column - 1] = value
    return table, faults


def _too_many(shown: str) -> Fault:
    return Fault(shown, "", f"at most {MAX_FAULTS:,} faults", "more: the rest was not looked at")


def _finite(text: str) -> float | None:
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= _LARGEST else None


NamedTable = tuple[NDArray[np.float32], tuple[str, ...], list[Fault]]
"""Values (T, D), a name for each of the D columns (none at all where the file has no names), and what is wrong."""


def read_named_table(path: Path, shown: str, rows: int | None = None) -> NamedTable:
    """A table with or without names of its columns, by the ending of the file: float32 (T, D), names, faults.

    rows: how many rows there should be, one for each frame; None takes them as they are. With faults, the array holds
    zeros where they are, and has `rows` rows if that was given. `shown` is the path as it is to be printed.

    CSV is as strict as in `read_table`; the first row is one of names if none of its fields is a number. JSON is
    UTF-8 without a byte-order mark, names no key twice and knows no NaN and no Infinity; true and false are no
    numbers. Parquet may hold integers, floats and booleans (0 or 1), but no nulls and nothing that is not finite.

    Raises:
        UsageError: the file is parquet, and pyarrow is not installed.
    """
    faults: list[Fault] = []
    reader: Callable[[Path], _Found] | None = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(TABLES)}")
    try:
        values, names, wrong = reader(path)
        faults += (_fault(shown, *facts) for facts in wrong[:MAX_FAULTS])
        if len(wrong) > MAX_FAULTS:
            faults.append(_too_many(shown))
    except OSError as error:
        values, names = _empty(rows)
        faults.append(Fault(shown, "", "a file that can be read", error.strerror or type(error).__name__))
    except _Wrong as error:
        values, names = _empty(rows)
        faults.append(Fault(shown, error.where, error.expected, error.found))
    if rows is not None and len(values) != rows:
        if all(isinstance(fault, NumberFault) for fault in faults):
            faults.append(Fault(shown, "", f"{rows} rows, one for each frame", f"{len(values)}"))
        fitting = np.zeros((rows, values.shape[1]), np.float32)
        fitting[: len(values)] = values[:rows]
        values = fitting
    return values, names, faults


_Facts = tuple[str, str, str, tuple[int, Sequence[int]] | None]
"""where, expected, found; and of single numbers, in which row they are, and in which columns."""
_Found = tuple[NDArray[np.float32], tuple[str, ...], list[_Facts]]
"""Values, names, and the facts of every fault that leaves the rest readable: with more than `MAX_FAULTS` of them, there
is no need to go on."""


def _fault(shown: str, where: str, expected: str, found: str, cells: tuple[int, Sequence[int]] | None) -> Fault:
    if cells is None:
        return Fault(shown, where, expected, found)
    return NumberFault(shown, where, expected, found, tuple(cells[1]), cells[0])


class _Wrong(Exception):
    """What makes a whole table unreadable."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        self.where, self.expected, self.found = where, expected, found


def _empty(rows: int | None) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    return np.zeros((rows or 0, 0), np.float32), ()


def _text(path: Path, limit: int) -> str:
    """What a file of UTF-8 says."""
    content = _content(path, limit)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _no_text(content, error) from error


def _no_text(content: bytes, error: UnicodeDecodeError) -> _Wrong:
    return _Wrong(f"byte {error.start}", "text in UTF-8", f"the byte 0x{content[error.start]:02x}")


def _content(path: Path, limit: int) -> bytes:
    """The bytes of a file of UTF-8."""
    facts = path.stat()
    if odd := not_plain(facts.st_mode):
        raise _Wrong("", "a file that can be read", odd)
    if not 0 < facts.st_size <= limit:
        raise _Wrong("", f"a table of 1 to {limit} bytes", f"{facts.st_size} bytes")
    content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        raise _Wrong("row 1", "plain text", "a byte-order mark; save the file as UTF-8 without BOM")
    return content


def _names_of(names: Sequence[str], where: str) -> tuple[str, ...]:
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise _Wrong(where, f"1 to {MAX_COLUMNS} columns", f"{len(names)}")
    for number, name in enumerate(names, start=1):
        if not name or not name.isprintable() or len(name) > 200:
            raise _Wrong(where, f"a name for column {number}", f"{name[:40]!a}" if name else "none")
        if _like_a_number(name):
            raise _Wrong(where, "names of columns, or finite decimal numbers", f"{name[:40]!a}")
        if name in names[: number - 1]:
            raise _Wrong(where, "each name once", f"two columns {name[:40]!a}")
    return tuple(names)


def _like_a_number(text: str) -> bool:
    """Whether somebody may have meant a number: nan, 1_0 and 0x1 are no names."""
    try:
        float(text)
    except ValueError:
        return bool(re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]+", text))
    return True


def _read_csv(path: Path) -> _Found:
    content = _text(path, MAX_TABLE_BYTES).rstrip(" \t\r\n")
    head = next(_lines(content))
    columns, rows = head.count(",") + 1, content.count("\n") + 1
    if columns > MAX_COLUMNS:
        raise _Wrong("row 1", f"1 to {MAX_COLUMNS} columns", f"{columns}")
    first = [_unquoted(text.strip(" \t\r")) for text in head.split(",")]
    names: tuple[str, ...] = ()
    if all(_finite(text) is None for text in first):
        if not content:
            raise _Wrong("", "rows of numbers", "blank lines")
        names = _names_of(first, "row 1")
    start = 1 if names else 0
    if columns * (rows - start) > MAX_NUMBERS:
        raise _Wrong("", f"at most {MAX_NUMBERS:,} numbers", f"{rows - start:,} rows of {columns}")
    values = np.zeros((rows - start, columns), np.float32)
    wrong: list[_Facts] = []
    for number, line in enumerate(_lines(content), start=1):
        if len(wrong) > MAX_FAULTS:
            break
        if number == start:  # names
            continue
        found = line.count(",") + 1
        if found != columns:
            words = f"{found}" if line.strip() else "a blank row"
            wrong.append((f"row {number}", f"{columns} numbers", words, None))
            continue
        for column, text in enumerate(line.removesuffix("\r").split(",")):
            value = _finite(text.strip(" \t"))
            if value is None:
                where, cells = f"row {number}, column {column + 1}", (number - start - 1, [column])
                wrong.append((where, "a finite decimal number", f"{text[:40]!a}", cells))
            else:
                values[number - start - 1, column] = value
    return values, names, wrong


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, one by one: all of them at once take many times its memory."""
    at = 0
    while (end := text.find("\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]


def _unquoted(text: str) -> str:
    """A name without the quotation marks that some programs put round each."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text


def read_json(path: Path, shown: str) -> Any:
    """What a JSON file holds: UTF-8 without byte-order mark, no key twice in one object, no NaN and no Infinity.

    Raises:
        DataError: with one fault, of a file that is none of this, larger than `config.LARGEST`, or that takes more
            memory than `config.loads` allows.
    """
    try:
        return _json(path)
    except OSError as error:
        fault = Fault(shown, "", "a file that can be read", error.strerror or type(error).__name__)
    except _Wrong as error:
        fault = Fault(shown, error.where, error.expected, error.found)
    raise DataError("this file cannot be read:", [fault])


def _json(path: Path) -> Any:
    try:
        return config.loads(_content(path, config.LARGEST), config.LARGEST, control=True)
    except config.TooLargeError as error:
        raise _Wrong("", "JSON of fewer values, or a table as CSV or parquet", error.why) from error
    except config.JsonProblem as error:
        raise _Wrong(error.place, "JSON", error.why) from error


def _read_json(path: Path) -> _Found:
    content = _json(path)
    if isinstance(content, dict):
        return _json_columns(content)
    if not isinstance(content, list) or not content:
        found = "an empty list" if isinstance(content, list) else _kind(content)
        raise _Wrong("", "a list of rows, or an object of columns", found)
    if isinstance(content[0], dict):
        return _json_objects(content)
    if not isinstance(content[0], list):
        raise _Wrong("row 1", "a list of numbers, or an object", _kind(content[0]))
    return _filled(content, len(content[0]), ())


def _json_objects(content: list[Any]) -> _Found:
    """[{"x": 1, "y": 2}, ...]: all with the keys of the first, in any order."""
    keys = tuple(content[0])
    widths = [len(value) if isinstance(value, list) else 0 for value in content[0].values()]
    names = _spread(keys, widths, "row 1")
    rows = []
    for number, item in enumerate(content, start=1):
        if not isinstance(item, dict):
            raise _Wrong(f"row {number}", "an object as before", _kind(item))
        if item.keys() != content[0].keys():
            odd = sorted(set(keys) ^ set(item))[0][:40]
            raise _Wrong(f"row {number}", "the keys of row 1", f"{'no' if odd in keys else 'also'} {odd!a}")
        rows.append(_joined([item[key] for key in keys], widths, keys, number))
    return _filled(rows, len(names), names)


def _json_columns(content: dict[str, Any]) -> _Found:
    """{"x": [1, ...], "y": [2, ...]}: lists of one length."""
    for key, column in content.items():
        if not isinstance(column, list):
            raise _Wrong(f"column {key[:40]!a}", "a list of numbers", _kind(column))
    lengths = {key: len(column) for key, column in content.items()}
    if len(set(lengths.values())) > 1:
        low, high = min(lengths, key=lambda key: lengths[key]), max(lengths, key=lambda key: lengths[key])
        found = f"{low[:40]!a} of {lengths[low]} and {high[:40]!a} of {lengths[high]}"
        raise _Wrong("", "columns of one length", found)
    keys = tuple(content)
    widths = [len(column[0]) if column and isinstance(column[0], list) else 0 for column in content.values()]
    names = _spread(keys, widths, "")
    columns = content.values()
    rows = [_joined(row, widths, keys, number) for number, row in enumerate(zip(*columns, strict=True), start=1)]
    if not rows:
        raise _Wrong("", "rows of numbers", "empty lists")
    return _filled(rows, len(names), names)


def _spread(keys: Sequence[str], widths: Sequence[int], where: str) -> tuple[str, ...]:
    """Names of columns, of which those of lists (of a width above 0) become several."""
    if (count := sum(max(width, 1) for width in widths)) > MAX_COLUMNS:
        raise _Wrong(where, f"1 to {MAX_COLUMNS} columns", f"{count}")
    names = (
        name
        for key, width in zip(keys, widths, strict=True)
        for name in ([f"{key}_{place}" for place in range(width)] if width else [key])
    )
    return _names_of(tuple(names), where)


def _joined(cells: Sequence[Any], widths: Sequence[int], keys: Sequence[str], number: int) -> list[Any]:
    """One row of numbers out of cells that are numbers or lists of them."""
    row: list[Any] = []
    for cell, width, key in zip(cells, widths, keys, strict=True):
        if width and not (isinstance(cell, list) and len(cell) == width):
            found = f"{len(cell)}" if isinstance(cell, list) else _kind(cell)
            raise _Wrong(f"row {number}, column {key[:40]!a}", f"a list of {width} numbers", found)
        row += cell if width else [cell]
    return row


def _filled(rows: list[Any], width: int, names: tuple[str, ...]) -> _Found:
    """Rows out of JSON as an array, each number looked at."""
    if not 1 <= width <= MAX_COLUMNS:
        raise _Wrong("row 1", f"1 to {MAX_COLUMNS} numbers", f"{width}")
    if width * len(rows) > MAX_NUMBERS:
        raise _Wrong("", f"at most {MAX_NUMBERS:,} numbers", f"{len(rows):,} rows of {width}")
    values = np.zeros((len(rows), width), np.float32)
    wrong: list[_Facts] = []
    for number, row in enumerate(rows, start=1):
        if len(wrong) > MAX_FAULTS:
            break
        if not isinstance(row, list) or len(row) != width:
            found = f"{len(row)}" if isinstance(row, list) else _kind(row)
            wrong.append((f"row {number}", f"{width} numbers", found, None))
            continue
        for column, value in enumerate(row):
            if type(value) in (int, float) and -_LARGEST <= value <= _LARGEST:
                values[number - 1, column] = value
            else:
                found = "one beyond float32" if type(value) in (int, float) else _kind(value)
                cells = (number - 1, [column])
                wrong.append((f"row {number}, column {column + 1}", "a finite number", found, cells))
    return values, names, wrong


def _kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value[:40]!a}"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "a number"


def _read_parquet(path: Path) -> _Found:
    """Columns of numbers, or of lists of one length."""
    try:
        with Table(path, ()) as footer:
            keys, rows = _names_of(footer.names, ""), footer.rows
        if not 0 < rows * len(keys) <= MAX_NUMBERS:
            raise _Wrong("", f"1 to {MAX_NUMBERS:,} numbers", f"{rows:,} rows of {len(keys)}")
        with Table(path, keys) as file:
            for key, kind in file.types.items():
                if not holds_numbers(kind):
                    raise _Wrong(f"column {key[:40]!a}", "numbers, or lists of numbers", f"{kind}")
            if file.values > MAX_NUMBERS:
                raise _Wrong("", f"1 to {MAX_NUMBERS:,} numbers", f"{file.values:,}")
            content = file.read(0, rows)
    except DataError as error:
        fault = error.faults[0]
        raise _Wrong(fault.where, fault.expected, fault.found) from error
    columns = [content.column(key) for key in keys]
    widths = [_width(column) for column in columns]
    names = _spread(keys, widths, "")
    if len(names) * rows > MAX_NUMBERS:
        raise _Wrong("", f"1 to {MAX_NUMBERS:,} numbers", f"{rows:,} rows of {len(names)}")
    values = np.zeros((rows, len(names)), np.float32)
    wrong: list[_Facts] = []
    ends = np.cumsum([width or 1 for width in widths]).tolist()
    step = _BLOCK // len(names)
    for start in range(0, rows, step):
        if len(wrong) > MAX_FAULTS:
            break
        parts = [numbers(column.slice(start, step), width or 1) for column, width in zip(columns, widths, strict=True)]
        found = np.concatenate([part for part, _ in parts], axis=1)
        bad = ~(np.abs(found) <= _LARGEST)
        values[start : start + step] = np.where(bad, 0, found)
        for key, width, end, (_, missing) in zip(keys, widths, ends, parts, strict=True):
            expected, cells = f"{width} numbers" if width else "a number", range(end - (width or 1), end)
            wrong += [
                (f"row {start + row + 1}, column {key[:40]!a}", expected, words, (start + row, cells))
                for row, words in missing.items()
            ]
        wrong += [
            (
                f"row {start + row + 1}, column {names[column]!a}",
                "a finite number",
                f"{found[row, column]}",
                (start + row, [column]),
            )
            for row, column in np.argwhere(bad).tolist()
        ]
    return values, names, wrong


def _width(cells: Any) -> int:
    """How many numbers the first cell of a column of parquet is a list of; 0 for one that is a number."""
    first = cells[0]
    return len(first) if hasattr(first, "values") and first.is_valid else 0


_READERS: dict[str, Callable[[Path], _Found]] = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
