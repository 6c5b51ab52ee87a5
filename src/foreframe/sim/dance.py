"""A simulated dancer in a room, with a picture of the pose of each frame: drawn by MuJoCo, moved by real motions.

A clip is a function of (seed, index) alone. The same machine draws the same bits each time; another version of MuJoCo,
or another driver, may render slightly differently, so whoever stores clips stores MuJoCo's version with them.

A clip goes to and fro between two recorded motions (`motion`), each in a style of its own. The dancer (`body`,
`dancer`) has no weight: joint angles are set, and the lowest foot stands still on the floor. Room and light are in
`dance_scene.xml`. MuJoCo and pybullet are in the `sim` extra. x is where the dancer looks, y is to the left, z is up;
metres, radians and seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from foreframe.sim.body import Body, BodyBuilder
from foreframe.sim.dancer import SKELETON, Camera, Dancer, Path
from foreframe.sim.motion import draw_dance
from foreframe.sim.renderer import halve, load_mujoco
from foreframe.sim.room import make_room
from foreframe.video.skeleton import draw_poses

PACKAGES = {"mujoco": "mujoco", "pybullet_data": "pybullet"}
PLANNED = 60  # frames planned at least: a shorter clip is the beginning of this one


@dataclass(frozen=True)
class DanceClip:
    """One clip.

    frames: (T, H, W, 3) uint8, RGB. poses: the pose of each, a picture of the same shape drawn by `skeleton.draw_pose`.
    joints: (T, 25, 3) float32 in the order of `SKELETON.joints`: x and y in pixels, the centres of pixels at whole
        numbers, then 1 where that lies in the picture and 0 elsewhere. A joint behind the body counts.
    """

    frames: NDArray[np.uint8]
    poses: NDArray[np.uint8]
    joints: NDArray[np.float32]


def simulate(seed: int, index: int, frames: int = 60, size: tuple[int, int] = (64, 64)) -> DanceClip:
    """Clip `index` of the endless set `seed`: `frames` frames of `size` (H, W) pixels, 15 a second.

    Up to 60 frames, a shorter clip is the beginning of a longer one; beyond, another length is another dance.
    Raises UsageError, with what to install, if MuJoCo or the motions are missing, or MuJoCo cannot draw.
    """
    mujoco = load_mujoco(PACKAGES)
    height, width = size
    dancer, path, camera = _set_up(mujoco, seed, index, frames, size)
    images = np.empty((frames, height, width, 3), np.uint8)
    joints = np.empty((frames, len(SKELETON.joints), 3), np.float32)
    with mujoco.Renderer(dancer.model, height=2 * height, width=2 * width) as renderer:
        handle = camera.handle(mujoco)
        for t in range(frames):
            dancer.pose(path, t)
            renderer.update_scene(dancer.data, handle)
            images[t] = halve(renderer.render())
            joints[t] = camera.project(dancer.joints(), size)
    return DanceClip(images, draw_poses(joints, SKELETON.bones, size), joints)


def _set_up(
    mujoco: ModuleType, seed: int, index: int, frames: int, size: tuple[int, int]
) -> tuple[Dancer, Path, Camera]:
    """The dancer in a room, all poses to come, and the camera: everything random about a clip."""
    rng = np.random.default_rng((seed, index))
    body = Body.draw(rng)
    scene, backdrop = make_room(mujoco, rng, size)
    BodyBuilder(mujoco, scene, rng, body, backdrop).build()
    dancer = Dancer(mujoco, scene.compile())
    path = dancer.on_the_floor(draw_dance(rng, max(frames, PLANNED)), body)
    camera = Camera.fit(rng, dancer, path, size[1] / size[0])
    dancer.model.vis.global_.fovy = camera.fovy
    return dancer, path, camera
