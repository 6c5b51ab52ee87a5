"""Information in z: KL between posterior and prior on held-out clips, by latent unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foreframe.losses import ACTIVE_NATS, COLLAPSED_NATS, kl_per_unit
from foreframe.metrics import Summary, summarize
from foreframe.unrolled import Step

ACTIVE_VARIANCE = 0.01
"""A latent unit is active if the variance of its posterior mean exceeds this (Burda et al. 2016, section 5)."""
LISTED = 256
"""At most this many numbers by dimension."""


@dataclass(frozen=True)
class CollapseResult:
    """KL in nats a frame and latent units in use; for a model without a latent only `why`."""

    latent: tuple[int, ...] | Literal["none"]
    collapsed: bool | None = None
    why: str = ""
    rule: str = f"collapsed: the mean KL is below {COLLAPSED_NATS} nats a frame"
    kl: Summary | None = None
    kl_definition: str = (
        "KL(posterior || prior) in nats a frame, summed over z, true frames fed back; intervals over clips"
    )
    kl_by_dimension: tuple[float, ...] = ()
    kl_by_dimension_definition: str = ""
    units: int = 0
    active_units: int = 0
    active_units_definition: str = (
        f"latent units whose posterior mean varies by more than {ACTIVE_VARIANCE} (variance over clips and frames; "
        "Burda et al. 2016)"
    )
    informative_units: int = 0
    informative_units_definition: str = f"latent units with a mean KL above {ACTIVE_NATS} nats, as in the log"


class Collapse:
    """Collects posterior and prior step by step; it keeps sums over clips and frames."""

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        self.shape = latent_shape
        self.per_clip: list[Tensor] = []
        units = torch.zeros(latent_shape, dtype=torch.float64).flatten()
        self.nats, self.first, self.second, self.count = units, units.clone(), units.clone(), 0

    def add(self, steps: Iterable[Step]) -> None:
        """The steps of some clips, with posterior and prior."""
        found = []
        for step in steps:
            if step.posterior is None or step.prior is None:
                return
            nats = kl_per_unit(step.posterior, step.prior).flatten(1).double().cpu()
            mean = step.posterior.mean.flatten(1).double().cpu()
            self.nats += nats.sum(0)
            self.first += mean.sum(0)
            self.second += mean.square().sum(0)
            self.count += len(nats)
            found.append(nats.sum(1))
        self.per_clip.append(torch.stack(found, 1))

    def result(self) -> CollapseResult:
        if not self.per_clip:
            return CollapseResult("none", why="the model has no latent, so no posterior can collapse")
        kl = summarize(torch.cat(self.per_clip))
        nats = self.nats / self.count
        variance = self.second / self.count - (self.first / self.count).square()
        values, what = self._by_dimension(nats)
        return CollapseResult(
            latent=self.shape,
            collapsed=kl.mean < COLLAPSED_NATS,
            kl=kl,
            kl_by_dimension=tuple(values.tolist()),
            kl_by_dimension_definition=f"nats a frame, mean over clips and frames; {what}",
            units=len(nats),
            active_units=int((variance > ACTIVE_VARIANCE).sum()),
            informative_units=int((nats > ACTIVE_NATS).sum()),
        )

    def _by_dimension(self, nats: Tensor) -> tuple[Tensor, str]:
        """At most `LISTED` numbers that sum to the KL, and their definition."""
        what = "one number for each latent unit"
        if len(self.shape) > 1:
            nats = nats.unflatten(0, self.shape).flatten(1).sum(1)
            what = "one number for each channel of z, summed over its map"
        if len(nats) > LISTED:
            largest = nats.sort(descending=True).values
            nats = torch.cat([largest[: LISTED - 1], largest[LISTED - 1 :].sum()[None]])
            what += f"; the {LISTED - 1} largest, and last the sum of all others"
        return nats, what
