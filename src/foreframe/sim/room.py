"""The room in which a dancer dances: wall, floor, light, and what hangs on the wall. Lengths in metres."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from foreframe.sim.colors import CLOTHES, FLOORS, WALLS, tint
from foreframe.sim.quaternions import Floats


def make_room(mujoco: ModuleType, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Any, list[Floats]]:
    """The room of one clip, and the colors of its wall and floor."""
    scene = mujoco.MjSpec.from_string(Path(__file__).with_name("dance_scene.xml").read_text(encoding="utf-8"))
    scene.visual.global_.offheight, scene.visual.global_.offwidth = 2 * size[0], 2 * size[1]
    wall, floor = tint(rng, WALLS), tint(rng, FLOORS)
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
    return scene, [_decorate(mujoco, scene, rng, wall), floor]


def _decorate(mujoco: ModuleType, scene: Any, rng: np.random.Generator, wall: Floats) -> Floats:
    """Hangs something on the wall: nothing, panels below, a curtain, windows or posters. The color then behind."""
    body, default = scene.body("wall"), scene.find_default("wall")

    def box(y: float, z: float, wide: float, high: float, color: Floats, front: float = 0.02) -> None:
        # It reaches far into the wall: on thin boxes the shadow map leaves specks.
        body.add_geom(default, pos=[front - 0.1, y, z], size=[0.1, wide / 2, high / 2], rgba=[*np.clip(color, 0, 1), 1])

    behind = wall
    kind = str(rng.choice(["nothing", "panels", "curtain", "windows", "posters", "posters"]))
    if kind == "panels":
        tone, high = wall * rng.uniform(0.6, 0.85), rng.uniform(0.6, 1.1)
        box(0, high / 2, 24, high, tone)
        box(0, high, 24, 0.05, wall * 1.15, 0.04)
    elif kind == "curtain":
        tone, pitch = tint(rng, CLOTHES) * rng.uniform(0.5, 0.8), rng.uniform(0.16, 0.3)
        for number in range(-30, 31):
            fold = body.add_geom(default, pos=[0, number * pitch, 3], size=[pitch * 0.55, 3, 0])
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
            place, ground, mark = rng.uniform(1.1, 1.7), tint(rng, CLOTHES), tint(rng, CLOTHES)
            box(y, place, wide, high, ground * 0.9)
            box(y, place + rng.uniform(-0.1, 0.1), wide * 0.5, high * rng.uniform(0.2, 0.6), mark * 0.9, 0.03)
            y += rng.uniform(0.9, 1.8)
    return behind
