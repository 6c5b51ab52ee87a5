"""Scores: all samples and frames at once against one frame after another, as the published scripts do it."""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.measure import Candidate, compare
from benchmarks.suites import BenchContext, Suite
from foreframe import seeds
from foreframe.metrics import METRICS, score_frames

Scores = dict[str, NDArray[np.float64]]


def run(setting: BenchContext) -> Suite:
    """PSNR and SSIM, on the CPU: with the uniform window against scikit-image, with the Gaussian one against scipy."""
    suite = Suite()
    samples, horizon = (2, 2) if setting.quick else (100, 28)
    draw = seeds.generator(0, "bench", "metrics")
    truth = torch.rand(horizon, 3, 64, 64, generator=draw)
    predicted = (truth + 0.1 * torch.randn(samples, *truth.shape, generator=draw)).clamp(0, 1)
    arrays = predicted.numpy(), truth.numpy()
    frames = samples * horizon
    for name, package, loop, names in (
        ("uniform window", "skimage.metrics", scikit_image_loop, ("psnr-channel", "ssim")),
        ("Gaussian window", "scipy.signal", gaussian_loop, ("psnr-channel", "ssim-gaussian")),
    ):
        module = optional(package)
        candidates = [Candidate("batched", partial(batched, predicted, truth, names), frames=frames)]
        candidates.append(Candidate("batched, together", partial(together, predicted, truth, names), frames=frames))
        checks: dict[str, float] = {}
        if module is None:
            root = package.split(".")[0].replace("skimage", "scikit-image")
            suite.leave_out(f"{name}: loop over frames", f"{root} is not installed: pip install scikit-image")
        else:
            one_by_one = Candidate("loop over frames", partial(loop, module, *arrays), frames=frames)
            candidates.insert(0, one_by_one)
            theirs = loop(module, *arrays)
            for ours in (batched(predicted, truth, names), together(predicted, truth, names)):
                apart = {each: float(np.abs(ours[each] - theirs[each]).max()) for each in names}
                checks = {each: max(apart[each], checks.get(each, 0.0)) for each in names}
        found = compare(name, candidates, torch.device("cpu"), setting.rounds, setting.advance)
        if module is None:
            for row in found["ways"]:
                row["factor"] = None  # there is nothing slow to compare with
        suite.races.append({**found, "largest_difference": checks})
    return suite


def batched(predicted: Tensor, truth: Tensor, names: tuple[str, ...]) -> Scores:
    """(S, T) for each metric by itself, of (S, T, C, H, W) and (T, C, H, W)."""
    return {name: METRICS[name](predicted, truth).double().numpy() for name in names}


def together(predicted: Tensor, truth: Tensor, names: tuple[str, ...]) -> Scores:
    """The same, sharing what the metrics have in common."""
    return {name: values.double().numpy() for name, values in score_frames(predicted, truth, names).items()}


def scikit_image_loop(module: Any, predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> Scores:
    """SVG's `eval_seq`: each channel of each frame of each sample by itself."""
    psnr, ssim = (np.zeros(predicted.shape[:2]) for _ in range(2))
    for place in np.ndindex(psnr.shape):
        for channel in range(predicted.shape[2]):
            true, guess = truth[place[1], channel], predicted[place][channel]
            psnr[place] += module.peak_signal_noise_ratio(true, guess, data_range=1.0) / predicted.shape[2]
            ssim[place] += module.structural_similarity(true, guess, data_range=1.0) / predicted.shape[2]
    return {"psnr-channel": psnr, "ssim": ssim}


def gaussian_loop(module: Any, predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> Scores:
    """The evaluation of Finn et al. (2016): an 11x11 Gaussian window by `fftconvolve`, in float64."""
    taps = np.array([math.exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6)])
    window = np.outer(taps, taps) / taps.sum() ** 2
    psnr, ssim = (np.zeros(predicted.shape[:2]) for _ in range(2))

    def blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred: NDArray[np.float64] = module.fftconvolve(values, window, mode="valid")
        return blurred

    for place in np.ndindex(psnr.shape):
        for channel in range(predicted.shape[2]):
            true, guess = (array.astype(np.float64) for array in (truth[place[1], channel], predicted[place][channel]))
            psnr[place] += -10 * math.log10(np.square(true - guess).mean()) / predicted.shape[2]
            means = blur(true), blur(guess)
            product, squares = means[0] * means[1], (means[0] ** 2, means[1] ** 2)
            both = (blur(true * true) - squares[0]) + (blur(guess * guess) - squares[1])
            covariance = blur(true * guess) - product
            likeness = (2 * product + 0.01**2) * (2 * covariance + 0.03**2)
            ssim[place] += (likeness / ((sum(squares) + 0.01**2) * (both + 0.03**2))).mean() / predicted.shape[2]
    return {"psnr-channel": psnr, "ssim-gaussian": ssim}


def optional(name: str) -> Any | None:
    """A module that may not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
