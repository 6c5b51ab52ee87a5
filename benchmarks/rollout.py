"""Prediction: one clip frame by frame, and the best of many samples, against the loop of SVG's script."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.reference.plain import PlainSvg, plain_model
from torch import Tensor

from benchmarks.count import count_flops, training_input
from benchmarks.measure import Candidate, Precision, compare
from benchmarks.suites import BenchContext, Suite
from benchmarks.train import TINY
from foreframe import models, seeds
from foreframe.clip import ClipSpec
from foreframe.errors import UsageError
from foreframe.metrics import METRICS
from foreframe.models import Model
from foreframe.models.svg import Config
from foreframe.onnx import OnnxModel, Recorder, quantise, write_steps
from foreframe.rollout import predict, prepare_for_inference

CONTEXT = 2
SPEC = ClipSpec(3, 64, 64)


@dataclass(frozen=True)
class Sizes:
    """How far is predicted, how many samples there are, and how many of them are unrolled together."""

    horizon: int = 28
    samples: int = 100
    chunk: int = 25
    options: tuple[tuple[str, Any], ...] = ()


FULL, QUICK = Sizes(), Sizes(3, 4, 2, tuple(TINY.items()))


@dataclass(frozen=True)
class Predictor:
    """Another way to predict one clip: `make(model, context, noise)` gives the call, frames (1, T-K, C, H, W) out.

    A new row is a new entry of `PREDICTORS`. `make` raises UsageError where a package is missing, which leaves the
    row out and says why.
    """

    name: str
    make: Callable[[Model, Tensor, Tensor], Callable[[], Tensor]]
    precision: Precision = "float32"
    devices: tuple[str, ...] = ("cpu", "cuda")


def _fast(model: Model, context: Tensor, noise: Tensor) -> Callable[[], Tensor]:
    return partial(predict, prepare_for_inference(model), context, None, noise)


def _onnx(model: Model, context: Tensor, noise: Tensor, small: bool = False) -> Callable[[], Tensor]:
    """The exported files. In int8 ranges are those of this prediction, since only the time is looked at."""
    with tempfile.TemporaryDirectory() as folder:
        step = write_steps(prepare_for_inference(model), SPEC, Path(folder) / "step.onnx")
        predictor = OnnxModel(step)
        if small:
            recorder = Recorder.of(predictor)
            predict(predictor, context, None, noise)
            quantise(step, step.with_name("int8.onnx"), recorder.calls)
            predictor = OnnxModel(step, step.with_name("int8.onnx"))
    return partial(predict, predictor, context, None, noise)


PREDICTORS = (
    Predictor("fast", _fast),
    Predictor("ONNX Runtime", _onnx, devices=("cpu",)),
    Predictor("ONNX Runtime, int8", partial(_onnx, small=True), "int8", devices=("cpu",)),
)


def run(setting: BenchContext) -> Suite:
    """For each backbone: one clip, and the best of many samples of one clip, scored as they are made."""
    suite, sizes, device = Suite(), QUICK if setting.quick else FULL, setting.device
    for backbone in ("dcgan", "vgg"):
        model = settled(backbone, sizes).to(device)
        plain = plain_model(model)
        assert isinstance(plain, PlainSvg)
        context, noise = given(model, sizes, 1, device)
        candidates = [_one("plain", partial(plain.generate, context, None, noise), sizes)]
        reference, apart = plain.generate(context, None, noise), {}
        for other in PREDICTORS:
            if device.type not in other.devices:
                continue
            try:
                call = other.make(model, context, noise)
            except UsageError as error:
                suite.leave_out(f"{backbone}: {other.name}", str(error))
                continue
            apart[other.name] = float((call().to(device) - reference).abs().max())
            candidates.append(_one(other.name, call, sizes, other.precision))
        found = compare(f"one clip, {backbone}", candidates, device, setting.rounds, setting.advance)
        suite.races.append({**found, "largest_difference": apart})
        suite.races.append(_best_of_n(model, plain, backbone, sizes, setting))
    return suite


def settled(backbone: str, sizes: Sizes) -> Model:
    """A model in eval mode whose BatchNorm has seen some frames, so that its pictures are not all the same."""
    config = Config(backbone=backbone, skip="svg", **dict(sizes.options))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Model = models.build(config, SPEC).train()
    clip, mask, noise = training_input(model, SPEC, CONTEXT, 2, 2, 1.0, "cpu")
    with torch.no_grad():
        model(clip, CONTEXT, mask, noise)
    return model.eval()


def given(model: Any, sizes: Sizes, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Context of one clip (1, K, C, H, W) and noise for S samples (S, T-1, Z)."""
    draw = seeds.generator(0, "bench")
    context = torch.rand(1, CONTEXT, SPEC.channels, SPEC.height, SPEC.width, generator=draw)
    noise = torch.randn(samples, CONTEXT + sizes.horizon - 1, *model.latent_shape, generator=draw)
    return context.to(device), noise.to(device)


def best_of_n(chunks: Iterator[Tensor], truth: Tensor) -> float:
    """The best sample's PSNR in dB; of each chunk (S, T-K, C, H, W) only the scores are kept."""
    return max(float(METRICS["psnr"](frames, truth).mean(1).max()) for frames in chunks)


def chunks(model: Model, context: Tensor, noise: Tensor, size: int) -> Iterator[Tensor]:
    """Frames of the samples, some at a time; the context is encoded once for each chunk."""
    for part in noise.split(size):
        yield predict(model, context, None, part)


def _best_of_n(model: Model, plain: PlainSvg, backbone: str, sizes: Sizes, setting: BenchContext) -> dict[str, Any]:
    """All samples in one batch through the plain loop; in chunks, and a quarter of them in chunks, through ours."""
    context, noise = given(model, sizes, sizes.samples, setting.device)
    truth = torch.rand(sizes.horizon, *context.shape[2:], generator=seeds.generator(1, "bench")).to(context)
    few, model = noise[: sizes.samples // 4], prepare_for_inference(model)

    def plainly() -> float:
        copies = context.expand(len(noise), *context.shape[1:])
        return best_of_n(iter([plain.generate(copies, None, noise)]), truth)

    frames = sizes.samples * sizes.horizon
    ours = f"fast, chunks of {sizes.chunk}"
    # Every sample costs the plain loop the same, and every chunk the other.
    alone = count_flops(partial(plain.generate, context, None, noise[:1])) * sizes.samples
    chunk = count_flops(partial(predict, model, context, None, noise[: sizes.chunk])) / sizes.chunk
    candidates = [
        Candidate(f"plain, batch of {sizes.samples}", plainly, alone, frames),
        Candidate(
            ours,
            lambda: best_of_n(chunks(model, context, noise, sizes.chunk), truth),
            chunk * sizes.samples,
            frames,
        ),
        Candidate(
            f"{ours}, {len(few)} samples",
            lambda: best_of_n(chunks(model, context, few, sizes.chunk), truth),
            chunk * len(few),
            len(few) * sizes.horizon,
        ),
    ]
    name = f"best of {sizes.samples}, {backbone}"
    return {
        **compare(name, candidates, setting.device, setting.rounds, setting.advance),
        "samples": sizes.samples,
        "horizon": sizes.horizon,
    }


def _one(name: str, run: Callable[[], object], sizes: Sizes, precision: Precision = "float32") -> Candidate:
    return Candidate(name, run, count_flops(run), sizes.horizon, precision)
