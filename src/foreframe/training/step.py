"""One training step: its inputs, all drawn as a function of the seed and the step; forward and backward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foreframe import seeds
from foreframe.clip import Clip
from foreframe.data.loading.augment import draw_grid
from foreframe.data.loading.prefetch import Feed, pinned
from foreframe.data.loading.windows import batch_indices
from foreframe.errors import ConfigError
from foreframe.losses import elbo
from foreframe.models import Model
from foreframe.recipe import TrainConfig
from foreframe.schedules import Clock, ForcingSchedule
from foreframe.training.optimizer import average_share
from foreframe.unrolled import free_running_steps


class StepInputs(NamedTuple):
    """The inputs of one step, for b of the B clips of its batch: on the host as drawn, on the device for the update.

    pixels: Clips as `Feed.fetch` gives them; on the device a Clip of floats. grid: where `warp` takes their pixels
    from, (b, H, W, 2), None without augmentation. forcing: (b, T-1) bool, whether step t is fed the true frame t-1.
    noise: (b, T-1, Z...). numbers: (4,) float64: beta, learning rate, share by which the average moves, step.
    free_running: for each part of the batch, the steps at which some clip of it is fed the model's own frame.
    """

    pixels: Clip | Tensor
    grid: Tensor | None
    forcing: Tensor
    noise: Tensor
    numbers: Tensor
    free_running: tuple[frozenset[int], ...]

    @property
    def clip(self) -> Clip:
        """The clips, once they are on the device."""
        assert isinstance(self.pixels, Clip)
        return self.pixels

    @property
    def beta(self) -> Tensor:
        return self.numbers[0].float()

    @property
    def step(self) -> Tensor:
        return self.numbers[3].long()

    def to(self, device: torch.device) -> StepInputs:
        """The same on a device. Nothing waits for the copies."""
        grid = None if self.grid is None else self.grid.to(device, non_blocking=True)
        forcing, noise, numbers = (part.to(device, non_blocking=True) for part in self[2:5])
        pixels = self.pixels
        pixels = pixels.to(device) if isinstance(pixels, Clip) else pixels.to(device, non_blocking=True)
        return StepInputs(pixels, grid, forcing, noise, numbers, self.free_running)

    def tensors(self) -> list[Tensor | None]:
        """All but `free_running`, once they are on the device: what a recorded step reads."""
        return [self.clip.frames, self.clip.cond, *self[2:5]]

    @classmethod
    def of_tensors(cls, free_running: Any, tensors: Sequence[Any]) -> StepInputs:
        frames, cond, forcing, noise, numbers = tensors
        return cls(Clip(frames, cond), None, forcing, noise, numbers, free_running)

    def parts(self) -> Iterator[tuple[Clip, Tensor, Tensor, frozenset[int]]]:
        """Clips, forcing, noise and `free_running`, part by part."""
        size = self.clip.batch // len(self.free_running)
        for number, free_running in enumerate(self.free_running):
            rows = slice(number * size, (number + 1) * size)
            clip = Clip(self.clip.frames[rows], None if self.clip.cond is None else self.clip.cond[rows])
            yield clip, self.forcing[rows], self.noise[rows], free_running


@dataclass(frozen=True)
class StepPlan:
    """How the steps of a run are drawn.

    feed: The windows trained on. latent_shape: The model's. uniform: Only two ways through the model, as compiled and
    recorded steps need it: all forced, or free-running after the context.
    """

    train: TrainConfig[Any]
    feed: Feed
    latent_shape: tuple[int, ...]
    uniform: bool = False

    def clock(self, step: int) -> Clock:
        epoch_steps = self.train.epoch_steps or max(1, len(self.feed.windows) // self.train.batch)
        return Clock(step, self.train.steps, epoch_steps)

    def settings(self, step: int) -> dict[str, float]:
        """The schedules at a step: beta, the probability of forcing, the learning rate."""
        train, clock = self.train, self.clock(step)
        rate = train.optimizer.lr * train.rate.value(clock)
        return {"beta": train.beta.value(clock), "forcing": train.forcing.value(clock), "lr": rate}

    def course(self) -> str:
        """In a line what the schedules reach, with a warning for each that never leaves its first value."""
        steps = self.train.steps
        seen = [self.settings(step) for step in sorted({*range(0, steps, max(1, steps // 1000)), steps - 1})]
        first, last, top = seen[0], seen[-1], max(now["beta"] for now in seen)
        epoch = self.clock(0).epoch_steps
        epochs = f"{steps / epoch:.4g} epochs of {epoch:,}"
        beta, forcing, rate = self.train.beta, self.train.forcing, max(now["lr"] for now in seen)
        rises = f", {beta.cycles} times" if beta.kind == "cyclical" else ""
        line = (
            f"{steps:,} steps ({epochs}): beta {first['beta']:.2g} to {top:.2g}{rises}, "
            f"forcing {first['forcing']:.2f} to {last['forcing']:.2f}, rate {rate:.2g} to {last['lr']:.2g}"
        )
        if beta.kind != "constant" and top == first["beta"]:
            line += "\nwarning: beta never rises in this run: z will not be held to its prior (--beta.ratio, --steps)"
        if forcing.kind != "constant" and last["forcing"] == first["forcing"] > forcing.floor:
            line += (
                f"\nwarning: forcing never falls in this run: it begins to at {forcing.unit} {forcing.start:,} "
                "(--forcing.start, --steps)"
            )
        return line

    def indices(self, step: int) -> Tensor:
        """The windows of a step's batch, (B,) int64."""
        return batch_indices(len(self.feed.windows), self.train.batch, self.train.seed, step)[1]


def draw(plan: StepPlan, step: int, rows: Tensor) -> StepInputs:
    """The inputs of a step, on the host; drawn for the whole batch, for any number of devices; `rows` are taken."""
    train, seed, device = plan.train, plan.train.seed, plan.feed.device
    now, shape = plan.settings(step), (train.batch, train.length - 1)
    strides = draw_strides(train.stride, train.batch, seed, step)
    forcing = draw_forcing(train.forcing, now["forcing"], shape, seed, plan.clock(step))
    # Taken from the whole batch: all processes must go the same way through the model.
    fed_true = 1 if train.forcing.own_context else train.context
    free_running = tuple(free_running_steps(part, fed_true) for part in forcing.chunk(train.accumulate))
    if plan.uniform:
        later = frozenset(range(fed_true + 1, train.length))
        free_running = tuple(later if part else part for part in free_running)
    noise = torch.randn((*shape, *plan.latent_shape), generator=seeds.generator(seed, "noise", step))
    spec = plan.feed.windows.pack.spec
    grid = draw_grid(train.batch, spec.height, spec.width, train.augment, seeds.generator(seed, "augment", step))
    grid = None if grid is None else pinned(grid[rows], device)
    pixels = plan.feed.fetch(plan.indices(step)[rows], strides[rows])
    numbers = torch.tensor([now["beta"], now["lr"], average_share(train.ema, step), step], dtype=torch.float64)
    forcing, noise, numbers = (pinned(part, device) for part in (forcing[rows], noise[rows], numbers))
    return StepInputs(pixels, grid, forcing, noise, numbers, free_running)


def measure(model: Model, inputs: StepInputs, train: TrainConfig[Any]) -> Tensor:
    """Forward and backward, part by part: gradients are left in the model; returns the values of `Terms`, (7,)."""
    measured, beta = [], inputs.beta
    for clip, forcing, noise, free_running in inputs.parts():
        with torch.autocast(clip.frames.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            unrolled = model(clip, train.context, forcing, noise, free_running)
        terms = elbo(unrolled, clip.frames[:, 1:], beta, train.loss)
        (terms.loss / len(inputs.free_running)).backward()
        measured.append(torch.stack(terms).detach())
    return torch.stack(measured).mean(0)


def share_of(batch: int, rank: int, size: int, accumulate: int) -> Tensor:
    """The rows of a batch that belong to one process, (batch / size,) int64, those of its first part first.

    A part is the same clips for any number of processes. Raises ConfigError if they cannot be shared equally.
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
    """The forcing mask, (B, T-1) bool on the CPU, true by probability; `schedule.coin` says who shares a draw."""
    moment = ("forcing-epoch", clock.epoch) if schedule.coin == "epoch" else ("forcing", clock.step)
    size = () if schedule.coin in ("epoch", "batch") else shape
    return torch.rand(size, generator=seeds.generator(seed, *moment)).expand(shape) < probability


def draw_strides(most: int, count: int, seed: int, step: int) -> Tensor:
    """Distances between the frames of each clip, (B,) int64 from 1 to `most`, uniform in their logarithm."""
    draws = torch.rand(count, generator=seeds.generator(seed, "stride", step))
    return (draws * math.log(most)).exp().round().long()
