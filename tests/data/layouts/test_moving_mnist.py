"""Stochastic Moving MNIST: the rules by which digits move, which digits are in which split, and damaged files."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foreframe.data.layouts import moving_mnist
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.moving_mnist import _way, example, recognises, survey
from foreframe.data.layouts.options import Options
from foreframe.errors import UsageError

REAL = Path(os.environ.get("FOREFRAME_REALDATA") or Path(__file__).parents[4] / "shared" / "realdata") / "mnist"


def write(path: Path, digits: np.ndarray, *, header: tuple[int, ...] = (), cut: int = 0, more: bytes = b"") -> Path:
    """An idx file by the description of its format: four big-endian numbers, then one byte for each pixel."""
    content = struct.pack(">4I", *(header or (2051, *digits.shape))) + digits.astype(np.uint8).tobytes() + more
    content = content[: len(content) - cut]
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def flat(count: int, first: int = 1) -> np.ndarray:
    """Digits that are each one even grey of their own, so that a picture tells which digit it was made of."""
    return np.broadcast_to(np.arange(first, first + count)[:, None, None], (count, 28, 28))


def of_split(found: SourceIndex, split: str) -> list[SourceClip]:
    return [clip for clip in found.clips if clip.split == split]


def greys(clips: list[SourceClip]) -> set[int]:
    """Values of the digits in these clips, where they do not cover each other (all digits here are below 100)."""
    found: set[int] = set()
    for clip in clips:
        values, counts = np.unique(clip.frames(0, 1).values[..., 0], return_counts=True)
        sums = {int(value) for value, count in zip(values, counts, strict=True) if value and count >= 1}
        found |= {value for value in sums if not any(value == a + b for a in sums for b in sums)}
    return found


def test_clips_are_made_of_both_files(tmp_path: Path):
    write(tmp_path / "train-images-idx3-ubyte", flat(60))
    write(tmp_path / "t10k-images-idx3-ubyte.gz", flat(6, 90))
    found = survey(tmp_path, Options(count=240))
    assert found.faults == ()
    assert (found.size, found.cond, found.columns, found.fps) == ((64, 64), "none", (), None)
    assert [len(of_split(found, split)) for split in ("train", "val", "test")] == [200, 20, 20]
    assert found.clips[0].name == "train/000000"
    assert {clip.length for clip in found.clips} == {30}
    assert greys(of_split(found, "train")) <= {*range(1, 51)}
    assert greys(of_split(found, "val")) <= {*range(51, 61)}
    assert greys(of_split(found, "test")) <= {*range(90, 96)}
    assert len(greys(of_split(found, "train"))) > 40


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"])
def test_one_file_is_divided_without_overlap(tmp_path: Path, name: str):
    write(tmp_path / name, flat(50))
    found = survey(tmp_path, Options(count=120))
    assert greys(of_split(found, "train")) <= {*range(1, 41)}
    assert greys(of_split(found, "val")) <= {*range(41, 46)}
    assert greys(of_split(found, "test")) <= {*range(46, 51)}


def test_a_clip_depends_on_its_split_and_number_only(tmp_path: Path):
    example(tmp_path)
    few, many = survey(tmp_path, Options(count=12)), survey(tmp_path, Options(count=100))
    others = {clip.name: clip for clip in many.clips}
    pictures = set()
    for clip in few.clips:
        whole = clip.frames(0, 30).values
        assert whole.shape == (30, 64, 64, 3)
        assert whole.dtype == np.uint8
        assert (whole == whole[..., :1]).all()
        copy = pickle.loads(pickle.dumps(others[clip.name]))  # noqa: S301
        np.testing.assert_array_equal(copy.frames(7, 12).values, whole[7:12])
        pictures.add(whole.tobytes())
    assert len(pictures) == 12


def test_digits_are_resized_and_added_up_to_white(tmp_path: Path):
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 6:20] = np.random.default_rng(1).integers(100, 256, (20, 14))
    write(tmp_path / "t10k-images-idx3-ubyte", np.stack([digit] * 10))
    resized = np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    clipped = False
    for clip in of_split(survey(tmp_path, Options(count=20)), "train"):
        rng = np.random.default_rng((0x5EED, 0, int(clip.name[-6:])))
        expected = np.zeros((30, 64, 64), int)
        for _ in range(2):
            rng.integers(0, 8)
            for t, (y, x) in enumerate(_way(rng)):
                expected[t, y : y + 32, x : x + 32] += resized
        clipped = clipped or bool((expected > 255).any())
        np.testing.assert_array_equal(clip.frames(0, 30).values[..., 0], expected.clip(0, 255))
    assert clipped


def test_digits_start_anywhere_move_straight_and_turn_at_walls():
    """Start 0 to 31, speed -4 to 4 in whole pixels, at a wall put back to 0 or 31 and turned away from it."""
    starts, speeds, away = set(), set(), set()
    for seed in range(600):
        way = np.array(_way(np.random.default_rng(seed)))
        assert way.shape == (30, 2)
        assert way.min() >= 0
        assert way.max() <= 31
        starts |= {*way[0].tolist()}
        step = np.diff(way, axis=0)
        assert abs(step).max() <= 4
        at_wall = ((way == 0) | (way == 31)).any(axis=1)
        turned = (step[1:] != step[:-1]).any(axis=1)  # in frame 1, 2, ... on the way into the next
        assert (at_wall[1:-1] | at_wall[2:] | ~turned).all()
        for t in np.flatnonzero(~at_wall[:-2] & ~at_wall[1:-1] & ~at_wall[2:]):
            speeds |= {*step[t].tolist()}
        for t in np.flatnonzero(at_wall[1:-1] & turned & ~at_wall[2:]) + 1:
            for axis in (0, 1):
                if way[t, axis] in (0, 31):
                    away.add((int(way[t, axis]), int(step[t, axis])))
    assert starts == {*range(32)}
    assert speeds == {*range(-4, 5)}
    assert away == {(0, speed) for speed in (1, 2, 3, 4)} | {(31, speed) for speed in (-1, -2, -3, -4)}


def test_the_number_of_clips_is_1200_or_that_of_the_digits_unless_given(tmp_path: Path):
    example(tmp_path)
    assert len(survey(tmp_path, Options()).clips) == 22
    write(tmp_path / "train-images-idx3-ubyte", flat(200).repeat(7, axis=0))
    found = survey(tmp_path, Options())
    assert [len(of_split(found, split)) for split in ("train", "val", "test")] == [1000, 100, 100]
    assert len(survey(tmp_path, Options(count=3)).clips) == 3
    with pytest.raises(UsageError, match="count: expected 3 or more"):
        survey(tmp_path, Options(count=2))


def test_an_unpacked_file_goes_before_a_packed_one_and_others_are_told(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    example(raw)
    write(raw / "train-images-idx3-ubyte.gz", flat(10))
    (raw / "train-labels-idx1-ubyte").write_bytes(b"")
    assert recognises(tmp_path)
    assert recognises(raw)
    assert not recognises(tmp_path / "MNIST" / "none")
    found = survey(tmp_path, Options())
    assert found.faults == ()
    assert found.notes == (
        "2 other files not used: MNIST/raw/train-images-idx3-ubyte.gz, MNIST/raw/train-labels-idx1-ubyte",
    )


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header": (2049, 20, 28, 28)}, "header: expected the number 2051 of an idx file of pictures, found 2049"),
        ({"header": (2051, 20, 28, 27)}, "expected digits of 28x28, found 28x27"),
        ({"header": (2051, 20, 2**32 - 28, 28)}, "expected digits of 28x28, found 4294967268x28"),
        ({"header": (2051, 0, 28, 28)}, "expected 1 to 1048576 digits, found 0"),
        ({"header": (2051, 2**32 - 1, 28, 28)}, "expected 1 to 1048576 digits, found 4294967295"),
        ({"header": (2051, 2**20, 28, 28)}, "it is cut short"),
        ({"header": (2051, 21, 28, 28)}, "cut short"),
        ({"header": (2051, 19, 28, 28)}, "expected 14896 bytes of digits, found more"),
        ({"cut": 1}, "cut short"),
        ({"cut": 20 * 784 + 2}, "header: expected 16 bytes, found 14"),
        ({"more": b"x"}, "found more"),
    ],
)
def test_a_header_that_does_not_fit_is_a_fault(tmp_path: Path, ending: str, changes: dict, words: str):
    path = write(tmp_path / f"t10k-images-idx3-ubyte{ending}", flat(20), **changes)
    tracemalloc.start()
    found = survey(tmp_path, Options())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    (fault,) = found.faults
    assert fault.path == path.name
    assert words in str(fault)
    assert (found.size, found.clips) == (None, ())


def test_a_packed_file_that_would_grow_beyond_its_header_is_not_unpacked(tmp_path: Path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 2051, 1, 28, 28) + bytes(2**25)))
    tracemalloc.start()
    (fault,) = survey(tmp_path, Options()).faults
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert fault.found == "more"


def test_too_few_digits_to_divide_are_a_fault(tmp_path: Path):
    write(tmp_path / "t10k-images-idx3-ubyte", flat(1))
    assert "digits enough for a share for train, found 1 in all" in str(survey(tmp_path, Options()).faults[0])
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    assert survey(tmp_path, Options()).faults[0].found == "none of them"


@pytest.mark.parametrize("damage", ["half", "empty", "garbage", "bit"])
def test_damage_to_any_file_of_the_example_is_a_fault_that_names_it(tmp_path: Path, damage: str):
    example(tmp_path)
    assert recognises(tmp_path)
    assert survey(tmp_path, Options()).faults == ()
    for path in sorted(tmp_path.iterdir()):
        good = path.read_bytes()
        flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
        path.write_bytes(
            {"half": good[: len(good) // 2], "empty": b"", "garbage": b"no such thing\n" * 99, "bit": flipped}[damage]
        )
        if damage != "bit" or path.suffix == ".gz":  # plain files hold no check sum
            assert {fault.path for fault in survey(tmp_path, Options()).faults} == {path.name}
        path.write_bytes(good)


def test_real_digits_move():
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}; set FOREFRAME_REALDATA to the folder that holds mnist/")
    found = survey(REAL, Options())
    assert found.faults == ()
    assert len(found.clips) == moving_mnist.COUNT
    for clip in found.clips[::100]:
        frames = clip.frames(0, 30).values
        assert (frames[0] != frames[1]).any() or (frames[0] != frames[2]).any()
        assert 0.02 < (frames > 64).mean() < 0.3


def test_a_folder_named_like_a_file_of_digits_is_a_fault(tmp_path: Path):
    example(tmp_path)
    (tmp_path / "train-images.idx3-ubyte").mkdir()
    assert [str(fault) for fault in survey(tmp_path, Options()).faults] == [
        "train-images.idx3-ubyte: expected a file of digits, found a folder"
    ]
