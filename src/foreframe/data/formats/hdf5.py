"""HDF5 files read strictly: hard links only, nothing outside the file, every size checked before anything is read.

External links and storage, virtual datasets and filters that are loaded as plugins are refused. HDF5 keeps no checksums
unless its writer asked for them: a file cut short is noticed by its header, a dataset never filled by its missing
chunks, numbers changed in place never. What the library does with a file whose inner parts contradict each other is
bounded by the process that reads (`ingest.pool`).
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import some_files
from foreframe.errors import DataError, UsageError, reading, unreadable
from foreframe.files import Identity, Recent, identity, not_plain

SUFFIXES = (".hdf5", ".h5")
SIGNATURE = b"\x89HDF\r\n\x1a\n"
OPEN = 2  # files that a process keeps open
KEPT = 4  # datasets of a file that stay open with their decoded chunks, of at most `CHUNK_CACHE` bytes each
CHUNK_CACHE = 2**24
KNOWN = 32  # groups, and datasets without chunks, that stay open and need no second search
MAX_CHUNK = 2**28
"""Bytes of the largest chunk that is decoded: each is decoded as a whole, however little of it is wanted."""
MAX_READ = 2**31  # bytes read at once
MAX_NAMES = 2**26  # bytes of the texts in one dataset
MAX_TEXTS = 2**20  # texts in one dataset
MAX_LIST = 64  # numbers or texts in one attribute
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Others trust the size that is written in the file."""
BULK = 2**25  # bytes that a chunk may become, however small it is in the file; for a larger one, `MOST_PACKED` holds
MOST_PACKED = 256  # bytes in a chunk of more than `BULK` for each byte in the file
_HEAD, _TAIL = 2**22, 2**20
_TEXT = 16  # bytes in place of a text of any length, whose own bytes are elsewhere in the file
_DEFLATE, _LZF = 1, 32000
_ERRORS = RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError


@dataclass(frozen=True)
class Header:
    """Shape and type of a dataset."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def library() -> Any:
    """The module h5py. Raises UsageError: it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError("reading HDF5 needs h5py: pip install 'foreframe[hdf5]'") from error
    return h5py


def read_ends(folder: Path) -> bytes:
    """Beginning and end of an HDF5 file below `folder`, to search names in; empty if there is none. Never raises."""
    found = 0
    for path in sorted(some_files(folder, links=False), key=lambda path: (len(path.parts), path)):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            if not_plain(path.stat().st_mode):
                continue
            with path.open("rb") as file:
                if file.read(len(SIGNATURE)) == SIGNATURE:
                    file.seek(0)
                    head = file.read(_HEAD)
                    file.seek(max(len(head), path.stat().st_size - _TAIL))
                    return head + file.read(_TAIL)
        except OSError:
            pass
        found += 1
        if found == 8:
            break
    return b""


def open_file(path: Path, shown: str) -> Store:
    """The file at `path`, open; the last ones stay open. `shown` is the path as it is to be printed.

    Raises DataError: no HDF5 file, or cut short. UsageError: h5py is not installed.
    """
    state = identity(path, shown)
    return _STORES.use(path, lambda: Store(path, shown, state), lambda store: store.state == state)


class Store:
    """An open HDF5 file. Names are paths, as in `data/demo_0/actions`; every method raises DataError that names one."""

    def __init__(self, path: Path, shown: str, state: Identity) -> None:
        self.shown, self.state = shown, state
        self.size = state.size
        self.h5py = library()
        self.kept: Recent[str, Any] = Recent(KEPT)
        self.known: Recent[str, Any] = Recent(KNOWN)
        self.last: tuple[str, Any] = ("", None)
        if not self.size:
            raise self.error("", "an HDF5 file", "an empty file")
        sys.audit("open", str(path), "rb", 0)  # as Python's own `open` does: for the limits of a reading process
        with self._errors("", "an HDF5 file, whole and undamaged"):
            try:
                self.file = self.h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNK_CACHE)
            except OSError as error:
                if cut := re.search(r"truncated file: eof = (\d+), .*stored_eof = (\d+)", str(error)):
                    raise OSError(f"{cut[1]} of {cut[2]} bytes: the file is cut short") from error
                if "file signature not found" in str(error):
                    raise OSError("another kind of file") from error
                raise

    def close(self) -> None:
        self.kept.clear()
        self.known.clear()
        self.last = ("", None)
        self.file.close()

    def error(self, name: str, expected: str, found: str) -> DataError:
        return unreadable(self.shown, name, expected, found)

    def has(self, name: str) -> bool:
        """Whether this name exists; links to elsewhere do not count."""
        return self._find(name) is not None

    def names(self, group: str) -> list[str]:
        """Names in a group, in the order of their bytes; a link that is not hard is a fault."""
        with self._errors(group, "a group that can be read"):
            found = self._group(group)
            names = sorted(map(os.fsdecode, found))  # one that is no UTF-8 comes as bytes
            for name in names:
                self._check_hard_link(found, name, f"{group}/{name}".lstrip("/"))
        return names

    def has_numbers(self, name: str) -> bool:
        """Whether there is a dataset of plain numbers of this name."""
        found = self._find(name)
        with self._errors(name, "a type that numpy knows"):
            return isinstance(found, self.h5py.Dataset) and _plain(found.dtype)

    def header(self, name: str) -> Header:
        """Shape and type of a dataset of numbers, of which every byte lies in this file."""
        dataset = self._checked(name)
        return Header(dataset.shape, dataset.dtype)

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop-1 of a dataset of numbers, in this machine's byte order."""
        dataset = self._checked(name)
        head = Header(dataset.shape, dataset.dtype)
        if not head.shape or not 0 <= start <= stop <= head.shape[0]:
            raise self.error(name, f"rows {start} to {stop - 1}", f"{head.shape[0] if head.shape else 'no'} rows")
        wanted = (stop - start) * math.prod(head.shape[1:]) * head.dtype.itemsize
        if wanted > MAX_READ:
            raise self.error(name, f"at most {MAX_READ} bytes for rows {start} to {stop - 1}", str(wanted))
        with self._errors(name, "data that can be read"):
            values = dataset[start:stop]
        return np.ascontiguousarray(values, head.dtype.newbyteorder("="))

    def texts(self, name: str) -> list[str]:
        """A dataset of texts, one for each row."""
        dataset = self._dataset(name)
        with self._errors(name, "texts in UTF-8"):
            kind = dataset.dtype
            if kind.kind != "S" and self.h5py.check_string_dtype(kind) is None:
                raise self.error(name, "texts", _description(self.h5py, kind))
            if len(dataset.shape) != 1:
                raise self.error(name, "one row of texts", f"shape {_shape(dataset.shape)}")
            if dataset.shape[0] > MAX_TEXTS:
                raise self.error(name, f"at most {MAX_TEXTS} texts", f"{dataset.shape[0]}")
            self._check_place(dataset, name)
            if kind.kind == "S" and (size := dataset.shape[0] * kind.itemsize) > MAX_NAMES:
                raise self.error(name, f"at most {MAX_NAMES} bytes", f"{size}")
            texts = [bytes(text) for text in dataset[:]]
            if (size := sum(map(len, texts))) > MAX_NAMES:
                raise self.error(name, f"at most {MAX_NAMES} bytes", f"{size}")
            return [text.decode() for text in texts]

    def attribute(self, name: str, key: str) -> Any:
        """An attribute: a number, a text, or a list of at most 64 of either; None where there is none."""
        owner = self._object(name)
        with self._errors(name, f"an attribute {key} that can be read"):
            if not self.h5py.h5a.exists(owner.id, key.encode()):
                return None
            found = self.h5py.h5a.open(owner.id, key.encode())
            text = found.dtype.kind == "S" or self.h5py.check_string_dtype(found.dtype) is not None
            if (
                math.prod(found.shape) > MAX_LIST
                or not (text or found.dtype.kind in "biuf")
                or found.dtype.itemsize > 2**16
            ):
                words = f"{_description(self.h5py, found.dtype)} of shape {_shape(found.shape)}"
                raise self.error(name, f"a few numbers or a text as attribute {key}", words)
            value = owner.attrs[key]
            plain = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
            return _decoded(plain)

    def _find(self, name: str) -> Any:
        """The object of this name, or None. No link is followed before it is known to be hard."""
        if not name:
            return self.file
        if (known := self.known.get(name)) is not None:
            return known
        if name == self.last[0]:
            return self.last[1]
        above, _, part = name.rpartition("/")
        group = self._find(above)
        with self._errors(name, "a name that can be found"):
            if not isinstance(group, self.h5py.Group):
                return None
            if not group.id.links.exists(part.encode("utf-8", "surrogateescape")):
                return None
            self._check_hard_link(group, part, name)
            found = group[part]
        if isinstance(found, self.h5py.Group):
            self.known.put(name, found)
        else:
            self.last = (name, found)
        return found

    def _object(self, name: str) -> Any:
        found = self._find(name)
        if found is None:
            raise self.error(name, "it to be there", "nothing of this name")
        return found

    def _group(self, name: str) -> Any:
        found = self._object(name)
        if not isinstance(found, self.h5py.Group):
            raise self.error(name, "a group", "a dataset")
        return found

    def _dataset(self, name: str) -> Any:
        found = self._object(name)
        if not isinstance(found, self.h5py.Dataset):
            raise self.error(name, "a dataset", "a group")
        return found

    def _checked(self, name: str) -> Any:
        """A dataset of numbers, once it is known that every byte lies in this file."""
        if (kept := self.kept.get(name)) is not None:
            return kept
        found = self._dataset(name)
        if self.known.get(name) is not None:
            return found
        with self._errors(name, "a dataset that can be read"):
            if not _plain(found.dtype):
                raise self.error(name, "plain numbers", _description(self.h5py, found.dtype))
            self._check_place(found, name)
            place = self.known if found.chunks is None else self.kept
        return place.put(name, found)

    def _check_hard_link(self, group: Any, part: str, name: str) -> None:
        h5l = self.h5py.h5l
        kind = group.id.links.get_info(part.encode("utf-8", "surrogateescape")).type
        if kind != h5l.TYPE_HARD:
            known = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
            raise self.error(name, "data in this place of this file", known.get(kind, "another kind of link"))

    def _check_place(self, dataset: Any, name: str) -> None:
        """Check that all of a dataset lies in this file and can be decoded piece by piece."""
        plan = dataset.id.get_create_plist()
        layout, h5d = plan.get_layout(), self.h5py.h5d
        if layout == h5d.VIRTUAL:
            raise self.error(name, "data in this file", "a virtual dataset, made of others")
        if plan.get_external_count():
            raise self.error(name, "data in this file", "data kept in another file")
        if dataset.shape is None:
            raise self.error(name, "data", "nothing (a null dataspace)")
        filters = [plan.get_filter(at)[0] for at in range(plan.get_nfilters())]
        for number in filters:
            if number not in FILTERS:
                raise self.error(name, f"no filters but {', '.join(FILTERS.values())}", f"filter {number}")
        if sum(number in (_DEFLATE, _LZF) for number in filters) > 1:
            raise self.error(name, "data compressed once", "twice or more")
        free = dataset.dtype.kind == "O" and self.h5py.check_string_dtype(dataset.dtype) is not None
        element = _TEXT if free else dataset.id.get_type().get_size()
        stored = dataset.id.get_storage_size()
        if layout == h5d.CHUNKED:
            chunk = plan.get_chunk()
            if math.prod(chunk) * element > MAX_CHUNK:
                raise self.error(name, f"chunks of at most {MAX_CHUNK} bytes", str(math.prod(chunk) * element))
            wanted = math.prod(-(-size // step) for size, step in zip(dataset.shape, chunk, strict=True))
            chunks = dataset.id.get_num_chunks()
            if chunks != wanted or stored > self.size:
                found = f"{chunks} of {stored} bytes"
                raise self.error(name, f"{wanted} chunks for shape {_shape(dataset.shape)}", found)
            self._check_chunks(dataset, name, math.prod(chunk) * element)
        else:
            wanted = math.prod(dataset.shape) * element
            offset = dataset.id.get_offset() or 0
            if stored != wanted or offset + stored > self.size:
                found = f"{stored}" if stored != wanted else "fewer: they lie beyond the end of the file"
                raise self.error(name, f"{wanted} bytes for shape {_shape(dataset.shape)}", found)

    def _check_chunks(self, dataset: Any, name: str, whole: int) -> None:
        """Check that chunks of `whole` bytes can be packed into as many bytes as they have in the file."""
        most = whole + whole // 100 + 64  # with checksums, and the little that deflate adds at worst
        wrong: list[int] = []

        def check(chunk: Any) -> None:
            if chunk.size > most or whole > max(BULK, MOST_PACKED * chunk.size):
                wrong.append(chunk.size)

        dataset.id.chunk_iter(check)
        if wrong:
            raise self.error(name, f"chunks of {whole} bytes", f"one packed into {wrong[0]}")

    def _errors(self, name: str, expected: str) -> AbstractContextManager[None]:
        return reading(self.shown, name, expected, *_ERRORS)


_STORES: Recent[Path, Store] = Recent(OPEN)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _plain(kind: np.dtype[Any]) -> bool:
    return kind.kind in "biuf" and kind.itemsize <= 8


def _description(h5py: Any, kind: np.dtype[Any]) -> str:
    if h5py.check_ref_dtype(kind) is not None:
        return "references to other objects"
    if kind.kind in "SUO":
        return "texts" if kind.kind != "O" or h5py.check_string_dtype(kind) is not None else "rows of unequal lengths"
    return "a table with named fields" if kind.names else str(kind)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
