"""What is written of the sequences of a test set together: their scores, and the pose lab's submission."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreframe import video
from foreframe.checkpoint import TrainedModel
from foreframe.clip import unit
from foreframe.config import to_dict
from foreframe.errors import DataError, printable
from foreframe.metrics import METRICS
from foreframe.report.results import BASELINES
from foreframe.report.starts import Start

SCORED_BY = ("psnr", "psnr-channel")
"""The first is what the pose lab scores: one error over all pixels and channels of a frame."""


@dataclass(frozen=True)
class Scores:
    """file: all of it as JSON. lines: the means for people."""

    file: bytes
    lines: tuple[str, ...]


def score(
    starts: Sequence[Start], futures: Sequence[list[Tensor]], mode: str, trained: TrainedModel, first: int
) -> Scores:
    """Scores of the sequences whose truth is known, as levels of 8 bits, and their mean over sequences.

    Args:
        futures: Of each sequence S predictions (T-K, C, H, W); the mean of their scores counts.
        first: Of the predicted frames the first N are scored by themselves as well; 0: all only.
    """
    pairs = {start.name: (start, made) for start, made in zip(starts, futures, strict=True) if start.truth is not None}
    found = {name: _of_sequence(start, made, mode, first) for name, (start, made) in pairs.items()}
    without = ", ".join(printable(start.name) for start in starts if start.truth is None)
    mean = _means(list(found.values()))
    record = {
        "mode": mode,
        "context": starts[0].context.shape[1],
        "frames": "numbered from 0, the first context frame",
        "metrics": {name: METRICS[name].definition for name in SCORED_BY},
        "model": to_dict(trained.provenance),
        "sequences": found,
        "mean": mean,
    }
    lines = [f"{printable(name)}: {_described(values['psnr'])}" for name, values in found.items()]
    lines += [f"mean of {len(found)}, {metric}: {_described(values)}" for metric, values in mean.items()]
    lines += [f"no true frames, so not scored: {without}"] if without else []
    return Scores((json.dumps(record, indent=1) + "\n").encode(), tuple(lines))


def submission(starts: Sequence[Start], futures: Sequence[list[Tensor]]) -> bytes:
    """A CSV with a row a frame: a running number, and its levels 0 to 255 in the order C, H, W.

    A sequence is its K context frames and then the predicted ones; the header is id,0,1,2 ...
    Raises DataError: sequences of different size.
    """
    sizes = {start.context.shape[2:] for start in starts}
    if len(sizes) != 1:
        raise DataError("--submission: expected sequences of one size")
    text, rows = np.array([str(level) for level in range(256)], object), 0
    file = io.BytesIO()
    file.write((",".join(["id", *map(str, range(sizes.pop().numel()))]) + "\n").encode())
    for start, made in zip(starts, futures, strict=True):
        for frame in (*start.context[0], *made[0]):
            levels = video.pictures(frame)[..., : frame.shape[0]]
            file.write(f"{rows},{','.join(text[np.moveaxis(levels, -1, 0).ravel()])}\n".encode())
            rows += 1
    return file.getvalue()


def _of_sequence(start: Start, made: list[Tensor], mode: str, first: int) -> dict[str, Any]:
    """Scores by metric, by what was guessed, and by the frames they are the mean of."""
    assert start.truth is not None
    known, repeated = start.context.shape[1], unit(start.context[0, -1:])
    truth = unit(start.truth[0, known:])
    spans = sorted({min(first or len(truth), len(truth)), len(truth)})
    guesses = {mode: [_levels(future[: len(truth)]) for future in made], "repeat_last": [repeated.expand_as(truth)]}
    return {
        name: {
            guess: {
                f"{known}-{known + span - 1}": float(torch.stack([curve[:span].mean() for curve in curves]).mean())
                for span in spans
            }
            for guess, futures in guesses.items()
            for curves in [[METRICS[name](future, truth) for future in futures]]
        }
        for name in SCORED_BY
    }


def _levels(frames: Tensor) -> Tensor:
    return frames.clamp(0, 1).mul(255).round().div(255)


def _means(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over sequences of numbers in nested dictionaries, each over those that have it."""
    mean: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in found for key in one):
        values = [one[key] for one in found if key in one]
        mean[key] = _means(values) if isinstance(values[0], dict) else sum(values) / len(values)
    return mean


def _described(values: dict[str, dict[str, float]]) -> str:
    """prediction 24.10 dB (frames 1-600), 23.90 dB (1-629); repeat last context frame ..."""
    return "; ".join(
        f"{BASELINES.get(guess, guess)} "
        + ", ".join(f"{value:.2f} dB (frames {span})" for span, value in spans.items())
        for guess, spans in values.items()
    )
