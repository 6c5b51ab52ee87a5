"""The data zoo: one bad folder for each way in which somebody's clips have been found to be bad.

Each begins as the example of a layout, to which one thing is done. A scan has to find just that, with its path and
place; `foreframe data check` has to say so and fail; an import has to pack nothing, or the rest if it is asked to skip.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from foreframe.cli import main
from foreframe.data.formats.images import example_picture
from foreframe.data.formats.tables import read_named_table, read_table
from foreframe.data.formats.tfrecord import _masked, crc32c, index_records, parse_example, read_record, write_records
from foreframe.data.ingest import check
from foreframe.data.ingest import run as importing
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.pool import Readers
from foreframe.data.ingest.run import import_clips
from foreframe.data.ingest.transform import open_source
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import layouts
from foreframe.data.pack.pack import Pack
from foreframe.errors import DataError, Fault, UsageError
from foreframe.video import write_mp4, write_png
from tests.films import read_video

SECONDS = 30
"""No scan may take longer, whatever is in a folder."""


@dataclass(frozen=True, eq=False)
class Case:
    """One folder.

    start: the layout, by its example; `lerobot:films` is the same with a video. kind: F25 to F36.
    told: every fault, word for word; an ellipsis stands for what depends on how the file was made.
    warned: every warning but those on alignment. loses: clips of the example that are not in the pack when faults
    are skipped. gains: what is there instead: the parts of a clip that was cut, or clips under other names.
    anew: clips whose pictures are others than before, without being worse for it.
    late: the damage happens after the folder was looked through. denied: a folder that may not be read.
    backwards: the disk gives names in another order. length: what `--length` asks for.
    """

    name: str
    start: str
    kind: str
    damage: Callable[[Path], object]
    told: Sequence[str] = ()
    warned: Sequence[str] = ()
    loses: Sequence[str] = ()
    gains: Sequence[str] = ()
    anew: Sequence[str] = ()
    late: bool = False
    denied: str = ""
    backwards: bool = False
    length: int = 0


ALL = ("*",)
"""In `loses`: there is nothing left, and the import refuses."""
ONE, TWO = "processed_data/train/traj_0/1", "processed_data/train/traj_0/2"
VAL, TEST = "processed_data/validate/traj_1/10", "processed_data/test/traj_2/9"
IMG, LABEL = "train/train_img", "train/train_label"
RECORDS = "softmotion30_44k/train/traj_0_to_1.tfrecords"
A, B = "train/push/a", "train/push/b"
FRAME_4, TABLE = f"{A}/frame_0004.png", f"{A}/commands.csv"
MOVES = [{"move": i, "turn": 0.5} for i in range(12)]
THREE = ("train/push/0", "train/2", "test/4")
VIDEO, BESIDE = "train/push/0.mp4", "train/push/0.csv"
OPENPOSE, B_CSV = "train/keypoints/a/0004_keypoints.json", "train/keypoints/b.csv"
AVI, LIST = "boxing/person01_boxing_d1_uncomp.avi", "00sequences.txt"
DATA, EPISODES, INFO = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/info.json"
LATE_DATA = "data/chunk-000/file-001.parquet"
EARLY, LATER = (tuple(f"episode_{n:06d}" for n in half) for half in (range(6), range(6, 12)))
TOP = "observation.images.top"
FILM = f"videos/{TOP}/chunk-000/file-000.mp4"
DIGITS, TEST_DIGITS = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"
NPZ, STEPS = "train/a.npz", "train/0.npz"
LIFT, DEMO, ACTIONS, PIXELS = "lift.hdf5", "data/demo_8", "data/demo_8/actions", "data/demo_8/obs/agentview_image"
CAM, FRAME_3, FRAMES = "env/cam0_video", "env/cam0_video/frame3", "env/cam0_video/frames"
MP4, JPEGS = "berkeley_sawyer_traj13.hdf5", "berkeley_sawyer_traj18.hdf5"


def half(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path, place: float) -> None:
    """One bit, at a byte or at a share of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def words(path: Path) -> None:
    path.write_text("not a clip\n" * 9)


def line(path: Path, number: int, text: str) -> None:
    """Another line `number`, from 1 on; one too many is added."""
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[number - 1] = text
    path.write_text("\n".join(lines), encoding="utf-8")


def longer(path: Path) -> None:
    """The last line of a table twice."""
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")


def shorter(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(True)[:-1]))


def windows(path: Path) -> None:
    """Line ends as Windows has them."""
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def picture(path: Path, height: int = 16, width: int = 16) -> None:
    write_png(path, example_picture(30, height, width))


def deep(path: Path, height: int = 16, width: int = 16) -> None:
    """A picture of 16 bits a pixel."""
    Image.fromarray(np.full((height, width), 999, np.uint16)).save(path)


def jpeg(mode: str, height: int = 32, width: int = 0) -> NDArray[np.uint8]:
    """The bytes of a black JPEG."""
    stream = io.BytesIO()
    Image.new(mode, (width or height, height)).save(stream, format="JPEG")
    return np.frombuffer(stream.getvalue(), np.uint8)


def rename(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def instead(path: Path, other: Path) -> None:
    """A copy of another folder in the place of this one."""
    shutil.rmtree(path)
    shutil.copytree(other, path)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFSOCK | 0o600)


def as_link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def outside(path: Path, root: Path) -> None:
    """A file or folder that has become a link to where it was moved, beside the source."""
    path.rename(root.parent / "elsewhere")
    path.symlink_to(root.parent / "elsewhere")


def black(folder: Path, level: int = 0) -> None:
    """Every picture of a folder in one colour."""
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            write_png(path, np.full((image.height, image.width, 3), level, np.uint8))


ODD = ("two words", "a robot 🤖", "line\nbreak", "e\u0301te\u0301", "x" * 255, os.fsdecode(b"\xffbyte"))
"""Names that a file may have, even so."""


def odd_names(root: Path, *paths: str, keep: str = "") -> None:
    """Another name for each of these files or folders; `keep` is what has to stay at the end of each."""
    for path, name in zip(paths, ODD, strict=False):
        rename(root / path, name[: 255 - len(keep)] + keep)


def numbers(path: Path, row: int, value: Any) -> None:
    """Another value in a CSV, first number of row `row`."""
    old = path.read_text().split("\n")[row - 1].split(",")
    line(path, row, ",".join([str(value), *old[1:]]))


def arrays(path: Path, **changes: Any) -> None:
    """Other arrays in an .npz; None takes one away, a function changes what is there."""
    with np.load(path) as file:
        found = dict(file)
    for name, value in changes.items():
        key = name.replace("__", "/")
        value = value(found[key].copy()) if callable(value) else value
        found = {**found, key: value} if value is not None else {k: v for k, v in found.items() if k != key}
    np.savez_compressed(path, **found)


def put(index: Any, value: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A change of an array: another value in one place."""

    def change(values: NDArray[Any]) -> NDArray[Any]:
        values[index] = value
        return values

    return change


def hdf5(path: Path, change: Callable[[Any], object]) -> None:
    """Something else in an HDF5 file; a new file, for the old one may be open."""
    new = path.with_name("new")
    shutil.copy(path, new)
    with h5py.File(new, "r+") as file:
        change(file)
    new.replace(path)


def dataset(path: Path, name: str, change: Callable[[NDArray[Any]], Any]) -> None:
    """Another dataset in an HDF5 file, with the attributes of the old one."""

    def replace(file: Any) -> None:
        values, attributes = file[name][()], dict(file[name].attrs)
        del file[name]
        file[name] = change(values)
        file[name].attrs.update(attributes)

    hdf5(path, replace)


def rows(path: Path, change: Callable[[list[dict[str, Any]]], object], schema: Any = None) -> None:
    """Other rows in a parquet file."""
    table = pq.read_table(path)
    found = table.to_pylist()
    change(found)
    pq.write_table(pa.Table.from_pylist(found, schema or table.schema), path, row_group_size=32)


def column(path: Path, name: str, values: Any) -> None:
    """Another column in a parquet file, or none."""
    table = pq.read_table(path)
    place = table.column_names.index(name)
    pq.write_table(table.remove_column(place) if values is None else table.set_column(place, name, values), path)


def keys(path: Path, **changes: Any) -> None:
    """Other values in a JSON object; None takes one away."""
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def records(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Other Examples in a TFRecord file."""
    examples: list[dict[str, Any]] = []
    for record in index_records(path, "")[0]:
        features = parse_example(read_record(path, "", record), "", record)
        examples.append({key: bytes(v[0]) if isinstance(v, list) else v.tolist() for key, v in features.items()})
    change(examples)
    write_records(path, examples)


def film(path: Path, frames: Sequence[NDArray[np.uint8]], codec: str = "libx264rgb") -> None:
    """A video of any size, 10 frames a second; without loss unless the codec is another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p"
        stream.options = {"qp": "0"} if codec == "libx264rgb" else {}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def refilm(path: Path, change: Callable[[NDArray[np.uint8]], Any]) -> None:
    """A video anew, with other frames."""
    film(path, change(read_video(path)), "mpeg4" if path.suffix == ".avi" else "libx264rgb")


def packet(path: Path, number: int) -> None:
    """A packet of a video overwritten, but for its first bytes."""
    with av.open(str(path)) as container:
        found = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    start, size = found[number]
    content = bytearray(path.read_bytes())
    content[start + 6 : start + size] = b"\xa5" * (size - 6)
    path.write_bytes(content)


def films(root: Path) -> None:
    """The example of lerobot with one video of all episodes in the place of pictures."""
    layouts()["lerobot"].example(root)
    frames: list[NDArray[np.uint8]] = []
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        for cell in table.column(TOP).to_pylist():
            frames.append(np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")))
        pq.write_table(table.drop_columns([TOP]), path)
    film(root / FILM, frames)
    episodes = pq.read_table(root / EPISODES).to_pylist()
    for row in episodes:
        row |= {f"videos/{TOP}/chunk_index": 0, f"videos/{TOP}/file_index": 0}
        row[f"videos/{TOP}/from_timestamp"] = row["dataset_from_index"] / 10
        row[f"videos/{TOP}/to_timestamp"] = row["dataset_to_index"] / 10
    pq.write_table(pa.Table.from_pylist(episodes), root / EPISODES)
    features = json.loads((root / INFO).read_text())["features"]
    features[TOP]["dtype"] = "video"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    keys(root / INFO, features=features, video_path=video)


def digits(path: Path, head: tuple[int, ...] = (), pixels: int | None = None) -> None:
    """Another header, or digits in one colour, in a plain file of digits."""
    content = path.read_bytes()
    size = len(content) - 16
    path.write_bytes(
        (struct.pack(">IIII", *head) if head else content[:16])
        + (content[16:] if pixels is None else bytes([pixels]) * size)
    )


def short_bair(root: Path) -> None:
    """A clip of eleven frames with tables to fit."""
    (root / TWO / "11.png").unlink()
    for name in ("actions.csv", "endeffector_positions.csv"):
        shorter(root / TWO / name)


def huge_record(path: Path) -> None:
    """The length of the first record is 2^62, and its CRC right."""
    head = struct.pack("<Q", 2**62)
    path.write_bytes(head + struct.pack("<I", _masked(crc32c(head))) + path.read_bytes()[12:])


def same_record(root: Path) -> None:
    """A trajectory for training is also one for testing."""
    train: list[dict[str, Any]] = []
    records(root / RECORDS, train.extend)
    records(root / "softmotion30_44k/test/traj_0_to_0.tfrecords", lambda found: found.__setitem__(0, train[1]))


def black_record(example: dict[str, Any]) -> None:
    example.update({f"{i}/image_aux1/encoded": bytes(768) for i in range(8)})


def val_of_a(root: Path, side: str) -> None:
    """A clip for training, with what stands beside it, is the only one for validation."""
    shutil.rmtree(root / "val")
    for name in ("frames", side):
        shutil.copytree(root / f"train/{name}/a", root / f"val/{name}/z")


def odd_keypoints(root: Path) -> None:
    odd_names(root, "train/frames/a", "train/frames/b")
    odd_names(root, "train/keypoints/a")
    rename(root / B_CSV, f"{ODD[1]}.csv")


def shorter_list(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))


def as_json(path: Path, text: str) -> None:
    """A table of JSON in the place of one of CSV."""
    path.unlink()
    path.with_suffix(".json").write_text(text)


def as_parquet(path: Path, values: dict[str, Any]) -> None:
    path.unlink()
    pq.write_table(pa.table(values), path.with_suffix(".parquet"))


def swap(path: Path, old: str, new: str) -> None:
    """Other words in a file, where they stand first."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def png(side: int, level: int | None = None) -> bytes:
    pixels = example_picture(3, side, side) if level is None else np.full((side, side, 3), level, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def damage_cell(row: dict[str, Any]) -> None:
    content = bytearray(row[TOP]["bytes"])
    content[60] ^= 4
    row[TOP] = {"bytes": bytes(content), "path": None}


def twice(root: Path) -> None:
    """The pictures of episode 0 in episode 10 as well, which is in another split."""
    keys(root / INFO, splits={"train": "0:6", "val": "6:12"})
    pictures = pq.read_table(root / DATA).column(TOP).to_pylist()[:8]
    later = root / "data/chunk-000/file-001.parquet"

    def change(table: list[dict[str, Any]]) -> None:
        for row, cell in zip((row for row in table if row["episode_index"] == 10), pictures, strict=True):
            row[TOP] = cell

    rows(later, change)


def black_digits(root: Path) -> None:
    content = gzip.decompress((root / TEST_DIGITS).read_bytes())
    (root / TEST_DIGITS).write_bytes(gzip.compress(content[:16] + bytes(len(content) - 16), mtime=0))


def strange_member(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")


def claim(path: Path, shape: tuple[int, ...]) -> None:
    """A small array whose header says that it is huge."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", stream.getvalue() + bytes(10**6))


def flipped_stored(path: Path) -> None:
    """A flipped bit in the pictures of an archive that is not compressed."""
    with np.load(path) as file:
        found = dict(file)
    np.savez(path, **found)
    flip(path, 0.5)


def flipped_page(path: Path) -> None:
    """A flipped bit in the fourth picture of a table of which each page has its checksum."""
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    flip(path, [match.start() for match in re.finditer(b"IDAT", path.read_bytes())][3] + 9)


def fewer_actions(file: Any) -> None:
    actions = file[ACTIONS][:-2]
    del file[ACTIONS], file[DEMO].attrs["num_samples"]
    file[ACTIONS] = actions


def claim_pictures(file: Any) -> None:
    del file[PIXELS]
    shape = (10**9, 64, 64, 3)
    file.create_dataset(PIXELS, shape, np.uint8, chunks=(1, 64, 64, 3), compression="gzip")


def link_pictures(file: Any, link: Any) -> None:
    del file[PIXELS]
    file[PIXELS] = link


def same_demo(file: Any) -> None:
    """A demonstration for training is also one for validation."""
    del file["data/demo_10"]
    file.copy("data/demo_9", "data/demo_10")


def lengthen(file: Any) -> None:
    """Rows for nine frames, beside a film of eight."""
    for name, count in (("env/state", 9), ("policy/actions", 8)):
        values = file[name][()]
        del file[name]
        file[name] = np.resize(values, (count, values.shape[1]))


# fmt: off
CASES = (
    # bair_lab
    Case("a picture cut short", "bair_lab", "F25", lambda r: half(r / ONE / "4.png"),
         [f"{ONE}/4.png, frame 4, byte …: expected a chunk IDAT of … bytes, found …: the file is cut short"],
         loses=[ONE]),
    Case("a flipped bit in a picture", "bair_lab", "F25", lambda r: flip(r / ONE / "4.png", 0.5),
         [f"{ONE}/4.png, frame 4, byte …: expected a chunk IDAT that fits its CRC, found a wrong CRC: the file "
          "is damaged"], loses=[ONE]),
    Case("an empty picture", "bair_lab", "F25", lambda r: empty(r / ONE / "11.png"),
         [f"{ONE}/11.png, frame 11: expected a PNG or JPEG, found an empty file"], loses=[ONE]),
    Case("words in the place of a picture", "bair_lab", "F25", lambda r: words(r / ONE / "0.png"),
         [f"{ONE}/0.png, frame 0: expected a PNG or JPEG, found another kind of file"], loses=[ONE]),
    Case("a picture of 16 bits", "bair_lab", "F26", lambda r: deep(r / ONE / "4.png"),
         [f"{ONE}/4.png, frame 4, IHDR: expected 8 bits a channel (grey, RGB, palette or RGBA), found 16 bits, "
          "color type 0"], loses=[ONE]),
    Case("a picture of another size", "bair_lab", "F26", lambda r: picture(r / ONE / "4.png", 16, 17),
         [f"{ONE}/4.png, frame 4: expected 16x16 pixels as elsewhere, found 17x16"], loses=[ONE]),
    Case("a picture of one bit", "bair_lab", "F26", lambda r: Image.new("1", (16, 16)).save(r / ONE / "4.png"),
         [f"{ONE}/4.png, frame 4, IHDR: expected 8 bits a channel (grey, RGB, palette or RGBA), found 1 bits, "
          "color type 0"], loses=[ONE]),
    Case("a picture in CMYK", "bair_lab", "F26", lambda r: (r / ONE / "4.png").write_bytes(jpeg("CMYK", 16)),
         [f"{ONE}/4.png, frame 4, header: expected a picture in grey, RGB or a palette, found one in CMYK"],
         loses=[ONE]),
    Case("a gap in the numbers", "bair_lab", "F27", lambda r: (r / ONE / "4.png").unlink(),
         [f"{ONE}: expected pictures 0.png to 11.png without a gap, found no picture 4",
          f"{ONE}/actions.csv: expected 11 rows, one for each frame, found 12",
          f"{ONE}/endeffector_positions.csv: expected 11 rows, one for each frame, found 12"], loses=[ONE]),
    Case("numbers from 1 on", "bair_lab", "F27", lambda r: (r / ONE / "0.png").rename(r / ONE / "12.png"),
         [f"{ONE}: expected pictures 0.png to 12.png without a gap, found no picture 0"], loses=[ONE]),
    Case("two pictures of a number", "bair_lab", "F27", lambda r: shutil.copy(r / ONE / "4.png", r / ONE / "4.PNG"),
         [f"{ONE}: expected one picture for each number, found 4.PNG and 4.png"], loses=[ONE]),
    Case("nan in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 7, "nan"),
         [f"{ONE}/actions.csv, row 7, column 1: expected a finite decimal number, found 'nan'"], loses=[ONE]),
    Case("inf in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 1, "-inf"),
         [f"{ONE}/actions.csv, row 1, column 1: expected a finite decimal number, found '-inf'"], loses=[ONE]),
    Case("1e400 in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 12, "1e400"),
         [f"{ONE}/actions.csv, row 12, column 1: expected a finite decimal number, found '1e400'"], loses=[ONE]),
    Case("1_0 in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 7, "1_0"),
         [f"{ONE}/actions.csv, row 7, column 1: expected a finite decimal number, found '1_0'"], loses=[ONE]),
    Case("Arabic digits in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 7, "\u0661\u0662"),
         [f"{ONE}/actions.csv, row 7, column 1: expected a finite decimal number, found '\\u0661\\u0662'"],
         loses=[ONE]),
    Case("a NUL in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 7, "1\0"),
         [f"{ONE}/actions.csv, row 7, column 1: expected a finite decimal number, found '1\\x00'"], loses=[ONE]),
    Case("quotes in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 7, '"1"'),
         [f"{ONE}/actions.csv, row 7, column 1: expected a finite decimal number, found '\"1\"'"], loses=[ONE]),
    Case("a byte-order mark in a table", "bair_lab", "F28", lambda r: numbers(r / ONE / "actions.csv", 1, "\ufeff1"),
         [f"{ONE}/actions.csv, row 1: expected plain text, found a byte-order mark; save the file as UTF-8 "
          "without BOM"], loses=[ONE]),
    Case("a row too few", "bair_lab", "F28", lambda r: shorter(r / ONE / "actions.csv"),
         [f"{ONE}/actions.csv: expected 12 rows, one for each frame, found 11"], loses=[ONE]),
    Case("a row too many", "bair_lab", "F28", lambda r: longer(r / ONE / "endeffector_positions.csv"),
         [f"{ONE}/endeffector_positions.csv: expected 12 rows, one for each frame, found 13"], loses=[ONE]),
    Case("a blank row", "bair_lab", "F28", lambda r: line(r / ONE / "actions.csv", 7, ""),
         [f"{ONE}/actions.csv, row 7: expected 4 numbers, found a blank row"], loses=[ONE]),
    Case("a header in a table", "bair_lab", "F28", lambda r: line(r / ONE / "actions.csv", 1, "a,b,c,d\n0,0,0,0"),
         [f"{ONE}/actions.csv: expected 12 rows, one for each frame, found 13",
          f"{ONE}/actions.csv, row 1, column 1: expected a finite decimal number, found 'a'",
          f"{ONE}/actions.csv, row 1, column 2: expected a finite decimal number, found 'b'",
          f"{ONE}/actions.csv, row 1, column 3: expected a finite decimal number, found 'c'",
          f"{ONE}/actions.csv, row 1, column 4: expected a finite decimal number, found 'd'"], loses=[ONE]),
    Case("line ends of Windows", "bair_lab", "F28", lambda r: windows(r / ONE / "actions.csv")),
    Case("an empty table", "bair_lab", "F28", lambda r: empty(r / ONE / "actions.csv"),
         [f"{ONE}/actions.csv: expected a table of 1 to 67108864 bytes, found 0 bytes"], loses=[ONE]),
    Case("no table", "bair_lab", "F29", lambda r: (r / ONE / "actions.csv").unlink(),
         [f"{ONE}/actions.csv: expected a table of 12 rows of 4 numbers, found no such file"], loses=[ONE]),
    Case("the last picture is missing", "bair_lab", "F29", lambda r: (r / ONE / "11.png").unlink(),
         [f"{ONE}/actions.csv: expected 11 rows, one for each frame, found 12",
          f"{ONE}/endeffector_positions.csv: expected 11 rows, one for each frame, found 12"], loses=[ONE]),
    Case("a clip shorter than asked", "bair_lab", "F30", lambda r: short_bair(r),
         [f"{TWO}: expected 12 frames or more, found 11"], length=12),
    Case("a link in a circle", "bair_lab", "F31", lambda r: as_link(r / ONE / "12.png", "12.png"),
         [f"{ONE}/12.png: expected a file, or a link that stays inside the source, found a link that leads "
          "nowhere (a loop)"]),
    Case("a link to a device", "bair_lab", "F31", lambda r: as_link(r / ONE / "actions.csv", "/dev/zero"),
         [f"{ONE}/actions.csv: expected a file, or a link that stays inside the source, found a link to /dev/zero",
          f"{ONE}/actions.csv: expected a table of 12 rows of 4 numbers, found no such file"], loses=[ONE]),
    Case("a pipe", "bair_lab", "F31", lambda r: as_pipe(r / ONE / "11.png"),
         [f"{ONE}/11.png: expected a plain file or a folder, found a pipe, socket or device",
          f"{ONE}/actions.csv: expected 11 rows, one for each frame, found 12",
          f"{ONE}/endeffector_positions.csv: expected 11 rows, one for each frame, found 12"], loses=[ONE]),
    Case("a socket", "bair_lab", "F31", lambda r: as_socket(r / ONE / "actions.csv"),
         [f"{ONE}/actions.csv: expected a plain file or a folder, found a pipe, socket or device",
          f"{ONE}/actions.csv: expected a table of 12 rows of 4 numbers, found no such file"], loses=[ONE]),
    Case("a folder in the place of a picture", "bair_lab", "F31", lambda r: as_folder(r / ONE / "11.png"),
         [f"{ONE}/11.png: expected pictures and tables only, found a folder",
          f"{ONE}/actions.csv: expected 11 rows, one for each frame, found 12",
          f"{ONE}/endeffector_positions.csv: expected 11 rows, one for each frame, found 12"], loses=[ONE]),
    Case("a folder in the place of a table", "bair_lab", "F31", lambda r: as_folder(r / ONE / "actions.csv"),
         [f"{ONE}/actions.csv: expected pictures and tables only, found a folder",
          f"{ONE}/actions.csv: expected a table of 12 rows of 4 numbers, found no such file"], loses=[ONE]),
    Case("a clip outside of the source", "bair_lab", "F31", lambda r: outside(r / ONE, r),
         [f"{ONE}: expected a file, or a link that stays inside the source, found a link to …elsewhere"], loses=[ONE]),
    Case("a folder that may not be read", "bair_lab", "F31", lambda r: None,
         [f"{ONE}: expected a folder that can be read, found Permission denied"], loses=[ONE], denied=ONE),
    Case("odd names", "bair_lab", "F32", lambda r: odd_names(r, ONE, TWO, VAL, TEST), loses=[TEST, ONE, TWO, VAL],
         gains=[f"processed_data/test/traj_2/{ODD[3]}",
          f"processed_data/train/traj_0/{ODD[1]}",
          f"processed_data/train/traj_0/{ODD[0]}",
          "processed_data/validate/traj_1/line\\nbreak"]),
    Case("longest names and bytes that are no text", "bair_lab", "F32",
         lambda r: [rename(r / ONE, ODD[4]), rename(r / TWO, ODD[5])], loses=[ONE, TWO],
         gains=["processed_data/train/traj_0/\\udcffbyte", f"processed_data/train/traj_0/{ODD[4]}"]),
    Case("names in any order", "bair_lab", "F33", lambda r: None, backwards=True),
    Case("a picture gone while reading", "bair_lab", "F34", lambda r: (r / ONE / "4.png").unlink(),
         [f"{ONE}/4.png, frame 4: expected a PNG or JPEG, found No such file or directory"], loses=[ONE], late=True),
    Case("a picture rewritten while reading", "bair_lab", "F34", lambda r: picture(r / ONE / "4.png", 17, 16),
         [f"{ONE}/4.png, frame 4: expected 16x16 pixels as elsewhere, found 16x17"], loses=[ONE], late=True),
    Case("a clip in two splits", "bair_lab", "F35",
         lambda r: shutil.copytree(r / ONE, r / "processed_data/validate/traj_1/3"),
         ["processed_data/validate/traj_1/3: expected clips that are in one split only, found the same frames "
          f"as {ONE} (train)"]),
    Case("a clip twice in its split", "bair_lab", "F35",
         lambda r: shutil.copytree(r / ONE, r / "processed_data/train/traj_0/3"),
         warned=[f"processed_data/train/traj_0/3: the same frames as {ONE}"], gains=["processed_data/train/traj_0/3"]),
    Case("a black clip", "bair_lab", "F36", lambda r: black(r / ONE), warned=[f"{ONE}: every frame is black"]),
    Case("a clip without motion", "bair_lab", "F36", lambda r: black(r / TWO, 90),
         warned=[f"{TWO}: every frame is the same"]),
    # dance_lab
    Case("a pose cut short", "dance_lab", "F25", lambda r: half(r / LABEL / "frame000004.png"),
         [f"{LABEL}/frame000004.png, frame 4, byte …: expected a chunk IDAT of … bytes, found …: the file is "
          "cut short"], loses=["train/000000-000011"], gains=["train/000000-000003", "train/000005-000011"]),
    Case("a flipped bit in a frame", "dance_lab", "F25", lambda r: flip(r / IMG / "frame000004.png", 0.7),
         [f"{IMG}/frame000004.png, frame 4, byte …: expected a chunk IDAT that fits its CRC, found a wrong CRC: "
          "the file is damaged"], loses=["train/000000-000011"], gains=["train/000000-000003", "train/000005-000011"]),
    Case("an empty pose", "dance_lab", "F25", lambda r: empty(r / LABEL / "frame000000.png"),
         [f"{LABEL}/frame000000.png, frame 0: expected a PNG or JPEG, found an empty file"],
         loses=["train/000000-000011"], gains=["train/000001-000011"]),
    Case("a frame of 16 bits", "dance_lab", "F26", lambda r: deep(r / IMG / "frame000004.png", 64, 128),
         [f"{IMG}/frame000004.png, frame 4, IHDR: expected 8 bits a channel (grey, RGB, palette or RGBA), found "
          "16 bits, color type 0"], loses=["train/000000-000011"],
         gains=["train/000000-000003", "train/000005-000011"]),
    Case("a pose of another size", "dance_lab", "F26", lambda r: picture(r / LABEL / "frame000011.png"),
         [f"{LABEL}/frame000011.png, frame 11: expected 128x64 pixels as elsewhere, found 16x16"],
         loses=["train/000000-000011"], gains=["train/000000-000010"]),
    Case("a frame without a pose", "dance_lab", "F27", lambda r: (r / LABEL / "frame000004.png").unlink(),
         [f"{LABEL}/frame000004.png, frame 4: expected a picture, found no pose for this frame"],
         loses=["train/000000-000011"], gains=["train/000000-000003", "train/000005-000011"]),
    Case("a gap in both", "dance_lab", "F27",
         lambda r: [(r / side / "frame000004.png").unlink() for side in (IMG, LABEL)],
         warned=["train: no frame 4; the take is cut there"], loses=["train/000000-000011"],
         gains=["train/000000-000003", "train/000005-000011"]),
    Case("two frames of a number", "dance_lab", "F27",
         lambda r: shutil.copy(r / IMG / "frame000004.png", r / IMG / "frame4.png"),
         [f"{IMG}: expected one picture for each number, found frame000004.png and frame4.png"],
         loses=["train/000000-000011"], gains=["train/000000-000003", "train/000005-000011"]),
    Case("no folder of poses", "dance_lab", "F29", lambda r: shutil.rmtree(r / "val/val_label"),
         ["val/val_label: expected a folder of poses, found no such folder"], loses=["val/000000-000008"]),
    Case("a take shorter than asked", "dance_lab", "F30", lambda r: None,
         ["val/000000-000008: expected 10 frames or more, found 9"], length=10),
    Case("a pipe among the frames", "dance_lab", "F31", lambda r: as_pipe(r / IMG / "frame000011.png"),
         [f"{IMG}/frame000011.png: expected a plain file or a folder, found a pipe, socket or device",
          f"{IMG}/frame000011.png, frame 11: expected a picture, found no frame for this pose"],
         loses=["train/000000-000011"], gains=["train/000000-000010"]),
    Case("a folder in the place of a pose", "dance_lab", "F31", lambda r: as_folder(r / LABEL / "frame000011.png"),
         [f"{LABEL}/frame000011.png, frame 11: expected a picture, found no pose for this frame"],
         loses=["train/000000-000011"], gains=["train/000000-000010"]),
    Case("frames outside of the source", "dance_lab", "F31", lambda r: outside(r / IMG, r),
         [f"{IMG}: expected a folder, or a link that stays inside the source, found a link to …elsewhere"],
         loses=["train/000000-000011"]),
    Case("a link in a circle among poses", "dance_lab", "F31",
         lambda r: as_link(r / LABEL / "frame000012.png", "frame000012.png"),
         [f"{LABEL}/frame000012.png: expected a file, or a link that stays inside the source, found a link that "
          "leads nowhere (a loop)"]),
    Case("poses that may not be read", "dance_lab", "F31", lambda r: None,
         ["val/val_label: expected a folder that can be read, found Permission denied"], loses=["val/000000-000008"],
         denied="val/val_label"),
    Case("frames in any order", "dance_lab", "F33",
         lambda r: [(r / side / "frame000010.png").rename(r / side / "frame10.png") for side in (IMG, LABEL)],
         backwards=True),
    Case("a pose gone while reading", "dance_lab", "F34", lambda r: (r / LABEL / "frame000004.png").unlink(),
         [f"{LABEL}/frame000004.png, frame 4: expected a PNG or JPEG, found No such file or directory"],
         loses=["train/000000-000011"], gains=["train/000000-000003", "train/000005-000011"], late=True),
    Case("validation is training", "dance_lab", "F35",
         lambda r: [instead(r / "val/val_img", r / IMG), instead(r / "val/val_label", r / LABEL)],
         ["val/000000-000011: expected clips that are in one split only, found the same frames as "
          "train/000000-000011 (train)"], loses=["val/000000-000008"]),
    Case("black frames", "dance_lab", "F36", lambda r: black(r / IMG),
         warned=["train/000000-000011: every frame is black"]),
    # bair_tfrecord
    Case("records cut short", "bair_tfrecord", "F25", lambda r: half(r / RECORDS, 0.75),
         [f"{RECORDS}, record 1 at byte 13435: expected a record of 13435 bytes, found 6717: the file is cut "
          "short"], loses=["train/traj_0_to_1/1"]),
    Case("a wrong CRC of data", "bair_tfrecord", "F25", lambda r: flip(r / RECORDS, 0.3),
         [f"{RECORDS}, record 0 at byte 0: expected data that fits its CRC, found a wrong CRC: the file is "
          "damaged"], loses=["train/traj_0_to_1/0"]),
    Case("a wrong CRC of a length", "bair_tfrecord", "F25", lambda r: flip(r / RECORDS, 3),
         [f"{RECORDS}, record 0 at byte 0: expected a length that fits its CRC, found a wrong CRC: no TFRecord, "
          "or a damaged one"], loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"]),
    Case("a claimed length of 2^62", "bair_tfrecord", "F25", lambda r: huge_record(r / RECORDS),
         [f"{RECORDS}, record 0 at byte 0: expected a record of at most 1073741824 bytes, found a length of "
          "4611686018427387904"], loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"]),
    Case("an empty file of records", "bair_tfrecord", "F25", lambda r: empty(r / RECORDS),
         [f"{RECORDS}: expected TFRecords, found an empty file"],
         loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"]),
    Case("a picture of other bytes", "bair_tfrecord", "F26",
         lambda r: records(r / RECORDS, lambda e: e[0].update({"3/image_aux1/encoded": bytes(99)})),
         [f"{RECORDS}, record 0 at byte 0, frame 3: expected one byte string 3/image_aux1/encoded of 768 bytes, "
          "found a byte string of 99 bytes"], loses=["train/traj_0_to_1/0"]),
    Case("no picture in a frame", "bair_tfrecord", "F27",
         lambda r: records(r / RECORDS, lambda e: e[1].pop("3/image_aux1/encoded")),
         [f"{RECORDS}, record 1 at byte 13435, frame 3: expected one byte string 3/image_aux1/encoded of 768 "
          "bytes, found none"], loses=["train/traj_0_to_1/1"]),
    Case("a nan action", "bair_tfrecord", "F28",
         lambda r: records(r / RECORDS, lambda e: e[1].update({"3/action": [0, np.nan, 0, 0]})),
         [f"{RECORDS}, record 1 at byte 13435, frame 3: expected 4 finite floats 3/action, found 4: 0 nan 0 0"],
         loses=["train/traj_0_to_1/1"]),
    Case("an action of three", "bair_tfrecord", "F28",
         lambda r: records(r / RECORDS, lambda e: e[1].update({"3/action": [0, 1, 2]})),
         [f"{RECORDS}, record 1 at byte 13435, frame 3: expected 4 finite floats 3/action, found 3: 0 1 2"],
         loses=["train/traj_0_to_1/1"]),
    Case("bytes in the place of a position", "bair_tfrecord", "F28",
         lambda r: records(r / RECORDS, lambda e: e[1].update({"6/endeffector_pos": b"xyz"})),
         [f"{RECORDS}, record 1 at byte 13435, frame 6: expected 3 finite floats 6/endeffector_pos, found a "
          "byte string of 3 bytes"], loses=["train/traj_0_to_1/1"]),
    Case("a record too few", "bair_tfrecord", "F29", lambda r: records(r / RECORDS, lambda e: e.pop()),
         [f"{RECORDS}: expected 2 records as its name says, found 1"], loses=["train/traj_0_to_1/1"]),
    Case("a record of another length", "bair_tfrecord", "F29",
         lambda r: records(r / RECORDS, lambda e: [e[1].pop(k) for k in list(e[1]) if k.startswith("7/")]),
         [f"{RECORDS}, record 1 at byte 13435: expected 8 frames as in other records of the file, found 7"],
         loses=["train/traj_0_to_1/1"]),
    Case("a pipe of records", "bair_tfrecord", "F31", lambda r: as_pipe(r / RECORDS),
         [f"{RECORDS}: expected a plain file or a folder, found a pipe, socket or device"],
         loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"]),
    Case("a folder of this name", "bair_tfrecord", "F31", lambda r: as_folder(r / RECORDS),
         [f"{RECORDS}: expected a TFRecord file, found a folder"],
         loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"]),
    Case("records outside of the source", "bair_tfrecord", "F31", lambda r: outside(r / RECORDS, r),
         [f"{RECORDS}: expected a file, or a link that stays inside the source, found a link to …elsewhere"],
         loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"]),
    Case("records rewritten while reading", "bair_tfrecord", "F34",
         lambda r: records(r / RECORDS, lambda e: e[0].update({"extra": b"x"})),
         [f"{RECORDS}, record 0 at byte 0: expected a record of … bytes, found …: the file is cut short",
          f"{RECORDS}, record 1 at byte 13435: expected a length that fits its CRC, found a wrong CRC: no "
          "TFRecord, or a damaged one"], loses=["train/traj_0_to_1/0", "train/traj_0_to_1/1"], late=True),
    Case("a trajectory in two splits", "bair_tfrecord", "F35", lambda r: same_record(r),
         ["test/traj_0_to_0/0: expected clips that are in one split only, found the same frames as "
          "train/traj_0_to_1/1 (train)"], loses=["test/traj_0_to_0/0"]),
    Case("a black trajectory", "bair_tfrecord", "F36", lambda r: records(r / RECORDS, lambda e: black_record(e[0])),
         warned=["train/traj_0_to_1/0: every frame is black"]),
    # frame_folders
    Case("a frame cut short", "frame_folders", "F25", lambda r: half(r / FRAME_4),
         [f"{FRAME_4}, frame 4, byte …: expected a chunk IDAT of … bytes, found …: the file is cut short"], loses=[A]),
    Case("a frame with a wrong CRC", "frame_folders", "F25", lambda r: flip(r / FRAME_4, -1),
         [f"{FRAME_4}, frame 4, byte …: expected a chunk IEND that fits its CRC, found a wrong CRC: the file is "
          "damaged"], loses=[A]),
    Case("an empty last frame", "frame_folders", "F25", lambda r: empty(r / A / "frame_0011.png"),
         [f"{A}/frame_0011.png, frame 11: expected a PNG or JPEG, found an empty file"], loses=[A]),
    Case("a frame of another size", "frame_folders", "F26", lambda r: picture(r / FRAME_4),
         [f"{FRAME_4}, frame 4: expected 32x24 pixels as elsewhere, found 16x16"], loses=[A]),
    Case("a frame in CMYK", "frame_folders", "F26", lambda r: (r / FRAME_4).write_bytes(jpeg("CMYK", 24, 32)),
         [f"{FRAME_4}, frame 4, header: expected a picture in grey, RGB or a palette, found one in CMYK"], loses=[A]),
    Case("frames with a gap", "frame_folders", "F27", lambda r: (r / FRAME_4).unlink(),
         [f"{A}: expected pictures frame_0000.png to frame_0011.png without a gap, found no picture 4",
          f"{TABLE}: expected 11 rows, one for each frame, found 12"], loses=[A]),
    Case("two frames of one number", "frame_folders", "F27",
         lambda r: shutil.copy(r / FRAME_4, r / "train/push/a/frame_04.png"),
         [f"{A}: expected one picture for each number, found frame_0004.png and frame_04.png"], loses=[A]),
    Case("a frame of another name", "frame_folders", "F27",
         lambda r: (r / A / "frame_0011.png").rename(r / "train/push/a/image_0011.png"),
         [f"{A}/image_0011.png: expected a name that differs from frame_0000.png in its number only, found "
          "another name",
          f"{TABLE}: expected 11 rows, one for each frame, found 12"], loses=[A]),
    Case("nan under a header", "frame_folders", "F28", lambda r: numbers(r / TABLE, 3, "NaN"),
         [f"{TABLE}, row 3, column 1: expected a finite decimal number, found 'NaN'"], loses=[A]),
    Case("a byte-order mark before a header", "frame_folders", "F28", lambda r: line(r / TABLE, 1, "\ufeffmove,turn"),
         [f"{TABLE}, row 1: expected plain text, found a byte-order mark; save the file as UTF-8 without BOM"],
         loses=[A]),
    Case("names twice in a header", "frame_folders", "F28", lambda r: line(r / TABLE, 1, "move,move"),
         [f"{TABLE}, row 1: expected each name once, found two columns 'move'"], loses=[A]),
    Case("other names than the other tables", "frame_folders", "F28", lambda r: line(r / TABLE, 1, "turn,move"),
         [f"{TABLE}: expected the columns of {B}/commands.csv: move, turn, found turn, move"], loses=[A]),
    Case("NaN in JSON", "frame_folders", "F28", lambda r: as_json(r / TABLE, "[" + "[0.5, NaN], " * 11 + "[0, 0]]"),
         [f"{A}/commands.json, line 1, column …: expected JSON, found NaN is not a JSON number"], loses=[A]),
    Case("true in JSON", "frame_folders", "F28",
         lambda r: as_json(r / TABLE, json.dumps([*MOVES[:6], {"move": 6, "turn": True}, *MOVES[7:]])),
         [f"{A}/commands.json, row 7, column 2: expected a finite number, found true"], loses=[A]),
    Case("1e400 in JSON", "frame_folders", "F28",
         lambda r: as_json(r / TABLE, json.dumps(MOVES).replace("11,", "1e400,")),
         [f"{A}/commands.json, line 1, column …: expected JSON, found 1e400 is larger than any number"], loses=[A]),
    Case("JSON cut short", "frame_folders", "F28", lambda r: as_json(r / TABLE, '[{"move": 1, "tu'),
         [f"{A}/commands.json, line 1, column 14: expected JSON, found Unterminated string starting at"], loses=[A]),
    Case("a million brackets of JSON", "frame_folders", "F28", lambda r: as_json(r / TABLE, "[" * 10**6),
         [f"{A}/commands.json: expected JSON of fewer values, or a table as CSV or parquet, found values that "
          "would take more than 60 MiB of memory"],
         loses=[A]),
    Case("nothing in a row of parquet", "frame_folders", "F28",
         lambda r: as_parquet(r / TABLE, {"move": [*range(11), None], "turn": [0.0] * 12}),
         [f"{A}/commands.parquet, row 12, column 'move': expected a number, found nothing"], loses=[A]),
    Case("nan in parquet", "frame_folders", "F28",
         lambda r: as_parquet(r / TABLE, {"move": [0.0] * 12, "turn": [0.5] * 11 + [np.nan]}),
         [f"{A}/commands.parquet, row 12, column 'turn': expected a finite number, found nan"], loses=[A]),
    Case("texts in parquet", "frame_folders", "F28",
         lambda r: as_parquet(r / TABLE, {"move": [0.0] * 12, "turn": ["1"] * 12}),
         [f"{A}/commands.parquet, column 'turn': expected numbers, or lists of numbers, found string"], loses=[A]),
    Case("a table of too few rows", "frame_folders", "F29", lambda r: shorter(r / TABLE),
         [f"{TABLE}: expected 12 rows, one for each frame, found 11"], loses=[A]),
    Case("no table in one folder", "frame_folders", "F29", lambda r: (r / TABLE).unlink(),
         [f"{A}: expected a table in each folder of pictures, as others have, found none"], loses=[A]),
    Case("frames fewer than asked", "frame_folders", "F30", lambda r: None,
         ["test/d: expected 10 frames or more, found 9"], length=10),
    Case("a link to a folder around it", "frame_folders", "F31", lambda r: as_link(r / "train/push/a/again", ".."),
         [f"{A}/again: expected folders 24 deep at most, found a link to a folder around it, or a deeper one"]),
    Case("a table outside of the source", "frame_folders", "F31", lambda r: outside(r / TABLE, r),
         [f"{TABLE}: expected a file, or a link that stays inside the source, found a link to …elsewhere",
          f"{A}: expected a table in each folder of pictures, as others have, found none"], loses=[A]),
    Case("a pipe for a table", "frame_folders", "F31", lambda r: as_pipe(r / TABLE),
         [f"{TABLE}: expected a plain file or a folder, found a pipe, socket or device",
          f"{A}: expected a table in each folder of pictures, as others have, found none"], loses=[A]),
    Case("a folder for a frame", "frame_folders", "F31", lambda r: as_folder(r / A / "frame_0011.png"),
         [f"{A}/frame_0011.png: expected a file (.png), found a folder",
          f"{TABLE}: expected 11 rows, one for each frame, found 12"], loses=[A]),
    Case("a folder of clips that may not be read", "frame_folders", "F31", lambda r: None,
         ["train/push: expected a folder that can be read, found Permission denied"], loses=[A, B],
         denied="train/push"),
    Case("odd names of folders", "frame_folders", "F32", lambda r: odd_names(r, A, B, "val/push/c", "test/d"),
         loses=["test/d", A, B, "val/push/c"],
         gains=[f"test/{ODD[3]}", f"{A} robot 🤖", f"train/push/{ODD[0]}", "val/push/line\\nbreak"]),
    Case("a long name and one that is no text", "frame_folders", "F32",
         lambda r: [rename(r / A, ODD[4]), rename(r / B, ODD[5])], loses=[A, B],
         gains=["train/push/\\udcffbyte", f"train/push/{ODD[4]}"]),
    Case("two folders for a split", "frame_folders", "F32", lambda r: (r / "test").rename(r / "TRAIN"),
         ["train: expected one folder for the split, found also TRAIN/"], loses=["test/d", A, B], gains=["TRAIN/d"]),
    Case("frames of any width of number", "frame_folders", "F33",
         lambda r: [p.rename(p.with_name(f"frame_{int(p.stem[6:])}.png")) for p in (r / A).glob("*.png")],
         backwards=True),
    Case("a frame gone while reading", "frame_folders", "F34", lambda r: (r / FRAME_4).unlink(),
         [f"{FRAME_4}, frame 4: expected a PNG or JPEG, found No such file or directory"], loses=[A], late=True),
    Case("one clip in training and in test", "frame_folders", "F35", lambda r: shutil.copytree(r / B, r / "test/e"),
         [f"test/e: expected clips that are in one split only, found the same frames as {B} (train)"]),
    Case("a clip of one grey", "frame_folders", "F36", lambda r: black(r / "test/d", 128),
         warned=["test/d: every frame is the same"]),
    # videos
    Case("a video cut short", "videos", "F25", lambda r: half(r / VIDEO, 0.75),
         [f"{VIDEO}, byte …: expected a box … of … bytes, found a file of … bytes: it is cut short or damaged"],
         loses=["train/push/0"]),
    Case("a damaged packet", "videos", "F25", lambda r: packet(r / VIDEO, 5),
         [f"{VIDEO}, frame …: expected …, found …"], loses=["train/push/0"]),
    Case("a GIF cut short", "videos", "F25", lambda r: half(r / "train/push/1.gif"),
         ["train/push/1.gif, byte …: expected another block of a GIF, found a file of … bytes: it is cut short "
          "or damaged"], loses=["train/push/1"]),
    Case("an empty video", "videos", "F25", lambda r: empty(r / VIDEO),
         [f"{VIDEO}, first bytes: expected a video (MP4, MOV, AVI, GIF, WebM or MKV), found an empty file"],
         loses=["train/push/0"]),
    Case("words in the place of a video", "videos", "F25", lambda r: words(r / VIDEO),
         [f"{VIDEO}, first bytes: expected a video (MP4, MOV, AVI, GIF, WebM or MKV), found another kind of "
          "file (b'not a cl')"], loses=["train/push/0"]),
    Case("a video of another size", "videos", "F26", lambda r: refilm(r / VIDEO, lambda f: f[:, :16]),
         anew=["train/push/0"]),
    Case("inf beside a video", "videos", "F28", lambda r: numbers(r / BESIDE, 5, "inf"),
         [f"{BESIDE}, row 5, column 1: expected a finite decimal number, found 'inf'"], loses=["train/push/0"]),
    Case("a list that is no JSON", "videos", "F28", lambda r: half(r / "train/push/1.json"),
         ["train/push/1.json, line …, column …: expected JSON, found Expecting value"], loses=["train/push/1"]),
    Case("a video shorter than its table", "videos", "F29", lambda r: refilm(r / VIDEO, lambda f: f[:9]),
         [f"{BESIDE}: expected 9 rows, one for each frame, found 12"], loses=["train/push/0"]),
    Case("a table longer than its video", "videos", "F29", lambda r: longer(r / BESIDE),
         [f"{BESIDE}: expected 12 rows, one for each frame, found 13"], loses=["train/push/0"]),
    Case("a table without a video", "videos", "F29", lambda r: (r / VIDEO).unlink(),
         [f"{BESIDE}: expected a video of this name beside it (.mp4, .avi, .gif, .webm, .mov, .mkv), found none"],
         loses=["train/push/0"]),
    Case("a video without a table", "videos", "F29", lambda r: (r / BESIDE).unlink(),
         [f"{VIDEO}: expected a table of the same name beside it, as other videos have, found none"],
         loses=["train/push/0"]),
    Case("a video shorter than asked", "videos", "F30", lambda r: None, ["val/3: expected 10 frames or more, found 9"],
         length=10),
    Case("a pipe for a video", "videos", "F31", lambda r: as_pipe(r / VIDEO),
         [f"{VIDEO}: expected a plain file or a folder, found a pipe, socket or device",
          f"{BESIDE}: expected a video of this name beside it (.mp4, .avi, .gif, .webm, .mov, .mkv), found none"],
         loses=["train/push/0"]),
    Case("a folder for a video", "videos", "F31", lambda r: as_folder(r / VIDEO),
         [f"{BESIDE}: expected a video of this name beside it (.mp4, .avi, .gif, .webm, .mov, .mkv), found none",
          f"{VIDEO}: expected a file (.mp4), found a folder"], loses=["train/push/0"]),
    Case("a video outside of the source", "videos", "F31", lambda r: outside(r / VIDEO, r),
         [f"{VIDEO}: expected a file, or a link that stays inside the source, found a link to …elsewhere",
          f"{BESIDE}: expected a video of this name beside it (.mp4, .avi, .gif, .webm, .mov, .mkv), found none"],
         loses=["train/push/0"]),
    Case("odd names of videos", "videos", "F32",
         lambda r: [odd_names(r, *(f"{v}{end}" for v in THREE), keep=end) for end in (".mp4", ".csv")],
         loses=["test/4", "train/2", "train/push/0"],
         gains=["test/line\\nbreak", f"train/{ODD[1]}", f"train/push/{ODD[0]}"]),
    Case("longest names of videos", "videos", "F32",
         lambda r: [rename(r / f"train/push/0{end}", "%03d" + "x" * 247 + end) for end in (".mp4", ".csv")],
         loses=["train/push/0"], gains=[f"train/push/%03d{ODD[4][:247]}"]),
    Case("two videos of a name", "videos", "F27", lambda r: shutil.copy(r / VIDEO, r / "train/push/0.mov"),
         [f"{VIDEO}: expected one video of this name, found also 0.mov"], loses=["train/push/0"]),
    Case("videos in any order", "videos", "F33", lambda r: None, backwards=True),
    Case("a video rewritten while reading", "videos", "F34", lambda r: refilm(r / VIDEO, lambda f: f[:9]),
         [f"{VIDEO}, frame 9: expected 12 frames or more, found 9"], loses=["train/push/0"], late=True),
    Case("a video gone while reading", "videos", "F34", lambda r: (r / VIDEO).unlink(),
         [f"{VIDEO}: expected a video, found No such file or directory"], loses=["train/push/0"],
         late=True),
    Case("a video in two splits", "videos", "F35",
         lambda r: [shutil.copy(r / f"train/2{end}", r / f"val/9{end}") for end in (".mp4", ".csv")],
         ["val/9: expected clips that are in one split only, found the same frames as train/2 (train)"]),
    Case("a black video", "videos", "F36", lambda r: refilm(r / "train/2.mp4", np.zeros_like),
         warned=["train/2: every frame is black"]),
    # kth
    Case("an AVI cut short", "kth", "F25", lambda r: half(r / AVI),
         [f"{AVI}: expected a video that FFmpeg can read, found Invalid data found when processing input"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"]),
    Case("an empty AVI", "kth", "F25", lambda r: empty(r / AVI),
         [f"{AVI}, first bytes: expected a video (MP4, MOV, AVI, GIF, WebM or MKV), found an empty file"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"]),
    Case("damaged packets of an AVI", "kth", "F25", lambda r: packet(r / AVI, 13),
         [f"{AVI}, frame …: expected …, found …"], loses=["boxing/person01_boxing_d1/11-20"]),
    Case("an AVI of another size", "kth", "F26", lambda r: refilm(r / AVI, lambda f: f[:, :, :16]),
         [f"{AVI}: expected 32x24 pixels as other videos have, found 16x24"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"]),
    Case("a range of no number", "kth", "F28",
         lambda r: line(r / LIST, 3, "person01_boxing_d1\tframes\t1-10, 11-2\u0660"),
         [f"{LIST}, row 3: expected ranges of frames from 1 on, as in 1-95, 96-185, found '11-2٠'"],
         loses=["boxing/person01_boxing_d1/11-20"]),
    Case("a range twice", "kth", "F28", lambda r: line(r / LIST, 3, "person01_boxing_d1\tframes\t1-10, 1-10"),
         [f"{LIST}, row 3: expected each range once, found 1-10 twice"], loses=["boxing/person01_boxing_d1/11-20"]),
    Case("a line that is no text", "kth", "F28",
         lambda r: (r / LIST).write_bytes((r / LIST).read_bytes().replace(b"11-20", b"11-\xff", 1)),
         [f"{LIST}, row 3: expected ranges of frames from 1 on, as in 1-95, 96-185, found '11-\\\\xff'"],
         loses=["boxing/person01_boxing_d1/11-20"]),
    Case("a range beyond the video", "kth", "F29",
         lambda r: line(r / LIST, 3, "person01_boxing_d1\tframes\t1-10, 11-21"),
         [f"{AVI}, frame 20: expected 21 frames or more, found 20"], loses=["boxing/person01_boxing_d1/11-20"]),
    Case("a video that is not there", "kth", "F29", lambda r: (r / "walking/person21_walking_d1_uncomp.avi").unlink(),
         [f"{LIST}, row 6: expected the video person21_walking_d1_uncomp.avi, found no such file"],
         loses=["walking/person21_walking_d1/1-10", "walking/person21_walking_d1/11-20"]),
    Case("a video that is not in the list", "kth", "F29", lambda r: line(r / LIST, 3, ""),
         [f"{LIST}: expected a line for person01_boxing_d1, found none"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"]),
    Case("a range shorter than asked", "kth", "F30",
         lambda r: line(r / LIST, 3, "person01_boxing_d1\tframes\t1-10, 11-19"),
         ["boxing/person01_boxing_d1/11-19: expected 10 frames or more, found 9"], length=10),
    Case("a pipe for an AVI", "kth", "F31", lambda r: as_pipe(r / AVI),
         [f"{AVI}: expected a plain file or a folder, found a pipe, socket or device"],
         warned=[f"{LIST} lists boxing, of which there is no video"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"]),
    Case("an AVI outside of the source", "kth", "F31", lambda r: outside(r / AVI, r),
         [f"{AVI}: expected a file, or a link that stays inside the source, found a link to …elsewhere"],
         warned=[f"{LIST} lists boxing, of which there is no video"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"]),
    Case("odd names of folders of videos", "kth", "F32", lambda r: odd_names(r, "boxing", "running", "walking"),
         loses=["boxing/person01_boxing_d1/1-10",
          "boxing/person01_boxing_d1/11-20",
          "running/person18_running_d1/1-10",
          "running/person18_running_d1/11-20",
          "walking/person19_walking_d1/1-10",
          "walking/person19_walking_d1/11-20",
          "walking/person21_walking_d1/1-10",
          "walking/person21_walking_d1/11-20"], gains=[f"{ODD[1]}/person18_running_d1/1-10",
          f"{ODD[1]}/person18_running_d1/11-20",
          "line\\nbreak/person19_walking_d1/1-10",
          "line\\nbreak/person19_walking_d1/11-20",
          "line\\nbreak/person21_walking_d1/1-10",
          "line\\nbreak/person21_walking_d1/11-20",
          f"{ODD[0]}/person01_boxing_d1/1-10",
          f"{ODD[0]}/person01_boxing_d1/11-20"]),
    Case("an AVI gone while reading", "kth", "F34", lambda r: (r / AVI).unlink(),
         [f"{AVI}: expected a video, found No such file or directory"],
         loses=["boxing/person01_boxing_d1/1-10", "boxing/person01_boxing_d1/11-20"], late=True),
    Case("a person in two splits", "kth", "F35",
         lambda r: shutil.copy(r / AVI, r / "walking/person21_walking_d1_uncomp.avi"),
         ["walking/person21_walking_d1/1-10: expected clips that are in one split only, found the same frames "
          "as boxing/person01_boxing_d1/1-10 (train)",
          "walking/person21_walking_d1/11-20: expected clips that are in one split only, found the same frames "
          "as boxing/person01_boxing_d1/11-20 (train)"],
         loses=["walking/person21_walking_d1/1-10", "walking/person21_walking_d1/11-20"]),
    Case("a black AVI", "kth", "F36", lambda r: refilm(r / AVI, np.zeros_like),
         warned=["boxing/person01_boxing_d1/1-10: every frame is black",
          "boxing/person01_boxing_d1/11-20: the same frames as boxing/person01_boxing_d1/1-10",
          "boxing/person01_boxing_d1/11-20: every frame is black"]),
    # keypoints
    Case("a frame beside keypoints cut short", "keypoints", "F25", lambda r: half(r / "train/frames/a/0004.png"),
         ["train/frames/a/0004.png, frame 4, byte …: expected a chunk IDAT of … bytes, found …: the file is "
          "cut short"], loses=["train/a"], gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("a frame of 16 bits beside keypoints", "keypoints", "F26",
         lambda r: deep(r / "train/frames/a/0004.png", 32, 24),
         ["train/frames/a/0004.png, frame 4, IHDR: expected 8 bits a channel (grey, RGB, palette or RGBA), "
          "found 16 bits, color type 0"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("a frame without keypoints", "keypoints", "F27", lambda r: (r / OPENPOSE).unlink(),
         [f"{OPENPOSE}, frame 4: expected keypoints of one frame, found none for this frame"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("a gap in frames and keypoints", "keypoints", "F27",
         lambda r: [(r / "train/frames/a/0004.png").unlink(), (r / OPENPOSE).unlink()],
         warned=["train/a: no frame 4; the take is cut there"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("nan in OpenPose's file", "keypoints", "F28", lambda r: swap(r / OPENPOSE, ", 0.9, ", ", NaN, "),
         [f"{OPENPOSE}, line 1, column …: expected JSON, found NaN is not a JSON number"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("1e400 in OpenPose's file", "keypoints", "F28", lambda r: swap(r / OPENPOSE, ", 0.9, ", ", 1e400, "),
         [f"{OPENPOSE}, line 1, column …: expected JSON, found 1e400 is larger than any number"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("OpenPose's file cut short", "keypoints", "F28", lambda r: half(r / OPENPOSE),
         [f"{OPENPOSE}, line 1, column …: expected JSON, found Expecting value"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("nobody in a frame", "keypoints", "F28", lambda r: (r / OPENPOSE).write_text('{"people": []}'),
         [f"{OPENPOSE}, frame 4: expected a person, found nobody"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("nan in a table of keypoints", "keypoints", "F28", lambda r: line(r / B_CSV, 5, "3,nan" + ",1" * 74),
         [f"{B_CSV}, row 5, column 2: expected a finite decimal number, found 'nan'"], loses=["train/b"]),
    Case("a frame twice in a table of keypoints", "keypoints", "F28", lambda r: numbers(r / B_CSV, 5, 2),
         [f"{B_CSV}, row 5, column 1: expected the number of a frame, each once, found 2 again"], loses=["train/b"]),
    Case("brackets without end", "keypoints", "F28", lambda r: (r / "train/keypoints/c.json").write_text("[" * 10**6),
         ["train/keypoints/c.json: expected JSON of fewer values, or a table as CSV or parquet, found values that "
          "would take more than 60 MiB of memory"],
         loses=["train/c"]),
    Case("a list too short", "keypoints", "F29", lambda r: shorter_list(r / "train/keypoints/c.json"),
         ["train/keypoints/c.json: expected 10 poses, one for each frame, found 9"], loses=["train/c"]),
    Case("a picture missing in the annotations", "keypoints", "F29",
         lambda r: swap(r / "val/keypoints/annotations.json", "0004.png", "0099.png"),
         ["val/keypoints/annotations.json, frame 4: expected a pose for this frame, found none"],
         loses=["val/000000-000008"], gains=["val/000000-000003", "val/000005-000008"]),
    Case("a take of keypoints shorter than asked", "keypoints", "F30", lambda r: None,
         ["val/000000-000008: expected 10 frames or more, found 9"], length=10),
    Case("keypoints in a pipe", "keypoints", "F31", lambda r: as_pipe(r / B_CSV),
         [f"{B_CSV}: expected a plain file or a folder, found a pipe, socket or device",
          "train/keypoints/b: expected keypoints for the frames in train/frames/b: NAME_keypoints.json, or one "
          "CSV or JSON, found no such folder"], loses=["train/b"]),
    Case("keypoints outside of the source", "keypoints", "F31", lambda r: outside(r / "train/keypoints/a", r),
         ["train/keypoints/a: expected a file, or a link that stays inside the source, found a link to "
          "…elsewhere",
          "train/keypoints/a: expected keypoints for the frames in train/frames/a: NAME_keypoints.json, or one "
          "CSV or JSON, found no such folder"], loses=["train/a"]),
    Case("odd names of clips with keypoints", "keypoints", "F32", lambda r: odd_keypoints(r),
         loses=["train/a", "train/b"], gains=[f"train/{ODD[1]}", f"train/{ODD[0]}"]),
    Case("keypoints rewritten while reading", "keypoints", "F34", lambda r: words(r / OPENPOSE),
         [f"{OPENPOSE}, line 1, column 1: expected JSON, found Expecting value"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"], late=True),
    Case("frames with keypoints in two splits", "keypoints", "F35", lambda r: val_of_a(r, "keypoints"),
         ["val/z: expected clips that are in one split only, found the same frames as train/a (train)"],
         loses=["val/000000-000008"]),
    Case("black frames with keypoints", "keypoints", "F36", lambda r: black(r / "train/frames/a"),
         warned=["train/a: every frame is black"]),
    # pose_folders
    Case("a pose with a flipped bit", "pose_folders", "F25", lambda r: flip(r / "train/poses/a/0004.png", 0.6),
         ["train/poses/a/0004.png, frame 4, byte …: expected a chunk IDAT that fits its CRC, found a wrong "
          "CRC: the file is damaged"], loses=["train/a"], gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("a pose with the size of another", "pose_folders", "F26", lambda r: picture(r / "train/poses/a/0004.png"),
         ["train/poses/a/0004.png, frame 4: expected 32x16 pixels as elsewhere, found 16x16"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("no pose for a frame", "pose_folders", "F27", lambda r: (r / "train/poses/a/0004.png").unlink(),
         ["train/poses/a/0004.png, frame 4: expected a picture, found no pose for this frame"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("no frame for a pose", "pose_folders", "F27", lambda r: (r / "train/frames/a/0011.png").unlink(),
         ["train/frames/a/0011.png: expected a picture, found no frame for the pose train/poses/a/0011.png"],
         anew=["train/a"]),
    Case("two poses for a frame", "pose_folders", "F27",
         lambda r: Image.open(r / "train/poses/a/0004.png").save(r / "train/poses/a/0004.jpg"),
         ["train/poses/a/0004.png: expected one pose of this name, found also 0004.jpg"], loses=["train/a"],
         gains=["train/a/000000-000003", "train/a/000005-000011"]),
    Case("poses of one clip missing", "pose_folders", "F29", lambda r: shutil.rmtree(r / "train/poses/a"),
         ["train/poses/a: expected a folder of poses for train/frames/a, found no such folder"], loses=["train/a"]),
    Case("a clip with poses shorter than asked", "pose_folders", "F30", lambda r: None,
         ["val/000000-000008: expected 10 frames or more, found 9"], length=10),
    Case("a link around the poses", "pose_folders", "F31", lambda r: as_link(r / "train/poses/again", "."),
         ["train/poses/again: expected folders 24 deep at most, found a link to a folder around it, or a "
          "deeper one"]),
    Case("poses outside of the source", "pose_folders", "F31", lambda r: outside(r / "train/poses", r),
         ["train/poses: expected a file, or a link that stays inside the source, found a link to …elsewhere",
          "train: expected one folder of poses (poses, pose, labels, label, maps), found none"],
         loses=["train/a", "train/b", "train/c"]),
    Case("poses of one clip that may not be read", "pose_folders", "F31", lambda r: None,
         ["train/poses/a: expected a folder that can be read, found Permission denied"], loses=["train/a"],
         denied="train/poses/a"),
    Case("odd names of clips with poses", "pose_folders", "F32",
         lambda r: [odd_names(r, *(f"train/{side}/{c}" for c in "abc")) for side in ("frames", "poses")],
         loses=["train/a", "train/b", "train/c"], gains=[f"train/{ODD[1]}", "train/line\\nbreak", f"train/{ODD[0]}"]),
    Case("a frame with poses gone while reading", "pose_folders", "F34",
         lambda r: (r / "train/frames/a/0004.png").unlink(),
         ["train/frames/a/0004.png, frame 4: expected a PNG or JPEG, found No such file or directory"],
         loses=["train/a"], gains=["train/a/000000-000003", "train/a/000005-000011"], late=True),
    Case("frames with poses in two splits", "pose_folders", "F35", lambda r: val_of_a(r, "poses"),
         ["val/z: expected clips that are in one split only, found the same frames as train/a (train)"],
         loses=["val/000000-000008"]),
    Case("frames with poses that never change", "pose_folders", "F36", lambda r: black(r / "val/frames", 7),
         warned=["val/000000-000008: every frame is the same"]),
    # lerobot
    Case("a table of frames cut short", "lerobot", "F25", lambda r: half(r / DATA),
         [f"{DATA}, last bytes: expected b'PAR1', found …: the file is cut short"], loses=EARLY),
    Case("a picture in a table with a flipped bit", "lerobot", "F25",
         lambda r: rows(r / DATA, lambda t: damage_cell(t[3])),
         [f"{DATA}, episode 0, frame 3, observation.images.top: expected a chunk IDAT that fits its CRC, found "
          "a wrong CRC: the file is damaged"], loses=["episode_000000"]),
    Case("a flipped bit in a table of frames", "lerobot", "F25", lambda r: flipped_page(r / DATA),
         [f"{DATA}, rows 0 and on: expected a parquet file that can be decoded, found …"], loses=EARLY),
    Case("a picture of another size in a table", "lerobot", "F26",
         lambda r: rows(r / DATA, lambda t: t[3].update({TOP: {"bytes": png(17), "path": None}})),
         [f"{DATA}, episode 0, frame 3, observation.images.top: expected 16x16 pixels as {INFO} says, found 17x17"],
         loses=["episode_000000"]),
    Case("a picture beyond the source", "lerobot", "F31",
         lambda r: rows(r / DATA, lambda t: t[3].update({TOP: {"bytes": None, "path": "../../etc/passwd"}})),
         [f"{DATA}, episode 0, frame 3, observation.images.top: expected a path that stays inside the dataset, "
          "found '../../etc/passwd'"], loses=["episode_000000"]),
    Case("frames in the wrong order", "lerobot", "F33", lambda r: rows(r / DATA, lambda t: t.insert(3, t.pop(4))),
         [f"{DATA}, episode 0, frame 3: expected frame_index 3, found 4",
          f"{DATA}, episode 0, frame 4: expected frame_index 4, found 3"], loses=["episode_000000"]),
    Case("a gap in frame_index", "lerobot", "F27", lambda r: rows(r / DATA, lambda t: t[3].update(frame_index=9)),
         [f"{DATA}, episode 0, frame 3: expected frame_index 3, found 9"], loses=["episode_000000"]),
    Case("a nan action in a table", "lerobot", "F28",
         lambda r: rows(r / DATA, lambda t: t[3].update(action=[0.5, np.nan])),
         [f"{DATA}, episode 0, frame 3, action.y: expected finite numbers, found nan"], loses=["episode_000000"]),
    Case("nothing for an action", "lerobot", "F28", lambda r: rows(r / DATA, lambda t: t[3].update(action=None)),
         [f"{DATA}, episode 0, frame 3, action: expected 2 numbers, found nothing"], loses=["episode_000000"]),
    Case("actions of another width", "lerobot", "F28",
         lambda r: column(r / DATA, "action", pa.array([[0.0, 0, 0]] * 58, pa.list_(pa.float32(), 3))),
         [f"{DATA}: expected 2 numbers in each row of the column action, found 3"], loses=EARLY),
    Case("actions as texts", "lerobot", "F28", lambda r: column(r / DATA, "action", pa.array(["1"] * 58)),
         [f"{DATA}: expected numbers in the column action, found string"], loses=EARLY),
    Case("no column of actions", "lerobot", "F28", lambda r: column(r / DATA, "action", None),
         [f"{DATA}: expected one column action, found observation.images.top, observation.state, timestamp, "
          "frame_index, episode_index, index, task_index"], loses=EARLY),
    Case("NaN in info.json", "lerobot", "F28", lambda r: keys(r / INFO, fps=np.nan),
         [f"{INFO}, line 1, column …: expected JSON, found NaN is not a JSON number"], loses=ALL),
    Case("info.json cut short", "lerobot", "F28", lambda r: half(r / INFO),
         [f"{INFO}, line …, column …: expected JSON, found Expecting ',' delimiter"], loses=ALL),
    Case("brackets without end in info.json", "lerobot", "F28",
         lambda r: (r / INFO).write_text('{"codebase_version": ' + "[" * 10**6),
         [f"{INFO}: expected JSON, found values that would take more than 60 MiB of memory"], loses=ALL),
    Case("another version", "lerobot", "F28", lambda r: keys(r / INFO, codebase_version="v9.9"),
         [f"{INFO}, codebase_version: expected v2.0, v2.1 or v3.0, found 'v9.9'"], loses=ALL),
    Case("a path that leads out", "lerobot", "F31",
         lambda r: keys(r / INFO, data_path="../{chunk_index}/{file_index}.parquet"),
         [f"{INFO}, data_path: expected a path that stays inside the dataset, found "
          "'../{chunk_index}/{file_index}.parquet'"], loses=ALL),
    Case("another rate", "lerobot", "F29", lambda r: keys(r / INFO, fps=20),
         [f"{DATA if n < 6 else LATE_DATA}, episode {n}, frame 1: expected timestamp 0.050000, found 0.100000; "
          f"and something like it in {6 + n % 5} more frames" for n in range(12)], loses=ALL),
    Case("a timestamp out of its place", "lerobot", "F29",
         lambda r: rows(r / DATA, lambda t: t[3].update(timestamp=0.35)),
         [f"{DATA}, episode 0, frame 3: expected timestamp 0.300000, found 0.350000"], loses=["episode_000000"]),
    Case("an episode that is listed only", "lerobot", "F29",
         lambda r: rows(r / EPISODES, lambda t: t.append({**t[-1], "episode_index": 12})),
         [f"{INFO}, total_episodes: expected 13 or more, as meta lists, found 12",
          f"{INFO}, total_frames: expected 126 or more, as the lengths of episodes make, found 117",
          f"{LATE_DATA}, episode 12: expected 9 rows of this episode, found none; episode_index is 6, 7, 8, 9, "
          "10, ..."]),
    Case("an episode that is not listed", "lerobot", "F29", lambda r: rows(r / EPISODES, lambda t: t.pop()),
         loses=["episode_000011"]),
    Case("an episode listed twice", "lerobot", "F29", lambda r: rows(r / EPISODES, lambda t: t.append(t[-1])),
         [f"{EPISODES}, row 13: expected each episode once, found episode 11 again"]),
    Case("an episode of another length", "lerobot", "F29",
         lambda r: rows(r / EPISODES, lambda t: t[0].update(length=7)),
         [f"{DATA}, episode 0: expected 7 rows in one span, as meta says, found 8"],
         warned=[f"{INFO}: total_frames is 117, but the lengths of all episodes make 116"], loses=["episode_000000"]),
    Case("fewer frames in all", "lerobot", "F29", lambda r: keys(r / INFO, total_frames=20),
         [f"{INFO}, total_frames: expected 117 or more, as the lengths of episodes make, found 20"]),
    Case("a data file is missing", "lerobot", "F29", lambda r: (r / LATE_DATA).unlink(),
         [f"{LATE_DATA}, episodes 6 to 11: expected the file of these episodes, found no such file"], loses=LATER),
    Case("an episode shorter than asked", "lerobot", "F30",
         lambda r: keys(r / INFO, splits={"train": "0:6", "val": "6:12"}),
         ["episode_000000: expected 9 frames or more, found 8",
          "episode_000005: expected 9 frames or more, found 8",
          "episode_000010: expected 9 frames or more, found 8"], length=9),
    Case("a pipe for a table", "lerobot", "F31", lambda r: as_pipe(r / LATE_DATA),
         [f"{LATE_DATA}: expected a plain file or a folder, found a pipe, socket or device",
          f"{LATE_DATA}, episodes 6 to 11: expected the file of these episodes, found no such file"], loses=LATER),
    Case("a pipe for info.json", "lerobot", "F31", lambda r: as_pipe(r / INFO),
         [f"{INFO}: expected a plain file or a folder, found a pipe, socket or device"], loses=ALL),
    Case("frames outside of the dataset", "lerobot", "F31", lambda r: outside(r / LATE_DATA, r),
         [f"{LATE_DATA}: expected a file, or a link that stays inside the source, found a link to …elsewhere",
          f"{LATE_DATA}, episodes 6 to 11: expected the file of these episodes, found no such file"], loses=LATER),
    Case("a folder for a table", "lerobot", "F31", lambda r: as_folder(r / LATE_DATA),
         [f"{LATE_DATA}, episodes 6 to 11: expected the file of these episodes, found a folder"], loses=LATER),
    Case("a table rewritten while reading", "lerobot", "F34", lambda r: rows(r / DATA, lambda t: t.pop()),
         [f"{DATA}, episode 5: expected 8 rows in one span, as meta says, found 7"], loses=["episode_000005"],
         late=True),
    Case("an episode in two splits", "lerobot", "F35", lambda r: twice(r),
         ["episode_000010: expected clips that are in one split only, found the same frames as episode_000000 "
          "(train)"], loses=["episode_000010"]),
    Case("a black episode", "lerobot", "F36",
         lambda r: rows(r / DATA, lambda t: [row.update({TOP: {"bytes": png(16, 0), "path": None}}) for row in t[:8]]),
         warned=["episode_000000: every frame is black"]),
    Case("a video shorter than the table", "lerobot:films", "F29", lambda r: refilm(r / FILM, lambda f: f[:-3]),
         [f"{FILM}, episode 11, frame 6: expected a frame at 11.4000 s, found no frame: the video ends at "
          "11.3000 s",
          f"{FILM}, episode 11, frame 7: expected a frame at 11.5000 s, found no frame: the video ends at "
          "11.3000 s",
          f"{FILM}, episode 11, frame 8: expected a frame at 11.6000 s, found no frame: the video ends at "
          "11.3000 s"], loses=["episode_000011"]),
    Case("a video of another resolution", "lerobot:films", "F26",
         lambda r: refilm(r / FILM, lambda f: np.repeat(f, 2, axis=1)),
         [f"{FILM}: expected 16x16 pixels as {INFO} says, found 16x32"], loses=ALL),
    Case("a video of another rate", "lerobot:films", "F29", lambda r: write_mp4(r / FILM, read_video(r / FILM), 20),
         [f"{FILM}: expected 10 frames a second as {INFO} says, found 20"], loses=ALL),
    Case("a video cut", "lerobot:films", "F25", lambda r: half(r / FILM, 0.75),
         [f"{FILM}: expected a video that FFmpeg can read, found Invalid data found when processing input"],
         loses=ALL),
    Case("a damaged packet in a video", "lerobot:films", "F25", lambda r: packet(r / FILM, 60),
         [f"{FILM}, frame …: expected …, found …"], loses=LATER),
    Case("no video", "lerobot:films", "F29", lambda r: (r / FILM).unlink(),
         [f"{FILM}, episodes 0 to 11: expected the file of these episodes, found no such file"], loses=ALL),
    Case("a pipe for the video", "lerobot:films", "F31", lambda r: as_pipe(r / FILM),
         [f"{FILM}: expected a plain file or a folder, found a pipe, socket or device",
          f"{FILM}, episodes 0 to 11: expected the file of these episodes, found no such file"], loses=ALL),
    # moving_mnist
    Case("digits cut short", "moving_mnist", "F25", lambda r: half(r / DIGITS),
         [f"{DIGITS}: expected 14112 bytes of digits, found a file of 7064: it is cut short"], loses=ALL),
    Case("packed digits cut short", "moving_mnist", "F25", lambda r: half(r / TEST_DIGITS),
         [f"{TEST_DIGITS}: expected digits that can be read, found Compressed file ended before the "
          "end-of-stream marker was reached"], loses=ALL),
    Case("packed digits with a flipped bit", "moving_mnist", "F25", lambda r: flip(r / TEST_DIGITS, -6),
         [f"{TEST_DIGITS}: expected digits that can be read, found CRC check failed …"], loses=ALL),
    Case("digits of another size", "moving_mnist", "F26", lambda r: digits(r / DIGITS, (2051, 18, 27, 28)),
         [f"{DIGITS}, header: expected digits of 28x28, found 27x28"], loses=ALL),
    Case("labels in the place of digits", "moving_mnist", "F26", lambda r: digits(r / DIGITS, (2049, 18, 28, 28)),
         [f"{DIGITS}, header: expected the number 2051 of an idx file of pictures, found 2049"], loses=ALL),
    Case("a claim of four billion digits", "moving_mnist", "F25",
         lambda r: digits(r / DIGITS, (2051, 2**32 - 1, 28, 28)),
         [f"{DIGITS}, header: expected 1 to 1048576 digits, found 4294967295"], loses=ALL),
    Case("fewer digits than claimed", "moving_mnist", "F29", lambda r: digits(r / DIGITS, (2051, 19, 28, 28)),
         [f"{DIGITS}: expected 14896 bytes of digits, found a file of 14128: it is cut short"], loses=ALL),
    Case("digits outside of the source", "moving_mnist", "F31", lambda r: outside(r / TEST_DIGITS, r),
         [f"{TEST_DIGITS}: expected a file, or a link that stays inside the source, found a link to …elsewhere"],
         loses=ALL),
    Case("clips longer than are made", "moving_mnist", "F30", lambda r: None,
         [f"{clip}: expected 31 frames or more, found 30"
          for clip in (*(f"train/{n:06d}" for n in range(20)), "val/000000", "test/000000")], length=31),
    Case("digits gone while reading", "moving_mnist", "F34", lambda r: (r / TEST_DIGITS).unlink(),
         [f"{TEST_DIGITS}: expected digits that can be read, found No such file or directory"], loses=["test/000000"],
         late=True),
    Case("black digits to test", "moving_mnist", "F36", lambda r: black_digits(r),
         warned=["test/000000: every frame is black"]),
    # npz_episodes
    Case("an archive cut short", "npz_episodes", "F25", lambda r: half(r / NPZ),
         [f"{NPZ}: expected the directory at the end of a zip archive, found none: the file is cut short"],
         loses=[NPZ]),
    Case("an archive with a flipped bit", "npz_episodes", "F25", lambda r: flipped_stored(r / NPZ),
         [f"{NPZ}, image: expected data that can be unpacked and fits its CRC, found Bad CRC-32 for file "
          "'image.npy'"], loses=[NPZ]),
    Case("pictures of floats", "npz_episodes", "F26", lambda r: arrays(r / NPZ, image=lambda v: v / 255),
         [f"{NPZ}, image: expected pictures as uint8, so that no scale is guessed; scale them to 0 to 255, "
          "round, and save them as uint8, found float64 of shape (12, 16, 16, 3)"], loses=[NPZ]),
    Case("pictures of 16 bits", "npz_episodes", "F26", lambda r: arrays(r / NPZ, image=lambda v: v.astype(np.uint16)),
         [f"{NPZ}, image: expected pictures as uint8 (T, H, W, 3), found uint16 of shape (12, 16, 16, 3)"],
         loses=[NPZ]),
    Case("pictures with an alpha channel", "npz_episodes", "F26",
         lambda r: arrays(r / NPZ, image=lambda v: v[..., [0, 1, 2, 2]]),
         [f"{NPZ}, image: expected pictures as uint8 (T, H, W, 3), found uint8 of shape (12, 16, 16, 4)"],
         loses=[NPZ]),
    Case("a nan action in an archive", "npz_episodes", "F28", lambda r: arrays(r / NPZ, action=put((4, 2), np.nan)),
         [f"{NPZ}, frame 4, action.2: expected a finite number within float32, found nan"], loses=[NPZ]),
    Case("a nan in the first action", "npz_episodes", "F28", lambda r: arrays(r / NPZ, action=put((0, 0), np.nan)),
         [f"{NPZ}, frame 0, action.0: expected a finite number within float32, found nan"], loses=[NPZ]),
    Case("an action beyond float32", "npz_episodes", "F28",
         lambda r: arrays(r / NPZ, action=lambda v: put((4, 2), 1e300)(v.astype(float))),
         [f"{NPZ}, frame 4, action.2: expected a finite number within float32, found 1e+300"], loses=[NPZ]),
    Case("actions of other width", "npz_episodes", "F28", lambda r: arrays(r / NPZ, action=lambda v: v[:, :3]),
         [f"{NPZ}, action: expected action of 4 numbers, as in most files, found 3"], loses=[NPZ]),
    Case("an array of objects", "npz_episodes", "F28", lambda r: arrays(r / NPZ, action=lambda v: v.astype(object)),
         [f"{NPZ}, action: expected a row of numbers for each frame, found Python objects (a pickle), which are "
          "never read"], loses=[NPZ]),
    Case("a pickle under the name", "npz_episodes", "F28", lambda r: (r / NPZ).write_bytes(b"\x80\x04N."),
         [f"{NPZ}: expected a zip archive (.npz), found a pickle, which is never read"], loses=[NPZ]),
    Case("no array of pictures", "npz_episodes", "F28", lambda r: arrays(r / NPZ, image=None),
         [f"{NPZ}: expected an array image, images, frames or obs, found only action"], loses=[NPZ]),
    Case("no actions in one archive", "npz_episodes", "F28", lambda r: arrays(r / NPZ, action=None),
         [f"{NPZ}: expected action of 4 numbers, as in most files, found no action"], loses=[NPZ]),
    Case("two arrays of actions", "npz_episodes", "F28", lambda r: arrays(r / NPZ, actions=np.zeros((12, 4))),
         [f"{NPZ}: expected one array of each action, found action and actions"], loses=[NPZ]),
    Case("a claimed shape of terabytes", "npz_episodes", "F25", lambda r: claim(r / NPZ, (10**9, 64, 64, 3)),
         [f"{NPZ}, image: expected at most 2147483648 bytes, found 12288000000000"], loses=[NPZ]),
    Case("an archive that leads elsewhere", "npz_episodes", "F31", lambda r: strange_member(r / NPZ, "../image.npy"),
         [f"{NPZ}, ../image.npy: expected the plain name of an array, found a path that leads elsewhere"],
         loses=[NPZ]),
    Case("fewer actions than pictures", "npz_episodes", "F29", lambda r: arrays(r / NPZ, action=lambda v: v[:-2]),
         [f"{NPZ}, action: expected 12 rows, one for each frame, found 10"], loses=[NPZ]),
    Case("an episode without pictures", "npz_episodes", "F29",
         lambda r: arrays(r / NPZ, image=lambda v: v[:0], action=lambda v: v[:0]),
         [f"{NPZ}, image: expected pictures, found none, with shape (0, 16, 16, 3)"], loses=[NPZ]),
    Case("an archive shorter than asked", "npz_episodes", "F30", lambda r: None,
         ["val/d.npz: expected 10 frames or more, found 9"], length=10),
    Case("a pipe for an archive", "npz_episodes", "F31", lambda r: as_pipe(r / "test/e.npz"),
         ["test/e.npz: expected a plain file or a folder, found a pipe, socket or device"], loses=["test/e.npz"]),
    Case("a folder for an archive", "npz_episodes", "F31", lambda r: as_folder(r / NPZ),
         [f"{NPZ}: expected a file (.npz), found a folder"], loses=[NPZ]),
    Case("a device for an archive", "npz_episodes", "F31", lambda r: as_link(r / NPZ, "/dev/zero"),
         [f"{NPZ}: expected a file, or a link that stays inside the source, found a link to /dev/zero"], loses=[NPZ]),
    Case("odd names of archives", "npz_episodes", "F32",
         lambda r: odd_names(r, NPZ, "train/b.npz", "train/c.npz", "val/d.npz", "test/e.npz", keep=".npz"),
         loses=["test/e.npz", NPZ, "train/b.npz", "train/c.npz", "val/d.npz"], gains=[f"test/{ODD[4][:251]}.npz",
          f"train/{ODD[1]}.npz",
          "train/line\\nbreak.npz",
          f"train/{ODD[0]}.npz",
          f"val/{ODD[3]}.npz"]),
    Case("an archive rewritten while reading", "npz_episodes", "F34",
         lambda r: arrays(r / NPZ, image=lambda v: v[:7], action=lambda v: v[:7]),
         [f"{NPZ}, image: expected rows 0 to 11, found 7 rows"], loses=[NPZ], late=True),
    Case("an archive in two splits", "npz_episodes", "F35", lambda r: shutil.copy(r / "train/b.npz", r / "val/z.npz"),
         ["val/z.npz: expected clips that are in one split only, found the same frames as train/b.npz (train)"]),
    Case("a black archive", "npz_episodes", "F36", lambda r: arrays(r / NPZ, image=np.zeros_like),
         warned=[f"{NPZ}: every frame is black"]),
    # rlds_npz
    Case("steps cut short", "rlds_npz", "F25", lambda r: half(r / STEPS),
         [f"{STEPS}: expected the directory at the end of a zip archive, found none: the file is cut short"],
         loses=[f"{STEPS}/0", f"{STEPS}/1"]),
    Case("steps with pictures of floats", "rlds_npz", "F26",
         lambda r: arrays(r / "train/1.npz", observation__image=lambda v: v.astype(np.float32)),
         ["train/1.npz, observation/image: expected pictures as uint8, so that no scale is guessed; scale them "
          "to 0 to 255, round, and save them as uint8, found float32 of shape (9, 16, 16, 3)"], loses=["train/1.npz"]),
    Case("an episode that does not begin", "rlds_npz", "F27", lambda r: arrays(r / STEPS, is_first=put(0, False)),
         [f"{STEPS}, is_first: expected step 0 to be the first of an episode, found false"],
         loses=[f"{STEPS}/0", f"{STEPS}/1"]),
    Case("ends that are no ends", "rlds_npz", "F27", lambda r: arrays(r / STEPS, is_last=put(4, True)),
         [f"{STEPS}, is_last: expected step 4 to be no last one of an episode, found true"],
         loses=[f"{STEPS}/0", f"{STEPS}/1"]),
    Case("a nan action amid an episode", "rlds_npz", "F28", lambda r: arrays(r / STEPS, action=put((13, 0), np.nan)),
         [f"{STEPS}, episode 1, frame 3, action.0: expected a finite number within float32, found nan"],
         loses=[f"{STEPS}/1"]),
    Case("flags that are no flags", "rlds_npz", "F28", lambda r: arrays(r / STEPS, is_first=lambda v: v * 2),
         [f"{STEPS}, is_first: expected flags: true or false, found 2"], loses=[f"{STEPS}/0", f"{STEPS}/1"]),
    Case("texts for actions", "rlds_npz", "F28", lambda r: arrays(r / STEPS, action=lambda v: v.astype(str)),
         [f"{STEPS}, action: expected a row of numbers for each step, found texts"],
         loses=[f"{STEPS}/0", f"{STEPS}/1"]),
    Case("steps without actions", "rlds_npz", "F28", lambda r: arrays(r / "train/1.npz", action=None),
         ["train/1.npz: expected action of 4 numbers, as in most files, found no action"], loses=["train/1.npz"]),
    Case("fewer pictures than steps", "rlds_npz", "F29",
         lambda r: arrays(r / "train/1.npz", observation__image=lambda v: v[:-1]),
         ["train/1.npz, observation/image: expected 9 rows, one for each step, found 8"], loses=["train/1.npz"]),
    Case("an episode of steps shorter than asked", "rlds_npz", "F30", lambda r: None,
         [f"{STEPS}/1: expected 9 frames or more, found 8", "val/0.npz/0: expected 9 frames or more, found 8"],
         length=9),
    Case("a pipe for steps", "rlds_npz", "F31", lambda r: as_pipe(r / STEPS),
         [f"{STEPS}: expected a plain file or a folder, found a pipe, socket or device"],
         loses=[f"{STEPS}/0", f"{STEPS}/1"]),
    Case("odd names of steps", "rlds_npz", "F32", lambda r: odd_names(r, STEPS, "train/1.npz", keep=".npz"),
         loses=[f"{STEPS}/0", f"{STEPS}/1", "train/1.npz"],
         gains=[f"train/{ODD[1]}.npz", f"train/{ODD[0]}.npz/0", f"train/{ODD[0]}.npz/1"]),
    Case("steps gone while reading", "rlds_npz", "F34", lambda r: (r / STEPS).unlink(),
         [f"{STEPS}: expected a file that can be read, found No such file or directory"],
         loses=[f"{STEPS}/0", f"{STEPS}/1"], late=True),
    Case("steps in two splits", "rlds_npz", "F35", lambda r: shutil.copy(r / "train/1.npz", r / "val/9.npz"),
         ["val/9.npz: expected clips that are in one split only, found the same frames as train/1.npz (train)"]),
    Case("steps that never change", "rlds_npz", "F36",
         lambda r: arrays(r / "train/1.npz", observation__image=lambda v: v * 0 + 50),
         warned=["train/1.npz: every frame is the same"]),
    # robomimic
    Case("demonstrations cut short", "robomimic", "F25", lambda r: half(r / LIFT),
         [f"{LIFT}: expected an HDF5 file, whole and undamaged, found … of … bytes: the file is cut short"],
         loses=[f"{LIFT}/demo_10", f"{LIFT}/demo_8", f"{LIFT}/demo_9"]),
    Case("an empty file of demonstrations", "robomimic", "F25", lambda r: empty(r / LIFT),
         [f"{LIFT}: expected an HDF5 file, found an empty file"],
         loses=[f"{LIFT}/demo_10", f"{LIFT}/demo_8", f"{LIFT}/demo_9"]),
    Case("pictures of floats in a demonstration", "robomimic", "F26",
         lambda r: dataset(r / LIFT, PIXELS, lambda v: v / 255),
         [f"{LIFT}, {PIXELS}: expected pictures as uint8, so that no scale is guessed; scale them to 0 to 255, "
          "round, and save them as uint8, found float64 of shape (12, 16, 16, 3)"], loses=[f"{LIFT}/demo_8"]),
    Case("a nan action of a demonstration", "robomimic", "F28",
         lambda r: dataset(r / LIFT, ACTIONS, put((4, 1), np.nan)),
         [f"{LIFT}, {DEMO}, frame 4, action.1: expected a finite number within float32, found nan"],
         loses=[f"{LIFT}/demo_8"]),
    Case("actions of another width in a demonstration", "robomimic", "F28",
         lambda r: dataset(r / LIFT, ACTIONS, lambda v: v[:, :3]),
         [f"{LIFT}, {ACTIONS}: expected 4 numbers in a row, as in most demonstrations, found 3"],
         loses=[f"{LIFT}/demo_8"]),
    Case("no actions in a demonstration", "robomimic", "F28",
         lambda r: hdf5(r / LIFT, lambda f: f.__delitem__(ACTIONS)),
         [f"{LIFT}, {ACTIONS}: expected it to be there, found nothing of this name"], loses=[f"{LIFT}/demo_8"]),
    Case("no pictures in a demonstration", "robomimic", "F28",
         lambda r: hdf5(r / LIFT, lambda f: f.__delitem__(PIXELS)),
         [f"{LIFT}, {PIXELS}: expected pictures of this camera in obs, found none"], loses=[f"{LIFT}/demo_8"]),
    Case("texts for actions of a demonstration", "robomimic", "F28",
         lambda r: dataset(r / LIFT, ACTIONS, lambda v: np.full(v.shape, b"1")),
         [f"{LIFT}, {ACTIONS}: expected plain numbers, found texts"], loses=[f"{LIFT}/demo_8"]),
    Case("fewer actions than frames", "robomimic", "F29", lambda r: hdf5(r / LIFT, fewer_actions),
         [f"{LIFT}, {ACTIONS}: expected 12 rows, one for each frame, found 10"], loses=[f"{LIFT}/demo_8"]),
    Case("another number of samples", "robomimic", "F29",
         lambda r: hdf5(r / LIFT, lambda f: f[DEMO].attrs.__setitem__("num_samples", 13)),
         [f"{LIFT}, {DEMO}: expected 13 samples, as its attribute says, found 12 actions"], loses=[f"{LIFT}/demo_8"]),
    Case("a mask of a demonstration that is not there", "robomimic", "F29",
         lambda r: dataset(r / LIFT, "mask/train", lambda v: np.array(["demo_8", "demo_9", "demo_77"], "S")),
         [f"{LIFT}, mask/train: expected names of groups in data, found demo_77"]),
    Case("a claimed shape of pictures", "robomimic", "F25", lambda r: hdf5(r / LIFT, claim_pictures),
         [f"{LIFT}, {PIXELS}: expected 1000000000 chunks for shape 1000000000x64x64x3, found 0 of 0 bytes"],
         loses=[f"{LIFT}/demo_8"]),
    Case("a demonstration shorter than asked", "robomimic", "F30", lambda r: None,
         ["can.hdf5/demo_2: expected 11 frames or more, found 10",
          f"{LIFT}/demo_10: expected 11 frames or more, found 10"], length=11),
    Case("pictures behind a link", "robomimic", "F31",
         lambda r: hdf5(r / LIFT, lambda f: link_pictures(f, h5py.SoftLink("/data/demo_9/obs/agentview_image"))),
         [f"{LIFT}, {PIXELS}: expected data in this place of this file, found a soft link"], loses=[f"{LIFT}/demo_8"]),
    Case("pictures in another file", "robomimic", "F31",
         lambda r: hdf5(r / LIFT, lambda f: link_pictures(f, h5py.ExternalLink("/etc/passwd", "/x"))),
         [f"{LIFT}, {PIXELS}: expected data in this place of this file, found a link to another file"],
         loses=[f"{LIFT}/demo_8"]),
    Case("a pipe for demonstrations", "robomimic", "F31", lambda r: as_pipe(r / "can.hdf5"),
         ["can.hdf5: expected a plain file or a folder, found a pipe, socket or device"],
         loses=["can.hdf5/demo_1", "can.hdf5/demo_2"]),
    Case("odd names of demonstrations", "robomimic", "F32", lambda r: odd_names(r, LIFT, "can.hdf5", keep=".hdf5"),
         loses=["can.hdf5/demo_1", "can.hdf5/demo_2", f"{LIFT}/demo_10", f"{LIFT}/demo_8", f"{LIFT}/demo_9"],
         gains=[f"{ODD[1]}.hdf5/demo_1",
          f"{ODD[1]}.hdf5/demo_2",
          f"{ODD[0]}.hdf5/demo_10",
          f"{ODD[0]}.hdf5/demo_8",
          f"{ODD[0]}.hdf5/demo_9"]),
    Case("a demonstration rewritten while reading", "robomimic", "F34",
         lambda r: dataset(r / LIFT, PIXELS, lambda v: v[:5]),
         [f"{LIFT}, {PIXELS}: expected rows 0 to 11, found 5 rows"], loses=[f"{LIFT}/demo_8"], late=True),
    Case("a demonstration in two masks", "robomimic", "F35",
         lambda r: dataset(r / LIFT, "mask/valid", lambda v: np.array(["demo_9", "demo_10"], "S")),
         [f"{LIFT}, mask/valid: expected demo_9 in one mask, found also in that of train"]),
    Case("the same pictures in two masks", "robomimic", "F35", lambda r: hdf5(r / LIFT, same_demo),
         [f"{LIFT}/demo_10: expected clips that are in one split only, found the same frames as {LIFT}/demo_9 "
          "(train)"], loses=[f"{LIFT}/demo_10"]),
    Case("a black demonstration", "robomimic", "F36", lambda r: dataset(r / LIFT, PIXELS, np.zeros_like),
         warned=[f"{LIFT}/demo_8: every frame is black"]),
    # robonet
    Case("a trajectory cut short", "robonet", "F25", lambda r: half(r / MP4),
         [f"{MP4}: expected an HDF5 file, whole and undamaged, found … of … bytes: the file is cut short"],
         loses=[MP4]),
    Case("a damaged JPEG", "robonet", "F25", lambda r: dataset(r / JPEGS, FRAME_3, lambda v: v[: len(v) // 2]),
         [f"{JPEGS}, {FRAME_3}: expected a JPEG that decodes, found Truncated File Read"], loses=[JPEGS]),
    Case("a damaged film", "robonet", "F25",
         lambda r: dataset(r / MP4, FRAMES, lambda v: put(slice(60, len(v) // 2), 165)(v)),
         [f"{MP4}, {FRAMES}, frame …: expected …, found …"], loses=[MP4]),
    Case("a JPEG of another size", "robonet", "F26", lambda r: dataset(r / JPEGS, FRAME_3, lambda v: jpeg("RGB", 16)),
         [f"{JPEGS}, {FRAME_3}: expected 32x32 pixels as the first frame, found 16x16"], loses=[JPEGS]),
    Case("a JPEG in CMYK", "robonet", "F26", lambda r: dataset(r / JPEGS, FRAME_3, lambda v: jpeg("CMYK")),
         [f"{JPEGS}, {FRAME_3}: expected a JPEG in RGB or grey, found one in CMYK"], loses=[JPEGS]),
    Case("a JPEG that is missing", "robonet", "F27", lambda r: hdf5(r / JPEGS, lambda f: f.__delitem__(FRAME_3)),
         [f"{JPEGS}, {CAM}: expected frames (an MP4), or frame0 to frame8, found no frame3"], loses=[JPEGS]),
    Case("a nan action of a robot", "robonet", "F28",
         lambda r: dataset(r / MP4, "policy/actions", put((4, 1), np.nan)),
         [f"{MP4}, frame 4, action.1: expected a finite number within float32, found nan"], loses=[MP4]),
    Case("a nan state of a robot, which is not chosen", "robonet", "F28",
         lambda r: dataset(r / MP4, "env/state", put((3, 0), np.inf))),
    Case("another robot", "robonet", "F28", lambda r: dataset(r / MP4, "policy/actions", lambda v: v[:, :3]),
         [f"{MP4}: expected actions of 4 and states of 5 numbers, as in most files, found 3 and 5: another "
          "robot? Keep each in a folder of its own, or skip these"], loses=[MP4]),
    Case("a film shorter than it says", "robonet", "F29",
         lambda r: hdf5(r / MP4, lambda f: [f[FRAMES].attrs.__setitem__("T", 9), lengthen(f)]),
         [f"{MP4}, {FRAMES}: expected 9 frames as its attribute says, found 8"], loses=[MP4]),
    Case("fewer states than frames", "robonet", "F29", lambda r: dataset(r / MP4, "env/state", lambda v: v[:-1]),
         [f"{MP4}, env/state: expected 8 rows, one for each frame, found 7"], loses=[MP4]),
    Case("a trajectory shorter than asked", "robonet", "F30", lambda r: None,
         [f"{MP4}: expected 9 frames or more, found 8",
          "berkeley_sawyer_traj47.hdf5: expected 9 frames or more, found 8",
          "berkeley_sawyer_traj77.hdf5: expected 9 frames or more, found 8"], length=9),
    Case("a pipe for a trajectory", "robonet", "F31", lambda r: as_pipe(r / MP4),
         [f"{MP4}: expected a plain file or a folder, found a pipe, socket or device"], loses=[MP4]),
    Case("a trajectory outside of the source", "robonet", "F31", lambda r: outside(r / MP4, r),
         [f"{MP4}: expected a file, or a link that stays inside the source, found a link to …elsewhere"], loses=[MP4]),
    Case("a list of tests with a path in it", "robonet", "F31",
         lambda r: (r / "robonet_testset_filenames.txt").write_text("../x.hdf5\n"),
         ["robonet_testset_filenames.txt, line 1: expected the name of a file (.hdf5), found '../x.hdf5'"]),
    Case("odd names of trajectories", "robonet", "F32", lambda r: odd_names(r, MP4, JPEGS, keep=".hdf5"),
         loses=[MP4, JPEGS], gains=[f"{ODD[1]}.hdf5", f"{ODD[0]}.hdf5"]),
    Case("a trajectory gone while reading", "robonet", "F34", lambda r: (r / MP4).unlink(),
         [f"{MP4}: expected a file that can be read, found No such file or directory"], loses=[MP4], late=True),
    Case("a trajectory in two splits", "robonet", "F35",
         lambda r: shutil.copy(r / MP4, r / "berkeley_sawyer_traj62.hdf5"),
         ["berkeley_sawyer_traj62.hdf5: expected clips that are in one split only, found the same frames as "
          f"{MP4} (val)"], loses=["berkeley_sawyer_traj62.hdf5"]),
    Case("a black trajectory of a robot", "robonet", "F36",
         lambda r: [dataset(r / JPEGS, f"{CAM}/frame{i}", lambda v: jpeg("RGB")) for i in range(9)],
         warned=[f"{JPEGS}: every frame is black"]),
)
# fmt: on


ALL_LAYOUTS = tuple(layouts())
KINDS = tuple(f"F{number}" for number in range(25, 37))
SHORT = [case for case in CASES if case.length]
REST = [case for case in CASES if not case.length]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.start}: {case.name}")
every_import = pytest.mark.parametrize("case", REST, ids=lambda case: f"{case.start}: {case.name}")


class Zoo:
    """The examples, their packs and the bad folders, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start, self.whole, self.names = cache(self._start), cache(self._whole), cache(self._names)
        self._bad = cache(self._made)

    def bad(self, case: Case) -> Path:
        """The folder of a case; anew where it is going to be damaged while it is read."""
        return self._made(case) if case.late else self._bad(case)

    def _start(self, start: str) -> Path:
        path = self.folder / start.replace(":", "-")
        (films if start == "lerobot:films" else layouts()[start].example)(path)
        return path

    def _whole(self, start: str) -> Pack:
        return import_clips(self.start(start), self.folder / f"pack-{start.replace(':', '-')}")

    def _names(self, start: str) -> frozenset[str]:
        """Every file and folder of an example."""
        return frozenset(path.relative_to(self.start(start)).as_posix() for path in self.start(start).rglob("*"))

    def _made(self, case: Case) -> Path:
        root = self.folder / "bad" / str(CASES.index(case)) / "source"
        if root.parent.exists():
            shutil.rmtree(root.parent)
        shutil.copytree(self.start(case.start), root)
        if not case.late:
            case.damage(root)
        return root


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@contextmanager
def living(case: Case, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The conditions under which a folder is read, and no longer than `SECONDS`."""
    real_scandir, real_open = os.scandir, open_source

    def guarded(path: Any = ".") -> Any:
        if isinstance(path, int) or not Path(path).is_relative_to(root):
            return real_scandir(path)
        if case.denied and Path(path) == root / case.denied:
            raise PermissionError(13, "Permission denied")
        return Backwards(real_scandir(path)) if case.backwards else real_scandir(path)

    def damaged_behind(folder: Path, *given: Any) -> Any:
        source = real_open(folder, *given)
        case.damage(folder)
        return source

    with monkeypatch.context() as patch:
        if (
            case.denied or case.backwards or case.late
        ):  # patched in this process only, so it has to be the one that reads
            patch.setattr(Readers, "call", lambda self, job, source: job())
            patch.setattr(Readers, "_wanted", lambda self, clips: 0)
        if case.denied or case.backwards:
            patch.setattr("foreframe.data.formats.folders.os.scandir", guarded)
        if case.late:
            patch.setattr(check, "open_source", damaged_behind)
            patch.setattr(importing, "open_source", damaged_behind)
        old = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, old)


def _too_long(*_: object) -> None:
    raise AssertionError(f"this took more than {SECONDS} s")


class Backwards:
    """What `os.scandir` gives, in falling order."""

    def __init__(self, entries: Any) -> None:
        with entries:
            self.left = sorted(entries, key=lambda entry: entry.name)

    def __enter__(self) -> Backwards:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Backwards:
        return self

    def __next__(self) -> Any:
        if not self.left:
            raise StopIteration
        return self.left.pop()

    def close(self) -> None:
        pass


def insist(found: Sequence[object], told: Sequence[str]) -> None:
    """That these are the lines, in this order; an ellipsis in `told` stands for anything."""
    patterns = [re.compile(".*".join(map(re.escape, words.split("…"))), re.DOTALL) for words in told]
    lines = [str(line) for line in found]
    assert len(lines) == len(patterns), lines
    for line, pattern, words in zip(lines, patterns, told, strict=True):
        assert pattern.fullmatch(line), f"expected: {words}\n   found: {line}"


def test_there_are_folders_of_every_layout_and_every_kind():
    assert len(CASES) >= 80
    assert len({(case.start, case.name) for case in CASES}) == len(CASES)
    starts = [case.start.split(":")[0] for case in CASES]
    assert set(starts) == set(ALL_LAYOUTS)
    assert min(starts.count(name) for name in ALL_LAYOUTS) >= 4
    assert {case.kind for case in CASES} == set(KINDS)
    assert sum(bool(case.told) for case in CASES) >= 60


@every_case
def test_a_scan_finds_just_what_is_wrong_with_path_and_place_and_the_command_says_so(
    case: Case, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, figure
):
    root, json_path = zoo.bad(case), tmp_path / "report.json"
    monkeypatch.setenv("COLUMNS", "2000")
    code: object = 0
    with living(case, root, monkeypatch):
        try:
            words = ["--workers", "0", "--length", str(case.length), "--json", str(json_path)]
            main(["data", "check", str(root), *words])
        except SystemExit as stop:
            code = stop.code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert "--debug" not in err
    assert code == (1 if case.told else 0)
    report = json.loads(json_path.read_text(encoding="utf-8"))
    faults = [Fault(**values) for values in report["faults"]]
    insist(faults, case.told)
    insist([line for line in report["warnings"] if not line.startswith("alignment: ")], case.warned)
    for fault in faults:
        assert not fault.path.startswith("/")
        assert str(root) not in str(fault)
        there = os.path.lexists(root / fault.path) or fault.path in zoo.names(case.start)
        assert there or (root / fault.path).parent.is_dir() or fault.path in clips_of(case, root, monkeypatch)
        assert f"  {fault.path}\n" in out
        assert f"{fault.where}: " * bool(fault.where) + f"expected {fault.expected}, found {fault.found}\n" in out
    for line in case.warned:
        assert f"warning: {line}" in out
    assert ("nothing wrong found" in out) == (not case.told)
    if case.told or case.warned:
        figure("bad folders found at the scan", 1, 1)
    else:
        figure("odd but good folders not complained about", 1, 1)


def clips_of(case: Case, root: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    with living(case, root, monkeypatch):
        return {clip.name for clip in open_source(root, None, Options()).clips}


@every_import
def test_an_import_that_stops_packs_nothing_and_leaves_nothing(
    case: Case, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    root = zoo.bad(case)
    with living(case, root, monkeypatch):
        if case.told:
            with pytest.raises(DataError) as caught:
                import_clips(root, tmp_path / "pack")
            insist(caught.value.faults, case.told)
            assert not any(tmp_path.iterdir())
        else:
            check_rest(case, zoo, import_clips(root, tmp_path / "pack"))
            assert [path.name for path in tmp_path.iterdir()] == ["pack"]


@every_import
def test_an_import_that_skips_packs_the_rest_and_lists_what_it_left_out(
    case: Case, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    root = zoo.bad(case)
    with living(case, root, monkeypatch):
        if case.loses is ALL:
            with pytest.raises(DataError) as caught:
                import_clips(root, tmp_path / "pack", on_bad="skip")
            insist(caught.value.faults, case.told)
            assert not any(tmp_path.iterdir())
            return
        pack = import_clips(root, tmp_path / "pack", on_bad="skip")
    check_rest(case, zoo, pack)
    reasons = [reason for item in pack.manifest.left_out for reason in item.reasons]
    for words in case.told:
        assert any(re.fullmatch(".*".join(map(re.escape, words.split("…"))), reason) for reason in reasons), words
    assert bool(reasons) == bool(case.told)


def check_rest(case: Case, zoo: Zoo, pack: Pack) -> None:
    """That nothing is lost, or else, but what has to be."""
    whole = zoo.whole(case.start)
    before, after = ({episode.name: episode for episode in each.episodes} for each in (whole, pack))
    assert sorted(before.keys() - after.keys()) == sorted(case.loses)
    assert sorted(after.keys() - before.keys()) == sorted(case.gains)
    if case.kind == "F36":  # the table does not say which of them is black
        return
    for name in before.keys() & after.keys() - {*case.anew}:
        for one, other in zip(
            whole.read(before[name], 0, before[name].length), pack.read(after[name], 0, after[name].length), strict=True
        ):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("case", SHORT, ids=lambda case: f"{case.start}: {case.name}")
def test_clips_shorter_than_a_window_are_not_packed(
    case: Case, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    root, options = zoo.bad(case), Options(window=case.length)
    lengths = {clip.name: clip.length for clip in open_source(root, None, Options()).clips}
    long = {name for name, length in lengths.items() if length >= case.length}
    with living(case, root, monkeypatch):
        if not long:
            with pytest.raises((DataError, UsageError), match="31 frames long"):
                import_clips(root, tmp_path / "pack", options=options)
            assert not any(tmp_path.iterdir())
            return
        pack = import_clips(root, tmp_path / "pack", options=options)
    assert {episode.length for episode in pack.episodes} == {case.length}
    assert len(pack.episodes) == len(long) < len(lengths)


def test_numbers_count_and_not_the_order_of_names(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cases = [case for case in CASES if case.backwards]
    assert len(cases) >= 4
    for case in cases:
        with living(case, zoo.bad(case), monkeypatch):
            pack = import_clips(zoo.bad(case), tmp_path / case.start)
        assert [episode.name for episode in pack.episodes] == [e.name for e in zoo.whole(case.start).episodes]
        np.testing.assert_array_equal(pack.frames, zoo.whole(case.start).frames)


def test_a_pack_that_changed_after_it_was_made_is_told(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "2000")
    pack = import_clips(zoo.start("bair_lab"), tmp_path / "pack")
    for name in ("frames.npy", "cond.npy", "episodes.json"):
        content = (pack.path / name).read_bytes()
        flip(pack.path / name, 200)
        with pytest.raises(SystemExit):
            main(["data", "check", str(pack.path)])
        out, err = capsys.readouterr()
        assert name in out + err
        assert "Traceback" not in out + err
        (pack.path / name).write_bytes(content)
    main(["data", "check", str(pack.path)])


# -- generated tables (B4)

ODD_FIELDS = (
    *(
        "nan",
        "NaN",
        "-inf",
        "Infinity",
        "1e400",
        "-1e39",
        "1_0",
        "0x1",
        "\u0661",
        "\uff11",
        '"1"',
        "'1'",
        "1\0",
        "\ufeff1",
    ),
    *("", " ", ".", "-", "1e", "1e+", "--1", "1 2", "x", "1\r", "1;2", "\u2212" + "1", "1\n"),
)
ODD_SIGNS = "0123456789.,+-eE_ \n\r\tnaif\0\u0663\ufeff\"';x"


def drawn_table(seed: int) -> bytes:
    """A table of 3 rows of 2 numbers in some way of writing them; every other one is damaged."""
    draw = Random(seed)
    ways: list[Callable[[], str]] = [
        lambda: repr(draw.uniform(-1e3, 1e3)),
        lambda: f"{draw.gauss(0, 10.0 ** draw.randint(-40, 37)):.18e}",
        lambda: str(draw.randint(-(10**6), 10**6)),
        lambda: draw.choice(["+.5", "5.", "-0", " 1 ", "\t2e3", "1E-400", "3.4e38", "00012"]),
    ]
    table = [[draw.choice(ways)() for _ in range(2)] for _ in range(3)]
    end = draw.choice(["\n", "\r\n"])
    text = end.join(map(",".join, table)) + draw.choice(["", end, " \n\n"])
    if draw.random() < 0.5:
        return text.encode()
    place, way = draw.randrange(len(text)), draw.randrange(6)
    if way == 0:
        table[draw.randrange(3)][draw.randrange(2)] = draw.choice(ODD_FIELDS)
        text = end.join(map(",".join, table))
    elif way == 1:
        text = text[:place] + draw.choice(ODD_SIGNS) + text[place:]
    elif way == 2:
        text = text[:place] + text[place + 1 :]
    elif way == 3:
        text = draw.choice(["\ufeff", "a,b\n", "\n", "1,2\n", "#"]) + text
    elif way == 4:
        text = text.replace(*draw.choice([(",", ";"), (",", "\t"), (end, "\r"), (end, end + end), (".", ",")]))
    else:
        text = text + draw.choice(["\0", ",", "1,2", "\x1a", "\u0661"])
    return text.encode()


TABLES = st.integers(0, 2**64).map(drawn_table)
TEXTS = st.one_of(
    TABLES, TABLES, TABLES, st.text(alphabet=ODD_SIGNS + "[]{}:", max_size=40).map(str.encode), st.binary(max_size=40)
)


def exactly(content: bytes, columns: int, rows: int) -> list[list[float]] | None:
    """What a table holds by its definition, read in another way than the reader does; None where it is none."""
    lines = content.rstrip(b" \t\r\n").split(b"\n")
    if len(lines) != rows or not content.strip():
        return None
    values = []
    for raw in lines:
        fields = [field.strip(b" \t") for field in raw.removesuffix(b"\r").split(b",")]
        if len(fields) != columns or any(set(field) - set(b"0123456789.+-eE") for field in fields):
            return None
        try:
            values.append([float(field) for field in fields])
        except ValueError:
            return None
        if not all(abs(value) <= float(np.finfo(np.float32).max) for value in values[-1]):
            return None
    return values


def check_table(folder: Path, content: bytes) -> None:
    path = folder / "t.csv"
    path.write_bytes(content)
    wanted = exactly(content, 2, 3)
    values, faults = read_table(path, "t.csv", 2, 3)
    assert values.shape == (3, 2)
    assert np.isfinite(values).all()
    assert (wanted is None) == bool(faults)
    if wanted is not None:
        np.testing.assert_array_equal(values, np.array(wanted, np.float32))
    assert all(isinstance(fault, Fault) and fault.path == "t.csv" and str(fault).isprintable() for fault in faults)
    for name in ("t.csv", "t.json"):
        (folder / name).write_bytes(content)
        table, names, wrong = read_named_table(folder / name, name, 3)
        assert np.isfinite(table).all()
        assert len(table) == 3
        assert wrong or len(names) in (0, table.shape[1])
        assert all(str(fault).isprintable() for fault in wrong)


def check_tables(folder: Path, number: int, figure) -> None:
    seen = 0

    @settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(TEXTS)
    def run(content: bytes) -> None:
        nonlocal seen
        check_table(folder, content)
        seen += 1

    run()
    figure("CSV texts read exactly or refused", seen, number)


def test_a_table_is_taken_exactly_or_refused(zoo: Zoo, figure):
    check_tables(zoo.folder, 2_000, figure)


@pytest.mark.nightly
@pytest.mark.parametrize("batch", range(10))
def test_a_hundred_thousand_tables_are_taken_exactly_or_refused(zoo: Zoo, batch: int, figure):
    check_tables(zoo.folder, 10_000, figure)


# -- bombs (B6)

ROOM = 64 * 2**20


def memory(key: str) -> int:
    """Bytes of this process by Linux: VmRSS now, VmHWM at most."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@contextmanager
def little(seconds: float) -> Iterator[None]:
    """Fails if what happens here takes long, or more than 64 MiB at any time."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("needs Linux to tell the most memory that was in use")
    reset.write_text("5")
    before, start = memory("VmRSS"), time.perf_counter()
    yield
    assert time.perf_counter() - start < seconds
    assert memory("VmHWM") - before < ROOM


def bomb_png(side: int, claimed: int) -> bytes:
    """A PNG of side x side black pixels whose header claims another size."""
    squeezed = zlib.compressobj(9)
    line = bytes(1 + 3 * side)
    data = b"".join(squeezed.compress(line) for _ in range(side)) + squeezed.flush()
    head = struct.pack(">IIBBBBB", claimed, claimed, 8, 2, 0, 0, 0)
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_picture_that_grows_is_refused_by_its_header(zoo: Zoo, tmp_path: Path):
    large, hidden = bomb_png(8192, 8192), bomb_png(8192, 16)
    shutil.copytree(zoo.start("bair_lab"), tmp_path / "bair")
    shutil.copytree(zoo.start("lerobot"), tmp_path / "lerobot")
    scan(tmp_path / "bair")
    scan(tmp_path / "lerobot")
    for data, words in ((large, "16x16 pixels"), (hidden, "")):
        (tmp_path / "bair" / ONE / "4.png").write_bytes(data)
        rows(tmp_path / "lerobot" / DATA, lambda t, data=data: t[3].update({TOP: {"bytes": data, "path": None}}))
        for name in ("bair", "lerobot"):
            with little(3):
                faults = scan(tmp_path / name).faults
            assert len(faults) <= 1
            assert not words or words in str(faults[0])


BOMBS = (
    "a claimed length of 2^62",
    "a claimed shape of terabytes",
    "a claimed shape of pictures",
    "a claim of four billion digits",
    "a million brackets of JSON",
    "brackets without end",
    "brackets without end in info.json",
)


@pytest.mark.parametrize("name", BOMBS)
def test_what_claims_too_much_is_refused_by_its_header(zoo: Zoo, name: str):
    case = next(case for case in CASES if case.name == name)
    root = zoo.bad(case)
    scan(zoo.start(case.start))
    with little(2):
        report = scan(root)
    insist(report.faults, case.told)


def test_packed_zeros_are_not_unpacked_beyond_what_the_header_says(zoo: Zoo, tmp_path: Path):
    shutil.copytree(zoo.start("moving_mnist"), tmp_path / "digits")
    with gzip.open(tmp_path / "digits" / TEST_DIGITS, "wb", compresslevel=1) as file:
        file.write(struct.pack(">IIII", 2051, 4, 28, 28))
        for _ in range(96):
            file.write(bytes(2**20))
    with little(2):
        faults = scan(tmp_path / "digits").faults
    insist(faults, [f"{TEST_DIGITS}: expected 3136 bytes of digits, found more"])


def test_a_long_episode_of_packed_zeros_is_read_in_little_memory(zoo: Zoo, tmp_path: Path):
    shutil.copytree(zoo.start("npz_episodes"), tmp_path / "npz")
    frames = np.zeros((512, 256, 256, 3), np.uint8)
    np.savez_compressed(tmp_path / "npz" / NPZ, image=frames, action=np.zeros((512, 4), np.float32))
    del frames
    assert (tmp_path / "npz" / NPZ).stat().st_size < 2**20
    with little(20):
        report = scan(tmp_path / "npz")
    insist(report.faults, [])
    insist([line for line in report.warnings if not line.startswith("alignment: ")], [f"{NPZ}: every frame is black"])
