"""Verbs that use a run or its results (`evaluate`, `rollout`, `compare`, `export`), and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from foreframe.cli.shared import Device, Mode, at_least, known_metrics, open_run
from foreframe.errors import UsageError

if TYPE_CHECKING:
    from foreframe.checkpoint import TrainedModel
    from foreframe.data.pack.pack import Pack
    from foreframe.metrics import Fvd


def evaluate(
    run: tyro.conf.Positional[Path],
    data: str | None = None,
    split: str | None = None,
    mode: Mode = "prediction",
    samples: int = 1,
    json: Path | None = None,
    horizon: int = 0,
    checkpoint: str = "best",
    temperature: float = 1.0,
    seed: int = 0,
    conditions: Literal["true", "shuffled", "shifted", "zeroed"] = "true",
    clips: int = 0,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    lpips_weights: Path | None = None,
    fvd_weights: Path | None = None,
    fvd_context: bool = True,
    device: Device = "auto",
    threads: int | None = None,
) -> None:
    """Score a run on held-out clips, beside what costs nothing: the last frame repeated, the median frame.

    Args:
        run: Folder of the run.
        data: Clips to score on, as for `train`. Default: those of the run.
        split: Which of their splits. Default: test, or val where there is no test.
        mode: prediction sees nothing of what it is scored on; the others do, and go by their own names.
        samples: Rollouts of each clip; their mean and the best of N are reported.
        json: Where to write the result. Default: in RUN/eval.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the shortest clip.
        checkpoint: best (by validation), newest, or a step.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        seed: Of the noise.
        conditions: The clip's own, or the same in another order of time, or each one frame late, or zeros: does the
            model obey them?
        clips: At most this many clips; 0: all.
        metrics: Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian, lpips.
        lpips_weights: For lpips: AlexNet and the linear heads of its version 0.1, as .npz (docs/concepts.md).
        fvd_weights: Also the Frechet video distance: I3D for RGB, as .npz or .safetensors (docs/concepts.md).
        fvd_context: For it: context frames are part of the clips.
        device: Where to compute.
        threads: CPU threads.
    """
    from foreframe import evaluation as scoring
    from foreframe.device import choose_device
    from foreframe.log import Bar
    from foreframe.metrics import Fvd, Lpips
    from foreframe.report.tables import print_result, write_result

    known_metrics(metrics)
    if lpips_weights is not None and "lpips" not in metrics:
        raise UsageError("--lpips-weights: what for? `lpips` is not among the --metrics")
    if not fvd_context and fvd_weights is None:
        raise UsageError("--no-fvd-context: what for? --fvd-weights FILE asks for the distance it belongs to")
    lpips = None if lpips_weights is None else Lpips.load(lpips_weights).to(choose_device(device, threads))
    fvd = None if fvd_weights is None else Fvd.load(fvd_weights, fvd_context).to(choose_device(device, threads))
    at_least(samples=(samples, 1), clips=(clips, 0), horizon=(horizon, -1))
    chosen, trained, pack = open_run(run, data, checkpoint, device, threads)
    split = split or scoring.default_split(pack)
    frames = _horizon(trained, pack, split, horizon)
    protocol = scoring.Protocol(
        split, trained.config.train.context, frames, mode, samples, temperature, seed, conditions, clips, metrics
    )
    total = samples * (min(clips, len(pack.split(split))) if clips else len(pack.split(split)))
    with Bar(mode, total) as bar:
        result = scoring.evaluate_run(trained, pack, protocol, chosen, bar.done, lpips, fvd)
    path = write_result(result, json or run / "eval" / _result_name(protocol, checkpoint, fvd))
    print_result(result)
    print(f"written: {path}")


def rollout(
    run: tyro.conf.Positional[Path],
    out: Path,
    data: str | None = None,
    split: str | None = None,
    clip: int = 0,
    horizon: int = 0,
    samples: int = 1,
    mode: Mode = "prediction",
    frames: tuple[Path, ...] = (),
    cond: Path | None = None,
    checkpoint: str = "best",
    temperature: float = 1.0,
    seed: int = 0,
    scale: int = 3,
    fps: float = 0.0,
    device: Device = "auto",
    threads: int | None = None,
) -> None:
    """Predict frames and show them: GIF, MP4, a PNG strip, each frame as PNG, and PSNR per frame.

    With --frames and --cond nothing of the future is needed: pictures to start from and what is to be done.

    Args:
        run: Folder of the run.
        out: Folder for what is made.
        data: Clips to begin from, as for `train`. Default: those of the run.
        split: Which of their splits. Default: test, or val where there is no test.
        clip: Number of the clip in its split.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the clip. May exceed the training's.
        samples: How many futures.
        mode: See `foreframe evaluate --help`.
        frames: The context frames as pictures, instead of --data; as many as the run's context.
        cond: What is to be done: a folder of pose pictures, or a CSV with one row a frame; row t leads into
            frame t, the context frames' rows included.
        checkpoint: best (by validation), newest, or a step.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        seed: Of the noise; sample i is the same however many are asked for.
        scale: Pixels are shown this much larger.
        fps: Frames a second of GIF and MP4; 0: those of the data.
        device: Where to compute.
        threads: CPU threads.
    """
    from foreframe.evaluation import default_split
    from foreframe.report import rollout as gallery

    at_least(samples=(samples, 1), horizon=(horizon, -1), scale=(scale, 1), clip=(clip, 0))
    if cond is not None and not frames:
        raise UsageError("--cond needs --frames: the pictures to begin with (without both, a clip of --data is used)")
    if frames and data is not None:
        raise UsageError("--frames and --data: give one of them, the pictures to begin with or clips to begin from")
    if frames:
        chosen, trained, _ = open_run(run, None, checkpoint, device, threads, clips=False)
        start = gallery.from_files(trained, list(frames), cond, horizon)
    else:
        chosen, trained, pack = open_run(run, data, checkpoint, device, threads)
        start = gallery.from_pack(trained, pack, split or default_split(pack), clip, horizon)
    made = gallery.write_rollout(
        trained, start, out, chosen, mode, samples, temperature, seed, scale, fps or trained.config.fps
    )
    print(made)


def compare(results: tyro.conf.Positional[tuple[Path, ...]], out: Path | None = None) -> None:
    """Set results of `evaluate` side by side, each with its difference from the first; only of one protocol.

    Args:
        results: Two or more of the JSON files that `evaluate` writes.
        out: Also write the comparison here: .json with every number, .csv or .md with the table.
    """
    from foreframe.report import comparison

    found = comparison.compare(results)
    comparison.print_comparison(found)
    if out is not None:
        comparison.write_comparison(found, out)
        print(f"written: {out}")


def export(
    run: tyro.conf.Positional[Path],
    onnx: Path,
    int8: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    clips: int = 32,
    checkpoint: str = "best",
    overwrite: bool = False,
    threads: int | None = None,
) -> None:
    """Write a run's model for ONNX Runtime: single steps of prediction, with their memory in and out.

    Args:
        run: Folder of the run.
        onnx: File of the prediction step, NAME.onnx; what looks at the context comes beside it.
        int8: Also that step with its convolutions in int8, here; what it costs in PSNR is measured.
        data: For int8: clips to find ranges on (their training split) and to score on. Default: those of the run.
        split: For int8: the split that is scored. Default: test, or val where there is no test.
        clips: For int8: score at most so many clips; 0: all.
        checkpoint: best (by validation), newest, or a step.
        overwrite: Replace files that are there.
        threads: CPU threads.
    """
    from foreframe.onnx import export as write

    at_least(clips=(clips, 0))
    print(write(run, onnx, int8, data, split, clips, checkpoint, overwrite, threads))


def demo(out: Path = Path("demo"), max_minutes: float = 4.5, threads: int | None = None) -> None:
    """Train on the sample inside, score on its test clips and show the result: minutes on a CPU.

    Args:
        out: Folder for the run, GIFs and the page.
        max_minutes: Longest time for training.
        threads: CPU threads.
    """
    from foreframe.demo import run_demo

    run_demo(out, max_minutes, threads)


def _horizon(trained: TrainedModel, pack: Pack, split: str, horizon: int) -> int:
    from foreframe.evaluation import default_horizon, full_horizon

    if horizon == -1:
        return full_horizon(pack, split, trained.config.train.context)
    return horizon or default_horizon(trained.config, pack, split)


def _result_name(protocol: Any, checkpoint: str, fvd: Fvd | None) -> str:
    """A name for each kind of result: the split, the mode, and whatever is not the default."""
    plain = type(protocol)(protocol.split, protocol.context, protocol.horizon)
    parts = [protocol.split, protocol.mode, f"{protocol.horizon}-frames", f"{protocol.samples}-samples"]
    parts += [f"checkpoint-{checkpoint}"] if checkpoint != "best" else []
    for name in ("conditions", "temperature", "seed", "clips"):
        if getattr(protocol, name) != getattr(plain, name):
            parts.append(f"{name}-{getattr(protocol, name)}")
    parts += protocol.metrics if protocol.metrics != plain.metrics else []
    parts += [] if fvd is None else ["fvd"] if fvd.context else ["fvd-without-context"]
    return "-".join(parts) + ".json"
