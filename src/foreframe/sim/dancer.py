"""A dancer that takes poses and walks over the floor, and the camera that sees all of it. Lengths in metres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.sim.body import Body
from foreframe.sim.motion import DENSE, FPS, NAMES, Poses
from foreframe.sim.quaternions import Floats
from foreframe.sim.renderer import free_camera
from foreframe.video.skeleton import OPENPOSE_25

SKELETON = OPENPOSE_25
"""Names and order of `DanceClip.joints`, and the bones of its pose pictures."""
ROAM = 0.25  # metres: how far the dancer drifts from the middle, quick steps not counted
FASTEST = 3.0  # metres a second that the root may go: passing the weight from foot to hand is no leap


@dataclass(frozen=True)
class Path:
    """Poses DENSE times a frame: turns (S, 13, 4), heading included, and places (S, 3) of the root, metres."""

    turns: Floats
    places: Floats


class Dancer:
    """A dancer in a room: takes poses, and knows where its parts then are."""

    def __init__(self, mujoco: ModuleType, model: Any) -> None:
        self._mujoco, self.model, self.data = mujoco, model, mujoco.MjData(model)
        self._balls = np.array([model.joint(name).qposadr[0] + np.arange(4) for name in NAMES[1:]])
        self._sites = [model.site(name).id for name in SKELETON.joints]
        self._geoms = np.flatnonzero(model.body_rootid[model.geom_bodyid] == model.body("root").id)
        types, sizes = model.geom_type[self._geoms], model.geom_size[self._geoms]
        capsule = types == mujoco.mjtGeom.mjGEOM_CAPSULE
        self._half = np.where(capsule, sizes[:, 1], 0)
        self._radius = np.where(capsule, sizes[:, 0], model.geom_rbound[self._geoms])

    def pose(self, path: Path, frame: int) -> None:
        """Takes the pose of a frame, ready to be drawn."""
        self._set(path.turns[frame * DENSE], path.places[frame * DENSE])
        self._mujoco.mj_forward(self.model, self.data)

    def joints(self) -> Floats:
        """Where the joints of SKELETON are, (25, 3) metres."""
        return np.array(self.data.site_xpos[self._sites])

    def extremes(self, turns: Floats, places: Floats) -> tuple[Floats, Floats]:
        """Balls that hold the body in each of S poses: middles (S, 2G, 3) and radii (2G,), metres."""
        middles = np.empty((len(turns), 2, len(self._geoms), 3))
        for step, (turn, place) in enumerate(zip(turns, places, strict=True)):
            self._set(turn, place)
            self._mujoco.mj_kinematics(self.model, self.data)
            centre = self.data.geom_xpos[self._geoms]
            reach = self.data.geom_xmat[self._geoms].reshape(-1, 3, 3)[..., 2] * self._half[:, None]
            middles[step] = centre - reach, centre + reach
        return middles.reshape(len(turns), -1, 3), np.tile(self._radius, 2)

    def on_the_floor(self, dance: Poses, body: Body) -> Path:
        """Where the root goes, so that the lowest limb stands on the floor, or as high over it as was recorded."""
        steps = len(dance.turns)
        middles, radii = self.extremes(dance.turns, np.zeros((steps, 3)))
        solid = np.tile(self._half > 0, 2)
        below = (middles[..., 2] - radii)[:, solid]
        touch = -below.min(1)
        air = dance.height * body.leg - touch
        air = np.clip(_smooth_in_time(air - np.percentile(air, 30) - 0.04, 2), 0, 0.4)
        contact = np.exp((below.min(1, keepdims=True) - below) / 0.012)
        contact /= contact.sum(1, keepdims=True)
        moved = np.diff(middles[:, solid, :2], axis=0)
        step = -(contact[:-1, :, None] * moved).sum(1)
        pace = np.linalg.norm(step, axis=1, keepdims=True) * FPS * DENSE
        step *= np.minimum(1, FASTEST / np.maximum(pace, 1e-9))
        for number in range(1, len(step)):
            if air[number] > 0:
                step[number] = step[number - 1]  # in the air it continues as it left the floor
        way = np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
        drift = _smooth_in_time(way - way.mean(0), 0.4 * FPS * DENSE)
        far = np.linalg.norm(drift, axis=1, keepdims=True)
        near = drift * np.tanh(far / ROAM) / np.maximum(far / ROAM, 1e-9)
        return Path(dance.turns, np.column_stack([way - way.mean(0) - drift + near, touch + air]))

    def _set(self, turns: Floats, place: Floats) -> None:
        self.data.qpos[:3], self.data.qpos[3:7] = place, turns[0]
        self.data.qpos[self._balls] = turns[1:]


def _smooth_in_time(values: Floats, sigma: float) -> Floats:
    """Values (S, ...) smoothed in time by a Gaussian of `sigma` steps; beyond the ends they stay as they are there."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    flat = np.pad(values.reshape(len(values), -1), ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(column, weights / weights.sum(), "valid") for column in flat.T]
    return np.stack(columns, axis=-1).reshape(values.shape)


@dataclass(frozen=True)
class Camera:
    """A camera that looks at a point from a distance (metres), its angles in degrees as MuJoCo has them."""

    azimuth: float
    elevation: float
    distance: float
    lookat: Floats
    fovy: float

    @classmethod
    def fit(cls, rng: np.random.Generator, dancer: Dancer, path: Path, shape: float) -> Camera:
        """From somewhere in front, as near as the dancer stays whole in a picture `shape` times as wide as high."""
        angles, fovy = (180 + rng.uniform(-28, 28), -rng.uniform(3, 20)), rng.uniform(24, 40)
        forward, right, up = cls(*angles, 0.0, np.zeros(3), fovy).axes()
        middles, radii = dancer.extremes(path.turns[::DENSE], path.places[::DENSE])
        slope = np.tan(np.radians(fovy) / 2) * rng.uniform(0.91, 0.98)  # of the picture's edge; the rest is margin
        lookat, ways = np.zeros(3), ((right, slope * shape), (up, slope))
        for way, _ in ways:
            lookat += ((middles @ way - radii).min() + (middles @ way + radii).max()) / 2 * way
        away = middles - lookat
        needs = [((np.abs(away @ way) + 1.1 * radii) / limit - away @ forward).max() for way, limit in ways]
        return cls(*angles, float(max(needs)), lookat, fovy)

    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Where forward, right and up of the picture point, unit vectors (3,)."""
        turn, tilt = np.radians(self.azimuth), np.radians(self.elevation)
        forward = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
        right = np.array([np.sin(turn), -np.cos(turn), 0.0])
        return forward, right, np.cross(right, forward)

    def project(self, points: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
        """Points (N, 3) in metres to (N, 3): x, y in pixels of a picture (H, W), and 1 for those in it, else 0."""
        height, width = size
        forward, right, up = self.axes()
        away = points - self.lookat
        focal = height / 2 / np.tan(np.radians(self.fovy) / 2) / (away @ forward + self.distance)
        x, y = width / 2 + away @ right * focal - 0.5, height / 2 - away @ up * focal - 0.5
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        return np.stack([x, y, inside], axis=-1).astype(np.float32)

    def handle(self, mujoco: ModuleType) -> Any:
        return free_camera(mujoco, self.lookat, self.azimuth, self.elevation, self.distance)
