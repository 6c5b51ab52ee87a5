from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data.ingest.check import check_pack
from foreframe.data.pack.manifest import Episode
from foreframe.data.pack.pack import Pack, PackWriter, is_pack
from foreframe.errors import DataError, DiskError

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
    except DiskError as error:
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
        with pytest.raises(
            DiskError, match=r"pack: cannot be written: File too large \([0-9,]+ bytes needed, [0-9,]+ fr"
        ):
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


# -- damaged bytes (B1): whatever happens to a file of a pack, `data check` finds it and names the file


def flipped(content: bytearray, draw: Random) -> bytes:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def burst(content: bytearray, draw: Random) -> bytes:
    start = draw.randrange(len(content))
    for place in range(start, min(len(content), start + draw.randint(2, 40))):
        content[place] ^= draw.randint(1, 255)
    return bytes(content)


def swapped(content: bytearray, draw: Random) -> bytes:
    """Two blocks in each other's place."""
    size = draw.randint(1, len(content) // 4)
    one = draw.randint(0, len(content) - 2 * size)
    two = draw.randint(one + size, len(content) - size)
    first, second = content[one : one + size], content[two : two + size]
    content[one : one + size], content[two : two + size] = second, first
    return bytes(content)


def cut(content: bytearray, draw: Random) -> bytes:
    return bytes(content[: draw.randrange(len(content))])


def appended(content: bytearray, draw: Random) -> bytes:
    return bytes(content) + draw.randbytes(draw.randint(1, 40))


DAMAGES: tuple[Callable[[bytearray, Random], bytes], ...] = (flipped, burst, swapped, cut, appended)
FILES = ("frames.npy", "cond.npy", "episodes.json", "manifest.json")
HASH = re.compile(r"\b[0-9a-f]{64}\b")


def told(folder: Path) -> str:
    """What a check says is wrong with a pack."""
    try:
        return "\n".join(str(fault) for fault in check_pack(folder).faults if Path(fault.path).parent == folder)
    except DataError as error:
        return str(error)


def names_it(folder: Path, name: str, words: str) -> bool:
    """Whether just this file is named, with both hashes; with both sizes where these differ already. A manifest that
    has lost the line with its hash is no manifest in other words."""
    (line, *more) = words.splitlines() or [""]
    if more or not line.strip().startswith(f"{folder / name}: "):
        return False
    sizes = re.search(r"expected (\d+) bytes, found (\d+)", line)
    if name == "manifest.json":
        if not re.search(rb'\n "sha256": "[^"\n]*"', (folder / name).read_bytes()):
            return "expected" in line or "key" in line
        hashes = re.search(r"expected SHA-256 (.+), found ('[0-9a-f]{64}');", line)
        return bool(hashes and hashes[1] != hashes[2])
    return len(set(HASH.findall(line))) == 2 or bool(sizes and sizes[1] != sizes[2])


def damage_and_find(folder: Path, damage: Callable[[bytearray, Random], bytes], count: int) -> tuple[int, int]:
    """How many of so many damages were found, the file named; and how many there were."""
    draw = Random(damage.__name__)
    whole = {name: (folder / name).read_bytes() for name in FILES}
    found = 0
    for number in range(count):
        name = FILES[number % len(FILES)]
        content = whole[name]
        while content == whole[name]:
            content = damage(bytearray(whole[name]), draw)
        (folder / name).write_bytes(content)
        found += names_it(folder, name, told(folder))
        (folder / name).write_bytes(whole[name])
    assert told(folder) == ""
    return found, count


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_bytes_are_found_and_the_file_named_with_both_hashes(folder: Path, damage, figure):
    figure("pack bytes damaged and found", *damage_and_find(folder, damage, 200))


@pytest.mark.nightly
@pytest.mark.parametrize("damage", DAMAGES)
def test_ten_thousand_damages_are_found_and_the_file_named_with_both_hashes(folder: Path, damage, figure):
    figure("pack bytes damaged and found", *damage_and_find(folder, damage, 10_000))


def find_strangers(folder: Path, other: Path, count: int) -> tuple[int, int]:
    """How many of so many wrong files under the right name were found; `other` is where other packs are made."""
    whole = {name: (folder / name).read_bytes() for name in FILES}
    found = 0
    for number in range(count):
        name = FILES[number % len(FILES)]
        if number % 8 >= len(FILES):  # another file of the same pack
            (folder / name).write_bytes(whole[FILES[(number + 1) % len(FILES)]])
            words = told(folder)
            found += str(folder / name) in words
        else:  # the same file of another pack, of the same size
            if number % 8 == 0:
                shutil.rmtree(other, ignore_errors=True)
                with PackWriter(other, SPEC, ("a", "b"), fps=5, source={"layout": "test"}) as writer:
                    for index, length in enumerate([5, 3, 7]):
                        writer.add(f"film{index}", "val" if index == 2 else "train", *clip(length, 9 + number + index))
            shutil.copy(other / name, folder / name)
            words = told(folder)
            # A manifest that is whole speaks against every other file: nobody can tell which of them came first.
            wrong = (name,) if name != "manifest.json" else FILES[:3]
            lines = words.splitlines()
            found += len(lines) == len(wrong) and all(
                any(str(folder / each) in line and len(set(HASH.findall(line))) == 2 for line in lines)
                for each in wrong
            )
        (folder / name).write_bytes(whole[name])
    assert told(folder) == ""
    return found, count


def test_a_wrong_file_under_the_right_name_is_found(folder: Path, tmp_path: Path, figure):
    figure("pack bytes damaged and found", *find_strangers(folder, tmp_path / "other", 200))


@pytest.mark.nightly
def test_ten_thousand_wrong_files_under_the_right_name_are_found(folder: Path, tmp_path: Path, figure):
    figure("pack bytes damaged and found", *find_strangers(folder, tmp_path / "other", 10_000))


def test_every_file_that_differs_is_listed_at_once(folder: Path):
    whole = Pack.open(folder)
    (folder / "frames.npy").write_bytes((folder / "frames.npy").read_bytes()[:-1])
    flip_last(folder / "cond.npy")
    (folder / "episodes.json").unlink()
    with pytest.raises(DataError) as caught:
        whole.verify()
    expected = [
        r"cond\.npy: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}",
        r"episodes\.json: expected a file, found nothing",
        r"frames\.npy: expected 3728 bytes, found 3727",
    ]
    for fault, words in zip(caught.value.faults, expected, strict=True):
        assert re.search(words, str(fault))
    assert check_pack(folder).faults == list(caught.value.faults)
    assert not check_pack(folder).ok


def flip_last(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_what_cannot_be_read_is_said_and_not_raised(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    whole = Pack.open(folder)
    monkeypatch.setattr("foreframe.data.pack.pack.sha256", broken)
    with pytest.raises(DataError, match=r"cond\.npy: expected a file that can be read, found Input/output error"):
        whole.verify()
    monkeypatch.setattr("foreframe.data.pack.pack.open_array", lambda *_: broken(folder))
    with pytest.raises(DataError, match=r"pack: cannot be read: Input/output error"):
        Pack.open(folder)


def test_something_else_in_the_place_of_a_file_is_never_opened(folder: Path):
    whole = Pack.open(folder)
    (folder / "cond.npy").unlink()
    os.mkfifo(folder / "cond.npy")
    with pytest.raises(DataError, match=r"cond\.npy: expected a file, found something else"):
        whole.verify()
    with pytest.raises(DataError, match=r"cond\.npy: missing; the manifest lists it"):
        Pack.open(folder)


def test_frames_swapped_under_an_unchanged_manifest_are_found_by_a_check_and_not_by_opening(folder: Path):
    before = Pack.open(folder)
    flip_last(folder / "frames.npy")
    assert Pack.open(folder).hash == before.hash  # opening costs milliseconds: it looks at sizes and headers only
    (fault,) = check_pack(folder).faults
    assert Path(fault.path) == folder / "frames.npy"
    assert before.manifest.files["frames.npy"].sha256 in fault.expected
    assert fault.found == hashlib.sha256((folder / "frames.npy").read_bytes()).hexdigest()


def test_the_hash_of_a_pack_changes_with_every_file_of_it(folder: Path, tmp_path: Path):
    hashes = {Pack.open(folder).hash}
    for number in range(3):
        frames, cond = clip(5, 0)
        if number == 0:
            frames[4, 7, 9, 2] ^= 1
        if number == 1:
            cond[4, 1] += 1e-6
        with PackWriter(tmp_path / str(number), SPEC, ("a", "b"), fps=5, source={"layout": "test"}) as writer:
            writer.add("other" if number == 2 else "clip0", "train", frames, cond)
            writer.add("clip1", "train", *clip(3, 1))
            writer.add("clip2", "val", *clip(7, 2))
        hashes.add(Pack.open(tmp_path / str(number)).hash)
    assert len(hashes) == 4


def test_a_folder_is_a_pack_by_its_manifest_and_its_frames(folder: Path):
    assert is_pack(folder)
    (folder / "frames.npy").rename(folder / "frames")
    assert not is_pack(folder)


def test_statistics_are_those_of_train_as_written_or_those_of_another_split_now(folder: Path, tmp_path: Path):
    whole = Pack.open(folder)
    assert whole.stats("train") == whole.manifest.stats
    (first, _) = whole.stats("val")
    column = clip(7, 2)[1][:, 0].astype(np.float64)
    assert (first.name, first.min, first.max) == ("a", column.min(), column.max())
    assert first.mean == pytest.approx(column.mean(), abs=1e-12)
    assert first.std == pytest.approx(column.std(), abs=1e-12)
    with PackWriter(tmp_path / "plain", ClipSpec(3, 8, 10)) as writer:
        writer.add("c", "train", clip(4, 0)[0])
    assert Pack.open(tmp_path / "plain").stats("train") == ()
