"""A trained model in somebody's hands: pictures and numbers in, pictures out, all frames at once or one by one.

    predictor.rollout(frames, controls) -> Rollout      B sequences and S samples of each in one call
    predictor.start(frames, past) -> State              then `predictor.step(state, control) -> (State, frame)`

As everywhere here, row t of the controls leads INTO frame t.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from foreframe import seeds, video
from foreframe.checkpoint import TrainedModel
from foreframe.clip import ClipSpec
from foreframe.errors import InputError
from foreframe.inputs import at_least, check_number, describe_condition, read_condition, read_pictures, same_batch
from foreframe.rollout import draw_noise, map_state, observe, prepare_for_inference, raise_if_not_finite, shares_context
from foreframe.unrolled import repeat_samples
from foreframe.video.pixels import Pixels

Frames = ArrayLike | Tensor
Controls = ArrayLike | Tensor | Mapping[str, Any]
ROWS = 256
"""Rollouts (samples of sequences) at once: memory does not grow with their number."""
STRIP_COLUMNS = 12
MAX_VIDEOS = 36
"""Rollouts that one GIF, MP4 or strip shows."""
FASTEST = {".gif": 50.0, ".mp4": 1000.0, ".png": 1000.0}
"""Most frames a second that a file of this suffix can have."""


@dataclass(frozen=True)
class Draw:
    """What noise follows from: S samples of B clips, of each its number, a seed and a scale."""

    samples: int
    clips: tuple[int, ...]
    seed: int
    temperature: float

    def __post_init__(self) -> None:
        at_least("samples", self.samples, 1)
        at_least("seed", self.seed, 0)
        at_least("clip", self.clips[0], 0)
        check_number("temperature", self.temperature, 0, 1e3)

    def steps(self, model: Any, length: int) -> Tensor:
        """Noise (S*B, length - 1, Z...) of a rollout over `length` frames, samples first."""
        clips = list(self.clips)
        return torch.cat(
            [draw_noise(model, clips, length, self.seed, sample, self.temperature) for sample in range(self.samples)]
        )

    def step(self, model: Any, t: int) -> Tensor:
        """Noise (S*B, Z...) of frame t alone, beyond the length of a rollout."""
        keys = [("rollout", clip, sample, t) for sample in range(self.samples) for clip in self.clips]
        draws = [torch.randn(model.latent_shape, generator=seeds.generator(self.seed, *key)) for key in keys]
        return torch.stack(draws) * self.temperature


@dataclass(frozen=True)
class State:
    """A prediction as far as it has come. `step` leaves it as it is and returns another: continue one state in many
    ways, keep thousands; they share the model.

    memory: the model's own state, S*B rows, samples first. frame: the last frame, (S*B or B, C, H, W) in [0, 1].
    count: frames so far, the given ones included. given: whether the last one was given.
    noise: (S*B, N, Z...), drawn in advance; `draw` has that of later steps.
    axes: whether results have the axes B and S.
    """

    memory: Any
    frame: Tensor
    count: int
    given: bool
    noise: Tensor
    draw: Draw
    axes: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Rollout:
    """Predicted frames.

    frames: uint8 (S, T, H, W, C), the T predicted ones; (B, S, T, H, W, C) of B sequences: `rollout[b]` is one.
    given: uint8 (K, H, W, C), the context frames; (B, K, H, W, C) of B sequences.
    fps: frames a second of the training clips.
    """

    frames: Pixels
    given: Pixels
    fps: float

    def __getitem__(self, sequence: int) -> Rollout:
        """One sequence of a batch."""
        if self.frames.ndim == 5:
            raise InputError(f"rollout[{sequence}]: this is the rollout of one sequence; take rollout.frames[sample]")
        if not -len(self.frames) <= sequence < len(self.frames):
            raise IndexError(f"rollout[{sequence}]: it holds {len(self.frames)} sequences, from 0")
        return Rollout(self.frames[sequence], self.given[sequence], self.fps)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return f"Rollout(frames={self.frames.shape} uint8, after {self.given.shape[-4]} given, {self.fps:g} fps)"

    def save(self, path: str | Path, fps: float | None = None, scale: int | None = None) -> Path:
        """Write all samples side by side, given frames bordered green and predicted ones red.

        Args:
            path: NAME.gif or NAME.mp4, or NAME.png for a strip with a row for each sample.
            fps: Frames a second; default: those of the training clips, in a GIF at most 50.
            scale: Size of a pixel; default: frames of 128 pixels and more, 64 in a strip.
        Returns:
            The path.
        Raises:
            InputError: another suffix, a number out of range, or more than `MAX_VIDEOS` rollouts.
            DiskError: the disk refused.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in FASTEST:
            raise InputError(f"save: got '{path.name}', expected a name that ends in {', '.join(FASTEST)}")
        rate = min(self.fps, FASTEST[suffix]) if fps is None else fps
        check_number(f"fps of a {suffix[1:]}", rate, 0.1, FASTEST[suffix])
        scale = None if scale is None else at_least("scale", scale, 1)
        rows = self._rows()
        known, steps = self.given.shape[-4], len(rows[0][1])
        if suffix == ".png":
            video.write_png(path, video.strip(rows, math.ceil(steps / STRIP_COLUMNS), known, scale))
        elif suffix == ".gif":
            video.write_gif(path, video.grid(rows, context=known, scale=scale), rate)
        else:
            video.write_mp4(path, video.grid(rows, context=known, scale=scale), rate)
        return path

    def _rows(self) -> list[video.Row]:
        """(label, frames (K+T, H, W, 3)) of each rollout."""
        batch = self.frames if self.frames.ndim == 6 else self.frames[None]
        given = np.broadcast_to(self.given, (len(batch), *self.given.shape[-4:]))
        if len(batch) * batch.shape[1] > MAX_VIDEOS:
            raise InputError(
                f"save: got {len(batch) * batch.shape[1]} videos, expected at most {MAX_VIDEOS} in one file; save some "
                "of them, such as rollout[0]"
            )
        rows: list[video.Row] = []
        for number, (known, samples) in enumerate(zip(given, batch, strict=True), 1):
            for sample, frames in enumerate(samples, 1):
                parts = [f"sequence {number}"] if len(batch) > 1 else []
                parts += [f"sample {sample}"] if len(samples) > 1 else []
                whole = np.concatenate([known, frames])
                rows.append((", ".join(parts) or "prediction", np.broadcast_to(whole, (*whole.shape[:-1], 3))))
        return rows


class Predictor:
    """A trained model that is ready to predict; `foreframe.load` makes one."""

    def __init__(self, trained: TrainedModel, device: torch.device) -> None:
        self.trained, self.device = trained, device

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.trained.run

    @property
    def spec(self) -> ClipSpec:
        """Channels, height and width of a frame, and the kind of condition."""
        return self.trained.config.spec

    @property
    def context(self) -> int:
        """K, the number of frames that must be given."""
        return self.trained.config.train.context

    @property
    def horizon(self) -> int:
        """Frames that it was scored on, or trained on where scores reach to the end of each clip."""
        train = self.trained.config.train
        return train.eval_horizon if train.eval_horizon > 0 else train.horizon

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that drive it, in order; () with pose pictures or without a condition."""
        return self.trained.config.cond_names if self.spec.cond == "vector" else ()

    @property
    def control_columns(self) -> tuple[str, ...]:
        """Those of `columns` that have to be given for frames to come: all, but for measured states that the model
        predicts itself or does not use."""
        config = self.trained.config
        unknown = () if config.train.measured == "given" else config.cond_measured
        return tuple(name for name in self.columns if name not in unknown)

    @property
    def fps(self) -> float:
        """Frames a second of the training clips."""
        return self.trained.config.fps

    @property
    def card(self) -> str:
        """What it is, where it comes from and what it takes, in a few lines."""
        config, made, best = self.trained.config, self.trained.provenance, self.trained.checkpoint.best
        scored = "none"
        if best:
            where = f"over {best['horizon']} frames ({best['split']}, step {best['step']:,})"
            scored = f"{config.train.metric.upper()} {best['psnr']:.2f} dB {where}"
        averaged = ", averaged weights" if made.weights == "ema" else ""
        size = f"{self.context} frames {self.spec.height}x{self.spec.width}x{self.spec.channels}"
        states = f"; measured states beyond the context: {config.train.measured}" if config.cond_measured else ""
        return "\n".join(
            (
                f"preset      {config.preset}, model {config.model}",
                f"run         {self.run}, step {made.step:,} of {config.train.steps:,}{averaged}",
                f"weights     SHA-256 {made.weights_sha256[:16]}",
                f"data        {Path(config.data.path).name}, SHA-256 {config.data.hash[:16]}",
                f"validation  {scored}",
                f"takes       {size}, uint8; {describe_condition(self.spec, self.columns)}{states}",
                f"predicts    {self.fps:g} frames a second of video, on {self.device}",
            )
        )

    def __repr__(self) -> str:
        return f"Predictor\n{self.card}"

    def rollout(
        self,
        frames: Frames,
        controls: Controls | None = None,
        samples: int = 4,
        horizon: int | None = None,
        seed: int = 0,
        *,
        past: Controls | None = None,
        temperature: float = 1.0,
        clip: int = 0,
    ) -> Rollout:
        """Predict the frames that follow the given ones.

        Args:
            frames: uint8 (K, H, W, C), oldest first; of more than K the last K are used, with their rows. Or
                (B, K, H, W, C), B starts.
            controls: Without `past`, a row for each frame, the given ones included: (K + horizon, D), as in packs and
                in `foreframe rollout --cond`. With `past`, the rows of the predicted frames alone: (horizon, D),
                where the `control_columns` are enough. D in the order of `columns`, or a mapping of their names to
                (T,). Pose pictures: uint8 (T, H, W, 3).
                With an axis B in front: B sequences, from one start or from a start each. None for a model without.
                Just `self.horizon` rows without `past` and `horizon` are refused: they may be of either kind.
            samples: S, futures of each sequence.
            horizon: Frames to predict. Default: as far as the controls reach; without a condition `self.horizon`.
            seed: Noise of sample s is a function of (seed, clip, s) and the horizon, whatever the batch, as in
                `foreframe rollout`; sequences from one start share it.
            past: The rows that lead into the given frames, (K, D); or (K-1, D) for numbers, where nobody knows row 0.
            temperature: Scale of the noise; 0 takes the mean of the prior.
            clip: Number of the clip in the noise's seed; B starts count from it.
        Raises:
            InputError: something that was given cannot be used.
            NotFiniteError: the predictions diverge.
        """
        wanted = None if horizon is None else at_least("horizon", horizon, 1)
        given, several = self._frames(frames)
        draw = Draw(samples, tuple(range(clip, clip + len(given))), seed, temperature)
        known, future, more = self._split(given.shape[1], controls, past, wanted)
        length = (wanted or self.horizon) if future is None else future.shape[1]
        total, starts = same_batch(controls=future, frames=given, past=known), same_batch(frames=given, past=known)
        shared = self._observe(given, known, draw, length) if starts == 1 else None
        parts, each = [], max(1, ROWS // samples)
        for first in range(0, total, each):
            rows = slice(first, first + each)
            state = shared or self._observe(
                _some(given, rows), _some(known, rows), replace(draw, clips=_some(draw.clips, rows)), length
            )
            steps = []
            for t in range(length):
                state = self._advance(state, None if future is None else _some(future, rows)[:, t])
                steps.append(state.frame)
            parts.append(_levels(torch.stack(steps, 1), samples, self.context))
        made = np.concatenate(parts)
        shown = np.broadcast_to(given[:, -self.context :], (total, self.context, *given.shape[2:]))
        return Rollout(made, shown, self.fps) if several or more else Rollout(made[0], shown[0], self.fps)

    def start(
        self,
        frames: Frames,
        past: Controls | None = None,
        *,
        samples: int | None = None,
        horizon: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        clip: int = 0,
    ) -> State:
        """The state after the given frames, from which `step` continues frame by frame, as far as you like.

        Args:
            frames, past, seed, temperature, clip: As for `rollout`.
            samples: S futures at once. Default: one, and frames without the axis S.
            horizon: This many steps give the frames of a `rollout` of that length (noise is drawn for all of them at
                once); further ones draw their own. Default: `self.horizon`.
        Raises:
            InputError: as for `rollout`.
        """
        length = self.horizon if horizon is None else at_least("horizon", horizon, 1)
        given, several = self._frames(frames)
        draw = Draw(1 if samples is None else samples, tuple(range(clip, clip + len(given))), seed, temperature)
        known, more = self._past(given.shape[1], past)
        state = self._observe(given, known, draw, length)
        return replace(state, axes=(several or more, samples is not None))

    def step(self, state: State, control: Controls | None = None, frame: Frames | None = None) -> tuple[State, Pixels]:
        """One frame on.

        Args:
            state: From `start` or an earlier step; it is left as it is.
            control: What leads into the next frame: (D,), a mapping of `columns` to numbers, or a pose picture; without
                `frame`, the `control_columns` are enough. Or B of them, one for each sequence of the state; they
                continue a state of one start in B ways.
            frame: The next frame itself, uint8 (H, W, C) or B of them, where it is known already: it is taken in
                instead of predicted, and the next step continues from it.
        Returns:
            The next state and the next frame, uint8 (H, W, C); in front of it B and S, where the state has them.
        Raises:
            InputError, NotFiniteError: as for `rollout`.
        """
        if not isinstance(state, State):
            raise InputError(f"state: got {type(state).__name__}, expected what start() or step() returned")
        alone = self.control_columns if frame is None else ()
        rows, several = read_condition("control", control, self.spec, self.columns, "", alone) or (None, False)
        true, more = (None, False) if frame is None else read_pictures("frame", frame, self._size, "")
        same_batch(
            control=rows, state=np.empty(len(state.draw.clips)) if len(state.draw.clips) > 1 else None, frame=true
        )
        state = self._advance(state, rows, true)
        state = replace(state, axes=(state.axes[0] or several or more, state.axes[1]))
        made = _levels(repeat_samples(state.frame, len(state.noise))[:, None], state.draw.samples, state.count - 1)[
            :, :, 0
        ]
        made = made if state.axes[1] else made[:, 0]
        return state, made if state.axes[0] else made[0]

    @functools.cached_property
    def _model(self) -> Any:
        """The model with its normalization folded into its convolutions, made when it is first used."""
        return prepare_for_inference(self.trained.model)

    @property
    def _size(self) -> tuple[int, int, int]:
        return self.spec.height, self.spec.width, self.spec.channels

    def _frames(self, frames: Frames) -> tuple[NDArray[Any], bool]:
        """The given frames, (B, K or more, H, W, C), and whether they have the axis B."""
        given, several = read_pictures("frames", frames, self._size, "K")
        if given.shape[1] < self.context:
            raise InputError(f"frames: got {given.shape[1]}, expected {self.context} or more, the model's context")
        return given, several

    def _past(self, count: int, past: Controls | None) -> tuple[NDArray[Any] | None, bool]:
        """The rows of `count` given frames, (B, count, ...), and whether they have the axis B."""
        numbers = self.spec.cond == "vector"
        if past is None and numbers and count == 1:
            past = np.zeros((0, len(self.columns)))
        found = read_condition("past", past, self.spec, self.columns, "K")
        if found is None:
            return None, False
        rows, several = found
        if numbers and rows.shape[1] == count - 1:  # no model reads row 0; there it is like the next
            first = rows[:, :1] if count > 1 else np.zeros((len(rows), 1, rows.shape[2]), np.float32)
            rows = np.concatenate([first, rows], 1)
        if rows.shape[1] != count:
            less = f", or {count - 1} without that of the first" if numbers else ""
            raise InputError(f"past: got {rows.shape[1]} rows, expected {count}, one for each given frame{less}")
        return rows, several

    def _split(
        self, count: int, controls: Controls | None, past: Controls | None, horizon: int | None
    ) -> tuple[NDArray[Any] | None, NDArray[Any] | None, bool]:
        """The rows of the given frames, those of the predicted ones, and whether one of them has the axis B."""
        alone = () if past is None else self.control_columns
        found = read_condition("controls", controls, self.spec, self.columns, "T", alone)
        if found is None:
            return *self._past(count, past)[:1], None, False
        rows, several = found
        known: NDArray[Any] | None
        if past is None:
            first, more = count, False
            if horizon is None and rows.shape[1] == self.horizon > count:
                raise InputError(
                    f"controls: got {self.horizon} rows, as many as the model usually predicts frames, expected a row "
                    f"for each of the {count} given frames as well: give those of the given frames with past=, or "
                    f"horizon={self.horizon - count} if these rows begin with them"
                )
            known = rows[:1, :count] if (rows[:, :count] == rows[:1, :count]).all() else rows[:, :count]
            what = f"one for each of the {count} given frames and the predicted ones (or past= for those of the given)"
        else:
            first, (known, more) = 0, self._past(count, past)
            what = "one for each predicted frame"
        least, available = first + (horizon or 1), rows.shape[1]
        if available < least:
            raise InputError(f"controls: got {available} rows, expected {least} or more, {what}")
        return known, rows[:, first : first + (horizon or available)], several or more

    @torch.no_grad()
    def _observe(self, given: NDArray[Any], known: NDArray[Any] | None, draw: Draw, length: int) -> State:
        """The state after the last K given frames, with noise for `length` steps."""
        starts = same_batch(frames=given, past=known)
        draw = draw if len(draw.clips) == starts else replace(draw, clips=draw.clips * starts)
        context = repeat_samples(self._tensor(given[:, -self.context :]), starts)
        cond = None if known is None else repeat_samples(self._tensor(known[:, -self.context :]), starts)
        noise = draw.steps(self._model, self.context + length).to(self.device)
        memory = observe(self._model, context, cond, noise)
        return State(memory, context[:, -1], self.context, True, noise, draw)

    @torch.no_grad()
    def _advance(self, state: State, control: NDArray[Any] | None, frame: NDArray[Any] | None = None) -> State:
        """The state one frame later: predicted, or `frame`."""
        cond = None if control is None else self._tensor(control)
        target = None if frame is None else self._tensor(frame)
        ways = max(1 if part is None else len(part) for part in (cond, target))
        if ways > len(state.draw.clips):
            state = _branched(state, ways)
        batch, rows, last = len(state.draw.clips), len(state.noise), state.frame
        cond, target = (None if part is None else repeat_samples(part, batch) for part in (cond, target))
        if not shares_context(self._model):
            last = repeat_samples(last, rows)
            cond, target = (None if part is None else repeat_samples(part, rows) for part in (cond, target))
        left = -1 if not state.given else 0 if target is None else 1
        ahead = state.count <= state.noise.shape[1]
        noise = state.noise[:, state.count - 1] if ahead else state.draw.step(self._model, state.count).to(self.device)
        memory, step = self._model.step(state.memory, last, cond, noise, target, left)
        shown = step.frame if target is None else target
        return replace(state, memory=memory, frame=shown, count=state.count + 1, given=target is not None)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """Pictures (..., H, W, C) as (..., C, H, W) in [0, 1], numbers as they are, on the device."""
        tensor = torch.from_numpy(np.array(values)).to(self.device)
        return tensor.movedim(-1, -3).float() / 255 if values.dtype == np.uint8 else tensor


def _branched(state: State, ways: int) -> State:
    """A state of one sequence as that of `ways` equal ones, samples first."""

    def repeated(part: Tensor) -> Tensor:
        return part.repeat_interleave(ways, 0)

    memory, noise = map_state(state.memory, repeated), repeated(state.noise)
    frame = state.frame if len(state.frame) == 1 else repeated(state.frame)  # one serves all: it is encoded once
    return replace(
        state, memory=memory, frame=frame, noise=noise, draw=replace(state.draw, clips=state.draw.clips * ways)
    )


def _levels(frames: Tensor, samples: int, known: int) -> Pixels:
    """Predicted frames (S*B, T, C, H, W) after `known` others as uint8 (B, S, T, H, W, C). Raises NotFiniteError."""
    raise_if_not_finite(frames, known)
    levels = frames.clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return np.ascontiguousarray(levels.unflatten(0, (samples, -1)).transpose(0, 1).movedim(-3, -1).numpy())


def _some(values: Any, rows: slice) -> Any:
    """Rows of what has one for each sequence; all of what serves every one."""
    return values if values is None or len(values) == 1 else values[rows]
