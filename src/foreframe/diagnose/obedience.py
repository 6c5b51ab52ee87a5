"""Does the model do what the condition says? Its PSNR under wrong conditions, and conditions read from its frames."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from foreframe.diagnose import decoder as reading
from foreframe.diagnose.intervals import finite, resampled
from foreframe.diagnose.unrolling import DEFINITIONS, Batch, Kind
from foreframe.metrics import METRICS, Summary, psnr, summarise
from foreframe.metrics.paired import paired_difference

LEAST_DB = 0.1
"""So much worse an obedient model is under shuffled conditions, beside an interval that leaves out 0."""
READABLE = 0.5
"""A column with a smaller R2 on real frames cannot be asked of predicted ones."""
READ: tuple[Kind, ...] = ("true", "shuffled", "swapped")
"""Kinds of which frames are read."""


class Obedience:
    """Scores under each kind of conditions; `found` is the decoder, None where there is none, for the reason `why`."""

    def __init__(
        self, found: reading.Found | None, names: tuple[str, ...], device: torch.device, why: str = ""
    ) -> None:
        self.found, self.names, self.why = found, names, why
        self.decoder = None if found is None else found.decoder.to(device)
        self.scores: dict[Kind, list[Tensor]] = {}
        self.read: dict[str, Reading] = {}

    def add(self, batch: Batch) -> None:
        for kind, predicted in batch.predicted.items():
            self.scores.setdefault(kind, []).append(psnr(predicted, batch.truth).cpu())
        if self.decoder is None:
            return
        context = len(batch.clip) - batch.truth.shape[1]
        wanted = {}
        for kind in READ:
            if kind in batch.given:
                values, there = reading.targets(batch.given[kind][:, context:])
                wanted[kind] = values - self.decoder.mean, there
        real = self._read(batch, batch.truth)
        self._note("real", real, wanted["true"])
        for kind in wanted.keys() & batch.predicted.keys():
            seen = self._read(batch, batch.predicted[kind])
            self._note(f"{kind}, as given", seen, wanted[kind])
            if kind != "true":
                self._note(f"{kind}, as true", seen, wanted["true"])

    def result(self, broken: Mapping[Kind, str] = MappingProxyType({})) -> dict[str, Any]:
        """Values for JSON; PSNR in dB, R2 without unit, distances in pixels. broken: as `Rollouts` has it."""
        for kind in broken:  # what its earlier batches gave is no score of all clips
            self.scores.pop(kind, None)
            for against in ("given", "true"):
                self.read.pop(f"{kind}, as {against}", None)
        if len(self.scores) + len(broken) < 2:
            return {
                "conditions": "none",
                "obeys": None,
                "why": "these clips have no conditions: there is nothing to obey",
            }
        scores = {kind: summarise(torch.cat(parts)) for kind, parts in self.scores.items()}
        lost = {
            kind: paired_difference(scores[kind]["per_clip"], scores["true"]["per_clip"])
            for kind in scores
            if kind != "true"
        }
        shuffled = lost.get("shuffled")
        return {
            "conditions": {kind: DEFINITIONS[kind] for kind in scores},
            "psnr": scores,
            "lost": lost,
            "lost_definition": "PSNR of prediction under true conditions minus that under others, in dB, clip by clip; "
            "one future of each, of the same noise",
            "metric": METRICS["psnr"].definition,
            "broken": dict(broken),
            "obeys": None if shuffled is None else shuffled["significant"] and shuffled["mean"] >= LEAST_DB,
            "rule": f"obeys: PSNR under true conditions is at least {LEAST_DB} dB above that under shuffled ones, and "
            "the interval of the difference leaves out 0",
            "decoder": self._decoder(),
        }

    def _read(self, batch: Batch, frames: Tensor) -> Tensor:
        """What is read in frames K .. T-1, (B, h, D), less the targets' mean, so that squares keep their digits."""
        assert self.decoder is not None
        return reading.read(self.decoder, torch.cat([batch.last[:, None], frames], 1)) - self.decoder.mean

    def _note(self, name: str, seen: Tensor, wanted: tuple[Tensor, Tensor]) -> None:
        self.read.setdefault(name, Reading()).add(seen, *wanted)

    def _decoder(self) -> dict[str, Any]:
        if self.found is None:
            return {"columns": None, "why": self.why}
        pictures = self.found.decoder.frames == 1
        real = self.read.pop("real")
        r2 = real.r2(self.names)
        result: dict[str, Any] = {
            "columns": list(self.names),
            "definition": "the centre (x, y) of what is drawn in the picture of frame t, in pixels, read from frame t"
            if pictures
            else "the row that leads into frame t, read from frames t-1 and t",
            "r2_definition": "1 - squared error / squared distance from the mean, over all clips and predicted frames; "
            "1: all of it is recovered, 0: no better than the mean, below: worse; intervals: bootstrap over clips",
            "trained_on": "real frames of the training split",
            "version": reading.VERSION,
            "notes": list(self.found.notes),
            "real": {"r2": r2},
            "readable": {name: (r2[name]["value"] or 0.0) >= READABLE for name in self.names},
            "readable_rule": f"R2 on real held-out frames of {READABLE} or more; what cannot be read there cannot be "
            "asked of predicted frames",
            "predicted": {},
        }
        for name, part in self.read.items():
            kind, _, against = name.partition(", as ")
            result["predicted"].setdefault(kind, {})[f"r2_of_{against}"] = part.r2(self.names)
        if not pictures:
            result["caution"] = (
                "shuffled rows that hold a position contradict the frames before them, so that no model can follow "
                "them all; swapped rows agree with one another"
            )
            return result
        result["distance_definition"] = (
            "distance in pixels of the centre that is read from that of the picture; mean over frames"
        )
        result["without_target"] = real.without
        result["real"]["distance"] = real.distance()
        for name, part in self.read.items():
            kind, _, against = name.partition(", as ")
            result["predicted"][kind][f"distance_from_{against}"] = part.distance()
        return result


class Reading:
    """What was read against what was to be read: sums by clip, from which R2 and distances follow."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.distances: list[Tensor] = []
        self.without = 0

    def add(self, seen: Tensor, wanted: Tensor, there: Tensor) -> None:
        """(B, h, D) twice, in the same unit, and where there is something to be read, (B, h) bool."""
        seen, wanted = seen.double().cpu(), wanted.double().cpu()
        counted = there.cpu()[..., None].double()
        error = (seen - wanted) * counted
        wanted = wanted * counted
        parts = [counted.expand_as(wanted).sum(1), wanted.sum(1), wanted.square().sum(1), error.square().sum(1)]
        self.sums.append(torch.stack(parts, 2))
        amount = counted[..., 0].sum(1)
        self.distances.append((error.norm(dim=2).sum(1) / amount)[amount > 0])
        self.without += int((~there).sum())

    def r2(self, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """By column: value and 95 % interval; None where what is to be read never changes."""
        sums = torch.cat(self.sums)  # (N, D, 4)
        found = {}
        for column, name in enumerate(names):
            value = finite(_r2(sums[:, column].sum(0)))
            interval = None if value is None else resampled(sums[:, column], _r2)
            found[name] = {"value": value, "ci95": interval}
        return found

    def distance(self) -> Summary | None:
        """In the unit of the targets, over clips; None if no frame has a target."""
        distances = torch.cat(self.distances)
        return summarise(distances[:, None]) if len(distances) else None


def _r2(sums: Tensor) -> Tensor:
    """Of (..., 4): how many, their sum, their squares and the squared errors."""
    count, first, second, error = sums.unbind(-1)
    total = second - first.square() / count
    # What is left of numbers that never change is rounding.
    return torch.where(total > 1e-12 * second, 1 - error / total, torch.nan)
