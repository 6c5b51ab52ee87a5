"""A simulated Fetch arm that pushes colored objects about in a bin: clips like BAIR's, drawn by MuJoCo.

A clip is a function of (seed, index) alone, the same bits on every machine with the same MuJoCo version; another may
render or collide slightly differently, so whoever stores clips stores MuJoCo's version with them. The scene is
`push_scene.xml`; the meshes of the arm come with gymnasium-robotics (MIT). Both are in the `sim` extra.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.sim.colors import tint
from foreframe.sim.quaternions import Floats
from foreframe.sim.renderer import free_camera, halve, load_mujoco, package_file

PACKAGES = {"mujoco": "mujoco", "gymnasium_robotics": "gymnasium_robotics"}
CENTRE = np.array([1.30, 0.75, 0.40])  # metres: the middle of the bin's floor, on its surface
REACH = np.array([0.17, 0.215])  # metres, x and y: how far from CENTRE the hand may be sent
HEIGHTS = (0.024, 0.13)  # metres of the gripper site above the floor: fingertips just clear of it .. over the objects
OPEN = 0.10  # metres between the fingertips when the gripper is open
MAX_STEP = 0.07  # metres on each of x, y and z in one action, as in BAIR
HOLD = 2  # steps for which an action is held, as in BAIR
SUBSTEPS = 50  # physics steps of 2 ms in one action: ten frames a second
TRAVEL = 40  # of these the hand moves; in the others it comes to rest, so that a frame shows all of its action
SITE_BELOW_LINK = 0.02  # metres from the welded gripper link down to the gripper site
PALETTE = [[0.86, 0.16, 0.14], [0.95, 0.55, 0.10], [0.96, 0.83, 0.16], [0.23, 0.66, 0.25], [0.10, 0.55, 0.55],
           [0.15, 0.35, 0.82], [0.50, 0.22, 0.65], [0.92, 0.45, 0.62], [0.93, 0.93, 0.90],
           [0.16, 0.16, 0.18]]  # fmt: skip
BINS = [[0.72, 0.62, 0.48], [0.60, 0.64, 0.68], [0.50, 0.58, 0.52], [0.78, 0.76, 0.70], [0.46, 0.44, 0.48]]


@dataclass(frozen=True)
class PushClip:
    """One clip.

    frames: (T, H, W, 3) uint8, RGB.
    actions: (T, 4) float32, metres: what was commanded between frame t and t+1. Displacement of the gripper on x (away
        from the robot), y and z (up), then the distance to hold between the fingertips.
    positions: (T, 3) float32, metres: the gripper site at frame t.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    positions: NDArray[np.float32]

    @property
    def rows(self) -> NDArray[np.float32]:
        """Actions and positions side by side, (T, 7)."""
        return np.concatenate([self.actions, self.positions], axis=1)


def simulate(seed: int, index: int, frames: int = 30, size: int = 64) -> PushClip:
    """Clip `index` of the endless set `seed`: `frames` frames of `size` x `size` pixels, ten a second.

    Raises UsageError, with what to install, if MuJoCo or the meshes are missing, or MuJoCo cannot draw.
    """
    mujoco = load_mujoco(PACKAGES)
    rng = np.random.default_rng((seed, index))
    model, data = _scene(mujoco, rng)
    hand = _Hand(mujoco, model, data)
    begin = _free_place(rng, list(_objects(data) - CENTRE[:2]))  # between the objects, low or high
    hand.enter(CENTRE + np.array([*begin, rng.uniform(*HEIGHTS)]))
    explorer = _Explorer(rng)
    images = np.empty((frames, size, size, 3), np.uint8)
    actions = np.empty((frames, 4), np.float32)
    positions = np.empty((frames, 3), np.float32)
    with mujoco.Renderer(model, height=2 * size, width=2 * size) as renderer:
        # From the front and above, the robot at the far side, so that arm and objects are both seen.
        camera = free_camera(mujoco, [1.275, 0.75, 0.43], 180, -55, 1.29)
        for t in range(frames):
            renderer.update_scene(data, camera)
            images[t] = halve(renderer.render())
            positions[t] = data.site("robot0:grip").xpos
            if t % HOLD == 0:
                action = explorer.choose(hand.target, _objects(data))
            actions[t] = action
            hand.move(action)
    return PushClip(images, actions, positions)


# ------------------------------------------------------------------------------------------------------------ the scene


def _scene(mujoco: ModuleType, rng: np.random.Generator) -> tuple[Any, Any]:
    """The bin, the arm and 5 to 7 objects, all at rest."""
    robot = Path(package_file("gymnasium_robotics")).parent / "envs" / "assets"
    text = Path(__file__).with_name("push_scene.xml").read_text(encoding="utf-8")
    scene = mujoco.MjSpec.from_string(text.replace("ROBOT", robot.as_posix()))
    _prepare_arm(scene)
    _paint(scene, rng)
    _add_objects(mujoco, scene, rng)
    model = scene.compile()
    model.eq_data[0, 3:10] = [0, 0, 0, 1, 0, 0, 0]  # the weld holds the gripper link on the mocap body, not beside it
    data = mujoco.MjData(model)
    data.joint("robot0:slide0").qpos = 0.405  # the base stands where the arm reaches all of the bin
    data.joint("robot0:slide1").qpos = 0.48
    mujoco.mj_forward(model, data)
    return model, data


def _prepare_arm(scene: Any) -> None:
    """Takes away what the camera never sees (half of the drawing time) and lets only the hand touch objects."""
    for name in ("estop_link", "laser_link", "torso_fixed_link", "head_pan_link"):
        scene.delete(scene.body(f"robot0:{name}"))
    for name in ("base_link", "torso_lift_link"):
        scene.delete(scene.geom(f"robot0:{name}"))
    for geom in scene.geoms:
        name = geom.name
        if geom.parent.name == "robot0:mocap":
            geom.rgba = [0, 0, 0, 0]
        elif name.startswith("robot0:"):
            geom.contype, geom.conaffinity = (2, 0) if "gripper" in name else (0, 0)


def _paint(scene: Any, rng: np.random.Generator) -> None:
    color = tint(rng, BINS, 0.07)
    shade = rng.uniform(0.55, 1.3)
    for name in ("bottom", "front", "back", "left", "right"):
        tone = color if name == "bottom" else np.clip(color * shade, 0, 1)
        scene.geom(name).rgba = [*tone, 1]
    scene.geom("table").rgba = [*(rng.uniform(0.28, 0.5) + rng.uniform(-0.04, 0.04, 3)), 1]
    sun = scene.light("sun")
    sun.dir = [rng.uniform(-0.45, 0.25), rng.uniform(-0.5, 0.5), -1]
    sun.diffuse = rng.uniform(0.4, 0.6) * np.array([1, rng.uniform(0.92, 1), rng.uniform(0.85, 1)])


def _add_objects(mujoco: ModuleType, scene: Any, rng: np.random.Generator) -> None:
    """5 to 7 boxes, cylinders, capsules and balls of 5 to 10 cm, no two on one place or of one color."""
    kinds = mujoco.mjtGeom
    places: list[Floats] = []
    count = int(rng.integers(5, 8))
    for number, color in enumerate(rng.permutation(PALETTE)[:count]):
        places.append(_free_place(rng, places))
        half = rng.uniform(0.030, 0.046)
        kind = rng.choice(["box", "box", "cylinder", "capsule", "ball"])
        height = rng.uniform(0.024, 0.036)
        geom, size, height, tilt = {
            "box": (kinds.mjGEOM_BOX, [half, rng.uniform(0.028, 0.05), height], height, 0.0),
            "cylinder": (kinds.mjGEOM_CYLINDER, [half, height, 0], height, 0.0),
            "capsule": (kinds.mjGEOM_CAPSULE, [0.028, half - 0.004, 0], 0.028, np.pi / 2),
            "ball": (kinds.mjGEOM_SPHERE, [half, 0, 0], half, 0.0),
        }[kind]
        turn = rng.uniform(0, 2 * np.pi)
        # A turn about z after a tilt about y, as a quaternion: it lays a capsule down.
        a, b, c, d = np.cos(turn / 2), np.sin(turn / 2), np.cos(tilt / 2), np.sin(tilt / 2)
        body = scene.worldbody.add_body(
            name=f"object{number}",
            pos=CENTRE + np.array([*places[-1], height + 0.002]),
            quat=[a * c, -b * d, a * d, b * c],
        )
        body.add_freejoint()
        shade = np.clip(color + rng.uniform(-0.06, 0.06, 3), 0, 1)
        body.add_geom(scene.find_default("object"), type=geom, size=size, rgba=[*shade, 1])


def _free_place(rng: np.random.Generator, taken: list[Floats], apart: float = 0.115) -> Floats:
    """A place (x, y) from CENTRE in metres, at least about `apart` from those taken: the best of 40 draws."""
    draws = rng.uniform(-REACH, REACH, (40, 2))
    if not taken:
        return np.asarray(draws[0])
    gaps = np.linalg.norm(draws[:, None] - np.array(taken)[None], axis=-1).min(1)
    fits = np.flatnonzero(gaps >= apart)
    return np.asarray(draws[fits[0] if len(fits) else gaps.argmax()])


def _objects(data: Any) -> Floats:
    """Where the objects are, (objects, 2): x and y in metres."""
    names = [data.model.body(i).name for i in range(data.model.nbody)]
    return np.array([data.body(name).xpos[:2] for name in names if name.startswith("object")])


# ------------------------------------------------------------------------------------------------------ the controller


class _Hand:
    """The gripper, carried by a mocap body that the arm is welded to."""

    def __init__(self, mujoco: ModuleType, model: Any, data: Any) -> None:
        self._mujoco, self._model, self._data = mujoco, model, data
        self.target = np.array(data.site("robot0:grip").xpos)  # where the gripper site is to be, metres

    def enter(self, start: Floats) -> None:
        """Brings the arm from its folded-out pose down to `start` and lets everything come to rest."""
        self._data.mocap_quat[0] = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]  # fingers down
        self._data.ctrl[:] = OPEN / 2
        above = np.array([start[0], start[1], CENTRE[2] + 0.25])
        self._go(above, 300, 300)
        self._go(start, 150, 250)

    def move(self, action: Floats) -> None:
        """Carries out one action (4,): displacement and finger distance."""
        self._data.ctrl[:] = action[3] / 2
        self._go(self.target + action[:3], TRAVEL, SUBSTEPS)

    def _go(self, goal: Floats, travel: int, substeps: int) -> None:
        start = self.target
        for step in range(1, substeps + 1):
            self.target = start + (goal - start) * min(1.0, step / travel)
            self._data.mocap_pos[0] = self.target + np.array([0, 0, SITE_BELOW_LINK])
            self._mujoco.mj_step(self._model, self._data)
        self._mujoco.mj_forward(self._model, self._data)  # positions of sites belong to this moment, not the last step


class _Explorer:
    """Wanders like the robots of BAIR, but likes to go where objects are, and through them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._patience = 0

    def choose(self, hand: Floats, objects: Floats) -> Floats:
        """The next action (4,), to be held for HOLD steps; never leads out of reach."""
        if self._patience == 0 or np.linalg.norm(self._goal - hand) < 0.03:
            self._new_goal(hand, objects)
        self._patience -= 1
        wish = (self._goal - hand) / HOLD
        wish *= min(1.0, self._speed / (np.abs(wish).max() + 1e-9))
        wish += self._rng.normal(0, [0.008, 0.008, 0.003])
        low = np.append(CENTRE[:2] - REACH, CENTRE[2] + HEIGHTS[0])
        high = np.append(CENTRE[:2] + REACH, CENTRE[2] + HEIGHTS[1])
        step = np.clip(wish, np.maximum(-MAX_STEP, (low - hand) / HOLD), np.minimum(MAX_STEP, (high - hand) / HOLD))
        return np.append(step, self._grip).astype(np.float32).astype(np.float64)

    def _new_goal(self, hand: Floats, objects: Floats) -> None:
        self._patience = int(self._rng.integers(3, 7))
        self._speed = self._rng.uniform(0.04, MAX_STEP)
        self._grip = float(self._rng.choice([0.0, OPEN / 2, OPEN]))
        for _ in range(8):  # in a corner many goals are close by: draw again, so that the hand keeps moving
            self._goal = self._draw_goal(hand, objects)
            if np.linalg.norm(self._goal[:2] - hand[:2]) > 0.10:
                break

    def _draw_goal(self, hand: Floats, objects: Floats) -> Floats:
        rng = self._rng
        if rng.random() < 0.75:  # through an object, low
            thing = objects[rng.integers(len(objects))]
            away = thing - hand[:2]
            place = thing + away / (np.linalg.norm(away) + 1e-9) * rng.uniform(0.04, 0.14)
            height = HEIGHTS[0] + rng.uniform(0, 0.01)
        else:  # anywhere, often over the objects
            place = CENTRE[:2] + rng.uniform(-REACH, REACH)
            height = rng.uniform(*HEIGHTS)
        return np.array([*np.clip(place, CENTRE[:2] - REACH, CENTRE[:2] + REACH), CENTRE[2] + height])
