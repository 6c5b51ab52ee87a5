"""Whether the model follows its conditions: PSNR under wrong ones, and conditions read back from its frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from foreframe.diagnose import decoder as reading
from foreframe.diagnose.unrolling import DEFINITIONS, Batch, Kind
from foreframe.metrics import METRICS, Difference, Ratio, Summary, psnr, summarize
from foreframe.metrics.statistics import paired_difference, ratio

LEAST_DB = 0.1
"""An obedient model is worse by this much under shuffled conditions, with an interval that excludes 0."""
READABLE = 0.5
"""A column with a smaller R2 on real frames is not read from predicted ones."""
READ: tuple[Kind, ...] = ("true", "shuffled", "swapped")
"""Kinds of which frames are read."""


@dataclass(frozen=True)
class RealReading:
    """R2 by column on real frames; for pose pictures also the distance in pixels."""

    r2: dict[str, Ratio]
    distance: Summary | None = None


@dataclass(frozen=True)
class PredictedReading:
    """The same on frames predicted under some conditions, against these (`given`) and the clip's own (`true`)."""

    r2_of_given: dict[str, Ratio]
    r2_of_true: dict[str, Ratio] | None = None
    distance_from_given: Summary | None = None
    distance_from_true: Summary | None = None


@dataclass(frozen=True)
class DecoderResult:
    """Conditions read back from frames; `columns` is None where nothing could be read, for the reason `why`."""

    columns: tuple[str, ...] | None
    why: str = ""
    definition: str = ""
    r2_definition: str = (
        "1 - squared error / squared distance from the mean, over all clips and predicted frames; 1: all of it is "
        "recovered, 0: no better than the mean, below: worse; intervals: bootstrap over clips"
    )
    trained_on: str = "real frames of the training split"
    version: int = reading.VERSION
    notes: tuple[str, ...] = ()
    real: RealReading = field(default_factory=lambda: RealReading({}))
    readable: dict[str, bool] = field(default_factory=dict)
    readable_rule: str = (
        f"R2 of {READABLE} or more on real held-out frames; other columns are not read from predicted frames"
    )
    predicted: dict[Kind, PredictedReading] = field(default_factory=dict)
    caution: str = ""
    distance_definition: str = ""
    without_target: int | None = None


@dataclass(frozen=True)
class ObedienceResult:
    """PSNR in dB of prediction under each kind of conditions; of clips without conditions only `why`."""

    conditions: dict[Kind, str] | Literal["none"]
    obeys: bool | None = None
    why: str = ""
    rule: str = (
        f"obeys: PSNR under true conditions is at least {LEAST_DB} dB above that under shuffled ones, and the interval "
        "of the difference excludes 0"
    )
    psnr: dict[Kind, Summary] = field(default_factory=dict)
    lost: dict[Kind, Difference] = field(default_factory=dict)
    lost_definition: str = (
        "PSNR of prediction under true conditions minus that under others, in dB, clip by clip; one sample of each, of "
        "the same noise"
    )
    metric: str = METRICS["psnr"].definition
    broken: dict[Kind, str] = field(default_factory=dict)
    """Kinds under which a frame was not finite, and where."""
    decoder: DecoderResult | None = None


class Obedience:
    """Scores under each kind of conditions; `found` is the decoder, or None for the reason `why`."""

    def __init__(
        self, found: reading.Found | None, names: tuple[str, ...], device: torch.device, why: str = ""
    ) -> None:
        self.found, self.names, self.why = found, names, why
        self.decoder = None if found is None else found.decoder.to(device)
        self.scores: dict[Kind, list[Tensor]] = {}
        self.real = Reading()
        self.read: dict[tuple[Kind, Literal["given", "true"]], Reading] = {}

    def add(self, batch: Batch) -> None:
        for kind, predicted in batch.predicted.items():
            self.scores.setdefault(kind, []).append(psnr(predicted, batch.truth).cpu())
        if self.decoder is None:
            return
        context = len(batch.clip) - batch.truth.shape[1]
        true = self._targets(batch.given["true"][:, context:])
        self.real.add(self._read(batch, batch.truth), *true)
        for kind in (kind for kind in READ if kind in batch.predicted):
            read = self._read(batch, batch.predicted[kind])
            given = self._targets(batch.given[kind][:, context:])
            self.read.setdefault((kind, "given"), Reading()).add(read, *given)
            if kind != "true":
                self.read.setdefault((kind, "true"), Reading()).add(read, *true)

    def result(self, broken: Mapping[Kind, str] = MappingProxyType({})) -> ObedienceResult:
        """Args: broken: as in `Rollouts`."""
        for kind in broken:  # its earlier batches are not a score of all clips
            self.scores.pop(kind, None)
        if len(self.scores) + len(broken) < 2:
            return ObedienceResult("none", why="these clips have no conditions to follow")
        scores = {kind: summarize(torch.cat(parts)) for kind, parts in self.scores.items()}
        true = scores["true"].per_clip
        lost: dict[Kind, Difference] = {
            kind: paired_difference(scores[kind].per_clip, true) for kind in scores if kind != "true"
        }
        shuffled = lost.get("shuffled")
        return ObedienceResult(
            conditions={kind: DEFINITIONS[kind] for kind in scores},
            obeys=None if shuffled is None else shuffled.significant and shuffled.mean >= LEAST_DB,
            psnr=scores,
            lost=lost,
            broken=dict(broken),
            decoder=self._decoder(broken),
        )

    def _targets(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Of conditions of frames K .. T-1: (B, h, D), less the targets' mean: squares keep their digits."""
        assert self.decoder is not None
        values, there = reading.targets(cond)
        return values - self.decoder.mean, there

    def _read(self, batch: Batch, frames: Tensor) -> Tensor:
        """Conditions read from frames K .. T-1, likewise."""
        assert self.decoder is not None
        return reading.read(self.decoder, torch.cat([batch.last[:, None], frames], 1)) - self.decoder.mean

    def _decoder(self, broken: Mapping[Kind, str]) -> DecoderResult:
        if self.found is None:
            return DecoderResult(None, self.why)
        pictures = self.found.decoder.frames == 1
        r2 = self.real.r2(self.names)
        predicted = {}
        for kind in dict.fromkeys(kind for kind, _ in self.read if kind not in broken):
            given, true = self.read[kind, "given"], self.read.get((kind, "true"))
            predicted[kind] = PredictedReading(
                r2_of_given=given.r2(self.names),
                r2_of_true=None if true is None else true.r2(self.names),
                distance_from_given=given.distance() if pictures else None,
                distance_from_true=true.distance() if pictures and true is not None else None,
            )
        return DecoderResult(
            columns=self.names,
            definition="the center (x, y) of the drawing in the pose picture of frame t, in pixels, read from frame t"
            if pictures
            else "the row that leads into frame t, read from frames t-1 and t",
            notes=self.found.notes,
            real=RealReading(r2, self.real.distance() if pictures else None),
            readable={name: (r2[name].value or 0.0) >= READABLE for name in self.names},
            predicted=predicted,
            caution=""
            if pictures
            else "shuffled rows that hold a position contradict the frames before them, so no model can follow them "
            "all; swapped rows are consistent with one another",
            distance_definition="distance in pixels between the center that is read and that of the picture; mean over "
            "frames"
            if pictures
            else "",
            without_target=self.real.without if pictures else None,
        )


class Reading:
    """Values read against their targets: sums by clip, from which R2 and distances follow."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.distances: list[Tensor] = []
        self.without = 0

    def add(self, seen: Tensor, wanted: Tensor, there: Tensor) -> None:
        """(B, h, D) twice, in the same unit, and where there is a target, (B, h) bool."""
        seen, wanted = seen.double().cpu(), wanted.double().cpu()
        counted = there.cpu()[..., None].double()
        error = (seen - wanted) * counted
        wanted = wanted * counted
        parts = [counted.expand_as(wanted).sum(1), wanted.sum(1), wanted.square().sum(1), error.square().sum(1)]
        self.sums.append(torch.stack(parts, 2))
        amount = counted[..., 0].sum(1)
        self.distances.append((error.norm(dim=2).sum(1) / amount)[amount > 0])
        self.without += int((~there).sum())

    def r2(self, names: tuple[str, ...]) -> dict[str, Ratio]:
        """By column, with 95 % interval; None where the target never changes."""
        sums = torch.cat(self.sums)  # (N, D, 4)
        return {name: ratio(sums[:, column], _r2) for column, name in enumerate(names)}

    def distance(self) -> Summary | None:
        """In the unit of the targets, over clips; None if no frame has a target."""
        distances = torch.cat(self.distances)
        return summarize(distances[:, None]) if len(distances) else None


def _r2(sums: Tensor) -> Tensor:
    """Of (..., 4): their number, sum, sum of squares, and squared errors."""
    count, first, second, error = sums.unbind(-1)
    total = second - first.square() / count
    # The variance of constant targets is rounding error.
    return torch.where(total > 1e-12 * second, 1 - error / total, torch.nan)
