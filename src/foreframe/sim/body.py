"""The dancer's body and clothes: bodies named after joints, their geoms, and a site for each joint of the skeleton."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from foreframe.sim.colors import CLOTHES, HAIRS, SKINS, distinct_color, tint
from foreframe.sim.quaternions import Floats


@dataclass(frozen=True)
class Body:
    """How a dancer is built: factors on the recorded person's measures."""

    leg: float
    arm: float
    trunk: float
    shoulders: float
    hips: float
    girth: float
    head: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        ranges = (0.92, 1.08), (0.92, 1.06), (0.92, 1.06), (0.88, 1.14), (0.9, 1.2), (0.85, 1.25), (1.0, 1.2)
        return cls(*(float(rng.uniform(*each)) for each in ranges))


class BodyBuilder:
    """Puts a dancer together in a scene: bodies named after joints, their geoms, and a site for each joint drawn."""

    def __init__(
        self, mujoco: ModuleType, scene: Any, rng: np.random.Generator, body: Body, backdrop: list[Floats]
    ) -> None:
        self._mujoco, self._scene, self._rng, self._body = mujoco, scene, rng, body
        self._default, self._shapes = scene.find_default("dancer"), mujoco.mjtGeom
        self._skin = tint(rng, SKINS, 0.03)
        self._hair = tint(rng, HAIRS, 0.03)
        self._top = distinct_color(rng, CLOTHES, [*backdrop, self._skin])
        self._legs = distinct_color(rng, CLOTHES, [*backdrop, self._top])
        self._shoes = distinct_color(rng, CLOTHES, [backdrop[1], self._legs])
        self._sleeves = str(rng.choice(["none", "short", "short", "long", "long"]))
        self._below = str(rng.choice(["trousers", "trousers", "leggings", "shorts", "skirt", "dress"]))
        if self._below == "dress":
            self._legs = self._top

    def build(self) -> None:
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
        pelvis.add_geom(self._default, type=self._shapes.mjGEOM_MESH, meshname="skirt", rgba=[*self._legs, 1])

    def _head(self, head: Any) -> None:
        size = self._body.head
        self._limb(head, [0, 0, -0.03], [0, 0, 0.06], 0.045, self._skin)
        self._ball(head, [0.012, 0, 0.155 * size], [0.092 * size, 0.08 * size, 0.115 * size], self._skin)
        self._ball(head, [0.1 * size, 0, 0.14 * size], [0.018 * size] * 3, self._skin)
        style = str(self._rng.choice(["short", "bob", "bun", "tail", "cap", "short"]))
        color = self._top if style == "cap" else self._hair
        self._ball(head, [-0.014, 0, 0.185 * size], [0.096 * size, 0.09 * size, 0.1 * size], color)
        if style == "bob":
            self._ball(head, [-0.035 * size, 0, 0.12 * size], [0.075 * size, 0.1 * size, 0.125 * size], color)
        elif style == "bun":
            self._ball(head, [-0.05 * size, 0, 0.3 * size], [0.05 * size] * 3, color)
        elif style == "tail":
            self._limb(head, [-0.1 * size, 0, 0.2 * size], [-0.16 * size, 0, 0.02], 0.036 * size, color)
        elif style == "cap":
            self._limb(head, [0.06 * size, -0.04, 0.2 * size], [0.06 * size, 0.04, 0.2 * size], 0.042 * size, color)
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

    def _part(self, parent: Any, name: str, place: list[float]) -> Any:
        body = parent.add_body(name=name, pos=place)
        body.add_joint(name=name, type=self._mujoco.mjtJoint.mjJNT_BALL)
        return body

    def _limb(self, body: Any, start: list[float], stop: list[float], radius: float, color: Floats) -> None:
        ends, size = [*start, *stop], [radius, 0, 0]
        body.add_geom(self._default, type=self._shapes.mjGEOM_CAPSULE, fromto=ends, size=size, rgba=[*color, 1])

    def _ball(self, body: Any, place: list[float], radii: list[float], color: Floats) -> None:
        body.add_geom(self._default, type=self._shapes.mjGEOM_ELLIPSOID, pos=place, size=radii, rgba=[*color, 1])

    def _mark(self, body: Any, name: str, place: list[float]) -> None:
        body.add_site(self._default, name=name, pos=place)
