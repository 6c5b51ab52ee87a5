"""Reads the files in the meta folder of a LeRobot dataset: JSON, lines of it, and tables; what is wrong is a fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from foreframe import config
from foreframe.data.formats.folders import Findings
from foreframe.data.formats.parquet import Table, holds_numbers, numbers
from foreframe.errors import ConfigError, DataError, printable

MAX_LINE_BYTES = 16 * 2**20
MAX_ROWS = 2**20
"""Rows of a table in meta/, or segments of episodes in one of data/: packed, a million of them may be a few bytes."""
MAX_FAULTS = 1000  # faults in the rows or lines of one file; behind them the rest of it is not read
T = TypeVar("T")


def read_object(cls: type[T], values: object, path: Path, finds: Findings, where: str = "") -> T | None:
    """A JSON object as a dataclass, other keys ignored; None with a fault where it does not fit."""
    if not isinstance(values, dict):
        finds.fault(path, "a JSON object", config.shown(values), where)
        return None
    try:
        return config.from_dict(cls, values, unknown="ignore")
    except config.FieldError as error:
        finds.fault(path, error.expected, error.found, ", ".join(filter(None, (where, error.where))))
        return None


def read_json(path: Path, finds: Findings, finite: bool = True) -> Any:
    """The JSON in a file, or None with a fault. Statistics may hold NaN and Infinity, other files may not."""
    try:
        value = config.loads(config.read_bytes(path, config.LARGEST), config.LARGEST, finite=finite, control=True)
    except config.JsonProblem as error:
        finds.fault(path, "JSON", error.why, error.place)
        return None
    except ConfigError as error:
        finds.fault(path, "a JSON file", str(error).removeprefix(f"{path}: "))
        return None
    if value is None:
        finds.fault(path, "a JSON object", "null")
    return value


def read_lines(path: Path, finds: Findings, finite: bool = True) -> Iterator[tuple[str, Any]]:
    """("line 1", JSON) of each line; one that is no JSON is a fault, and ends it."""
    number, before = 0, len(finds.faults)
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    finds.fault(path, f"at most {MAX_LINE_BYTES} bytes a line", "more", f"line {number}")
                    return
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", config.loads(line, MAX_LINE_BYTES, finite=finite, control=True)
                except config.JsonProblem as error:
                    finds.fault(path, "a line of JSON", error.why, f"line {number}")
                    return
                if _too_many(path, f"line {number}", before, finds):
                    return
    except OSError as error:
        finds.fault(path, "a file of JSON lines", error.strerror or type(error).__name__)
        return
    if not number:
        finds.fault(path, "a file of JSON lines", "an empty file")


def read_rows(path: Path, columns: Mapping[str, Any], finds: Findings) -> Iterator[tuple[str, dict[str, Any]]]:
    """("row 1", values) of each row of a table of numbers; what cannot be read is a fault, and ends it."""
    before = len(finds.faults)
    try:
        with Table(path, tuple(columns)) as table:
            if table.rows > MAX_ROWS:
                finds.fault(path, f"at most {MAX_ROWS} rows", f"{table.rows}")
                return
            for name, kind in table.types.items():
                if not holds_numbers(kind):
                    finds.fault(path, "a column of numbers", printable(str(kind)[:80]), printable(name))
                    return
            for first, block in table.blocks():
                read = {name: numbers(block.column(name), 1) for name in columns}
                for number in range(block.num_rows):
                    where = f"row {first + number + 1}"
                    wrong = [(name, words[number]) for name, (_, words) in read.items() if number in words]
                    for name, found in wrong:
                        finds.fault(path, "a number", found, f"{where}, {printable(name)}")
                    values = [(name, float(array[number, 0])) for name, (array, _) in read.items()]
                    whole = {name: int(value) if value.is_integer() else value for name, value in values}
                    try:
                        if not wrong:
                            yield where, {n: config.read_value(columns[n], value, n) for n, value in whole.items()}
                    except config.FieldError as error:
                        finds.fault(path, error.expected, error.found, f"{where}, {error.where}")
                    if _too_many(path, where, before, finds):
                        return
    except DataError as error:
        for fault in error.faults:
            finds.fault(path, fault.expected, fault.found, fault.where)


def _too_many(path: Path, where: str, before: int, finds: Findings) -> bool:
    """Whether the other rows of a file are not read after this many wrong ones, which is a fault as well."""
    if len(finds.faults) - before < MAX_FAULTS:
        return False
    finds.fault(path, f"fewer than {MAX_FAULTS} faults in one file", "as many; the rest of it was not read", where)
    return True
