"""bf16: convolutions may be rounded, but not what a Gaussian is made of."""

from __future__ import annotations

import pytest
import torch

from foreframe import models
from foreframe.clip import ClipSpec
from foreframe.losses import LossConfig, elbo
from foreframe.models import pose_cvae, svg
from tests.conftest import random_clip

ACTIONS, POSES = ClipSpec(3, 64, 64, "vector", 7), ClipSpec(3, 32, 64, "image", 3)
CASES = {
    "dcgan": (svg.Config(backbone="dcgan", width=16), ACTIONS),
    "vgg": (svg.Config(backbone="vgg", width=16), ACTIONS),
    "fixed prior": (svg.Config(backbone="dcgan", prior="fixed", width=16, predictor_norm=True), ACTIONS),
    "poses": (pose_cvae.Config(f_dim=16, l_dim=4, n_dim=4, d_out=16), POSES),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kl_of_an_untrained_model_is_that_of_float32(case):
    config, spec = CASES[case]
    torch.manual_seed(0)
    model = models.build(config, spec)
    clip = random_clip(spec, 3, 5)
    noise = torch.randn(3, 4, *model.latent_shape)
    found = []
    for rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            unrolled = model(clip, 2, torch.ones(3, 4, dtype=torch.bool), noise)
        terms = elbo(unrolled, clip.frames[:, 1:], 1e-4, LossConfig())
        terms.loss.backward()
        assert unrolled.frames.dtype == unrolled.posterior.mean.dtype == unrolled.prior.logvar.dtype == torch.float32
        found.append(terms.kl_nats.item())
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.01)
