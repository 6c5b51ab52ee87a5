from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data.manifest import Episode
from foreframe.data.pack import Pack, PackWriter
from foreframe.errors import DataError

SPEC = ClipSpec(3, 8, 10, "vector", 2)


def clip(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (length, 8, 10, 3), dtype=np.uint8), rng.normal(size=(length, 2)).astype(np.float32)


def write(path: Path, count: int = 3, **options) -> Path:
    with PackWriter(path, SPEC, ("a", "b"), fps=5, source={"layout": "test"}, **options) as writer:
        for number, length in enumerate([5, 3, 7, *range(1, 60)][:count]):
            writer.add(f"clip{number}", "val" if number == 2 else "train", *clip(length, number))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "pack")


def test_a_pack_reads_as_it_was_written(folder: Path):
    pack = Pack.open(folder)
    assert pack.spec == SPEC
    assert (pack.cond_names, pack.fps, pack.splits) == (("a", "b"), 5.0, ("train", "val"))
    assert pack.episodes == (
        Episode("clip0", "train", 0, 5), Episode("clip1", "train", 5, 3), Episode("clip2", "val", 8, 7)
    )  # fmt: skip
    for number, episode in enumerate(pack.episodes):
        frames, cond = pack.read(episode, 0, episode.length)
        np.testing.assert_array_equal(frames, clip(episode.length, number)[0])
        np.testing.assert_array_equal(cond, clip(episode.length, number)[1])
        assert not frames.flags.writeable
    pack.verify()


def test_numpy_reads_the_arrays_of_a_pack_by_itself(folder: Path):
    assert np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False).shape == (15, 8, 10, 3)
    assert np.load(folder / "cond.npy", allow_pickle=False).dtype == np.float32


def test_pictures_as_condition_are_kept_as_bytes(tmp_path: Path):
    frames = clip(4, 0)[0]
    with PackWriter(tmp_path / "pack", ClipSpec(3, 8, 10, "image", 3), ("pose",)) as writer:
        writer.add("c", "train", frames, 255 - frames)
    pack = Pack.open(tmp_path / "pack")
    np.testing.assert_array_equal(pack.read(pack.episodes[0], 1, 2)[1], 255 - frames[1:3])


def test_a_pack_without_condition_has_no_cond_file(tmp_path: Path):
    with PackWriter(tmp_path / "pack", ClipSpec(3, 8, 10)) as writer:
        writer.add("c", "train", clip(4, 0)[0])
    assert not (tmp_path / "pack" / "cond.npy").exists()
    assert Pack.open(tmp_path / "pack").cond is None


def test_the_same_clips_give_the_same_hash_and_others_another(tmp_path: Path):
    first, second = Pack.open(write(tmp_path / "a")), Pack.open(write(tmp_path / "b"))
    assert first.hash == second.hash
    with PackWriter(tmp_path / "c", SPEC, ("a", "b"), fps=5, source={"layout": "test"}) as writer:
        writer.add("clip0", "train", *clip(5, 99))
    assert Pack.open(tmp_path / "c").hash != first.hash


def test_the_manifest_tells_alignment_counts_and_source(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["alignment"] == "cond[t] leads into frame t; row t of the source, not shifted"
    assert manifest["splits"] == {"train": {"episodes": 2, "frames": 8}, "val": {"episodes": 1, "frames": 7}}
    assert manifest["source"] == {"layout": "test"}
    assert str(folder.parent) not in (folder / "manifest.json").read_text()


def test_frames_may_be_appended_in_pieces_and_rolled_back(tmp_path: Path):
    frames, cond = clip(6, 0)
    with PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
        writer.append(frames[:2], cond[:2])
        writer.append(frames[2:], cond[2:])
        writer.commit("whole", "train")
        writer.append(*clip(3, 1))
        writer.rollback()
        writer.add("after", "train", *clip(2, 2))
    pack = Pack.open(tmp_path / "pack")
    pack.verify()
    assert [(episode.name, episode.length) for episode in pack.episodes] == [("whole", 6), ("after", 2)]
    np.testing.assert_array_equal(pack.frames, np.concatenate([frames, clip(2, 2)[0]]))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_while_writing_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]):
    def half() -> None:
        with PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
            writer.add("c", "train", *clip(5, 0))
            raise error

    with pytest.raises(error):
        half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", range(1, 12))
def test_a_failing_disk_leaves_the_old_pack_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int):
    before = Pack.open(write(tmp_path / "pack")).hash
    calls = 0

    def failing(real):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    try:
        write(tmp_path / "pack", overwrite=True)
    except DataError as error:
        assert "cannot be written: No space left on device" in str(error)  # noqa: PT017
        assert calls >= at  # more where the old pack was put back
    pack = Pack.open(tmp_path / "pack")
    pack.verify()
    assert pack.hash == before
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
@pytest.mark.parametrize("limit", [64, 200, 1000, 4000])
def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_nothing_behind(tmp_path: Path, limit: int):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DataError, match=r"pack: cannot be written: File too large \([0-9,]+ MB free\)"):
            write(tmp_path / "pack", count=40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path):
    left = tmp_path / f".pack.{socket.gethostname()}.{2**22 + 7}.abc"
    alive = tmp_path / f".pack.{socket.gethostname()}.{os.getpid()}.abc"
    left.mkdir()
    alive.mkdir()
    write(tmp_path / "pack")
    assert not left.exists()
    assert alive.exists()


def test_a_writer_killed_while_it_replaced_a_pack_does_not_lose_it(tmp_path: Path):
    before = Pack.open(write(tmp_path / "pack")).hash
    aside = tmp_path / f".pack.{socket.gethostname()}.{2**22 + 7}.abc"
    aside.mkdir()
    (tmp_path / "pack").rename(aside / "replaced")
    with pytest.raises(DataError, match="already exists"):
        write(tmp_path / "pack")
    assert Pack.open(tmp_path / "pack").hash == before
    assert not aside.exists()


def test_an_existing_folder_is_refused_and_only_a_pack_is_overwritten(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match="already exists; choose another folder, or overwrite it with --overwrite"):
        write(folder)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    with pytest.raises(DataError, match="is not a pack, so it is not overwritten"):
        write(precious, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "years"
    write(folder, overwrite=True)
    Pack.open(folder).verify()


@pytest.mark.parametrize(
    ("frames", "cond", "message"),
    [
        (np.zeros((2, 8, 10, 3), np.float32), np.zeros((2, 2)), r"expected uint8 \(T, 8, 10, 3\), found float32"),
        (np.zeros((2, 8, 9, 3), np.uint8), np.zeros((2, 2)), r"found uint8 \(2, 8, 9, 3\)"),
        (
            np.zeros((2, 8, 10, 3), np.uint8),
            np.zeros((3, 2)),
            r"cond: expected float32 \(2, 2\), found float64 \(3, 2\)",
        ),
        (np.zeros((2, 8, 10, 3), np.uint8), None, "cond: expected vector, found none"),
        (np.zeros((2, 8, 10, 3), np.uint8), np.array([[0, 1], [np.nan, 2]]), r"found \[nan, 2.0\] at row 1"),
        (np.zeros((0, 8, 10, 3), np.uint8), np.zeros((0, 2)), "expected at least one frame"),
    ],
)
def test_clips_that_do_not_fit_are_refused(tmp_path: Path, frames, cond, message):
    with pytest.raises(DataError, match=message), PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
        writer.add("c", "train", frames, cond)
    assert list(tmp_path.iterdir()) == []


def test_two_clips_of_one_name_and_an_empty_pack_are_refused(tmp_path: Path):
    with PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
        writer.add("c", "train", *clip(2, 0))
        with pytest.raises(DataError, match="c: two clips of this name"):
            writer.add("c", "val", *clip(2, 1))
    with pytest.raises(DataError, match="at least one clip to pack"), PackWriter(tmp_path / "p", SPEC, ("a", "b")):
        pass


def test_opening_what_is_no_pack_says_what_is_there(tmp_path: Path):
    with pytest.raises(DataError, match=r"found a folder without manifest\.json"):
        Pack.open(tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        Pack.open(tmp_path / "missing")


def test_an_unknown_split_lists_those_there_are(folder: Path):
    with pytest.raises(
        DataError, match=r"no split 'vall'; this pack has train \(2 episodes\), val \(1 episodes\); did you"
    ):
        Pack.open(folder).split("vall")


def test_reading_beyond_an_episode_is_refused(folder: Path):
    pack = Pack.open(folder)
    with pytest.raises(ValueError, match="episode 'clip1' has frames 0 to 2; asked for 2 to 3"):
        pack.read(pack.episodes[1], 2, 2)
