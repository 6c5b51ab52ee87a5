"""TFRecord files, written here by the definitions alone: a CRC bit by bit, and messages packed by hand."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreframe.data.formats.tfrecord import (
    MAX_RECORD_BYTES,
    Record,
    crc32c,
    index_records,
    parse_example,
    read_record,
    write_records,
)
from foreframe.errors import DataError, Fault

# ---- an independent writer -------------------------------------------------------------------------------------


def slow_crc(data: bytes) -> int:
    """CRC32C as defined: one bit after the other through the reflected polynomial 0x1EDC6F41."""
    polynomial = int(f"{0x1EDC6F41:032b}"[::-1], 2)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (polynomial * (register & 1))
    return register ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def framed(data: bytes, crc=slow_crc) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", mask(slow_crc(length))) + data + struct.pack("<I", mask(crc(data)))


def varint(number: int) -> bytes:
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def chunk(field: int, content: bytes) -> bytes:
    return varint(8 * field + 2) + varint(len(content)) + content


def strings(*values: bytes) -> bytes:
    return chunk(1, b"".join(chunk(1, value) for value in values))


def floats(*values: float, packed: bool = True) -> bytes:
    raw = [struct.pack("<f", value) for value in values]
    return chunk(2, chunk(1, b"".join(raw)) if packed else b"".join(varint(8 + 5) + one for one in raw))


def whole(*values: int, packed: bool = True) -> bytes:
    raw = [varint(value % 2**64) for value in values]
    return chunk(3, chunk(1, b"".join(raw)) if packed else b"".join(varint(8) + one for one in raw))


def entry(key: str, feature: bytes) -> bytes:
    return chunk(1, chunk(1, key.encode()) + chunk(2, feature))


def packed_example(features: dict[str, bytes]) -> bytes:
    return chunk(1, b"".join(entry(key, feature) for key, feature in features.items()))


# ---- helpers ---------------------------------------------------------------------------------------------------

NOWHERE = Record(3, 1000, 0)


@cache
def small_file() -> bytes:
    """Three records of 51, 0 and 20 bytes: the first an Example."""
    example = packed_example({"a": strings(b"xyz"), "b": floats(1.5, -2), "c": whole(7)})
    return b"".join(framed(data) for data in (example, b"", bytes(range(20))))


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "file.tfrecords"
    path.write_bytes(content)
    return path


def read_all(path: Path) -> list[bytes]:
    """Every record; DataError if anything is wrong anywhere."""
    records, faults = index_records(path, path.name)
    if faults:
        raise DataError("faults:", faults)
    return [read_record(path, path.name, record) for record in records]


def only_fault(error: pytest.ExceptionInfo[DataError]) -> Fault:
    (fault,) = error.value.faults
    return fault


def broken(data: bytes) -> str:
    with pytest.raises(DataError) as error:
        parse_example(data, "dir/file", NOWHERE)
    fault = only_fault(error)
    assert fault.path == "dir/file"
    assert fault.where.startswith("record 3, byte 10")  # 1000 + 12 bytes of head + place in the data
    return str(fault)


# ---- CRC -------------------------------------------------------------------------------------------------------


def test_the_crc_has_its_published_check_values():
    """The check value of the catalogue of CRCs, and the examples of RFC 3720, B.4."""
    for crc in (crc32c, slow_crc):
        assert crc(b"123456789") == 0xE3069283
        assert crc(bytes(32)) == 0x8A9136AA
        assert crc(b"\xff" * 32) == 0x62A8AB43
        assert crc(bytes(range(32))) == 0x46DD794E
        assert crc(bytes(range(31, -1, -1))) == 0x113FDB5C


@pytest.mark.parametrize("size", [0, 1, 3, 4, 511, 512, 513, 4096, 32767, 32768, 32771, 65536, 65541, 100003])
def test_the_crc_equals_its_definition_at_every_kind_of_length(size: int):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == slow_crc(data)


@given(st.binary(max_size=1500))
@settings(max_examples=50, deadline=None)
def test_the_crc_equals_its_definition_on_any_bytes(data: bytes):
    assert crc32c(data) == slow_crc(data)


# ---- framing ---------------------------------------------------------------------------------------------------


def test_records_are_found_by_their_lengths_and_read_one_by_one(tmp_path: Path):
    path = saved(tmp_path, small_file())
    records, faults = index_records(path, "file")
    assert faults == []
    assert [record.number for record in records] == [0, 1, 2]
    assert [record.start for record in records] == [0, 16 + records[0].size, 32 + records[0].size]
    assert read_record(path, "file", records[2]) == bytes(range(20))
    assert read_record(path, "file", records[1]) == b""
    example = parse_example(read_record(path, "file", records[0]), "file", records[0])
    assert bytes(example["a"][0]) == b"xyz"
    assert example["b"].tolist() == [1.5, -2]
    assert example["c"].tolist() == [7]


@pytest.mark.parametrize(
    ("byte", "number", "words"),
    [
        (0, 0, "length that fits its CRC"),
        (7, 0, "length that fits its CRC"),
        (9, 0, "length that fits its CRC"),
        (20, 0, "data that fits its CRC"),
        (-37, 1, "data that fits its CRC"),
        (-30, 2, "length that fits its CRC"),
        (-10, 2, "data that fits its CRC"),
        (-1, 2, "data that fits its CRC"),
    ],
)
def test_a_flipped_bit_in_length_data_or_crc_is_a_fault_of_that_record(tmp_path, byte: int, number: int, words: str):
    content = bytearray(small_file())
    content[byte] ^= 16
    with pytest.raises(DataError) as error:
        read_all(saved(tmp_path, bytes(content)))
    fault = only_fault(error)
    starts = [0, len(small_file()) - 52, len(small_file()) - 36]
    assert fault.where == f"record {number} at byte {starts[number]}"
    assert fault.expected == f"a {words}" if words.startswith("length") else words
    assert "wrong CRC" in fault.found


def test_a_file_cut_short_anywhere_is_a_fault_and_what_is_before_can_be_read(tmp_path: Path):
    content = small_file()
    ends = {0, len(content) - 52, len(content) - 36}
    for size in range(len(content)):
        records, faults = index_records(saved(tmp_path, content[:size]), "file")
        assert [record.start for record in records] == [end for end in sorted(ends) if end < size and _whole(end, size)]
        if size in ends - {0}:
            assert faults == []  # cut between records: only who knows how many there should be can tell
        else:
            assert len(faults) == 1
            assert "cut short" in faults[0].found or "empty" in faults[0].found


def _whole(start: int, size: int) -> bool:
    return start + 16 + struct.unpack("<Q", small_file()[start : start + 8])[0] <= size


def test_an_empty_file_a_missing_file_and_garbage_are_faults(tmp_path: Path):
    assert index_records(saved(tmp_path, b""), "f")[1] == [Fault("f", "", "TFRecords", "an empty file")]
    assert index_records(tmp_path / "none", "f")[1][0].found == "No such file or directory"
    for garbage in (b"x", b"hello world, this is no record\n" * 40, bytes(100)):
        records, faults = index_records(saved(tmp_path, garbage), "f")
        assert records == []
        assert faults[0].where == "record 0 at byte 0"
    with pytest.raises(DataError, match="No such file"):
        read_record(tmp_path / "none", "f", Record(0, 0, 5))


def test_a_length_of_two_to_the_62_with_a_right_crc_is_refused_without_allocation(tmp_path: Path):
    for size in (2**62, 2**64 - 1, MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES):
        length = struct.pack("<Q", size)
        path = saved(tmp_path, framed(b"abc") + length + struct.pack("<I", mask(slow_crc(length))) + bytes(50))
        tracemalloc.start()
        records, (fault,) = index_records(path, "f")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000
        assert len(records) == 1
        assert fault.where == "record 1 at byte 19"
        assert ("cut short" if size == MAX_RECORD_BYTES else str(size)) in fault.found


def test_a_file_that_changed_after_it_was_indexed_is_a_fault(tmp_path: Path):
    path = saved(tmp_path, small_file())
    records, _ = index_records(path, "f")
    for other in (framed(b"abc") + small_file(), b"", small_file()[:30]):
        saved(tmp_path, other)
        with pytest.raises(DataError, match="record 0 at byte 0"):
            read_record(path, "f", records[0])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flip_of_a_byte_goes_unseen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    content = bytearray(small_file())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path = saved(tmp_path_factory.getbasetemp(), bytes(content))
    with pytest.raises(DataError):
        read_all(path)


# ---- Example ---------------------------------------------------------------------------------------------------


def test_lists_may_be_packed_or_not_and_whole_numbers_negative():
    example = parse_example(
        packed_example(
            {
                "": strings(),
                "two": strings(b"", b"\x00\xff"),
                "packed": floats(1, 2.5, float("inf")),
                "loose": floats(1, 2.5, packed=False),
                "numbers": whole(0, -1, 2**63 - 1, -(2**63)),
                "apart": whole(-5, 300, packed=False),
                "none": b"",
                "é": floats(),
            }
        ),
        "f",
        NOWHERE,
    )
    assert [bytes(value) for value in example["two"]] == [b"", b"\x00\xff"]
    assert example["packed"].dtype == np.float32
    assert example["packed"].tolist() == [1, 2.5, float("inf")]
    assert example["loose"].tolist() == [1, 2.5]
    assert example["numbers"].tolist() == [0, -1, 2**63 - 1, -(2**63)]
    assert example["apart"].tolist() == [-5, 300]
    assert example[""] == example["none"] == []
    assert example["é"].tolist() == []


def test_a_packed_and_a_loose_part_of_one_list_are_joined():
    mixed = chunk(2, chunk(1, struct.pack("<2f", 1, 2)) + varint(13) + struct.pack("<f", 3))
    assert parse_example(packed_example({"a": mixed}), "f", NOWHERE)["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (chunk(1, entry("a", strings(b"x")))[:-1], "bytes left in its message"),
        (varint(10) + varint(2**62), f"a field of {2**62} bytes, found 0 bytes left"),
        (varint(10) + varint(2**64 - 1), "bytes left in its message"),
        (varint(10) + b"\xff" * 10 + b"\x01", "at most 64 bits"),
        (varint(10) + b"\xff" * 9 + b"\x02", "at most 64 bits"),
        (b"\x80", "none that ends"),
        (chunk(2, b""), "Features of an Example as field 1, found field 2"),
        (varint(8) + b"\x01", "field 1 of wire type 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (chunk(1, varint(13) + bytes(4)), "entry of the map"),
        (packed_example({"a": chunk(4, b"")}), "field 1 to 3, found field 4"),
        (packed_example({"a": strings(b"x") + floats(1)}), "one list in a Feature"),
        (packed_example({"a": chunk(2, chunk(1, bytes(6)))}), "floats of 4 bytes"),
        (packed_example({"a": chunk(2, varint(9) + bytes(8))}), "floats of 4 bytes"),
        (packed_example({"a": chunk(3, varint(13) + bytes(4))}), "whole numbers"),
        (packed_example({"a": chunk(3, chunk(1, b"\x01\x80"))}), "none that ends"),
        (packed_example({"a": chunk(1, varint(8) + b"\x01")}), "byte string as field 1"),
        (chunk(1, entry("a", strings(b"x")) * 2), "one feature for each key, found 'a' twice"),
        (chunk(1, chunk(1, chunk(1, b"\xff\xfe"))), "UTF-8"),
        (chunk(1, chunk(1, chunk(1, b"a") + chunk(1, b"b"))), "one key"),
        (chunk(1, chunk(1, chunk(3, b"a"))), "one key"),
        (b"\xff\xd8\xff\xe0 this is a picture", "expected"),
    ],
)
def test_what_an_example_cannot_hold_is_a_fault_with_record_and_byte(data: bytes, words: str):
    assert words in broken(data)


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_example_or_a_fault(data: bytes):
    with suppress(DataError):
        parse_example(data, "f", NOWHERE)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_example_is_an_example_or_a_fault(data: st.DataObject):
    good = bytearray(packed_example({"a": strings(b"xyz"), "b": floats(1.5, -2), "c": whole(7, -7, packed=False)}))
    good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(DataError):
        parse_example(bytes(good), "f", NOWHERE)


def test_what_is_written_is_what_the_definitions_say(tmp_path: Path):
    examples: Iterable[dict[str, bytes | list[float]]] = [{"a": b"x" * 200, "b": [1.0, 2.0]}, {}]
    write_records(tmp_path / "new" / "file", examples)
    expected = io.BytesIO()
    for features in ({"a": strings(b"x" * 200), "b": floats(1, 2)}, {}):
        expected.write(framed(packed_example(features)))
    assert (tmp_path / "new" / "file").read_bytes() == expected.getvalue()


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in {
        "pipe": "a pipe, socket or device",
        "": "a folder",
        "loop": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
    }.items():
        assert index_records(tmp_path / name, "f") == ([], [Fault("f", "", "a file that can be read", words)])


def check_damage(path: Path, tries: int, figure: Callable[..., None], seed: int) -> None:
    """One bit flipped, a burst of bytes, and a cut, each at random; each has to be found, and the file named."""
    draw = np.random.default_rng(seed)
    whole = small_file()
    ends = {len(whole) - 52, len(whole) - 36}  # between records: only who knows how many there should be can tell

    def flip(content: bytearray, at: int) -> bytes:
        content[at] ^= 1 << int(draw.integers(8))
        return bytes(content)

    def burst(content: bytearray, at: int) -> bytes:
        """So many bytes that CRCs are all there is to tell: none is as it was."""
        for place in range(at, min(len(content), at + int(draw.integers(2, 9)))):
            content[place] ^= int(draw.integers(1, 256))
        return bytes(content)

    def cut(content: bytearray, at: int) -> bytes:
        return bytes(content[: at - (at in ends)])

    for words, damage in (("bits flipped", flip), ("bursts", burst), ("files cut short", cut)):
        found = 0
        for _ in range(tries):
            path.write_bytes(damage(bytearray(whole), int(draw.integers(len(whole)))))
            try:
                read_all(path)
            except DataError as error:
                found += all(fault.path == path.name for fault in error.faults)
        figure(f"TFRecord {words} and found", found, tries)


def test_every_flipped_bit_burst_and_cut_is_found(tmp_path: Path, figure: Callable[..., None]):
    check_damage(tmp_path / "file.tfrecords", 500, figure, 0)


@pytest.mark.nightly
def test_every_flipped_bit_burst_and_cut_of_many_is_found(tmp_path: Path, figure: Callable[..., None]):
    check_damage(tmp_path / "file.tfrecords", 10_000, figure, 1)
