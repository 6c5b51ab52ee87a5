"""Reading what others wrote and damaged, writing what browsers play, and panels."""

import itertools
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from foreframe import video
from foreframe.errors import DataError
from tests.films import read_video


def moving(steps: int = 6, height: int = 12, width: int = 16, colours: int = 2**24) -> np.ndarray:
    """A square that moves over a gradient."""
    y, x = np.mgrid[:height, :width]
    frames = np.empty((steps, height, width, 3), np.uint8)
    frames[...] = np.stack([x * 255 // width, y * 255 // height, (x + y) * 4], axis=-1)
    for t in range(steps):
        frames[t, 2:6, t : t + 4] = (250, 40, 10)
    return frames if colours > 256 else frames // 128 * 128


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 2, height: int = 2, depth: int = 8, colour: int = 2, pixels: bytes = bytes(14)) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
def test_eight_bit_png_of_any_kind_reads_as_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(moving(1)[0]).convert(mode)
    image.save(tmp_path / "x.png")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(video.read_image(tmp_path / "x.png"), expected)
    np.testing.assert_array_equal(video.read_image(tmp_path / "x.png"), expected)


def test_a_palette_with_transparent_colours_reads_as_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(moving(1, colours=8)[0]).quantize(8)
    image.save(tmp_path / "x.png", transparency=b"\x00\x80")
    np.testing.assert_array_equal(video.read_image(tmp_path / "x.png"), np.asarray(image.convert("RGB")))


def test_a_written_png_reads_back_as_it_was(tmp_path: Path) -> None:
    frame = moving(1)[0]
    video.write_png(tmp_path / "deep" / "x.png", frame)
    np.testing.assert_array_equal(video.read_image(tmp_path / "deep" / "x.png"), frame)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.png"]


GOOD = png()
DAMAGED = {
    "empty": (b"", "0 bytes"),
    "zeros": (bytes(100), "a PNG or JPEG signature"),
    "text": (b"not a picture", "a PNG or JPEG signature"),
    "signature only": (GOOD[:8], "another chunk up to IEND"),
    "cut in a chunk": (GOOD[:50], "cut short"),
    "cut before the end": (GOOD[:-12], "another chunk up to IEND"),
    "flipped bit": (GOOD[:45] + bytes([GOOD[45] ^ 1]) + GOOD[46:], "a wrong CRC"),
    "16 bits": (png(depth=16), "16 bits, color type 2"),
    "1 bit grey": (png(depth=1, colour=0), "1 bits, color type 0"),
    "unknown color type": (png(colour=5), "color type 5"),
    "too wide": (png(width=8193), "8193x2"),
    "huge": (png(width=2**31 - 1, height=2**31 - 1), "1x1 to 8192x8192"),
    "no height": (png(height=0), "2x0"),
    "too few pixels": (png(pixels=bytes(3)), "PNG data that decodes"),
    "pixels that are not zlib": (GOOD[:33] + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b""), "that decodes"),
    "no pixels": (GOOD[:33] + chunk(b"IEND", b""), "that decodes"),
    "no header": (GOOD[:8] + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "IHDR of 13 bytes"),
    "palette missing": (png(colour=3, pixels=bytes(6)), "a PLTE chunk"),
    "two headers": (GOOD[:33] + GOOD[8:], "one IHDR chunk"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_png_is_refused_by_name(tmp_path: Path, name: str) -> None:
    data, expected = DAMAGED[name]
    path = tmp_path / "frame.png"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        video.read_image(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert len(caught.value.faults) == 1


def test_every_cut_of_a_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        with pytest.raises(DataError):
            video.read_image(path)
    path.write_bytes(GOOD)
    assert video.read_image(path).shape == (2, 2, 3)


def test_a_file_that_is_not_there_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "x.png", "No such file or directory"), (tmp_path, "a folder")):
        for read in (video.read_image, lambda path: video.read_frames(path, 0, 1)):
            with pytest.raises(DataError, match=found):
                read(path)


def test_a_jpeg_reads_as_rgb_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(moving(1, 32, 32)[0]).save(path, quality=95)
    assert video.read_image(path).shape == (32, 32, 3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="JPEG data that decodes"):
        video.read_image(path)


def test_a_gif_of_few_colours_is_exact_and_keeps_equal_frames(tmp_path: Path) -> None:
    frames = moving(3, colours=8).repeat(2, axis=0)
    video.write_gif(tmp_path / "x.gif", frames, fps=10, scale=2)
    read = read_video(tmp_path / "x.gif")
    np.testing.assert_array_equal(read, frames.repeat(2, axis=1).repeat(2, axis=2))
    with Image.open(tmp_path / "x.gif") as image:
        assert image.info["loop"] == 0
        assert image.n_frames == 6


def test_a_gif_of_many_colours_is_close_and_does_not_flicker(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (1, 24, 24, 3), np.uint8).repeat(3, axis=0)
    frames[:, :, 12:] = np.linspace(0, 255, 12).astype(np.uint8)[:, None]
    video.write_gif(tmp_path / "x.gif", frames, fps=10)
    read = read_video(tmp_path / "x.gif").astype(float)
    assert np.abs(read - frames).mean() < 12
    assert np.abs(read[:, :, 12:] - frames[:, :, 12:]).max() < 40
    np.testing.assert_array_equal(read[0], read[2])


@pytest.mark.parametrize(
    ("fps", "expected"), [(10, [100] * 4), (30, [30, 40, 30, 30]), (50, [20] * 4), (0.5, [2000] * 4)]
)
def test_gif_times_are_rounded_without_drift(tmp_path: Path, fps: float, expected: list[int]) -> None:
    video.write_gif(tmp_path / "x.gif", moving(4), fps)
    times = []
    with Image.open(tmp_path / "x.gif") as image:
        for t in range(image.n_frames):
            image.seek(t)
            times.append(image.info["duration"])
    assert times == expected
    for t, end in enumerate(itertools.accumulate(times), 1):
        assert abs(end - 1000 * t / fps) <= 5


@pytest.mark.parametrize("fps", [0, -1, 51, float("nan")])
def test_a_gif_too_fast_for_browsers_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        video.write_gif(tmp_path / "x.gif", moving(), fps)
    assert not list(tmp_path.iterdir())


def test_an_mp4_is_what_browsers_play_and_has_every_frame(tmp_path: Path) -> None:
    frames = moving(5, 33, 31)
    video.write_mp4(tmp_path / "x.mp4", frames, fps=12.5)
    read = read_video(tmp_path / "x.mp4")
    assert read.shape == (5, 34, 32, 3)
    assert np.abs(read[:, :33, :31].astype(int) - frames).mean() < 8
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, float(stream.average_rate)) == ("h264", "yuv420p", 12.5)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    for data in (b"GIF89a", b"GIF89a" + bytes(50), b"no video at all", png()[:20]):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(DataError, match="expected"):
            video.probe_video(tmp_path / "x")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="uint8"):
        video.write_mp4(path, moving().astype(np.float32), 10)  # type: ignore[arg-type]
    with pytest.raises(av.FFmpegError):
        video.write_mp4(path, moving(1, 1, 20000), 10)  # more than H.264 can hold
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.mp4", b"old")]


def test_tensors_become_pictures_by_rounding() -> None:
    frames = torch.tensor([0.0, 0.5, 1.0, -0.2, 1.3, 0.002]).view(1, 1, 2, 3)
    assert video.pictures(frames)[0, ..., 0].tolist() == [[0, 128, 255], [0, 255, 1]]
    assert video.pictures(torch.zeros(2, 5, 3, 4, 6)).shape == (2, 5, 4, 6, 3)
    whole = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    np.testing.assert_array_equal(video.pictures(whole), whole.permute(0, 2, 3, 1).numpy())
    with pytest.raises(ValueError, match="1 or 3 channels"):
        video.pictures(torch.zeros(2, 4, 4))


def test_a_border_is_green_while_context_and_red_after() -> None:
    frames = moving(5)
    framed = video.bordered(frames, context=2, width=3)
    np.testing.assert_array_equal(framed[:, 3:-3, 3:-3], frames)
    for t, picture in enumerate(framed):
        colour = video.GREEN if t < 2 else video.RED
        for edge in (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]):
            assert (edge == colour).all()


def test_the_error_picture_is_black_where_equal_and_brightest_where_it_saturates() -> None:
    true = np.zeros((2, 4, 4, 3), np.uint8)
    wrong = true.copy()
    wrong[0, 0, 0], wrong[0, 1, 1] = 64, 20
    error = video.error_picture(wrong, true, gain=4)
    assert error[1].max() == 0
    assert error[0, 0, 0].sum() > error[0, 1, 1].sum() > 0
    np.testing.assert_array_equal(error[0, 0, 0], video.error_picture(true + 255, true)[0, 0, 0])


def find(picture: np.ndarray, sheet: np.ndarray) -> bool:
    """Whether `picture` lies somewhere in `sheet`, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)
    candidates = (windows[..., 0, 0, :] == picture[0, 0]).all(-1)
    return any((window == picture).all() for window in windows[candidates])


def test_a_grid_holds_every_video_enlarged_under_labels_that_fit() -> None:
    a, b = moving(3), moving(3)[:, ::-1]
    rows = [("truth", a), ("a label far wider than its video", b)]
    sheet = video.grid(rows, context=1, scale=2)
    assert sheet.dtype == np.uint8
    assert len(sheet) == 3
    for frames in (a, b):
        assert find(frames[2].repeat(2, axis=0).repeat(2, axis=1), sheet[2])
    for edge in (sheet[:, :2], sheet[:, -2:], sheet[:, :, :4], sheet[:, :, -4:]):
        assert (edge == 255).all()  # nothing touches the edge: no label is cut off
    assert (sheet[0] == video.GREEN).all(-1).any()
    assert (sheet[2] == video.RED).all(-1).any()


def test_a_grid_breaks_lines_evenly() -> None:
    one = video.grid([("x", moving())], scale=8)
    five = video.grid([(str(i), moving()) for i in range(5)], scale=8, columns=4)
    four = video.grid([(str(i), moving()) for i in range(4)], scale=8, columns=4)
    assert five.shape[1] > 1.5 * one.shape[1]
    assert five.shape[2] < four.shape[2]  # three and two, not four and one


def test_a_strip_shows_every_nth_frame_of_every_row() -> None:
    a, b = moving(7), moving(7)[:, :, ::-1]
    sheet = video.strip([("truth", a), ("prediction", b)], every=3, context=2, scale=2)
    for frames in (a, b):
        for t in range(7):
            shown = find(frames[t].repeat(2, axis=0).repeat(2, axis=1), sheet)
            assert shown == (t % 3 == 0)
    for edge in (sheet[:2], sheet[-2:], sheet[:, :4], sheet[:, -4:]):
        assert (edge == 255).all()


def test_rows_of_unlike_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        video.grid([("a", moving(3)), ("b", moving(4))])
    with pytest.raises(ValueError, match="one shape"):
        video.strip([], every=1, context=1)
