"""Does z say anything? KL between posterior and prior on held-out clips, by latent unit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from foreframe.losses import ACTIVE_NATS, COLLAPSED_NATS, kl_per_unit
from foreframe.metrics import summarise
from foreframe.unrolled import Step

ACTIVE_VARIANCE = 0.01
"""A latent unit is active if the variance of its posterior mean exceeds this (Burda et al. 2016, section 5)."""
LISTED = 256
"""At most so many numbers by dimension."""


class Collapse:
    """Gathers what posterior and prior say, step by step; nothing is kept but sums over clips and frames."""

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
                continue
            nats = kl_per_unit(step.posterior, step.prior).flatten(1).double().cpu()
            mean = step.posterior.mean.flatten(1).double().cpu()
            self.nats += nats.sum(0)
            self.first += mean.sum(0)
            self.second += mean.square().sum(0)
            self.count += len(nats)
            found.append(nats.sum(1))
        if found:
            self.per_clip.append(torch.stack(found, 1))

    def result(self) -> dict[str, Any]:
        """Values for JSON; `latent` is "none" for a model that has none."""
        if not self.per_clip:
            return {"latent": "none", "collapsed": None, "why": "the model has no latent: there is nothing to collapse"}
        kl = summarise(torch.cat(self.per_clip))
        nats = self.nats / self.count
        variance = self.second / self.count - (self.first / self.count).square()
        values, what = self._by_dimension(nats)
        return {
            "latent": list(self.shape),
            "kl": kl,
            "kl_definition": "KL(posterior || prior) in nats a frame, summed over z, true frames fed back; intervals "
            "over clips",
            "kl_by_dimension": values.tolist(),
            "kl_by_dimension_definition": f"nats a frame, mean over clips and frames; {what}",
            "units": len(nats),
            "active_units": int((variance > ACTIVE_VARIANCE).sum()),
            "active_units_definition": f"latent units whose posterior mean varies by more than {ACTIVE_VARIANCE} "
            "(variance over clips and frames; Burda et al. 2016)",
            "informative_units": int((nats > ACTIVE_NATS).sum()),
            "informative_units_definition": f"latent units with a KL above {ACTIVE_NATS} nats in the mean, as the log "
            "counts them",
            "collapsed": kl["mean"] < COLLAPSED_NATS,
            "rule": f"collapsed: the mean KL is below {COLLAPSED_NATS} nats a frame",
        }

    def _by_dimension(self, nats: Tensor) -> tuple[Tensor, str]:
        """At most `LISTED` numbers that sum to the KL, and what each is of."""
        what = "one number for each latent unit"
        if len(self.shape) > 1:
            nats, what = (
                nats.unflatten(0, self.shape).flatten(1).sum(1),
                "one number for each channel of z, summed over its map",
            )
        if len(nats) > LISTED:
            largest = nats.sort(descending=True).values
            nats = torch.cat([largest[: LISTED - 1], largest[LISTED - 1 :].sum()[None]])
            what += f"; the {LISTED - 1} largest, and last the sum of all others"
        return nats, what
