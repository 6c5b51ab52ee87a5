"""The outer parts of video files, walked without FFmpeg: to recognise formats, and to find files that are cut short.

FFmpeg takes a file that is cut off for one that ends there, and makes a list of as many frames as a header claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from foreframe.errors import reading, unreadable
from foreframe.files import identity

MAX_BOX = 2**26
"""Bytes of the header of an MP4 or MOV, or of any box but those that hold the pictures."""
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_EBML = b"\x1a\x45\xdf\xa3"


def video_kind(path: Path) -> str:
    """FFmpeg's name of a video's format by its first bytes; FFmpeg's own guess may follow a playlist to other files.

    Raises DataError for no plain file, another kind, or an MP4 or MOV that claims more frames than it has bytes.
    """
    identity(path, path, "a video")
    with reading(path, "", "a video"), path.open("rb") as file:
        head = file.read(16)
    if head[4:8] in _BOXES:
        _check_counts(path)
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] in (b"GIF8", _EBML):
        return "gif" if head[:4] == b"GIF8" else "matroska"
    found = f"another kind of file ({head[:8]!r})" if head else "an empty file"
    raise unreadable(path, "first bytes", "a video (MP4, MOV, AVI, GIF, WebM or MKV)", found)


def check_end(path: Path, kind: str) -> None:
    """Raises DataError unless a file is as long as its outermost parts say."""
    size = path.stat().st_size
    with path.open("rb") as file:
        part, at, end = _LAST_PART[kind](file, size)
    if end > size:
        raise unreadable(path, f"byte {at}", part, f"a file of {size} bytes: it is cut short or damaged")


def _check_counts(path: Path) -> None:
    """Raises DataError if an MP4 or MOV claims more frames than bytes, in boxes at any depth, as FFmpeg finds them."""
    size, claimed = path.stat().st_size, 0
    with path.open("rb") as file:
        for at, name, length in _boxes(file, size):
            if name not in (b"mdat", b"free", b"skip", b"wide"):
                if min(length, size - at) > MAX_BOX:
                    raise unreadable(path, f"byte {at}", f"boxes of at most {MAX_BOX} bytes", f"{length}")
                file.seek(at)
                data = file.read(min(length, size - at))
                if b"dcomzlib" in data:
                    raise unreadable(path, f"byte {at}", "a plain header", "a compressed one")
                claimed += _samples(data)
    if claimed > size:
        raise unreadable(path, "header", f"at most as many frames as the file has bytes, {size}", f"{claimed}")


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Where the outermost boxes of an MP4 or MOV begin, their names and lengths."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4]) or size - at
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:])
        if length < 8:
            break
        yield at, head[4:8], length
        at += length


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


Part = tuple[str, int, int]
"""Description of a part of a file, the byte it starts at, and the one it should end before."""


def _last_box(file: BinaryIO, size: int) -> Part:
    at, name, length = 0, b"", 0
    for box in _boxes(file, size):
        if not box[1].isalnum():  # what a camera left behind
            break
        at, name, length = box
    return f"a box '{name.decode('latin-1')}' of {length} bytes", at, at + length


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
    at = 13 + _palette_bytes(flags)
    while at < size:
        file.seek(at)
        head = file.read(10)
        if head[:1] == b";":
            return "the end of a GIF", at, at + 1
        if head[:1] not in (b"!", b","):
            break
        at += 2 if head[:1] == b"!" else 11 + _palette_bytes(head[9:10])
        file.seek(at)
        while length := file.read(1):
            at += 1 + length[0]
            if not length[0]:
                break
            file.seek(length[0], 1)
    return "another block of a GIF", at, size + 1


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


_LAST_PART: dict[str, Callable[[BinaryIO, int], Part]] = {
    "mov": _last_box,
    "avi": _last_riff,
    "gif": _last_block,
    "matroska": _segment,
}
