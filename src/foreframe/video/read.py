"""Pictures from disk. A file that is not what it should be is named, with what was expected and found."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from foreframe.errors import reading, unreadable
from foreframe.files import identity
from foreframe.video.pixels import Pixels

MAX_SIDE = 8192
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_BYTES = 2**29
_MAX_CHUNKS = 2**17
"""Chunks of a PNG; encoders make them of some kilobytes."""
_DEPTHS = {0: (8,), 2: (8,), 3: (1, 2, 4, 8), 4: (8,), 6: (8,)}  # PNG color type -> bits that decode to 8 exactly

_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA")
"""A JPEG may be in CMYK, which has no fixed RGB."""


def read_image(path: str | Path) -> Pixels:
    """One PNG (8-bit grey, RGB or palette; alpha is dropped) or JPEG, by its first bytes, as (H, W, 3) uint8.

    Raises DataError for no such file, another kind or depth, more than 8192 pixels a side, and for one that is
    cut short or damaged (every CRC of a PNG is checked).
    """
    path, kind = Path(path), "a PNG or JPEG"
    size = identity(path, path, kind).size
    if not 0 < size <= _MAX_BYTES:
        raise unreadable(path, "", f"{kind} of 1 to {_MAX_BYTES} bytes", f"{size} bytes")
    with reading(path, "", kind):
        data = path.read_bytes()
    return decode_image(data, path)


def decode_image(data: bytes, path: str | Path = "") -> Pixels:
    """One PNG or JPEG from its bytes, as `read_image` does from a file; `path` names it in errors."""
    path = Path(path)
    if data.startswith(_PNG):
        return _decode_png(path, data)
    if not data.startswith(b"\xff\xd8\xff"):
        raise unreadable(path, "first bytes", "a PNG or JPEG signature", repr(data[:8]))
    return _decode(path, data, "JPEG")


def _decode_png(path: Path, data: bytes) -> Pixels:
    """Walk all chunks, size and depth first, before anything is decoded; only those that hold pixels are."""
    needed, kinds, at, kind, color, chunks = [_PNG], set[bytes](), len(_PNG), b"", 0, 0
    while kind != b"IEND":
        where = f"byte {at}"
        chunks += 1
        if chunks > _MAX_CHUNKS:
            raise unreadable(path, where, f"at most {_MAX_CHUNKS} chunks", "another")
        if len(data) < at + 12:
            raise unreadable(path, where, "another chunk up to IEND", f"the end of the file after {len(data)} bytes")
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end, name = at + 12 + length, f"a chunk {kind.decode('latin-1')}"
        if len(data) < end:
            raise unreadable(path, where, f"{name} of {length} bytes", f"{len(data) - at - 12}: the file is cut short")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise unreadable(path, where, f"{name} that fits its CRC", "a wrong CRC: the file is damaged")
        if at == len(_PNG):
            color = _check_header(path, kind, data[at + 8 : end - 4])
        elif kind == b"IHDR":
            raise unreadable(path, where, "one IHDR chunk", "another")
        kinds.add(kind)
        if kind == b"IDAT" and color == 3 and b"PLTE" not in kinds:
            raise unreadable(path, where, "a PLTE chunk before the pixels of a palette picture", "none")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            needed.append(data[at:end])
        at = end
    return _decode(path, b"".join(needed), "PNG")


def _check_header(path: Path, kind: bytes, header: bytes) -> int:
    if kind != b"IHDR" or len(header) != 13:
        raise unreadable(path, "first chunk", "IHDR of 13 bytes", f"{kind.decode('latin-1')} of {len(header)}")
    width, height, depth, color = struct.unpack(">IIBB", header[:10])
    _check_size(path, width, height)
    if depth not in _DEPTHS.get(color, ()):
        expected = "8 bits a channel (grey, RGB, palette or RGBA)"
        raise unreadable(path, "IHDR", expected, f"{depth} bits, color type {color}")
    return int(color)


def _check_size(path: Path, width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise unreadable(path, "header", f"1x1 to {MAX_SIDE}x{MAX_SIDE} pixels", f"{width}x{height}")


def _decode(path: Path, data: bytes, kind: str) -> Pixels:
    types = ValueError, SyntaxError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError
    with (
        reading(path, "pixels", f"{kind} data that decodes", *types),
        Image.open(io.BytesIO(data), formats=[kind]) as image,
    ):
        _check_size(path, *image.size)
        if image.mode not in _MODES:
            raise unreadable(path, "header", "a picture in grey, RGB or a palette", f"one in {image.mode}")
        if image.mode in ("P", "PA", "LA", "RGBA"):
            return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[..., :3])
        return np.array(image.convert("RGB"))
