"""Numbers that are not finite, and losses that jump: recorded on the device, reported when the host polls.

The update of a step whose loss, gradient or running statistics are not finite is skipped and leaves no trace. Three in
a row end a run, or ten in a thousand.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NAMES = ("loss", "reconstruction", "kl", "gradient", "statistics")
"""The values recorded of each step: three terms of the loss, the norm of the gradient, and the largest of the running
statistics, which may overflow while all else is finite."""
KEPT = 1000
"""Steps that are remembered; the host must poll more often than that."""
IN_A_ROW, IN_KEPT = 3, 10
"""This many steps in a row, or among the last `KEPT`, that are not finite end a run."""
WINDOW, SIGMAS = 128, 6.0
"""A loss above the mean of the last `WINDOW` by more than this many of their standard deviations is a spike."""


@dataclass(frozen=True)
class Skipped:
    """A step that was not finite. values: of `NAMES`. fatal: the run must end."""

    step: int
    values: tuple[float, ...]
    fatal: bool

    @property
    def wrong(self) -> list[str]:
        """Which of the values are not finite."""
        return [name for name, value in zip(NAMES, self.values, strict=True) if not math.isfinite(value)]


@dataclass(frozen=True)
class Spike:
    """A step whose loss stands out from those before it. sigmas: by how many of their standard deviations."""

    step: int
    loss: float
    sigmas: float


class Buffers:
    """The buffers of a module (running statistics, counters) as they are now, to be put back if a step is skipped."""

    @torch.no_grad()
    def __init__(self, module: nn.Module) -> None:
        groups: dict[torch.dtype, list[Tensor]] = {}
        for buffer in module.buffers():
            groups.setdefault(buffer.dtype, []).append(buffer)
        self._groups = [(group, _flat(group)) for group in groups.values()]

    @torch.no_grad()
    def largest(self) -> Tensor:
        """The largest magnitude among them as they are now, (1,) float32; not finite if one of them is not."""
        found = [_flat(group).abs().max() for group, before in self._groups if before.is_floating_point()]
        device = self._groups[0][1].device if self._groups else None
        return torch.stack(found).max()[None].float() if found else torch.zeros(1, device=device)

    @torch.no_grad()
    def put_back(self, where: Tensor) -> None:
        """Put them back if `where`, a scalar bool, is true; nobody waits to know."""
        for group, before in self._groups:
            kept = torch.where(where, before, _flat(group)).split([buffer.numel() for buffer in group])
            torch._foreach_copy_(group, [part.view(buffer.shape) for part, buffer in zip(kept, group, strict=True)])


class Watch:
    """The last steps of a run.

    recent: (KEPT, 5) float32 on the device, the values of step s in row s % KEPT; all there is to save and restore.
    """

    keep = Buffers
    """Called with a module before a step: holds what may have to be put back."""

    def __init__(self, device: torch.device) -> None:
        self.recent = torch.zeros(KEPT, len(NAMES), device=device)
        self.reset_to(0)

    def record(self, step: Tensor, values: Tensor) -> Tensor:
        """Keep the values (5,) of a step, a scalar; returns on the device whether they are not all finite."""
        self.recent.index_copy_(0, (step % KEPT)[None], values.float()[None])
        return ~values.isfinite().all()

    def reset_to(self, step: int) -> None:
        """Begin at `step`, with the values in `recent` of the steps before it."""
        self._next = max(0, step - KEPT)
        self._skipped: deque[int] = deque()
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self.drain_events(step)

    def drain_events(self, stop: int) -> list[Skipped | Spike]:
        """The events of the steps before `stop` that were not drained yet; waits for the device."""
        events: list[Skipped | Spike] = []
        steps = range(self._next, stop)
        if not steps:
            return events
        rows = torch.tensor(steps, device=self.recent.device) % KEPT
        for step, values in zip(steps, self.recent[rows].tolist(), strict=True):
            event = self._judge(step, tuple(values))
            events += [event] if event else []
        self._next = stop
        return events

    def _judge(self, step: int, values: tuple[float, ...]) -> Skipped | Spike | None:
        while self._skipped and self._skipped[0] <= step - KEPT:
            self._skipped.popleft()
        if not all(map(math.isfinite, values)):
            self._skipped.append(step)
            in_a_row = all(before in self._skipped for before in range(step - IN_A_ROW + 1, step))
            return Skipped(step, values, in_a_row or len(self._skipped) >= IN_KEPT)
        loss, before = values[0], list(self._losses)
        self._losses.append(loss)
        if len(before) == WINDOW:
            mean = statistics.fmean(before)
            above, std = loss - mean, math.sqrt(statistics.fmean((value - mean) ** 2 for value in before))
            if above > SIGMAS * std > 0:
                return Spike(step, loss, above / std)
        return None


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a number that is not finite."""
    return [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
