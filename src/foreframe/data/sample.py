"""The sample that comes with foreframe: simulated pushing clips in one file of a few MB, for a first run without data.

On disk, in this order: a line that names the format, one line of JSON (what the clips are, how they were made, the
SHA-256 of each after decoding), the conditions (float32, xz), the frames (one H.264 stream, 4:4:4, full range), and
the SHA-256 of all that. Nothing in it can run code.

The sample IS the decoded frames: they lie within about 44 dB of what the simulator drew, and no further copy is kept.
H.264 fixes the result of decoding to the bit, and the step from YCbCr to RGB is done here in integers, so every machine
sees the same pixels; the hashes make sure. Lossless files of the same frames had 20 MB (H.264) and 25 MB (xz).

To make the file anew, in some minutes: `python -c "from foreframe.data.sample import build; build('push.sample')"`.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray
from rich.progress import track

from foreframe.data.push_sim import PushClip, simulate, version
from foreframe.errors import DataError

PUSH = Path(__file__).parent / "samples" / "push.sample"
FORMAT = b"foreframe sample 1\n"
SPLITS = {"train": 288, "val": 32, "test": 32}
# No psycho-visual options: they buy sharpness for an eye with errors in the numbers. One thread: the same bytes anew.
X264 = "no-psy=1:aq-mode=0:bframes=0:scenecut=0:threads=1:fullrange=on:colormatrix=smpte170m:log-level=error"


@dataclass(frozen=True)
class SampleClip:
    """One clip of a sample; units and axes are those of `push_sim.PushClip`.

    frames: (T, H, W, 3) uint8. actions: (T, 4) float32, from frame t to t+1. positions: (T, 3) float32, at frame t.
    """

    name: str
    split: str
    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    positions: NDArray[np.float32]


def decode_sample(path: str | Path = PUSH) -> Iterator[SampleClip]:
    """The clips of a sample in stored order, each checked against its hash before it is handed out.

    Raises:
        DataError: the file is missing, damaged or no sample, or decodes to other bytes than were stored.
    """
    head, conditions, video = _read(Path(path))
    stream = _decode_video(video)
    for line, values in zip(head["clips"], conditions, strict=True):
        name, split, expected = line.split(" ")
        actions, positions = np.split(values, head["columns"][:1], axis=1)
        try:
            clip = SampleClip(name, split, np.stack(list(islice(stream, head["frames"]))), actions, positions)
            found = clip_hash(clip)
        except (av.FFmpegError, ValueError) as error:  # ValueError: the stream ended early
            found = f"nothing ({error})"
        if found != expected:
            raise DataError(
                f"{path}: clip {name} should decode to SHA-256 {expected}, but decodes to {found}. The file itself is "
                f"whole, so the H.264 decoder of PyAV {av.__version__} is at fault: install another version of PyAV"
            )
        yield clip


def header(path: str | Path = PUSH) -> dict[str, Any]:
    """What the file says of itself: seed, versions, splits, shapes, `name split SHA-256` of each clip, that of all."""
    return _read(Path(path))[0]


def clip_hash(clip: PushClip | SampleClip) -> str:
    """SHA-256, in hex, of the bytes of frames, actions and positions, in C order and little-endian."""
    parts = clip.frames, clip.actions.astype("<f4"), clip.positions.astype("<f4")
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def encode_sample(
    clips: Iterable[PushClip], splits: Sequence[str], about: Mapping[str, object] | None = None, crf: float = 17.0
) -> bytes:
    """A sample as bytes.

    Args:
        clips: All of one shape, with H = W and even.
        splits: The split of each clip.
        about: What else the header shall say (seed, simulator and version); must be JSON.
        crf: x264's quality, 0 to 51: lower is nearer to the frames given, and larger.
    """
    kept: list[PushClip] = []
    video = _encode_video(clips, kept, crf)
    if len(kept) != len(splits):
        raise ValueError(f"{len(kept)} clips and {len(splits)} splits: give one split for each clip")
    conditions = np.stack([np.concatenate([clip.actions, clip.positions], axis=1) for clip in kept]).astype("<f4")
    planes = conditions.reshape(-1, 1).view(np.uint8).T  # all first bytes, then all second bytes, ...: half the size
    packed = lzma.compress(planes.tobytes(), preset=9)
    stream = _decode_video(video)
    names = []
    for index, (clip, split) in enumerate(zip(kept, splits, strict=True)):
        frames = np.stack(list(islice(stream, len(clip.actions))))
        seen = SampleClip(f"push-{index:04d}", split, frames, clip.actions, clip.positions)
        names.append(f"{seen.name} {split} {clip_hash(seen)}")
    text = {
        **(about or {}),
        "splits": {split: list(splits).count(split) for split in dict.fromkeys(splits)},
        "frames": conditions.shape[1],
        "columns": [kept[0].actions.shape[1], kept[0].positions.shape[1]],
        "conditions_bytes": len(packed),
        "sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "clips": names,
    }
    body = b"".join([FORMAT, json.dumps(text).encode(), b"\n", packed, video])
    return body + hashlib.sha256(body).digest()


def build(dst: str | Path, seed: int = 0, counts: Mapping[str, int] = SPLITS, crf: float = 17.0) -> None:
    """Simulates `counts` clips for each split, indices 0, 1, 2, ..., and writes `dst`: about a second a clip."""
    splits = [split for split, count in counts.items() for _ in range(count)]
    about = {
        "seed": seed,
        "simulator": "foreframe.data.push_sim",
        "mujoco": version(),
        "av": av.__version__,
        "crf": crf,
    }
    clips = (simulate(seed, index) for index in track(range(len(splits)), "simulating"))
    Path(dst).write_bytes(encode_sample(clips, splits, about, crf))


def _read(path: Path) -> tuple[dict[str, Any], NDArray[np.float32], bytes]:
    """Header, conditions (N, T, A + P) and video of a file whose bytes are as they were written."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a foreframe sample, found no readable file ({error.strerror})") from error
    if not raw.startswith(FORMAT):
        raise DataError(f"{path}: expected a foreframe sample, which begins with {FORMAT!r}, found {raw[:20]!r}")
    body, stored = raw[:-32], raw[-32:]
    if (found := hashlib.sha256(body).digest()) != stored:
        given = f"its bytes should have SHA-256 {stored.hex()}, but have {found.hex()}"
        raise DataError(f"{path}: the file is damaged: {given}. Install foreframe anew or get the file again")
    line, rest = body[len(FORMAT) :].split(b"\n", 1)
    head = json.loads(line)
    packed, video = rest[: head["conditions_bytes"]], rest[head["conditions_bytes"] :]
    shape = (len(head["clips"]), head["frames"], sum(head["columns"]))
    planes = np.frombuffer(lzma.decompress(packed), np.uint8).reshape(4, -1)
    return head, np.ascontiguousarray(planes.T).view("<f4").astype(np.float32).reshape(shape), video


def _encode_video(clips: Iterable[PushClip], kept: list[PushClip], crf: float) -> bytes:
    """The frames of all clips as one H.264 stream, a key frame at each clip's start; conditions are put into `kept`."""
    with av.open(target := io.BytesIO(), "w", format="h264") as container:
        options = {"preset": "veryslow", "crf": str(crf), "forced-idr": "1", "x264-params": X264}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.pix_fmt = "yuv444p"
        for clip in clips:
            if not kept:
                stream.height, stream.width = clip.frames.shape[1:3]
            for t, image in enumerate(clip.frames):
                frame = av.VideoFrame.from_ndarray(_to_ycc(image), format="yuv444p")
                frame.pict_type = PictureType.I if t == 0 else PictureType.NONE
                container.mux(stream.encode(frame))
            kept.append(PushClip(clip.frames[:0], clip.actions, clip.positions))
        container.mux(stream.encode())
    return target.getvalue()


def _decode_video(video: bytes) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) uint8 RGB of a stream."""
    with av.open(io.BytesIO(video), "r", format="h264") as container:
        for frame in container.decode(video=0):
            planes = [np.frombuffer(bytes(p), np.uint8).reshape(p.height, p.line_size) for p in frame.planes]
            yield _to_rgb(np.stack(planes)[:, :, : frame.width])


def _to_ycc(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB to (3, H, W) YCbCr, full range, as in JPEG; in integers, so alike on every machine."""
    table = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]])  # times 2**16
    ycc = (np.moveaxis(rgb.astype(np.int64) @ table.T, -1, 0) + 32768) >> 16
    return (ycc + np.array([0, 128, 128])[:, None, None]).clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def _to_rgb(ycc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W) YCbCr to (H, W, 3) RGB, the inverse of `_to_ycc` up to rounding; in integers."""
    y, b, r = ycc.astype(np.int32) - np.array([0, 128, 128], np.int32)[:, None, None]
    parts = [91881 * r, -22554 * b - 46802 * r, 116130 * b]
    rgb = np.stack([y + ((part + 32768) >> 16) for part in parts], axis=-1)
    return rgb.clip(0, 255).astype(np.uint8)
