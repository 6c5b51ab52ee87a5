"""Verbs that use a run or its results (`evaluate`, `rollout`, `compare`, `export`), and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from foreframe.cli.shared import Mode, Sampling, SamplingFlags, Scoring, ScoringFlags, at_least, known_metrics
from foreframe.errors import UsageError

if TYPE_CHECKING:
    from foreframe.metrics import Fvd


def evaluate(
    run: tyro.conf.Positional[Path],
    scoring: ScoringFlags = Scoring(samples=1),  # noqa: B008
    data: str | None = None,
    mode: Mode = "prediction",
    json: Path | None = None,
    temperature: float = 1.0,
    conditions: Literal["true", "shuffled", "shifted", "zeroed"] = "true",
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    lpips_weights: Path | None = None,
    fvd_weights: Path | None = None,
    fvd_context: bool = True,
) -> None:
    """Score a run on held-out clips, beside trivial baselines: the last frame repeated, the median frame.

    With several samples, their mean and the best of N are reported.

    Args:
        run: Folder of the run.
        data: Clips to score on, as for `train`. Default: those of the run.
        mode: prediction uses none of the frames it is scored on; the others do, and go by their own names.
        json: Where to write the result. Default: in RUN/eval.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        conditions: The clip's own, or these shuffled in time, or each one frame late, or zeros: a model that follows
            its conditions scores worse with the last three.
        metrics: Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian, lpips.
        lpips_weights: For lpips: AlexNet and the linear heads of its version 0.1, as .safetensors (docs/concepts.md).
        fvd_weights: Also the Frechet video distance: I3D for RGB, as .safetensors (docs/concepts.md).
        fvd_context: For it: context frames are part of the clips.
    """
    from foreframe import evaluation
    from foreframe.log import Bar
    from foreframe.metrics import Fvd, Lpips
    from foreframe.report.results import print_result, write_json

    known_metrics(metrics)
    if lpips_weights is not None and "lpips" not in metrics:
        raise UsageError("--lpips-weights: not used, since `lpips` is not among the --metrics")
    if not fvd_context and fvd_weights is None:
        raise UsageError("--no-fvd-context: not used without --fvd-weights FILE")
    scoring.check()
    lpips = None if lpips_weights is None else Lpips.load(lpips_weights).to(scoring.choose_device())
    fvd = None if fvd_weights is None else Fvd.load(fvd_weights, fvd_context).to(scoring.choose_device())
    device, trained, pack = scoring.open(run, data)
    split, horizon = scoring.resolve(trained, pack)
    protocol = evaluation.Protocol(
        split,
        trained.config.train.context,
        horizon,
        mode,
        scoring.samples,
        temperature,
        scoring.seed,
        conditions,
        scoring.clips,
        metrics,
    )
    clips = len(pack.split(split))
    with Bar(mode, scoring.samples * min(scoring.clips or clips, clips)) as bar:
        result = evaluation.evaluate_run(trained, pack, protocol, device, bar.done, lpips, fvd)
    path = write_json(result, json or run / "eval" / _result_name(protocol, scoring.checkpoint, fvd))
    print_result(result)
    print(f"written: {path}")


def rollout(
    run: tyro.conf.Positional[Path],
    out: Path,
    sampling: SamplingFlags = Sampling(samples=1),  # noqa: B008
    data: str | None = None,
    clip: int = 0,
    mode: Mode = "prediction",
    frames: tuple[Path, ...] = (),
    cond: Path | None = None,
    temperature: float = 1.0,
    scale: int = 3,
    fps: float = 0.0,
) -> None:
    """Predict frames and show them: GIF, MP4, a PNG strip, each frame as PNG, and PSNR per frame.

    With --frames and --cond no true frames are needed: only pictures to start from, and conditions.

    Args:
        run: Folder of the run.
        out: Folder for the files.
        data: Clips to begin from, as for `train`. Default: those of the run.
        clip: Number of the clip in its split.
        mode: See `foreframe evaluate --help`.
        frames: The context frames as pictures, instead of --data; as many as the run's context.
        cond: Conditions: a folder of pose pictures, or a CSV with one row a frame; row t leads into frame t, the
            context frames' rows included.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        scale: Pixels are shown this much larger.
        fps: Frames a second of GIF and MP4; 0: those of the data.
    """
    from foreframe.evaluation import default_split
    from foreframe.report import rollout as gallery

    sampling.check()
    at_least(scale=(scale, 1), clip=(clip, 0))
    if cond is not None and not frames:
        raise UsageError("--cond needs --frames: the pictures to begin with (without both, a clip of --data is used)")
    if frames and data is not None:
        raise UsageError("--frames and --data: give one of them, the pictures to begin with or clips to begin from")
    if frames:
        device, trained = sampling.load(run)
        start = gallery.from_files(trained, list(frames), cond, sampling.horizon)
    else:
        device, trained, pack = sampling.open(run, data)
        start = gallery.from_pack(trained, pack, sampling.split or default_split(pack), clip, sampling.horizon)
    fps = fps or trained.config.fps
    samples, seed = sampling.samples, sampling.seed
    print(gallery.write_rollout(trained, start, out, device, mode, samples, temperature, seed, scale, fps))


def compare(results: tyro.conf.Positional[tuple[Path, ...]], out: Path | None = None) -> None:
    """Set results of `evaluate` side by side, each with its difference from the first; only of one protocol.

    Args:
        results: Two or more of the JSON files that `evaluate` writes.
        out: Also write the comparison here: .json with every number, .csv or .md with the table.
    """
    from foreframe.report.results import compare as compare_files
    from foreframe.report.results import print_comparison, write_comparison

    found = compare_files(results)
    print_comparison(found)
    if out is not None:
        write_comparison(found, out)
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
        onnx: File of the prediction step, NAME.onnx; the part that encodes the context comes beside it.
        int8: Also that step with its convolutions in int8, here; its loss of PSNR is measured.
        data: For int8: clips to find ranges on (their training split) and to score on. Default: those of the run.
        split: For int8: the split that is scored. Default: test, or val where there is no test.
        clips: For int8: score at most this many clips; 0: all.
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
