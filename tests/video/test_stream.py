"""Videos read piece by piece: what is in a file, its frames in any order of asking, and that damage is never missed."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from foreframe.errors import DataError
from foreframe.video import (
    containers,
    probe_video,
    read_at,
    read_frames,
    read_image,
    write_gif,
    write_mp4,
)
from foreframe.video.stream import frame_rate
from tests.films import read_video

LENGTH, SIZE = 9, 32
KINDS = {
    "end.mp4": ("libx264", "yuv420p", {}),
    "start.mp4": ("libx264", "yuv420p", {"movflags": "+faststart"}),
    "pieces.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "h264.mov": ("libx264", "yuv420p", {}),
    "pictures.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "raw.avi": ("rawvideo", "bgr24", {}),
    "ffmpeg.gif": ("gif", "rgb8", {}),
    "vp8.webm": ("libvpx", "yuv420p", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "h264.mkv": ("libx264", "yuv420p", {}),
}


def frames(length: int = LENGTH) -> np.ndarray:
    blocks = np.random.default_rng(0).integers(0, 255, (length, SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def write(path: Path, codec: str, pixels: str, options: dict[str, str], times: list[int] | None = None) -> Path:
    """A video at 10 frames a second, or with frames at these tenths of a second."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, pixels
        for number, picture in enumerate(frames(len(times) if times else LENGTH)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, kind in KINDS.items():
        write(folder / name, *kind)
    write_gif(folder / "ours.gif", frames(), 10)
    write_mp4(folder / "ours.mp4", frames(), 10)
    return folder


ALL = [*KINDS, "ours.gif", "ours.mp4"]


@pytest.mark.parametrize("name", ALL)
def test_a_video_is_measured_without_error(videos: Path, name: str):
    info = probe_video(videos / name)
    assert (info.height, info.width, info.length, info.fps, info.uneven) == (SIZE, SIZE, LENGTH, 10, "")


@pytest.mark.parametrize("name", ALL)
def test_frames_read_in_pieces_equal_a_plain_decode(videos: Path, name: str):
    plain = read_video(videos / name)
    pieces = [read_frames(videos / name, start, min(start + 4, LENGTH)) for start in range(0, LENGTH, 4)]
    np.testing.assert_array_equal(np.concatenate(pieces), plain)


@pytest.mark.parametrize("name", ["end.mp4", "pictures.avi", "vp9.webm", "ours.gif"])
def test_frames_may_be_asked_for_in_any_order(videos: Path, name: str):
    plain = read_video(videos / name)
    for start, stop in ((6, 9), (0, 2), (0, 2), (3, 4), (8, 9)):
        np.testing.assert_array_equal(read_frames(videos / name, start, stop), plain[start:stop])


def test_more_videos_than_stay_open_can_be_read_in_turns(videos: Path):
    plain = {name: read_video(videos / name) for name in ALL}
    for number in range(0, LENGTH, 4):
        for name in ALL:
            np.testing.assert_array_equal(read_frames(videos / name, number, number + 1)[0], plain[name][number])


def test_asking_for_more_frames_than_there_are_names_the_frame(videos: Path):
    with pytest.raises(DataError, match=r"end\.mp4, frame 9: expected 12 frames or more, found 9"):
        read_frames(videos / "end.mp4", 5, 12)


def test_a_video_written_anew_is_read_anew(tmp_path: Path):
    path = tmp_path / "a.gif"
    write_gif(path, frames(), 10)
    read_frames(path, 0, 2)
    write_gif(path, 255 - frames(4), 10)
    np.testing.assert_array_equal(read_frames(path, 2, 4), read_video(path)[2:])


@pytest.mark.parametrize("name", ALL)
def test_a_video_cut_anywhere_is_a_fault_and_never_a_shorter_one(videos: Path, tmp_path: Path, name: str):
    content, path = (videos / name).read_bytes(), tmp_path / name
    cuts = {len(content) * part // 12 for part in range(12)} | {len(content) - 10, len(content) - 100, 1, 9, 20}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError) as caught:
            read_frames(path, 0, probe_video(path).length)
        assert [fault.path for fault in caught.value.faults] == [str(path)]


def test_a_cut_in_the_pixels_is_found_though_the_index_came_first(videos: Path, tmp_path: Path):
    content, path = (videos / "start.mp4").read_bytes(), tmp_path / "a.mp4"
    assert content.index(b"moov") < content.index(b"mdat")
    path.write_bytes(content[: (content.index(b"mdat") + len(content)) // 2])
    with pytest.raises(DataError, match=r"expected a box 'mdat' of \d+ bytes, found a file of \d+ bytes: it is cut"):
        probe_video(path)


def test_an_avi_without_an_index_is_whole_or_cut_just_the_same(videos: Path, tmp_path: Path):
    content, path = (videos / "pictures.avi").read_bytes(), tmp_path / "a.avi"
    end = content.rindex(b"idx1")
    bare = content[:4] + (end - 8).to_bytes(4, "little") + content[8:end]
    path.write_bytes(bare)
    assert probe_video(path).length == LENGTH
    np.testing.assert_array_equal(read_frames(path, 0, LENGTH), read_video(videos / "pictures.avi"))
    for size in (content[4:8], bytes(4)):  # as long as it was, or not known
        path.write_bytes(content[:4] + size + content[8 : end - 2000])
        with pytest.raises(DataError, match="cut short"):
            probe_video(path)


def test_a_webm_that_does_not_know_its_length_is_still_told_from_half_of_it(tmp_path: Path):
    path = write(tmp_path / "a.webm", "libvpx-vp9", "yuv420p", {})
    content = path.read_bytes()
    at = content.index(b"\x18\x53\x80\x67") + 4
    assert content[at] == 1
    path.write_bytes(content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 :])
    assert probe_video(path).length == LENGTH
    path.write_bytes(path.read_bytes()[: len(content) // 2])
    with pytest.raises(DataError, match=r"expected 0\.90 s as the header says, found .*: the file is cut short"):
        probe_video(path)


def test_frames_that_do_not_decode_are_faults_that_name_them(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_mp4(path, frames(), 10)
    content = bytearray(path.read_bytes())
    middle = (content.index(b"mdat") + len(content)) // 2
    content[middle : middle + 200] = b"\x55" * 200
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4, frame \d: expected"):
        read_frames(path, 0, probe_video(path).length)
    with pytest.raises(DataError, match=r"a\.mp4, frame \d: expected"):
        read_frames(path, 0, LENGTH)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"words " * 99,
        b"#EXTM3U\n#EXTINF:1,\nend.mp4\n",
        b"ffconcat version 1.0\nfile end.mp4\n",
        b"GIF89a",
        bytes(99),
    ],
    ids=["empty", "words", "playlist", "concat", "start of a GIF", "zeros"],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.gif", "a.webm"])
def test_what_is_no_video_is_a_fault_and_leads_to_no_other_file(
    videos: Path, tmp_path: Path, name: str, content: bytes
):
    (tmp_path / "end.mp4").write_bytes((videos / "end.mp4").read_bytes())
    (tmp_path / name).write_bytes(content)
    for read in (probe_video, lambda path: read_frames(path, 0, 1)):
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        assert caught.value.faults[0].path == str(tmp_path / name)


def test_a_missing_video_and_a_folder_are_faults(tmp_path: Path):
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(DataError):
            probe_video(path)
        with pytest.raises(DataError):
            read_frames(path, 0, 1)


def test_a_name_like_an_address_is_a_file_all_the_same(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "http:").mkdir()
    (tmp_path / "http:" / "a.mp4").write_bytes((videos / "end.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert probe_video(Path("http:/a.mp4")).length == LENGTH


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), lambda plain: np.rot90(plain, -1, (1, 2))),
        ((-1, 0, 0, -1), lambda plain: plain[:, ::-1, ::-1]),
        ((0, -1, 1, 0), lambda plain: np.rot90(plain, 1, (1, 2))),
    ],
    ids=["clockwise", "upside down", "counterclockwise"],
)
def test_a_video_that_asks_to_be_turned_is_turned(
    tmp_path: Path, matrix: tuple[int, ...], turned: Callable[[np.ndarray], np.ndarray]
):
    path = tmp_path / "a.mp4"
    write_mp4(path, frames()[:, :16], 10)
    plain = read_frames(path, 0, LENGTH)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # a, b, u, c, d, v, ...: 16.16 fixed point
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        content[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    expected = turned(plain)
    np.testing.assert_array_equal(read_frames(path, 0, LENGTH), expected)
    info = probe_video(path)
    assert (info.height, info.width) == expected.shape[1:3]
    missing, _ = read_at(path, [99.0], 0.01)
    assert missing.shape[1:] == expected.shape[1:]


def test_uneven_times_are_told(tmp_path: Path):
    info = probe_video(write(tmp_path / "a.mkv", "libx264", "yuv420p", {}, [0, 1, 2, 3, 8, 9, 10]))
    assert info.length == 7
    assert info.uneven == "0.100 to 0.500 s apart, most 0.100 s"


def test_frames_are_found_by_their_times_and_missing_ones_told(tmp_path: Path):
    path = write(tmp_path / "a.mkv", "libx264", "yuv420p", {}, [0, 1, 2, 5, 6])
    plain = read_video(path)
    found, missing = read_at(path, [0.0, 0.101, 0.3, 0.5, 0.6, 0.7], 0.01)
    np.testing.assert_array_equal(found[[0, 1, 3, 4]], plain[[0, 1, 3, 4]])
    assert not found[[2, 5]].any()
    assert missing == {2: "frames at 0.2000 and 0.5000 s only", 5: "no frame: the video ends at 0.6000 s"}
    again, missing = read_at(path, [0.1, 0.1, 0.2], 0.01)
    np.testing.assert_array_equal(again, plain[[1, 1, 2]])
    assert missing == {}
    assert np.array_equal(read_frames(path, 3, 5), plain[3:])
    later, missing = read_at(path, [0.2, 0.5], 0.01)
    np.testing.assert_array_equal(later, plain[2:4])
    assert missing == {}


def mixed(path: Path) -> None:
    """Four frames, of which the third is smaller."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuvj420p"
        other = av.CodecContext.create("mjpeg", "w")
        other.width, other.height, other.pix_fmt, other.time_base = 16, 16, "yuvj420p", Fraction(1, 10)
        for number, picture in enumerate(frames(4)):
            small = number == 2
            frame = av.VideoFrame.from_ndarray(picture[:16, :16] if small else picture, format="rgb24")
            frame = frame.reformat(format="yuvj420p")
            frame.pts = number
            for packet in other.encode(frame) if small else stream.encode(frame):
                packet.stream = stream
                container.mux(packet)


def test_a_picture_of_another_size_midway_is_a_fault(tmp_path: Path):
    path = tmp_path / "a.avi"
    mixed(path)
    with pytest.raises(DataError, match=r"frame 2: expected 32x32 pixels as before, found 16x16"):
        read_frames(path, 0, 4)


READERS = (probe_video, frame_rate, lambda path: read_frames(path, 0, 1), lambda path: read_at(path, [0.0], 0.01))


def box(name: bytes, body: bytes, wide: bool = False) -> bytes:
    if wide:
        return struct.pack(">I", 1) + name + struct.pack(">Q", 16 + len(body)) + body
    return struct.pack(">I", 8 + len(body)) + name + body


def refused(path: Path) -> set[str]:
    """What all readers say of a file, without its path."""
    told = set()
    for read in READERS:
        with pytest.raises(DataError) as caught:
            read(path)
        (fault,) = caught.value.faults
        assert fault.path == str(path)
        told.add(str(fault).removeprefix(f"{path}").lstrip(",: "))
    return told


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", ["end.mp4", "start.mp4", "pieces.mp4", "h264.mov", "ours.mp4"])
def test_more_frames_than_bytes_are_refused_wherever_they_are_claimed(
    videos: Path, tmp_path: Path, name: str, wide: bool
):
    content, path = (videos / name).read_bytes(), tmp_path / name
    size = len(content)
    for claim in (
        box(b"stsz", struct.pack(">III", 0, 1, 10**7), wide),
        box(b"trun", struct.pack(">II", 0, 10**7), wide),
        box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0, 10**7), wide) * 2)),
        box(b"odd!", box(b"udta", box(b"stsz", struct.pack(">III", 0, 1, 10**7), wide))),
    ):
        path.write_bytes(content + claim)
        count = 10**7 * claim.count(struct.pack(">I", 10**7))
        (words,) = refused(path)
        assert f"at most as many frames as the file has bytes, {size + len(claim)}, found {count // 10**6}" in words
    path.write_bytes(content + box(b"free", box(b"trun", struct.pack(">II", 0, 10**7), wide)))
    assert probe_video(path).length == LENGTH
    path.write_bytes(content + box(b"uuid", box(b"stsz", struct.pack(">III", 0, 0, 10**7), wide)))
    assert probe_video(path).length == LENGTH  # a list of sizes, of which FFmpeg reads what there is


def test_a_header_that_is_compressed_or_very_large_is_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content, path = (videos / "end.mp4").read_bytes(), tmp_path / "a.mp4"
    path.write_bytes(content + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"))))
    assert refused(path) == {f"byte {len(content)}: expected a plain header, found a compressed one"}
    monkeypatch.setattr(containers, "MAX_BOX", 100)
    (words,) = refused(path)
    assert "expected boxes of at most 100 bytes" in words


def test_boxes_of_odd_lengths_end_the_search(videos: Path, tmp_path: Path):
    content, path = (videos / "end.mp4").read_bytes(), tmp_path / "a.mp4"
    for more in (struct.pack(">I", 7) + b"free" + bytes(8), struct.pack(">I", 0) + b"free" + bytes(8), bytes(3)):
        path.write_bytes(content + more)
        assert probe_video(path).length == LENGTH
    path.write_bytes(content + struct.pack(">I", 1) + b"uuid" + struct.pack(">Q", 2**62))
    with pytest.raises(DataError, match=f"expected a box 'uuid' of {2**62} bytes"):
        probe_video(path)


def test_a_picture_larger_than_any_is_refused_by_the_header(tmp_path: Path):
    path = tmp_path / "a.gif"
    for side in (8193, 65535):
        head = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
        path.write_bytes(head + b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x4c\x01\x00;")
        for read in (probe_video, lambda path: read_frames(path, 0, 1)):
            with pytest.raises(
                DataError, match="header: expected a size of 1x1 to 8192x8192 pixels, found none, or a lar"
            ):
                read(path)


def test_a_video_of_one_side_too_long_is_told_with_its_size(tmp_path: Path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        track = container.add_stream("rawvideo", rate=10)
        track.width, track.height, track.pix_fmt = 8200, 2, "gray"
        container.mux(track.encode(av.VideoFrame(8200, 2, "gray")))
        container.mux(track.encode(None))
    for read in (probe_video, lambda path: read_frames(path, 0, 1)):
        with pytest.raises(DataError, match="expected a size of 1x1 to 8192x8192 pixels, found 8200x2"):
            read(path)


def test_a_file_of_sound_alone_and_an_unknown_codec_are_refused(videos: Path, tmp_path: Path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    assert refused(path) == {"expected a video, found a file without a video stream"}
    path.write_bytes((videos / "end.mp4").read_bytes().replace(b"avc1", b"xxx1"))
    assert refused(path) == {"expected a video in a codec that FFmpeg knows, found another one"}


def test_a_video_whose_frames_are_missing_is_refused(tmp_path: Path, videos: Path):
    path = tmp_path / "a.mp4"
    content = (videos / "pieces.mp4").read_bytes()
    path.write_bytes(content[: content.index(b"moof") - 4])
    with pytest.raises(DataError, match="expected a video with frames, found none"):
        probe_video(path)


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in {
        "pipe": "a pipe, socket or device",
        "": "a folder",
        "loop": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
    }.items():
        assert all(told.endswith(f", found {words}") for told in refused(tmp_path / name))


@pytest.mark.parametrize("name", ["a b", "\U0001f916", "line\nbreak", "e\u0301", "x" * 251, "%d", "a:b"])
def test_a_file_may_have_any_name(videos: Path, tmp_path: Path, name: str):
    path = tmp_path / f"{name}.mp4"
    path.write_bytes((videos / "end.mp4").read_bytes())
    assert probe_video(path).length == LENGTH
    assert frame_rate(path) == 10
    np.testing.assert_array_equal(read_frames(path, 0, LENGTH), read_video(path))


def test_a_jpeg_in_cmyk_and_a_png_with_words_in_it(tmp_path: Path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="expected a picture in grey, RGB or a palette, found one in CMYK"):
        read_image(tmp_path / "a.jpg")
    words = PngInfo()
    words.add_text("key", "words")
    Image.fromarray(frames()[0]).save(tmp_path / "a.png", pnginfo=words)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), frames()[0])
    content = (tmp_path / "a.png").read_bytes()
    empty = bytes(4) + b"tEXt" + zlib.crc32(b"tEXt").to_bytes(4)
    (tmp_path / "b.png").write_bytes(content[:33] + 2**17 * empty + content[33:])
    with pytest.raises(DataError, match="expected at most 131072 chunks"):
        read_image(tmp_path / "b.png")
