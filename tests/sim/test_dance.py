"""The simulated dancer: one seed and index, one clip; poses that fit the person. Skipped without the `sim` extra."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foreframe.errors import UsageError
from foreframe.sim import dance, motion, quaternions
from foreframe.sim.renderer import load_mujoco
from foreframe.video.skeleton import draw_poses

SIZE = (32, 32)


@pytest.fixture(scope="module")
def clip() -> dance.DanceClip:
    for name in ("mujoco", "pybullet_data"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'foreframe[sim]'")
    try:
        load_mujoco(dance.PACKAGES).GLContext(8, 8).free()
    except (UsageError, ImportError, AttributeError, RuntimeError) as error:
        pytest.skip(f"MuJoCo cannot draw here: {error}")
    return dance.simulate(seed=0, index=3, frames=6, size=SIZE)


def test_the_same_seed_and_index_give_the_same_bits(clip: dance.DanceClip) -> None:
    dance.simulate(seed=0, index=8, frames=1, size=SIZE)  # another clip in between must not matter
    again = dance.simulate(seed=0, index=3, frames=6, size=SIZE)
    for name in ("frames", "poses", "joints"):
        np.testing.assert_array_equal(getattr(again, name), getattr(clip, name))


def test_a_shorter_clip_is_the_beginning_of_a_longer_one(clip: dance.DanceClip) -> None:
    short = dance.simulate(seed=0, index=3, frames=2, size=SIZE)
    np.testing.assert_array_equal(short.frames, clip.frames[:2])
    np.testing.assert_array_equal(short.joints, clip.joints[:2])


def test_shapes_and_types_are_those_promised(clip: dance.DanceClip) -> None:
    assert (clip.frames.shape, clip.frames.dtype) == ((6, 32, 32, 3), np.uint8)
    assert (clip.poses.shape, clip.poses.dtype) == ((6, 32, 32, 3), np.uint8)
    assert (clip.joints.shape, clip.joints.dtype) == ((6, 25, 3), np.float32)


def test_a_picture_may_be_wider_than_high(clip: dance.DanceClip) -> None:
    wide = dance.simulate(seed=0, index=3, frames=1, size=(16, 32))
    assert wide.frames.shape == wide.poses.shape == (1, 16, 32, 3)
    assert wide.joints[..., 2].all()


@pytest.mark.parametrize(("seed", "index"), [(0, 4), (1, 3)])
def test_another_index_gives_another_body_other_clothes_and_another_dance(
    clip: dance.DanceClip, seed: int, index: int
) -> None:
    mujoco = load_mujoco(dance.PACKAGES)
    (one, one_path, _), (two, two_path, _) = (
        dance._set_up(mujoco, *which, 4, SIZE) for which in ((0, 3), (seed, index))
    )
    legs = [np.linalg.norm(dancer.model.body("left_knee").pos) for dancer in (one, two)]
    assert abs(legs[0] - legs[1]) > 1e-4
    shirts = [dancer.model.geom_rgba[dancer._geoms[1]] for dancer in (one, two)]
    assert np.abs(shirts[0] - shirts[1]).max() > 0.02
    assert np.abs(one_path.turns - two_path.turns).max() > 0.2


def test_joints_are_projected_where_the_camera_draws_them(clip: dance.DanceClip) -> None:
    mujoco = load_mujoco(dance.PACKAGES)
    size = (160, 120)
    dancer, path, camera = dance._set_up(mujoco, 0, 3, 4, size)
    dancer.model.geom_rgba[:, 3] = 0  # all but the ball is left out
    dancer.pose(path, 3)
    spots = dancer.joints()
    expected = camera.project(spots, size)
    with mujoco.Renderer(dancer.model, *size) as renderer:
        for joint in (0, 4, 7, 11, 14, 19):
            renderer.update_scene(dancer.data, camera.handle(mujoco))
            empty = renderer.render().astype(int)
            ball = renderer.scene.geoms[renderer.scene.ngeom]
            mujoco.mjv_initGeom(
                ball, mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, 0.06), spots[joint], np.eye(3).ravel(), [1, 0, 0, 1]
            )
            renderer.scene.ngeom += 1
            ys, xs = np.nonzero(np.abs(renderer.render().astype(int) - empty).max(-1) > 8)
            assert len(ys) > 10
            assert np.abs(expected[joint, :2] - [xs.mean(), ys.mean()]).max() <= 0.3  # half a pixel off would show


@pytest.mark.parametrize("index", [3, 5, 10, 15])
def test_the_whole_person_is_in_every_picture_and_over_the_floor(clip: dance.DanceClip, index: int) -> None:
    dancer, path, camera = dance._set_up(load_mujoco(dance.PACKAGES), 0, index, 60, SIZE)
    middles, radii = dancer.extremes(path.turns[:: motion.DENSE], path.places[:: motion.DENSE])
    _, right, up = camera.axes()
    for side in (right, -right, up, -up):
        edges = camera.project((middles + radii[:, None] * side).reshape(-1, 3), SIZE)
        assert edges[:, 2].all()
    solid = np.tile(dancer._half > 0, 2)
    lowest = (middles[..., 2] - radii)[:, solid].min(1)
    assert lowest.min() > -1e-3  # metres
    assert np.median(lowest) < 0.02
    assert np.abs(path.places[:, :2]).max() < 1.0


def test_the_pose_picture_lies_on_the_person_of_the_same_frame_and_of_no_other(clip: dance.DanceClip) -> None:
    mujoco = load_mujoco(dance.PACKAGES)
    size = (64, 64)
    dancer, path, camera = dance._set_up(mujoco, 0, 3, 60, size)
    people, poses = [], []
    with mujoco.Renderer(dancer.model, *size) as renderer:
        renderer.enable_segmentation_rendering()
        for t in range(0, 60, 4):
            dancer.pose(path, t)
            renderer.update_scene(dancer.data, camera.handle(mujoco))
            people.append(np.isin(renderer.render()[..., 0], dancer._geoms))
            poses.append(
                draw_poses(camera.project(dancer.joints(), size)[None], dance.SKELETON.bones, size)[0].max(-1) > 128
            )
    assert min(person.mean() for person in people) > 0.05
    assert min(person[pose].mean() for person, pose in zip(people, poses, strict=True)) > 0.9
    assert np.mean([person[pose].mean() for person, pose in zip(people, poses[1:], strict=False)]) < 0.7


def test_the_person_moves_between_frames_but_never_jumps_to_another_place(clip: dance.DanceClip) -> None:
    for index in range(10):
        _, path, _ = dance._set_up(load_mujoco(dance.PACKAGES), 5, index, 60, SIZE)
        moved = np.linalg.norm(np.diff(path.places[:: motion.DENSE], axis=0), axis=1)
        assert moved.max() < 0.4  # metres in a fifteenth of a second: a leap
        turned = np.abs((path.turns[1:] * path.turns[:-1]).sum(-1)).min()
        assert turned > np.cos(0.35)  # radians by half in a sixtieth of a second
        assert np.ptp(path.turns[:, :, 1:], axis=0).max() > 0.2


def test_mirrored_motion_swaps_the_sides() -> None:
    for number, name in enumerate(motion.NAMES):
        other = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert motion.NAMES[motion.MIRROR[number]] == other


def test_turns_and_vectors_are_inverse() -> None:
    vectors = np.random.default_rng(0).normal(0, 0.8, (50, 3))
    vectors[0] = 0
    np.testing.assert_allclose(quaternions.to_vector(quaternions.from_vector(vectors)), vectors, atol=1e-9)
    turns = quaternions.from_vector(vectors)
    np.testing.assert_allclose(quaternions.multiply(turns, quaternions.inverse(turns))[:, 0], 1, atol=1e-12)


@pytest.mark.parametrize(("module", "package"), [("mujoco", "mujoco"), ("pybullet_data", "pybullet")])
def test_without_a_package_the_error_names_it_and_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(UsageError, match=rf"needs .*{package}.*pip install 'foreframe\[sim\]'"):
        dance.simulate(0, 0)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"Frames": []}', '{"Frames": [[1, 2], [3]]}', json.dumps({"Frames": [[0] * 43] * 3})]
)
def test_a_damaged_motion_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "data" / "motions").mkdir(parents=True)
    (tmp_path / "data" / "motions" / "humanoid3d_odd.txt").write_text(text)
    monkeypatch.setattr(motion, "package_file", lambda package: str(tmp_path / "__init__.py"))
    with pytest.raises(UsageError, match=r"humanoid3d_odd\.txt: expected .*reinstall pybullet"):
        motion.load_motion("odd")


def test_the_module_itself_imports_no_simulator() -> None:
    code = "import sys, foreframe.sim.dance; sys.exit('mujoco' in sys.modules or 'pybullet_data' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
