"""Videos read piece by piece: what a file holds without decoding it, and its frames in order, each decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from foreframe.errors import reading, unreadable
from foreframe.files import Identity, Recent, identity
from foreframe.video.containers import check_end, video_kind
from foreframe.video.pixels import Pixels
from foreframe.video.read import MAX_SIDE

ONE_PACKET_A_FRAME = {"h264", "hevc", "av1", "vp9", "mjpeg", "gif", "png", "ffv1", "rawvideo", "huffyuv", "theora"}
"""Codecs whose packets can be counted instead of frames; others hide frames that are never shown, or pack two."""
DECODER = {"max_pixels": str(MAX_SIDE**2)}
"""Options of FFmpeg, by which a video that grows midway takes no memory before its size is known."""
OPEN = 4
"""Streams that a process keeps open."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds. fps: the mean rate, or None. uneven: how its frames are spaced, empty where evenly."""

    height: int
    width: int
    length: int
    fps: float | None
    uneven: str = ""


def probe_video(path: str | Path) -> VideoInfo:
    """Size, number of frames and rate of a video, from its packets; nothing is decoded for the usual codecs.

    Raises DataError for no video, or one that is larger than 8192 pixels a side, without frames, or cut short.
    """
    path = Path(path)
    check_end(path, kind := video_kind(path))
    with _errors(path, ""), _open(path, kind) as container:
        stream = _stream(path, container)
        height, width = _size(path, stream)
        shown, stored, broken = [], 0, False
        if stream.codec_context.name in ONE_PACKET_A_FRAME:
            for packet in container.demux(stream):
                if packet.size:
                    stored, broken = stored + 1, broken or packet.is_corrupt
                    if not packet.is_discard:
                        shown.append(packet.pts)
        else:
            shown = [frame.pts for frame in container.decode(stream)]
            stored = len(shown)
        length, times = len(shown), sorted(pts for pts in shown if pts is not None)
        _check_whole(path, container, stream, stored, times, broken)
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else None
        if stream.time_base is not None and len(times) > 1 and times[-1] != times[0]:
            fps = round(float((len(times) - 1) / ((times[-1] - times[0]) * stream.time_base)), 3) or fps
        with _open(path, kind) as again:
            frame = next(again.decode(video=0), None)
        if frame is not None and round(frame.rotation / 90) % 2:  # telephones ask for quarter turns
            height, width = width, height
        return VideoInfo(height, width, length, fps, _spacing(times, stream.time_base))


def frame_rate(path: str | Path) -> float | None:
    """Mean frames a second by the header of a video, None where it does not say. Raises DataError for no video."""
    path = Path(path)
    kind = video_kind(path)
    with _errors(path, ""), _open(path, kind) as container:
        rate = _stream(path, container).average_rate
        return float(rate) if rate else None


def read_frames(path: str | Path, start: int, stop: int) -> Pixels:
    """Frames start to stop-1 as (T, H, W, 3) uint8. Asked for in rising order, each frame is decoded once.

    Raises DataError, naming the frame, if the video ends earlier, changes its size or cannot be decoded.
    """
    video = _opened(path, lambda video: video.next <= start)
    return np.stack(list(video.take(start, stop)))


def read_at(path: str | Path, times: Sequence[float], tolerance: float) -> tuple[Pixels, dict[int, str]]:
    """The frames shown at `times` (seconds, rising): uint8 (T, H, W, 3), and a description for each missing one.

    A frame counts if its own time differs by at most `tolerance` seconds; pixels of missing ones are zeros.
    """
    late = times[0] + tolerance
    video = _opened(path, lambda video: video.last[0] <= late if video.last else not video.next)
    found = [video.at(time, tolerance) for time in times]
    pixels = np.zeros((len(times), *(video.last[1].shape if video.last else (*video.size, 3))), np.uint8)
    for index, (frame, _) in enumerate(found):
        if frame is not None:
            pixels[index] = frame
    return pixels, {index: words for index, (frame, words) in enumerate(found) if frame is None}


class _Video:
    """A video being decoded from its beginning; frames can only be asked for in rising order."""

    def __init__(self, path: Path, facts: Identity) -> None:
        self.path, self.facts = path, facts
        self.next = 0
        self.last: tuple[float, Pixels] | None = None
        with _errors(path, ""):
            self.container = _open(path, video_kind(path))
            stream = _stream(path, self.container)
            stream.thread_type = "AUTO"
            self.size = _size(path, stream)
            self.frames = self.container.decode(stream)
            self.reformatter = VideoReformatter()  # one for all frames: to make one takes longer than to use it

    def take(self, start: int, stop: int) -> Iterator[Pixels]:
        self.last = None
        while self.next < stop:
            frame = self._frame()
            if frame is None:
                raise unreadable(self.path, f"frame {self.next}", f"{stop} frames or more", f"{self.next}")
            if self.next > start:
                yield self._pixels(frame)

    def at(self, time: float, tolerance: float) -> tuple[Pixels | None, str]:
        """The frame nearest to `time`, or None and the times of its neighbours in words."""
        before = self.last
        while self.last is None or self.last[0] < time - tolerance:
            frame = self._frame()
            if frame is None:
                end = f"{self.last[0]:.4f} s" if self.last else "nothing"
                return None, f"no frame: the video ends at {end}"
            now = 0.0 if frame.pts is None else float(frame.pts * frame.time_base)
            before, self.last = self.last, (now, self._pixels(frame))
        if self.last[0] <= time + tolerance:
            return self.last[1], ""
        earlier = f"{before[0]:.4f} and " if before else ""
        return None, f"frames at {earlier}{self.last[0]:.4f} s only"

    def close(self) -> None:
        self.container.close()

    def _frame(self) -> Any:
        with _errors(self.path, f"frame {self.next}"):
            frame = next(self.frames, None)
            if frame is not None and frame.is_corrupt:
                raise unreadable(self.path, f"frame {self.next}", "a frame that decodes without error", "damaged data")
        self.next += frame is not None
        return frame

    def _pixels(self, frame: Any) -> Pixels:
        if (frame.height, frame.width) != self.size:
            before, now = f"{self.size[1]}x{self.size[0]} pixels as before", f"{frame.width}x{frame.height}"
            raise unreadable(self.path, f"frame {self.next - 1}", before, now)
        pixels: Pixels = np.asarray(self.reformatter.reformat(frame, format="rgb24").to_ndarray(), np.uint8)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


_VIDEOS: Recent[Path, _Video] = Recent(OPEN)


def _opened(path: str | Path, usable: Callable[[_Video], bool]) -> _Video:
    """The video that is open and `usable`, if its file is still the same, or the file opened again."""
    path = Path(path)
    facts = identity(path, path, "a video")
    return _VIDEOS.use(path, lambda: _Video(path, facts), lambda video: video.facts == facts and usable(video))


@contextmanager
def _errors(path: Path, where: str) -> Iterator[None]:
    """FFmpeg's exceptions as a DataError that names the file; after any, the video is opened again."""
    try:
        with reading(path, where, "a video that FFmpeg can read", av.FFmpegError, ValueError, EOFError):
            yield
    except BaseException:
        _VIDEOS.drop(path)
        raise


def _open(path: Path, kind: str) -> Any:
    container = av.open(f"file:{path}", "r", format=kind, options=DECODER)
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.options = DECODER
    return container


def _stream(path: Path, container: Any) -> Any:
    if not container.streams.video:
        raise unreadable(path, "", "a video", "a file without a video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise unreadable(path, "", "a video in a codec that FFmpeg knows", "another one")
    return stream


def _size(path: Path, stream: Any) -> tuple[int, int]:
    """(H, W) by the header. FFmpeg was given the largest, and reports none beyond."""
    height, width = stream.codec_context.height, stream.codec_context.width
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        found = f"{width}x{height}" if width and height else "none, or a larger one"
        raise unreadable(path, "header", f"a size of 1x1 to {MAX_SIDE}x{MAX_SIDE} pixels", found)
    return height, width


def _check_whole(path: Path, container: Any, stream: Any, stored: int, times: list[int], broken: bool) -> None:
    """Raises DataError for fewer frames than the header says. `stored` includes frames that are not to be shown."""
    if not stored:
        raise unreadable(path, "", "a video with frames", "none")
    if broken:
        raise unreadable(path, "", "a whole video", "a damaged packet")
    if stream.frames and stored < stream.frames:
        raise unreadable(path, "", f"{stream.frames} frames as the header says", f"{stored}: the file is cut short")
    if "matroska" in container.format.name.split(",") and container.duration and times and len(times) > 1:
        last = float(times[-1] * stream.time_base) + (times[-1] - times[0]) * float(stream.time_base) / (len(times) - 1)
        if last < 0.9 * container.duration / av.time_base - 0.1:
            expected = f"{container.duration / av.time_base:.2f} s as the header says"
            raise unreadable(path, "", expected, f"{last:.2f} s: the file is cut short")


def _spacing(times: list[int], base: Fraction | None) -> str:
    """How far apart frames are, if one gap is more than half as long again as the middle one, or less than half."""
    if base is None or len(times) < 3:
        return ""
    gaps = sorted(after - before for before, after in pairwise(times))
    middle = gaps[len(gaps) // 2]
    if gaps[-1] <= 1.5 * middle and gaps[0] >= 0.5 * middle:
        return ""
    return f"{float(gaps[0] * base):.3f} to {float(gaps[-1] * base):.3f} s apart, most {float(middle * base):.3f} s"
