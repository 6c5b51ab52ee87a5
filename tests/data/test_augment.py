from __future__ import annotations

import pytest
import torch

from foreframe.clip import Clip, ClipSpec
from foreframe.data.loading.augment import AugmentConfig, draw_grid, warp
from foreframe.errors import ConfigError
from foreframe.seeds import generator
from tests.conftest import random_clip

SPEC = ClipSpec(3, 32, 64, "image", 3)


def augment(clip, config, draws):
    return warp(clip, draw_grid(clip.batch, *clip.frames.shape[-2:], config, draws))


def test_with_nothing_switched_on_the_clip_is_untouched():
    assert draw_grid(2, 32, 64, AugmentConfig(), generator(0)) is None


def test_mirroring_is_exact_and_the_same_for_frames_and_poses():
    clip = random_clip(SPEC, batch=8)
    out = augment(Clip(clip.frames, clip.frames), AugmentConfig(flip=True), generator(1))
    assert torch.equal(out.frames, out.cond)
    mirrored = 0
    for before, after in zip(clip.frames, out.frames, strict=True):
        flipped = torch.allclose(after, before.flip(-1), atol=1e-5)
        assert flipped or torch.allclose(after, before, atol=1e-5)
        mirrored += flipped
    assert 0 < mirrored < 8


def test_all_frames_of_a_clip_move_alike_and_clips_differ():
    clip = random_clip(SPEC, batch=3, length=1)
    still = Clip(clip.frames.expand(-1, 4, -1, -1, -1), clip.cond.expand(-1, 4, -1, -1, -1))
    out = augment(still, AugmentConfig(shift=4, scale=0.2), generator(2))
    assert torch.equal(out.frames[:, 0], out.frames[:, 3])
    moved = [(out.frames[i] - still.frames[i]).abs().mean() for i in range(3)]
    assert len({value.item() for value in moved}) == 3


def test_a_move_is_no_larger_than_asked():
    frames = torch.zeros(16, 1, 1, 32, 64)
    frames[..., 12:20, 28:36] = 1.0
    out = augment(Clip(frames), AugmentConfig(shift=8), generator(3)).frames[:, 0, 0]
    columns = (out.sum(1) * torch.arange(64)).sum(1) / out.sum((1, 2))
    rows = (out.sum(2) * torch.arange(32)).sum(1) / out.sum((1, 2))
    assert ((columns - 31.5).abs() <= 8.01).all()
    assert ((rows - 15.5).abs() <= 8.01).all()
    assert (columns - 31.5).abs().max() > 4


def test_the_same_generator_varies_the_same_way():
    clip, config = random_clip(SPEC), AugmentConfig(flip=True, shift=4, scale=0.1)
    assert torch.equal(augment(clip, config, generator(5)).frames, augment(clip, config, generator(5)).frames)


@pytest.mark.parametrize("setting", ["shift", "scale", "rotate", "shear", "warp"])
def test_each_setting_does_something_and_none_reaches_into_another(setting):
    clip = random_clip(SPEC, batch=8)
    amount = {"shift": 4.0, "scale": 0.2, "rotate": 10.0, "shear": 0.3, "warp": 3.0}[setting]
    out = augment(clip, AugmentConfig(**{setting: amount}), generator(6))
    assert (out.frames - clip.frames).abs().mean() > 0.01
    assert 0 <= out.frames.min() <= out.frames.max() <= 1
    flipped = augment(clip, AugmentConfig(flip=True, **{setting: amount}), generator(6))
    assert any(torch.equal(a, b) for a, b in zip(out.frames, flipped.frames, strict=True))


def test_turning_keeps_lengths():
    picture = torch.zeros(1, 1, 1, 33, 33)
    picture[..., 16, 4:29] = 1.0  # a bar through the centre keeps its length whatever the angle
    lengths = [augment(Clip(picture), AugmentConfig(rotate=90.0), generator(i)).frames.sum().item() for i in range(10)]
    assert all(22 < length < 27 for length in lengths)


def test_a_vector_condition_is_refused():
    with pytest.raises(ConfigError, match="switch it off for such data"):
        AugmentConfig(flip=True).check(ClipSpec(3, 64, 64, "vector", 2))
