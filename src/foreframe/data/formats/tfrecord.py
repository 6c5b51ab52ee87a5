"""TFRecord files and the tf.train.Example in them, read without TensorFlow, one record at a time.

    uint64 length | uint32 masked CRC32C of these 8 bytes | data | uint32 masked CRC32C of the data      little-endian

Data is a protocol buffer, Example { 1: Features { 1: map<string, Feature> } }, where a Feature is one of three lists:
1: bytes, 2: float, 3: int64. Both CRCs (RFC 3720) and every length are checked before anything is read. Format: the
TensorFlow documentation on TFRecord, and tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from foreframe import disk
from foreframe.errors import DataError, Fault, reading, unreadable
from foreframe.files import identity

MAX_RECORD_BYTES = 2**30
Feature = list[memoryview] | NDArray[np.float32] | NDArray[np.int64]
"""What one key of an Example holds: byte strings, or a vector of numbers."""

_MASK = 0xA282EAD8
_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record lies: its number in the file counted from 0, its first byte, and how many bytes of data it has."""

    number: int
    start: int
    size: int

    @property
    def where(self) -> str:
        return f"record {self.number} at byte {self.start}"


class _BrokenError(Exception):
    """A message that is not what it should be, at a byte of the data."""

    def __init__(self, at: int, expected: str, found: str) -> None:
        super().__init__(expected)
        self.at, self.expected, self.found = at, expected, found


def index_records(path: Path, shown: str) -> tuple[list[Record], list[Fault]]:
    """Where the records of a file lie, from their lengths alone, and the faults of their framing.

    Of each record, 12 bytes are read: the CRC of its length is checked, and that it ends inside the file. Behind a
    fault nothing can be found any more. `shown` is the path as it is to be printed.
    """
    records: list[Record] = []
    try:
        total = identity(path, shown).size
        start = 0
        with reading(shown, "", "a file that can be read"), path.open("rb", buffering=0) as file:
            while start < total:
                file.seek(start)
                record = Record(len(records), start, _length(file.read(_HEAD.size), total - start))
                records.append(record)
                start += _HEAD.size + record.size + _CRC.size
    except DataError as error:
        return records, list(error.faults)
    except _BrokenError as error:
        return records, [Fault(shown, f"record {len(records)} at byte {start}", error.expected, error.found)]
    if not records:
        return records, [Fault(shown, "", "TFRecords", "an empty file")]
    return records, []


def read_record(path: Path, shown: str, record: Record) -> bytes:
    """The data of one record, both CRCs checked.

    Raises DataError: the file cannot be read, ends earlier, or the record is damaged; the fault names record and byte.
    """
    with reading(shown, record.where, "a file that can be read"), path.open("rb", buffering=0) as file:
        file.seek(record.start)
        content = file.read(_HEAD.size + record.size + _CRC.size)
    try:
        if (size := _length(content[: _HEAD.size], len(content))) != record.size:
            raise _BrokenError(0, f"a record of {record.size} bytes", f"{size}: the file has changed")
        data = content[_HEAD.size : -_CRC.size]
        if _masked(crc32c(data)) != _CRC.unpack(content[-_CRC.size :])[0]:
            raise _BrokenError(0, "data that fits its CRC", "a wrong CRC: the file is damaged")
    except _BrokenError as error:
        raise unreadable(shown, record.where, error.expected, error.found) from None
    return data


def parse_example(data: bytes, shown: str, record: Record) -> dict[str, Feature]:
    """The features of one Example by their keys. Byte strings are views into `data`; numbers are copied.

    Raises DataError, with record and byte: anything that reaches beyond the message around it, numbers of more than 64
    bits, fields that an Example does not have, a key that comes twice or is not UTF-8, a feature with two kinds of
    lists.
    """
    view = memoryview(data)
    features: dict[str, Feature] = {}
    try:
        for start, stop in _values(view, 0, len(view), "Features of an Example"):
            for first, end in _values(view, start, stop, "an entry of the map of features"):
                key, feature = _entry(view, first, end)
                if key in features:
                    raise _BrokenError(first, "one feature for each key", f"{key[:60]!a} twice")
                features[key] = feature
    except _BrokenError as error:
        where = f"record {record.number}, byte {record.start + _HEAD.size + error.at}"
        raise unreadable(shown, where, error.expected, error.found) from None
    return features


def write_records(path: Path, examples: Iterable[Mapping[str, bytes | Sequence[float]]]) -> None:
    """Write a TFRecord file with one Example for each mapping: one byte string, or floats, for each key. Raises
    DiskError."""
    parts = []
    for example in examples:
        data = _field(1, b"".join(_field(1, _packed(key, value)) for key, value in example.items()))
        length = struct.pack("<Q", len(data))
        parts += [length, _CRC.pack(_masked(crc32c(length))), data, _CRC.pack(_masked(crc32c(data)))]
    disk.put(path, b"".join(parts))


def _masked(crc: int) -> int:
    """CRCs are stored turned and moved, so that the CRC of data that holds CRCs is still worth something."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _length(head: bytes, left: int) -> int:
    """The length of a record from its first 12 bytes, with `left` bytes in the file from its first on."""
    if len(head) < _HEAD.size:
        raise _BrokenError(0, "the 12 bytes in front of a record", f"{len(head)}: the file is cut short")
    size, crc = _HEAD.unpack(head)
    if _masked(crc32c(head[:8])) != crc:
        raise _BrokenError(0, "a length that fits its CRC", "a wrong CRC: no TFRecord, or a damaged one")
    if size > MAX_RECORD_BYTES:
        raise _BrokenError(0, f"a record of at most {MAX_RECORD_BYTES} bytes", f"a length of {size}")
    if (whole := _HEAD.size + size + _CRC.size) > left:
        raise _BrokenError(0, f"a record of {whole} bytes", f"{left}: the file is cut short")
    return int(size)


def _varint(view: memoryview, at: int, stop: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    start = at
    while at < stop:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 1 << 64:
                break
            return value, at
        shift += 7
        if shift > 63:
            break
    raise _BrokenError(start, "a whole number of at most 64 bits", "none that ends")


def _fields(view: memoryview, at: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message as (place, number, wire type, first byte of the value, byte behind it)."""
    while at < stop:
        tag = at
        key, at = _varint(view, at, stop)
        number, wire = key >> 3, key & 7
        if wire == 2:
            size, at = _varint(view, at, stop)
        elif wire == 0:
            size = _varint(view, at, stop)[1] - at
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _BrokenError(tag, "a field of wire type 0, 1, 2 or 5", f"wire type {wire}")
        if size > stop - at:
            raise _BrokenError(tag, f"a field of {size} bytes", f"{stop - at} bytes left in its message")
        yield tag, number, wire, at, at + size
        at += size


def _values(
    view: memoryview, at: int, stop: int, what: str, wires: tuple[int, ...] = (2,)
) -> Iterator[tuple[int, int]]:
    """First byte and byte behind the last of each value of a message that has none but field 1."""
    for tag, number, wire, first, end in _fields(view, at, stop):
        if number != 1 or wire not in wires:
            raise _BrokenError(tag, f"{what} as field 1", f"field {number} of wire type {wire}")
        yield first, end


def _entry(view: memoryview, start: int, stop: int) -> tuple[str, Feature]:
    """One entry of the map: field 1 is the key, field 2 the Feature; either is empty when it is left out."""
    key, seen = "", set[int]()
    feature: Feature = []
    for at, number, wire, first, end in _fields(view, start, stop):
        if number not in (1, 2) or wire != 2 or number in seen:
            raise _BrokenError(at, "one key as field 1 and one Feature as field 2", f"field {number}, wire type {wire}")
        seen.add(number)
        if number == 2:
            feature = _feature(view, first, end)
            continue
        try:
            key = str(view[first:end], "utf-8")
        except UnicodeDecodeError as error:
            raise _BrokenError(first, "a key in UTF-8", "other bytes") from error
    return key, feature


def _feature(view: memoryview, start: int, stop: int) -> Feature:
    """One of the three lists; no byte strings where none is given."""
    feature: Feature | None = None
    for at, number, wire, first, end in _fields(view, start, stop):
        if number not in (1, 2, 3) or wire != 2:
            raise _BrokenError(at, "a list of bytes, floats or int64 as field 1 to 3", f"field {number}, type {wire}")
        if feature is not None:
            raise _BrokenError(at, "one list in a Feature", "another")
        if number == 1:
            feature = [view[a:b] for a, b in _values(view, first, end, "a byte string")]
        else:
            feature = _floats(view, first, end) if number == 2 else _integers(view, first, end)
    return [] if feature is None else feature


def _floats(view: memoryview, start: int, stop: int) -> NDArray[np.float32]:
    """Packed into one field, or each in its own."""
    parts = bytearray()
    for first, end in _values(view, start, stop, "floats of 4 bytes", (2, 5)):
        if (end - first) % 4:
            raise _BrokenError(first, "floats of 4 bytes", f"{end - first} bytes")
        parts += view[first:end]
    return np.frombuffer(bytes(parts), "<f4").astype(np.float32)


def _integers(view: memoryview, start: int, stop: int) -> NDArray[np.int64]:
    """Packed into one field, or each in its own; negative ones as they are stored, in two's complement."""
    values = []
    for first, end in _values(view, start, stop, "whole numbers", (0, 2)):
        while first < end:
            value, first = _varint(view, first, end)
            values.append(value)
    return np.array(values, np.uint64).astype(np.int64)


def _packed(key: str, value: bytes | Sequence[float]) -> bytes:
    """One entry of the map of features."""
    if isinstance(value, bytes):
        feature = _field(1, _field(1, value))
    else:
        feature = _field(2, _field(1, np.asarray(value, "<f4").tobytes()))
    return _field(1, key.encode()) + _field(2, feature)


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
