"""Panels: clips as GIFs, the truth beside some of the samples that were scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from foreframe import evaluation, video
from foreframe.checkpoint import TrainedModel
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.evaluation import MeasuredProtocol, evenly_spaced
from foreframe.metrics import METRICS
from foreframe.report.gif import MAX_FPS, limited_gif
from foreframe.rollout import prepare_for_inference

FRAMES, MIN_FRAMES = 60, 12
"""Frames of a panel: at most, and the least it is cut down to where its GIF would be too large."""
GIF_BYTES = 400_000
"""Of a panel; twelve of them take five megabytes of a page."""


@dataclass(frozen=True)
class Panel:
    """A clip as a GIF: the truth and, of its samples, the best, the median and the worst by mean PSNR (in dB).

    shown: frames in the GIF, of `length` that were scored; context frames are among both.
    """

    clip: str
    psnr: dict[str, float]
    shown: int
    length: int
    gif: bytes


def draw_panels(
    trained: TrainedModel, pack: Pack, protocol: MeasuredProtocol, panels: int, device: torch.device
) -> list[Panel]:
    """Panels of some of the clips that a protocol scored, evenly spaced, of the very samples that were scored."""
    if panels == 0:
        return []
    known, length = protocol.context, protocol.context + protocol.horizon
    windows, model = Windows(pack, protocol.split, length, "first"), prepare_for_inference(trained.model)
    scored = evenly_spaced(len(windows), protocol.clips)
    made = []
    for number in [scored[i] for i in evenly_spaced(len(scored), panels)]:
        clip = windows.batch([number]).to(device).unit()
        truth, shown = clip.frames[:, known:], min(length, known + FRAMES)
        means: list[float] = []
        videos: list[video.Pixels] = []
        for part in evaluation.sample(model, clip, [number], protocol):
            predicted = part[:, 0]
            means += METRICS["psnr"](predicted, truth.expand_as(predicted)).mean(1).tolist()
            videos += list(video.pictures(predicted[:, : shown - known]))
        frames = video.pictures(clip.frames[0, :shown])
        ranked = _ranked(means)
        rows: list[video.Row] = [("truth", frames)]
        rows += [
            (f"{name} {means[sample]:.1f} dB", np.concatenate([frames[:known], videos[sample]]))
            for name, sample in ranked.items()
        ]
        gif, kept, _ = limited_gif(
            partial(_grid, rows, known),
            fps=min(trained.config.fps, MAX_FPS),
            limit=GIF_BYTES,
            frames=shown,
            min_frames=min(shown, max(MIN_FRAMES, known + 1)),
        )
        scores = {name: means[sample] for name, sample in ranked.items()}
        made.append(Panel(windows.names([number])[0].rpartition("@")[0], scores, kept, length, gif))
    return made


def _grid(rows: list[video.Row], known: int, frames: int, _: float) -> video.Pixels:
    return video.grid([(label, row[:frames]) for label, row in rows], context=known, columns=2)


def _ranked(means: list[float]) -> dict[str, int]:
    """Which sample is best, median (of an even number the lower one) and worst; of few samples, only what there is."""
    order = sorted(range(len(means)), key=means.__getitem__)
    if len(order) == 1:
        return {"sample": 0}
    middle = {"median": order[(len(order) - 1) // 2]} if len(order) > 2 else {}
    return {"best": order[-1], **middle, "worst": order[0]}
