"""Videos read piece by piece: what a file holds without decoding it, and its frames in order, each decoded once."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from foreframe.errors import DataError, Fault
from foreframe.video.pixels import Pixels
from foreframe.video.read import DECODER, MAX_SIDE, container_kind

ONE_PACKET_A_FRAME = {"h264", "hevc", "av1", "vp9", "mjpeg", "gif", "png", "ffv1", "rawvideo", "huffyuv", "theora"}
"""Codecs whose packets can be counted instead of frames; others hide frames that are never shown, or pack two."""
OPEN = 4
"""Streams that a process keeps open."""
MAX_BOX = 2**26
"""Bytes of the header of an MP4 or MOV, or of any box but those that hold the pictures."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds. fps is the mean rate, or None; uneven says in words how its frames are spaced if not
    evenly, and is empty otherwise."""

    height: int
    width: int
    length: int
    fps: float | None
    uneven: str = ""


def probe_video(path: str | Path) -> VideoInfo:
    """Size, number of frames and rate of a video, from its packets; nothing is decoded for the usual codecs.

    Raises:
        DataError: no video, larger than 8192 pixels a side, without frames, or cut short.
    """
    path = Path(path)
    _check_bytes(path, kind := _kind(path))
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
        fps = _rate(times, stream.time_base) or (float(rate) if rate else None)
        if _turn(path, kind) % 2:
            height, width = width, height
        return VideoInfo(height, width, length, fps, _spacing(times, stream.time_base))


def frame_rate(path: str | Path) -> float | None:
    """Mean number of frames a second, as the header of a video says; None where it does not.

    Raises:
        DataError: no video.
    """
    path = Path(path)
    kind = _kind(path)
    with _errors(path, ""), _open(path, kind) as container:
        rate = _stream(path, container).average_rate
        return float(rate) if rate else None


def read_frames(path: str | Path, start: int, stop: int) -> Pixels:
    """Frames start to stop-1 as (T, H, W, 3) uint8. Asked for in rising order, each frame is decoded once.

    Raises:
        DataError: the video ends earlier, changes its size or cannot be decoded; the message names the frame.
    """
    return np.stack([frame for _, frame in _opened(path, start).take(start, stop)])


def read_at(path: str | Path, times: Sequence[float], tolerance: float) -> tuple[Pixels, dict[int, str]]:
    """The frames shown at `times` (seconds, rising): uint8 (T, H, W, 3), and for each that is missing what is there.

    A frame counts if its own time differs by at most `tolerance` seconds; pixels of missing ones are zeros.
    """
    video = _opened_at(path, times[0], tolerance)
    found: dict[int, Pixels] = {}
    missing: dict[int, str] = {}
    for index, time in enumerate(times):
        frame, words = video.at(time, tolerance)
        if frame is None:
            missing[index] = words
        else:
            found[index] = frame
    pixels = np.zeros((len(times), *(video.last[1].shape if video.last else (*video.size, 3))), np.uint8)
    for index, frame in found.items():
        pixels[index] = frame
    return pixels, missing


class _Video:
    """A video being decoded from its beginning; frames can only be asked for in rising order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = 0
        self.last: tuple[float, Pixels] | None = None
        with _errors(path, ""):
            self.facts = _facts(path)
            self.container = _open(path, _kind(path))
            self.stream = _stream(path, self.container)
            self.stream.thread_type = "AUTO"
            self.size = _size(path, self.stream)
            self.frames = self.container.decode(self.stream)
            self.reformatter = VideoReformatter()  # one for all frames: to make one takes longer than to use it

    def take(self, start: int, stop: int) -> Iterator[tuple[float, Pixels]]:
        """Frames start to stop-1 with their times."""
        self.last = None
        while self.next < stop:
            frame = self._frame()
            if frame is None:
                raise _fault(self.path, f"frame {self.next}", f"{stop} frames or more", f"{self.next}")
            if self.next > start:
                yield _time(frame), self._pixels(frame)

    def at(self, time: float, tolerance: float) -> tuple[Pixels | None, str]:
        """The frame nearest to `time`, or None and the times of its neighbours in words."""
        before = self.last
        while self.last is None or self.last[0] < time - tolerance:
            frame = self._frame()
            if frame is None:
                end = f"{self.last[0]:.4f} s" if self.last else "nothing"
                return None, f"no frame: the video ends at {end}"
            before, self.last = self.last, (_time(frame), self._pixels(frame))
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
                raise _fault(self.path, f"frame {self.next}", "a frame that decodes without error", "damaged data")
        self.next += frame is not None
        return frame

    def _pixels(self, frame: Any) -> Pixels:
        if (frame.height, frame.width) != self.size:
            raise _fault(
                self.path, f"frame {self.next - 1}", f"{self.size[1]}x{self.size[0]} pixels as before",
                f"{frame.width}x{frame.height}",
            )  # fmt: skip
        pixels: Pixels = np.asarray(self.reformatter.reformat(frame, format="rgb24").to_ndarray(), np.uint8)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


_VIDEOS: OrderedDict[Path, _Video] = OrderedDict()


def _opened(path: str | Path, start: int) -> _Video:
    """The video, somewhere at or before frame `start`."""
    video = _VIDEOS.get(Path(path))
    return _keep(video if video is not None and video.next <= start else None, Path(path))


def _opened_at(path: str | Path, time: float, tolerance: float) -> _Video:
    video = _VIDEOS.get(Path(path))
    ahead = video is not None and (video.last[0] > time + tolerance if video.last else video.next > 0)
    return _keep(None if ahead else video, Path(path))


def _keep(video: _Video | None, path: Path) -> _Video:
    """`video` as the one used last, if it is still the file at `path`, or that file opened anew."""
    old = _VIDEOS.pop(path, None)
    if video is None or video.facts != _facts(path):
        if old is not None:
            old.close()
        video = _Video(path)
    _VIDEOS[path] = video
    while len(_VIDEOS) > OPEN:
        _VIDEOS.popitem(last=False)[1].close()
    return video


def _facts(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written anew, or this process is another."""
    with _errors(path, ""):
        found = path.stat()
    return os.getpid(), found.st_size, found.st_mtime_ns


class _errors:
    """What FFmpeg says, as a DataError that names the file."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            _VIDEOS.pop(self.path, None)
        if isinstance(error, (av.FFmpegError, OSError, ValueError, EOFError)) and not isinstance(error, DataError):
            words = getattr(error, "strerror", None) or str(error)
            raise _fault(self.path, self.where, "a video that FFmpeg can read", words) from error


def _kind(path: Path) -> str:
    """FFmpeg's name of what a file is by its first bytes."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # to open a pipe may take for ever, and a device has no end
            raise _fault(path, "", "a video", "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise _fault(path, "", "a video", error.strerror or type(error).__name__) from error
    if kind := container_kind(head):
        if kind == "mov":
            _check_counts(path)
        return kind
    found = f"another kind of file ({head[:8]!r})" if head else "an empty file"
    raise _fault(path, "first bytes", "a video (MP4, MOV, AVI, GIF, WebM or MKV)", found)


def _check_counts(path: Path) -> None:
    """That an MP4 or MOV claims no more frames than it has bytes: FFmpeg makes a list of all that are claimed.

    Boxes are looked for by their names, for FFmpeg takes them from inside almost any other.
    """
    size, at, claimed = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4]) or size - at
            if length == 1:
                length = int.from_bytes(head[8:])
            if length < 8:
                break
            if head[4:8] not in (b"mdat", b"free", b"skip", b"wide"):
                if min(length, size - at) > MAX_BOX:
                    raise _fault(path, f"byte {at}", f"boxes of at most {MAX_BOX} bytes", f"{length}")
                file.seek(at)
                data = file.read(min(length, size - at))
                if b"dcomzlib" in data:
                    raise _fault(path, f"byte {at}", "a plain header", "a compressed one")
                claimed += _samples(data)
            at += length
    if claimed > size:
        raise _fault(path, "header", f"at most as many frames as the file has bytes, {size}", f"{claimed}")


def _samples(data: bytes) -> int:
    """How many frames are claimed by the boxes in `data` that need not list them one by one."""
    count = 0
    for name, place in ((b"stsz", 8), (b"trun", 4)):
        at = data.find(name)
        while at >= 0:
            body = at + (12 if data[max(0, at - 4) : at] == b"\0\0\0\1" else 4)  # 1: a size of 8 bytes follows
            if name == b"trun" or any(data[body + 4 : body + 8]):  # all of one size
                count += int.from_bytes(data[body + place : body + place + 4])
            at = data.find(name, at + 1)
    return count


def _open(path: Path, kind: str) -> Any:
    container = av.open(f"file:{path}", "r", format=kind, options=DECODER)
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.options = DECODER
    return container


def _check_bytes(path: Path, kind: str) -> None:
    """That a file is as long as its outermost parts say: FFmpeg takes what is cut off for the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        part, at, end = _LAST_PART[kind](file, size)
    if end > size:
        raise _fault(path, f"byte {at}", part, f"a file of {size} bytes: it is cut short or damaged")


Part = tuple[str, int, int]
"""What a part of a file is, in words, the byte it starts at and the one it should end before."""


def _last_box(file: BinaryIO, size: int) -> Part:
    """The last box of an MP4 or MOV."""
    at = end = 0
    name = b""
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:])
        if length < 8 or not head[4:8].isalnum():  # 0: up to the end of the file; else what a camera left behind
            break
        at, name, end = end, head[4:8], end + length
    return f"a box '{name.decode('latin-1')}' of {end - at} bytes", at, end


def _last_riff(file: BinaryIO, size: int) -> Part:
    """The last RIFF of an AVI; those written to a pipe do not know their size."""
    at = end = 0
    while end + 12 <= size:
        file.seek(end)
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:11] != b"AVI":
            break
        at, length = end, int.from_bytes(head[4:8], "little")
        end = at + 8 + length + length % 2
        if length in (0, 2**32 - 1) or size < end <= size + 8:  # some programs count their own 8 bytes too
            end = size
    return f"a RIFF of {end - at} bytes", at, end


def _segment(file: BinaryIO, size: int) -> Part:
    """The segment of a WebM or MKV, which holds everything; those written to a pipe do not know their size."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(12)
        wide = 9 - head[4].bit_length() if len(head) == 12 and head[4] else 9  # bytes in which the size is written
        if head[:4] not in (_EBML, b"\x18\x53\x80\x67") or wide > 8:
            break
        length = int.from_bytes(head[4 : 4 + wide]) & ((1 << 7 * wide) - 1)
        if head[:4] != _EBML:
            known = length < (1 << 7 * wide) - 1
            return f"a segment of {length} bytes", at, at + 4 + wide + length if known else size
        at += 4 + wide + length
    return "a segment", at, size + (at >= size)


def _last_block(file: BinaryIO, size: int) -> Part:
    """The last block of a GIF, which is one byte."""
    file.seek(10)
    flags = file.read(3)[:1]
    at = 13 + _colours(flags)
    while at < size:
        file.seek(at)
        head = file.read(10)
        if head[:1] == b";":
            return "the end of a GIF", at, at + 1
        if head[:1] not in (b"!", b","):
            break
        at += 2 if head[:1] == b"!" else 11 + _colours(head[9:10])
        file.seek(at)
        while length := file.read(1):
            at += 1 + length[0]
            if not length[0]:
                break
            file.seek(length[0], 1)
    return "another block of a GIF", at, size + 1


def _colours(flags: bytes) -> int:
    """Bytes of the table of colours that these flags of a GIF announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


_LAST_PART: dict[str, Callable[[BinaryIO, int], Part]] = {
    "mov": _last_box,
    "avi": _last_riff,
    "gif": _last_block,
    "matroska": _segment,
}
_EBML = b"\x1a\x45\xdf\xa3"


def _stream(path: Path, container: Any) -> Any:
    if not container.streams.video:
        raise _fault(path, "", "a video", "a file without a video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise _fault(path, "", "a video in a codec that FFmpeg knows", "another one")
    return stream


def _size(path: Path, stream: Any) -> tuple[int, int]:
    """(H, W) by the header. FFmpeg was told which is the largest, and knows none beyond."""
    height, width = stream.codec_context.height, stream.codec_context.width
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        found = f"{width}x{height}" if width and height else "none, or a larger one"
        raise _fault(path, "header", f"a size of 1x1 to {MAX_SIDE}x{MAX_SIDE} pixels", found)
    return height, width


def _check_whole(path: Path, container: Any, stream: Any, stored: int, times: list[int], broken: bool) -> None:
    """That there are as many frames as the header says. `stored` counts also those that are not to be shown."""
    if not stored:
        raise _fault(path, "", "a video with frames", "none")
    if broken:
        raise _fault(path, "", "a whole video", "a damaged packet")
    if stream.frames and stored < stream.frames:
        raise _fault(path, "", f"{stream.frames} frames as the header says", f"{stored}: the file is cut short")
    if "matroska" in container.format.name.split(",") and container.duration and times and len(times) > 1:
        last = float(times[-1] * stream.time_base) + (times[-1] - times[0]) * float(stream.time_base) / (len(times) - 1)
        if last < 0.9 * container.duration / av.time_base - 0.1:
            expected = f"{container.duration / av.time_base:.2f} s as the header says"
            raise _fault(path, "", expected, f"{last:.2f} s: the file is cut short")


def _rate(times: list[int], base: Fraction | None) -> float | None:
    if base is None or len(times) < 2 or times[-1] == times[0]:
        return None
    return round(float((len(times) - 1) / ((times[-1] - times[0]) * base)), 3)


def _spacing(times: list[int], base: Fraction | None) -> str:
    """How far apart frames are, if one gap is more than half as long again as the middle one, or less than half."""
    if base is None or len(times) < 3:
        return ""
    gaps = sorted(after - before for before, after in pairwise(times))
    middle = gaps[len(gaps) // 2]
    if gaps[-1] <= 1.5 * middle and gaps[0] >= 0.5 * middle:
        return ""
    return f"{float(gaps[0] * base):.3f} to {float(gaps[-1] * base):.3f} s apart, most {float(middle * base):.3f} s"


def _turn(path: Path, kind: str) -> int:
    """Quarter turns that the file asks for (telephones do)."""
    with _open(path, kind) as container:
        frame = next(container.decode(video=0), None)
        turns: int = 0 if frame is None else round(frame.rotation / 90) % 4
        return turns


def _time(frame: Any) -> float:
    return float(frame.pts * frame.time_base) if frame.pts is not None else 0.0


def _fault(path: Path, where: str, expected: str, found: str) -> DataError:
    return DataError("this file cannot be read:", [Fault(str(path), where, expected, found)])
