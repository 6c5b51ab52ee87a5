"""The strict .npz reader, against archives of numpy and ones put together by hand: what it reads, what it refuses."""

from __future__ import annotations

import errno
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.formats import npz
from foreframe.data.formats.npz import members, open_npz
from foreframe.errors import DataError, Fault


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    npz._ARRAYS.clear()
    npz._ARCHIVES.clear()


def header(descr: str, shape: str, order: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def packed(path: Path, *, method: int = zipfile.ZIP_DEFLATED, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries.items():
            file.writestr(f"{name}.npy", data)
    return path


def refused(path: Path, name: str = "a") -> Fault:
    with pytest.raises(DataError) as error:
        open_npz(path, "x.npz").read(name)
    (found,) = error.value.faults
    assert found.path == "x.npz"
    return found


@pytest.mark.parametrize("kind", ["u1", "<i8", ">i4", "<f4", ">f8", "<f2", "?"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("whole", [2**26, 16])
def test_stretches_equal_what_was_saved(
    tmp_path: Path, kind: str, save: Any, whole: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(npz, "WHOLE", whole)
    values = (np.arange(42).reshape(14, 3) % 7).astype(kind)
    save(tmp_path / "x.npz", **{"obs/a": values, "b": values[:4, 0]})
    archive = open_npz(tmp_path / "x.npz", "x.npz")
    assert archive.keys == ("obs/a", "b")
    assert archive.header("obs/a").shape == (14, 3)
    for start, stop in ((0, 14), (2, 5), (5, 9), (1, 2), (13, 14), (4, 4)):
        found = archive.read("obs/a", start, stop)
        np.testing.assert_array_equal(found, values[start:stop])
        assert found.dtype.isnative
        assert found.flags.writeable
        np.testing.assert_array_equal(archive.read("b"), values[:4, 0])


def test_arrays_in_fortran_order_and_newer_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = np.asfortranarray(np.arange(12, dtype="<i4").reshape(4, 3))
    np.savez(tmp_path / "x.npz", a=values)
    np.testing.assert_array_equal(open_npz(tmp_path / "x.npz", "x.npz").read("a", 1, 3), values[1:3])
    newer = io.BytesIO()
    np.lib.format.write_array(newer, values, version=(2, 0))
    packed(tmp_path / "y.npz", a=newer.getvalue(), b=header("'<i4'", "(2L, 1L)") + bytes(8))
    np.testing.assert_array_equal(open_npz(tmp_path / "y.npz", "y.npz").read("a"), values)
    assert open_npz(tmp_path / "y.npz", "y.npz").read("b").shape == (2, 1)
    npz._ARRAYS.clear()
    monkeypatch.setattr(npz, "WHOLE", 8)
    assert refused(tmp_path / "x.npz").found == "Fortran order"


def test_objects_are_never_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("it was unpickled",)

    np.savez(tmp_path / "x.npz", a=np.array([Trap()], object), b=np.array(["x"]), c=np.zeros(1, [("x", "f4")]))
    assert refused(tmp_path / "x.npz").found == "Python objects (a pickle), which are never read"
    assert refused(tmp_path / "x.npz", "b").found == "texts"
    assert refused(tmp_path / "x.npz", "c").found == "a table with named fields"
    (tmp_path / "y.npz").write_bytes(pickle.dumps({"a": np.zeros(3)}))
    assert refused(tmp_path / "y.npz").found == "a pickle, which is never read"
    packed(tmp_path / "z.npz", a=pickle.dumps(np.zeros(3)))
    assert refused(tmp_path / "z.npz").found == "something else"


def test_other_files_under_the_name_are_told(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    cases = {
        b"": "an empty file",
        b"garbage\n" * 9: "another kind of file",
        (tmp_path / "x.npy").read_bytes(): "a single array (.npy)",
        b"PK\3\4" + bytes(99): "none: the file is cut short",
    }
    for number, (data, words) in enumerate(cases.items()):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(data)
        assert refused(path).found == words
        assert members(path) == frozenset()
    assert refused(tmp_path / "missing.npz").found == "No such file or directory"
    assert members(tmp_path) == frozenset()


@pytest.mark.parametrize("kept", [0.98, 0.5, 0.05])
def test_an_archive_cut_short_is_a_fault(tmp_path: Path, kept: float):
    np.savez(tmp_path / "x.npz", a=np.arange(999), b=np.zeros(3))
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[: int(len(data) * kept)])
    refused(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("whole", [2**26, 16])
def test_a_wrong_crc_is_a_fault_before_any_row_is_handed_out(
    tmp_path: Path, save: Any, whole: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(npz, "WHOLE", whole)
    values = np.random.default_rng(0).integers(0, 255, (200, 40)).astype(np.uint8)
    save(tmp_path / "x.npz", a=values)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) * 3 // 4] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError) as error:
        open_npz(tmp_path / "x.npz", "x.npz").read("a", 0, 1)
    assert error.value.faults[0].expected == "data that can be unpacked and fits its CRC"


def claim(path: Path, **sizes: int) -> None:
    """Write other sizes into the only entry of the zip directory and of the local header."""
    data = bytearray(path.read_bytes())
    for start, offset in ((data.find(b"PK\3\4"), 0), (data.find(b"PK\1\2"), 2)):
        for key, place in (("packed", 18), ("unpacked", 22)):
            if key in sizes:
                struct.pack_into("<I", data, start + place + offset, sizes[key])
    path.write_bytes(data)


def test_a_claimed_size_that_packed_bytes_cannot_have_is_refused(tmp_path: Path):
    size = 2**30
    packed(tmp_path / "x.npz", a=header("'|u1'", f"({size},)") + bytes(100))
    claim(tmp_path / "x.npz", unpacked=size + len(header("'|u1'", f"({size},)")))
    assert refused(tmp_path / "x.npz").expected == "a size that its packed bytes can have"
    packed(tmp_path / "y.npz", method=zipfile.ZIP_STORED, a=header("'|u1'", "(400,)") + bytes(100))
    claim(tmp_path / "y.npz", unpacked=400 + len(header("'|u1'", "(400,)")))
    assert refused(tmp_path / "y.npz").expected == "a size that its packed bytes can have"


def test_a_header_that_claims_another_size_than_the_directory_is_refused(tmp_path: Path):
    packed(tmp_path / "x.npz", a=header("'<f4'", "(1000, 1000, 1000)") + bytes(100))
    found = refused(tmp_path / "x.npz")
    assert (found.expected, found.found) == ("at most 2147483648 bytes", "4000000000")
    packed(tmp_path / "y.npz", a=header("'<f4'", "(1000, 1000)") + bytes(100))
    found = refused(tmp_path / "y.npz")
    assert (found.expected, found.found) == ("4000000 bytes for shape (1000, 1000)", "100")
    packed(tmp_path / "z.npz", a=header("'<f4'", "(99999999999999999999,)"))
    assert refused(tmp_path / "z.npz").expected == "a shape of whole numbers"


def test_a_bomb_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = 2**14
    packed(tmp_path / "x.npz", a=header("'|u1'", f"({rows}, 4096)") + bytes(rows * 4096))
    monkeypatch.setattr(npz, "MAX_ARRAY", 2**20)
    tracemalloc.start()
    refused(tmp_path / "x.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_large_arrays_are_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = np.repeat(np.arange(250, dtype=np.uint8), 2**16).reshape(250, 2**16)
    np.savez_compressed(tmp_path / "x.npz", a=values)
    monkeypatch.setattr(npz, "WHOLE", 2**20)
    tracemalloc.start()
    for start in range(0, 250, 10):
        found = open_npz(tmp_path / "x.npz", "x.npz").read("a", start, start + 10)
        assert (found == values[start : start + 10]).all()
    assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    tracemalloc.stop()


def test_arrays_are_kept_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(npz._ARRAYS, "limit", 3000)
    np.savez(tmp_path / "x.npz", **{f"{number}": np.full(1000, number, np.uint8) for number in range(9)})
    archive = open_npz(tmp_path / "x.npz", "x.npz")
    assert [archive.read(f"{number}", 3, 4)[0] for number in range(9)] == [*range(9)]
    assert len(npz._ARRAYS) == 3


def test_few_archives_stay_open_and_a_replaced_one_is_read_anew(tmp_path: Path):
    for number in range(7):
        np.savez(tmp_path / f"{number}.npz", a=np.full(3, number))
    for _ in range(2):
        for number in range(7):
            assert open_npz(tmp_path / f"{number}.npz", "x.npz").read("a")[0] == number
    assert len(npz._ARCHIVES) == npz.OPEN
    np.savez(tmp_path / "6.npz", a=np.full(4, 9))
    assert open_npz(tmp_path / "6.npz", "x.npz").read("a")[3] == 9


@pytest.mark.parametrize("name", ["../a.npy", "/a.npy", "a/../../b.npy", "a\\b.npy", "a//b.npy"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr(name, header("'|u1'", "(1,)") + b"\0")
    assert refused(tmp_path / "x.npz").found == "a path that leads elsewhere"


def test_an_archive_of_anything_but_arrays_is_refused(tmp_path: Path):
    entry = header("'|u1'", "(1,)") + b"\0"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("readme.txt", b"hello")
    assert refused(tmp_path / "a.npz").found == "another kind of file"
    with zipfile.ZipFile(tmp_path / "b.npz", "w"):
        pass
    assert refused(tmp_path / "b.npz").found == "0"
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as file:
        file.writestr("a.npy", entry)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", entry)
    assert refused(tmp_path / "c.npz").found == "two"
    packed(tmp_path / "d.npz", method=zipfile.ZIP_LZMA, a=entry)
    assert refused(tmp_path / "d.npz").found == "method 14"
    packed(tmp_path / "e.npz", a=entry)
    data = bytearray((tmp_path / "e.npz").read_bytes())
    data[data.find(b"PK\1\2") + 8] |= 1
    (tmp_path / "e.npz").write_bytes(data)
    assert refused(tmp_path / "e.npz").found == "an encrypted one"


def test_a_zip_directory_of_unusual_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(tmp_path / "x.npz", **{f"{number}": np.zeros(1) for number in range(50)})
    monkeypatch.setattr(npz, "MAX_ENTRIES", 20)
    assert refused(tmp_path / "x.npz").found == "50"
    monkeypatch.setattr(npz, "MAX_DIRECTORY", 1000)
    assert "zip directory" in refused(tmp_path / "x.npz").expected


@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }",
        b"{'descr': '<f4', 'shape': (1,), 'fortran_order': False, 'x': 1}",
        b"\xff" * 40,
        b"",
    ],
)
def test_another_header_is_refused_and_never_evaluated(tmp_path: Path, text: bytes):
    packed(tmp_path / "x.npz", a=b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4))
    assert refused(tmp_path / "x.npz").found == "another header"


def test_a_missing_array_a_single_number_and_missing_rows_are_faults(tmp_path: Path):
    np.savez(tmp_path / "x.npz", a=np.zeros(()), b=np.zeros(3))
    archive = open_npz(tmp_path / "x.npz", "x.npz")
    assert refused(tmp_path / "x.npz").found == "a single number"
    assert refused(tmp_path / "x.npz", "c").found == "a, b"
    with pytest.raises(DataError, match="rows 2 to 3, found 3 rows"):
        archive.read("b", 2, 4)


def test_a_header_longer_than_any_is_refused(tmp_path: Path):
    packed(tmp_path / "x.npz", a=b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + bytes(4))
    found = refused(tmp_path / "x.npz")
    assert (found.expected, found.found) == ("a header of at most 4096 bytes", str(2**31))


@pytest.mark.parametrize("whole", [2**26, 16])
def test_data_that_end_before_their_size_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int):
    """Though their CRC is right."""
    monkeypatch.setattr(npz, "WHOLE", whole)
    start = header("'|u1'", "(200,)")
    packed(tmp_path / "x.npz", a=start + bytes(100))
    claim(tmp_path / "x.npz", unpacked=len(start) + 200)
    assert refused(tmp_path / "x.npz").found == f"the end after {len(start) + 100} of {len(start) + 200} bytes"


def test_what_the_disk_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))

    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    assert refused(tmp_path / "x.npz").found == "Input/output error"


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    (tmp_path / "folder.npz").mkdir()
    for name, words in {
        "pipe.npz": "a pipe, socket or device",
        "folder.npz": "a folder",
        "loop.npz": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
    }.items():
        assert refused(tmp_path / name).found == words
        assert members(tmp_path / name) == frozenset()


@pytest.mark.parametrize("name", ["a b", "\U0001f916", "line\nbreak", "e\u0301", "x" * 251, os.fsdecode(b"\xff")])
def test_files_and_arrays_may_have_any_name(tmp_path: Path, name: str):
    np.savez(tmp_path / f"{name}.npz", a=np.arange(3))
    assert open_npz(tmp_path / f"{name}.npz", "x.npz").read("a").tolist() == [0, 1, 2]
    np.savez(tmp_path / "y.npz", **{name.replace("\udcff", "\xff"): np.zeros(())})
    (key,) = open_npz(tmp_path / "y.npz", "x.npz").keys
    found = refused(tmp_path / "y.npz", key)
    assert found.found == "a single number"
    assert found.where.isprintable()


def test_an_archive_whose_end_is_wide_is_read_and_its_directory_judged_by_it(tmp_path: Path):
    """As those of more than 4 GiB are."""
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(3))
    whole, end = path.read_bytes()[:-22], path.read_bytes()[-22:]
    (size, start) = struct.unpack("<II", end[12:20])
    place = struct.pack("<IQI", 0, len(whole), 1)

    def wide(count: int) -> bytes:
        return b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, count, start)

    path.write_bytes(whole + wide(size) + b"PK\6\7" + place + end)
    assert open_npz(path, "x.npz").read("a").tolist() == [0, 1, 2]
    path.write_bytes(whole + wide(2**40) + b"PK\6\7" + place + end)
    assert refused(path).found == str(2**40)
    path.write_bytes(whole + wide(size) + bytes(8) + b"PK\6\7" + place + end)
    assert refused(path).found == "none in its place"
    path.write_bytes(b"PK\3\4" + b"PK\6\7" + place + end)
    assert refused(path).found == "none in its place"
