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
from foreframe.data.npy import header
from foreframe.data.pack import Pack, PackWriter
from foreframe.errors import DataError

SPEC = ClipSpec(3, 8, 10, "vector", 2)


def clip(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (length, 8, 10, 3), dtype=np.uint8), rng.normal(size=(length, 2)).astype(np.float32)


def write(path: Path, **options) -> Path:
    with PackWriter(path, SPEC, ("a", "b"), fps=5, source={"layout": "test"}, **options) as writer:
        for number, length in enumerate((5, 3, 7)):
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
    assert manifest["alignment"] == "cond[t] leads into frame t; no shift"
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


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(layout=2), "layout: expected 1, found 2: the pack was written by another version"),
        (lambda m: m.update(spcc={}), "unknown key 'spcc'; did you mean 'spec'"),
        (lambda m: m["spec"].update(hight=3), "unknown key 'spec.hight'; did you mean 'height'"),
        (lambda m: m.pop("fps"), "missing key 'fps'"),
        (lambda m: m["spec"].update(height="8"), "spec.height: str is of the wrong type"),
        (lambda m: m["spec"].update(height=True), "spec.height: bool is of the wrong type"),
        (lambda m: m["spec"].update(height=0), "spec.height: expected 1 to 65536, found 0"),
        (lambda m: m["spec"].update(cond="sound"), "spec.cond: expected one of none, vector, image, found 'sound'"),
        (lambda m: m.update(cond_names=["a"]), "cond_names: expected 2 names, found 1"),
        (lambda m: m.update(cond_names=["a", 1]), r"cond_names\[1\]: expected str, found int"),
        (lambda m: m.update(fps=-1), "fps: expected a positive number or null"),
        (lambda m: m["files"].update({"../x": {}}), "unknown key 'files.../x'"),
        (lambda m: m["splits"]["train"].update(frames=9), "expected the splits of the manifest"),
        (lambda m: m["files"]["cond.npy"].update(size=1), "cond.npy: expected 1 bytes as in the manifest, found 248"),
    ],
)
def test_a_manifest_is_read_strictly(folder: Path, change, message):
    edit(folder, change)
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ('{"layout": 1, "layout": 1}', "key 'layout' occurs twice"),
        ('{"layout": NaN}', "NaN is not JSON"),
        ("[]", "top level: expected an object, found list"),
        ("\udcff", "expected JSON"),
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: str, message: str):
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[1].update(start=4), r"\[1\]: expected start 5 and a length of 1 or more, found start 4"),
        (lambda e: e[0].update(length=0), "found start 0 and length 0"),
        (lambda e: e[1].update(name="clip0"), "'clip0' occurs twice"),
        (lambda e: e.pop(), "expected the splits of the manifest"),
        (lambda e: e[0].update(lenght=3), "unknown key '.0..lenght'; did you mean 'length'"),
    ],
)
def test_an_index_of_episodes_is_read_strictly(folder: Path, change, message):
    episodes = json.loads((folder / "episodes.json").read_text())
    change(episodes)
    content = json.dumps(episodes).encode()
    (folder / "episodes.json").write_bytes(content)
    edit(folder, lambda m: m["files"]["episodes.json"].update(size=len(content)))
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x93NUMPY\x02\x00", "expected an .npy file"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00", "expected an .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff", "header of at most 1024 bytes"),
        (
            header(np.dtype(np.uint8), (10**15, 8, 10, 3)),
            r"expected uint8 of shape \(15, 8, 10, 3\), found uint8 of shape",
        ),
        (header(np.dtype(np.float32), (15, 8, 10, 3)), "found float32 of shape"),
        (header(np.dtype(np.uint8), (15, 8, 10, 3)).replace(b"False", b"True "), "expected the header of a C-ordered"),
        (header(np.dtype(np.uint8), (15, 8, 10, 3)).replace(b"'|u1'", b"'|O' "), "expected the header of a C-ordered"),
    ],
)
def test_an_array_with_another_header_is_refused_before_memory_is_taken(folder: Path, start: bytes, message: str):
    content = (folder / "frames.npy").read_bytes()
    (folder / "frames.npy").write_bytes(start + content[len(start) :])
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


def test_a_missing_file_and_a_cut_one_are_named(folder: Path):
    frames = folder / "frames.npy"
    content = frames.read_bytes()
    frames.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"frames.npy: expected 3728 bytes as in the manifest, found 3727"):
        Pack.open(folder)
    frames.unlink()
    with pytest.raises(DataError, match=r"frames.npy: missing; the manifest lists it"):
        Pack.open(folder)


@pytest.mark.parametrize("name", ["frames.npy", "cond.npy", "episodes.json"])
def test_verify_names_the_changed_file_and_both_hashes(folder: Path, name: str):
    pack = Pack.open(folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        pack.verify()
    assert len(caught.value.faults) == 1
    assert name in caught.value.faults[0].path
    assert pack.manifest.files[name].sha256 in str(caught.value)
    assert len(caught.value.faults[0].found) == 64


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
