"""Learning rate, KL weight and teacher forcing as pure functions of the step.

Each schedule is a frozen description, `value(clock)` its number at one step. The labs' schedules move once an epoch,
ours every step: the same function read in another unit of the clock. Nothing is stored, so a resumed run reads the same
values. Steps beyond the planned total keep the last value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from foreframe.config import Range

Unit = Literal["step", "epoch"]
Steps = Annotated[int, Range(0, 10**9)]
Size = Annotated[float, Range(0, 10**9)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Clock:
    """One moment of a run: `step` counts from 0, `total` steps are planned, an epoch has `epoch_steps`."""

    step: int
    total: int
    epoch_steps: int

    @property
    def epoch(self) -> int:
        return self.step // max(1, self.epoch_steps)

    def read(self, unit: Unit) -> tuple[int, int]:
        """(position, planned length) in the unit."""
        if unit == "step":
            return self.step, max(1, self.total)
        return self.epoch, max(1, math.ceil(self.total / max(1, self.epoch_steps)))


@dataclass(frozen=True)
class BetaSchedule:
    """The weight of the KL term (KL annealing)."""

    kind: Literal["constant", "monotonic", "cyclical"] = "constant"
    """constant: always `stop` (the labs' "no annealing"). monotonic: one rise. cyclical: Fu et al. 2019."""
    start: Size = 0.0
    """Value at the beginning of a rise."""
    stop: Size = 1.0
    """Value at the end of a rise."""
    cycles: Annotated[int, Range(1, 10**9)] = 4
    """Number of rises over the run, for cyclical."""
    ratio: Share = 0.5
    """Part of each cycle (of the whole run, for monotonic) spent rising; then it stays at `stop`."""
    unit: Unit = "step"
    """Move every step, or once an epoch as the labs do."""
    integer_periods: bool = False
    """cyclical: a cycle begins at the whole unit below its place, as in the action lab's list of betas; it matters only
    where the cycles do not divide the run."""

    def value(self, clock: Clock) -> float:
        """Beta at this step, between `start` and `stop`."""
        if self.kind == "constant":
            return self.stop
        position, total = clock.read(self.unit)
        cycles = max(1, self.cycles) if self.kind == "cyclical" else 1
        position = min(position, total - 1)
        place = position * cycles / total
        cycle = math.floor(place)
        if self.integer_periods:
            cycle = math.ceil((position + 1) * cycles / total) - 1
            place = cycle + (position - math.floor(cycle * total / cycles)) * cycles / total
        rising = place - cycle
        share = 1.0 if self.ratio <= rising else rising / self.ratio
        return self.start + (self.stop - self.start) * share


@dataclass(frozen=True)
class ForcingSchedule:
    """The probability that a step is fed the true previous frame (teacher forcing) and not its own."""

    kind: Literal["constant", "linear", "exponential", "inverse-sigmoid"] = "constant"
    """The decays of scheduled sampling (Bengio et al. 2015), from `initial` towards `floor`."""
    initial: Share = 1.0
    """Probability before the decay begins."""
    start: Steps = 0
    """Position, in `unit`, at which the decay begins."""
    decay: Size = 0.0
    """linear: lost per unit. exponential: factor per unit (below 1). inverse-sigmoid: its k, about where it falls."""
    floor: Share = 0.0
    """Lower bound."""
    unit: Unit = "step"
    """Decay every step, or once an epoch as the labs do."""
    coin: Literal["clip-step", "batch", "epoch"] = "clip-step"
    """Who shares a draw: no one; a batch (the action lab, for all its steps); an epoch (the pose lab)."""
    own_context: bool = False
    """The model's own frames also replace context frames after the first, as in the action lab's training."""

    def value(self, clock: Clock) -> float:
        """The probability at this step, in [0, 1]."""
        position, _ = clock.read(self.unit)
        past = max(0, position - self.start)
        if self.kind == "constant":
            share = self.initial
        elif self.kind == "linear":
            share = self.initial - self.decay * past
        elif self.kind == "exponential":
            share = self.initial * min(self.decay, 1.0) ** past
        else:
            k = max(self.decay, 1e-6)
            share = self.initial * (k + 1) / (k + math.exp(min(past / k, 700.0)))
        return min(1.0, max(self.floor, share, 0.0))

    def within(self, share: float) -> ForcingSchedule:
        """The same decay within this share of its steps."""
        decay = self.decay
        if self.kind == "linear":
            decay /= share
        elif self.kind == "exponential":
            decay = decay ** (1 / share)
        elif self.kind == "inverse-sigmoid":
            # It falls about position k log k, and its steepness depends on k: the fall can be kept, its form nearly.
            falls, low, high = share * decay * math.log(max(decay, 1.0)), 1.0, max(decay, 1.0, share * decay)
            while high - low > 1e-6 * high:
                decay = (low + high) / 2
                low, high = (decay, high) if decay * math.log(decay) < falls else (low, decay)
        return replace(self, start=round(self.start * share), decay=decay)


@dataclass(frozen=True)
class RateSchedule:
    """A factor on the learning rate."""

    kind: Literal["constant", "cosine", "multi-step"] = "constant"
    """cosine: half a cosine from 1 to `floor` over the run. multi-step: times `gamma` at each milestone."""
    warmup: Steps = 0
    """Steps of linear rise from 0 before anything else."""
    floor: Share = 0.0
    """Last factor of the cosine."""
    milestones: tuple[int, ...] = ()
    """Positions, in `unit`, at which multi-step falls."""
    gamma: Share = 0.1
    """Factor of each fall."""
    unit: Unit = "step"
    """What milestones count, and whether the cosine falls at every step or once an epoch."""

    def value(self, clock: Clock) -> float:
        """The factor at this step, in [0, 1]."""
        if clock.step < self.warmup:
            return (clock.step + 1) / self.warmup
        if self.kind == "cosine":
            position, total = clock.read(self.unit)
            before = self.warmup if self.unit == "step" else 0
            share = min(1.0, (position - before) / max(1, total - before))
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * share))
        if self.kind == "multi-step":
            position, _ = clock.read(self.unit)
            return self.gamma ** sum(position >= milestone for milestone in self.milestones)
        return 1.0

    def within(self, share: float) -> RateSchedule:
        """The same course within this share of its steps; epochs shrink themselves."""
        moved = tuple(round(place * share) for place in self.milestones) if self.unit == "step" else self.milestones
        return replace(self, warmup=round(self.warmup * share), milestones=moved)
