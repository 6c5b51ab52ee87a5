"""The simulator: one seed and index, one clip; actions that explain the motion. Skipped without the `sim` extra."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from foreframe.errors import UsageError
from foreframe.sim import push
from foreframe.sim.renderer import halve, load_mujoco


@pytest.fixture(scope="module")
def clip() -> push.PushClip:
    for name in ("mujoco", "gymnasium_robotics"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'foreframe[sim]'")
    try:
        load_mujoco(push.PACKAGES).GLContext(8, 8).free()
    except (UsageError, ImportError, AttributeError, RuntimeError) as error:
        pytest.skip(f"MuJoCo cannot draw here: {error}")
    return push.simulate(seed=0, index=3, frames=6)


def test_the_same_seed_and_index_give_the_same_bits(clip: push.PushClip) -> None:
    push.simulate(seed=0, index=8, frames=1)  # another clip in between must not matter
    again = push.simulate(seed=0, index=3, frames=6)
    np.testing.assert_array_equal(again.frames, clip.frames)
    np.testing.assert_array_equal(again.actions, clip.actions)
    np.testing.assert_array_equal(again.positions, clip.positions)


@pytest.mark.parametrize(("seed", "index"), [(0, 4), (1, 3)])
def test_another_seed_or_index_gives_another_clip(clip: push.PushClip, seed: int, index: int) -> None:
    other = push.simulate(seed, index, frames=1)
    assert (other.frames[0] != clip.frames[0]).mean() > 0.2
    assert not np.array_equal(other.positions[0], clip.positions[0])


def test_a_shorter_clip_is_the_beginning_of_a_longer_one(clip: push.PushClip) -> None:
    short = push.simulate(seed=0, index=3, frames=3)
    np.testing.assert_array_equal(short.frames, clip.frames[:3])
    np.testing.assert_array_equal(short.actions, clip.actions[:3])


def test_shapes_and_types_are_those_promised(clip: push.PushClip) -> None:
    assert (clip.frames.shape, clip.frames.dtype) == ((6, 64, 64, 3), np.uint8)
    assert (clip.actions.shape, clip.actions.dtype) == ((6, 4), np.float32)
    assert (clip.positions.shape, clip.positions.dtype) == ((6, 3), np.float32)


def test_each_action_is_held_for_two_steps_and_is_within_reach(clip: push.PushClip) -> None:
    np.testing.assert_array_equal(clip.actions[0::2], clip.actions[1::2])
    assert np.abs(clip.actions[:, :3]).max() <= push.MAX_STEP + 1e-6
    assert clip.actions[:, 3].min() >= 0
    assert clip.actions[:, 3].max() <= push.OPEN + 1e-6


def test_the_gripper_goes_where_the_action_sends_it(clip: push.PushClip) -> None:
    moved = np.diff(clip.positions, axis=0)
    assert np.abs(moved - clip.actions[:-1, :3]).mean() < 0.01  # metres


def test_something_moves_between_any_two_frames(clip: push.PushClip) -> None:
    change = np.abs(np.diff(clip.frames.astype(int), axis=0)).max(-1) > 16
    assert change.mean(axis=(1, 2)).min() > 0.01


def test_a_picture_may_have_another_size(clip: push.PushClip) -> None:
    assert push.simulate(seed=0, index=3, frames=1, size=32).frames.shape == (1, 32, 32, 3)


def test_halving_is_the_rounded_mean_of_four_pixels() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) * 5
    mean = image.reshape(2, 2, 2, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_array_equal(halve(image), np.floor(mean + 0.5))


def test_without_mujoco_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mujoco" else find(name))
    with pytest.raises(UsageError, match=r"needs mujoco.*pip install 'foreframe\[sim\]'"):
        push.simulate(0, 0)


def test_the_module_itself_imports_no_simulator() -> None:
    code = "import sys, foreframe.sim.push; sys.exit('mujoco' in sys.modules or 'gymnasium_robotics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
