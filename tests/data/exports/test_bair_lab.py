from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data.exports import bair_lab
from foreframe.data.exports.run import export
from foreframe.data.layouts import bair_lab as layout
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import UsageError
from tests.data.exports.conftest import BAIR, CLIPS, read_again, tiny_pack


def test_clips_lie_in_the_folders_of_the_lab(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack"), tmp_path / "out", "bair_lab")
    assert layout.recognises(tmp_path / "out")
    clips = sorted(str(path.parent.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/actions.csv"))
    group = "traj_0_to_255"
    assert clips == [
        f"processed_data/test/{group}/0",
        *(f"processed_data/train/{group}/{number}" for number in range(3)),
        f"processed_data/validate/{group}/0",
    ]
    first = tmp_path / "out" / clips[1]
    assert sorted(path.name for path in first.iterdir()) == [
        *(f"{number}.png" for number in range(5)), "actions.csv", "endeffector_positions.csv"
    ]  # fmt: skip


def test_row_t_is_what_leads_into_frame_t_plus_1_and_the_last_repeats_the_one_before(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack")
    export(pack, tmp_path / "out", "bair_lab")
    folder = tmp_path / "out/processed_data/train/traj_0_to_255/0"
    actions = np.loadtxt(folder / "actions.csv", delimiter=",", dtype=np.float32)
    positions = np.loadtxt(folder / "endeffector_positions.csv", delimiter=",", dtype=np.float32)
    expected = pack.cond[[1, 2, 3, 4, 4]]
    np.testing.assert_array_equal(actions, expected[:, :4])
    np.testing.assert_array_equal(positions, expected[:, 4:])


def test_an_import_gives_the_same_frames_and_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foreframe.data.exports._recorded.PIECE", 2)
    pack = tiny_pack(tmp_path / "pack")
    notes = export(pack, tmp_path / "out", "bair_lab")
    assert not any("first frame" in note for note in notes)
    found = read_again(tmp_path / "out", "bair_lab")
    by_split = [episode for split in ("train", "val", "test") for episode in pack.split(split)]
    assert [clip.split for clip in found] == [episode.split for episode in by_split]
    for clip, episode in zip(found, by_split, strict=True):
        frames, cond = pack.read(episode, 0, episode.length)
        np.testing.assert_array_equal(clip.frames, frames)
        np.testing.assert_array_equal(clip.cond, cond)


def test_any_float32_reads_back_bit_for_bit(tmp_path: Path):
    bits = np.random.default_rng(1).integers(0, 2**32, (60, 7), np.uint64).astype(np.uint32)
    numbers = bits.view(np.float32)
    numbers = np.where(np.isfinite(numbers), numbers, np.float32(0.1))
    limits = np.finfo(np.float32)
    numbers[1] = [limits.max, -limits.max, limits.tiny, limits.smallest_subnormal, -0.0, 1 / 3, 16777216]
    numbers[0] = numbers[1]
    with PackWriter(tmp_path / "pack", ClipSpec(3, 8, 8, "vector", 7), BAIR, shift=1) as writer:
        writer.add("c", "train", np.zeros((60, 8, 8, 3), np.uint8), numbers)
    export(Pack.open(tmp_path / "pack"), tmp_path / "out", "bair_lab")
    found = read_again(tmp_path / "out", "bair_lab")[0].cond
    np.testing.assert_array_equal(found.view(np.uint32), numbers.view(np.uint32))


def test_numbers_before_the_first_frame_that_an_import_would_not_give_are_noted(tmp_path: Path):
    with PackWriter(tmp_path / "pack", ClipSpec(3, 8, 8, "vector", 7), BAIR) as writer:
        for name, first in (("same", 5), ("other", 6)):
            cond = np.full((3, 7), 5, np.float32)
            cond[0, 0] = first
            writer.add(name, "train", np.zeros((3, 8, 8, 3), np.uint8), cond)
    notes = export(Pack.open(tmp_path / "pack"), tmp_path / "out", "bair_lab")
    assert any("in 1 of 2 clips they are not those of the second frame" in note for note in notes)


def test_every_256_clips_begin_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bair_lab, "GROUP", 2)
    export(tiny_pack(tmp_path / "pack"), tmp_path / "out", "bair_lab")
    train = tmp_path / "out/processed_data/train"
    assert sorted(str(path.relative_to(train)) for path in train.glob("*/*")) == [
        "traj_0_to_1/0", "traj_0_to_1/1", "traj_2_to_3/0"
    ]  # fmt: skip


def test_other_names_are_told_with_the_table_they_went_into(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", tuple("abcdefg"), fps=None)
    notes = export(pack, tmp_path / "out", "bair_lab")
    assert notes == [
        "actions.csv holds a, b, c, d; endeffector_positions.csv holds e, f, g",
        "clips are numbered in the order of the pack; their names are not kept",
    ]


def test_a_rate_that_has_no_place_is_noted(tmp_path: Path):
    notes = export(tiny_pack(tmp_path / "pack", fps=7.5), tmp_path / "out", "bair_lab")
    assert "this form has no place for the 7.5 frames a second" in notes


@pytest.mark.parametrize("names", [(), "pose", ("x", "y"), tuple("abcdefgh")])
def test_packs_without_7_numbers_are_refused_with_what_the_form_holds(tmp_path: Path, names):
    pack = tiny_pack(tmp_path / "pack", names)
    with pytest.raises(UsageError, match="exactly 7 numbers a frame, 4 of an action and 3 of a position; this pack"):
        export(pack, tmp_path / "out", "bair_lab")
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_other_splits_are_refused(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", clips=(*CLIPS, ("f", "extra", 2)))
    with pytest.raises(UsageError, match="holds the splits train, val, test; this pack has also extra"):
        export(pack, tmp_path / "out", "bair_lab")


def test_grey_pictures_become_rgb(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", channels=1)
    export(pack, tmp_path / "out", "bair_lab")
    frames = read_again(tmp_path / "out", "bair_lab")[0].frames
    np.testing.assert_array_equal(frames, pack.frames[:5].repeat(3, axis=3))
