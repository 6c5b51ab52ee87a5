"""Writes the samples that come with foreframe; `foreframe.data.formats.sample` reads them and says what they are."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray
from rich.progress import track

from foreframe.data.formats.sample import FORMAT, SAMPLES, UNIT, build_clip, clip_hash, decode_video, unpack
from foreframe.sim import dance, push
from foreframe.sim.dance import DanceClip
from foreframe.sim.push import PushClip

# No psycho-visual options: they buy sharpness for an eye with errors in the numbers. One thread: the same bytes again.
X264 = "no-psy=1:aq-mode=0:bframes=0:scenecut=0:threads=1:fullrange=on:colormatrix=smpte170m:log-level=error"


def encode_sample(
    clips: Iterable[PushClip] | Iterable[DanceClip],
    splits: Sequence[str],
    about: Mapping[str, object] | None = None,
    crf: float = 17.0,
) -> bytes:
    """A sample as bytes.

    Args:
        clips: All of one kind and one shape, with H and W even.
        splits: The split of each clip.
        about: What else goes into the header (seed, simulator and version); must be JSON.
        crf: x264's quality, 0 to 51: lower is nearer to the frames given, and larger.
    """
    kept: list[PushClip | DanceClip] = []
    video = _encode_video(clips, kept, crf)
    if len(kept) != len(splits):
        raise ValueError(f"{len(kept)} clips and {len(splits)} splits: give one split for each clip")
    shape, packed = _pack(kept)
    text: dict[str, Any] = {
        **(about or {}),
        "splits": {split: list(splits).count(split) for split in dict.fromkeys(splits)},
        **shape,
        "conditions_bytes": len(packed),
    }
    stream = decode_video(video)
    names = []
    for index, (split, values) in enumerate(zip(splits, unpack(text, len(kept), packed), strict=True)):
        name = f"{'dance' if 'joints' in text else 'push'}-{index:04d}"
        names.append(f"{name} {split} {clip_hash(text, build_clip(text, name, split, stream, values))}")
    text |= {"sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(), "clips": names}
    body = b"".join([FORMAT, json.dumps(text).encode(), b"\n", packed, video])
    return body + hashlib.sha256(body).digest()


def build(
    dst: str | Path,
    name: str = "push",
    seed: int = 0,
    counts: Mapping[str, int] | None = None,
    crf: float | None = None,
) -> None:
    """Simulates `counts` clips for each split, indices 0, 1, 2, ..., and writes `dst`: one or two seconds a clip.

    name: push or dance. counts and crf: those of the sample in the package unless given.
    """
    crf = SAMPLES[name].crf if crf is None else crf
    splits = [split for split, count in (counts or SAMPLES[name].splits).items() for _ in range(count)]
    about = {
        "seed": seed,
        "simulator": f"foreframe.sim.{name}",
        "mujoco": push.version(),
        "av": av.__version__,
        "crf": crf,
    }
    indices = track(range(len(splits)), "simulating")
    if name == "dance":
        made = encode_sample((dance.simulate(seed, index) for index in indices), splits, about, crf)
    else:
        made = encode_sample((push.simulate(seed, index) for index in indices), splits, about, crf)
    Path(dst).write_bytes(made)


def _pack(clips: Sequence[PushClip | DanceClip]) -> tuple[dict[str, Any], bytes]:
    """Conditions as stored, and what goes into the header for `unpack`."""
    if isinstance(clips[0], DanceClip):
        joints = np.stack([clip.joints for clip in clips if isinstance(clip, DanceClip)])
        steps = np.rint(joints * [UNIT, UNIT, 1]).astype(np.int64)
        steps = np.diff(steps, axis=1, prepend=0).astype("<i2")
        # One joint after another, each through all frames of a clip: what is alike comes together.
        shape = {"frames": joints.shape[1], "joints": joints.shape[2], "unit": UNIT}
        return shape, _squeeze(np.moveaxis(steps, 1, -1))
    pushes = [clip for clip in clips if isinstance(clip, PushClip)]
    values = np.stack([np.concatenate([clip.actions, clip.positions], axis=1) for clip in pushes]).astype("<f4")
    columns = [pushes[0].actions.shape[1], pushes[0].positions.shape[1]]
    return {"frames": values.shape[1], "columns": columns}, _squeeze(values)


def _squeeze(values: NDArray[Any]) -> bytes:
    """All first bytes of the numbers, then all second bytes, ..., by xz: half the size of the numbers one by one."""
    planes = np.ascontiguousarray(values).reshape(-1, 1).view(np.uint8).T
    return lzma.compress(planes.tobytes(), preset=9)


def _encode_video(
    clips: Iterable[PushClip] | Iterable[DanceClip], kept: list[PushClip | DanceClip], crf: float
) -> bytes:
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
            kept.append(_without_pictures(clip))
        container.mux(stream.encode())
    return target.getvalue()


def _without_pictures(clip: PushClip | DanceClip) -> PushClip | DanceClip:
    if isinstance(clip, DanceClip):
        return replace(clip, frames=clip.frames[:0].copy(), poses=clip.poses[:0].copy())
    return replace(clip, frames=clip.frames[:0].copy())


def _to_ycc(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB to (3, H, W) YCbCr, full range, as in JPEG; in integers, so alike on every machine."""
    table = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]])  # times 2**16
    ycc = (np.moveaxis(rgb.astype(np.int64) @ table.T, -1, 0) + 32768) >> 16
    return (ycc + np.array([0, 128, 128])[:, None, None]).clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]
