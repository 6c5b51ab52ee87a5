"""PSNR against closed forms and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from foreframe.metrics import METRICS, PSNR_CAP, psnr, psnr_per_channel

FORMULAS = ["psnr", "psnr-channel", "ssim", "ssim-range2", "ssim-gaussian"]
"""What needs no weights of a network."""


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("error", [1.0, 0.5, 0.1, 1 / 255])
def test_a_constant_error_has_a_psnr_of_minus_twenty_log_of_it(error: float) -> None:
    true = torch.zeros(2, 3, 8, 8)
    for metric in (psnr, psnr_per_channel):
        torch.testing.assert_close(metric(true + error, true), torch.full((2,), -20 * math.log10(error)))


def test_equal_frames_have_the_cap() -> None:
    frames = noise(2, 3, 8, 8)
    assert psnr(frames, frames).tolist() == psnr_per_channel(frames, frames).tolist() == [PSNR_CAP, PSNR_CAP]


def test_one_grey_level_in_one_value_of_a_frame_stays_below_the_cap() -> None:
    true = torch.zeros(3, 64, 64)
    predicted = true.clone()
    predicted[1, 2, 3] = 1 / 255
    assert 85 < float(psnr(predicted, true)) < PSNR_CAP


def test_scikit_image_gives_the_same_psnr() -> None:
    true, predicted = noise(4, 3, 32, 64, seed=1), noise(4, 3, 32, 64, seed=2)
    expected = [
        peak_signal_noise_ratio(y, x, data_range=1)
        for x, y in zip(predicted.double().numpy(), true.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(psnr(predicted, true), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("error", [1e-1, 1e-2, 1e-3, 1e-4])
def test_nearly_equal_frames_have_the_psnr_of_float64(error: float) -> None:
    true = noise(4, 3, 32, 64, seed=1)
    predicted = (true + error * (noise(4, 3, 32, 64, seed=2) - 0.5)).clamp(0, 1)
    squares = (predicted.double() - true.double()).square()
    expected = -10 * squares.mean((1, 2, 3)).log10()
    torch.testing.assert_close(psnr(predicted, true).double(), expected, rtol=0, atol=1e-5)
    expected = -10 * squares.mean((2, 3)).log10().mean(1)
    torch.testing.assert_close(psnr_per_channel(predicted, true).double(), expected, rtol=0, atol=1e-5)


def test_channels_averaged_after_the_logarithm_give_more_than_one_error_for_all() -> None:
    true = torch.zeros(3, 8, 8)
    predicted = torch.tensor([0.01, 0.1, 1.0])[:, None, None].expand(3, 8, 8)
    assert float(psnr_per_channel(predicted, true)) == pytest.approx(20, abs=1e-4)
    assert float(psnr(predicted, true)) == pytest.approx(-10 * math.log10((1e-4 + 1e-2 + 1) / 3), abs=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_samples_are_scored_against_one_truth_as_one_by_one(name: str) -> None:
    true, predicted = noise(2, 3, 3, 16, 12, seed=3), noise(5, 2, 3, 3, 16, 12, seed=4)
    scores = METRICS[name](predicted, true)
    assert scores.shape == (5, 2, 3)
    torch.testing.assert_close(scores[3], METRICS[name](predicted[3], true))
    torch.testing.assert_close(scores[3, 1, 2], METRICS[name](predicted[3, 1, 2], true[1, 2]))


@pytest.mark.parametrize("name", FORMULAS)
def test_shapes_that_differ_are_refused_with_both_shown(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 16\).*\(2, 1, 16, 16\)"):
        METRICS[name](noise(2, 3, 16, 16), noise(2, 1, 16, 16))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("value", [1.01, -0.01, math.nan, math.inf, 255.0])
def test_values_outside_zero_to_one_are_refused(name: str, value: float) -> None:
    predicted = noise(2, 3, 16, 16)
    predicted[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match=r"predicted: expected values in \[0, 1\]"):
        METRICS[name](predicted, noise(2, 3, 16, 16))


def test_whole_numbers_are_refused_with_a_hint() -> None:
    frames = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"uint8; call Clip\.unit"):
        psnr(frames, frames)


def test_rounding_just_outside_the_range_is_accepted() -> None:
    assert float(psnr(torch.full((3, 8, 8), 1.00005), torch.ones(3, 8, 8))) > 80


def test_every_metric_defines_itself_in_one_sentence() -> None:
    assert list(METRICS) == [*FORMULAS, "lpips"]
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.definition.endswith(".")
        assert metric.unit == ("dB" if name.startswith("psnr") else "")
    assert len({metric.definition for metric in METRICS.values()}) == len(METRICS)
