"""Tables of numbers (CSV without a header), read strictly: what is not a finite decimal number is a fault."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreframe.errors import Fault

MAX_TABLE_BYTES = 64 * 2**20
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_LARGEST = float(np.finfo(np.float32).max)


def read_table(path: Path, shown: str, columns: int, rows: int) -> tuple[NDArray[np.float32], list[Fault]]:
    """A table of `rows` lines with `columns` numbers, separated by commas: float32 (rows, columns) and its faults.

    Plain decimal numbers only, as in 1, -0.5, 3.2e-05; blanks around them and blank lines at the end are allowed.
    Refused: nan, inf, numbers beyond float32, 1_0, 0x1, quotes, a header, a byte-order mark, any sign that is
    not ASCII, blank lines between rows. Rows and columns are counted from 1 as in an editor; row 1 goes with
    frame 0. `shown` is the path as it is to be printed. With faults, the array holds zeros where they are.
    """
    table = np.zeros((rows, columns), np.float32)
    faults: list[Fault] = []
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            return table, [Fault(shown, "", f"at most {MAX_TABLE_BYTES} bytes", f"{path.stat().st_size}")]
        content = path.read_bytes()
    except OSError as error:
        return table, [Fault(shown, "", "a file that can be read", error.strerror or type(error).__name__)]
    if content.startswith(b"\xef\xbb\xbf"):
        faults.append(Fault(shown, "row 1", "plain text", "a byte-order mark; save the file as UTF-8 without BOM"))
        content = content[3:]
    lines = content.rstrip(b" \t\r\n").split(b"\n") if content.strip() else []
    if len(lines) != rows:
        faults.append(Fault(shown, "", f"{rows} rows, one for each frame", f"{len(lines)}"))
    for number, raw in enumerate(lines, start=1):
        line = raw.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        fields = line.split(",")
        if len(fields) != columns:
            found = f"{len(fields)}" if line.strip() else "a blank row"
            faults.append(Fault(shown, f"row {number}", f"{columns} numbers", found))
            continue
        for column, text in enumerate(fields, start=1):
            value = _finite(text.strip(" \t"))
            if value is None:
                where = f"row {number}, column {column}"
                faults.append(Fault(shown, where, "a finite decimal number", f"{text[:40]!a}"))
            elif number <= rows:
                table[number - 1, column - 1] = value
    return table, faults


def _finite(text: str) -> float | None:
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= _LARGEST else None
