from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreframe.data.exports.run import export
from foreframe.data.layouts import dance_lab as layout
from foreframe.errors import UsageError
from foreframe.video import read_image
from tests.data.exports.conftest import BAIR, CLIPS, read_again, tiny_pack


def test_clips_of_a_split_follow_each_other_with_one_number_left_out_between(tmp_path: Path):
    export(tiny_pack(tmp_path / "pack", "pose"), tmp_path / "out", "dance_lab")
    assert layout.recognises(tmp_path / "out")
    train = [*range(5), 6, *range(8, 14)]
    for part in ("img", "label"):
        names = sorted(path.name for path in (tmp_path / "out/train" / f"train_{part}").iterdir())
        assert names == [f"frame{number:06d}.png" for number in train]
        names = sorted(path.name for path in (tmp_path / "out/val" / f"val_{part}").iterdir())
        assert names == [f"frame{number:06d}.png" for number in range(4)]


def test_an_import_cuts_the_clips_apart_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foreframe.data.exports._recorded.PIECE", 2)
    pack = tiny_pack(tmp_path / "pack", "pose")
    export(pack, tmp_path / "out", "dance_lab")
    found = read_again(tmp_path / "out", "dance_lab", size=(8, 10))
    expected = [*pack.split("train"), *pack.split("val")]
    assert [clip.split for clip in found] == [episode.split for episode in expected]
    for clip, episode in zip(found, expected, strict=True):
        frames, poses = pack.read(episode, 0, episode.length)
        np.testing.assert_array_equal(clip.frames, frames)
        np.testing.assert_array_equal(clip.cond, poses)


def test_of_a_test_clip_the_first_frame_and_all_poses_are_written(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", "pose", clips=[*CLIPS, ("f", "test", 2)])
    notes = export(pack, tmp_path / "out", "dance_lab")
    assert "of 2 test clips only the first frame and the poses are written, not the true frames" in notes
    for number, episode in enumerate(pack.split("test")):
        frames, poses = pack.read(episode, 0, episode.length)
        images, labels = (tmp_path / "out/test" / f"test_{part}" / str(number) for part in ("img", "label"))
        assert [path.name for path in images.iterdir()] == ["frame000000.png"]
        np.testing.assert_array_equal(read_image(images / "frame000000.png"), frames[0])
        assert len([*labels.iterdir()]) == episode.length
        for index, pose in enumerate(poses):
            np.testing.assert_array_equal(read_image(labels / f"frame{index:06d}.png"), pose)


def test_the_size_that_an_import_needs_to_be_told_is_noted(tmp_path: Path):
    notes = export(tiny_pack(tmp_path / "pack", "pose"), tmp_path / "out", "dance_lab")
    assert "an import brings pictures of this form to 32x64 unless --size is 8 10" in notes
    notes = export(tiny_pack(tmp_path / "usual", "pose", size=(32, 64)), tmp_path / "other", "dance_lab")
    assert not any("--size" in note for note in notes)


@pytest.mark.parametrize("names", [(), BAIR])
def test_packs_without_pose_pictures_are_refused(tmp_path: Path, names):
    pack = tiny_pack(tmp_path / "pack", names)
    with pytest.raises(UsageError, match="dance_lab holds a picture of the pose of each frame; this pack has 3x8x10"):
        export(pack, tmp_path / "out", "dance_lab")
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_other_splits_are_refused(tmp_path: Path):
    pack = tiny_pack(tmp_path / "pack", "pose", clips=(*CLIPS, ("f", "extra", 2)))
    with pytest.raises(UsageError, match="this pack has also extra"):
        export(pack, tmp_path / "out", "dance_lab")
