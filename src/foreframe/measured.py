"""Measured states of the future are not known: a model that predicts them itself, or does without.

    m_t = m_t-1 + deviation * W h_t,   h_t = GRU([m_t-1, u_t], h_t-1)        u: controls, m: measured states

Around any model with a vector condition. In the context m is as it was measured, beyond it the state head's own
prediction; the model inside sees both alike. The head learns by itself: no gradient of the frames reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.nn.condition import Standardize
from foreframe.unrolled import Step, Unrolled, repeat_samples

Use = Literal["given", "predicted", "unused"]
HIDDEN = 64
"""Units of the state head."""


@dataclass(frozen=True)
class Config:
    """A model's own `Config`, and the columns of its condition that are measured states."""

    inner: Any
    columns: tuple[int, ...]
    use: Literal["predicted", "unused"]


def around(config: Any, spec: ClipSpec, columns: Sequence[int], use: Use) -> Any:
    """What is built: the model of `config`, within one that predicts or leaves out these columns of a vector condition.

    Raises ConfigError: all columns are measured, and none is to be used or could drive a prediction.
    """
    if use == "given" or not columns:
        return config
    if len(columns) >= spec.cond_size:
        raise ConfigError(
            f"measured: '{use}' needs a control, but all {spec.cond_size} columns are measured states; import the "
            "clips with --controls for those that are known in advance, or train with --measured given"
        )
    return Config(config, tuple(columns), use)


def use_of(model: models.Model, columns: Sequence[str]) -> Literal["none", "given", "predicted", "unused"]:
    """What a model is given of the measured states of the future, where a data set has these columns of them."""
    if isinstance(model, Model):
        return "predicted" if model.predicts else "unused"
    return "given" if columns else "none"


class State(NamedTuple):
    """inner: the model's. memory: (B, 64) of the state head. measured: (B, M), the states that led into the last frame,
    in units of the data. Both are empty where measured states are not used."""

    inner: Any
    memory: Tensor
    measured: Tensor


class Model(models.Model):
    """See the module's text."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        self.measured = config.columns
        self.controls = tuple(column for column in range(spec.cond_size) if column not in config.columns)
        self.predicts = config.use == "predicted"
        inside = spec if self.predicts else replace(spec, cond_size=len(self.controls))
        self.inner = models.instantiate(config.inner, inside)
        self.latent_shape = self.inner.latent_shape
        if self.predicts:
            self.standardize = Standardize(spec.cond_size)
            self.cell = nn.GRUCell(spec.cond_size, HIDDEN)
            self.change = nn.Linear(HIDDEN, len(self.measured))
            nn.init.zeros_(self.change.weight)
            nn.init.zeros_(self.change.bias)

    def fit_condition(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """See `models.Model`."""
        if self.predicts:
            self.standardize.fit(mean, std)
        seen = range(len(mean)) if self.predicts else self.controls
        self.inner.fit_condition([mean[column] for column in seen], [std[column] for column in seen])

    def initial(self, clip: Clip, context: int) -> State:
        """See `models.Model`."""
        cond = _given(clip.cond)
        if not self.predicts:
            seen = Clip(clip.frames, _columns(cond, self.controls))
            nothing = cond.new_zeros(len(cond), 0)
            return State(self.inner.initial(seen, context), nothing, nothing)
        memory = cond.new_zeros(len(cond), HIDDEN)
        return State(self.inner.initial(clip, context), memory, _columns(cond[:, 0], self.measured))

    def step(
        self,
        state: State,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[State, Step]:
        """See `models.Model`. Measured states in `cond` are looked at only while context frames follow."""
        cond = repeat_samples(_given(cond), len(noise))
        controls = _columns(cond, self.controls)
        if not self.predicts:
            inner, step = self.inner.step(state.inner, frame, controls, noise, target, context_left)
            return State(inner, state.memory, state.measured), step
        memory, measured = self._next(state.memory, state.measured, controls)
        if context_left > 0:
            measured = _columns(cond, self.measured)
        seen = self._joined(controls, measured)
        inner, step = self.inner.step(state.inner, frame, seen, noise, target, context_left)
        return State(inner, memory, measured), step

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        """See `models.Model`. The head is unrolled beyond the context by its own states, as in prediction."""
        cond = _given(clip.cond)
        if not self.predicts:
            seen = Clip(clip.frames, _columns(cond, self.controls))
            return self._inside(seen, context, forcing, noise, free_running)
        controls, measured = _columns(cond, self.controls), _columns(cond, self.measured)
        memory, last = cond.new_zeros(len(cond), HIDDEN), measured[:, 0]
        predicted, followed = [], [last]
        for t in range(1, len(clip)):
            memory, last = self._next(memory, last, controls[:, t])
            predicted.append(last)
            last = measured[:, t] if t < context else last
            followed.append(last)
        deviation = _columns(self.standardize.deviation, self.measured)
        error = ((torch.stack(predicted, 1) - measured[:, 1:]) / deviation).square().mean()
        seen = Clip(clip.frames, self._joined(controls, torch.stack(followed, 1).detach()))
        return replace(self._inside(seen, context, forcing, noise, free_running), state_error=error)

    def _inside(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None
    ) -> Unrolled:
        unrolled: Unrolled = self.inner(clip, context, forcing, noise, free_running)
        return unrolled

    def _next(self, memory: Tensor, measured: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
        """The head's memory, and the measured states that follow (B, M)."""
        memory = self.cell(self.standardize(self._joined(controls, measured)), memory)
        return memory, measured + _columns(self.standardize.deviation, self.measured) * self.change(memory)

    def _joined(self, controls: Tensor, measured: Tensor) -> Tensor:
        """Both in the order of the condition."""
        parts = dict(zip((*self.controls, *self.measured), (*controls.unbind(-1), *measured.unbind(-1)), strict=True))
        return torch.stack([parts[column] for column in range(len(parts))], -1)


def _columns(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Some of the last axis; without an index that would have to be sent to the device."""
    return torch.stack([values[..., column] for column in columns], -1)


def _given(cond: Tensor | None) -> Tensor:
    assert cond is not None  # only models with a vector condition are built
    return cond
