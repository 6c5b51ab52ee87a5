from __future__ import annotations

import pytest
import torch

from foreframe.clip import ClipSpec
from foreframe.errors import ConfigError
from foreframe.models.pose_cvae import Config, Model
from tests.conftest import random_clip

SPEC = ClipSpec(3, 8, 16, "image", 3)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_every_module_has_the_labs_parameters():
    model = Model(Config(), ClipSpec(3, 32, 64, "image", 3))
    parts = {name: count(getattr(model, name)) for name in ("rgb", "label", "gaussian", "fusion", "generator")}
    assert parts == {"rgb": 193_568, "label": 16_832, "gaussian": 8_289, "fusion": 617_768, "generator": 749_163}
    assert count(model) == 1_585_620


def small(**options):
    torch.manual_seed(0)
    return Model(Config(f_dim=16, l_dim=4, n_dim=4, d_out=16, **options), SPEC)


def test_the_identity_activations_of_the_template_are_a_switch():
    slopes = {
        switch: {
            m.negative_slope for m in small(identity_activations=switch).label if isinstance(m, torch.nn.LeakyReLU)
        }
        for switch in (False, True)
    }
    assert slopes == {False: {0.01}, True: {1.0}}


@pytest.mark.parametrize("output", ["clamp", "sigmoid"])
def test_both_outputs_give_pixels(output):
    model = small(output=output).eval()
    clip = random_clip(SPEC, 2, 3)
    with torch.no_grad():
        out = model(clip, 1, torch.zeros(2, 2, dtype=torch.bool), torch.randn(2, 2, *model.latent_shape))
    assert 0 <= float(out.frames.min()) <= float(out.frames.max()) <= 1


@torch.no_grad()
def test_the_posterior_sees_the_target_and_the_prior_does_not():
    model = small().eval()
    clip = random_clip(SPEC, 1, 3)
    noise = torch.zeros(1, *model.latent_shape)
    _, with_target = model.step(model.initial(clip, 1), clip.frames[:, 0], clip.cond[:, 1], noise, clip.frames[:, 1])
    _, without = model.step(model.initial(clip, 1), clip.frames[:, 0], clip.cond[:, 1], noise)
    assert with_target.posterior is not None
    assert without.posterior is None
    assert float(without.z.abs().max()) == 0.0
    assert float(with_target.z.abs().max()) > 0.0


def test_a_vector_condition_is_refused():
    with pytest.raises(ConfigError, match="pose_cvae takes pose pictures"):
        Model(Config(), ClipSpec(3, 32, 64, "vector", 7))
