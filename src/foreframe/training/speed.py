"""Options that trade a slow start for faster steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foreframe.distributed import World
from foreframe.errors import UsageError


@dataclass(frozen=True)
class Speed:
    """Ways to do the same work sooner, paid for in advance; only roundings change, so no part of the experiment."""

    compile: bool = False
    """Have torch compile the parts of the model that hold convolutions."""
    graphs: bool = False
    """Record a step as a CUDA graph and replay it."""

    def check(self, device: torch.device, world: World) -> None:
        """Raises UsageError for what cannot be done here."""
        if self.graphs and device.type != "cuda":
            raise UsageError(f"--graphs: recordings are a matter of CUDA devices, this is {device.type}; leave it out")
        if self.graphs and world.size > 1:
            raise UsageError("--graphs: a step that other devices take part in cannot be recorded; use one device")
