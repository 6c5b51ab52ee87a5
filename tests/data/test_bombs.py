"""Small files that claim to be large: refused at once and in little memory, by each reader that would meet it."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foreframe import config
from foreframe.data.formats.folders import Findings
from foreframe.data.formats.hdf5 import open_file
from foreframe.data.formats.images import picture_size
from foreframe.data.formats.npz import open_npz
from foreframe.data.formats.parquet import Table
from foreframe.data.formats.tables import read_json, read_named_table, read_table
from foreframe.data.formats.tfrecord import crc32c, index_records
from foreframe.data.ingest.check import check_pack
from foreframe.data.layouts.lerobot import files as lerobot_files
from foreframe.data.pack.manifest import read_bytes, read_episodes
from foreframe.errors import Fault, ForeframeError
from foreframe.video import probe_video, read_at, read_frames, read_image

pytestmark = pytest.mark.alone
ROOM = 64 * 2**20
SECONDS = 120
"""For a busy machine; each takes far less."""

LIMITED = {".h5"}
"""Files whose library takes what it is told to, up to the limit of memory of the process: refused there."""
Reader = Callable[[Path], object]


def told(read: Reader, path: Path) -> str:
    """What is wrong with a file, in words; read in a process of its own, which must stay small and come back."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: this process has threads
        child = os.fork()
    if not child:
        try:
            signal.alarm(SECONDS)
            before = _peak(anew=True)
            if path.suffix in LIMITED:
                hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
                resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + ROOM, hard))
            try:
                found = read(path)
                words = "; ".join(map(str, found)) if isinstance(found, list) else f"nothing was wrong: {found!r:.99}"
            except ForeframeError as error:
                words = str(error)
            os.write(theirs, json.dumps([_peak() - before, words[:2000]]).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        content = file.read()
    _, status = os.waitpid(child, 0)
    assert content, f"it never came back, or broke: {status}"
    grown, words = json.loads(content)
    assert grown < ROOM, f"{grown / 2**20:.0f} MiB for {words}"
    return str(words)


def _peak(anew: bool = False) -> int:
    """The most bytes of memory since it was last asked for `anew`; what is free by then is given back first."""
    if anew:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmHWM")


def _status(name: str) -> int:
    """Bytes of memory of this process, of the kind of this name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# -- files


@cache
def zeros(count: int) -> bytes:
    """So many MiB of zeros, deflated."""
    squeezed = zlib.compressobj(9)
    return b"".join(squeezed.compress(bytes(2**20)) for _ in range(count)) + squeezed.flush()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, data: bytes, more: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + more + chunk(b"IEND", b"")


@cache
def jpeg(*sides: int) -> bytes:
    """A JPEG with one header of its size for each of `sides`."""
    stream = BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    content = stream.getvalue()
    start = content.index(b"\xff\xc0")
    head = content[start : start + 19]
    heads = (head[:5] + struct.pack(">HH", side, side) + head[9:] for side in sides)
    return content[:start] + b"".join(heads) + content[start + 19 :]


def npy(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def claiming_npz(path: Path) -> None:
    head = npy(f"({2**30},)")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", head + bytes(100))
    content = bytearray(path.read_bytes())
    for sign, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", content, content.find(sign) + place, 2**30 + len(head))
    path.write_bytes(content)


def directory_npz(path: Path, count: int, wide: bool) -> None:
    """An archive that is nothing but its directory; with a wide end, the narrow one says that it is small."""
    entry = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, *[0] * 7, 5, *[0] * 6) + b"a.npy"
    size, body = count * len(entry), b"PK\3\4" + bytes(100)
    end = b""
    if wide:
        end = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, len(body))
        end += b"PK\6\7" + struct.pack("<IQI", 0, len(body) + size, 1)
    end += b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 100 if wide else size, len(body), 0)
    path.write_bytes(body + entry * count + end)


def chunked_hdf5(path: Path, size: int, packed: bytes) -> None:
    """A dataset of one chunk of `size` bytes."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", (1, size), "u1", chunks=(1, size), compression="gzip")
        data.id.write_direct_chunk((0, 0), packed)


def texts_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (10**9,), h5py.string_dtype())


def long_text_hdf5(path: Path) -> None:
    """A text, and an attribute, whose lengths say 4 GB."""
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=["some words"], dtype=h5py.string_dtype())
        file["a"].attrs["key"] = "other words"
    content = path.read_bytes()
    heap = content.index(b"GCOL").to_bytes(8, "little")
    assert content.count(struct.pack("<I", 10) + heap) == content.count(struct.pack("<I", 11) + heap) == 1
    for length in (10, 11):
        content = content.replace(struct.pack("<I", length) + heap, struct.pack("<I", 2**32 - 2**12) + heap)
    path.write_bytes(content)


def filtered_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.zeros(64, "i4"), chunks=(64,), scaleoffset=0)


def page_parquet(path: Path) -> None:
    """A page that says it becomes 128 MiB; the footer knows nothing of it."""
    table = pa.table({"a": pa.array([bytes(2**21)])})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    content = path.read_bytes()
    assert (
        content[4:7] == b"\x15\x06\x15" or content[4:7] == b"\x15\x00\x15"
    )  # field 1: a page of data, field 2: its size
    assert content[10] < 128 <= min(content[7:10])  # in four bytes
    path.write_bytes(content[:7] + b"\xfe\xff\xff\x7f" + content[11:])


def list_parquet(path: Path) -> None:
    """16 million numbers in one row: they take less than 1 KB."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**24, np.uint8)), 2**24)
    pq.write_table(pa.table({"a": values}), path, compression="zstd")


def groups_parquet(path: Path) -> None:
    """A footer of a million row groups of nothing."""
    footer = b"\x49" + b"\xfc" + b"\xc0\x84\x3d" + bytes(10**6) + b"\x00"
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")


def record(size: int) -> bytes:
    length = struct.pack("<Q", size)
    crc = crc32c(length)
    return length + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF) + bytes(50)


@cache
def film(fragments: bool = False, codec: str = "mpeg4", pixels: str = "yuv420p") -> bytes:
    stream = BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if fragments else {}
    with av.open(stream, "w", format="mp4", options=options) as container:
        track = container.add_stream(codec, rate=10)
        track.width = track.height = 32
        track.pix_fmt = pixels
        for _ in range(4):
            container.mux(track.encode(av.VideoFrame(32, 32, pixels)))
        container.mux(track.encode(None))
    return stream.getvalue()


def claiming_mp4(path: Path) -> None:
    """Twenty million frames of one byte, in twelve bytes."""
    content = bytearray(film())
    content[(at := content.index(b"stsz") + 4) : at + 12] = struct.pack(">III", 0, 1, 20_000_000)
    path.write_bytes(content)


def box(kind: bytes, body: bytes, wide: bool = False) -> bytes:
    if wide:
        return struct.pack(">I", 1) + kind + struct.pack(">Q", 16 + len(body)) + body
    return struct.pack(">I", 8 + len(body)) + kind + body


def fragment_mp4(path: Path, wide: bool) -> None:
    """The same in a fragment."""
    head = box(b"tfhd", struct.pack(">IIII", 0x020018, 1, 1, 1))
    body = head + box(b"trun", struct.pack(">II", 0, 20_000_000), wide)
    part = box(b"moof", box(b"mfhd", struct.pack(">II", 0, 1)) + box(b"traf", body))
    start = film(True)[: film(True).index(b"moof") - 4]
    path.write_bytes(start + part + box(b"mdat", bytes(100)))


def growing_avi(path: Path) -> None:
    """Its second frame is a grey of 9216 pixels a side."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("mjpeg", rate=10)
        track.width, track.height, track.pix_fmt = 32, 32, "yuvj420p"
        for number, side in enumerate((32, 9216, 32)):
            stream = BytesIO()
            Image.new("L", (side, side)).save(stream, "JPEG")
            packet = av.Packet(stream.getvalue())
            packet.stream, packet.pts, packet.dts = track, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 10), True
            container.mux(packet)


def gif(side: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x4c\x01\x00;"


# -- who meets them


def array(path: Path) -> object:
    return open_npz(path, path.name).read("a")


def dataset(path: Path) -> object:
    return open_file(path, path.name).read("a", 0, 1)


def texts(path: Path) -> object:
    return open_file(path, path.name).texts("a")


def attribute(path: Path) -> object:
    return open_file(path, path.name).attribute("a", "key")


def rows(path: Path) -> object:
    with Table(path, ("a",)) as table:
        return table.read(0, table.rows)


def fixed(path: Path) -> list[Fault]:
    return read_table(path, path.name, 2, 3)[1]


def named(path: Path) -> list[Fault]:
    return read_named_table(path, path.name)[2]


def content(path: Path) -> object:
    return read_json(path, path.name)


def settings(path: Path) -> object:
    return config.read_json(path, 2**26)


def lines_of(path: Path) -> list[Fault]:
    finds = Findings(path.parent)
    assert lerobot_files.read_json(path, finds, finite=False) is None
    return finds.faults


def manifest(path: Path) -> object:
    """As `foreframe data check` meets it."""
    (path.parent / "manifest.json").write_bytes(path.read_bytes())
    (path.parent / "frames.npy").touch()
    return check_pack(path.parent)


def episodes(path: Path) -> object:
    return read_episodes(path, {})


def lists(path: Path) -> object:
    read_bytes(path)
    return read_json(path, path.name)


def records(path: Path) -> list[Fault]:
    return index_records(path, path.name)[1]


def frames(path: Path) -> object:
    return read_frames(path, 0, 3)


def size(path: Path) -> list[str]:
    found = picture_size(path)
    return [f"{path.name}: {found}"] if isinstance(found, str) else []


Bomb = tuple[str, bytes | Callable[[Path], None], tuple[Reader, ...], str]
EVERY_JSON = (content, named, settings, lines_of, manifest, episodes, lists)
BOMBS: dict[str, Bomb] = {
    "JSON of two million objects": ("a.json", b"[" + b'{"":{}},' * 2**21 + b"0]", EVERY_JSON, ""),
    "JSON of many lists": ("a.json", b"[" + b"[[]]," * 2**21 + b"0]", EVERY_JSON, ""),
    "JSON of many keys": (
        "a.json", b"{" + b",".join(b'"%x":1' % key for key in range(10**6)) + b"}", EVERY_JSON, ""
    ),
    "JSON of numbers": ("a.json", b"[" + b"1000," * 2**22 + b"x", EVERY_JSON, ""),
    "JSON of short texts": ("a.json", b"[" + b'"ab",' * 2**22 + b"x", EVERY_JSON, ""),
    "JSON of one long wide text": ("a.json", b'["' + b"x" * 2**24 + '\U0001f600"'.encode() + b",x", EVERY_JSON, ""),
    "JSON of one long escaped text": ("a.json", b'["' + b"x" * 2**24 + b'\\ud83d\\ude00",x', EVERY_JSON, ""),
    "JSON that is rubbish": ("a.json", b"rubbish " * 2**22, EVERY_JSON, ""),
    "JSON that is a little rubbish": ("a.json", b"rubbish " * 2**21, EVERY_JSON, ""),
    "JSON that just fits": ("a.json", b"[" + b'{"":{}},' * 90_000 + b"x", EVERY_JSON, ""),
    "a PNG of 100,000 pixels a side": ("a.png", png(10**5, b""), (read_image,), "100000x100000"),
    "a PNG of a pixel too much": ("a.png", png(8193, zeros(1)), (read_image,), "8193x8193"),
    "a PNG of too little": ("a.png", png(8192, zeros(1)), (read_image,), "that decodes"),
    "a PNG of many chunks": ("a.png", png(16, b"", 2**18 * chunk(b"IDAT", b"")), (read_image,), "131072 chunks"),
    "a JPEG of 65,000 pixels a side": ("a.jpg", jpeg(65_000), (read_image,), "could be decompression bomb"),
    "a JPEG of two sizes": ("a.jpg", jpeg(16, 65_000), (read_image,), "could be decompression bomb"),
    "a JPEG that never begins": ("a.jpg", b"\xff\xd8\xff" + b"\xff" * 2**24, (size,), "a cut-off JPEG"),
    "an npz that unpacks to 1 GiB": ("a.npz", claiming_npz, (array,), "a size that its packed bytes can have"),
    "an npz of a large directory": (
        "a.npz", lambda path: directory_npz(path, 100_000, False), (array,), "zip directory of at most"
    ),
    "an npz of a large directory that is said to be small": (
        "a.npz", lambda path: directory_npz(path, 400_000, True), (array,), "zip directory of at most"
    ),
    "an npz of many names": ("a.npz", lambda path: directory_npz(path, 80_000, False), (array,), "1 to 10000 arrays"),
    "an HDF5 chunk of 64 bytes that becomes 160 MiB": (
        "a.h5", lambda path: chunked_hdf5(path, 64, zeros(160)), (dataset,), "packed into"
    ),
    "an HDF5 chunk of 1 MiB that becomes 160 MiB": (
        "a.h5", lambda path: chunked_hdf5(path, 2**20, zeros(160)), (dataset,), "data that can be read"
    ),
    "an HDF5 chunk of 128 MiB": (
        "a.h5", lambda path: chunked_hdf5(path, 2**27, zeros(128)), (dataset,), "packed into"
    ),
    "an HDF5 filter that says what it becomes": ("a.h5", filtered_hdf5, (dataset,), "no filters but"),
    "HDF5 texts that were never written": ("a.h5", texts_hdf5, (texts,), "texts, found 1000000000"),
    "an HDF5 text of 4 GiB": ("a.h5", long_text_hdf5, (texts, attribute), "a.h5, a: expected"),
    "a parquet page of 128 MiB": ("a.parquet", page_parquet, (rows,), "a parquet file that can be decoded"),
    "a parquet row of 16 million numbers": ("a.parquet", list_parquet, (rows,), "at most 8388608 values in 1 rows"),
    "a parquet footer of many groups": (
        "a.parquet", groups_parquet, (rows, named), "a parquet file that can be decoded"
    ),
    "a TFRecord of 2^62 bytes": ("a.tfrecords", record(2**62), (records,), "4611686018427387904"),
    "a TFRecord of 1 GiB": ("a.tfrecords", record(2**30), (records,), "cut short"),
    "a CSV of blank rows": ("a.csv", b"1,1" + b"\n" * 2**22 + b"1,1", (fixed, named), "a blank row"),
    "a CSV of commas": ("a.csv", b"," * 2**24, (fixed, named), "16777217"),
    "JSON with the last of many keys twice": (
        "a.json",
        ("{" + "".join(f'"{key}":1,' for key in range(10**5)) + '"99999":1}').encode(),
        (content, named),
        "the key '99999' is given twice",
    ),
    "JSON with NaN after a long text": ("a.json", b'["' + b"a" * 2**22 + b'", NaN]', (content, named), "NaN"),
    "JSON with a wide row": ("a.json", b'[{"a":[' + b"1," * 2**19 + b"1]}]", (named,), "4096 columns"),
    "an MP4 of 20 million frames": ("a.mp4", claiming_mp4, (probe_video, frames), "at most as many frames"),
    "a fragment of 20 million frames": (
        "a.mp4", lambda path: fragment_mp4(path, False), (probe_video, frames), "at most as many frames"
    ),
    "a wide box of 20 million frames": (
        "a.mp4", lambda path: fragment_mp4(path, True), (probe_video, frames), "at most as many frames"
    ),
    "a GIF of 15,000 pixels a side": ("a.gif", gif(15_000), (probe_video, frames), ""),
    "a GIF of 65,535 pixels a side": ("a.gif", gif(65_535), (probe_video, frames), ""),
    "a video that grows midway": ("a.avi", growing_avi, (frames,), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_claims_to_be_large_is_refused_in_little_memory(
    tmp_path: Path, name: str, figure: Callable[..., None]
):
    file, made, readers, words = BOMBS[name]
    path = tmp_path / file
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        made(path)
    found = [told(read, path) for read in readers]
    names = (path.name, "manifest.json")
    named = [words in line and any(name in line for name in names) for line in found]
    figure("bombs refused in 64 MiB", sum(named), len(readers))


def test_a_bomb_that_goes_off_is_noticed(tmp_path: Path):
    """The test of the test."""
    with pytest.raises(AssertionError, match="MiB for nothing was wrong"):
        told(lambda _: len(b"x" * (ROOM + 2**20)), tmp_path)


def test_times_that_no_frame_has_take_no_memory(tmp_path: Path):
    """A header of 8192 pixels a side, and nothing behind it."""
    whole = film(True, "mjpeg", "yuvj420p")
    start = bytearray(whole[: whole.index(b"moof") - 4])
    place = start.index(struct.pack(">HH", 32, 32), start.index(b"stsd"))
    start[place : place + 4] = struct.pack(">HH", 8192, 8192)
    (tmp_path / "a.mp4").write_bytes(start)
    words = told(lambda path: [read_at(path, [0.0, 0.1, 0.2], 0.01)[0].shape], tmp_path / "a.mp4")
    assert words == "(3, 8192, 8192, 3)"
