"""Arrays in .npz files (zip archives of .npy) read strictly: nothing is unpickled, nothing is written to disk.

Sizes are judged from the zip directory and from the header of each array, and the two must agree, before anything is
unpacked. No row is handed out before the CRC of the whole array is known to be right. Usual arrays are unpacked once
and kept for a while; of larger ones only the rows wanted are in memory.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import some_files
from foreframe.errors import DataError, reading, unreadable
from foreframe.files import Identity, Recent, identity

SUFFIX = ".npz"
OPEN = 4  # archives that a process keeps open
MAX_ARRAY = 2**31  # bytes of the largest array that is read, unpacked
MAX_ENTRIES = 10_000
MAX_DIRECTORY = 2**22  # bytes of a zip directory
WHOLE = 2**25  # bytes up to which an array is unpacked as a whole, and kept while all of those fit in `KEPT` bytes
KEPT = 2**26

_ERRORS = zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError, MemoryError
_MAX_HEADER = 4096
_STEP = 2**20
_HEADER = re.compile(
    rb"\{\s*'descr':\s*(?:'([^']{1,40})'|\[.*\]),\s*'fortran_order':\s*(True|False),"
    rb"\s*'shape':\s*\(([0-9L, ]*)\),?\s*\}\s*",
    re.DOTALL,
)
_NUMBERS = re.compile(r"[<>|=]([biuf])([1248])")
_DEFLATE_AT_BEST = 1032  # bytes that one byte of deflate can become
_WIDE_END = 76  # bytes with the sizes of an archive of more than 4 GiB, in front of its end


@dataclass(frozen=True)
class Header:
    """Shape and type of an array. dtype is None where its elements are no plain numbers, but as in `description`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    description: str
    fortran: bool
    offset: int

    @property
    def width(self) -> int:
        """Numbers in a row, of an array with one or two axes; 0 where it is anything else."""
        if self.dtype is None or len(self.shape) not in (1, 2):
            return 0
        return self.shape[1] if len(self.shape) == 2 else 1

    def __str__(self) -> str:
        return self.description if self.dtype is None else f"shape {self.shape}"


def members(path: Path) -> frozenset[str]:
    """Names of the arrays in a .npz, as far as its directory can be read; never raises."""
    try:
        return frozenset(open_npz(path, str(path)).keys)
    except DataError:
        return frozenset()


def some_members(folder: Path) -> Iterator[frozenset[str]]:
    """Names of the arrays in each of a few .npz files below a folder; never raises."""
    return map(members, islice((path for path in some_files(folder) if path.suffix.lower() == SUFFIX), 8))


def open_npz(path: Path, shown: str) -> Archive:
    """The archive at `path`, open; the last ones stay open. `shown` is the path as it is to be printed.

    Raises DataError: no zip archive of arrays, damaged, cut short, encrypted, or packed by an unusual method.
    """
    state = identity(path, shown)
    archive = _ARCHIVES.use(path, lambda: Archive(path, shown, state), lambda archive: archive.state == state)
    archive.shown = shown
    return archive


class Archive:
    """A .npz file open for reading. `keys` are the names of its arrays. Methods raise DataError."""

    def __init__(self, path: Path, shown: str, state: Identity) -> None:
        self.path, self.shown, self.state = path, shown, state
        self.headers: dict[str, Header] = {}
        self.stream: tuple[str, IO[bytes]] | None = None
        with self._errors("", "a zip archive (.npz) that can be read"):
            _check_end(path, shown)
            self.zip = zipfile.ZipFile(path)
        try:
            self.entries = {entry.filename.removesuffix(".npy"): entry for entry in self._checked()}
        except DataError:
            self.zip.close()
            raise
        self.keys = tuple(self.entries)

    def close(self) -> None:
        self._end_stream()
        self.zip.close()

    def error(self, name: str, expected: str, found: str) -> DataError:
        return unreadable(self.shown, name, expected, found)

    def header(self, name: str) -> Header:
        """Shape and type of an array, checked against its size in the directory of the archive."""
        if name not in self.headers:
            if name not in self.entries:
                raise self.error(name, "an array of this name", ", ".join(self.keys[:20]) or "none")
            self.headers[name] = self._header(name, self.entries[name])
        return self.headers[name]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start to stop-1 of an array of numbers, in this machine's byte order; in rising order, each is unpacked
        once."""
        head = self.header(name)
        if head.dtype is None:
            raise self.error(name, "an array of numbers", head.description)
        if not head.shape:
            raise self.error(name, "rows of numbers", "a single number")
        rows = head.shape[0]
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise self.error(name, f"rows {start} to {stop - 1}", f"{rows} rows")
        whole = math.prod(head.shape) * head.dtype.itemsize
        with self._errors(name, "data that can be unpacked and fits its CRC"):
            if whole <= WHOLE:
                values = self._kept(name, head, head.dtype)[start:stop]
            elif head.fortran:
                raise self.error(name, f"C order in an array of more than {WHOLE} bytes", "Fortran order")
            else:
                step = whole // rows
                values = np.empty((stop - start, *head.shape[1:]), head.dtype)
                _fill(values, self._streamed(name), head.offset + start * step)
        return np.array(values, head.dtype.newbyteorder("="), order="C")

    def _kept(self, name: str, head: Header, dtype: np.dtype[Any]) -> NDArray[Any]:
        def unpack() -> NDArray[Any]:
            raw = np.empty(math.prod(head.shape), dtype)
            with self.zip.open(self.entries[name]) as file:
                _fill(raw, file, head.offset)
                file.read(1)  # the end, at which the CRC is checked
            values = raw.reshape(head.shape, order="F" if head.fortran else "C")
            values.flags.writeable = False
            return values

        return _ARRAYS.use((self.path, self.state, name), unpack)

    def _streamed(self, name: str) -> IO[bytes]:
        """An array being unpacked, of which the CRC was found to be right."""
        if self.stream is None or self.stream[0] != name:
            self._end_stream()
            entry = self.entries[name]
            with self.zip.open(entry) as file:
                size = sum(len(part) for part in iter(partial(file.read, _STEP), b""))
            if size != entry.file_size:
                raise EOFError(f"the end after {size} of {entry.file_size} bytes")
            self.stream = name, self.zip.open(entry)
        return self.stream[1]

    def _end_stream(self) -> None:
        if self.stream is not None:
            self.stream[1].close()
        self.stream = None

    def _header(self, name: str, entry: zipfile.ZipInfo) -> Header:
        with self._errors(name, "an array that can be unpacked"), self.zip.open(entry) as file:
            start = file.read(12)
            if start[:6] != b"\x93NUMPY" or start[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
                raise self.error(name, "an array in numpy's format", "something else")
            wide = start[6] > 1
            length = int.from_bytes(start[8 : 12 if wide else 10], "little")
            offset = (12 if wide else 10) + length
            if length > _MAX_HEADER:
                raise self.error(name, f"a header of at most {_MAX_HEADER} bytes", str(length))
            text = start[offset - length :] + file.read(offset - 12)
        found = _HEADER.fullmatch(text) if len(text) == length else None
        if found is None:
            raise self.error(name, "the header of an array", "another header")
        sizes = [part.strip().rstrip("L") for part in found[3].decode().split(",") if part.strip()]
        if any(not part.isdecimal() or len(part) > 18 for part in sizes):
            raise self.error(name, "a shape of whole numbers", found[3].decode())
        shape, descr = tuple(map(int, sizes)), found[1].decode("latin-1") if found[1] else ""
        if not _NUMBERS.fullmatch(descr):
            return Header(shape, None, _kind(descr), found[2] == b"True", offset)
        dtype = np.dtype(descr)
        claimed = math.prod(shape) * dtype.itemsize
        if claimed > MAX_ARRAY:
            raise self.error(name, f"at most {MAX_ARRAY} bytes", f"{claimed}")
        if offset + claimed != entry.file_size:
            raise self.error(name, f"{claimed} bytes for shape {shape}", f"{entry.file_size - offset}")
        return Header(shape, dtype, str(dtype), found[2] == b"True", offset)

    def _checked(self) -> list[zipfile.ZipInfo]:
        """The entries of the archive, all of which must be arrays that can be read."""
        entries = self.zip.infolist()
        if not 0 < len(entries) <= MAX_ENTRIES:
            raise self.error("", f"1 to {MAX_ENTRIES} arrays", str(len(entries)))
        seen: set[str] = set()
        for entry in entries:
            name = entry.filename
            parts = name.split("/")
            if "\\" in entry.orig_filename or "\0" in entry.orig_filename or ".." in parts or not all(parts):
                raise self.error(entry.orig_filename, "the plain name of an array", "a path that leads elsewhere")
            if not name.endswith(".npy"):
                raise self.error(name, "arrays (.npy) only", "another kind of file")
            if name in seen:
                raise self.error(name, "one array of this name", "two")
            seen.add(name)
            if entry.flag_bits & 1:
                raise self.error(name, "an array that is not encrypted", "an encrypted one")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.error(name, "stored or deflated data", f"method {entry.compress_type}")
            stored = entry.compress_type == zipfile.ZIP_STORED
            most = entry.compress_size * (1 if stored else _DEFLATE_AT_BEST) + (0 if stored else 64)
            if entry.file_size > most or entry.compress_size > self.state.size:
                words = f"{entry.file_size} bytes packed into {entry.compress_size}"
                raise self.error(name, "a size that its packed bytes can have", words)
        return entries

    def _errors(self, name: str, expected: str) -> AbstractContextManager[None]:
        return reading(self.shown, name, expected, *_ERRORS)


def _fill(values: NDArray[Any], file: IO[bytes], start: int) -> None:
    """Fill an array with the unpacked bytes from `start` on; backwards, the entry is unpacked from its beginning."""
    file.seek(start)
    room = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(room):
        part = file.read(min(_STEP, len(room) - done))
        if not part:
            raise EOFError(f"the end after {start + done} of {start + len(room)} bytes")
        room[done : done + len(part)] = part
        done += len(part)


_ARCHIVES: Recent[Path, Archive] = Recent(OPEN)
_ARRAYS: Recent[tuple[Path, Identity, str], NDArray[Any]] = Recent(KEPT, lambda array: array.nbytes)


def _check_end(path: Path, shown: str) -> None:
    """Check both ends of an archive before its directory is read into memory."""
    with path.open("rb") as file:
        start = file.read(8)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16 - 22 - _WIDE_END))
        tail = file.read()
    if start[:2] != b"PK":
        known = {b"\x93NUMPY": "a single array (.npy)", b"\x80": "a pickle, which is never read"}
        words = next((words for sign, words in known.items() if start.startswith(sign)), "another kind of file")
        raise unreadable(shown, "", "a zip archive (.npz)", words if size else "an empty file")
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise unreadable(shown, "", "the directory at the end of a zip archive", "none: the file is cut short")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":  # sizes of 8 bytes stand in front, and count instead
        if tail[max(0, at - _WIDE_END) :][:4] != b"PK\6\6":
            raise unreadable(shown, "", "the directory of a large zip archive", "none in its place")
        directory = int.from_bytes(tail[at - _WIDE_END + 40 : at - _WIDE_END + 48], "little")
    if directory > MAX_DIRECTORY:
        raise unreadable(shown, "", f"a zip directory of at most {MAX_DIRECTORY} bytes", str(directory))


def _kind(descr: str) -> str:
    if "O" in descr:
        return "Python objects (a pickle), which are never read"
    if re.fullmatch(r"[<>|=][US]\d+", descr):
        return "texts"
    return f"elements of type {descr}" if descr else "a table with named fields"
