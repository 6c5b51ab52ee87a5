"""Writes the samples that come with foreframe; `foreframe.data.formats.sample` reads them and says what they are."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
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
from foreframe.sim.renderer import version

# No psycho-visual options: they buy sharpness for an eye with errors in the numbers. One thread: the same bytes again.
X264 = "no-psy=1:aq-mode=0:bframes=0:scenecut=0:threads=1:fullrange=on:colormatrix=smpte170m:log-level=error"


def encode_sample(
    clips: Iterable[PushClip | DanceClip],
    splits: Sequence[str],
    about: Mapping[str, object] | None = None,
    crf: float = 17.0,
) -> bytes:
    """A sample as bytes, of clips of one kind and shape, H and W even, with the split of each.

    about: What else goes into the header (seed, simulator and version); must be JSON.
    crf: x264's quality, 0 to 51: lower is nearer to the frames given, and larger.
    """
    recorded: list[NDArray[np.float32]] = []
    video = _encode_video(clips, recorded, crf)
    if len(recorded) != len(splits):
        raise ValueError(f"{len(recorded)} clips and {len(splits)} splits: give one split for each clip")
    shape, packed = _pack(np.stack(recorded))
    text: dict[str, Any] = {
        **(about or {}),
        "splits": {split: list(splits).count(split) for split in dict.fromkeys(splits)},
        **shape,
        "conditions_bytes": len(packed),
    }
    stream = decode_video(video)
    names = []
    for index, (split, values) in enumerate(zip(splits, unpack(text, len(recorded), packed), strict=True)):
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
    """Simulate clips (`counts` for each split; default, as for crf: the package's) and write a sample to `dst`."""
    crf = SAMPLES[name].crf if crf is None else crf
    splits = [split for split, count in (counts or SAMPLES[name].splits).items() for _ in range(count)]
    simulator = dance if name == "dance" else push
    about = {
        "seed": seed,
        "simulator": f"foreframe.sim.{name}",
        "mujoco": version(simulator.PACKAGES),
        "av": av.__version__,
        "crf": crf,
    }
    indices = track(range(len(splits)), "simulating")
    Path(dst).write_bytes(encode_sample((simulator.simulate(seed, index) for index in indices), splits, about, crf))


def _pack(values: NDArray[np.float32]) -> tuple[dict[str, Any], bytes]:
    """Conditions as stored, and what goes into the header for `unpack`."""
    frames = values.shape[1]
    if values.ndim == 3:
        return {"frames": frames, "columns": [values.shape[2] - 3, 3]}, _squeeze(values.astype("<f4"))
    steps = np.rint(values * [UNIT, UNIT, 1]).astype(np.int64)
    steps = np.diff(steps, axis=1, prepend=0).astype("<i2")
    # One joint after another, each through all frames of a clip: what is alike comes together.
    return {"frames": frames, "joints": values.shape[2], "unit": UNIT}, _squeeze(np.moveaxis(steps, 1, -1))


def _squeeze(values: NDArray[Any]) -> bytes:
    """All first bytes of the numbers, then all second bytes, ..., by xz: half the size of the numbers one by one."""
    planes = np.ascontiguousarray(values).reshape(-1, 1).view(np.uint8).T
    return lzma.compress(planes.tobytes(), preset=9)


def _encode_video(clips: Iterable[PushClip | DanceClip], recorded: list[NDArray[np.float32]], crf: float) -> bytes:
    """The frames of all clips as one H.264 stream, a key frame at each clip's start; conditions go to `recorded`."""
    with av.open(target := io.BytesIO(), "w", format="h264") as container:
        options = {"preset": "veryslow", "crf": str(crf), "forced-idr": "1", "x264-params": X264}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.pix_fmt = "yuv444p"
        for clip in clips:
            if not recorded:
                stream.height, stream.width = clip.frames.shape[1:3]
            for t, image in enumerate(clip.frames):
                frame = av.VideoFrame.from_ndarray(_to_ycc(image), format="yuv444p")
                frame.pict_type = PictureType.I if t == 0 else PictureType.NONE
                container.mux(stream.encode(frame))
            recorded.append(clip.joints if isinstance(clip, DanceClip) else clip.rows)
        container.mux(stream.encode())
    return target.getvalue()


def _to_ycc(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB to (3, H, W) YCbCr, full range, as in JPEG; in integers, so alike on every machine."""
    table = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]])  # times 2**16
    ycc = (np.moveaxis(rgb.astype(np.int64) @ table.T, -1, 0) + 32768) >> 16
    return (ycc + np.array([0, 128, 128])[:, None, None]).clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]
