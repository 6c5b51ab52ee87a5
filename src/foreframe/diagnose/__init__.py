"""What a score hides: a collapsed posterior, ignored conditions, samples without diversity.

Four parts share the rollouts of `unrolling`: `collapse`, `gap`, `obedience` and `diversity`. Each adds up sums batch by
batch, so memory does not grow with the clips, and its result holds definitions and units beside the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from foreframe.checkpoint import Provenance, TrainedModel
from foreframe.data.pack.pack import Pack
from foreframe.device import Hardware, describe
from foreframe.diagnose import decoder
from foreframe.diagnose.collapse import Collapse, CollapseResult
from foreframe.diagnose.diversity import Diversity, DiversityResult
from foreframe.diagnose.gap import Gap, GapResult
from foreframe.diagnose.obedience import Obedience, ObedienceResult
from foreframe.diagnose.unrolling import Rollouts
from foreframe.errors import DataError, UsageError
from foreframe.evaluation import Protocol, check_spec, clips_measured, timestamp

__all__ = ["Diagnosis", "diagnose", "total"]


@dataclass(frozen=True)
class DiagnosisProtocol:
    """What was diagnosed."""

    split: str
    horizon: int
    samples: int
    clips: int
    seed: int
    context: int
    temperature: float
    clip_names_sha256: str
    too_short: tuple[str, ...]
    data_sha256: str
    model_sha256: str


@dataclass(frozen=True)
class Diagnosis:
    """A latent, its gap between reconstruction and prediction, obedience to conditions, and diversity of samples."""

    protocol: DiagnosisProtocol
    collapse: CollapseResult
    gap: GapResult
    obedience: ObedienceResult
    spread: DiversityResult
    model: Provenance
    data: str
    hardware: Hardware
    created: str


def diagnose(
    trained: TrainedModel,
    pack: Pack,
    protocol: Protocol,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
) -> Diagnosis:
    """Measure a run's latent, its gap between reconstruction and prediction, its obedience and its diversity.

    The first time on a pack a condition decoder is trained, on the CPU, and kept beside the cache of packs.

    Args:
        trained: A model on `device`.
        protocol: Its split, context, horizon, samples, clips, seed and temperature are taken.
        advance: Called with the number of rollouts done, of `total`.
    Raises:
        DataError: these clips are not of the kind the run was trained on, or none is long enough.
        UsageError: a number of the protocol is out of range.
    """
    rollouts = _rollouts(trained, pack, protocol, device)
    collapse, gap, diversity = Collapse(tuple(trained.model.latent_shape)), Gap(), Diversity(rollouts.samples)
    obedience = _obedience(pack, device)
    for batch in rollouts.batches(advance):
        collapse.add(batch.steps())
        for part in (gap, obedience, diversity):
            part.add(batch)
    return Diagnosis(
        protocol=DiagnosisProtocol(
            split=protocol.split,
            horizon=protocol.horizon,
            samples=protocol.samples,
            seed=protocol.seed,
            context=protocol.context,
            temperature=protocol.temperature,
            model_sha256=trained.provenance.weights_sha256,
            **clips_measured(pack, rollouts.windows, rollouts.chosen),
        ),
        collapse=collapse.result(),
        gap=gap.result(),
        obedience=obedience.result(rollouts.broken),
        spread=diversity.result(),
        model=trained.provenance,
        data=pack.path.name,
        hardware=describe(device),
        created=timestamp(),
    )


def total(trained: TrainedModel, pack: Pack, protocol: Protocol, device: torch.device) -> int:
    """How many rollouts `diagnose` makes. Raises as it does."""
    return _rollouts(trained, pack, protocol, device).total


def _rollouts(trained: TrainedModel, pack: Pack, protocol: Protocol, device: torch.device) -> Rollouts:
    check_spec(trained, pack)
    for name, least in (("horizon", 1), ("samples", 1), ("clips", 0)):
        if getattr(protocol, name) < least:
            raise UsageError(f"{name}: expected {least} or more, found {getattr(protocol, name)}")
    return Rollouts(trained.model, pack, protocol, device)


def _obedience(pack: Pack, device: torch.device) -> Obedience:
    if pack.cond is None:
        return Obedience(None, (), device, "these clips have no conditions")
    try:
        found = decoder.find(pack)
    except DataError as error:
        return Obedience(None, (), device, str(error))
    return Obedience(found, decoder.target_names(pack), device)
