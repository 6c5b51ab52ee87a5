"""LeRobot datasets v2.0, v2.1 and v3.0: every frame and row as recorded, a clear fault for whatever is not right."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foreframe import config
from foreframe.data.formats import parquet
from foreframe.data.formats.images import example_picture
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.lerobot import episodes as episode_files
from foreframe.data.layouts.lerobot import files as meta_files
from foreframe.data.layouts.lerobot import layout as lerobot
from foreframe.data.layouts.lerobot.meta import fill, inside
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, UsageError
from foreframe.video import write_png
from tests.films import read_video

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

REAL = Path(os.environ.get("FOREFRAME_REALDATA") or Path(__file__).parents[4] / "shared" / "realdata")
TOP, SIDE = "observation.images.top", "observation.images.side"
V2 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
V3 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
LENGTHS = (5, 7, 6, 4)
Rows = list[dict[str, Any]]


def picture(episode: int, frame: int) -> NDArray[np.uint8]:
    return example_picture(frame + 3 * episode, 16, 32, episode)


def film(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float = 10) -> None:
    """H.264, 4:4:4, with frames that are stored in another order than they are shown in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        stream.options = {"crf": "1", "bf": "2", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def png(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def row(episode: int, frame: int, image: bool = False) -> dict[str, Any]:
    camera = {TOP: {"bytes": png(picture(episode, frame)), "path": None}} if image else {}
    return {
        "observation.state": [episode + frame / 10, -frame / 10],
        "action": [frame / 100, episode / 100, 1.0],
        "next.reward": frame / 7,
        "next.done": frame == LENGTHS[episode] - 1,
        "timestamp": frame / 10,
        "frame_index": frame,
        "episode_index": episode,
        "index": sum(LENGTHS[:episode]) + frame,
        "task_index": 0,
        **camera,
    }


def schema(image: bool = False) -> Any:
    kinds: dict[str, Any] = {
        "observation.state": pa.list_(pa.float32(), 2),
        "action": pa.list_(pa.float64()),
        "next.reward": pa.float32(),
        "next.done": pa.bool_(),
        "timestamp": pa.float32(),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), pa.int64()),
    }
    if image:
        kinds[TOP] = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.schema(kinds)


def save(path: Path, rows: Rows, kinds: Any = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, kinds), str(path), **options)


def info(root: Path, **changes: Any) -> None:
    """Write meta/info.json; a value of None takes a key away."""
    number = {"dtype": "float32", "shape": [1], "names": None}
    values = {
        "codebase_version": "v3.0",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        **V3,
        "features": {
            TOP: {"dtype": "video", "shape": [16, 32, 3], "names": ["height", "width", "channels"]},
            "observation.state": {"dtype": "float32", "shape": [2], "names": {"axes": ["x", "y"]}},
            "action": {"dtype": "float64", "shape": [3], "names": [["dx", "dy", "grip"]]},
            "next.reward": number,
            "next.done": {**number, "dtype": "bool"},
            "timestamp": number,
            "frame_index": {**number, "dtype": "int64"},
            "episode_index": {**number, "dtype": "int64"},
        },
    }
    values = {key: value for key, value in (values | changes).items() if value is not None}
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(values))


def change(root: Path, **features: Any) -> None:
    """Change one feature or more in meta/info.json; `__` stands for a dot."""
    path = root / "meta/info.json"
    values = json.loads(path.read_text())
    for key, value in features.items():
        values["features"].setdefault(key.replace("__", "."), {}).update(value)
    path.write_text(json.dumps(values))


def listed(lengths: Mapping[int, int], data: Mapping[int, int], video: Mapping[int, tuple[int, float]]) -> Rows:
    """Rows of meta/episodes: {episode: data file}, {episode: (video file, its first frame's second)}."""
    rows: Rows = []
    for episode, length in lengths.items():
        rows.append({"episode_index": episode, "tasks": ["do it"], "length": length})
        rows[-1] |= {"data/chunk_index": 0, "data/file_index": data[episode]}
        if video:
            file, start = video[episode]
            rows[-1] |= {f"videos/{TOP}/chunk_index": 0, f"videos/{TOP}/file_index": file}
            rows[-1] |= {f"videos/{TOP}/from_timestamp": start, f"videos/{TOP}/to_timestamp": start + length / 10}
    return rows


@pytest.fixture
def v3(tmp_path: Path) -> Path:
    """Data of episodes 0, 1 | 2, 3; videos of episodes 0 | 1, 2, 3: the files are cut at different places."""
    root = tmp_path / "v3"
    info(root)
    for file, episodes in enumerate(((0, 1), (2, 3))):
        rows = [row(episode, frame) for episode in episodes for frame in range(LENGTHS[episode])]
        save(root / f"data/chunk-000/file-{file:03d}.parquet", rows, schema(), row_group_size=4)
    for file, episodes in enumerate(((0,), (1, 2, 3))):
        frames = [picture(episode, frame) for episode in episodes for frame in range(LENGTHS[episode])]
        film(root / f"videos/{TOP}/chunk-000/file-{file:03d}.mp4", frames)
    places = {0: (0, 0.0), 1: (1, 0.0), 2: (1, 0.7), 3: (1, 1.3)}
    rows = listed(dict(enumerate(LENGTHS)), {0: 0, 1: 0, 2: 1, 3: 1}, places)
    save(root / "meta/episodes/chunk-000/file-000.parquet", rows)
    save(root / "meta/tasks.parquet", [{"task_index": 0, "__index_level_0__": "do it"}])
    return root


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    root = tmp_path / "v2"
    info(root, codebase_version="v2.1", **V2)
    for episode, length in enumerate(LENGTHS):
        save(root / fill(V2["data_path"], episode_chunk=0, episode_index=episode), rows_of(episode), schema())
        frames = [picture(episode, frame) for frame in range(length)]
        film(root / fill(V2["video_path"], episode_chunk=0, episode_index=episode, video_key=TOP), frames)
    lines = ({"episode_index": episode, "tasks": ["do it"], "length": n} for episode, n in enumerate(LENGTHS))
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "do it"}\n')
    (root / "meta/episodes_stats.jsonl").write_text('{"episode_index": 0, "stats": {"action": {"min": NaN}}}\n')
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """v3.0 with pictures inside parquet, one data file."""
    root = tmp_path / "pictures"
    info(root, video_path=None)
    change(root, **{TOP.replace(".", "__"): {"dtype": "image"}})
    rows = [row(episode, frame, image=True) for episode in range(4) for frame in range(LENGTHS[episode])]
    save(root / "data/chunk-000/file-000.parquet", rows, schema(image=True), row_group_size=6)
    rows = listed(dict(enumerate(LENGTHS)), dict.fromkeys(range(4), 0), {})
    save(root / "meta/episodes/chunk-000/file-000.parquet", rows)
    return root


def rows_of(episode: int) -> Rows:
    return [row(episode, frame) for frame in range(LENGTHS[episode])]


def edit(path: Path, kinds: Any, change: Callable[[Rows], object]) -> None:
    """Change the rows of a parquet file."""
    rows = pq.read_table(str(path)).to_pylist()
    change(rows)
    save(path, rows, kinds)


def take(root: Path, camera: str = "") -> SourceIndex:
    survey = lerobot.survey(root, Options(camera=camera))
    assert survey.faults == ()
    return survey


def check(survey: SourceIndex, step: int = 3, tolerance: int = 3) -> None:
    """Every clip, read in short stretches, is what was recorded."""
    for clip, length in zip(survey.clips, LENGTHS, strict=True):
        episode = int(clip.name.removeprefix("episode_"))
        assert clip.length == length
        assert clip.rows is not None
        for start in range(0, length, step):
            stop = min(start + step, length)
            frames, rows = clip.frames(start, stop), clip.rows(start, stop)
            assert not frames.faults
            assert not rows.faults
            expected = np.stack([picture(episode, frame) for frame in range(start, stop)])
            assert np.abs(frames.values.astype(int) - expected).max() <= tolerance
            recorded = [row(episode, frame) for frame in range(start, stop)]
            keys = ("action", "observation.state", "next.reward", "next.done")
            wanted = [np.hstack([each[key] for key in keys]) for each in recorded]
            assert rows.values.dtype == np.float32
            np.testing.assert_array_equal(rows.values, np.float32(wanted))


def faults_of(clip: SourceClip) -> list[str]:
    """All that is wrong with a clip, in words."""
    found = list(clip.faults)
    for read in filter(None, (clip.frames, clip.rows)):
        try:
            piece = read(0, clip.length)
            found += [fault for index in sorted(piece.faults) for fault in piece.faults[index]]
            assert not any(piece.values[index].any() for index in piece.faults)
        except DataError as error:
            found += error.faults
    return [str(fault) for fault in found]


def problems(root: Path) -> list[str]:
    """Faults of the folder and of every clip, each once."""
    survey = lerobot.survey(root, Options())
    found = [str(fault) for fault in survey.faults]
    for clip in survey.clips:
        found += faults_of(clip)
    return [fault.replace(f"{root}/", "") for fault in dict.fromkeys(found)]


def test_the_example_is_read_as_it_was_drawn(tmp_path: Path):
    lerobot.example(tmp_path)
    assert lerobot.recognises(tmp_path)
    survey = take(tmp_path)
    assert [clip.length for clip in survey.clips] == [8 + episode % 5 for episode in range(12)]
    assert {clip.split for clip in survey.clips} == {""}
    assert (survey.size, survey.shift, survey.fps, survey.notes) == ((16, 16), 1, 10, ())
    assert survey.columns == ("action.x", "action.y", "state.x", "state.y")
    for episode, clip in enumerate(survey.clips):
        copy = pickle.loads(pickle.dumps(clip))  # noqa: S301
        drawn = [example_picture(frame + episode, 16, 16, episode % 4) for frame in range(clip.length)]
        np.testing.assert_array_equal(copy.frames(0, clip.length).values, drawn)
        np.testing.assert_array_equal(copy.rows(2, 4).values[:, 0], np.float32([0.2, 0.3]))


def test_each_file_of_the_example_is_missed_where_it_is_damaged(tmp_path: Path):
    lerobot.example(tmp_path / "whole")
    for path in sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file()):
        name = path.relative_to(tmp_path / "whole").as_posix()
        content = path.read_bytes()
        for number, damage in enumerate((content[: len(content) // 2], b"", b"no such thing\n" * 9)):
            root = tmp_path / f"{number}"
            shutil.copytree(tmp_path / "whole", root)
            (root / name).write_bytes(damage)
            assert lerobot.recognises(root)
            assert any(fault.startswith(name) for fault in problems(root)), (name, number)
            shutil.rmtree(root)


def test_v3_files_of_videos_and_of_data_are_cut_at_different_places(v3: Path):
    survey = take(v3)
    check(survey)
    check(survey, step=99)
    assert [clip.file[-12:] for clip in survey.clips] == ["file-000.mp4", *["file-001.mp4"] * 3]
    assert survey.columns == (
        "action.dx", "action.dy", "action.grip", "state.x", "state.y", "next.reward", "next.done"
    )  # fmt: skip
    assert survey.chosen == ("action.*", "state.*")
    assert (survey.cond, survey.notes, survey.warnings) == ("vector", (), ())
    film = read_video(v3 / f"videos/{TOP}/chunk-000/file-001.mp4")
    np.testing.assert_array_equal(survey.clips[2].frames(2, 6).values, film[7 + 2 : 7 + 6])


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_v2_has_a_file_for_each_episode(v2: Path, version: str):
    info(v2, codebase_version=version, **V2)
    (v2 / "meta/stats.json").write_text('{"action": {"max": [Infinity]}}')
    survey = take(v2)
    check(survey)
    assert survey.clips[3].file == f"videos/chunk-000/{TOP}/episode_000003.mp4"
    assert survey.notes == ()


def test_v2_episodes_lie_in_chunks(v2: Path):
    for top in ("data", f"videos/chunk-000/{TOP}"):
        end = f"/{TOP}" if "videos" in top else ""
        base = top.split("/")[0]
        source = v2 / f"{base}/chunk-000{end}"
        target = v2 / f"{base}/chunk-001{end}"
        target.mkdir(parents=True)
        for path in sorted(source.glob("episode_*"))[2:]:
            path.rename(target / path.name)
    info(v2, codebase_version="v2.1", chunks_size=2, **V2)
    check(take(v2))


def test_pictures_may_lie_in_the_table_itself(pictures: Path):
    survey = take(pictures)
    check(survey, tolerance=0)
    assert survey.clips[0].file == "data/chunk-000/file-000.parquet"


def test_pictures_may_be_jpeg_or_grey_or_lie_below_the_root(pictures: Path):
    grey = picture(0, 1)[..., 0]
    write_png(pictures / "images/a/b.png", picture(0, 2))

    def edited(rows: Rows) -> None:
        rows[0][TOP] = {"bytes": png(picture(0, 0), "JPEG"), "path": "x.png"}
        rows[1][TOP] = {"bytes": png(grey), "path": ""}
        rows[2][TOP] = {"bytes": None, "path": "images/a/b.png"}

    edit(pictures / "data/chunk-000/file-000.parquet", schema(image=True), edited)
    frames = take(pictures).clips[0].frames(0, 3)
    assert not frames.faults
    with Image.open(io.BytesIO(png(picture(0, 0), "JPEG"))) as image:
        np.testing.assert_array_equal(frames.values[0], np.asarray(image))
    np.testing.assert_array_equal(frames.values[1], np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(frames.values[2], picture(0, 2))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (None, "expected a picture, found nothing"),
        ({"bytes": None, "path": None}, "expected a picture, found nothing"),
        ({"bytes": b"", "path": "none.png"}, "none.png, episode 1, frame 2"),
        ({"bytes": None, "path": "../v3/x.png"}, "expected a path that stays inside the dataset"),
        ({"bytes": None, "path": "/etc/passwd"}, "expected a path that stays inside the dataset"),
        ({"bytes": None, "path": "out/x.png"}, "expected a path that stays inside the dataset"),
        ({"bytes": b"garbage", "path": None}, "expected a PNG or JPEG signature, found b'garbage'"),
        ({"bytes": png(picture(0, 0))[:90], "path": None}, "the file is cut short"),
        ({"bytes": png(picture(0, 0), "JPEG")[:90], "path": None}, "JPEG data that decodes"),
        ({"bytes": png(picture(0, 0)[:8]), "path": None}, "expected 32x16 pixels as meta/info.json says, found 32x8"),
    ],
)
def test_a_picture_that_cannot_be_read_is_a_fault_of_its_frame(pictures: Path, cell: Any, words: str):
    (pictures / "out").symlink_to("/usr")
    path = pictures / "data/chunk-000/file-000.parquet"
    edit(path, schema(image=True), lambda rows: rows[5 + 2].update({TOP: cell}))
    clip = lerobot.survey(pictures, Options()).clips[1]
    assert list(clip.frames(0, 7).faults) == [2]
    (fault,) = faults_of(clip)
    assert words in fault
    assert "episode 1, frame 2" in fault


def test_a_column_of_pictures_must_be_one(pictures: Path):
    path = pictures / "data/chunk-000/file-000.parquet"
    table = pq.read_table(str(path))
    place = table.schema.get_field_index(TOP)
    pq.write_table(table.set_column(place, TOP, pa.array(["x"] * len(table))), str(path))
    assert problems(pictures) == [
        f"data/chunk-000/file-000.parquet: expected bytes and path in the column {TOP}, found string"
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"]),
        ([["a", "b", "c"]], ["a", "b", "c"]),
        ([["a"], ["b", "c"]], ["a", "b", "c"]),
        ({"motors": ["a", "b", "c"]}, ["a", "b", "c"]),
        ({"b": 1, "c": 2, "a": 0}, ["a", "b", "c"]),
        (None, ["0", "1", "2"]),
        (["actions"], ["0", "1", "2"]),
        (["a", "a", "b"], ["0", "1", "2"]),
        ([1, 2.5, "\n"], ["1", "2.5", "\\n"]),
    ],
)
def test_names_of_numbers_come_in_many_forms(v3: Path, names: object, expected: list[str]):
    change(v3, action={"names": names})
    assert take(v3).columns[:3] == tuple(f"action.{name}" for name in expected)


def test_other_numbers_are_columns_that_are_not_chosen(v3: Path):
    extra = {"dtype": "float32", "shape": [2], "names": None}
    change(
        v3, action__left=extra, observation__words={"dtype": "string", "shape": [1]}, grid={**extra, "shape": [2, 2]}
    )
    survey = take(v3)
    assert survey.columns[-2:] == ("action.left.0", "action.left.1")
    assert survey.chosen == ("action.dx", "action.dy", "action.grip", "state.x", "state.y")
    assert survey.notes == ("features not used: observation.words (string 1), grid (float32 2x2)",)


def test_without_an_action_all_numbers_are_taken_and_a_warning_says_so(v3: Path):
    path = v3 / "meta/info.json"
    path.write_text(path.read_text().replace('"action"', '"moves"').replace('"observation.state"', '"joints"'))
    survey = take(v3)
    assert survey.columns[:3] == ("joints.x", "joints.y", "moves.dx")
    assert survey.chosen == ()
    assert survey.warnings == (
        "no feature is called action or observation.state: all numbers are taken; choose with --columns",
    )


def test_without_any_numbers_there_is_no_condition(v3: Path):
    change(v3)
    values = json.loads((v3 / "meta/info.json").read_text())
    values["features"] = {TOP: values["features"][TOP]}
    info(v3, features=values["features"])
    survey = take(v3)
    assert (survey.cond, survey.columns, survey.chosen, survey.warnings) == ("none", (), (), ())
    assert survey.clips[0].rows is None
    assert not survey.clips[3].frames(0, 4).faults


def test_a_camera_is_found_by_its_whole_name_or_the_last_part(v3: Path):
    camera = json.loads((v3 / "meta/info.json").read_text())["features"][TOP]
    key = SIDE.replace(".", "__")
    change(v3, **{key: camera, "observation__images__adepth": {**camera, "info": {"video.is_depth_map": True}}})
    rows = pq.read_table(str(v3 / "meta/episodes/chunk-000/file-000.parquet")).to_pylist()
    for each in rows:
        each |= {key.replace(TOP, SIDE): value for key, value in each.items() if TOP in key}
        each[f"videos/{SIDE}/file_index"] = 7 + each["episode_index"]
    save(v3 / "meta/episodes/chunk-000/file-000.parquet", rows)
    for name in ("top", TOP):
        assert take(v3, name).notes == ()
        check(take(v3, name))
    survey = take(v3)
    assert survey.notes[0] == (
        f"camera {SIDE} is taken; there is also {TOP}, observation.images.adepth: choose with --camera"
    )
    assert survey.clips[0].file == f"videos/{SIDE}/chunk-000/file-007.mp4"
    with pytest.raises(UsageError, match=rf"camera: expected one of {TOP}, .*, got 'tpo'; did you mean 'top'\?"):
        take(v3, "tpo")
    change(v3, wrist__top=camera)
    with pytest.raises(UsageError, match=rf"camera: 'top' may be {TOP} or wrist\.top; give the whole name"):
        take(v3, "top")


def test_official_splits_are_used_where_there_is_more_than_train(v3: Path):
    info(v3, splits={"train": "0:2", "validation": "2:3", "test": "3:4"})
    assert [clip.split for clip in take(v3).clips] == ["train", "train", "val", "test"]
    info(v3, splits={"train": "0:2", "test": "3:4"})
    survey = take(v3)
    assert faults_of(survey.clips[2]) == [
        "meta/info.json, splits, episode 2: expected a split that holds it, found none"
    ]


def test_train_alone_and_unknown_splits_leave_it_to_the_hash(v3: Path):
    info(v3, splits=None)
    assert take(v3).warnings == ()
    info(v3, splits={"train": "0:3"})
    survey = take(v3)
    assert {clip.split for clip in survey.clips} == {""}
    assert survey.warnings == ("meta/info.json: splits: only train, 0:3 of 4 episodes: not used",)
    info(v3, splits={"all": "0:4"})
    assert take(v3).warnings == ("meta/info.json: splits: all: no such split here, not used",)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (
            {"train": "0:3", "val": "2:4"},
            "splits, val: expected no episode that is in train as well, found 2:4 and 0:3",
        ),
        ({"val": "0:2", "valid": "2:4"}, "splits, valid: expected one range for val, found another"),
        ({"train": "3:1"}, "splits, train: expected a range of episodes like 0:79, found '3:1'"),
        ({"train": [0, 4]}, "splits, train: expected a range of episodes like 0:79, found [0, 4]"),
        ({"train": "-1:4"}, "splits, train: expected a range"),
        ({"train": "0:2", "val": "2:9"}, "splits: expected 4 episodes, as total_episodes says, found val 2:9"),
        ([1], "splits: expected an object, found [1]"),
    ],
)
def test_splits_that_cannot_be_are_faults(v3: Path, splits: object, words: str):
    info(v3, splits=splits)
    assert any(words in fault for fault in problems(v3))


def test_a_dataset_may_be_there_in_part(v2: Path, v3: Path):
    lines = (v2 / "meta/episodes.jsonl").read_text().splitlines(keepends=True)
    (v2 / "meta/episodes.jsonl").write_text("".join(lines[1:3]))
    survey = take(v2)
    assert [clip.name for clip in survey.clips] == ["episode_000001", "episode_000002"]
    assert survey.notes[0] == "2 of 4 episodes are here"
    assert survey.notes[1].startswith("4 other files not used: data/chunk-000/episode_000000.parquet")
    rows = pq.read_table(str(v3 / "meta/episodes/chunk-000/file-000.parquet")).to_pylist()
    save(v3 / "meta/episodes/chunk-000/file-000.parquet", rows[2:])
    save(v3 / "meta/episodes/chunk-000/file-001.parquet", rows[:1])
    survey = take(v3)
    assert survey.notes[0] == "3 of 4 episodes are here"
    assert [faults_of(clip) for clip in survey.clips] == [[], [], []]


def test_an_absent_file_is_a_fault_of_the_clips_in_it(v2: Path, v3: Path):
    (v2 / f"videos/chunk-000/{TOP}/episode_000001.mp4").unlink()
    (v2 / "data/chunk-000/episode_000002.parquet").unlink()
    words = "expected the file of this episode, found no such file"
    survey = take(v2)
    assert [len(clip.faults) for clip in survey.clips] == [0, 1, 1, 0]
    assert str(survey.clips[1].faults[0]) == f"videos/chunk-000/{TOP}/episode_000001.mp4, episode 1: {words}"
    assert str(survey.clips[2].faults[0]) == f"data/chunk-000/episode_000002.parquet, episode 2: {words}"
    (v3 / f"videos/{TOP}/chunk-000/file-001.mp4").unlink()
    assert [len(clip.faults) for clip in take(v3).clips] == [0, 1, 1, 1]


def test_a_link_out_of_the_dataset_is_not_followed(v2: Path, tmp_path: Path):
    path = v2 / "data/chunk-000/episode_000002.parquet"
    path.rename(tmp_path / "x.parquet")
    path.symlink_to(tmp_path / "x.parquet")
    survey = lerobot.survey(v2, Options())
    assert "a link that stays inside the source" in str(survey.faults[0])
    assert len(survey.clips[2].faults) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frame_index": 9}, "episode 1, frame 2: expected frame_index 2, found 9"),
        ({"frame_index": None}, "episode 1, frame 2: expected frame_index 2, found nothing"),
        ({"timestamp": 0.21}, "episode 1, frame 2: expected timestamp 0.200000, found 0.210000"),
        ({"timestamp": 0.1}, "episode 1, frame 2: expected timestamp 0.200000, found 0.100000"),
        ({"timestamp": float("nan")}, "episode 1, frame 2: expected timestamp 0.200000, found nan"),
        ({"timestamp": float("inf")}, "episode 1, frame 2: expected timestamp 0.200000, found inf"),
        ({"timestamp": -3e38}, "episode 1, frame 2: expected timestamp 0.200000, found -3000"),
        ({"timestamp": None}, "episode 1, frame 2: expected timestamp 0.200000, found nothing"),
        ({"episode_index": 0}, "episode 1: expected 7 rows in one span, as meta says, found 6"),
        (
            {"action": [1.0, float("nan"), float("inf")]},
            "frame 2, action.dy, action.grip: expected finite numbers, found nan",
        ),
        ({"action": [1e300, 0.0, 0.0]}, "episode 1, frame 2, action.dx: expected finite numbers, found inf"),
        ({"action": [1.0]}, "episode 1, frame 2, action: expected 3 numbers, found 1 numbers"),
        ({"action": [1.0, None, 2.0]}, "episode 1, frame 2, action: expected 3 numbers, found nothing"),
        ({"action": None}, "episode 1, frame 2, action: expected 3 numbers, found nothing"),
        ({"next.reward": float("-inf")}, "episode 1, frame 2, next.reward: expected finite numbers, found -inf"),
        ({"next.done": None}, "episode 1, frame 2, next.done: expected 1 number, found nothing"),
    ],
)
def test_a_bad_row_is_a_fault_that_names_it(v2: Path, v3: Path, changes: Any, words: str):
    for root, name, place in ((v2, "episode_000001", 2), (v3, "file-000", 5 + 2)):
        path = root / f"data/chunk-000/{name}.parquet"
        edit(path, schema(), lambda rows, place=place: rows[place].update(changes))
        found = [fault for fault in problems(root) if "timestamp" in words or "timestamp" not in fault]
        assert any(fault.startswith(f"data/chunk-000/{name}.parquet, ") and words in fault for fault in found), found
        if "episode_index" not in changes:
            assert len(found) == 1


def test_timestamps_may_begin_late_and_drift_as_little_as_lerobot_allows(v2: Path):
    def late(rows: Rows) -> None:
        for number, each in enumerate(rows):
            each["timestamp"] = 0.1 + 0.10009 * number

    path = v2 / "data/chunk-000/episode_000001.parquet"
    edit(path, schema(), late)
    (fault,) = faults_of(take(v2).clips[1])
    video = f"videos/chunk-000/{TOP}/episode_000001.mp4"
    assert (
        fault
        == f"{video}, episode 1, frame 6: expected a frame at 0.7005 s, found no frame: the video ends at 0.6000 s"
    )


def test_a_wrong_number_of_rows_is_a_fault_of_the_episode(v2: Path, v3: Path):
    path = v2 / "data/chunk-000/episode_000001.parquet"
    edit(path, schema(), lambda rows: rows.pop())
    assert problems(v2) == [
        "data/chunk-000/episode_000001.parquet, episode 1: expected 7 rows in one span, as meta says, found 6"
    ]
    edit(path, schema(), lambda rows: rows.append(row(2, 0)))
    assert "found 6" in problems(v2)[0]
    edit(path, schema(), lambda rows: rows.insert(6, row(1, 6)))
    assert problems(v2)[0].endswith("expected rows of this episode only, found rows of 2 episodes")
    edit(path, schema(), lambda rows: [each.update(episode_index=5) for each in rows])
    assert problems(v2)[0].endswith("expected 7 rows of this episode, found none; episode_index is 5")
    save(path, [], schema())
    assert problems(v2)[0].endswith("expected 7 rows of this episode, found an empty table")
    edit(v3 / "data/chunk-000/file-001.parquet", schema(), lambda rows: rows.append(rows.pop(2)))
    assert problems(v3)[0].endswith("episode 2: expected 6 rows in one span, as meta says, found 6 in 2 spans")


def test_a_table_without_a_column_or_with_texts_in_it_is_a_fault(v2: Path):
    path = v2 / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(str(path))
    pq.write_table(table.drop_columns(["timestamp"]), str(path))
    assert "expected one column timestamp, found observation.state, action" in problems(v2)[0]
    texts = table.set_column(table.schema.get_field_index("action"), "action", pa.array(["x"] * len(table)))
    pq.write_table(texts, str(path))
    assert problems(v2) == [
        "data/chunk-000/episode_000001.parquet: expected numbers in the column action, found string"
    ]


def test_a_frame_that_the_video_does_not_hold_is_a_fault_with_its_time(v2: Path):
    path = v2 / f"videos/chunk-000/{TOP}/episode_000001.mp4"
    film(path, [picture(1, frame) for frame in range(5)])
    words = "found no frame: the video ends at 0.4000 s"
    assert [fault.partition(", ")[2] for fault in problems(v2)] == [
        f"episode 1, frame {frame}: expected a frame at 0.{frame}000 s, {words}" for frame in (5, 6)
    ]
    film(path, [picture(1, frame) for frame in range(7)], fps=4)
    assert problems(v2) == [
        f"videos/chunk-000/{TOP}/episode_000001.mp4: expected 10 frames a second as meta/info.json says, found 4"
    ]


def test_a_video_of_another_size_is_a_fault(v2: Path):
    film(v2 / f"videos/chunk-000/{TOP}/episode_000001.mp4", [picture(1, frame)[:, :16] for frame in range(7)])
    (fault,) = problems(v2)
    assert fault.endswith("episode_000001.mp4: expected 32x16 pixels as meta/info.json says, found 16x16")


def test_a_broken_video_is_a_fault(v2: Path):
    path = v2 / f"videos/chunk-000/{TOP}/episode_000001.mp4"
    path.write_bytes(path.read_bytes()[:500])
    (fault,) = problems(v2)
    assert fault.startswith(f"videos/chunk-000/{TOP}/episode_000001.mp4: expected a video that FFmpeg can read")


def test_an_episode_never_runs_into_the_next_one_of_its_video(v3: Path):
    path = v3 / "meta/episodes/chunk-000/file-000.parquet"
    edit(path, None, lambda rows: rows[1].update({f"videos/{TOP}/to_timestamp": 0.6}))
    assert (
        f"meta/episodes/chunk-000/file-000.parquet, row 2, videos/{TOP}/to_timestamp: "
        "expected 0.7000, 7 frames after from_timestamp, found 0.6000"
    ) in problems(v3)
    edit(path, None, lambda rows: rows[1].update({f"videos/{TOP}/to_timestamp": 0.7}))
    later = [
        {**each, "timestamp": each["timestamp"] + 0.1 * (each["episode_index"] == 1)}
        for each in rows_of(0) + rows_of(1)
    ]
    save(v3 / "data/chunk-000/file-000.parquet", later, schema())
    (fault,) = problems(v3)
    assert fault.endswith("episode 1, frame 6: expected a frame at 0.7000 s, found the end of the episode at 0.7000 s")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version: expected v2.0, v2.1 or v3.0, found 'v1.6'"),
        ({"codebase_version": 3}, "codebase_version: expected v2.0, v2.1 or v3.0, found 3"),
        ({"fps": None}, "fps: expected a number, 0.001 to 100,000, found no such key"),
        ({"fps": 0}, "fps: expected a number"),
        ({"fps": float("inf")}, "Infinity is not a JSON number"),
        ({"fps": True}, "fps: expected a number, 0.001 to 100,000, found True"),
        ({"fps": "30"}, "fps: expected a number, 0.001 to 100,000, found '30'"),
        ({"total_episodes": -1}, "total_episodes: expected a whole number, 0 or more, found -1"),
        ({"total_episodes": 3}, "total_episodes: expected 4 or more, as meta lists, found 3"),
        ({"total_episodes": None}, "total_episodes: expected a whole number, 0 or more, found no such key"),
        ({"total_frames": 21}, "total_frames: expected 22 or more, as the lengths of episodes make, found 21"),
        ({"total_frames": 2.5}, "total_frames: expected a whole number, 0 or more, found 2.5"),
        ({"total_tasks": -3}, "total_tasks: expected a whole number, 0 or more, found -3"),
        ({"chunks_size": 0}, "chunks_size: expected a whole number, 1 or more, found 0"),
        ({"chunks_size": 10**30}, "expected JSON, found 100000000000000000000000000000 does not fit"),
        ({"chunks_size": "1000"}, "chunks_size: expected a whole number, 1 or more, found '1000'"),
        ({"features": None}, "features: expected an object, found no such key"),
        ({"features": {}}, "features: expected the columns of the dataset, found none"),
        ({"features": {"action": 5}}, "features.action: expected an object, found 5"),
        ({"features": {"action": {}}}, "features.action.dtype: expected text, found no such key"),
        ({"features": {"action": {"dtype": "float32", "shape": [2]}}}, "expected a feature with dtype video or image"),
        ({"features": {"../x": {"dtype": "video", "shape": [8, 8, 3]}}}, "expected a name of a camera that can be"),
        ({"features": {"x": {"dtype": "video", "shape": [8]}}}, "expected height, width and channels, found [8]"),
        ({"features": {"x": {"dtype": "video", "shape": [0, 8, 3]}}}, "expected pictures of 1x1 to 8192x8192 pixels"),
        ({"features": {"x": {"dtype": "image", "shape": [10**9, 8, 3]}}}, "pixels, found [1000000000, 8]"),
        ({"features": {"x": {"dtype": "video", "shape": [8, 8, 3], "info": 3}}}, "info: expected an object, found 3"),
        ({"data_path": None}, "data_path: expected text, found no such key"),
        ({"data_path": 7}, "data_path: expected text, found 7"),
        ({"video_path": ""}, "video_path: expected a path"),
        ({"data_path": "../../etc/{chunk_index:03d}"}, "data_path: expected a path that stays inside the dataset"),
        ({"data_path": "/etc/{chunk_index}"}, "data_path: expected a path that stays inside the dataset"),
        ({"data_path": "a/./{chunk_index}"}, "data_path: expected a path that stays inside the dataset"),
        ({"data_path": "C:\\{chunk_index}"}, "data_path: expected a path that stays inside the dataset"),
        ({"data_path": "{chunk_index.__class__}"}, "data_path: expected a path with no fields but"),
        ({"data_path": "{chunk_index:99999999d}"}, "data_path: expected a path with no fields but"),
        ({"data_path": "{chunk_index!r}/{0}"}, "data_path: expected a path with no fields but"),
        ({"data_path": "data/{episode_index:06d}"}, "expected a path with no fields but {chunk_index}, {file_index}"),
        ({"video_path": "{video_key:03d}"}, "video_path: expected a path with no fields but"),
    ],
)  # fmt: skip
def test_what_info_says_is_not_believed(v3: Path, changes: Any, words: str):
    info(v3, **changes)
    assert any(fault.startswith("meta/info.json") and words in fault for fault in problems(v3)), problems(v3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1, column 1: expected JSON, found Expecting value"),
        ("null", "expected a JSON object, found null"),
        ("[]", "expected a JSON object, found []"),
        ("{", "line 1, column 2: expected JSON, found Expecting property name"),
        ('{"fps": NaN}', "column 9: expected JSON, found NaN is not a JSON number"),
        ("[" * 100_000, "expected JSON, found lists and objects more than 32 deep"),
        ('{"fps": 1' + "0" * 5000 + "}", "expected JSON, found 100000000000000000000000000000 does not fit"),
        ('{"fps": "\udcff"}', "byte 9: expected JSON, found not UTF-8: 0xff"),
        ('{"codebase_version": "v3.0", "fps": 1e400}', "expected JSON, found 1e400 is larger than any number"),
    ],
)
def test_an_info_that_is_no_json_is_a_fault(v3: Path, text: str, words: str):
    (v3 / "meta/info.json").write_bytes(text.encode(errors="surrogateescape"))
    assert lerobot.recognises(v3)
    found = problems(v3)
    assert any(fault.startswith("meta/info.json") and words in fault for fault in found), found


def test_a_folder_without_info_is_a_fault_and_not_recognised(tmp_path: Path):
    assert not lerobot.recognises(tmp_path)
    assert problems(tmp_path) == ["meta/info.json: expected a JSON file, found there is no such file"]
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"version": 1}')
    assert not lerobot.recognises(tmp_path)
    (tmp_path / "meta/info.json").unlink()
    (tmp_path / "meta/info.json").mkdir()
    assert not lerobot.recognises(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"episode_index": 0', "line 5: expected a line of JSON, found"),
        ("7", "line 5: expected a JSON object, found 7"),
        ('{"episode_index": 0, "length": 5}', "line 5: expected each episode once, found episode 0 again"),
        ('{"episode_index": 4}', "line 5, length: expected a whole number, 1 to 100,000,000, found no such key"),
        ('{"episode_index": 4, "length": 0}', "line 5, length: expected a whole number, 1 to 100,000,000, found 0"),
        ('{"episode_index": -4, "length": 3}', "line 5, episode_index: expected a whole number, 0 to 1,000,000,000"),
        ('{"episode_index": 1e400, "length": 3}', "line 5: expected a line of JSON, found 1e400 is larger than"),
        ('{"episode_index": 4, "length": 3}', "total_episodes: expected 5 or more, as meta lists, found 4"),
    ],
)
def test_a_list_of_episodes_that_cannot_be_is_a_fault(v2: Path, line: str, words: str):
    path = v2 / "meta/episodes.jsonl"
    path.write_text(path.read_text() + line + "\n")
    assert any(words in fault for fault in problems(v2)), problems(v2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"length": None}, "row 2, length: expected a number, found nothing"),
        ({"length": -5}, "row 2, length: expected a whole number, 1 to 100,000,000, found -5"),
        ({"episode_index": 0}, "row 2: expected each episode once, found episode 0 again"),
        ({"data/file_index": 10**12}, "row 2, data/file_index: expected a whole number, 0 to 1,000,000,000"),
        ({f"videos/{TOP}/chunk_index": -1}, f"row 2, videos/{TOP}/chunk_index: expected a whole number"),
        ({f"videos/{TOP}/from_timestamp": float("nan")}, f"row 2, videos/{TOP}/from_timestamp: expected a number"),
        ({f"videos/{TOP}/from_timestamp": -1.0}, f"row 2, videos/{TOP}/from_timestamp: expected a number, 0"),
    ],
)
def test_a_table_of_episodes_that_cannot_be_is_a_fault(v3: Path, changes: Any, words: str):
    path = v3 / "meta/episodes/chunk-000/file-000.parquet"
    edit(path, None, lambda rows: rows[1].update(changes))
    assert any(fault.startswith("meta/episodes/chunk-000/file-000.parquet, " + words) for fault in problems(v3))


def test_a_table_of_episodes_must_be_there_with_all_its_columns(v3: Path):
    path = v3 / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(str(path))
    pq.write_table(table.drop_columns(["data/file_index"]), str(path))
    assert "expected one column data/file_index, found episode_index" in problems(v3)[0]
    pq.write_table(table.set_column(0, "episode_index", pa.array(list("abcd"))), str(path))
    assert problems(v3) == [
        "meta/episodes/chunk-000/file-000.parquet, episode_index: expected a column of numbers, found string"
    ]
    path.unlink()
    assert problems(v3) == ["meta/episodes: expected chunk-000/file-000.parquet, ..., found none of them"]


@pytest.mark.parametrize("name", ["tasks.jsonl", "episodes_stats.jsonl", "stats.json"])
def test_damaged_side_files_are_faults(v2: Path, name: str):
    (v2 / f"meta/{name}").write_text("{")
    (fault,) = problems(v2)
    assert fault.startswith(f"meta/{name}")


def test_many_tasks_and_strange_files_are_noted(v2: Path):
    (v2 / "meta/tasks.jsonl").write_text("".join(f'{{"task_index": {n}, "task": "{n}"}}\n' for n in range(3)))
    (v2 / "README.md").write_text("x")
    (v2 / "other").mkdir()
    assert take(v2).notes == ("3 tasks in words, which are not used", "2 other files not used: README.md, other/")


@pytest.mark.parametrize(
    ("feature", "size"),
    [
        ({"shape": [3, 16, 32], "names": ["channels", "height", "width"]}, (16, 32)),
        ({"shape": [3, 16, 32], "names": None}, (16, 32)),
        ({"shape": [16, 32, 1], "names": None}, (16, 32)),
        ({"shape": [3, 4, 3], "names": ["channel", "height", "width"]}, (4, 3)),
        ({"shape": [3, 4, 3], "names": ["height", "width", "channel"]}, (3, 4)),
        ({"shape": [99, 99, 3], "info": {"video.height": 16, "video.width": 32}}, (16, 32)),
        ({"shape": [99, 99, 3], "video_info": {"video.fps": 10}}, (99, 99)),
    ],
)
def test_the_size_is_told_by_the_shape_in_either_order_or_by_the_video(v3: Path, feature: Any, size: tuple[int, int]):
    change(v3, **{TOP.replace(".", "__"): feature})
    assert take(v3).size == size


def test_a_data_file_of_many_episodes_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "many"
    info(root, total_episodes=300, total_frames=900, video_path=None)
    change(root, **{TOP.replace(".", "__"): {"dtype": "image"}})
    rows = [{**row(0, frame, image=True), "episode_index": episode} for episode in range(300) for frame in range(3)]
    save(root / "data/chunk-000/file-000.parquet", rows, schema(image=True), row_group_size=100)
    rows = listed(dict.fromkeys(range(300), 3), dict.fromkeys(range(300), 0), {})
    save(root / "meta/episodes/chunk-000/file-000.parquet", rows)
    decoded: list[int] = []
    decode = parquet.Table._decode
    monkeypatch.setattr(parquet.Table, "_decode", lambda self, group: decoded.append(group) or decode(self, group))
    survey = take(root)
    decoded.clear()  # the table of episodes
    for clip in survey.clips:
        assert clip.rows is not None
        assert not clip.frames(0, 3).faults
        assert not clip.rows(0, 3).faults
    assert sorted(decoded) == sorted(3 * list(range(9)))  # numbers, pictures, and which episode is where


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lerobot.example(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert lerobot.recognises(tmp_path)
    with pytest.raises(UsageError, match=r"pip install 'foreframe\[lerobot\]'"):
        lerobot.survey(tmp_path, Options())


def test_paths_stay_inside():
    assert inside("a/b.c/d")
    assert not any(map(inside, ("", "/a", "a//b", "../a", "a/..", "a/./b", "a\\b", "c:/a", "a\0")))


def test_the_real_robot_reads_as_its_files():
    root = REAL / "g1"
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set FOREFRAME_REALDATA to the folder that holds g1/")
    survey = take(root)
    assert (len(survey.clips), sum(clip.length for clip in survey.clips)) == (79, 6914)
    assert (survey.size, survey.fps, len(survey.columns)) == ((64, 64), 7.5, 52)
    assert survey.columns[0] == "action.kLeftShoulderPitch"
    assert survey.columns[26] == "state.kLeftShoulderPitch"
    for number in (0, 14, 78):
        clip = survey.clips[number]
        frames, rows = clip.frames(0, clip.length), clip.rows(0, clip.length)
        assert not frames.faults
        assert not rows.faults
        with av.open(str(root / clip.file)) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        np.testing.assert_array_equal(frames.values, decoded)
        table = pq.read_table(str(root / f"data/chunk-000/episode_{number:06d}.parquet"))
        expected = np.hstack([np.array(table[key].to_pylist(), np.float32) for key in ("action", "observation.state")])
        np.testing.assert_array_equal(rows.values, expected)


def test_features_may_not_have_more_numbers_together_than_one_may(v3: Path):
    wide = {"dtype": "float32", "shape": [1000], "names": None}
    change(v3, **{f"x{number}": wide for number in range(66)})
    assert problems(v3) == [
        "meta/info.json, features: expected at most 65536 numbers in a row, of all features together, found more"
    ]


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ({"shape": [0]}, "features.action.shape: expected 1 to 65536 numbers, found 0"),
        ({"shape": [65537]}, "features.action.shape: expected 1 to 65536 numbers, found 65537"),
        ({"names": "xyz"}, "features.action.names: expected a list, a dictionary or null, found 'xyz'"),
    ],
)
def test_a_feature_that_cannot_be_is_a_fault(v3: Path, feature: Any, words: str):
    change(v3, action=feature)
    assert problems(v3) == [f"meta/info.json, {words}"]


def test_a_key_twice_is_a_fault(v3: Path, v2: Path):
    path = v3 / "meta/info.json"
    path.write_text(path.read_text().replace('"fps": 10', '"fps": 10, "fps": 30'))
    assert problems(v3) == ["meta/info.json: expected JSON, found the key 'fps' is given twice"]
    path = v2 / "meta/episodes.jsonl"
    path.write_text(path.read_text() + '{"episode_index": 4, "length": 3, "length": 5}\n')
    assert problems(v2) == [
        "meta/episodes.jsonl, line 5: expected a line of JSON, found the key 'length' is given twice"
    ]


def test_a_path_beyond_what_a_file_system_takes_is_a_fault(v3: Path):
    info(v3, data_path="data/" + "x" * 300 + "{chunk_index:03d}/file-{file_index:03d}.parquet")
    found = problems(v3)
    assert len(found) == 2
    assert all(fault.endswith("expected the file of these episodes, found no such file") for fault in found)


def test_files_of_meta_that_are_too_long_are_faults(v2: Path, v3: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(meta_files, "MAX_LINE_BYTES", 100)
    (v2 / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "' + "x" * 100 + '"}\n')
    assert problems(v2) == ["meta/tasks.jsonl, line 1: expected at most 100 bytes a line, found more"]
    monkeypatch.setattr(config, "LARGEST", 100)
    (fault,) = problems(v2)
    assert fault.startswith("meta/info.json: expected a JSON file, found expected at most 100 bytes, found ")
    monkeypatch.undo()
    monkeypatch.setattr(meta_files, "MAX_ROWS", 3)
    assert problems(v3) == ["meta/episodes/chunk-000/file-000.parquet: expected at most 3 rows, found 4"]


def test_lists_of_tasks_and_statistics_may_be_missing_but_not_empty_and_not_folders(v2: Path):
    for name in ("tasks.jsonl", "episodes_stats.jsonl"):
        (v2 / f"meta/{name}").unlink()
    assert problems(v2) == []
    (v2 / "meta/tasks.jsonl").write_text("")
    (v2 / "meta/episodes_stats.jsonl").mkdir()
    assert problems(v2) == [
        "meta/tasks.jsonl: expected a file of JSON lines, found an empty file",
        "meta/episodes_stats.jsonl: expected a file of JSON lines, found Is a directory",
    ]


def test_a_list_without_episodes_is_a_fault(v2: Path):
    (v2 / "meta/episodes.jsonl").write_text("\n")
    assert problems(v2) == ["meta: expected episodes, found none"]


def test_behind_very_many_faults_the_rest_of_a_file_is_not_looked_at(v2: Path, v3: Path, monkeypatch: Any):
    monkeypatch.setattr(meta_files, "MAX_FAULTS", 5)
    (v2 / "meta/tasks.jsonl").write_text("7\n" * 1000)
    assert [fault.partition(": ")[0] for fault in problems(v2)] == [
        *(f"meta/tasks.jsonl, line {number}" for number in (1, 2, 3, 4, 5)), "meta/tasks.jsonl, line 5"
    ]  # fmt: skip
    edit(v3 / "meta/tasks.parquet", None, lambda rows: rows.extend([{"task_index": -1}, {"task_index": None}] * 500))
    found = problems(v3)
    assert len(found) == 6
    assert found[-1] == (
        "meta/tasks.parquet, row 6: expected fewer than 5 faults in one file, found as many; the rest of it was not "
        "read"
    )


def test_an_episode_that_comes_very_often_is_one_fault(v3: Path):
    edit(v3 / "meta/episodes/chunk-000/file-000.parquet", None, lambda rows: rows.extend([rows[0]] * 1000))
    assert problems(v3) == [
        "meta/episodes/chunk-000/file-000.parquet, row 5: expected each episode once, "
        "found episode 0 again, and 999 more such"
    ]


def test_two_episodes_in_the_same_seconds_of_a_video_are_a_fault(v3: Path):
    path = v3 / "meta/episodes/chunk-000/file-000.parquet"
    start, end = f"videos/{TOP}/from_timestamp", f"videos/{TOP}/to_timestamp"
    edit(path, None, lambda rows: rows[2].update({start: 0.66, end: 1.3}))  # less than half a frame early
    assert lerobot.survey(v3, Options()).faults == ()
    edit(path, None, lambda rows: rows[2].update({start: 0.1, end: 0.7}))
    assert [str(fault) for fault in lerobot.survey(v3, Options()).faults] == [
        f"meta/episodes/chunk-000/file-000.parquet, row 3: expected seconds of videos/{TOP}/chunk-000/file-001.mp4 "
        "that are in no other episode, found 0.1000, but episode 1 ends at 0.7000"
    ]


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "nan"), (float("-inf"), "-inf"), (None, "nothing")])
def test_an_episode_index_that_is_no_number_is_a_fault(v2: Path, value: float | None, words: str):
    path = v2 / "data/chunk-000/episode_000001.parquet"
    kinds = schema().set(schema().get_field_index("episode_index"), pa.field("episode_index", pa.float64()))
    edit(path, kinds, lambda rows: rows[2].update(episode_index=value))
    assert problems(v2) == [
        f"data/chunk-000/episode_000001.parquet, row 3, episode_index: expected a number, found {words}"
    ]


def test_episodes_in_too_many_stretches_are_a_fault(v3: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(episode_files, "MAX_ROWS", 6)
    path = v3 / "data/chunk-000/file-000.parquet"
    assert problems(v3) == []
    edit(path, schema(), lambda rows: [each.update(episode_index=number % 2) for number, each in enumerate(rows)])
    assert problems(v3) == [
        "data/chunk-000/file-000.parquet, episode_index: expected at most 6 spans of episodes, found more"
    ]


def test_lists_of_another_fixed_width_are_a_fault(v2: Path):
    path = v2 / "data/chunk-000/episode_000001.parquet"
    kinds = schema().set(0, pa.field("observation.state", pa.list_(pa.float32(), 3)))
    edit(path, kinds, lambda rows: [each.update({"observation.state": [0.0, 0.0, 0.0]}) for each in rows])
    assert problems(v2) == [
        "data/chunk-000/episode_000001.parquet: expected 2 numbers in each row of the column observation.state, found 3"
    ]


def test_one_bad_row_is_one_fault_and_many_are_told_in_one(v2: Path):
    path = v2 / "data/chunk-000/episode_000001.parquet"
    edit(path, schema(), lambda rows: rows[2].update(frame_index=9))
    clip = lerobot.survey(v2, Options()).clips[1]
    assert list(clip.frames(2, 3).faults) == [0]
    edit(path, schema(), lambda rows: [each.update(action=[0.0]) for each in rows])
    assert problems(v2) == [
        "data/chunk-000/episode_000001.parquet, episode 1, frame 2: expected frame_index 2, found 9",
        "data/chunk-000/episode_000001.parquet, episode 1, frame 0, action: expected 3 numbers, found 1 numbers; "
        "and something like it in 6 more frames",
    ]


@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "long"])
def test_a_picture_that_is_no_plain_file_is_a_fault_and_is_not_opened(pictures: Path, kind: str):
    name = "x" * 300 if kind == "long" else "x.png"
    (pictures / "images").mkdir()
    if kind == "pipe":
        os.mkfifo(pictures / "images" / name)
    elif kind == "loop":
        (pictures / "images" / name).symlink_to(name)
    elif kind == "folder":
        (pictures / "images" / name).mkdir()
    cell = {TOP: {"bytes": None, "path": f"images/{name}"}}
    edit(pictures / "data/chunk-000/file-000.parquet", schema(image=True), lambda rows: rows[2].update(cell))
    (fault,) = problems(pictures)
    assert "episode 0, frame 2" in fault
    if kind == "loop":
        assert fault.endswith("expected a path that stays inside the dataset, found 'images/x.png'")
    else:
        assert fault.endswith("expected a PNG or JPEG, found no such file, or not a plain one")


def test_large_pictures_are_decoded_in_threads_with_the_same_faults(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foreframe.data.formats.images.LARGE", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    path = pictures / "data/chunk-000/file-000.parquet"
    edit(path, schema(image=True), lambda rows: rows[2].update({TOP: None}))
    frames = take(pictures).clips[0].frames(0, 5)
    assert list(frames.faults) == [2]
    np.testing.assert_array_equal(frames.values[4], picture(0, 4))


def test_columns_that_would_be_called_alike_get_a_number(v3: Path):
    extra = {"dtype": "float32", "names": None}
    change(v3, **{"grip.x": {**extra, "shape": [1]}, "grip": {**extra, "shape": [2], "names": ["x", "y"]}})
    assert take(v3).columns[-3:] == ("grip.x", "grip.x_2", "grip.y")


def test_fewer_frames_than_in_all_are_a_warning(v3: Path):
    info(v3, total_frames=23)
    assert take(v3).warnings == ("meta/info.json: total_frames is 23, but the lengths of all episodes make 22",)


def test_links_in_circles_among_the_data_end_somewhere(v3: Path):
    (v3 / "data/chunk-000/again").symlink_to(v3 / "data")
    assert problems(v3) == [
        "data/chunk-000/again: expected folders 24 deep at most, found a link to a folder around it, or a deeper one"
    ]


def test_a_name_that_cannot_be_printed_is_told_on_one_line(v3: Path):
    info(v3, data_path="data\n/file-{file_index:03d}.parquet")
    (v3 / "data").rename(v3 / "data\n")
    for path in (v3 / "data\n/chunk-000").iterdir():
        path.rename(v3 / "data\n" / path.name)
    edit(v3 / "data\n/file-001.parquet", schema(), lambda rows: rows[2].update(frame_index=9))
    assert [str(fault) for fault in lerobot.survey(v3, Options()).clips[2].frames(0, 6).faults[2]] == [
        "data\\n/file-001.parquet, episode 2, frame 2: expected frame_index 2, found 9"
    ]
