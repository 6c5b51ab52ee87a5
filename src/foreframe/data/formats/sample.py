"""The samples that come with foreframe: simulated clips in files of a few MB, for a first run without data.

    push    a robot arm that pushes objects about, with its actions        (`sim.push`)
    dance   people who dance, with a picture of the pose of each frame     (`sim.dance`)

On disk: a line that names the format, one line of JSON (the clips, how they were made, the SHA-256 of each after
decoding), the conditions (xz), the frames (one H.264 stream, 4:4:4, full range), and the SHA-256 of all that. The
conditions of `push` are float32; those of `dance` joints in whole 32nds of a pixel, as differences between frames, from
which the pose pictures are drawn again. Nothing in it can run code.

The sample IS the decoded frames, within about 44 dB (`push`) and 42 dB (`dance`) of what the simulator drew: a lossless
`push` had 20 MB. H.264 fixes decoding to the bit, and YCbCr becomes RGB in integers, so every machine sees the same
pixels; the hashes make sure. `sim.samples.build` makes a file again, in some minutes.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec, CondKind
from foreframe.errors import DataError, nearest
from foreframe.video.skeleton import OPENPOSE_25, draw_poses

PUSH = Path(__file__).parent / "samples" / "push.sample"
DANCE = PUSH.with_name("dance.sample")
FORMAT = b"foreframe sample 1\n"
UNIT = 32  # parts of a pixel, of which joints are stored as whole numbers


@dataclass(frozen=True)
class Sample:
    """Facts of a sample that is not open yet.

    cond: what stands beside each frame. columns: a name for each number of a row, or one for pictures. shift: row t
    leads into frame t + shift. fps: frames a second. splits: number of clips in each. crf: x264's quality. measured:
    the columns that are measured states, not controls.
    """

    path: Path
    cond: CondKind
    columns: tuple[str, ...]
    shift: int
    fps: float
    splits: Mapping[str, int]
    crf: float
    measured: tuple[str, ...] = ()


PUSH_COLUMNS = ("move_x", "move_y", "move_z", "gripper", "position_x", "position_y", "position_z")
SAMPLES = {
    "push": Sample(PUSH, "vector", PUSH_COLUMNS, 1, 10, {"train": 288, "val": 32, "test": 32}, 17, PUSH_COLUMNS[4:]),
    "dance": Sample(DANCE, "image", ("pose",), 0, 15, {"train": 80, "val": 10, "test": 10}, 20),
}

Row = tuple[str, str, NDArray[np.uint8], NDArray[Any]]
"""Name, split, frames (T, H, W, 3) uint8, and beside them, as recorded: of `push` float32 (T, 7), actions and positions
as in `sim.push.PushClip`; of `dance` uint8 (T, H, W, 3), the poses."""


@dataclass(frozen=True)
class SampleInfo:
    """A sample whose file is whole. sha256: of all clips, which can be gone through once. All else as in `Sample`."""

    name: str
    spec: ClipSpec
    columns: tuple[str, ...]
    shift: int
    fps: float
    sha256: str
    clips: Iterator[Row]
    measured: tuple[str, ...] = ()


def open_sample(name: str) -> SampleInfo:
    """A sample in the package by its name, one of SAMPLES. Raises DataError: as `decode_sample`, also by its clips."""
    if name not in SAMPLES:
        raise DataError(f"{name}: no such sample; there is {', '.join(SAMPLES)}{nearest(name, SAMPLES)}")
    about = SAMPLES[name]
    head, conditions, video = _read(about.path)
    with av.open(io.BytesIO(video), "r", format="h264") as container:
        height, width = container.streams.video[0].height, container.streams.video[0].width
    spec = ClipSpec(3, height, width, about.cond, 3 if about.cond == "image" else len(about.columns))
    clips = _decode(about.path, head, conditions, video)
    return SampleInfo(name, spec, about.columns, about.shift, about.fps, head["sha256"], clips, about.measured)


def decode_sample(path: str | Path = PUSH) -> Iterator[Row]:
    """The clips of a sample in stored order, each checked against its hash. Raises DataError: the file is missing,
    damaged or no sample, or decodes to other bytes than were stored."""
    return _decode(Path(path), *_read(Path(path)))


def header(path: str | Path = PUSH) -> dict[str, Any]:
    """The description in the file: seed, versions, splits, shapes, `name split SHA-256` of each clip, that of all."""
    return _read(Path(path))[0]


def clip_hash(head: Mapping[str, Any], clip: Row) -> str:
    """SHA-256, in hex, of frames, actions and positions, or of frames and poses: C order, little-endian."""
    _, _, frames, rows = clip
    parts = np.split(rows.astype("<f4"), head["columns"][:1], axis=1) if "columns" in head else [rows]
    return hashlib.sha256(b"".join(part.tobytes() for part in (frames, *parts))).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], NDArray[Any], bytes]:
    """Header, conditions (N, T, ...) and video of a file whose bytes are as they were written."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a foreframe sample, found no readable file ({error.strerror})") from error
    if not raw.startswith(FORMAT):
        raise DataError(f"{path}: expected a foreframe sample, which begins with {FORMAT!r}, found {raw[:20]!r}")
    body, stored = raw[:-32], raw[-32:]
    if (found := hashlib.sha256(body).digest()) != stored:
        given = f"its bytes should have SHA-256 {stored.hex()}, but have {found.hex()}"
        raise DataError(f"{path}: the file is damaged: {given}. Install foreframe again or get the file again")
    line, rest = body[len(FORMAT) :].split(b"\n", 1)
    head = json.loads(line)
    packed, video = rest[: head["conditions_bytes"]], rest[head["conditions_bytes"] :]
    return head, unpack(head, len(head["clips"]), packed), video


def _decode(path: Path, head: dict[str, Any], conditions: NDArray[Any], video: bytes) -> Iterator[Row]:
    stream = decode_video(video)
    for line, values in zip(head["clips"], conditions, strict=True):
        name, split, expected = line.split(" ")
        try:
            clip = build_clip(head, name, split, stream, values)
            found = clip_hash(head, clip)
        except (av.FFmpegError, ValueError) as error:  # ValueError: the stream ended early
            found = f"nothing ({error})"
        if found != expected:
            raise DataError(
                f"{path}: clip {name} should decode to SHA-256 {expected}, but decodes to {found}. The file itself is "
                f"whole, so the H.264 decoder of PyAV {av.__version__} is at fault: install another version of PyAV"
            )
        yield clip


def build_clip(
    head: Mapping[str, Any], name: str, split: str, stream: Iterator[NDArray[np.uint8]], values: NDArray[Any]
) -> Row:
    """One clip from the next frames of a stream and its unpacked conditions."""
    frames = np.stack(list(islice(stream, head["frames"])))
    if "joints" in head:
        values = draw_poses(values, OPENPOSE_25.bones, frames.shape[1:3])
    return name, split, frames, values


def unpack(head: Mapping[str, Any], clips: int, packed: bytes) -> NDArray[Any]:
    """Conditions of all clips: (N, T, A + P) of `push`, (N, T, J, 3) of `dance`, float32."""
    raw = lzma.decompress(packed)
    if "joints" not in head:
        shape = clips, head["frames"], sum(head["columns"])
        return _unshuffle(raw, "<f4").astype(np.float32).reshape(shape)
    steps = _unshuffle(raw, "<i2").reshape(clips, head["joints"], 3, head["frames"])
    whole = np.cumsum(np.moveaxis(steps, -1, 1), axis=1, dtype=np.int64)
    joints: NDArray[np.float32] = (whole / np.array([head["unit"], head["unit"], 1])).astype(np.float32)
    return joints


def _unshuffle(raw: bytes, kind: str) -> NDArray[Any]:
    """The numbers of `_squeeze`, in one dimension."""
    planes = np.frombuffer(raw, np.uint8).reshape(np.dtype(kind).itemsize, -1)
    numbers: NDArray[Any] = np.ascontiguousarray(planes.T).view(kind).reshape(-1)
    return numbers


def decode_video(video: bytes) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) uint8 RGB of a stream."""
    with av.open(io.BytesIO(video), "r", format="h264") as container:
        yield from map(_rgb, container.decode(video=0))


def _rgb(frame: Any) -> NDArray[np.uint8]:
    """The pixels of a frame of PyAV."""
    planes = [np.frombuffer(bytes(p), np.uint8).reshape(p.height, p.line_size) for p in frame.planes]
    return _to_rgb(np.stack(planes)[:, :, : frame.width])


def _to_rgb(ycc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W) YCbCr to (H, W, 3) RGB, the inverse of `_to_ycc` up to rounding; in integers."""
    y, b, r = ycc.astype(np.int32) - np.array([0, 128, 128], np.int32)[:, None, None]
    parts = [91881 * r, -22554 * b - 46802 * r, 116130 * b]
    rgb = np.stack([y + ((part + 32768) >> 16) for part in parts], axis=-1)
    return rgb.clip(0, 255).astype(np.uint8)
