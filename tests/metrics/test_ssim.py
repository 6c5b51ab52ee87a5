"""SSIM against scikit-image, torchmetrics and the formula, also of frames that are hard for float32."""

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from foreframe.metrics import METRICS, ssim, ssim_gaussian

SETTINGS = {
    "ssim": {"data_range": 1},
    "ssim-range2": {"data_range": 2},
    "ssim-gaussian": {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
}
SIZES = [(11, 11), (16, 20), (32, 64), (64, 64)]


def pairs(height: int, width: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of frames (2, 3, H, W) of several kinds, the last ones hard for float32."""
    random = torch.Generator().manual_seed(height * width)
    shape = (2, 3, height, width)

    def noise() -> torch.Tensor:
        return torch.rand(shape, generator=random)

    coarse = torch.rand(2, 3, height // 8 + 1, width // 8 + 1, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")

    def drawing() -> torch.Tensor:
        """Rectangles of one colour each, in the grey levels of 8 bits."""
        frames = noise()[..., :1, :1].repeat(1, 1, height, width)
        for top, left in ((0, width // 3), (height // 2, 0), (height // 3, width // 2)):
            frames[..., top : top + height // 2, left : left + width // 2] = noise()[..., :1, :1]
        return (frames * 255).round() / 255

    dark, bright = torch.full(shape, 0.05), torch.full(shape, 0.11)
    dark[..., width // 3 :], bright[..., width // 2 :] = 0.93, 0.87
    drawn = drawing()
    return {
        "random": (noise(), noise()),
        "smooth": ((smooth + 0.1 * noise()).clamp(max=1), smooth),
        "nearly white": (1 - 0.003 * noise(), torch.ones(shape)),
        "two flat greys": (torch.full(shape, 0.713), torch.full(shape, 0.131)),
        "two flat greys with noise": (0.7 + 0.003 * noise(), 0.2 + 0.003 * noise()),
        "two halves": (dark, bright),
        "black and white": ((smooth > 0.6).float(), (smooth > 0.5).float()),
        "nearly equal": ((smooth + 1e-4 * noise()).clamp(max=1), smooth),
        "two drawings": (drawing(), drawn),
        "a drawing and noise on it": ((drawn + 0.04 * (noise() - 0.5)).clamp(0, 1), drawn),
        "a drawing and a brighter one": (0.8 * drawn + 0.15, 0.8 * drawn),
    }


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", SIZES)
def test_scikit_image_gives_the_same_ssim(name: str, size: tuple[int, int]) -> None:
    for kind, (predicted, true) in pairs(*size).items():
        expected = [
            structural_similarity(y, x, channel_axis=0, **SETTINGS[name])
            for x, y in zip(predicted.double().numpy(), true.double().numpy(), strict=True)
        ]
        np.testing.assert_allclose(METRICS[name](predicted, true), expected, rtol=0, atol=1.5e-7, err_msg=kind)
        exact = METRICS[name](predicted.double(), true.double())
        np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-11, err_msg=kind)


def gaussian_ssim(predicted: np.ndarray, true: np.ndarray) -> float:
    """One channel in float64, straight from the formula."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        return fftconvolve(values, window, mode="valid")

    x, y = mean(predicted), mean(true)
    covariance = mean(predicted * true) - x * y
    variances = mean(predicted**2) - x**2 + mean(true**2) - y**2
    luminance = (2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)
    return float((luminance * (2 * covariance + 9e-4) / (variances + 9e-4)).mean())


@pytest.mark.parametrize("size", SIZES)
def test_the_formula_gives_the_same_gaussian_ssim(size: tuple[int, int]) -> None:
    for kind, (predicted, true) in pairs(*size).items():
        expected = [
            np.mean([gaussian_ssim(*channels) for channels in zip(x, y, strict=True)])
            for x, y in zip(predicted.double().numpy(), true.double().numpy(), strict=True)
        ]
        np.testing.assert_allclose(ssim_gaussian(predicted, true), expected, rtol=0, atol=1.5e-7, err_msg=kind)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_region_of_the_wrong_color_is_scored_as_in_float64(name: str) -> None:
    predicted = torch.full((4, 3, 64, 64), 0.05)
    predicted[..., 32:] = torch.linspace(0.6, 0.9, 12).view(4, 3, 1, 1)
    true = predicted.flip(-1)
    exact = METRICS[name](predicted.double(), true.double())
    torch.testing.assert_close(METRICS[name](predicted, true).double(), exact, rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_torchmetrics_gives_the_same_gaussian_ssim_where_windows_are_whole(kind: str) -> None:
    predicted, true = (frames.double() for frames in pairs(32, 64)[kind])
    _, mapped = structural_similarity_index_measure(predicted, true, data_range=1.0, return_full_image=True)
    expected = mapped[..., 5:-5, 5:-5].mean((1, 2, 3))  # it mirrors the frame at its border; whole windows do not
    torch.testing.assert_close(ssim_gaussian(predicted, true), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_equal_frames_have_an_ssim_of_one(name: str) -> None:
    for predicted, _ in pairs(16, 20).values():
        torch.testing.assert_close(METRICS[name](predicted, predicted), torch.ones(2))


def test_the_larger_data_range_gives_the_higher_score() -> None:
    predicted, true = pairs(32, 64)["random"]
    assert (METRICS["ssim-range2"](predicted, true) > METRICS["ssim"](predicted, true)).all()


@pytest.mark.parametrize(("name", "window"), [("ssim", 7), ("ssim-range2", 7), ("ssim-gaussian", 11)])
def test_a_frame_smaller_than_the_window_is_refused(name: str, window: int) -> None:
    fits = torch.zeros(3, window, window)
    assert float(METRICS[name](fits, fits)) == 1
    small = torch.zeros(3, window, window - 1)
    with pytest.raises(ValueError, match=rf"{window}x{window - 1} are smaller than the {window}x{window} window"):
        METRICS[name](small, small)


@pytest.mark.parametrize("kind", ["smooth", "two halves"])
def test_autocast_and_rough_matrix_products_do_not_change_the_score(kind: str) -> None:
    predicted, true = pairs(32, 64)[kind]
    expected = ssim(predicted, true)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(ssim(predicted, true), expected, rtol=0, atol=1.5e-7)
    finally:
        torch.set_float32_matmul_precision(before)


def test_many_clips_are_scored_in_parts_as_each_alone() -> None:
    random = torch.Generator().manual_seed(0)
    predicted, true = (torch.rand(25, 3, 64, 64, generator=random) for _ in range(2))
    alone = torch.stack([ssim(x, y) for x, y in zip(predicted, true, strict=True)])
    torch.testing.assert_close(ssim(predicted, true), alone, rtol=0, atol=1e-6)
