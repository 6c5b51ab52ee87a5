"""The header of an .npy file, written and read strictly: 128 bytes, two element types, C order, nothing evaluated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.errors import DataError

HEADER_BYTES = 128
"""Always the same, so that a header can be written over its placeholder once the number of frames is known."""

MAX_HEADER_BYTES = 1024
DESCR = {"|u1": np.dtype(np.uint8), "<f4": np.dtype("<f4")}
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(\|u1|<f4)', 'fortran_order': False, 'shape': \((\d{1,18}(?:, \d{1,18}){1,3})\), \} *\n"
)


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first 128 bytes of an .npy file (format 1.0) that holds `shape` elements of uint8 or float32 in C order."""
    descr = next(name for name, known in DESCR.items() if known == dtype)
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    room = HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


def open_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A read-only memory map of an .npy file that must hold `shape` elements of `dtype`; takes no memory. Raises
    DataError: the header is not one that this package writes, or type, shape or file size differ."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC) + 2)
        length = int.from_bytes(start[-2:], "little")
        if start[:-2] != _MAGIC or length > MAX_HEADER_BYTES:
            raise DataError(f"{path}: expected an .npy file (format 1.0, header of at most {MAX_HEADER_BYTES} bytes)")
        found = _HEADER.fullmatch(file.read(length))
    if found is None:
        raise DataError(f"{path}: expected the header of a C-ordered uint8 or float32 array, found another")
    descr = found[1].decode()
    sizes = tuple(int(number) for number in found[2].split(b", "))
    if DESCR[descr] != dtype or sizes != shape:
        raise DataError(f"{path}: expected {dtype} of shape {shape}, found {DESCR[descr]} of shape {sizes}")
    offset = len(_MAGIC) + 2 + length
    expected = offset + dtype.itemsize * int(np.prod([int(size) for size in shape], dtype=object))
    if path.stat().st_size != expected:
        raise DataError(f"{path}: expected {expected} bytes for shape {shape}, found {path.stat().st_size}")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape).view(np.ndarray)
