"""A rollout for people: the GIF, MP4, strip, pictures and curve that it writes, of one sequence or of many."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foreframe import signals, video
from foreframe.checkpoint import TrainedModel
from foreframe.clip import unit
from foreframe.config import to_dict
from foreframe.disk import put_all
from foreframe.errors import DataError, printable
from foreframe.metrics import METRICS
from foreframe.predictor import STRIP_COLUMNS
from foreframe.report.plots import encoded, line_figure, over_frames, per_frame
from foreframe.report.results import BASELINES
from foreframe.report.sequences import score, submission
from foreframe.report.starts import Start
from foreframe.rollout import ModeName, prepare_for_inference, raise_if_not_finite, stream, stream_noise
from foreframe.video.write import encode_gif, encode_mp4, encode_png

ROWS = 64
"""Sequences predicted together."""


@dataclass(frozen=True)
class Rolling:
    """How to roll out and show it.

    scored: of the predicted frames, the first N also have a score by themselves; 0: only all of them have.
    submission: also write the pose lab's table of all frames here.
    """

    mode: ModeName = "prediction"
    samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    scale: int = 3
    fps: float = 10.0
    scored: int = 0
    submission: Path | None = None


def write_rollouts(
    trained: TrainedModel,
    starts: Sequence[Start],
    out: Path,
    device: torch.device,
    rolling: Rolling,
    advance: Callable[[int], None] | None = None,
) -> str:
    """Roll out and write everything into `out`; returns a few lines that say what was made.

    rollout.gif and rollout.mp4: truth, prediction, error, further samples. strip.png: the same as a picture.
    frames/sample-1/00003.png ...: every predicted frame as it is, numbered from 1 as in the strip.
    psnr.json, psnr.png, psnr.svg: score per frame where the truth is known, beside the last context frame
    repeated. Of several sequences: NAME.gif, NAME.mp4, NAME-strip.png, NAME/sample-1/, NAME-psnr.* of each, and
    scores.json. They replace those of an earlier rollout, all or none.

    Args:
        advance: Called with the number of frames predicted.
    Raises:
        DataError: a mode that needs true frames, which are not known.
        DiskError: the disk refused; everything in `out` is as it was.
    """
    for start in starts:
        if rolling.mode != "prediction" and (start.truth is None or start.truth.shape[1] < start.length):
            raise DataError(
                f"--mode {rolling.mode} needs the true frames, which are not known here; only prediction is possible"
            )
    futures = _predict(trained, starts, device, rolling, advance)
    files, lines, gone = {}, [], []
    for start, made in zip(starts, futures, strict=True):
        place = Place(out, start.files)
        more, line = _files(place, start, made, rolling, trained)
        files.update(more)
        lines += [line] if not start.files else []
        gone += place.earlier()
    several = bool(starts[0].files)
    if several:
        lengths = sorted({start.length - start.context.shape[1] for start in starts})
        frames = " to ".join(map(str, dict.fromkeys((lengths[0], lengths[-1]))))
        lines.append(
            f"{len(starts)} sequences: {rolling.mode} of {frames} frames, {rolling.samples} sample(s), in {out}"
        )
        gone.append(out / "scores.json")
        scores = score(starts, futures, rolling.mode, trained, rolling.scored)
        lines += scores.lines
        if any(start.truth is not None for start in starts):
            files[out / "scores.json"] = scores.file
    if rolling.submission is not None:
        files[rolling.submission] = submission(starts, futures)
        lines.append(f"written: {rolling.submission}")
    put_all(files, [path for path in gone if path not in files])
    for start in starts:
        Place(out, start.files).leave_no_empty_folder()
    return "\n".join(lines)


@dataclass(frozen=True)
class Place:
    """Where the files of a rollout lie: in `out`, named after the sequence where there are several."""

    out: Path
    sequence: str = ""

    def __call__(self, file: str) -> Path:
        if not self.sequence:
            return self.out / file
        own = {"rollout.gif": ".gif", "rollout.mp4": ".mp4", "frames": ""}.get(file, f"-{file}")
        return self.out / f"{self.sequence}{own}"

    def earlier(self) -> list[Path]:
        """Where an earlier rollout left its files."""
        names = ("rollout.gif", "rollout.mp4", "strip.png", "psnr.json", "psnr.png", "psnr.svg")
        return [*map(self, names), *self("frames").glob("sample-*/*.png")]

    def leave_no_empty_folder(self) -> None:
        for folder in self("frames").glob("sample-*"):
            with suppress(OSError):  # not empty
                folder.rmdir()


def _predict(
    trained: TrainedModel,
    starts: Sequence[Start],
    device: torch.device,
    rolling: Rolling,
    advance: Callable[[int], None] | None,
) -> list[list[Tensor]]:
    """Of each start S predictions (T-K, C, H, W): those of one length are one batch, frame by frame."""
    model = prepare_for_inference(trained.model)
    futures: list[list[Tensor]] = [[] for _ in starts]
    alike: dict[int, list[int]] = {}
    for i, start in enumerate(starts):
        alike.setdefault(start.length, []).append(i)
    batches = [rows[first : first + ROWS] for rows in alike.values() for first in range(0, len(rows), ROWS)]
    for rows in batches:
        batch = [starts[i] for i in rows]
        length, clips = batch[0].length, [start.number for start in batch]
        context = unit(_joined([start.context for start in batch], device))
        cond = None if batch[0].cond is None else _joined([start.cond for start in batch], device)
        truth = None if rolling.mode == "prediction" else _joined([start.truth for start in batch], device)
        known = context.shape[1]
        for sample in range(rolling.samples):
            draws = stream_noise(model, clips, length, rolling.seed, sample, rolling.temperature)
            made = torch.empty(len(rows), length - known, *context.shape[2:])
            steps = stream(model, context, cond, (z.to(device) for z in draws), rolling.mode, truth)
            for t, step in enumerate(steps):
                signals.poll()
                made[:, t] = step.frame
                if advance is not None:
                    advance(len(rows))
            raise_if_not_finite(made, known)
            for i, frames in zip(rows, made, strict=True):
                futures[i].append(frames)
    return futures


def _joined(parts: Sequence[Tensor | None], device: torch.device) -> Tensor:
    return torch.cat([part for part in parts if part is not None]).to(device)


def _files(
    place: Place, start: Start, futures: list[Tensor], rolling: Rolling, trained: TrainedModel
) -> tuple[dict[Path, bytes], str]:
    """All files of one sequence, and a line or two about it."""
    known, mode, files = start.context.shape[1], rolling.mode, {}
    for sample, future in enumerate(futures, 1):
        for t, frame in enumerate(video.pictures(future), known + 1):
            files[place("frames") / f"sample-{sample}" / f"{t:05d}.png"] = encode_png(frame)
    rows = _rows(start, futures, mode)
    grid, every = video.grid(rows, context=known, scale=rolling.scale), max(1, math.ceil(start.length / STRIP_COLUMNS))
    files[place("rollout.gif")] = encode_gif(grid, rolling.fps)
    files[place("rollout.mp4")] = encode_mp4(grid, rolling.fps)
    files[place("strip.png")] = encode_png(video.strip(rows, every=every, context=known))
    name, count = printable(start.name), len(futures)
    line = f"{name}: {mode} of {start.length - known} frames, {count} sample(s), in {place.out}"
    if start.truth is None:
        return files, line
    scores, score_line = _scores(place, start, futures, mode, trained)
    return files | scores, f"{line}\n{score_line}"


def _scores(
    place: Place, start: Start, futures: list[Tensor], mode: str, trained: TrainedModel
) -> tuple[dict[Path, bytes], str]:
    """Files of the PSNR per frame, and it in a line."""
    assert start.truth is not None
    psnr, known = METRICS["psnr"], start.context.shape[1]
    truth = unit(start.truth[0, known:])
    guesses = {f"{mode}, sample {i}" if len(futures) > 1 else mode: future for i, future in enumerate(futures, 1)}
    curves = {name: psnr(guess[: len(truth)], truth) for name, guess in guesses.items()}
    curves[BASELINES["repeat_last"]] = psnr(unit(start.context[0, -1:]).expand_as(truth), truth)
    values = {name: {"mean": float(curve.mean()), "per_frame": curve.tolist()} for name, curve in curves.items()}
    record = {
        "clip": start.name,
        "mode": mode,
        "context": known,
        "metric": psnr.definition,
        "model": to_dict(trained.provenance),
        "psnr": values,
    }
    files = {place("psnr.json"): (json.dumps(record, indent=1) + "\n").encode()}
    numbers = [*range(len(futures)), None]
    named = zip(curves.items(), numbers, strict=True)
    lines = [per_frame(name, curve.tolist(), known, number) for (name, curve), number in named]
    figure = line_figure(over_frames(f"{start.name}: PSNR per frame", "PSNR (dB)", known, lines))
    files |= {path: encoded(figure, path) for path in (place("psnr.png"), place("psnr.svg"))}
    return files, "PSNR: " + ", ".join(f"{name} {value['mean']:.2f} dB" for name, value in values.items())


def _rows(start: Start, futures: list[Tensor], mode: str) -> list[video.Row]:
    """Labelled videos of equal length: truth where it is known, first future, error, the other futures."""
    context = video.pictures(start.context[0])
    whole = [np.concatenate([context, video.pictures(future)]) for future in futures]
    if start.truth is None:
        return [(f"{mode} {i}" if len(whole) > 1 else mode, frames) for i, frames in enumerate(whole, 1)]
    truth = video.pictures(start.truth[0])
    known = len(truth)
    error = np.zeros_like(whole[0])
    error[:known] = video.error_picture(whole[0][:known], truth)
    padded = np.zeros_like(whole[0])
    padded[:known] = truth
    rows: list[video.Row] = [("truth", padded), (mode, whole[0]), ("error x4", error)]
    return rows + [(f"sample {i}", frames) for i, frames in enumerate(whole[1:], 2)]
