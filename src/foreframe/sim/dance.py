"""A simulated dancer in a room, with a picture of the pose of each frame: drawn by MuJoCo, moved by real motions.

A clip is a function of (seed, index) alone, so it does not matter how many workers make a set of clips or in which
order. The same machine draws the same bits each time; another version of MuJoCo, or another driver, may render slightly
differently, so whoever stores clips stores `version()` with them.

The motions are DeepMimic's, recorded from people; they come with pybullet as text files, and nothing else of pybullet
is used. A clip goes to and fro between two of them, mirrored, faster or slower, wider or smaller, and never quite as
recorded. The dancer has no weight: joint angles are set, and the foot that is lowest stands still on the floor. Room
and light are in `dance_scene.xml`; the dancer is put together here. Both packages are in the `sim` extra.

The dancer looks along x, y is to the dancer's left and z is up; metres, radians and seconds.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.errors import UsageError
from foreframe.video.skeleton import OPENPOSE_25, draw_poses

FPS = 15
SKELETON = OPENPOSE_25
"""Names and order of `DanceClip.joints`, and the bones of its pose pictures."""

Floats = NDArray[np.float64]

# What the numbers of a recorded frame turn after its duration and the place of the root: balls by 4, hinges by 1.
JOINTS = (
    ("root", 4), ("chest", 4), ("neck", 4),
    ("right_hip", 4), ("right_knee", 1), ("right_ankle", 4), ("right_shoulder", 4), ("right_elbow", 1),
    ("left_hip", 4), ("left_knee", 1), ("left_ankle", 4), ("left_shoulder", 4), ("left_elbow", 1),
)  # fmt: skip
NAMES = tuple(name for name, _ in JOINTS)
MIRROR = [0, 1, 2, 8, 9, 10, 11, 12, 3, 4, 5, 6, 7]  # where the other side of each joint is found
KNEES, ELBOWS = [4, 9], [7, 12]
LEADS = {"dance_a": 4, "dance_b": 6, "spin": 1, "cartwheel": 1}  # motions to dance, and how often each is chosen
GUESTS = {"dance_a": 5, "dance_b": 5, "spin": 1, "kick": 2, "punch": 2, "jump": 2, "walk": 2, "run": 1, "spinkick": 1}
DENSE = 4  # steps of planning for each frame, so that a foot that stands is followed closely
PLANNED = 60  # frames planned at least: a shorter clip is the beginning of this one
ROAM = 0.25  # metres: how far the dancer drifts from the middle, quick steps not counted
FASTEST = 3.0  # metres a second that the root may go: passing the weight from foot to hand is no leap


@dataclass(frozen=True)
class DanceClip:
    """One clip: what was seen, and the pose of each frame, as a picture and as the places of joints.

    frames: (T, H, W, 3) uint8, RGB.
    poses: (T, H, W, 3) uint8: the pose of the frame of the same number, drawn by `skeleton.draw_pose`.
    joints: (T, 25, 3) float32: x and y in pixels of the frame, the centres of pixels at whole numbers, in the order
        of `SKELETON.joints`; then 1 where that lies in the picture and 0 elsewhere. A joint behind the body counts.
    """

    frames: NDArray[np.uint8]
    poses: NDArray[np.uint8]
    joints: NDArray[np.float32]


def version() -> str:
    """The MuJoCo version that `simulate` would use."""
    return str(_mujoco().__version__)


def simulate(seed: int, index: int, frames: int = 60, size: tuple[int, int] = (64, 64)) -> DanceClip:
    """Clip `index` of the endless set `seed`: `frames` frames of `size` (H, W) pixels, 15 a second.

    Up to 60 frames, a shorter clip is the beginning of a longer one; beyond, another length is another dance.

    Raises:
        UsageError: MuJoCo or the motions are not installed, or MuJoCo cannot draw; the message says what to install.
    """
    mujoco = _mujoco()
    height, width = size
    dancer, path, camera = _stage(mujoco, seed, index, frames, size)
    images = np.empty((frames, height, width, 3), np.uint8)
    joints = np.empty((frames, len(SKELETON.joints), 3), np.float32)
    with mujoco.Renderer(dancer.model, height=2 * height, width=2 * width) as renderer:
        handle = camera.handle(mujoco)
        for t in range(frames):
            dancer.pose(path, t)
            renderer.update_scene(dancer.data, handle)
            images[t] = _halve(renderer.render())
            joints[t] = camera.project(dancer.joints(), size)
    return DanceClip(images, draw_poses(joints, SKELETON.bones, size), joints)


def _stage(
    mujoco: ModuleType, seed: int, index: int, frames: int, size: tuple[int, int]
) -> tuple[_Dancer, _Path, _Camera]:
    """The dancer in a room, all poses to come, and the camera: all that is drawn by chance about a clip."""
    rng = np.random.default_rng((seed, index))
    body = _Body.draw(rng)
    scene, backdrop = _room(mujoco, rng, size)
    _Tailor(mujoco, scene, rng, body, backdrop).make()
    dancer = _Dancer(mujoco, scene.compile())
    path = dancer.on_the_floor(_dance(rng, max(frames, PLANNED)), body)
    camera = _Camera.fit(rng, dancer, path, size[1] / size[0])
    dancer.model.vis.global_.fovy = camera.fovy
    return dancer, path, camera


def _mujoco() -> ModuleType:
    """MuJoCo, imported when first needed: it is optional, and reads MUJOCO_GL (where to draw) on import."""
    wanted = {"mujoco": "mujoco", "pybullet_data": "pybullet"}
    missing = [package for name, package in wanted.items() if not _origin(name)]
    if missing:
        raise UsageError(f"the simulated dancer needs {' and '.join(missing)}: pip install 'foreframe[sim]'")
    if sys.platform.startswith("linux"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # the default opens a window, which a server does not have
    try:
        import mujoco
    except (ImportError, AttributeError) as error:  # AttributeError: PyOpenGL found no libEGL
        raise UsageError(
            f"MuJoCo cannot draw here with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({error}): install libegl1, "
            "libgl1 and libgl1-mesa-dri, or libosmesa6 and set MUJOCO_GL=osmesa"
        ) from error
    return mujoco  # type: ignore[no-any-return]


def _origin(package: str) -> str:
    """The file a package would be imported from, or an empty string; nothing is imported."""
    spec = importlib.util.find_spec(package)
    return "" if spec is None else spec.origin or ""


# ------------------------------------------------------------------------------------------------------------- turning


def _times(a: Floats, b: Floats) -> Floats:
    """Products of quaternions (..., 4), w first: b, then a."""
    w, v, u, x = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    return np.concatenate([w * u - (v * x).sum(-1, keepdims=True), w * x + u * v + np.cross(v, x)], axis=-1)


def _back(a: Floats) -> Floats:
    """The inverses of unit quaternions (..., 4)."""
    return np.asarray(a * [1, -1, -1, -1])


def _unit(a: Floats) -> Floats:
    return np.asarray(a / np.linalg.norm(a, axis=-1, keepdims=True))


def _turn(vector: Floats) -> Floats:
    """Turns about vectors (..., 3) by as many radians as these are long."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), np.sinc(angle / (2 * np.pi)) / 2 * vector], axis=-1)


def _vector(turn: Floats) -> Floats:
    """The inverse of `_turn`; the shorter way round."""
    near = np.where(turn[..., :1] < 0, -turn, turn)
    sine = np.linalg.norm(near[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, near[..., :1])
    return np.asarray(near[..., 1:] * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0))


def _between(a: Floats, b: Floats, share: Floats) -> Floats:
    """Turns (..., 4) from a (share 0) to b (share 1) by the shorter way."""
    b = np.where((a * b).sum(-1, keepdims=True) < 0, -b, b)
    return _unit(a + share * (b - a))


def _smooth(share: Floats) -> Floats:
    """0 to 1 without a jerk at either end."""
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


# ------------------------------------------------------------------------------------------------------------- motions


@dataclass(frozen=True)
class _Motion:
    """A recorded motion.

    turns: (N, 13, 4) unit quaternions in the order of `NAMES`; the first, of the root, without the heading.
    heading: (N,) radians, unwrapped. height: (N,) metres of the root above the floor. step: seconds between two.
    """

    turns: Floats
    heading: Floats
    height: Floats
    step: float

    @property
    def length(self) -> float:
        return self.step * (len(self.turns) - 1)


@lru_cache(maxsize=32)
def _motion(name: str) -> _Motion:
    """A motion of pybullet_data: JSON, {"Frames": [[seconds, x, y, z, then numbers of JOINTS], ...]}, y upwards."""
    path = Path(_origin("pybullet_data")).parent / "data" / "motions" / f"humanoid3d_{name}.txt"
    try:
        table = np.array(json.loads(path.read_text(encoding="utf-8"))["Frames"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: expected a recorded motion ({error}): install pybullet anew") from error
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] != 4 + sum(size for _, size in JOINTS):
        raise UsageError(f"{path}: expected rows of 44 numbers, found {table.shape}: install pybullet anew")
    turns = np.empty((len(table), len(JOINTS), 4))
    at = 4
    for joint, (_, size) in enumerate(JOINTS):
        values = table[:, at : at + size]
        turns[:, joint] = values if size == 4 else _turn(values * [0, 0, 1])  # hinges turn about the file's z
        at += size
    turns = _unit(turns[..., [0, 1, 3, 2]] * [1, 1, -1, 1])  # the file's (x, y, z) is our (x, z, -y)
    w, x, y, z = turns[:, 0].T
    heading = np.unwrap(np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)))
    turns[:, 0] = _times(_turn(-heading[:, None] * [0, 0, 1]), turns[:, 0])
    return _Motion(turns, heading, table[:, 2], float(table[0, 0]))


@dataclass(frozen=True)
class _Steps:
    """Poses one after another: turns (S, 13, 4), the root without heading; spin (S,) rad/s; height (S,) metres."""

    turns: Floats
    spin: Floats
    height: Floats


def _play(motion: _Motion, seconds: Floats) -> _Steps:
    """A motion at any times (S,) from 0 on, over and over; the end of each round fades into the beginning."""
    fade = min(0.5, motion.length / 4)
    loop = motion.length - fade
    phase = seconds % loop
    now = _at(motion, phase)
    again = (seconds >= loop) & (phase < fade)  # here the round before has not quite ended
    before = _at(motion, np.where(again, phase + loop, phase))
    share = np.where(again, _smooth(phase / fade), 1.0)
    return _mix(before, now, share)


def _at(motion: _Motion, seconds: Floats) -> _Steps:
    place = np.clip(seconds / motion.step, 0, len(motion.turns) - 1)
    index = np.minimum(place.astype(int), len(motion.turns) - 2)
    share = place - index
    turns = _between(motion.turns[index], motion.turns[index + 1], share[:, None, None])
    spin = np.gradient(motion.heading, motion.step)
    grid = np.arange(len(motion.turns))
    return _Steps(turns, np.interp(place, grid, spin), np.interp(place, grid, motion.height))


def _mix(a: _Steps, b: _Steps, share: Floats) -> _Steps:
    return _Steps(
        _between(a.turns, b.turns, share[:, None, None]),
        a.spin + share * (b.spin - a.spin),
        a.height + share * (b.height - a.height),
    )


@dataclass(frozen=True)
class _Dance:
    """Poses DENSE times a frame: turns (S, 13, 4), heading included; height (S,) of the root as recorded, metres."""

    turns: Floats
    height: Floats


def _dance(rng: np.random.Generator, frames: int) -> _Dance:
    """Two motions in turns, each in its own way, with a manner of its own over both."""
    steps = frames * DENSE
    seconds = np.arange(steps) / (FPS * DENSE)
    lead, guest = (_draw(rng, names) for names in (LEADS, GUESTS))
    both = _mix(_track(rng, lead, seconds), _track(rng, guest, seconds), _turn_taking(rng, seconds))
    turns = _manner(rng, both.turns, seconds)
    heading = rng.uniform(-0.9, 0.9) + np.cumsum(both.spin) / (FPS * DENSE)
    turns[:, 0] = _times(_turn(heading[:, None] * [0, 0, 1]), turns[:, 0])
    return _Dance(turns, both.height)


def _draw(rng: np.random.Generator, names: dict[str, int]) -> _Motion:
    weights = np.array(list(names.values()), float)
    return _motion(str(rng.choice(list(names), p=weights / weights.sum())))


def _track(rng: np.random.Generator, motion: _Motion, seconds: Floats) -> _Steps:
    """A motion from anywhere in it, faster or slower, perhaps mirrored, its turns wider or smaller."""
    speed, width = rng.uniform(0.7, 1.1), rng.uniform(0.85, 1.15)
    played = _play(motion, rng.uniform(0, motion.length) + seconds * speed)
    turns, spin = played.turns, played.spin * speed
    same = (motion.turns * motion.turns[:1]).sum(-1, keepdims=True) >= 0  # a quaternion and its negative are one turn
    mean = _unit(np.where(same, motion.turns, -motion.turns).mean(0))
    turns = _times(mean, _turn(_vector(_times(_back(mean), turns)) * width))
    turns[:, 0] = played.turns[:, 0]  # but balance is kept
    if rng.random() < 0.5:
        turns, spin = turns[:, MIRROR] * [1, -1, 1, -1], -spin
    return _Steps(turns, spin, played.height)


def _turn_taking(rng: np.random.Generator, seconds: Floats) -> Floats:
    """The share (S,) of the second motion: by turns little and much, each for a second or two."""
    share = np.full(len(seconds), rng.uniform(0, 0.2))
    time, high = rng.uniform(0.2, 2.0), True
    while time < seconds[-1]:
        goal = rng.uniform(0.8, 1.0) if high else rng.uniform(0, 0.2)
        share += (goal - share) * _smooth((seconds - time) / rng.uniform(0.4, 0.8))
        time, high = time + rng.uniform(1.2, 2.6), not high
    return share


def _manner(rng: np.random.Generator, turns: Floats, seconds: Floats) -> Floats:
    """The same poses (S, 13, 4) as this dancer would take them: held a little differently, and swaying a little."""
    held, sway = np.zeros(len(NAMES)), np.zeros(len(NAMES))
    for joints, how_far, how_much in (("chest", 0.06, 0.05), ("neck", 0.10, 0.10), ("hip", 0.04, 0.03),
                                      ("shoulder", 0.18, 0.10)):  # fmt: skip
        for joint in (number for number, name in enumerate(NAMES) if name.endswith(joints)):
            held[joint], sway[joint] = how_far, how_much
    vector = rng.normal(0, 1, (len(NAMES), 3)) * held[:, None]
    waves = np.zeros((len(seconds), len(NAMES), 3))
    for _ in range(3):
        pace, start = rng.uniform(0.2, 1.0), rng.uniform(0, 2 * np.pi, (len(NAMES), 3))
        waves += np.sin(2 * np.pi * pace * seconds[:, None, None] + start)
    turns = _times(turns, _turn(vector + waves / 3 * sway[:, None]))
    for hinges, least, most in ((KNEES, -2.6, -0.03), (ELBOWS, 0.03, 2.6)):  # neither bends the wrong way
        angle = -2 * np.arctan2(turns[:, hinges, 2], turns[:, hinges, 0])
        angle = np.clip((angle + np.pi) % (2 * np.pi) - np.pi, least, most)
        turns[:, hinges] = _turn(angle[..., None] * [0, -1, 0])
    return turns


# ---------------------------------------------------------------------------------------------------- body and clothes


@dataclass(frozen=True)
class _Body:
    """How a dancer is built: factors on the recorded person's measures."""

    leg: float
    arm: float
    trunk: float
    shoulders: float
    hips: float
    girth: float
    head: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Body:
        ranges = (0.92, 1.08), (0.92, 1.06), (0.92, 1.06), (0.88, 1.14), (0.9, 1.2), (0.85, 1.25), (1.0, 1.2)
        return cls(*(float(rng.uniform(*each)) for each in ranges))


SKINS = [[0.98, 0.82, 0.70], [0.93, 0.73, 0.58], [0.82, 0.60, 0.43], [0.66, 0.45, 0.30], [0.48, 0.31, 0.20],
         [0.34, 0.22, 0.15]]  # fmt: skip
HAIRS = [[0.08, 0.06, 0.06], [0.22, 0.13, 0.08], [0.42, 0.26, 0.13], [0.80, 0.62, 0.28], [0.62, 0.22, 0.10],
         [0.70, 0.70, 0.72], [0.75, 0.25, 0.55], [0.15, 0.45, 0.60]]  # fmt: skip
CLOTHES = [[0.85, 0.13, 0.13], [0.95, 0.50, 0.08], [0.97, 0.82, 0.15], [0.20, 0.65, 0.25], [0.08, 0.55, 0.55],
           [0.12, 0.32, 0.80], [0.48, 0.20, 0.65], [0.93, 0.42, 0.62], [0.95, 0.95, 0.93], [0.13, 0.13, 0.16],
           [0.45, 0.10, 0.16], [0.12, 0.18, 0.36], [0.55, 0.38, 0.22], [0.55, 0.57, 0.60]]  # fmt: skip
WALLS = [[0.86, 0.83, 0.76], [0.70, 0.77, 0.82], [0.78, 0.82, 0.72], [0.86, 0.74, 0.70], [0.60, 0.60, 0.66],
         [0.42, 0.48, 0.56], [0.50, 0.38, 0.40], [0.30, 0.34, 0.38]]  # fmt: skip
FLOORS = [[0.66, 0.48, 0.30], [0.50, 0.34, 0.22], [0.78, 0.64, 0.46], [0.52, 0.53, 0.55], [0.72, 0.72, 0.70],
          [0.34, 0.32, 0.33]]  # fmt: skip


def _tint(rng: np.random.Generator, colours: list[list[float]], spread: float = 0.05) -> Floats:
    """One of the colours, a little off."""
    return np.clip(colours[rng.integers(len(colours))] + rng.uniform(-spread, spread, 3), 0, 1)


def _unlike(rng: np.random.Generator, colours: list[list[float]], others: list[Floats]) -> Floats:
    """One of the colours that differs clearly from all `others`, in hue too, or the best of 20 throws."""
    throws = [_tint(rng, colours) for _ in range(20)]

    def gap(a: Floats, b: Floats) -> float:
        return float(np.linalg.norm(a - b) + 0.5 * np.linalg.norm(a / (a.max() + 0.1) - b / (b.max() + 0.1)))

    gaps = [min(gap(throw, other) for other in others) for throw in throws]
    return throws[next((i for i, found in enumerate(gaps) if found > 0.6), int(np.argmax(gaps)))]


class _Tailor:
    """Puts a dancer together in a scene: bodies named after joints, their geoms, and a site for each joint drawn."""

    def __init__(
        self, mujoco: ModuleType, scene: Any, rng: np.random.Generator, body: _Body, backdrop: list[Floats]
    ) -> None:
        self._mujoco, self._scene, self._rng, self._body = mujoco, scene, rng, body
        self._skin = _tint(rng, SKINS, 0.03)
        self._hair = _tint(rng, HAIRS, 0.03)
        self._top = _unlike(rng, CLOTHES, [*backdrop, self._skin])
        self._legs = _unlike(rng, CLOTHES, [*backdrop, self._top])
        self._shoes = _unlike(rng, CLOTHES, [backdrop[1], self._legs])
        self._sleeves = str(rng.choice(["none", "short", "short", "long", "long"]))
        self._below = str(rng.choice(["trousers", "trousers", "leggings", "shorts", "skirt", "dress"]))
        if self._below == "dress":
            self._legs = self._top

    def make(self) -> None:
        b = self._body
        pelvis = self._scene.worldbody.add_body(name="root")
        pelvis.add_freejoint()
        chest = self._part(pelvis, "chest", [0, 0, 0.236 * b.trunk])
        self._trunk(pelvis, chest)
        self._head(self._part(chest, "neck", [0, 0, 0.224 * b.trunk]))
        for side, y in (("right", -1), ("left", 1)):
            hip = self._part(pelvis, f"{side}_hip", [0, 0.085 * b.hips * y, 0])
            knee = self._part(hip, f"{side}_knee", [0, 0, -0.4215 * b.leg])
            self._leg(hip, knee, self._part(knee, f"{side}_ankle", [0, 0, -0.41 * b.leg]), side, y)
            shoulder = self._part(chest, f"{side}_shoulder", [-0.024, 0.183 * b.shoulders * y, 0.222 * b.trunk])
            self._arm(shoulder, self._part(shoulder, f"{side}_elbow", [0, 0, -0.275 * b.arm]), side)

    def _trunk(self, pelvis: Any, chest: Any) -> None:
        b, g = self._body, self._body.girth
        wide = 0.155 * b.shoulders
        self._ball(chest, [0, 0, 0.11 * b.trunk], [0.105 * g, wide * (0.8 + 0.2 * g), 0.165 * b.trunk], self._top)
        self._limb(chest, [-0.015, -wide, 0.215 * b.trunk], [-0.015, wide, 0.215 * b.trunk], 0.058, self._top)
        self._ball(pelvis, [0, 0, 0.15 * b.trunk], [0.1 * g, 0.125 * g, 0.17 * b.trunk], self._top)
        hip = 0.062 * b.hips
        self._limb(pelvis, [0, -hip, 0.01], [0, hip, 0.01], 0.098 * (0.5 + 0.5 * g), self._legs)
        if self._below in ("skirt", "dress"):
            self._skirt(pelvis)
        self._mark(pelvis, "mid_hip", [0, 0, 0])
        self._mark(chest, "neck", [-0.015, 0, 0.225 * b.trunk])

    def _skirt(self, pelvis: Any) -> None:
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(16)], axis=1)
        flare, length = self._rng.uniform(0.19, 0.27), self._rng.uniform(0.2, 0.34) * self._body.leg
        waist = ring * 0.112 * self._body.girth + [0, 0, 0.09]
        hem = ring * [flare * 0.85, flare, 0] * self._body.girth - [0, 0, length]
        self._scene.add_mesh(name="skirt", uservert=np.concatenate([waist, hem]).ravel())
        mesh = self._mujoco.mjtGeom.mjGEOM_MESH
        pelvis.add_geom(self._look, type=mesh, meshname="skirt", rgba=[*self._legs, 1])

    def _head(self, head: Any) -> None:
        size = self._body.head
        self._limb(head, [0, 0, -0.03], [0, 0, 0.06], 0.045, self._skin)
        self._ball(head, [0.012, 0, 0.155 * size], [0.092 * size, 0.08 * size, 0.115 * size], self._skin)
        self._ball(head, [0.1 * size, 0, 0.14 * size], [0.018 * size] * 3, self._skin)
        style = str(self._rng.choice(["short", "bob", "bun", "tail", "cap", "short"]))
        colour = self._top if style == "cap" else self._hair
        self._ball(head, [-0.014, 0, 0.185 * size], [0.096 * size, 0.09 * size, 0.1 * size], colour)
        if style == "bob":
            self._ball(head, [-0.035 * size, 0, 0.12 * size], [0.075 * size, 0.1 * size, 0.125 * size], colour)
        elif style == "bun":
            self._ball(head, [-0.05 * size, 0, 0.3 * size], [0.05 * size] * 3, colour)
        elif style == "tail":
            self._limb(head, [-0.1 * size, 0, 0.2 * size], [-0.16 * size, 0, 0.02], 0.036 * size, colour)
        elif style == "cap":
            self._limb(head, [0.06 * size, -0.04, 0.2 * size], [0.06 * size, 0.04, 0.2 * size], 0.042 * size, colour)
            self._ball(head, [-0.035 * size, 0, 0.14 * size], [0.065 * size, 0.08 * size, 0.09 * size], self._hair)
        self._mark(head, "nose", [0.105 * size, 0, 0.14 * size])
        for side, y in (("right", -1), ("left", 1)):
            self._mark(head, f"{side}_eye", [0.09 * size, 0.035 * size * y, 0.17 * size])
            self._mark(head, f"{side}_ear", [0.005, 0.082 * size * y, 0.155 * size])

    def _arm(self, shoulder: Any, elbow: Any, side: str) -> None:
        a, g = self._body.arm, 0.6 + 0.4 * self._body.girth
        upper = self._skin if self._sleeves == "none" else self._top
        lower = self._top if self._sleeves == "long" else self._skin
        self._limb(shoulder, [0, 0, 0], [0, 0, -0.15 * a], 0.053 * g, upper)
        self._limb(shoulder, [0, 0, -0.1 * a], [0, 0, -0.275 * a], 0.045 * g, upper)
        self._limb(elbow, [0, 0, 0], [0, 0, -0.23 * a], 0.04 * g, lower)
        self._limb(elbow, [0.005, 0, -0.265 * a], [0.015, 0, -0.325 * a], 0.037, self._skin)
        for name, body, z in (("shoulder", shoulder, 0.0), ("elbow", elbow, 0.0), ("wrist", elbow, -0.259 * a)):
            self._mark(body, f"{side}_{name}", [0, 0, z])

    def _leg(self, hip: Any, knee: Any, ankle: Any, side: str, y: int) -> None:
        length, g = self._body.leg, 0.5 + 0.5 * self._body.girth
        bare = self._below in ("skirt", "dress", "shorts")
        upper = self._skin if self._below in ("skirt", "dress") else self._legs
        lower = self._skin if bare else self._legs
        loose = 1.15 if self._below in ("trousers", "shorts") else 1.0
        self._limb(hip, [0, 0, -0.02], [0, 0, -0.22 * length], 0.08 * g * loose, upper)
        self._limb(hip, [0, 0, -0.2 * length], [0, 0, -0.4215 * length], 0.062 * g * loose, upper)
        self._limb(knee, [0, 0, 0], [0, 0, -0.2 * length], 0.058 * g, lower)
        ends = 0.062 if self._below == "trousers" else 0.045
        self._limb(knee, [0, 0, -0.2 * length], [0, 0, -0.37 * length], ends * g, lower)
        self._limb(ankle, [-0.045, 0, -0.022], [0.12, 0.012 * y, -0.026], 0.042, self._shoes)
        self._mark(hip, f"{side}_hip", [0, 0, 0])
        self._mark(knee, f"{side}_knee", [0, 0, 0])
        self._mark(ankle, f"{side}_ankle", [0, 0, 0])
        self._mark(ankle, f"{side}_heel", [-0.06, 0, -0.03])
        self._mark(ankle, f"{side}_big_toe", [0.15, -0.015 * y, -0.03])
        self._mark(ankle, f"{side}_small_toe", [0.13, 0.04 * y, -0.03])

    @property
    def _look(self) -> Any:
        return self._scene.find_default("dancer")

    def _part(self, parent: Any, name: str, place: list[float]) -> Any:
        body = parent.add_body(name=name, pos=place)
        body.add_joint(name=name, type=self._mujoco.mjtJoint.mjJNT_BALL)
        return body

    def _limb(self, body: Any, start: list[float], stop: list[float], radius: float, colour: Floats) -> None:
        capsule = self._mujoco.mjtGeom.mjGEOM_CAPSULE
        body.add_geom(self._look, type=capsule, fromto=[*start, *stop], size=[radius, 0, 0], rgba=[*colour, 1])

    def _ball(self, body: Any, place: list[float], radii: list[float], colour: Floats) -> None:
        ellipsoid = self._mujoco.mjtGeom.mjGEOM_ELLIPSOID
        body.add_geom(self._look, type=ellipsoid, pos=place, size=radii, rgba=[*colour, 1])

    def _mark(self, body: Any, name: str, place: list[float]) -> None:
        body.add_site(self._look, name=name, pos=place)


# ------------------------------------------------------------------------------------------------------ room and camera


def _room(mujoco: ModuleType, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Any, list[Floats]]:
    """The room of one clip, and the colours of its wall and floor."""
    scene = mujoco.MjSpec.from_string(Path(__file__).with_name("dance_scene.xml").read_text(encoding="utf-8"))
    scene.visual.global_.offheight, scene.visual.global_.offwidth = 2 * size[0], 2 * size[1]
    wall, floor = _tint(rng, WALLS), _tint(rng, FLOORS)
    scene.geom("wall").rgba = [*wall, 1]
    scene.geom("floor").rgba = [*floor, 1]
    scene.geom("skirting").rgba = [*np.clip(wall * rng.choice([0.6, 1.25]), 0, 1), 1]
    tiles = rng.uniform(0.4, 1.6)
    scene.material("floor").texrepeat = [tiles, tiles * rng.choice([1.0, 1.0, 4.0])]
    scene.texture("floor").rgb2 = np.full(3, rng.uniform(0.78, 0.97))
    sun = scene.light("sun")
    sun.dir = np.array([rng.uniform(-0.9, -0.25), rng.uniform(-0.6, 0.6), -1])
    sun.pos = -3 * sun.dir  # above the dancer along its rays: the shadow map lies around them
    sun.diffuse = rng.uniform(0.45, 0.65) * np.array([1, rng.uniform(0.9, 1), rng.uniform(0.82, 1)])
    return scene, [_hang(mujoco, scene, rng, wall), floor]


def _hang(mujoco: ModuleType, scene: Any, rng: np.random.Generator, wall: Floats) -> Floats:
    """Hangs something on the wall: nothing, panels below, a curtain, windows or posters. The colour then behind."""
    body, look = scene.body("wall"), scene.find_default("wall")

    def box(y: float, z: float, wide: float, high: float, colour: Floats, front: float = 0.02) -> None:
        # It reaches far into the wall: on thin boxes the shadow map leaves specks.
        body.add_geom(look, pos=[front - 0.1, y, z], size=[0.1, wide / 2, high / 2], rgba=[*np.clip(colour, 0, 1), 1])

    behind = wall
    kind = str(rng.choice(["nothing", "panels", "curtain", "windows", "posters", "posters"]))
    if kind == "panels":
        tone, high = wall * rng.uniform(0.6, 0.85), rng.uniform(0.6, 1.1)
        box(0, high / 2, 24, high, tone)
        box(0, high, 24, 0.05, wall * 1.15, 0.04)
    elif kind == "curtain":
        tone, pitch = _tint(rng, CLOTHES) * rng.uniform(0.5, 0.8), rng.uniform(0.16, 0.3)
        for number in range(-30, 31):
            fold = body.add_geom(look, pos=[0, number * pitch, 3], size=[pitch * 0.55, 3, 0])
            fold.type, fold.rgba = mujoco.mjtGeom.mjGEOM_CYLINDER, [*tone * (0.86 if number % 2 else 1.0), 1]
        behind = tone
    elif kind == "windows":
        wide, apart, sky = rng.uniform(0.6, 1.0), rng.uniform(1.3, 1.9), np.array([0.72, 0.86, 0.97])
        shift, light = rng.uniform(-0.9, 0.9), rng.uniform(0.6, 1.1)
        for number in range(-3, 4):
            box(shift + number * apart, 1.5, wide + 0.14, 1.44, np.full(3, 0.92))
            for pane in (-0.25, 0.25):
                box(shift + number * apart + pane * wide, 1.5, wide / 2 - 0.04, 1.3, sky * light, 0.03)
    elif kind == "posters":
        y = rng.uniform(-3.2, -2.4)
        while y < 3:
            wide, high = rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)
            place, ground, mark = rng.uniform(1.1, 1.7), _tint(rng, CLOTHES), _tint(rng, CLOTHES)
            box(y, place, wide, high, ground * 0.9)
            box(y, place + rng.uniform(-0.1, 0.1), wide * 0.5, high * rng.uniform(0.2, 0.6), mark * 0.9, 0.03)
            y += rng.uniform(0.9, 1.8)
    return behind


@dataclass(frozen=True)
class _Path:
    """Poses DENSE times a frame: turns (S, 13, 4), heading included, and places (S, 3) of the root, metres."""

    turns: Floats
    places: Floats


class _Dancer:
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

    def pose(self, path: _Path, frame: int) -> None:
        """Takes the pose of a frame, ready to be drawn."""
        self._set(path.turns[frame * DENSE], path.places[frame * DENSE])
        self._mujoco.mj_forward(self.model, self.data)

    def joints(self) -> Floats:
        """Where the joints of SKELETON are, (25, 3) metres."""
        return np.array(self.data.site_xpos[self._sites])

    def extremes(self, turns: Floats, places: Floats) -> tuple[Floats, Floats]:
        """Balls that hold all of the body in each of S poses: middles (S, 2G, 3) and radii (2G,), metres.

        The two ends of each capsule are exact; other shapes are held by a ball around them.
        """
        middles = np.empty((len(turns), 2, len(self._geoms), 3))
        for step, (turn, place) in enumerate(zip(turns, places, strict=True)):
            self._set(turn, place)
            self._mujoco.mj_kinematics(self.model, self.data)
            centre = self.data.geom_xpos[self._geoms]
            reach = self.data.geom_xmat[self._geoms].reshape(-1, 3, 3)[..., 2] * self._half[:, None]
            middles[step] = centre - reach, centre + reach
        return middles.reshape(len(turns), -1, 3), np.tile(self._radius, 2)

    def on_the_floor(self, dance: _Dance, body: _Body) -> _Path:
        """Where the root goes, so that what is lowest stands on the floor, or as high over it as was recorded.

        Limbs are what stands: head, trunk and skirt, which are no capsules, do not count.
        """
        steps = len(dance.turns)
        middles, radii = self.extremes(dance.turns, np.zeros((steps, 3)))
        solid = np.tile(self._half > 0, 2)
        below = (middles[..., 2] - radii)[:, solid]
        touch = -below.min(1)
        air = dance.height * body.leg - touch
        air = np.clip(_calm(air - np.percentile(air, 30) - 0.04, 2), 0, 0.4)
        contact = np.exp((below.min(1, keepdims=True) - below) / 0.012)
        contact /= contact.sum(1, keepdims=True)
        moved = np.diff(middles[:, solid, :2], axis=0)
        step = -(contact[:-1, :, None] * moved).sum(1)
        pace = np.linalg.norm(step, axis=1, keepdims=True) * FPS * DENSE
        step *= np.minimum(1, FASTEST / np.maximum(pace, 1e-9))
        for number in range(1, len(step)):
            if air[number] > 0:
                step[number] = step[number - 1]  # in the air it goes on as it left the floor
        way = np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
        drift = _calm(way - way.mean(0), 0.4 * FPS * DENSE)
        far = np.linalg.norm(drift, axis=1, keepdims=True)
        near = drift * np.tanh(far / ROAM) / np.maximum(far / ROAM, 1e-9)
        return _Path(dance.turns, np.column_stack([way - way.mean(0) - drift + near, touch + air]))

    def _set(self, turns: Floats, place: Floats) -> None:
        self.data.qpos[:3], self.data.qpos[3:7] = place, turns[0]
        self.data.qpos[self._balls] = turns[1:]


def _calm(values: Floats, sigma: float) -> Floats:
    """Values (S, ...) smoothed in time by a Gaussian of `sigma` steps; beyond the ends they stay as they are there."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    flat = np.pad(values.reshape(len(values), -1), ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(column, weights / weights.sum(), "valid") for column in flat.T]
    return np.stack(columns, axis=-1).reshape(values.shape)


@dataclass(frozen=True)
class _Camera:
    """A camera that looks at a point from a distance (metres), its angles in degrees as MuJoCo has them."""

    azimuth: float
    elevation: float
    distance: float
    lookat: Floats
    fovy: float

    @classmethod
    def fit(cls, rng: np.random.Generator, dancer: _Dancer, path: _Path, shape: float) -> _Camera:
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
        """The camera for MuJoCo's renderer."""
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = self.lookat
        camera.azimuth, camera.elevation, camera.distance = self.azimuth, self.elevation, self.distance
        return camera


def _halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels, rounded: smoother than multisampling at the final size, and cheaper."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    total = image.reshape(h, 2, w, 2, 3).astype(np.uint16).sum(axis=(1, 3), dtype=np.uint16)
    return np.asarray((total + 2) // 4, np.uint8)
