"""Pictures of a source: sizes from headers, damage named by frame, and what becomes of them when they are resized."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foreframe.data.formats import images as pictures
from foreframe.data.formats.images import check_size, commonest_size, fitted, picture_size, read_pictures, size_of
from foreframe.errors import DataError, UsageError
from foreframe.video import decode_image, read_image, write_png


def picture(height: int = 10, width: int = 14, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", **options)
    return stream.getvalue()


JPEG = jpeg()
FRAME = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (JPEG, (10, 14)),
        (jpeg(progressive=True, comment=b"x" * 9, dpi=(72, 72)), (10, 14)),
        (JPEG[:FRAME] + b"\xff" * 9 + JPEG[FRAME:], (10, 14)),
        (JPEG[:FRAME] + b"\xff" * 99 + JPEG[FRAME:], "a cut-off JPEG"),
        (JPEG[: FRAME + 6], "a cut-off JPEG"),
        (JPEG[:FRAME], "a cut-off JPEG"),
        (JPEG[:FRAME] + b"\xff\xfe\0\1" + JPEG[FRAME:], "a cut-off JPEG"),
        (JPEG[:FRAME] + b"\xff\xfe\0\2" * 1001 + JPEG[FRAME:], "a cut-off JPEG"),
        (b"\xff\xd8\xff", "a cut-off JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4), "a cut-off PNG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IDAT" + bytes(9), "a cut-off PNG"),
        (b"GIF89a" + bytes(30), "another kind of file"),
        (b"", "an empty file"),
    ],
)
def test_a_size_is_read_from_the_header_or_told_in_words(tmp_path: Path, data: bytes, size: object):
    (tmp_path / "a").write_bytes(data)
    assert picture_size(tmp_path / "a") == size_of(io.BytesIO(data)) == size


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in {
        "pipe": "a pipe, socket or device",
        "": "a folder",
        "none": "No such file or directory",
        "loop": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
    }.items():
        assert picture_size(tmp_path / name) == words
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / name)
        assert caught.value.faults[0].found == words


@pytest.mark.parametrize("large", [True, False])
def test_each_wrong_picture_is_told_by_its_frame_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(pictures, "LARGE", 1 if large else 10**9)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_png(path, picture(seed=number))
    write_png(paths[1], picture(14, 10))
    paths[2].write_bytes(b"words")
    content = bytearray(paths[3].read_bytes())
    content[60] ^= 1
    paths[3].write_bytes(content)
    frames, wrong = read_pictures(paths, [10, 11, 12, 13, 14], (10, 14), tmp_path)
    np.testing.assert_array_equal(frames[[0, 4]], [picture(seed=0), picture(seed=4)])
    assert not frames[1:4].any()
    assert [str(fault) for faults in wrong.values() for fault in faults] == [
        "1.png, frame 11: expected 14x10 pixels as elsewhere, found 10x14",
        "2.png, frame 12: expected a PNG or JPEG, found another kind of file",
        "3.png, frame 13, byte 33: expected a chunk IDAT that fits its CRC, found a wrong CRC: the file is damaged",
    ]


def test_one_odd_picture_does_not_make_the_others_wrong(tmp_path: Path):
    for number, size in enumerate([(8, 6), (6, 8), (6, 8)]):
        write_png(tmp_path / f"{number}.png", picture(*size))
    (tmp_path / "3.png").write_bytes(b"words")
    huge = bytearray((tmp_path / "0.png").read_bytes())
    huge[16:24] = struct.pack(">II", 10**5, 10**5)
    for number in range(4, 8):
        (tmp_path / f"{number}.png").write_bytes(huge)
    assert commonest_size(tmp_path / f"{number}.png" for number in range(8)) == (6, 8)
    assert commonest_size([tmp_path / "3.png", tmp_path / "4.png"]) is None


def test_pictures_are_stretched_cut_or_padded():
    flat = np.zeros((2, 4, 8, 3), np.uint8)
    flat[:, :, :4] = 200
    assert fitted(flat, (4, 8), "stretch") is flat
    small = fitted(flat, (2, 2), "stretch")[..., 0].astype(int)
    assert (small[..., 0] > 150).all()
    assert (small.sum(-1) == 200).all()
    middle = fitted(flat, (4, 4), "crop")
    assert (middle[:, :, :2] == 200).all()
    assert not middle[:, :, 2:].any()
    padded = fitted(flat, (8, 8), "pad")
    assert not padded[:, :2].any()
    assert not padded[:, 6:].any()
    assert (padded[:, 2:6, :4] == 200).all()


def test_a_size_that_pictures_cannot_have_is_refused():
    assert check_size((1, 8192)) == (1, 8192)
    for size in ((0, 5), (5, 8193), (-1, 5)):
        with pytest.raises(UsageError, match="expected a height and a width of 1 to 8192"):
            check_size(size)


KINDS = ("RGB", "L", "LA", "P", "RGBA")


def check_damage(flips: int, cuts: int, figure: Callable[..., None], seed: int) -> None:
    """Flip one bit, then cut, at random; each has to be found, and the file named."""
    draw = np.random.default_rng(seed)
    whole = []
    for mode in KINDS:
        stream = io.BytesIO()
        Image.fromarray(picture(9, 11, seed)).convert(mode).save(stream, format="PNG")
        whole.append(stream.getvalue())

    def found(content: bytes) -> bool:
        try:
            decode_image(content, "frame.png")
        except DataError as error:
            return [fault.path for fault in error.faults] == ["frame.png"]
        return False

    count = 0
    for number in range(flips):
        content = bytearray(whole[number % len(KINDS)])
        content[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
        count += found(bytes(content))
    figure("PNG bits flipped and found", count, flips)
    count = 0
    for number in range(cuts):
        content = whole[number % len(KINDS)]
        count += found(content[: draw.integers(len(content))])
    figure("PNG files cut short and found", count, cuts)


def test_every_flipped_bit_and_every_cut_of_a_png_is_found(figure: Callable[..., None]):
    check_damage(2_000, 200, figure, 0)


@pytest.mark.nightly
def test_every_flipped_bit_and_every_cut_of_many_pngs_is_found(figure: Callable[..., None]):
    check_damage(20_000, 2_000, figure, 1)
