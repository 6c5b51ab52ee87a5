from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foreframe.clip import ClipSpec
from foreframe.data.exports import lerobot
from foreframe.data.exports.run import export
from foreframe.data.pack.pack import Episode, Pack, PackWriter
from foreframe.errors import UsageError
from tests.data.exports.conftest import BAIR, CLIPS, read_again, tiny_pack

parquet = pytest.importorskip("pyarrow.parquet", reason="LeRobot data sets are written with pyarrow")

FIXED = ["timestamp", "frame_index", "episode_index", "index", "task_index"]
STATISTICS = ["min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"]
ROBOT = ("action.elbow", "state.elbow", "action.hand", "state.hand", "gripper", "position_x")
ORDER = ["a", "d", "e", "c", "b"]
"""The clips of a tiny pack, split after split."""


def info(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta/info.json").read_text())


def data(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("data/*/*.parquet")) for row in parquet.read_table(path).to_pylist()]


def listed(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("meta/episodes/*/*.parquet"))
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


def in_order(pack: Pack) -> list[Episode]:
    by_name = {episode.name: episode for episode in pack.episodes}
    return [by_name[name] for name in ORDER]


def picture(cell: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(cell["bytes"]), formats=["PNG"]) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_info_holds_every_key_of_version_3(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack"), tmp_path / "out", "lerobot")
    number = {"dtype": "int64", "shape": [1], "names": None}
    assert info(tmp_path / "out") == {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": 5,
        "total_frames": 19,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 10,
        "splits": {"train": "0:3", "val": "3:4", "test": "4:5"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {
            "observation.images.main": {
                "dtype": "image", "shape": [8, 10, 3], "names": ["height", "width", "channels"]
            },
            "observation.state": {
                "dtype": "float32", "shape": [3], "names": ["position_x", "position_y", "position_z"]
            },
            "action": {
                "dtype": "float32", "shape": [4], "names": ["action_0", "action_1", "action_2", "action_3"]
            },
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **dict.fromkeys(FIXED[1:], number),
        },
    }  # fmt: skip
    assert type(info(tmp_path / "out")["fps"]) is int


def test_splits_of_other_names_come_last(tmp_path: Path):
    clips = [("a", "extra", 2), ("b", "test", 2), ("c", "train", 2), ("d", "extra", 2)]
    export(tiny_pack(tmp_path / "pack", clips=clips), tmp_path / "out", "lerobot")
    assert info(tmp_path / "out")["splits"] == {"train": "0:1", "test": "1:2", "extra": "2:4"}


def test_columns_and_their_metadata_are_those_of_the_library(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack"), tmp_path / "out", "lerobot")
    schema = parquet.read_schema(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert {field.name: str(field.type).replace("item", "element") for field in schema} == {
        "observation.images.main": "struct<bytes: binary, path: string>",
        "observation.state": "fixed_size_list<element: float>[3]",
        "action": "fixed_size_list<element: float>[4]",
        "timestamp": "float",
        **dict.fromkeys(FIXED[1:], "int64"),
    }
    assert schema.names == [*info(tmp_path / "out")["features"]]
    number = {"dtype": "float32", "_type": "Value"}
    assert json.loads(schema.metadata[b"huggingface"]) == {
        "info": {
            "features": {
                "observation.images.main": {"_type": "Image"},
                "observation.state": {"feature": number, "length": 3, "_type": "Sequence"},
                "action": {"feature": number, "length": 4, "_type": "Sequence"},
                "timestamp": number,
                **{key: {"dtype": "int64", "_type": "Value"} for key in FIXED[1:]},
            }
        }
    }


def test_a_single_number_is_a_plain_column(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", ["push"])
    export(pack, tmp_path / "out", "lerobot")
    schema = parquet.read_schema(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert str(schema.field("action").type) == "float"
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["action"] == {"dtype": "float32", "_type": "Value"}
    assert info(tmp_path / "out")["features"]["action"] == {"dtype": "float32", "shape": [1], "names": ["push"]}
    assert [row["action"] for row in data(tmp_path / "out")[:5]] == pack.cond[[1, 2, 3, 4, 4], 0].tolist()


def test_every_pixel_comes_back_from_the_png_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foreframe.data.exports._recorded.PIECE", 2)
    pack = tiny_pack(tmp_path / "pack", "pose")
    export(pack, tmp_path / "out", "lerobot")
    found = data(tmp_path / "out")
    assert "action" not in found[0]
    assert "observation.state" not in found[0]
    for key, values in (("observation.images.main", pack.frames), ("observation.images.pose", pack.cond)):
        expected = np.concatenate([values[item.start : item.start + item.length] for item in in_order(pack)])
        np.testing.assert_array_equal([picture(row[key]) for row in found], expected)
        assert [row[key]["path"] for row in found] == [f"frame-{row['frame_index']:06d}.png" for row in found]


def test_row_t_holds_what_leads_into_frame_t_plus_1_and_the_last_repeats_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("foreframe.data.exports._recorded.PIECE", 2)
    pack = tiny_pack(tmp_path / "pack", ROBOT)
    export(pack, tmp_path / "out", "lerobot")
    features = info(tmp_path / "out")["features"]
    assert features["action"]["names"] == ["elbow", "hand", "gripper"]
    assert features["observation.state"]["names"] == ["elbow", "hand", "position_x"]
    found = data(tmp_path / "out")
    for number, episode in enumerate(in_order(pack)):
        rows = [row for row in found if row["episode_index"] == number]
        cond = pack.read(episode, 0, episode.length)[1]
        expected = cond[[*range(1, episode.length), episode.length - 1]]
        np.testing.assert_array_equal([row["action"] for row in rows], expected[:, [0, 2, 4]])
        np.testing.assert_array_equal([row["observation.state"] for row in rows], expected[:, [1, 3, 5]])


def test_states_that_were_not_shifted_at_the_import_stay_beside_their_frame(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", ROBOT, shift=0)
    notes = export(pack, tmp_path / "out", "lerobot")
    assert "states stand beside their frame as recorded: cond[t+0]; actions: cond[t+1]" in notes
    first = data(tmp_path / "out")[:5]
    np.testing.assert_array_equal([row["observation.state"] for row in first], pack.cond[:5, [1, 3, 5]])
    np.testing.assert_array_equal([row["action"] for row in first], pack.cond[[1, 2, 3, 4, 4]][:, [0, 2, 4]])


def test_names_that_would_fall_together_keep_their_prefix(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack", ["action.x", "x"]), tmp_path / "out", "lerobot")
    assert info(tmp_path / "out")["features"]["action"]["names"] == ["action.x", "x"]


@pytest.mark.parametrize("fps", [10, 7.5, 29.97])
def test_time_and_numbering_are_those_of_the_rows(tmp_path: Path, fps: float):
    pack = tiny_pack(tmp_path / "pack", (), fps=fps)
    assert export(pack, tmp_path / "out", "lerobot") == []
    assert info(tmp_path / "out")["fps"] == fps
    found = data(tmp_path / "out")
    lengths = [episode.length for episode in in_order(pack)]
    assert [row["index"] for row in found] == [*range(19)]
    assert [row["episode_index"] for row in found] == [n for n, length in enumerate(lengths) for _ in range(length)]
    assert [row["frame_index"] for row in found] == [t for length in lengths for t in range(length)]
    assert [row["timestamp"] for row in found] == [float(np.float32(row["frame_index"] / fps)) for row in found]
    assert {row["task_index"] for row in found} == {0}


def test_an_unknown_rate_becomes_10_with_a_note(tmp_path: Path):
    notes = export(tiny_pack(tmp_path / "pack", fps=None), tmp_path / "out", "lerobot")
    assert notes == ["frames a second: the pack does not know; 10 written"]
    assert info(tmp_path / "out")["fps"] == 10


def test_the_tasks_have_their_text_as_the_index_of_a_pandas_table(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack"), tmp_path / "out", "lerobot")
    table = parquet.read_table(tmp_path / "out/meta/tasks.parquet")
    described = json.loads(table.schema.metadata[b"pandas"])
    assert described["index_columns"] == ["__index_level_0__"]
    assert [column["field_name"] for column in described["columns"]] == table.column_names
    assert table.to_pylist() == [{"task_index": 0, "__index_level_0__": lerobot.TASK}]


def test_each_episode_is_listed_with_its_place(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack")
    export(pack, tmp_path / "out", "lerobot")
    first = 0
    features = info(tmp_path / "out")["features"]
    for number, (row, episode) in enumerate(zip(listed(tmp_path / "out"), in_order(pack), strict=True)):
        stats = {f"stats/{key}/{name}" for key in features for name in STATISTICS}
        assert {key: value for key, value in row.items() if key not in stats} == {
            "episode_index": number,
            "tasks": [lerobot.TASK],
            "length": episode.length,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": first,
            "dataset_to_index": first + episode.length,
            "name": episode.name,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        assert stats < set(row)
        first += episode.length


def check_stats(found: dict[str, list], values: np.ndarray, count: int) -> None:
    """values: (anything, D)."""
    exact = values.reshape(-1, values.shape[-1]).astype(np.float64)
    expected = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    expected |= {f"q{share:02d}": np.quantile(exact, share / 100, axis=0) for share in (1, 10, 50, 90, 99)}
    assert [*found] == STATISTICS
    assert found["count"] == [count]
    for name, value in expected.items():
        np.testing.assert_allclose(np.ravel(found[name]), value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_statistics_are_exact_over_each_episode_and_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foreframe.data.exports._recorded.PIECE", 2)
    export(tiny_pack(tmp_path / "pack", ROBOT, fps=7.5), tmp_path / "out", "lerobot")
    rows, total = data(tmp_path / "out"), json.loads((tmp_path / "out/meta/stats.json").read_text())
    image = "observation.images.main"
    pixels = np.stack([picture(row[image]) for row in rows]) / 255
    owner = np.array([row["episode_index"] for row in rows])
    assert [*total] == [*info(tmp_path / "out")["features"]]
    for key, found in total.items():
        values = pixels if key == image else np.array([np.atleast_1d(row[key]) for row in rows])
        check_stats(found, values, len(rows))
        for number, listing in enumerate(listed(tmp_path / "out")):
            own = {name: listing[f"stats/{key}/{name}"] for name in STATISTICS}
            check_stats(own, values[owner == number], int((owner == number).sum()))
        if key == image:
            assert all(np.shape(found[name]) == (3, 1, 1) for name in STATISTICS if name != "count")


def test_whole_numbers_stay_whole_in_the_statistics(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack"), tmp_path / "out", "lerobot")
    schema = parquet.read_schema(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    kinds = {key: str(schema.field(f"stats/{key}").type) for key in ("index/max", "index/mean", "timestamp/max")}
    assert [kind.split(": ")[1] for kind in kinds.values()] == ["int64>", "double>", "double>"]
    image = str(schema.field("stats/observation.images.main/q50").type)
    assert (image.count("list<"), "double" in image) == (3, True)
    assert json.loads((tmp_path / "out/meta/stats.json").read_text())["index"]["max"] == [18]


def test_large_sets_are_spread_over_files_and_chunks_without_cutting_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lerobot, "FILE_BYTES", 20_000)
    monkeypatch.setattr(lerobot, "CHUNK_FILES", 2)
    monkeypatch.setattr(lerobot, "EPISODES_AT_ONCE", 4)
    pack = tiny_pack(tmp_path / "pack", clips=[(f"c{n}", "train", 4) for n in range(30)], size=(24, 24))
    export(pack, tmp_path / "out", "lerobot")
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/data/*/*"))
    assert len(files) > 4
    assert files == [f"data/chunk-{n // 2:03d}/file-{n % 2:03d}.parquet" for n in range(len(files))]
    assert all((tmp_path / "out" / path).stat().st_size < 40_000 for path in files)
    assert [row["index"] for row in data(tmp_path / "out")] == [*range(120)]
    path = info(tmp_path / "out")["data_path"]
    listing = tmp_path / "out/meta/episodes"
    assert len([*listing.glob("*/*")]) > 1
    seen = []
    for file in sorted(listing.glob("*/*")):
        for row in parquet.read_table(file).to_pylist():
            place = path.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
            there = parquet.read_table(tmp_path / "out" / place, columns=["episode_index"])["episode_index"].to_pylist()
            assert there.count(row["episode_index"]) == 4
            chunk, number = row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]
            assert file == listing / f"chunk-{chunk:03d}" / f"file-{number:03d}.parquet"
            seen.append(row["episode_index"])
    assert seen == [*range(30)]


def test_numbers_before_the_first_frame_that_an_import_would_not_give_are_noted(tmp_path: Path):
    with PackWriter(tmp_path / "pack", ClipSpec(3, 8, 8, "vector", 1), ["push"], fps=5) as writer:
        writer.add("c", "train", np.zeros((3, 8, 8, 3), np.uint8), np.arange(3.0)[:, None])
    notes = export(Pack.open(tmp_path / "pack"), tmp_path / "out", "lerobot")
    assert len(notes) == 1
    assert "in 1 of 1 clips they are not those of the second frame" in notes[0]


def test_grey_pictures_become_rgb_and_other_channels_are_refused(tmp_path: Path):
    pack = tiny_pack(tmp_path / "grey", channels=1)
    assert "grey pictures are written as RGB" in export(pack, tmp_path / "out", "lerobot")
    found = picture(data(tmp_path / "out")[0]["observation.images.main"])
    np.testing.assert_array_equal(found, pack.frames[0].repeat(3, axis=2))
    with pytest.raises(UsageError, match="lerobot holds RGB or grey pictures; this pack has 4 channels"):
        export(tiny_pack(tmp_path / "four", channels=4), tmp_path / "other", "lerobot")


def test_what_an_import_would_not_give_back_is_noted(tmp_path: Path):
    assert export(tiny_pack(tmp_path / "bair"), tmp_path / "out-1", "lerobot") == []
    notes = export(tiny_pack(tmp_path / "robot", ROBOT), tmp_path / "out-2", "lerobot")
    assert notes == ["an import has the actions first and the states after them, which is another order than here"]
    notes = export(tiny_pack(tmp_path / "pose", "pose"), tmp_path / "out-3", "lerobot")
    assert len(notes) == 1
    assert "second camera here; an import takes one camera, and no pictures as a condition" in notes[0]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pack = tiny_pack(tmp_path / "pack")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'foreframe\[lerobot\]'"):
        export(pack, tmp_path / "out", "lerobot")
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


@pytest.mark.parametrize("names", [BAIR, ("action.x", "action.y", "state.z"), ("push",)])
def test_an_import_gives_the_same_frames_and_conditions(tmp_path: Path, names: tuple[str, ...]):
    pack = tiny_pack(tmp_path / "pack", names, fps=7.5)
    export(pack, tmp_path / "out", "lerobot")
    found = read_again(tmp_path / "out", "lerobot")
    for clip, episode in zip(found, in_order(pack), strict=True):
        frames, cond = pack.read(episode, 0, episode.length)
        assert clip.split == episode.split
        np.testing.assert_array_equal(clip.frames, frames)
        np.testing.assert_array_equal(clip.cond, cond)


READER = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, expected = sys.argv[1], np.load(sys.argv[2], allow_pickle=False)
frames, poses, rows, lengths = (expected[name] for name in ("frames", "poses", "rows", "lengths"))
starts = np.cumsum(lengths) - lengths
main, step = "observation.images.main", 1 / float(expected["fps"])
data = LeRobotDataset("nobody/nothing", root=root)
print("len", len(data), "fps", data.fps, "episodes", data.num_episodes, "splits", data.meta.info["splits"])
print("features", {key: (value["dtype"], value["shape"]) for key, value in data.features.items()})
assert (len(data), data.num_episodes, data.fps) == (len(frames), len(lengths), expected["fps"])
assert [row["name"] for row in data.meta.episodes] == expected["names"].tolist()
assert data.meta.stats[main]["q50"].shape == (3, 1, 1)
for index in range(len(data)):
    item = data[index]
    assert item["task"] == "not described"
    assert np.array_equal(item[main].numpy(), frames[index].transpose(2, 0, 1).astype(np.float32) / 255)
    if len(poses):
        pose = item["observation.images.pose"].numpy()
        assert np.array_equal(pose, poses[index].transpose(2, 0, 1).astype(np.float32) / 255)
    for key, columns in (("action", slice(0, 4)), ("observation.state", slice(4, 7))):
        if len(rows):
            assert np.array_equal(item[key].numpy(), rows[index, columns]), key
chosen = {main: [-step, 0, step]} | ({"action": [0, step, 2 * step]} if len(rows) else {})
data = LeRobotDataset("nobody/nothing", root=root, delta_timestamps=chosen)
for start, length in zip(starts.tolist(), lengths.tolist()):
    for t in range(length):
        item = data[start + t]
        places = np.array([t - 1, t, t + 1])
        inside = start + places.clip(0, length - 1)
        assert np.array_equal(item[main].numpy(), frames[inside].transpose(0, 3, 1, 2).astype(np.float32) / 255)
        assert item[main + "_is_pad"].tolist() == ((places < 0) | (places >= length)).tolist()
        if len(rows):
            places += 1
            assert np.array_equal(item["action"].numpy(), rows[start + places.clip(0, length - 1), :4])
            assert item["action_is_pad"].tolist() == (places >= length).tolist()
some = LeRobotDataset("nobody/nothing", root=root, episodes=[1, 3])
assert len(some) == lengths[1] + lengths[3]
print("ok")
"""


@pytest.mark.parametrize(("names", "fps", "file_bytes"), [(BAIR, 10, 100 * 2**20), ("pose", 7.5, 6000)])
def test_the_lerobot_library_opens_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] | str, fps: float, file_bytes: int
):
    python = os.environ.get("FOREFRAME_LEROBOT_PYTHON")
    if not python:
        pytest.skip("FOREFRAME_LEROBOT_PYTHON names no interpreter that has lerobot")
    monkeypatch.setattr(lerobot, "FILE_BYTES", file_bytes)
    pack = tiny_pack(tmp_path / "pack", names, clips=CLIPS, size=(16, 20), fps=fps)
    export(pack, tmp_path / "out", "lerobot")
    episodes = in_order(pack)
    place = np.concatenate([item.start + np.arange(item.length) for item in episodes])
    ahead = np.concatenate([item.start + np.arange(1, item.length + 1).clip(0, item.length - 1) for item in episodes])
    nothing = np.zeros(0)
    np.savez(
        tmp_path / "expected.npz",
        frames=pack.frames[place],
        poses=pack.cond[place] if names == "pose" else nothing,
        rows=nothing if names == "pose" else pack.cond[ahead],
        lengths=[item.length for item in episodes],
        names=[item.name for item in episodes],
        fps=fps,
    )
    private = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-c", READER, str(tmp_path / "out"), str(tmp_path / "expected.npz")],
        env={**os.environ, **private},
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("ok\n")
