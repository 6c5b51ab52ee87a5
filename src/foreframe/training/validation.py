"""Validation in the middle of a training: scores of prediction and reconstruction, and a panel of clips.

Prediction draws z from the prior; reconstruction takes the mean of the posterior, as the pose lab's validation does.
"""

from __future__ import annotations

import math

import torch

from foreframe import evaluation, signals, video
from foreframe.data.loading.windows import Windows
from foreframe.errors import DiskError, NotFiniteError
from foreframe.models import Model
from foreframe.rollout import ModeName, draw_noise
from foreframe.training.state import Reporter, Setup, State

PANEL_CLIPS, PANEL_FRAMES = 4, 60


def validate(setup: Setup, state: State, reporter: Reporter) -> bool:
    """Score `val` in the first process; returns whether it is the best so far. If a signal interrupts it, it is due."""
    better = False
    if setup.world.is_main and "val" in setup.pack.splits:
        state.validation_pending = False
        try:
            better = _score(setup, state, reporter)
        except NotFiniteError as error:
            reporter.note(state.step, f"validation: {error}")
        except signals.Stopped:
            state.validation_pending = True
        state.saved = -1
    setup.world.barrier()
    return better


def _score(setup: Setup, state: State, reporter: Reporter) -> bool:
    train = setup.train
    horizon = evaluation.default_horizon(setup.config, setup.pack, "val")
    model = state.scored.eval()

    def psnr(mode: ModeName, temperature: float) -> tuple[float, float]:
        """Of the model, and of the last frame repeated."""
        metric, clips = train.metric, train.validate_clips
        protocol = evaluation.Protocol(
            "val", train.context, horizon, mode, temperature=temperature, clips=clips, metrics=(metric,)
        )
        result = evaluation.evaluate(model, setup.pack, protocol, setup.device)
        return result.scores[metric].mean, result.baselines["repeat_last"][metric].mean

    score, repeat_last = psnr("prediction", 1.0)
    reconstruction, _ = psnr("reconstruction", 0.0)
    row = {"val_prediction_psnr": score, "val_reconstruction_psnr": reconstruction, "val_repeat_last_psnr": repeat_last}
    reporter.row({"step": state.step, **row})
    better = bool(score > state.best.get("psnr", -math.inf))  # never if it is not a number
    if better:
        state.best = {"step": state.step, "psnr": score, "split": "val", "horizon": horizon}
    by = "" if train.metric == "psnr" else f" by {train.metric}"
    reporter.say(
        f"step {state.step}: validation over {horizon} frames{by}: prediction {score:.2f} dB, "
        f"reconstruction {reconstruction:.2f}, repeat-last {repeat_last:.2f}" + (" (best so far)" if better else "")
    )
    try:
        _panel(setup, state.step, model, horizon, reporter)
    except DiskError as error:
        reporter.note(state.step, f"{error}; training continues without this picture")
    return better


def _panel(setup: Setup, step: int, model: Model, horizon: int, reporter: Reporter) -> None:
    """A GIF of the first clips, true and predicted."""
    context = setup.train.context
    length = context + min(horizon, PANEL_FRAMES)
    windows = Windows(setup.pack, "val", length, "first")
    indices = list(range(min(PANEL_CLIPS, len(windows))))
    clip = windows.batch(indices).to(setup.device).unit()
    noise = draw_noise(model, indices, length, seed=0).to(setup.device)
    predicted = evaluation.unroll(model, clip, noise, context, "prediction")
    rows: list[video.Row] = []
    for number, (truth, guess) in enumerate(zip(clip.frames, predicted, strict=True)):
        rows.append((f"truth {number}", video.pictures(truth)))
        rows.append((f"prediction {number}", video.pictures(torch.cat([truth[:context], guess]))))
    path = setup.path / "media" / f"step-{step:08d}.gif"
    video.write_gif(path, video.grid(rows, context=context), setup.config.fps)
    if reporter.log is not None:
        reporter.log.picture("validation", path, step)
