"""Verbs that use a run or its results (`evaluate`, `rollout`, `compare`, `export`), and `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foreframe.cli.shared import Mode, Sampling, SamplingFlags, Scoring, ScoringFlags, at_least
from foreframe.errors import UsageError

if TYPE_CHECKING:
    from foreframe.evaluation import MeasuredProtocol


@dataclass(frozen=True)
class Measuring:
    """What `evaluate` measures."""

    mode: Mode = "prediction"
    """prediction uses none of the frames it is scored on; the others do, and go by their own names."""
    temperature: float = 1.0
    """Scale of the noise; 0 takes the mean of the prior."""
    conditions: Literal["true", "shuffled", "shifted", "zeroed"] = "true"
    """The clip's own, or these shuffled in time, or each one frame late, or zeros: a model that follows its conditions
    scores worse with the last three."""
    metrics: tuple[str, ...] = ("psnr", "ssim")
    """Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian, lpips."""
    lpips_weights: Path | None = None
    """For lpips: AlexNet and the linear heads of its version 0.1, as .safetensors (docs/concepts.md)."""
    fvd_weights: Path | None = None
    """Also the Frechet video distance: I3D for RGB, as .safetensors (docs/concepts.md)."""
    fvd_context: bool = True
    """For it: context frames are part of the clips."""


def evaluate(
    run: tyro.conf.Positional[Path],
    scoring: ScoringFlags = Scoring(samples=1),  # noqa: B008
    measuring: Annotated[Measuring, tyro.conf.arg(name="")] = Measuring(),
    data: str | None = None,
    json: Path | None = None,
) -> None:
    """Score a run on held-out clips, beside trivial baselines: the last frame repeated, the median frame.

    With several samples, their mean and the best of N are reported.

    Args:
        run: Folder of the run.
        data: Clips to score on, as for `train`. Default: those of the run.
        json: Where to write the result. Default: in RUN/eval.
    """
    from foreframe import api
    from foreframe.report.results import print_result, write_json

    asked = {name: getattr(scoring, name) for name in ("split", "horizon", "samples", "clips", "seed")}
    result = api.evaluate(scoring.load(run), data, **asked, **vars(measuring), progress=True)
    path = write_json(result, json or run / "eval" / _result_name(result.protocol, scoring))
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
    truth: Path | None = None,
    temperature: float = 1.0,
    scale: int = 3,
    fps: float = 0.0,
    submission: Path | None = None,
) -> None:
    """Predict frames and show them: GIF, MP4, a PNG strip, each frame as PNG, and PSNR per frame.

    With --frames and --cond no true frames are needed: only pictures to start from, and conditions. Of a split without
    truth, as the pose lab's test, all sequences are predicted together, and files are named after them.

    Args:
        run: Folder of the run.
        out: Folder for the files.
        data: Clips to begin from, as for `train`. Default: those of the run.
        clip: Number of the clip in its split.
        mode: See `foreframe evaluate --help`.
        frames: The context frames as pictures, instead of --data; as many as the run's context. Or a folder of them, in
            which later frames are truth; or a folder with such a folder for each of many sequences.
        cond: Conditions: a folder of pose pictures, or a CSV with one row a frame; row t leads into frame t, the
            context frames' rows included. Of many sequences: a folder of such, of the same names.
        truth: With --frames: a folder of true frames to score with, or one of such folders; context frames may lack.
        temperature: Scale of the noise; 0 takes the mean of the prior.
        scale: Pixels are shown this much larger.
        fps: Frames a second of GIF and MP4; 0: those of the data.
        submission: Also write all frames as the pose lab hands them in, a .csv: a row of whole numbers for each.
    """
    from foreframe import api
    from foreframe.data.layouts.contract import Inputs
    from foreframe.data.open import find_inputs
    from foreframe.log import Bar
    from foreframe.report.rollout import Rolling, write_rollouts
    from foreframe.report.starts import from_files, from_folders, from_pack

    at_least(scale=(scale, 1), clip=(clip, 0))
    if submission is not None and sampling.samples != 1:
        raise UsageError(f"--submission: holds one prediction of each sequence, not --samples {sampling.samples}")
    if (cond is not None or truth is not None) and not frames:
        flag = "--truth" if cond is None else "--cond"
        raise UsageError(f"{flag} needs --frames: the pictures to begin with (without both, a clip of --data is used)")
    if frames and data is not None:
        raise UsageError("--frames and --data: give one of them, the pictures to begin with or clips to begin from")
    predictor = sampling.load(run)
    trained, split, horizon = predictor.trained, sampling.split, sampling.horizon
    given = None if data is None or split is None else find_inputs(data, split)
    if frames:
        given = Inputs(frames[0], cond, truth)
    if given is None:
        starts = [from_pack(trained, api.clips_of(trained, data), split, clip, horizon)]
    elif clip:
        raise UsageError("--clip: chooses a clip that is packed; of other sequences give --frames and --cond")
    elif len(frames) > 1 or not given.frames.is_dir():
        starts = [from_files(trained, list(frames) or [given.frames], given, horizon)]
    else:
        starts = from_folders(trained, given, horizon)
    rolling = Rolling(
        mode,
        sampling.samples,
        temperature,
        sampling.seed,
        scale,
        fps or predictor.fps,
        given.scored if given else 0,
        submission,
    )
    total = sampling.samples * sum(start.length - predictor.context for start in starts)
    with Bar(mode, total) as bar:
        said = write_rollouts(trained, starts, out, predictor.device, rolling, bar.done)
    print(said)


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


def _result_name(protocol: MeasuredProtocol, scoring: Scoring) -> str:
    """A name for each kind of result: the split, the mode, and whatever is not the default."""
    parts = [protocol.split, protocol.mode, f"{protocol.horizon}-frames", f"{protocol.samples}-samples"]
    values = {
        "checkpoint": (scoring.checkpoint, "best"),
        "conditions": (protocol.conditions, "true"),
        "temperature": (protocol.temperature, 1.0),
        "seed": (protocol.seed, 0),
        "clips": (scoring.clips, 0),
    }
    parts += [f"{name}-{value}" for name, (value, usual) in values.items() if value != usual]
    parts += protocol.metrics if list(protocol.metrics) != ["psnr", "ssim"] else []
    if protocol.fvd is not None:
        parts.append("fvd" if protocol.fvd.context_frames else "fvd-without-context")
    return "-".join(parts) + ".json"
