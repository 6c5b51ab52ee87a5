"""Stick figures: where their lines lie, what covers what, and that they never change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from foreframe.video.skeleton import COCO_17, OPENPOSE_25, Bone, draw_pose

RED, BLUE = (250, 0, 0), (0, 0, 250)


def points(*places: tuple[float, float, float]) -> np.ndarray:
    return np.array(places, np.float64)


def test_a_line_two_pixels_wide_covers_its_own_row_and_half_of_its_neighbours():
    picture = draw_pose(points((2, 5, 1), (12, 5, 1)), [Bone(0, 1, RED)], 11, 16, width_px=2)
    assert picture.shape == (11, 16, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, 7, 0], [0, 0, 0, 0, 125, 250, 125, 0, 0, 0, 0])
    assert not picture[..., 1:].any()


def test_ends_are_round_and_reach_half_a_width_beyond_the_joint():
    picture = draw_pose(points((4, 4, 1), (4, 4, 1)), [Bone(0, 1, RED)], 9, 9, width_px=4)[..., 0]
    np.testing.assert_array_equal(picture, picture.T)
    np.testing.assert_array_equal(picture, picture[::-1])
    assert picture[4, 2] == 125
    assert picture[4, 1] == 0
    assert picture[2, 2] == 0


def test_x_is_to_the_right_and_y_is_down():
    picture = draw_pose(points((9, 2, 1), (9, 2, 1)), [Bone(0, 1, RED)], 8, 12, width_px=1)
    assert np.argwhere(picture[..., 0]).tolist() == [[2, 9]]


def test_later_bones_lie_over_earlier_ones():
    cross = points((2, 5, 1), (8, 5, 1), (5, 2, 1), (5, 8, 1))
    bones = [Bone(0, 1, RED), Bone(2, 3, BLUE)]
    assert draw_pose(cross, bones, 11, 11, width_px=2)[5, 5].tolist() == [0, 0, 250]
    assert draw_pose(cross, bones[::-1], 11, 11, width_px=2)[5, 5].tolist() == [250, 0, 0]


@pytest.mark.parametrize("confidence", [0.0, -1.0])
def test_a_bone_with_an_end_that_is_not_there_is_left_out(confidence: float):
    assert not draw_pose(points((2, 5, 1), (8, 5, confidence)), [Bone(0, 1, RED)], 11, 11).any()


def test_joints_may_lie_outside_of_the_picture():
    picture = draw_pose(points((-900, 5, 1), (900, 5, 1)), [Bone(0, 1, RED)], 11, 16, width_px=1)
    assert (picture[5, :, 0] == 250).all()
    assert not draw_pose(points((-90, -50, 1), (-9, -5, 1)), [Bone(0, 1, RED)], 11, 16).any()


def test_lines_grow_with_the_picture_and_are_never_thinner_than_a_pixel():
    joints = points((0.1, 0.5, 1), (0.9, 0.5, 1))
    thick = [
        draw_pose(joints * [size, size, 1], [Bone(0, 1, RED)], size, size)[:, size // 2, 0].sum() / 250
        for size in (16, 80, 320)
    ]
    assert thick == pytest.approx([1, 2, 8], abs=0.01)


@pytest.mark.parametrize(
    ("joints", "bones"),
    [
        (np.zeros((2, 2)), [Bone(0, 1, RED)]),
        (points((0, 0, 1), (float("nan"), 0, 1)), [Bone(0, 1, RED)]),
        (points((0, 0, 1), (2e6, 0, 1)), [Bone(0, 1, RED)]),
        (points((0, 0, 1), (1, 0, 1)), [Bone(0, 2, RED)]),
    ],
)
def test_what_cannot_be_drawn_is_refused(joints: np.ndarray, bones: list[Bone]):
    with pytest.raises(ValueError, match="expected"):
        draw_pose(joints, bones, 8, 8)


@pytest.mark.parametrize("skeleton", [COCO_17, OPENPOSE_25])
def test_skeletons_name_each_joint_once_and_use_them_all(skeleton):
    assert len(skeleton.joints) in (17, 25)
    assert len(set(skeleton.joints)) == len(skeleton.joints)
    assert {end for bone in skeleton.bones for end in (bone.start, bone.stop)} == set(range(len(skeleton.joints)))


@pytest.mark.parametrize("skeleton", [COCO_17, OPENPOSE_25])
def test_left_and_right_differ_in_colour(skeleton):
    by_joint = {skeleton.joints[bone.stop]: bone.color for bone in skeleton.bones}
    for joint in ("wrist", "knee", "ankle"):
        assert by_joint[f"left_{joint}"] != by_joint[f"right_{joint}"]


def test_the_same_pose_gives_the_same_bytes_for_ever():
    pose = np.stack([np.arange(25) * 2.37 % 40, np.arange(25) * 3.91 % 60, np.ones(25)], axis=1)
    digest = hashlib.sha256(draw_pose(pose, OPENPOSE_25.bones, 64, 48).tobytes()).hexdigest()
    assert digest[:16] == "543c1a0c9fd6c983"
