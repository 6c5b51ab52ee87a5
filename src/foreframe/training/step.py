"""One training step apart from the run it belongs to: what it works on, how that is drawn, and the work itself.

Everything drawn is a function of the seed and the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foreframe import seeds
from foreframe.clip import Clip
from foreframe.errors import ConfigError
from foreframe.losses import Terms, elbo
from foreframe.recipe import TrainConfig
from foreframe.schedules import Clock, ForcingSchedule


class Drawn(NamedTuple):
    """What a step is to work on, on the host: for the clips of this process, b of the B of the batch.

    rows: which they are, (b,) int64. pixels: as `Feed.fetch` gives them. coins (b, T-1) bool; own: as `Given` says;
    noise (b, T-1, Z...). numbers: beta, learning rate, the share by which the average moves, the step, all float64.
    """

    step: int
    rows: Tensor
    pixels: Clip | Tensor
    coins: Tensor
    own: tuple[frozenset[int], ...]
    noise: Tensor
    numbers: Tensor


class Given(NamedTuple):
    """The same on the device, pixels as floats: tensors, but for `own`.

    own: for each part of the batch, the steps at which some clip of it is fed the model's own frame.
    """

    clip: Clip
    coins: Tensor
    own: tuple[frozenset[int], ...]
    noise: Tensor
    beta: Tensor
    rate: Tensor
    share: Tensor
    step: Tensor

    def tensors(self) -> list[Tensor | None]:
        return [self.clip.frames, self.clip.cond, self.coins, *self[3:]]

    def parts(self) -> Iterator[tuple[Clip, Tensor, Tensor, frozenset[int]]]:
        """Clips, coins, noise and `own`, part by part."""
        size = self.clip.batch // len(self.own)
        for number, own in enumerate(self.own):
            rows = slice(number * size, (number + 1) * size)
            yield take_rows(self.clip, rows), self.coins[rows], self.noise[rows], own


def measure(model: nn.Module, given: Given, train: TrainConfig[Any]) -> Tensor:
    """Forward and backward, part by part: gradients are left in the model; returns the values of `Terms`, (6,)."""
    measured = []
    for clip, coins, noise, own in given.parts():
        with torch.autocast(clip.frames.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            unrolled = model(clip, train.context, coins, noise, own)
        part = elbo(unrolled, clip.frames[:, 1:], given.beta, train.loss)
        (part.loss / len(given.own)).backward()
        measured.append(torch.stack([getattr(part, field.name).detach() for field in fields(Terms)]))
    return torch.stack(measured).mean(0)


def share_of(batch: int, rank: int, size: int, accumulate: int) -> Tensor:
    """The rows of a batch that belong to one process, (batch / size,) int64, those of its first part first.

    A part is the same clips of the batch whatever the number of processes, which share each part among them.

    Raises:
        ConfigError: the clips cannot be shared equally.
    """
    shares = size * accumulate
    if batch % shares:
        devices = f"{size} devices" if size > 1 else "1 device"
        parts = f", each in {accumulate} parts" if accumulate > 1 else ""
        raise ConfigError(
            f"batch: {batch} clips cannot be shared equally by {devices}{parts}; "
            f"give a multiple of {shares}, as in --batch {math.ceil(batch / shares) * shares}"
        )
    return torch.arange(batch).view(accumulate, size, -1)[:, rank].flatten()


def draw_forcing(
    schedule: ForcingSchedule, probability: float, shape: tuple[int, int], seed: int, clock: Clock
) -> Tensor:
    """Which steps are fed the true frame: (B, T-1) bool on the CPU, true with the given probability.

    Who shares a coin follows `schedule.coin`; one for an epoch is a function of the epoch alone.
    """
    if schedule.coin == "epoch":
        draw = torch.rand((), generator=seeds.generator(seed, "forcing-epoch", clock.epoch)).expand(shape)
    elif schedule.coin == "batch":
        draw = torch.rand((), generator=seeds.generator(seed, "forcing", clock.step)).expand(shape)
    else:
        draw = torch.rand(shape, generator=seeds.generator(seed, "forcing", clock.step))
    return draw < probability


def draw_strides(most: int, count: int, seed: int, step: int) -> Tensor:
    """Distances between the frames of each clip, (B,) int64 from 1 to `most`, uniform in their logarithm."""
    draws = torch.rand(count, generator=seeds.generator(seed, "stride", step))
    return (draws * math.log(most)).exp().round().long()


def take_rows(clip: Clip, rows: slice | Tensor) -> Clip:
    """Some of the clips of a batch."""
    return Clip(clip.frames[rows], None if clip.cond is None else clip.cond[rows])
