"""The figures of docs/cvae.md."""

from __future__ import annotations

import math

import pytest

from benchmarks import figures
from foreframe.presets import find

SIGMAS = {
    "svg-bair-fixed": (12_288, 0.78),
    "svg-bair-fixed-lab": (12_288, 78),
    "pose-dance-template": (6_144, 55),
    "pose-dance-unet": (6_144, 0.030),
}


def test_both_figures_are_drawn_from_the_grids(tmp_path):
    figures.main(tmp_path)
    assert {path.name: path.read_text()[:5] for path in tmp_path.iterdir()} == {
        "beta.svg": "<?xml",
        "forcing.svg": "<?xml",
    }


@pytest.mark.parametrize("preset", SIGMAS)
def test_the_noise_that_a_beta_stands_for_is_as_the_page_says(preset):
    numbers, sigma = SIGMAS[preset]
    assert math.sqrt(find(preset).beta.stop * numbers / 2) == pytest.approx(sigma, rel=0.02)
