"""Frames from a model: the one place where a model is unrolled without learning.

Two switches, and four names for their settings (`MODES`). Only `prediction` may be called prediction:
it is the one that sees nothing of the frames it is scored on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from foreframe import seeds
from foreframe.clip import Clip, unit
from foreframe.errors import NotFiniteError
from foreframe.models import Model
from foreframe.unrolled import Step, repeat_samples

M = TypeVar("M", bound=Model)
ModeName = Literal["prediction", "one-step", "reconstruction", "teacher-forced"]


@dataclass(frozen=True)
class Mode:
    """feed: which frame goes back in, the model's own or the true one. latent: where z is drawn from."""

    feed: Literal["own", "true"]
    latent: Literal["prior", "posterior"]


MODES: dict[ModeName, Mode] = {
    "prediction": Mode("own", "prior"),
    "one-step": Mode("true", "prior"),
    "reconstruction": Mode("own", "posterior"),
    "teacher-forced": Mode("true", "posterior"),
}
assert tuple(MODES) == get_args(ModeName)


def prepare_for_inference(model: M) -> M:
    """A copy of a model for prediction alone: in eval mode, with BatchNorm folded into the convolutions before it.

    Its frames are those of the model up to rounding (1e-6), sooner.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        fold: Any = getattr(module, "fold", None)
        if fold is not None:
            fold()
    return model


@torch.no_grad()
def rollout(
    model: Model,
    context: Tensor,
    cond: Tensor | None,
    noise: Tensor,
    mode: ModeName = "prediction",
    truth: Tensor | None = None,
) -> Iterator[Step]:
    """Predict frames K, K+1, ... one after another.

    Args:
        model: In eval mode, so that a clip's result does not depend on the others in its batch.
        context: The K known frames, (B, K, C, H, W) in [0, 1].
        cond: Conditions of all frames, context included: (B, T, D) or (B, T, C, H, W); None without.
        noise: (B, T-1, Z...) standard normal, entry t-1 for frame t; its length says how far to go. Or (S*B, ...), that
            of S samples of each clip, samples first: the context is then looked at once for all of them.
        mode: See `MODES`.
        truth: The true frames, (B, T, C, H, W); looked at only by the three modes that are not prediction.
    Yields:
        A `Step` for each frame K .. T-1, with as many rows as noise. Known frames are stepped through first: there z
        comes from the posterior, since its target is a context frame.
    Raises:
        ValueError: the model is in training mode, or lengths do not fit.
    """
    if model.training:
        raise ValueError(
            "rollout() takes a model in eval mode: BatchNorm would mix the clips of a batch; call model.eval()"
        )
    known, length = context.shape[1], noise.shape[1] + 1
    if cond is not None and cond.shape[1] < length:
        raise ValueError(
            f"cond has {cond.shape[1]} frames, but {length} are to be covered ({known} context frames included)"
        )
    if len(noise) % len(context):
        raise ValueError(f"noise has {len(noise)} rows: expected a multiple of the {len(context)} clips in context")
    if mode != "prediction" and (truth is None or truth.shape[1] < length):
        raise ValueError(f"mode '{mode}' looks at the true frames: give all {length} of them as truth")
    if length > known:
        yield from stream(model, context, cond, iter(noise.unbind(1)), mode, truth)


@torch.no_grad()
def stream(
    model: Model,
    context: Tensor,
    cond: Tensor | None,
    noise: Iterator[Tensor],
    mode: ModeName = "prediction",
    truth: Tensor | None = None,
) -> Iterator[Step]:
    """`rollout` that holds noise and floats of one frame only, so that memory hardly grows with the length.

    Args:
        model, context, mode: As for `rollout`.
        cond, truth: Likewise; pictures may be uint8.
        noise: Its entries (S*B, Z...), for frame 1, 2 ... T-1: K of them at least.
    """
    known, switches = context.shape[1], MODES[mode]
    early = list(islice(noise, known))
    given = None if cond is None else unit(cond[:, :known])
    state, frame, rows = observe(model, context, given, torch.stack(early, 1)), context[:, -1], len(early[0])

    def at(part: Tensor | None, t: int) -> Tensor | None:
        values = None if part is None else unit(part[:, t])
        return values if values is None or shares_context(model) else repeat_samples(values, rows)

    if not shares_context(model):
        frame = repeat_samples(frame, rows)
    for t, z in enumerate(chain(early[-1:], noise), known):
        target = at(truth, t) if switches.latent == "posterior" else None
        state, step = model.step(state, frame, at(cond, t), z, target, known - t)
        yield step
        true = at(truth, t) if switches.feed == "true" else None
        frame = step.frame if true is None else true


@torch.no_grad()
def observe(model: Model, context: Tensor, cond: Tensor | None, noise: Tensor) -> Any:
    """A model's state after the K context frames; z comes from the posterior, since each target is one of them.

    Args:
        model, context, noise: As for `rollout`; the state has as many rows as noise.
        cond: Conditions of the context frames at least.
    """
    known, rows = context.shape[1], len(noise)
    first = model.initial(Clip(context, None if cond is None else cond[:, :known]), known)
    state = map_state(first, lambda part: repeat_samples(part, rows))
    if not shares_context(model):
        context, cond = repeat_samples(context, rows), None if cond is None else repeat_samples(cond, rows)
    for t in range(1, known):
        given = None if cond is None else cond[:, t]
        state, _ = model.step(state, context[:, t - 1], given, noise[:, t - 1], context[:, t], known - t)
    return state


def shares_context(model: Model) -> bool:
    """Whether frames and conditions may have B rows where state and noise have S*B; see `models.Model`."""
    return bool(getattr(model, "shares_context", False))


def map_state(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A state, tensors in tuples, with each of its tensors changed."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, tuple):
        parts = [map_state(part, change) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def draw_noise(
    model: Model, clips: list[int], length: int, seed: int, sample: int = 0, temperature: float = 1.0
) -> Tensor:
    """Noise (B, length-1, Z...) for a rollout over `length` frames, on the CPU.

    A function of (seed, clip, sample) whatever the batch. Another length begins with the same numbers only if both
    draws are of a multiple of 16 numbers, as torch makes them.
    `temperature` scales it; at 0 every z is the mean of its distribution.
    """
    shape = (length - 1, *model.latent_shape)
    draws = [torch.randn(shape, generator=seeds.generator(seed, "rollout", clip, sample)) for clip in clips]
    return torch.stack(draws) * temperature


def stream_noise(
    model: Model, clips: list[int], length: int, seed: int, sample: int = 0, temperature: float = 1.0
) -> Iterator[Tensor]:
    """The noise of `draw_noise` frame by frame, (B, Z...) each: where z is large, all of it never exists at once."""
    if math.prod(model.latent_shape) % 16:  # torch makes such numbers in one draw only
        yield from draw_noise(model, clips, length, seed, sample, temperature).unbind(1)
        return
    generators = [seeds.generator(seed, "rollout", clip, sample) for clip in clips]
    for _ in range(length - 1):
        yield torch.stack([torch.randn(model.latent_shape, generator=g) for g in generators]) * temperature


def predict(
    model: Model,
    context: Tensor,
    cond: Tensor | None,
    noise: Tensor,
    mode: ModeName = "prediction",
    truth: Tensor | None = None,
) -> Tensor:
    """All frames of a `rollout` at once, (B, T-K, C, H, W).

    Raises:
        NotFiniteError: a frame is not finite.
    """
    frames = torch.stack([step.frame for step in rollout(model, context, cond, noise, mode, truth)], 1)
    raise_if_not_finite(frames, context.shape[1])
    return frames


def raise_if_not_finite(frames: Tensor, known: int) -> None:
    """Raises NotFiniteError, with the number of the first such frame, unless predicted frames are finite.

    Args:
        frames: (B, T-K, C, H, W), which follow `known` others.
    """
    if not torch.isfinite(frames).all():
        row, first = (~torch.isfinite(frames).flatten(2).all(2)).nonzero()[0].tolist()
        raise NotFiniteError(
            f"frame {known + first + 1} of {known + frames.shape[1]} is not finite (rollout {row + 1} of "
            f"{len(frames)}): the model's predictions diverge, or its conditions are far from those it was trained on"
        )
