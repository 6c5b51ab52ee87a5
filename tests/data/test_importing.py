"""Imports and the cache: what is wrong is never packed, and what is packed is whole."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data import open as sources
from foreframe.data.cache import source_key
from foreframe.data.formats import sample
from foreframe.data.ingest import reading
from foreframe.data.ingest import run as importing
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips, pack_source
from foreframe.data.ingest.transform import shape
from foreframe.data.layouts import bair_lab, dance_lab
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.open import open_clips
from foreframe.data.pack.pack import PackWriter
from foreframe.errors import DataError
from foreframe.video import read_image

ONE, TWO = "processed_data/train/traj_0/1", "processed_data/train/traj_0/2"
IMG, LABEL = "train/train_img", "train/train_label"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def row(path: Path, number: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_everything_wrong_is_listed_at_once_and_nothing_is_packed(bair: Path, tmp_path: Path):
    (bair / TWO / "actions.csv").unlink()
    cut(bair / ONE / "3.png")
    cut(bair / ONE / "9.png")
    row(bair / ONE / "actions.csv", 2, "1,2,inf,4")
    row(bair / "processed_data/test/traj_2/9/actions.csv", 1, "x,2,3,4")
    with pytest.raises(DataError) as caught:
        import_clips(bair, tmp_path / "pack")
    assert [(fault.path, fault.where.partition(", byte")[0]) for fault in caught.value.faults] == [
        (f"{ONE}/actions.csv", "row 2, column 3"),
        (f"{ONE}/3.png", "frame 3"),
        (f"{ONE}/9.png", "frame 9"),
        (f"{TWO}/actions.csv", ""),
        ("processed_data/test/traj_2/9/actions.csv", "row 1, column 1"),
    ]
    assert str(caught.value).startswith(f"{bair} (bair_lab): 5 faults; nothing was packed")
    assert [path.name for path in tmp_path.iterdir()] == ["bair"]


def test_a_scan_gives_the_same_faults_as_an_import(bair: Path, tmp_path: Path):
    cut(bair / ONE / "3.png")
    with pytest.raises(DataError) as caught:
        import_clips(bair, tmp_path / "pack")
    assert tuple(scan(bair).faults) == caught.value.faults


def test_skipping_leaves_bad_clips_out_and_lists_them_in_the_manifest(bair: Path, tmp_path: Path):
    cut(bair / ONE / "3.png")
    (bair / "processed_data/train/traj_9").mkdir()
    pack = import_clips(bair, tmp_path / "pack", on_bad="skip")
    pack.verify()
    assert [episode.name for episode in pack.split("train")] == [TWO]
    left_out = {item.clip: item.reasons for item in pack.manifest.left_out}
    assert set(left_out) == {ONE, "processed_data/train/traj_9"}
    assert "frame 3" in left_out[ONE][0]
    np.testing.assert_array_equal(pack.frames[7], read_image(bair / TWO / "7.png"))
    assert [note for note in scan(pack.path).notes if ONE in note]


def test_skipping_cuts_a_take_at_bad_frames(dance: Path, tmp_path: Path):
    cut(dance / IMG / "frame000004.png")
    cut(dance / LABEL / "frame000006.png")
    (dance / LABEL / "frame000009.png").unlink()
    pack = import_clips(dance, tmp_path / "pack", on_bad="skip")
    names = [episode.name for episode in pack.split("train")]
    assert names == ["train/000000-000003", "train/000007-000008", "train/000010-000011"]
    assert [item.clip for item in pack.manifest.left_out] == [
        f"{LABEL}/frame000009.png",
        "train/000005-000005",
        f"{IMG}/frame000004.png",
        f"{LABEL}/frame000006.png",
    ]
    for episode in pack.split("train"):
        first = int(episode.name[6:12])
        frames, poses = pack.read(episode, 0, episode.length)
        clean = import_clips(dance, tmp_path / f"p{first}", on_bad="skip")
        np.testing.assert_array_equal(frames, clean.read(episode, 0, episode.length)[0])
        assert poses is not None
    whole = np.concatenate([pack.read(episode, 0, episode.length)[0] for episode in pack.split("train")])
    dance_lab.example(tmp_path / "again")
    good = import_clips(tmp_path / "again", tmp_path / "good").frames[[0, 1, 2, 3, 7, 8, 10, 11]]
    np.testing.assert_array_equal(whole, good)


def test_takes_longer_than_a_reading_step_are_cut_at_their_bad_frames_too(dance: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("foreframe.data.ingest.pool.CHUNK", 4)
    plain = import_clips(dance, tmp_path / "plain")
    for number, expected in ((4, ["000000-000003", "000005-000011"]), (3, ["000000-000002", "000004-000011"])):
        shutil.copytree(dance, tmp_path / f"d{number}")
        cut(tmp_path / f"d{number}" / IMG / f"frame{number:06d}.png")
        pack = import_clips(tmp_path / f"d{number}", tmp_path / f"p{number}", on_bad="skip")
        assert [episode.name for episode in pack.split("train")] == [f"train/{name}" for name in expected]
        for episode in pack.split("train"):
            start = int(episode.name[6:12])
            np.testing.assert_array_equal(
                pack.read(episode, 0, episode.length)[0], plain.frames[start : start + episode.length]
            )


def test_where_nothing_is_left_to_pack_the_faults_are_listed(bair: Path, tmp_path: Path):
    for path in bair.glob("processed_data/*/*/*/actions.csv"):
        path.unlink()
    with pytest.raises(DataError) as caught:
        import_clips(bair, tmp_path / "pack", on_bad="skip")
    assert len(caught.value.faults) == 4
    assert "no clip is left to pack" in str(caught.value)
    for path in bair.glob("processed_data/*/*/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no clip can be used \(4 clips found\)"):
        import_clips(bair, tmp_path / "pack", on_bad="skip")


def test_an_empty_split_and_a_source_of_test_inputs_alone_are_refused(dance: Path, bair: Path, tmp_path: Path):
    shutil.rmtree(dance / "train")
    shutil.rmtree(dance / "val")
    with pytest.raises(DataError, match="test inputs only: predict them with `rollout`"):
        import_clips(dance, tmp_path / "pack")
    shutil.rmtree(bair / "processed_data" / "train")
    (bair / "processed_data" / "train").mkdir()
    with pytest.raises(DataError, match="processed_data/train: expected folders of clips, found an empty folder"):
        import_clips(bair, tmp_path / "pack")


def test_a_layout_forced_on_another_folder_lists_what_is_missing(bair: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"\(dance_lab\): 1 fault; no clip can be used"):
        import_clips(bair, tmp_path / "pack", layout="dance_lab")


def test_a_pack_that_exists_lies_inside_its_source_or_is_the_source_is_refused(bair: Path, tmp_path: Path):
    import_clips(bair, tmp_path / "pack")
    with pytest.raises(DataError, match="already exists"):
        import_clips(bair, tmp_path / "pack")
    import_clips(bair, tmp_path / "pack", overwrite=True)
    with pytest.raises(DataError, match="lies inside the source"):
        import_clips(bair, bair / "pack")
    with pytest.raises(DataError, match="is a pack already"):
        import_clips(tmp_path / "pack", tmp_path / "other")


def test_a_place_without_a_name_and_one_that_holds_the_source_are_refused(
    bair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="expected a folder by its own name"):
        import_clips(bair, ".")
    pack = import_clips(bair, tmp_path / "pack")
    shutil.move(bair, pack.path / "raw")
    with pytest.raises(DataError, match=r"pack: holds the source .*raw, which would be lost"):
        import_clips(pack.path / "raw", pack.path, overwrite=True)
    assert (pack.path / "raw" / ONE / "0.png").exists()


def test_two_clips_of_one_name_and_an_empty_one_are_faults_and_can_be_left_out(tmp_path: Path):
    def read(value: int, start: int, stop: int) -> RawChunk:
        return RawChunk(np.full((stop - start, 4, 6, 3), value, np.uint8))

    clips = (SourceClip(name, "train", n, partial(read, n)) for name, n in (("a", 3), ("a", 4), ("b", 0), ("c", 5)))
    source = shape(SourceIndex("test", tuple(clips), (4, 6)), Options())
    with pytest.raises(DataError) as caught:
        pack_source(source, Path("src"), tmp_path / "pack", key="k")
    reasons = ["a: expected one clip of this name, found another one", "b: expected a clip with frames, found none"]
    assert [str(fault) for fault in caught.value.faults] == reasons
    pack = pack_source(source, Path("src"), tmp_path / "pack", key="k", on_bad="skip")
    assert [(episode.name, episode.length) for episode in pack.episodes] == [("a", 3), ("c", 5)]
    assert [item.reasons[0] for item in pack.manifest.left_out] == reasons


def test_a_clip_that_no_list_names_is_left_out_not_trained_on(bair: Path, tmp_path: Path):
    (tmp_path / "lists.json").write_text(json.dumps({"train": [ONE]}))
    pack = import_clips(bair, tmp_path / "pack", options=Options(lists=tmp_path / "lists.json"), on_bad="skip")
    assert [episode.name for episode in pack.episodes] == [ONE]
    assert [item.clip for item in pack.manifest.left_out] == [
        TWO, "processed_data/validate/traj_1/10", "processed_data/test/traj_2/9"
    ]  # fmt: skip


def test_an_interrupted_import_leaves_no_pack_and_goes_on_where_it_was(
    bair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plain = import_clips(bair, tmp_path / "plain")
    real, calls = PackWriter.append, 0

    def killed(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(PackWriter, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            import_clips(bair, tmp_path / "pack")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pack.partial", "bair", "plain"]
    with monkeypatch.context() as patched:
        read = []
        patched.setattr(reading, "_read", lambda clip, start, stop: read.append(clip.name) or clip.read(start, stop))
        assert import_clips(bair, tmp_path / "pack", progress=True).hash == plain.hash
    assert "continuing with 2 clips done before" in capsys.readouterr().err
    assert len(read) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bair", "pack", "plain"]


@pytest.mark.parametrize("changed", ["source", "options", "nothing"])
def test_an_import_of_a_changed_source_or_with_other_options_starts_anew(
    bair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PackWriter, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            import_clips(bair, tmp_path / "pack")
    if changed == "source":
        os.utime(bair / ONE / "0.png", ns=(1, 1))
    read = []
    monkeypatch.setattr(reading, "_read", lambda clip, *range: read.append(clip.name) or clip.read(*range))
    options = Options(size=(8, 8)) if changed == "options" else Options()
    import_clips(bair, tmp_path / "pack", options=options).verify()
    assert len(read) == (0 if changed == "nothing" else 4)


def test_an_import_tells_warnings_notes_and_what_it_left_out(dance: Path, tmp_path: Path, capsys):
    cut(dance / IMG / "frame000004.png")
    import_clips(dance, tmp_path / "pack", on_bad="skip", progress=True)
    told = capsys.readouterr().err
    assert "left out, as the manifest lists: 1 item\n" in told
    assert "note: test inputs without truth, not packed: 0 (4 poses)" in told


def test_rows_that_lead_into_an_earlier_frame_are_said_so_in_the_manifest(bair: Path, tmp_path: Path):
    pack = import_clips(bair, tmp_path / "pack", options=Options(shift=-2))
    told = "cond[t] leads into frame t; row t+2 of the source, the last row repeated after it"
    assert pack.manifest.alignment == told


def test_a_source_that_holds_nothing_at_all_is_refused(tmp_path: Path):
    nothing = shape(SourceIndex("test", (), None), Options())
    with pytest.raises(DataError, match=r"src \(test\): expected at least one clip, found none"):
        pack_source(nothing, Path("src"), tmp_path / "pack", key="k")
    with pytest.raises(DataError, match="expected at least one clip to pack, found none"):
        pack_source(shape(SourceIndex("test", (), (4, 6)), Options()), Path("src"), tmp_path / "pack", key="k")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_nowhere_counts_as_it_is(tmp_path: Path):
    (tmp_path / "link").symlink_to("nowhere")
    keys = [importing.source_key(tmp_path, Options(), [])]
    (tmp_path / "nowhere").write_text("here")
    keys += [importing.source_key(tmp_path, Options(), []) for _ in range(2)]
    assert keys[0] != keys[1] == keys[2]


def test_of_many_warnings_the_first_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def read(start: int, stop: int) -> RawChunk:
        return RawChunk(np.zeros((stop - start, 4, 6, 3), np.uint8))

    clips = tuple(SourceClip(f"c{n}", "train", 2 + n, read) for n in range(14))
    source = shape(SourceIndex("test", clips, (4, 6)), Options())
    pack_source(source, Path("src"), tmp_path / "pack", key="k", progress=True)
    told = capsys.readouterr().err
    assert told.count("every frame is black") == importing.MAX_PRINTED
    assert "... and 4 more warnings; `foreframe data check` lists them" in told


def test_an_import_holds_little_in_memory(tmp_path: Path):
    bair_lab.example(tmp_path / "bair")
    for number in range(20, 60):
        shutil.copytree(tmp_path / "bair" / ONE, tmp_path / "bair/processed_data/train/traj_0" / str(number))
    tracemalloc.start()
    pack = import_clips(tmp_path / "bair", tmp_path / "pack")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pack.episodes) == 44
    assert peak < 8 * 2**20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREFRAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


def test_a_damaged_cache_says_that_it_may_be_deleted(bair: Path, cache: Path):
    pack = open_clips(bair)
    (pack.path / "frames.npy").unlink()
    with pytest.raises(DataError, match=r"frames\.npy: missing") as caught:
        open_clips(bair)
    assert str(caught.value).endswith(f"This is only a cache: delete {pack.path} and start again")
    shutil.rmtree(pack.path)
    assert open_clips(bair).hash == pack.hash


def test_a_source_is_packed_into_the_cache_once_and_again_when_it_changes(
    bair: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    first = open_clips(bair, progress=True)
    assert first.path.parent == cache
    assert f"packing {bair} into {first.path}" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(sources, "import_clips", lambda *_, **__: pytest.fail("packed again"))
        assert open_clips(bair).hash == first.hash
    os.utime(bair / ONE / "0.png", ns=(1, 1))
    assert open_clips(bair).path != first.path
    assert open_clips(bair, options=Options(size=(8, 8))).spec.height == 8
    assert len(list(cache.iterdir())) == 3


def test_other_lists_are_another_pack_in_the_cache(bair: Path, cache: Path, tmp_path: Path):
    clips = [line.name for line in scan(bair).clips]
    options = Options(lists=tmp_path / "lists.json")
    for split in ("train", "val"):
        (tmp_path / "lists.json").write_text(json.dumps({split: clips}))
        assert open_clips(bair, options=options).splits == (split,)


def test_a_pack_is_opened_where_it_lies(bair: Path, tmp_path: Path, cache: Path):
    pack = import_clips(bair, tmp_path / "pack")
    assert open_clips(tmp_path / "pack").path == pack.path
    assert not cache.exists()


def test_two_at_once_make_one_pack_and_both_use_it(bair: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    real, calls, packs, other_waits = importing.inspect, [], [], threading.Event()

    def once_the_other_waits(*arguments, **options):
        calls.append(1)
        assert other_waits.wait(120)
        return real(*arguments, **options)

    monkeypatch.setattr(importing, "inspect", once_the_other_waits)
    clock = SimpleNamespace(sleep=lambda seconds: (other_waits.set(), time.sleep(seconds)))
    monkeypatch.setattr("foreframe.data.cache.time", clock)
    threads = [threading.Thread(target=lambda: packs.append(open_clips(bair))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert packs[0].path == packs[1].path
    assert packs[0].hash == packs[1].hash
    packs[0].verify()
    assert len(calls) == 1
    assert [path.name for path in cache.iterdir()] == [packs[0].path.name]


def test_a_faulty_source_leaves_nothing_in_the_cache(bair: Path, cache: Path):
    cut(bair / ONE / "3.png")
    with pytest.raises(DataError, match="1 fault"):
        open_clips(bair)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("name", "rows"), [("push", [0, 0, 1, 2, 3, 4]), ("dance", [0, 1, 2, 3, 4, 5])])
def test_a_built_in_sample_is_decoded_once_with_its_rows_where_they_lead(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows: list[int]
):
    about, rng = sample.SAMPLES[name], np.random.default_rng(0)
    shape = (6, 7) if name == "push" else (6, 8, 8, 3)
    spec = ClipSpec(3, 8, 8, about.cond, shape[-1])
    clips = [
        (
            f"{name}-{number}",
            "train" if number else "val",
            rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
            rng.integers(0, 256, shape).astype(np.float32 if name == "push" else np.uint8),
        )
        for number in range(3)
    ]

    def opened(_: str, known: bool = True) -> sample.SampleInfo:
        stream = iter(clips) if known else map(pytest.fail, ["decoded again"])
        return sample.SampleInfo(name, spec, about.columns, about.shift, about.fps, "ab" * 32, stream)

    monkeypatch.setattr(sample, "open_sample", opened)
    pack = open_clips(name)
    monkeypatch.setattr(sample, "open_sample", lambda _: opened(_, known=False))
    assert open_clips(f"sample:{name}").hash == pack.hash
    assert pack.fps == about.fps
    for episode, clip in zip(pack.episodes, clips, strict=True):
        frames, cond = pack.read(episode, 0, 6)
        np.testing.assert_array_equal(frames, clip[2])
        np.testing.assert_array_equal(cond, clip[3][rows])


def test_what_is_not_there_is_said_and_samples_are_named(cache: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"no such sample; there are push, dance"):
        open_clips("sample:pull")
    with pytest.raises(DataError, match=r"there is nothing; expected a pack, a folder of clips, or a built-in sample"):
        open_clips(tmp_path / "nowhere")


def deep(folder: Path, depth: int, name: str = "a") -> Path:
    """A file so many folders below."""
    for _ in range(depth):
        folder /= name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_bytes(b"x")
    return folder / "file"


def test_the_key_of_a_source_tells_of_every_file_that_a_layout_reads(tmp_path: Path):
    def key() -> str:
        return source_key(tmp_path, Options(), [])

    keys = [key()]
    for depth in (0, 2, 24):
        path = deep(tmp_path, depth)
        keys.append(key())
        path.write_bytes(b"longer")
        keys.append(key())
    (tmp_path / "link").symlink_to("a")
    keys.append(key())
    (tmp_path / "loop").symlink_to("loop")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    deep(tmp_path, 26)
    assert key() == keys[-1]


def test_the_key_of_a_source_ends_where_links_go_round_and_hears_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in "abcdefgh":
        (tmp_path / name).symlink_to(".")
    polls = []
    monkeypatch.setattr("foreframe.data.cache.signals.poll", lambda: polls.append(1))
    assert source_key(tmp_path, Options(), [])
    assert len(polls) == 1
