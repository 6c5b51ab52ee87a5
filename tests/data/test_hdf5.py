"""The strict HDF5 reader, against files written by h5py: what it reads, and all that it refuses."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.formats import hdf5
from foreframe.data.formats.hdf5 import open_file
from foreframe.data.ingest.pool import Limits, Readers
from foreframe.errors import DataError, Fault, UsageError

h5py = pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    hdf5._STORES.clear()


def written(path: Path, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def fault(error: pytest.ExceptionInfo[DataError]) -> Fault:
    (found,) = error.value.faults
    return found


def refused(path: Path, name: str = "a") -> Fault:
    with pytest.raises(DataError) as error:
        open_file(path, "x.h5").read(name, 0, 1)
    found = fault(error)
    assert found.path == "x.h5"
    return found


@pytest.mark.parametrize("kind", ["u1", "<i4", ">i4", "<f4", ">f8", "<f2", "?"])
@pytest.mark.parametrize("plan", [{}, {"chunks": (4, 2), "compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_stretches_equal_what_was_written_in_any_type_of_number(tmp_path: Path, kind: str, plan: dict[str, Any]):
    values = (np.arange(30).reshape(10, 3) % 7).astype(kind)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("g/a", data=values, **plan)
    store = open_file(tmp_path / "x.h5", "x.h5")
    assert store.names("g") == ["a"]
    assert store.header("g/a").shape == (10, 3)
    for start, stop in ((0, 10), (2, 5), (5, 9), (1, 2), (4, 4)):
        found = store.read("g/a", start, stop)
        np.testing.assert_array_equal(found, values[start:stop])
        assert found.dtype.isnative


def test_rows_that_are_not_there_are_a_fault(tmp_path: Path):
    store = open_file(written(tmp_path / "x.h5", a=np.zeros((5, 2))), "x.h5")
    with pytest.raises(DataError, match=r"rows 4 to 5, found 5 rows"):
        store.read("a", 4, 6)


def test_a_name_that_is_not_there_or_of_another_kind_is_a_fault(tmp_path: Path):
    path = written(tmp_path / "x.h5", **{"g/a": np.zeros(3)})
    store = open_file(path, "x.h5")
    assert store.has("g/a")
    assert not store.has("g/b")
    assert not store.has("g/a/deeper")
    assert refused(path, "b").found == "nothing of this name"
    assert refused(path, "g").found == "a group"
    with pytest.raises(DataError, match="expected a group, found a dataset"):
        store.names("g/a")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (lambda: h5py.SoftLink("/b"), "a soft link"),
        (lambda: h5py.ExternalLink("other.h5", "/a"), "a link to another file"),
        (lambda: h5py.ExternalLink("missing.h5", "/a"), "a link to another file"),
    ],
)
def test_links_that_are_not_hard_are_not_followed(tmp_path: Path, link: Any, words: str):
    written(tmp_path / "other.h5", a=np.ones(3))
    path = written(tmp_path / "x.h5", b=np.zeros(3))
    with h5py.File(path, "a") as file:
        file["a"] = link()
        file["g/a"] = link()
    assert refused(path).found == words
    assert refused(path, "a/deeper").found == words
    with pytest.raises(DataError) as error:
        open_file(path, "x.h5").names("g")
    assert fault(error).where == "g/a"


def test_a_hard_link_is_just_another_name(tmp_path: Path):
    path = written(tmp_path / "x.h5", b=np.arange(3))
    with h5py.File(path, "a") as file:
        file["a"] = file["b"]
    np.testing.assert_array_equal(open_file(path, "x.h5").read("a", 0, 3), np.arange(3))


def test_data_kept_in_another_file_is_not_read(tmp_path: Path):
    (tmp_path / "secret.bin").write_bytes(b"secret" * 4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", (24,), "u1", external=[(str(tmp_path / "secret.bin"), 0, 24)])
    assert refused(tmp_path / "x.h5").found == "data kept in another file"


def test_a_virtual_dataset_is_not_read(tmp_path: Path):
    written(tmp_path / "other.h5", a=np.ones(3))
    plan = h5py.VirtualLayout((3,), "f8")
    plan[:] = h5py.VirtualSource(tmp_path / "other.h5", "a", (3,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("a", plan)
    assert refused(tmp_path / "x.h5").found == "a virtual dataset, made of others"


def test_references_texts_tables_and_uneven_rows_are_no_numbers(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["n"] = np.zeros(2)
        file.create_dataset("ref", (1,), h5py.ref_dtype)[0] = file["n"].ref
        file["text"] = np.array(["a", "b"], "S")
        file.create_dataset("uneven", (2,), h5py.vlen_dtype("u1"))
        file["table"] = np.zeros(2, [("x", "f4")])
        file["complex"] = np.zeros(2, complex)
        file["null"] = h5py.Empty("f4")
    found = {name: refused(tmp_path / "x.h5", name).found for name in ("ref", "text", "uneven", "table", "complex")}
    assert found == {
        "ref": "references to other objects",
        "text": "texts",
        "uneven": "rows of unequal lengths",
        "table": "a table with named fields",
        "complex": "complex128",
    }
    assert "null" in refused(tmp_path / "x.h5", "null").found
    store = open_file(tmp_path / "x.h5", "x.h5")
    assert [name for name in store.names("") if store.has_numbers(name)] == ["n", "null"]


def test_texts_of_fixed_and_of_any_length_are_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["fixed"] = np.array(["demo_1", "demo_22"], "S")
        file.create_dataset("free", data=["demo_1", "é"], dtype=h5py.string_dtype())
        file["numbers"] = np.zeros(3)
        file["broken"] = np.array([b"\xff\xfe"], "S")
    store = open_file(tmp_path / "x.h5", "x.h5")
    assert store.texts("fixed") == ["demo_1", "demo_22"]
    assert store.texts("free") == ["demo_1", "é"]
    for name in ("numbers", "broken"):
        with pytest.raises(DataError, match="texts"):
            store.texts(name)
    monkeypatch.setattr(hdf5, "MAX_NAMES", 7)
    for name in ("fixed", "free"):
        with pytest.raises(DataError, match="at most 7 bytes"):
            store.texts(name)


def test_attributes_are_plain_and_small(tmp_path: Path):
    with h5py.File(written(tmp_path / "x.h5", a=np.zeros(2)), "a") as file:
        file["a"].attrs.update({"T": 31, "shape": (48, 64, 3), "format": "RGB", "bytes": np.bytes_("BGR"), "f": 1.5})
        file["a"].attrs["many"] = np.zeros(100)
        file["a"].attrs["ref"] = file["a"].ref
    store = open_file(tmp_path / "x.h5", "x.h5")
    found = [store.attribute("a", key) for key in ("T", "shape", "format", "bytes", "f", "none")]
    assert found == [31, [48, 64, 3], "RGB", "BGR", 1.5, None]
    for key in ("many", "ref"):
        with pytest.raises(DataError, match=f"as attribute {key}"):
            store.attribute("a", key)


def read_format(path: Path) -> Any:
    return open_file(path, str(path)).attribute("a", "format")


def test_a_damaged_heap_of_texts_from_which_the_library_does_not_return_ends_its_process_only(tmp_path: Path):
    path = written(tmp_path / "x.h5", a=np.zeros(2))
    with h5py.File(path, "a") as file:
        file["a"].attrs["format"] = "RGB"
    data = bytearray(path.read_bytes())
    free = data.find(b"GCOL") + 16
    while int.from_bytes(data[free : free + 2], "little"):
        free += 16 + -(-int.from_bytes(data[free + 8 : free + 16], "little") // 8) * 8
    data[free + 9] -= 1
    path.write_bytes(data)
    with Readers(1) as readers:
        readers.limits = Limits(cpu=2)
        with pytest.raises(DataError, match="expected a file that is read within 2 s of processor time") as error:
            readers.call(partial(read_format, path), tmp_path)
    assert fault(error).path == str(path)


def test_data_that_were_never_written_are_a_fault(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("plain", (10**12,), "u1")
        chunked = file.create_dataset("chunked", (10, 10), "u1", chunks=(5, 10))
        chunked[:5] = 1
    assert "bytes for shape" in refused(tmp_path / "x.h5", "plain").expected
    found = refused(tmp_path / "x.h5", "chunked")
    assert (found.expected, found.found) == ("2 chunks for shape 10x10", "1 of 50 bytes")


def test_sizes_are_judged_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.zeros((64, 64), "u1"), chunks=(64, 64), compression="gzip")
    monkeypatch.setattr(hdf5, "MAX_READ", 100)
    with pytest.raises(DataError, match="at most 100 bytes for rows 0 to 1, found 128"):
        open_file(tmp_path / "x.h5", "x.h5").read("a", 0, 2)
    monkeypatch.setattr(hdf5, "MAX_CHUNK", 1000)
    open_file(tmp_path / "x.h5", "x.h5").kept.clear()
    assert refused(tmp_path / "x.h5").expected == "chunks of at most 1000 bytes"


def test_a_filter_that_would_be_loaded_as_a_plugin_is_refused(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((4,))
        data = h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_INT32, space, plan)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype=np.int32))
    assert refused(tmp_path / "x.h5").found == "filter 32001"


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_a_file_cut_short_is_a_fault(tmp_path: Path, kept: float):
    path = written(tmp_path / "x.h5", a=np.arange(5000))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert refused(path).found == f"{int(len(data) * kept)} of {len(data)} bytes: the file is cut short"


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "an empty file"), (b"garbage\n" * 500, "another kind of file"), (hdf5.SIGNATURE * 100, "superblock")],
)
def test_a_file_that_is_no_hdf5_is_a_fault(tmp_path: Path, data: bytes, words: str):
    (tmp_path / "x.h5").write_bytes(data)
    assert words in refused(tmp_path / "x.h5").found
    with pytest.raises(DataError, match="No such file"):
        open_file(tmp_path / "missing.h5", "missing.h5")


def test_bytes_that_do_not_fit_their_checksum_or_compression_are_a_fault(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 9, (200, 50)).astype("i4")
    for plan in ({"fletcher32": True}, {"compression": "gzip"}):
        path = tmp_path / f"{next(iter(plan))}.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset("a", data=values, chunks=(200, 50), **plan)
            place = data.id.get_chunk_info(0)
        raw = bytearray(path.read_bytes())
        middle = place.byte_offset + place.size // 2
        raw[middle : middle + 8] = bytes(byte ^ 255 for byte in raw[middle : middle + 8])
        path.write_bytes(raw)
        assert refused(path).expected == "data that can be read"


def test_few_files_stay_open_and_a_replaced_file_is_read_anew(tmp_path: Path):
    paths = [written(tmp_path / f"{number}.h5", a=np.full(3, number)) for number in range(5)]
    for _ in range(2):
        for number, path in enumerate(paths):
            assert open_file(path, "x.h5").read("a", 0, 1)[0] == number
    assert len(hdf5._STORES) == hdf5.OPEN
    written(tmp_path / "new.h5", a=np.full(4, 9)).replace(paths[4])
    assert open_file(paths[4], "x.h5").read("a", 3, 4)[0] == 9


def test_few_datasets_of_a_file_stay_open(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(9):
            file.create_dataset(f"{number}", data=np.full(4, number), chunks=(2,))
    store = open_file(tmp_path / "x.h5", "x.h5")
    assert [store.read(f"{number}", 0, 4)[0] for number in range(9)] == [*range(9)]
    assert len(store.kept) == hdf5.KEPT


def test_without_h5py_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path / "x.h5", a=np.zeros(3))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'foreframe\[hdf5\]'"):
        open_file(path, "x.h5")


def test_a_glance_finds_names_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert hdf5.read_ends(tmp_path / "missing") == b""
    (tmp_path / "a.h5").write_bytes(b"no")
    (tmp_path / "b.hdf5").write_bytes(hdf5.SIGNATURE + b"demo_7")
    assert hdf5.read_ends(tmp_path).endswith(b"demo_7")


def test_names_that_are_not_utf8_are_told_escaped(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("g")
        h5py.h5g.create(group.id, b"\xff\xfe")
    store = open_file(tmp_path / "x.h5", "x.h5")
    (name,) = store.names("g")
    with pytest.raises(DataError, match="found 'utf-8' codec can't encode") as error:
        store.read(f"g/{name}", 0, 1)
    assert fault(error).where == r"g/\udcff\udcfe"


# -- chunks


def deflated(path: Path, *pieces: bytes, size: int = 4096, mask: int = 0, **plan: Any) -> Path:
    """A dataset of one row, and one chunk of `size` bytes, for each of these pieces of a file."""
    with h5py.File(path, "w") as file:
        plan = {"compression": "gzip", **plan}
        data = file.create_dataset("a", (len(pieces), size), "u1", chunks=(1, size), **plan)
        for row, piece in enumerate(pieces):
            data.id.write_direct_chunk((row, 0), piece, filter_mask=mask)
    return path


@pytest.mark.parametrize("plan", [{"fletcher32": True}, {"shuffle": True}, {"shuffle": True, "fletcher32": True}])
@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compressed_chunks_of_any_plan_are_read(tmp_path: Path, plan: dict[str, Any], compression: str):
    values = np.random.default_rng(0).integers(0, 99, (30, 50, 2)).astype("i4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=values, chunks=(7, 20, 2), compression=compression, **plan)
    store = open_file(tmp_path / "x.h5", "x.h5")
    for start, stop in ((3, 9), (0, 30)):
        np.testing.assert_array_equal(store.read("a", start, stop), values[start:stop])


def test_a_chunk_that_does_not_inflate_is_a_fault(tmp_path: Path):
    path = deflated(tmp_path / "x.h5", b"\x78\x9c" + b"\xff" * 60)
    assert refused(path).expected == "data that can be read"


def test_chunks_of_sizes_that_they_cannot_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = refused(deflated(tmp_path / "x.h5", bytes(5000)))
    assert (found.expected, found.found) == ("chunks of 4096 bytes", "one packed into 5000")
    monkeypatch.setattr(hdf5, "BULK", 1)
    monkeypatch.setattr(hdf5, "MOST_PACKED", 64)
    found = refused(deflated(tmp_path / "y.h5", zlib.compress(bytes(4096), 9)))
    assert found.expected == "chunks of 4096 bytes"
    assert found.found.startswith("one packed into 2")


def test_data_compressed_twice_are_refused(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_deflate(9)
        plan.set_deflate(9)
        data = h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((4,)), plan)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype=np.int32))
    assert refused(tmp_path / "x.h5").expected == "data compressed once"


# -- texts of any length


def said(path: Path, name: str = "a") -> str:
    with pytest.raises(DataError) as error:
        open_file(path, "x.h5").texts(name)
    return str(fault(error))


def test_texts_in_chunks_are_read_and_other_plans_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = h5py.string_dtype()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("chunked", data=["ab", "c", ""], dtype=text, chunks=(2,))
        file.create_dataset("none", (0,), text)
        file.create_dataset("packed", data=["ab"], dtype=text, chunks=(1,), compression="gzip")
        file.create_dataset("square", data=[["ab"]], dtype=text)
        file.create_dataset("unwritten", (9,), text)
        file.create_dataset("many", data=[b"x"] * 9)
    store = open_file(tmp_path / "x.h5", "x.h5")
    assert store.texts("chunked") == ["ab", "c", ""]
    assert store.texts("none") == []
    assert store.texts("packed") == ["ab"]
    path = tmp_path / "x.h5"
    assert said(path, "square").endswith("expected one row of texts, found shape 1x1")
    assert said(path, "unwritten").endswith("expected 144 bytes for shape 9, found 0")
    monkeypatch.setattr(hdf5, "MAX_TEXTS", 8)
    assert said(path, "many").endswith("expected at most 8 texts, found 9")


# -- files that are none


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "folder.h5").mkdir()
    for name, words in {
        "pipe.h5": "a pipe, socket or device",
        "folder.h5": "a folder",
        "loop.h5": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
    }.items():
        assert refused(tmp_path / name).found == words
    assert hdf5.read_ends(tmp_path) == b""
    for number in range(9):
        (tmp_path / f"{number}.h5").write_bytes(b"words")
    (tmp_path / "words.txt").write_bytes(b"words")
    written(tmp_path / "x.h5", a=np.zeros(3))
    assert hdf5.read_ends(tmp_path) == b""  # a few are looked at, not all
    for number in range(3):
        (tmp_path / f"{number}.h5").unlink()
    assert hdf5.read_ends(tmp_path).startswith(hdf5.SIGNATURE)


@pytest.mark.parametrize("name", ["a b", "\U0001f916", "line\nbreak", "e\u0301", "x" * 251])
def test_files_and_datasets_may_have_any_name(tmp_path: Path, name: str):
    path = written(tmp_path / f"{name}.h5", **{f"g/{name}": np.arange(3)})
    store = open_file(path, "x.h5")
    assert store.names("g") == [name]
    assert store.read(f"g/{name}", 0, 3).tolist() == [0, 1, 2]
    found = refused(path, f"g/{name}/b")
    assert found.found == "nothing of this name"
    assert found.where.isprintable()
