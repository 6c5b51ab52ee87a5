"""RoboNet: one HDF5 file for each trajectory of a robot, with the films of all its cameras in it.

    ROOT/ANY/berkeley_sawyer_traj0.hdf5      env/cam0_video/frames      the bytes of an MP4; attributes T, shape and
                                                                        image_format, or instead
                                             env/cam0_video/frame0 ...  the bytes of a JPEG each
                                             env/state                  T x S
                                             policy/actions             T-1 x A
    ROOT/robonet_testset_filenames.txt       names of the files that are the test split, one a line; optional

Action t leads into frame t+1; the last one stands twice. As in the data set's own loader (SudeepDasari/RoboNet,
hdf5_loader.py and metadata_helper.py), an MP4 whose image_format is BGR has red and blue exchanged; a JPEG has not.

Robots differ in the width of actions and states. Other loaders fill up or cut off; here the widths of most files are
the data set's, and another robot's file is a fault: keep robots in folders of their own, or use --on-bad skip.

With the list of test files, a twentieth of the others is "val", by the SHA-256 of their names; without it, no file has
a split.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from foreframe.data.formats.folders import Findings, relative
from foreframe.data.formats.hdf5 import SUFFIXES, Store, library, open_file, read_ends
from foreframe.data.formats.images import example_picture
from foreframe.data.layouts._arrays import ArrayReader, columns, commonest, files_below
from foreframe.data.layouts._shared import index_of
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex, reads_of
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, Fault, UsageError, reading
from foreframe.files import Recent
from foreframe.video import MAX_SIDE, Pixels
from foreframe.video.pixels import Size

NAME = "robonet"
DESCRIBE = "robots pushing things: an HDF5 file for each trajectory, with films inside (RoboNet)"
LOOKS_FOR = "*.hdf5 with env/cam0_video, env/state and policy/actions"
TAKES = ("camera",)

TEST_LIST = "robonet_testset_filenames.txt"
VAL_BELOW = 13  # of 256 values of the first byte of a name's hash
MAX_FILM = 2**29  # bytes of an MP4 or JPEG
OPEN = 4  # films that a process keeps open
_CAMERA = re.compile(r"cam([0-9]{1,3})_video")
_FRAME = re.compile(r"frame([0-9]{1,9})")
_MAX_LIST = 2**24


@dataclass(frozen=True)
class _Found:
    """What one file holds: its camera's pictures, in an MP4 or one by one, and the widths of its rows."""

    camera: str
    length: int
    size: Size
    film: bool
    swapped: bool
    actions: int
    widths: tuple[int, int]


def recognises(folder: Path) -> bool:
    """Whether an HDF5 file below holds the name of a camera of this kind."""
    return re.search(rb"cam[0-9]{1,3}_video", read_ends(folder)) is not None


def survey(folder: Path, options: Options) -> SourceIndex:
    """Every file by its headers and attributes; films are decoded later.

    Raises UsageError: h5py is not installed, or no file has this camera.
    """
    library()
    camera = _camera(options.camera)
    finds = Findings(folder)
    paths = files_below(folder, finds, SUFFIXES)
    listed = TEST_LIST in finds.ignored  # where it is a plain file that stays inside the source
    finds.ignored = [name for name in finds.ignored if name != TEST_LIST]
    found: dict[Path, _Found] = {}
    cameras: set[str] = set()
    for path in paths:
        with finds.collecting():
            store = open_file(path, relative(path, folder))
            cameras.update(name for name in store.names("env") if _CAMERA.fullmatch(name))
            found[path] = _look(store, camera)
    if options.camera and cameras and camera not in cameras:
        there = ", ".join(sorted(name.removesuffix("_video") for name in cameras))
        raise UsageError(f"camera: no file has {camera.removesuffix('_video')}; there is {there}")
    tests = _tests(folder, {path.name for path in paths}, finds) if listed else None
    usual = commonest(item.widths for item in found.values()) or (0, 0)
    clips = [_clip(path, relative(path, folder), item, usual, tests) for path, item in found.items()]
    if not clips and not finds.faults:
        finds.fault(folder, LOOKS_FOR, "none")
    size = commonest(item.size for item in found.values())
    others = sorted(name.removesuffix("_video") for name in cameras if name != camera)
    if others:
        finds.remarks.append(f"camera {camera.removesuffix('_video')}; also there: {', '.join(others)} (--camera)")
    names = _columns(usual)
    return index_of(NAME, clips, size, finds, "vector", names, ("action.*",) if names else (), 1, measured=("state.*",))


def example(folder: Path) -> None:
    """Write a tiny source of this layout: 8 files with MP4 or JPEG, 3 of them in the list of test files."""
    h5py = library()
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"berkeley_sawyer_traj{number}.hdf5" for number in (13, 18, 30, 47, 51, 62, 77, 83)]
    for order, name in enumerate(names):
        length = 8 + order % 3
        frames = np.stack([example_picture(order * 14 + number, 32, 32, order % 5) for number in range(length)])
        with h5py.File(folder / name, "w") as file:
            env = file.create_group("env")
            env.attrs["n_cams"], env.attrs["cam_encoding"] = 1, "jpg" if order % 2 else "mp4"
            camera = env.create_group("cam0_video")
            if order % 2:
                for number, picture in enumerate(frames):
                    Image.fromarray(picture).save(jpeg := io.BytesIO(), "JPEG", quality=90)
                    data = camera.create_dataset(f"frame{number}", data=np.frombuffer(jpeg.getvalue(), np.uint8))
                    data.attrs["shape"], data.attrs["image_format"] = picture.shape, "BGR"
            else:
                data = camera.create_dataset("frames", data=np.frombuffer(_mp4(frames), np.uint8))
                data.attrs["shape"], data.attrs["T"], data.attrs["image_format"] = frames.shape[1:], length, "RGB"
            env["state"] = np.arange(length * 5).reshape(length, 5) / 50 + order
            file["policy/actions"] = np.arange((length - 1) * 4).reshape(length - 1, 4) / 40 - order
    (folder / TEST_LIST).write_text("".join(f"{name}\n" for name in names[5:]))


def _camera(option: str) -> str:
    match = re.fullmatch(r"(?:cam)?([0-9]{1,3})(?:_video)?", option or "0")
    if match is None:
        raise UsageError(f"camera: expected the number of a camera, as in 0 or cam0, found '{option}'")
    return f"cam{int(match[1])}_video"


def _look(store: Store, camera: str) -> _Found:
    """The shapes of one file, which must fit each other."""
    if not store.has(f"env/{camera}"):
        others = ", ".join(name for name in store.names("env") if _CAMERA.fullmatch(name))
        raise store.error(f"env/{camera}", "pictures of this camera", f"those of {others}" if others else "none")
    actions, state = (store.header(name).shape for name in ("policy/actions", "env/state"))
    for name, shape in (("policy/actions", actions), ("env/state", state)):
        if len(shape) != 2 or not shape[1]:
            raise store.error(name, "a row of numbers for each time step", f"shape {shape}")
    first = f"env/{camera}/frames"
    film = store.has(first)
    if film:
        length, size = _film_facts(store, first)
    else:
        there = {*store.names(f"env/{camera}")}
        length = len(there)
        first = f"env/{camera}/frame0"
        for number in range(length):
            if f"frame{number}" not in there:
                last = max((int(match[1]) for name in there if (match := _FRAME.fullmatch(name))), default=0)
                expected = f"frames (an MP4), or frame0 to frame{last}"
                raise store.error(f"env/{camera}", expected, f"no frame{number}")
        if not length:
            raise store.error(f"env/{camera}", "pictures", "none")
        size = _stated_size(store, first) or _picture(store, first, None).shape[:2]
    if length < 2:
        raise store.error(first, "2 frames or more", str(length))
    if state[0] != length:
        raise store.error("env/state", f"{length} rows, one for each frame", str(state[0]))
    if actions[0] not in (length - 1, length):
        raise store.error("policy/actions", f"{length - 1} rows, one between each two frames", str(actions[0]))
    order = store.attribute(first, "image_format")
    if order not in (None, "RGB", "BGR"):
        raise store.error(first, "RGB or BGR as attribute image_format", repr(order)[:40])
    widths = actions[1], state[1]
    return _Found(camera, length, (size[0], size[1]), film, film and order == "BGR", actions[0], widths)


def _film_facts(store: Store, name: str) -> tuple[int, Size]:
    """Number of frames and (H, W) by the attributes T and shape, or from the film where they are missing."""
    length, size = store.attribute(name, "T"), _stated_size(store, name)
    if length is not None and (not isinstance(length, int) or length < 1):
        raise store.error(name, "a number of frames as attribute T", repr(length)[:40])
    if length is None or size is None:
        film = _Film(store, name)
        pictures = [picture.shape[:2] for picture in film.rest()]
        film.close()
        if not pictures:
            raise store.error(name, "a film with frames", "none")
        length, size = length or len(pictures), size or pictures[0]
    return length, size


def _stated_size(store: Store, name: str) -> Size | None:
    """(H, W) by the attribute shape."""
    shape = store.attribute(name, "shape")
    if shape is None:
        return None
    sides = shape[:2] if isinstance(shape, list) else []
    if len(sides) < 2 or not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in sides):
        raise store.error(name, "height and width as attribute shape", repr(shape)[:60])
    return sides[0], sides[1]


def _tests(folder: Path, names: set[str], finds: Findings) -> frozenset[str] | None:
    """Names in the list of test files; None where it cannot be read. That some are not here is no fault, for few
    people keep all of RoboNet."""
    path = folder / TEST_LIST
    content = None
    with finds.collecting(path), reading(path, "", "a file that can be read"):
        content = path.read_bytes() if path.stat().st_size <= _MAX_LIST else b"\0"
    if content is None:
        return None
    lines = [line.strip() for line in content.decode("utf-8", "backslashreplace").splitlines()]
    tests = frozenset(filter(None, lines))
    wrong = [number for number, line in enumerate(lines) if line and (not line.endswith(SUFFIXES) or "/" in line)]
    if wrong:
        finds.fault(path, "the name of a file (.hdf5)", f"{lines[wrong[0]][:60]!a}", f"line {wrong[0] + 1}")
    elif not tests:
        finds.fault(path, "names of files, one a line", "none")
    elif absent := len(tests - names):
        finds.remarks.append(f"{absent} of the {len(tests)} files in {TEST_LIST} are not here")
    return tests


def _columns(widths: tuple[int, int]) -> tuple[str, ...]:
    return columns({"action": widths[0], "state": widths[1]})


def _clip(path: Path, shown: str, found: _Found, usual: tuple[int, int], tests: frozenset[str] | None) -> SourceClip:
    split = ""
    if tests is not None:
        validates = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).digest()[0] < VAL_BELOW
        split = "test" if path.name in tests else "val" if validates else "train"
    arrays = (("policy/actions", found.actions), ("env/state", found.length))
    reader = _Reader(open_file, path, shown, arrays, _columns(usual), found=found)
    if found.widths == usual:
        return SourceClip(shown, split, found.length, *reads_of(reader))
    expected = f"actions of {usual[0]} and states of {usual[1]} numbers, as in most files"
    words = f"{found.widths[0]} and {found.widths[1]}: another robot? Keep each in a folder of its own, or skip these"
    return SourceClip(shown, split, found.length, reads_of(reader)[0], None, (Fault(shown, "", expected, words),))


@dataclass(frozen=True)
class _Reader(ArrayReader):
    """Reads one trajectory."""

    found: _Found = field(kw_only=True)

    def frames(self, start: int, stop: int) -> RawChunk:
        store, found = open_file(self.path, self.shown), self.found
        frames = np.zeros((stop - start, *found.size, 3), np.uint8)
        if found.film:
            name = f"env/{found.camera}/frames"
            for index, picture in enumerate(_film(self.path, store, name, start).take(start, stop, found)):
                frames[index] = picture[..., ::-1] if found.swapped else picture
            return RawChunk(frames)
        faults: dict[int, tuple[Fault, ...]] = {}
        for index, number in enumerate(range(start, stop)):
            try:
                frames[index] = _picture(store, f"env/{found.camera}/frame{number}", found.size)
            except DataError as error:
                faults[index] = error.faults
        return RawChunk(frames, faults)


def _data(store: Store, name: str) -> bytes:
    """The bytes of a film or picture, kept as a row of uint8."""
    head = store.header(name)
    count = int(np.prod(head.shape, dtype=object))
    if head.dtype not in (np.uint8, np.int8) or not head.shape or max(head.shape) != count:
        raise store.error(name, "a row of bytes", f"{head.dtype} of shape {head.shape}")
    if not 0 < count <= MAX_FILM:
        raise store.error(name, f"1 to {MAX_FILM} bytes", str(count))
    return store.read(name, 0, head.shape[0]).tobytes()


def _picture(store: Store, name: str, size: Size | None) -> Pixels:
    """A JPEG as (H, W, 3)."""
    data = _data(store, name)
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            found = (image.height, image.width)
            if max(found) > MAX_SIDE or (size is not None and found != size):
                expected = f"{size[1]}x{size[0]} pixels as the first frame" if size else f"at most {MAX_SIDE} a side"
                raise store.error(name, expected, f"{found[1]}x{found[0]}")
            if image.mode not in ("L", "RGB"):
                raise store.error(name, "a JPEG in RGB or grey", f"one in {image.mode}")
            return np.array(image.convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        words = "another kind of data" if "identify" in str(error) else str(error)
        raise store.error(name, "a JPEG that decodes", words) from error


class _Film:
    """An MP4 in memory being decoded from its beginning."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.state = store, name, store.state
        self.next = 0
        with self._errors(name):
            # The format is given: a guess may take the bytes for a playlist, and open the files that this names.
            self.container = av.open(io.BytesIO(_data(store, name)), "r", format="mov")
            if not self.container.streams.video:
                raise store.error(name, "a film", "data without pictures")
            self.stream = self.container.streams.video[0]
            self.stream.thread_type = "SLICE"  # threads cost more than they bring where pictures are small
            self.frames = self.container.decode(self.stream)
            self.reformatter = VideoReformatter()  # one for all frames: to make one takes longer than to use it

    def take(self, start: int, stop: int, found: _Found) -> Iterator[Pixels]:
        """Frames start to stop-1; with the last one, that no more follow."""
        stated = f"{found.length} frames as its attribute says"
        while self.next < stop:
            picture = self._decode()
            if picture is None:
                raise self.store.error(self.name, stated, f"{self.next}")
            if picture.shape[:2] != found.size:
                words = f"{picture.shape[1]}x{picture.shape[0]}"
                raise self.store.error(self._place(), f"{found.size[1]}x{found.size[0]} pixels", words)
            if self.next > start:
                yield picture
        if stop == found.length and self._decode() is not None:
            raise self.store.error(self.name, stated, "more")

    def rest(self) -> Iterator[Pixels]:
        while (picture := self._decode()) is not None:
            yield picture

    def close(self) -> None:
        self.container.close()

    def _decode(self) -> Pixels | None:
        with self._errors(f"{self.name}, frame {self.next}"):
            frame: Any = next(self.frames, None)
            if frame is None:
                return None
            self.next += 1
            if frame.is_corrupt:
                raise self.store.error(self._place(), "a frame that decodes", "a damaged one")
            if max(frame.height, frame.width) > MAX_SIDE:
                words = f"{frame.width}x{frame.height}"
                raise self.store.error(self._place(), f"at most {MAX_SIDE} pixels a side", words)
            pixels: Pixels = np.asarray(self.reformatter.reformat(frame, format="rgb24").to_ndarray(), np.uint8)
            return pixels

    def _place(self) -> str:
        return f"{self.name}, frame {self.next - 1}"

    def _errors(self, where: str) -> AbstractContextManager[None]:
        return reading(self.store.shown, where, "a film that FFmpeg can read", av.FFmpegError, ValueError, EOFError)


_FILMS: Recent[tuple[Path, str], _Film] = Recent(OPEN)


def _film(path: Path, store: Store, name: str, start: int) -> _Film:
    """The film, somewhere at or before frame `start`."""
    return _FILMS.use(
        (path, name), lambda: _Film(store, name), lambda film: film.next <= start and film.state == store.state
    )


def _mp4(frames: Pixels) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": "16"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return data.getvalue()
