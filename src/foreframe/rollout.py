"""Frames from a model: the one place where a model is unrolled without learning.

Two switches, and four names for their settings (`MODES`). Only `prediction` may be called prediction:
it is the one that sees nothing of the frames it is scored on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from foreframe import seeds
from foreframe.clip import Clip
from foreframe.errors import NotFiniteError
from foreframe.unrolled import Step, spread

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


def ready(model: Any) -> Any:
    """A copy of a model for prediction alone: in eval mode, with BatchNorm folded into the convolutions before it.

    Its frames are those of the model up to rounding (1e-6), sooner.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        if hasattr(module, "fold"):
            module.fold()
    return model


@torch.no_grad()
def rollout(
    model: Any,
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
    switches = MODES[mode]
    if mode != "prediction" and (truth is None or truth.shape[1] < length):
        raise ValueError(f"mode '{mode}' looks at the true frames: give all {length} of them as truth")
    rows = len(noise)
    state = _repeated(model.initial(Clip(context, None if cond is None else cond[:, :known]), known), rows)
    if not getattr(model, "shares_context", False):
        context = spread(context, rows)
        cond, truth = (None if part is None else spread(part, rows) for part in (cond, truth))
    frame = context[:, 0]
    for t in range(1, length):
        target = context[:, t] if t < known else None
        if t >= known and switches.latent == "posterior" and truth is not None:
            target = truth[:, t]
        state, step = model.step(state, frame, None if cond is None else cond[:, t], noise[:, t - 1], target, known - t)
        if t < known:
            frame = context[:, t]
            continue
        yield step
        frame = truth[:, t] if switches.feed == "true" and truth is not None else step.frame


def _repeated(state: Any, rows: int) -> Any:
    """A state, tensors in tuples, for so many rows."""
    if isinstance(state, Tensor):
        return spread(state, rows)
    if isinstance(state, tuple):
        parts = [_repeated(part, rows) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def draw_noise(
    model: Any, clips: list[int], length: int, seed: int, sample: int = 0, temperature: float = 1.0
) -> Tensor:
    """Noise (B, length-1, Z...) for a rollout over `length` frames, on the CPU.

    A function of (seed, clip, sample) alone: a clip's sample is the same whatever batch it is in.
    `temperature` scales it; at 0 every z is the mean of its distribution.
    """
    shape = (length - 1, *model.latent_shape)
    draws = [torch.randn(shape, generator=seeds.generator(seed, "rollout", clip, sample)) for clip in clips]
    return torch.stack(draws) * temperature


def predict(
    model: Any,
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
    if not torch.isfinite(frames).all():
        row, first = (~torch.isfinite(frames).flatten(2).all(2)).nonzero()[0].tolist()
        number = context.shape[1] + first + 1
        raise NotFiniteError(
            f"frame {number} of {noise.shape[1] + 1} is not finite (rollout {row + 1} of {len(frames)}): the model "
            "does not hold out so long, or its conditions are far from those it was trained on"
        )
    return frames
