"""The dancer's motions: DeepMimic's recordings of people, which come with pybullet, blended in pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from foreframe.errors import UsageError
from foreframe.sim.quaternions import Floats, ease, from_vector, interpolate, inverse, multiply, normalize, to_vector
from foreframe.sim.renderer import package_file

FPS = 15

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


@dataclass(frozen=True)
class Motion:
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
def load_motion(name: str) -> Motion:
    """A motion of pybullet_data: JSON, {"Frames": [[seconds, x, y, z, then numbers of JOINTS], ...]}, y upwards."""
    path = Path(package_file("pybullet_data")).parent / "data" / "motions" / f"humanoid3d_{name}.txt"
    try:
        table = np.array(json.loads(path.read_text(encoding="utf-8"))["Frames"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: expected a recorded motion ({error}): reinstall pybullet") from error
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] != 4 + sum(size for _, size in JOINTS):
        raise UsageError(f"{path}: expected rows of 44 numbers, found {table.shape}: reinstall pybullet")
    turns = np.empty((len(table), len(JOINTS), 4))
    at = 4
    for joint, (_, size) in enumerate(JOINTS):
        values = table[:, at : at + size]
        turns[:, joint] = values if size == 4 else from_vector(values * [0, 0, 1])  # hinges turn about the file's z
        at += size
    turns = normalize(turns[..., [0, 1, 3, 2]] * [1, 1, -1, 1])  # the file's (x, y, z) is our (x, z, -y)
    w, x, y, z = turns[:, 0].T
    heading = np.unwrap(np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)))
    turns[:, 0] = multiply(from_vector(-heading[:, None] * [0, 0, 1]), turns[:, 0])
    return Motion(turns, heading, table[:, 2], float(table[0, 0]))


@dataclass(frozen=True)
class Poses:
    """Consecutive poses: turns (S, 13, 4), spin (S,) of the root in rad/s, height (S,) of it as recorded in metres."""

    turns: Floats
    spin: Floats
    height: Floats


def _play(motion: Motion, seconds: Floats) -> Poses:
    """A motion at any times (S,) from 0 on, over and over; the end of each round fades into the beginning."""
    fade = min(0.5, motion.length / 4)
    loop = motion.length - fade
    phase = seconds % loop
    now = _at(motion, phase)
    again = (seconds >= loop) & (phase < fade)  # here the round before has not quite ended
    before = _at(motion, np.where(again, phase + loop, phase))
    share = np.where(again, ease(phase / fade), 1.0)
    return _mix(before, now, share)


def _at(motion: Motion, seconds: Floats) -> Poses:
    place = np.clip(seconds / motion.step, 0, len(motion.turns) - 1)
    index = np.minimum(place.astype(int), len(motion.turns) - 2)
    share = place - index
    turns = interpolate(motion.turns[index], motion.turns[index + 1], share[:, None, None])
    spin = np.gradient(motion.heading, motion.step)
    grid = np.arange(len(motion.turns))
    return Poses(turns, np.interp(place, grid, spin), np.interp(place, grid, motion.height))


def _mix(a: Poses, b: Poses, share: Floats) -> Poses:
    return Poses(
        interpolate(a.turns, b.turns, share[:, None, None]),
        a.spin + share * (b.spin - a.spin),
        a.height + share * (b.height - a.height),
    )


def draw_dance(rng: np.random.Generator, frames: int) -> Poses:
    """Two motions in turns, each in its own way, DENSE poses a frame; here the root's turns include its heading."""
    steps = frames * DENSE
    seconds = np.arange(steps) / (FPS * DENSE)
    lead, guest = (_draw(rng, names) for names in (LEADS, GUESTS))
    both = _mix(_track(rng, lead, seconds), _track(rng, guest, seconds), _blend_weights(rng, seconds))
    turns = _personal_style(rng, both.turns, seconds)
    heading = rng.uniform(-0.9, 0.9) + np.cumsum(both.spin) / (FPS * DENSE)
    turns[:, 0] = multiply(from_vector(heading[:, None] * [0, 0, 1]), turns[:, 0])
    return Poses(turns, both.spin, both.height)


def _draw(rng: np.random.Generator, names: dict[str, int]) -> Motion:
    weights = np.array(list(names.values()), float)
    return load_motion(str(rng.choice(list(names), p=weights / weights.sum())))


def _track(rng: np.random.Generator, motion: Motion, seconds: Floats) -> Poses:
    """A motion from anywhere in it, faster or slower, perhaps mirrored, its turns wider or smaller."""
    speed, width = rng.uniform(0.7, 1.1), rng.uniform(0.85, 1.15)
    played = _play(motion, rng.uniform(0, motion.length) + seconds * speed)
    turns, spin = played.turns, played.spin * speed
    same = (motion.turns * motion.turns[:1]).sum(-1, keepdims=True) >= 0  # a quaternion and its negative are one turn
    mean = normalize(np.where(same, motion.turns, -motion.turns).mean(0))
    turns = multiply(mean, from_vector(to_vector(multiply(inverse(mean), turns)) * width))
    turns[:, 0] = played.turns[:, 0]  # but balance is kept
    if rng.random() < 0.5:
        turns, spin = turns[:, MIRROR] * [1, -1, 1, -1], -spin
    return Poses(turns, spin, played.height)


def _blend_weights(rng: np.random.Generator, seconds: Floats) -> Floats:
    """The share (S,) of the second motion: alternately little and much, each for a second or two."""
    share = np.full(len(seconds), rng.uniform(0, 0.2))
    time, high = rng.uniform(0.2, 2.0), True
    while time < seconds[-1]:
        goal = rng.uniform(0.8, 1.0) if high else rng.uniform(0, 0.2)
        share += (goal - share) * ease((seconds - time) / rng.uniform(0.4, 0.8))
        time, high = time + rng.uniform(1.2, 2.6), not high
    return share


def _personal_style(rng: np.random.Generator, turns: Floats, seconds: Floats) -> Floats:
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
    turns = multiply(turns, from_vector(vector + waves / 3 * sway[:, None]))
    for hinges, least, most in ((KNEES, -2.6, -0.03), (ELBOWS, 0.03, 2.6)):  # neither bends the wrong way
        angle = -2 * np.arctan2(turns[:, hinges, 2], turns[:, hinges, 0])
        angle = np.clip((angle + np.pi) % (2 * np.pi) - np.pi, least, most)
        turns[:, hinges] = from_vector(angle[..., None] * [0, -1, 0])
    return turns
