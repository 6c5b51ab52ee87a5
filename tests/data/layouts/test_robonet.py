"""RoboNet against files built here with h5py, PyAV and Pillow: what is read as what, and every fault told by name."""

from __future__ import annotations

import hashlib
import io
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foreframe.data.formats import hdf5
from foreframe.data.layouts import robonet
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, UsageError

h5py = pytest.importorskip("h5py")

Frames = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    close_all()


def film(length: int, height: int = 32, width: int = 48, seed: int = 0) -> Frames:
    """A smooth picture whose colours tell its number; red and blue never meet."""
    frames = np.zeros((length, height, width, 3), np.uint8)
    frames[..., 0] = 200
    frames[..., 2] = np.linspace(0, 60, width).astype(np.uint8)
    frames[..., 1] = (np.arange(length)[:, None, None] * 6 + seed) % 200
    return frames


def mp4(frames: Frames) -> Frames:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "4", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return np.frombuffer(data.getvalue(), np.uint8)


def jpg(frame: Frames) -> Frames:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=95, subsampling=0)
    return np.frombuffer(data.getvalue(), np.uint8)


def trajectory(
    path: Path,
    frames: Frames,
    *,
    kind: str = "mp4",
    cameras: int = 1,
    adim: int = 4,
    sdim: int = 5,
    image_format: str = "RGB",
    attributes: bool = True,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One file as RoboNet has it; returns its actions and states."""
    path.parent.mkdir(parents=True, exist_ok=True)
    length = len(frames)
    rng = np.random.default_rng(length)
    actions, state = rng.normal(size=(length - 1, adim)), rng.normal(size=(length, sdim))
    with h5py.File(path, "w") as file:
        file["env/state"], file["policy/actions"] = state, actions
        file["file_version"] = "0.1.0"
        file["env"].attrs["n_cams"], file["env"].attrs["cam_encoding"] = cameras, kind
        for number in range(cameras):
            shown = np.roll(frames, number, axis=3)
            if kind == "mp4":
                data = file.create_dataset(f"env/cam{number}_video/frames", data=mp4(shown))
                if attributes:
                    data.attrs["T"] = length
                first = data
            else:
                for t, frame in enumerate(shown):
                    file[f"env/cam{number}_video/frame{t}"] = jpg(frame)[:, None] if t % 2 else jpg(frame)
                first = file[f"env/cam{number}_video/frame0"]
            if attributes:
                first.attrs["shape"], first.attrs["image_format"] = frames.shape[1:], image_format
    return actions, state


def only(folder: Path, **options: Any) -> SourceClip:
    survey = robonet.survey(folder, Options(**options))
    assert survey.faults == ()
    (clip,) = survey.clips
    assert clip.faults == ()
    return pickle.loads(pickle.dumps(clip))  # noqa: S301 - as another process gets it


def words(survey: SourceIndex) -> list[str]:
    return [str(fault) for fault in (*survey.faults, *(fault for clip in survey.clips for fault in clip.faults))]


def told(folder: Path) -> str:
    """The one fault of a survey, or of reading its one clip."""
    survey = robonet.survey(folder, Options())
    if not words(survey):
        (clip,) = survey.clips
        try:
            pieces = [clip.frames(0, clip.length), clip.rows(0, clip.length)] if clip.rows else []
        except DataError as error:
            (found,) = error.faults
            return str(found)
        return "; ".join(str(fault) for piece in pieces for found in piece.faults.values() for fault in found)
    (found,) = words(survey)
    return found


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize("kind", ["mp4", "jpg"])
def test_pictures_and_rows_are_those_of_the_file(tmp_path: Path, kind: str, attributes: bool):
    frames = film(11)
    actions, state = trajectory(
        tmp_path / "deep" / "a.hdf5", frames, kind=kind, attributes=attributes, image_format="RGB"
    )
    survey = robonet.survey(tmp_path, Options())
    assert (survey.size, survey.cond, survey.chosen, survey.shift) == ((32, 48), "vector", ("action.*",), 1)
    assert survey.columns == (*(f"action.{n}" for n in range(4)), *(f"state.{n}" for n in range(5)))
    clip = only(tmp_path)
    assert (clip.name, clip.split, clip.length) == ("deep/a.hdf5", "", 11)
    read = clip.frames(0, 11).values
    assert np.abs(read.astype(int) - frames).max() <= 12
    for start, stop in ((0, 3), (3, 4), (4, 11), (2, 5), (10, 11)):
        np.testing.assert_array_equal(clip.frames(start, stop).values, read[start:stop])
        assert clip.rows is not None
        rows = clip.rows(start, stop)
        padded = np.concatenate([actions, actions[-1:]])
        expected = np.concatenate([padded, state], axis=1).astype(np.float32)
        np.testing.assert_array_equal(rows.values, expected[start:stop])
        assert rows.values.dtype == np.float32
        assert not rows.faults


def test_a_film_in_bgr_is_turned_back_and_a_jpeg_is_not(tmp_path: Path):
    frames = film(6)
    trajectory(tmp_path / "mp4" / "a.hdf5", frames[..., ::-1], image_format="BGR")
    trajectory(tmp_path / "jpg" / "a.hdf5", frames, kind="jpg", image_format="BGR")
    for kind in ("mp4", "jpg"):
        read = only(tmp_path / kind).frames(0, 6).values
        assert np.abs(read.astype(int) - frames).max() <= 12


def test_a_camera_may_be_chosen_by_number_or_name(tmp_path: Path):
    frames = film(5)
    trajectory(tmp_path / "a.hdf5", frames, cameras=3)
    names = ("", "0", "cam1", "1", "cam2_video")
    red, _, *others = [only(tmp_path, camera=name).frames(0, 5).values[..., 0].mean().round() for name in names]
    assert red == only(tmp_path, camera="0").frames(0, 5).values[..., 0].mean().round()
    assert others[0] == others[1]
    assert len({red, *others}) == 3
    assert "camera cam0; also there: cam1, cam2 (--camera)" in robonet.survey(tmp_path, Options()).notes
    with pytest.raises(UsageError, match="no file has cam7; there is cam0, cam1, cam2"):
        robonet.survey(tmp_path, Options(camera="7"))
    with pytest.raises(UsageError, match="expected the number of a camera"):
        robonet.survey(tmp_path, Options(camera="left"))


def test_a_file_without_the_camera_that_others_have_is_a_fault(tmp_path: Path):
    trajectory(tmp_path / "a.hdf5", film(5), cameras=2)
    trajectory(tmp_path / "b.hdf5", film(5), cameras=1)
    survey = robonet.survey(tmp_path, Options(camera="1"))
    expected = "b.hdf5, env/cam1_video: expected pictures of this camera, found those of cam0_video"
    assert (len(survey.clips), words(survey)) == (1, [expected])


def test_the_list_of_test_files_makes_the_splits(tmp_path: Path):
    names = [f"google_traj{number}.hdf5" for number in range(60)]
    trajectory(tmp_path / names[0], film(3), kind="jpg")
    for name in names[1:]:
        (tmp_path / name).write_bytes((tmp_path / names[0]).read_bytes())
    assert {clip.split for clip in robonet.survey(tmp_path, Options()).clips} == {""}
    listed = [names[3], names[7], "stanford_fetch_traj1.hdf5"]
    (tmp_path / robonet.TEST_LIST).write_text("\n".join(listed) + "\n")
    survey = robonet.survey(tmp_path, Options())
    splits = {clip.name: clip.split for clip in survey.clips}
    validates = {name for name in names if hashlib.sha256(name.encode()).digest()[0] < 13} - {*listed}
    assert {name for name, split in splits.items() if split == "test"} == {names[3], names[7]}
    assert {name for name, split in splits.items() if split == "val"} == validates
    assert 0 < len(validates) < 10
    assert survey.notes == (f"1 of the 3 files in {robonet.TEST_LIST} are not here",)


@pytest.mark.parametrize("text", ["", "google_traj1.hd", "a sentence\n", "../x.hdf5\n", "\x00\x01"])
def test_a_damaged_list_of_test_files_is_a_fault(tmp_path: Path, text: str):
    trajectory(tmp_path / "a.hdf5", film(3))
    (tmp_path / robonet.TEST_LIST).write_text(text)
    assert told(tmp_path).startswith(robonet.TEST_LIST)


def test_files_of_another_robot_are_at_fault_with_their_widths(tmp_path: Path):
    for name, adim in (("a", 4), ("b", 4), ("c", 5)):
        trajectory(tmp_path / f"{name}.hdf5", film(4), adim=adim)
    survey = robonet.survey(tmp_path, Options())
    assert len(survey.columns) == 9
    assert [len(clip.faults) for clip in survey.clips] == [0, 0, 1]
    assert words(survey)[0].startswith(
        "c.hdf5: expected actions of 4 and states of 5 numbers, as in most files, found 5 and 5: another robot?"
    )


def close_all() -> None:
    robonet._FILMS.clear()
    hdf5._STORES.clear()


def change(path: Path, **arrays: Any) -> None:
    close_all()  # the library does not write to a file that it has open for reading
    with h5py.File(path, "a") as file:
        for name, values in arrays.items():
            attrs = dict(file[name].attrs) if name in file else {}
            if name in file:
                del file[name]
            if values is not None:
                file[name] = values
                file[name].attrs.update(attrs)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("env/state", None, "env/state: expected it to be there"),
        ("policy/actions", None, "policy/actions: expected it to be there"),
        ("env/cam0_video", None, "env/cam0_video: expected pictures of this camera, found none"),
        ("env/state", np.zeros((5, 5)), "env/state: expected 6 rows, one for each frame, found 5"),
        ("policy/actions", np.zeros((3, 4)), "policy/actions: expected 5 rows, one between each two frames, found 3"),
        ("env/state", np.zeros(6), "env/state: expected a row of numbers for each time step, found shape (6,)"),
        ("policy/actions", np.array([b"left"] * 5), "policy/actions: expected plain numbers, found texts"),
        ("env/cam0_video/frames", np.zeros(50), "expected a row of bytes, found float64"),
        ("env/cam0_video/frames", np.zeros((8, 8), np.uint8), "expected a row of bytes, found uint8 of shape (8, 8)"),
        ("env/cam0_video/frames", np.zeros(0, np.uint8), "expected 1 to 536870912 bytes, found 0"),
        ("env/cam0_video/frames", np.zeros(999, np.uint8), "expected a film that FFmpeg can read"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_told_with_its_name(tmp_path: Path, name: str, values: Any, message: str):
    trajectory(tmp_path / "a.hdf5", film(6))
    change(tmp_path / "a.hdf5", **{name: values})
    found = told(tmp_path)
    assert found.startswith("a.hdf5, ")
    assert message in found


def test_numbers_that_are_not_finite_are_told_with_frame_and_column(tmp_path: Path):
    actions, state = trajectory(tmp_path / "a.hdf5", film(6))
    actions[2, 1], actions[4, 3], state[5, 0], state[5, 4] = np.nan, 1e300, np.inf, np.nan
    change(tmp_path / "a.hdf5", **{"policy/actions": actions, "env/state": state})
    clip = only(tmp_path)
    assert clip.rows is not None
    rows = clip.rows(1, 6)
    assert {index: [str(fault) for fault in faults] for index, faults in rows.faults.items()} == {
        1: ["a.hdf5, frame 2, action.1: expected a finite number within float32, found nan"],
        3: ["a.hdf5, frame 4, action.3: expected a finite number within float32, found 1e+300"],
        4: [
            "a.hdf5, frame 5, action.3: expected a finite number within float32, found 1e+300",
            "a.hdf5, frame 5, state.0: expected a finite number within float32, found inf, and 1 more in this row",
        ],
    }
    assert rows.values[1, 1] == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("T", 7, "expected 7 frames as its attribute says, found 6"),
        ("T", 5, "expected 5 frames as its attribute says, found more"),
        ("T", "six", "expected a number of frames as attribute T"),
        ("shape", (32, 50, 3), "frame 0: expected 50x32 pixels, found 48x32"),
        ("shape", "big", "expected height and width as attribute shape"),
        ("image_format", "YUV", "expected RGB or BGR as attribute image_format"),
    ],
)
def test_attributes_that_lie_are_a_fault(tmp_path: Path, key: str, value: Any, message: str):
    trajectory(tmp_path / "a.hdf5", film(6))
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["env/cam0_video/frames"].attrs[key] = value
    if key == "T" and isinstance(value, int):
        change(tmp_path / "a.hdf5", **{"env/state": np.zeros((value, 5)), "policy/actions": np.zeros((value - 1, 4))})
    assert message in told(tmp_path)


def test_a_damaged_film_is_a_fault_of_its_frame(tmp_path: Path):
    trajectory(tmp_path / "a.hdf5", film(12))
    with h5py.File(tmp_path / "a.hdf5", "r") as file:
        data = file["env/cam0_video/frames"][:]
    start = data.tobytes().find(b"mdat") + 4
    data[start + 900 : start + 960] ^= 0xA5
    change(tmp_path / "a.hdf5", **{"env/cam0_video/frames": data})
    assert "a.hdf5, env/cam0_video/frames" in told(tmp_path)
    change(tmp_path / "a.hdf5", **{"env/cam0_video/frames": data[: len(data) // 2]})
    assert "a.hdf5, env/cam0_video/frames: expected a film that FFmpeg can read" in told(tmp_path)


def test_damaged_jpegs_are_faults_of_their_frames_only(tmp_path: Path):
    frames = film(6)
    trajectory(tmp_path / "a.hdf5", frames, kind="jpg")
    change(
        tmp_path / "a.hdf5",
        **{
            "env/cam0_video/frame1": jpg(frames[1])[:-200],
            "env/cam0_video/frame2": np.frombuffer(b"garbage" * 9, np.uint8),
            "env/cam0_video/frame4": jpg(frames[4, :16, :16]),
        },
    )
    piece = only(tmp_path).frames(1, 6)
    assert sorted(piece.faults) == [0, 1, 3]
    assert "env/cam0_video/frame1: expected a JPEG that decodes" in str(piece.faults[0][0])
    assert "found another kind of data" in str(piece.faults[1][0])
    assert "expected 48x32 pixels as the first frame, found 16x16" in str(piece.faults[3][0])
    assert not piece.values[[0, 1, 3]].any()
    assert np.abs(piece.values[2].astype(int) - frames[3]).max() <= 12


def test_a_jpeg_that_is_missing_in_between_is_a_fault(tmp_path: Path):
    trajectory(tmp_path / "a.hdf5", film(6), kind="jpg")
    change(tmp_path / "a.hdf5", **{"env/cam0_video/frame3": None})
    assert "frame0 to frame5, found no frame3" in told(tmp_path)


def test_pictures_behind_a_link_to_another_file_are_not_read(tmp_path: Path):
    trajectory(tmp_path / "other" / "secret.bin", film(6))
    trajectory(tmp_path / "a" / "a.hdf5", film(6))
    with h5py.File(tmp_path / "a" / "a.hdf5", "a") as file:
        del file["env/cam0_video"]
        file["env/cam0_video"] = h5py.ExternalLink("../other/secret.bin", "/env/cam0_video")
    assert told(tmp_path / "a").endswith("found a link to another file")


def test_a_few_films_are_kept_and_only_a_few_frames_are_in_memory(tmp_path: Path):
    trajectory(tmp_path / "a.hdf5", film(300, 64, 64))
    for number in range(6):
        (tmp_path / f"{number}.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes())
    clips = robonet.survey(tmp_path, Options()).clips
    tracemalloc.start()
    for clip in clips:
        for start in range(0, 300, 20):
            clip.frames(start, start + 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(robonet._FILMS) == robonet.OPEN
    assert peak < 3 * 2**20


def test_a_folder_without_files_of_this_kind_says_what_was_looked_for(tmp_path: Path):
    (tmp_path / "x.txt").write_text("x")
    assert not robonet.recognises(tmp_path)
    assert not robonet.recognises(tmp_path / "missing")
    assert robonet.LOOKS_FOR in told(tmp_path)


def muxed(packets: list[Any], stream: Any) -> Frames:
    """An MP4 of these packets of an encoder."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        copy = container.add_stream_from_template(stream)
        for packet in packets:
            packet.stream = copy
            container.mux(packet)
    return np.frombuffer(data.getvalue(), np.uint8)


def without_key_frame() -> Frames:
    with av.open(io.BytesIO(mp4(film(6))), "r") as container:
        (stream,) = container.streams.video
        return muxed([packet for packet in container.demux(stream) if packet.size and not packet.is_keyframe], stream)


def sound() -> Frames:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.frombuffer(data.getvalue(), np.uint8)


def told_of_film(folder: Path, data: Frames, *, attributes: bool = True) -> str:
    close_all()
    trajectory(folder / "a.hdf5", film(6), attributes=attributes)
    change(folder / "a.hdf5", **{"env/cam0_video/frames": data})
    return told(folder)


def test_a_film_without_pictures_or_with_none_that_begins_is_a_fault(tmp_path: Path):
    assert told_of_film(tmp_path, sound()).endswith("frames: expected a film, found data without pictures")
    found = told_of_film(tmp_path, without_key_frame(), attributes=False)
    assert found.endswith("frames: expected a film with frames, found none")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_in_the_place_of_a_film_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    (tmp_path / "secret.mp4").write_bytes(mp4(film(6)).tobytes())
    monkeypatch.chdir(tmp_path)
    found = told_of_film(tmp_path / "source", np.frombuffer(text.encode(), np.uint8))
    assert found.endswith(
        "frames: expected a film that FFmpeg can read, found Invalid data found when processing input"
    )


def test_a_frame_that_decodes_with_damage_is_a_fault(tmp_path: Path):
    """FFmpeg conceals what it cannot decode, and hands it out with a mark."""
    whole = mp4(film(6))
    start = whole.tobytes().find(b"mdat") + 4
    found = []
    for place in range(start + 700, start + 900, 40):
        data = whole.copy()
        data[place : place + 6] ^= 0xA5
        found.append(told_of_film(tmp_path, data))
    assert all("a.hdf5, env/cam0_video/frames" in fault for fault in found)
    assert any(fault.endswith(": expected a frame that decodes, found a damaged one") for fault in found), found


def test_a_film_beyond_all_size_is_refused(tmp_path: Path):
    found = told_of_film(tmp_path, mp4(np.zeros((1, 16, 8224, 3), np.uint8)))
    assert found.endswith("frames, frame 0: expected at most 8192 pixels a side, found 8224x16")


def bomb() -> Frames:
    """A JPEG of a few hundred bytes that says it is 65,500 pixels wide and high."""
    data = jpg(film(1)[0]).copy()
    start = data.tobytes().find(b"\xff\xc0")
    data[start + 5 : start + 9] = np.frombuffer(b"\xff\xdc\xff\xdc", np.uint8)
    return data


def test_a_jpeg_that_would_fill_the_memory_is_refused_by_its_header(tmp_path: Path):
    for attributes in (True, False):
        close_all()
        trajectory(tmp_path / "a.hdf5", film(3), kind="jpg", attributes=attributes)
        change(tmp_path / "a.hdf5", **{"env/cam0_video/frame0": bomb()})
        found = told(tmp_path)
        assert found.startswith(
            "a.hdf5, env/cam0_video/frame0: expected a JPEG that decodes, found Image size (4290250"
        )


def test_a_jpeg_in_other_colours_is_refused(tmp_path: Path):
    data = io.BytesIO()
    Image.new("CMYK", (48, 32)).save(data, "JPEG")
    trajectory(tmp_path / "a.hdf5", film(3), kind="jpg")
    change(tmp_path / "a.hdf5", **{"env/cam0_video/frame1": np.frombuffer(data.getvalue(), np.uint8)})
    assert told(tmp_path) == "a.hdf5, env/cam0_video/frame1: expected a JPEG in RGB or grey, found one in CMYK"


def test_no_picture_or_one_is_no_trajectory(tmp_path: Path):
    trajectory(tmp_path / "a.hdf5", film(2), kind="jpg")
    change(tmp_path / "a.hdf5", **{"env/cam0_video/frame1": None})
    assert told(tmp_path) == "a.hdf5, env/cam0_video/frame0: expected 2 frames or more, found 1"
    change(tmp_path / "a.hdf5", **{"env/cam0_video/frame0": None})
    assert told(tmp_path) == "a.hdf5, env/cam0_video: expected pictures, found none"


def test_a_list_of_test_files_outside_of_the_source_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trajectory(tmp_path / "source" / "a.hdf5", film(3))
    (tmp_path / "secret").write_text("nobody should see this\n")
    path = tmp_path / "source" / robonet.TEST_LIST
    path.symlink_to(tmp_path / "secret")
    assert told(tmp_path / "source").startswith(f"{path.name}: expected a file, or a link that stays inside the source")
    path.unlink()
    path.write_text("a.hdf5\n")

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert told(tmp_path / "source") == f"{path.name}: expected a file that can be read, found Permission denied"
