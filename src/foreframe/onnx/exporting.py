"""From a run to ONNX files: written all or none, compared with the model, timed and scored."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import foreframe
from foreframe import disk
from foreframe.checkpoint import TrainedModel, load_run
from foreframe.clip import Clip, ClipSpec
from foreframe.config import to_dict
from foreframe.data.loading.windows import Windows
from foreframe.data.open import open_clips
from foreframe.data.pack.pack import Pack
from foreframe.device import choose_device
from foreframe.disk import put_all
from foreframe.errors import TrainingError, UsageError
from foreframe.evaluation import MeasuredProtocol, Protocol, check_spec, evaluate, resolve
from foreframe.models import Model
from foreframe.onnx.graphs import graphs, random_step
from foreframe.onnx.int8 import Recorder, quantise
from foreframe.onnx.proto import package
from foreframe.onnx.runner import COMPANIONS, OnnxModel, companion
from foreframe.rollout import draw_noise, predict, prepare_for_inference

LARGEST_DIFFERENCE = 1e-4
"""Of pixels in [0, 1] from those of torch: what is further off is no copy of the model."""
CHECKED_FRAMES = 8
"""Frames that are predicted in the comparison with torch."""
CALIBRATION_CLIPS = 16
"""Training clips whose steps say which range each tensor has, for int8."""
TIMED_ROUNDS = 15
UNITS = {
    "none": "",
    "vector": "float32, (batch, numbers), in the units of the data: they are standardised in the graph; those of t "
    "lead into frame t",
    "image": "float32 in [0, 1], (batch, channels, height, width); the picture of frame t leads into frame t",
}
"""Of a condition, by its kind."""


@dataclass(frozen=True)
class Exported:
    """What was written, how far it is from the model, and what it takes.

    files: size of each in bytes. difference: the largest of any pixel of `CHECKED_FRAMES` frames. milliseconds: a
    step of one clip by torch, by ONNX Runtime, and by it in int8, in time of the processor. psnr: in dB, of fp32 and
    int8 on the same clips; empty without int8.
    """

    files: dict[Path, int]
    difference: float
    milliseconds: dict[str, float]
    threads: int
    psnr: dict[str, float]
    protocol: MeasuredProtocol | None

    def __str__(self) -> str:
        lines = [f"written: {path} ({size / 1e6:.1f} MB)" for path, size in self.files.items()]
        lines.append(f"largest difference from torch over {CHECKED_FRAMES} frames: {self.difference:.1e}")
        times = ", ".join(f"{name} {value:.1f}" for name, value in self.milliseconds.items())
        lines.append(f"ms of processor a step, one clip, {self.threads} threads: {times}")
        if self.protocol is not None:
            loss = self.psnr["fp32"] - self.psnr["int8"]
            lines.append(
                f"PSNR over {self.protocol.horizon} frames of {self.protocol.clips} clips of "
                f"{self.protocol.split}: fp32 {self.psnr['fp32']:.3f} dB, int8 {self.psnr['int8']:.3f} dB: "
                f"int8 costs {loss:.3f} dB"
            )
        return "\n".join(lines)


def export(
    run: Path,
    onnx: Path,
    int8: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    clips: int = 32,
    checkpoint: str = "best",
    overwrite: bool = False,
    threads: int | None = None,
) -> Exported:
    """Write a run's model as ONNX files, compare them with it, and time them.

    Either all files are written or none.

    Args:
        onnx: File of the prediction step, NAME.onnx.
        int8: Also write that step with its convolutions in int8, here; used in the place of the other.
        data, split, clips: For int8: clips to find the ranges on (their training split), and which are scored.
        run, checkpoint, overwrite, threads: As of `foreframe export`.
    Raises:
        UsageError: a name does not end in .onnx, a file is there already, or a package is missing.
        CheckpointError, ConfigError, DataError: the run or its clips cannot be used.
        TrainingError: the files do not compute what the model does.
        DiskError: the disk refused; every file is as it was.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        package(name)
    _check_names(onnx, int8, overwrite)
    choose_device("cpu", threads)
    trained = load_run(run, checkpoint, torch.device("cpu"))
    pack = None
    if int8 is not None:
        pack = Pack.open(trained.config.data.path) if data is None else open_clips(data, progress=True)
        check_spec(trained, pack)
    model, spec = prepare_for_inference(trained.model), trained.config.spec

    draft = onnx.parent / f"{disk.TEMPORARY}{os.getpid()}-{onnx.name[:100]}"
    try:
        main, small = draft / "step.onnx", draft / "int8.onnx"
        write_steps(model, spec, main, notes(trained))
        drafts = {onnx: main}
        for graph in COMPANIONS:
            if companion(main, graph).is_file():
                drafts[companion(onnx, graph)] = companion(main, graph)
        runners: dict[str, Model] = {"torch": model, "fp32": OnnxModel(main)}
        difference = largest_difference(model, runners["fp32"], spec, trained.config.train.context)
        psnr: dict[str, float] = {}
        protocol = None
        if int8 is not None and pack is not None:
            calls = _steps_taken(main, trained, pack)
            try:
                quantise(main, small, calls)
            except OSError as error:
                raise disk.refused(small, error) from error
            drafts[int8] = small
            runners["int8"] = OnnxModel(main, small)
            psnr, protocol = _scores(trained, pack, runners, split, clips)
        times = milliseconds(runners, spec)
        files = {final: path.read_bytes() for final, path in drafts.items()}
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    of_another = [companion(onnx, graph) for graph in COMPANIONS if companion(onnx, graph) not in files]
    put_all(files, of_another)
    sizes = {final: len(data) for final, data in files.items()}
    return Exported(sizes, difference, times, torch.get_num_threads(), psnr, protocol)


def write_steps(model: Model, spec: ClipSpec, path: Path, about: dict[str, Any] | None = None) -> Path:
    """Write a model's steps and nothing else: `path`, and the files beside it where it has a state.

    Args:
        model: From `prepare_for_inference`.
        spec: The clips it takes.
        path: NAME.onnx.
        about: What the files say of themselves, as from `notes`.
    Returns:
        `path`.
    """
    for graph, proto in graphs(model, spec, about or {}).items():
        place = path if graph == "step" else companion(path, graph)
        disk.put(place, proto.SerializeToString())
    return path


def _check_names(onnx: Path, int8: Path | None, overwrite: bool) -> None:
    ours = [onnx, *(companion(onnx, graph) for graph in COMPANIONS)]
    if int8 in ours:
        raise UsageError(f"--int8 {int8}: expected another name than those of the files of --onnx {onnx}")
    for path in ours if int8 is None else [*ours, int8]:
        if path.suffix != ".onnx":
            raise UsageError(f"{path}: expected a name that ends in .onnx")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: there is a file already; --overwrite replaces it")


def notes(trained: TrainedModel) -> dict[str, Any]:
    """What somebody with the files alone must know: sizes, units, names, and which weights these are."""
    config, spec = trained.config, trained.config.spec
    return {
        "foreframe": foreframe.__version__,
        **to_dict(trained.provenance),
        "context": config.train.context,
        "pixels": "float32 in [0, 1], RGB, (batch, channels, height, width)",
        "frame_shape": [spec.channels, spec.height, spec.width],
        "fps": config.fps,
        "cond": spec.cond,
        "cond_names": list(config.cond_names),
        "cond_units": UNITS[spec.cond],
    }


def largest_difference(model: Model, other: Model, spec: ClipSpec, context: int) -> float:
    """Of any pixel of two models' predictions from random frames, of one clip and of three.

    Raises:
        TrainingError: it is more than `LARGEST_DIFFERENCE`.
    """
    length = context + CHECKED_FRAMES
    apart = []
    for rows in (1, 3):
        parts = random_step(spec, model.latent_shape, rows * length)
        frames, cond, noise = (None if part is None else part.unflatten(0, (rows, length)) for part in parts)
        assert frames is not None
        assert noise is not None
        ours, theirs = (predict(one, frames[:, :context], cond, noise[:, 1:]) for one in (model, other))
        apart.append((ours - theirs).abs().max())
    largest = float(torch.stack(apart).max())
    if not largest <= LARGEST_DIFFERENCE:
        raise TrainingError(
            f"the ONNX files differ from the model by {largest:.1e}, more than {LARGEST_DIFFERENCE:.0e}: nothing was "
            "written"
        )
    return largest


def milliseconds(runners: dict[str, Model], spec: ClipSpec) -> dict[str, float]:
    """Time of the processor for a step of one clip, the median of some rounds in which each takes its turn."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    with torch.no_grad():
        frame, cond, noise = random_step(spec, next(iter(runners.values())).latent_shape, 1)
        clip = Clip(frame[:, None], None if cond is None else cond[:, None])
        states = {name: one.step(one.initial(clip, 1), frame, cond, noise, None, 0)[0] for name, one in runners.items()}
        for _ in range(TIMED_ROUNDS):
            for name, runner in runners.items():
                begun = time.process_time()
                runner.step(states[name], frame, cond, noise)
                times[name].append(1e3 * (time.process_time() - begun))
    return {name: statistics.median(spent) for name, spent in times.items()}


def _scores(
    trained: TrainedModel, pack: Pack, runners: dict[str, Model], split: str | None, clips: int
) -> tuple[dict[str, float], MeasuredProtocol]:
    """PSNR of fp32 and int8 on held-out clips, and the protocol of both."""
    split, horizon = resolve(trained.config, pack, split)
    protocol = Protocol(split, trained.config.train.context, horizon, clips=clips, metrics=("psnr",))
    results = {name: evaluate(runners[name], pack, protocol, torch.device("cpu")) for name in ("fp32", "int8")}
    psnr = {name: result.scores["psnr"].mean for name, result in results.items()}
    return psnr, results["fp32"].protocol


def _steps_taken(step: Path, trained: TrainedModel, pack: Pack) -> list[dict[str, Any]]:
    """What the prediction step is fed while training clips are predicted from their context, as in use."""
    train = trained.config.train
    windows = Windows(pack, train.split, train.length)
    count = min(len(windows), CALIBRATION_CLIPS)
    chosen = [number * len(windows) // count for number in range(count)]
    clip = windows.batch(chosen).unit()
    model = OnnxModel(step)
    recorder = Recorder.of(model)
    noise = draw_noise(model, chosen, train.length, train.seed)
    predict(model, clip.frames[:, : train.context], clip.cond, noise)
    return recorder.calls
