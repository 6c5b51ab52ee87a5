"""Stick figures: pictures of a pose drawn from its joints, the same to the last bit on every machine.

A pose is a float array (J, 3): x and y in pixels of the picture, y down, with the centres of pixels at whole numbers,
and a confidence; 0: the joint is not there. Limbs are coloured on black, each side of the body in colors of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Color = tuple[int, int, int]

FARTHEST = 1e6
"""Joints may lie outside of the picture, up to this many pixels away from its corner."""


@dataclass(frozen=True)
class Bone:
    """A line from joint `start` to joint `stop` in an RGB color."""

    start: int
    stop: int
    color: Color


@dataclass(frozen=True)
class Skeleton:
    """Names of joints in their order, and the bones between them."""

    joints: tuple[str, ...]
    bones: tuple[Bone, ...]


def draw_pose(
    points: ArrayLike, bones: Sequence[Bone], height: int, width: int, width_px: float | None = None
) -> NDArray[np.uint8]:
    """One pose (J, 3) as a picture (H, W, 3): antialiased lines with round ends, later bones over earlier ones.

    Bones with an end of confidence 0 or less are left out. width_px: Of the lines; by default 1/40 of the height, at
    least 1. Colors are blended in float64 and rounded after each bone.
    Raises ValueError for points of another shape, not finite or too far away, a bone to no joint, or no width.
    """
    places = np.asarray(points, np.float64)
    if places.ndim != 2 or places.shape[1] != 3:
        raise ValueError(f"points: expected (J, 3), got {places.shape}")
    if not np.isfinite(places).all() or (np.abs(places[:, :2]) > FARTHEST).any():
        raise ValueError(f"points: expected finite numbers and places within {FARTHEST:.0f} pixels")
    radius = (max(1.0, height / 40) if width_px is None else width_px) / 2
    if not 0 < radius < math.inf:
        raise ValueError(f"width_px: expected above 0, got {width_px}")
    picture = np.zeros((height, width, 3), np.uint8)
    for bone in bones:
        if not (0 <= bone.start < len(places) and 0 <= bone.stop < len(places)):
            raise ValueError(f"bones: expected joints 0 to {len(places) - 1}, got {bone.start} to {bone.stop}")
        if places[bone.start, 2] > 0 and places[bone.stop, 2] > 0:
            ends = places[[bone.start, bone.stop], :2].tolist()
            _draw_line(picture, (*ends[0], *ends[1]), radius, bone.color)
    return picture


def draw_poses(joints: NDArray[np.float32], bones: Sequence[Bone], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pose pictures (T, H, W, 3) of joints (T, J, 3) in pixels of a picture of `size` (H, W)."""
    return np.stack([draw_pose(points, bones, *size) for points in joints])


def _draw_line(
    picture: NDArray[np.uint8], ends: tuple[float, float, float, float], radius: float, color: Color
) -> None:
    """Blend one line into the part of the picture that it can touch."""
    x0, y0, x1, y1 = ends
    reach = radius + 0.5
    left, right = max(0, math.floor(min(x0, x1) - reach)), min(picture.shape[1], math.ceil(max(x0, x1) + reach) + 1)
    top, bottom = max(0, math.floor(min(y0, y1) - reach)), min(picture.shape[0], math.ceil(max(y0, y1) + reach) + 1)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float64)[None, :] - x0
    y = np.arange(top, bottom, dtype=np.float64)[:, None] - y0
    along_x, along_y = x1 - x0, y1 - y0
    squared = along_x * along_x + along_y * along_y
    if squared > 0:
        share = np.clip((x * along_x + y * along_y) / squared, 0, 1)
        x, y = x - share * along_x, y - share * along_y
    cover = np.clip(reach - np.sqrt(x * x + y * y), 0, 1)[..., None]
    part = picture[top:bottom, left:right]
    part[:] = np.rint(part + cover * (np.array(color, np.float64) - part))


_HEAD, _TRUNK = (200, 80, 220), (70, 80, 255)
_RIGHT_ARM, _LEFT_ARM = (60, 150, 255), (40, 220, 240)
_RIGHT_HAND, _LEFT_HAND = (130, 190, 255), (130, 255, 240)
_RIGHT_THIGH, _LEFT_THIGH = (220, 60, 50), (30, 190, 110)
_RIGHT_SHIN, _LEFT_SHIN = (255, 110, 50), (60, 230, 130)
_RIGHT_FOOT, _LEFT_FOOT = (255, 190, 40), (110, 255, 70)


def _skeleton(joints: str, bones: Sequence[tuple[Color, str]]) -> Skeleton:
    """Joints by name, and bones `start-stop` by color, drawn in this order."""
    names = tuple(joints.split())
    pairs = [(pair.split("-"), color) for color, listed in bones for pair in listed.split()]
    return Skeleton(names, tuple(Bone(names.index(start), names.index(stop), color) for (start, stop), color in pairs))


COCO_17 = _skeleton(
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist"
    " right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle",
    [
        (_TRUNK, "left_shoulder-left_hip right_shoulder-right_hip left_hip-right_hip left_shoulder-right_shoulder"),
        (_LEFT_THIGH, "left_hip-left_knee"),
        (_LEFT_SHIN, "left_knee-left_ankle"),
        (_RIGHT_THIGH, "right_hip-right_knee"),
        (_RIGHT_SHIN, "right_knee-right_ankle"),
        (_LEFT_ARM, "left_shoulder-left_elbow"),
        (_LEFT_HAND, "left_elbow-left_wrist"),
        (_RIGHT_ARM, "right_shoulder-right_elbow"),
        (_RIGHT_HAND, "right_elbow-right_wrist"),
        (_HEAD, "nose-left_eye left_eye-left_ear nose-right_eye right_eye-right_ear"),
    ],
)
"""The 17 joints of COCO's person keypoints, in the order in which its annotations hold them."""

OPENPOSE_25 = _skeleton(
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip right_knee"
    " right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe left_small_toe"
    " left_heel right_big_toe right_small_toe right_heel",
    [
        (_TRUNK, "neck-mid_hip"),
        (_LEFT_THIGH, "mid_hip-left_hip left_hip-left_knee"),
        (_LEFT_SHIN, "left_knee-left_ankle"),
        (_LEFT_FOOT, "left_ankle-left_heel left_ankle-left_big_toe left_big_toe-left_small_toe"),
        (_RIGHT_THIGH, "mid_hip-right_hip right_hip-right_knee"),
        (_RIGHT_SHIN, "right_knee-right_ankle"),
        (_RIGHT_FOOT, "right_ankle-right_heel right_ankle-right_big_toe right_big_toe-right_small_toe"),
        (_LEFT_ARM, "neck-left_shoulder left_shoulder-left_elbow"),
        (_LEFT_HAND, "left_elbow-left_wrist"),
        (_RIGHT_ARM, "neck-right_shoulder right_shoulder-right_elbow"),
        (_RIGHT_HAND, "right_elbow-right_wrist"),
        (_HEAD, "neck-nose nose-left_eye left_eye-left_ear nose-right_eye right_eye-right_ear"),
    ],
)
"""OpenPose's BODY_25: the joints in the order of `pose_keypoints_2d`."""
