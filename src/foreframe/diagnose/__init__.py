"""What a score hides: a latent that says nothing, a condition that is not heard, futures that are all alike.

Four parts look at the same rollouts (`unrolling`): `collapse`, `gap`, `obedience` and `spread`. A part gathers sums
batch by batch, so memory does not grow with the clips, and ends in values for JSON, each with its definition and unit.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from foreframe.checkpoint import TrainedModel
from foreframe.data.pack.pack import Pack
from foreframe.device import describe
from foreframe.diagnose import decoder
from foreframe.diagnose.collapse import Collapse
from foreframe.diagnose.gap import Gap
from foreframe.diagnose.obedience import Obedience
from foreframe.diagnose.spread import Spread
from foreframe.diagnose.table import print_diagnosis
from foreframe.diagnose.unrolling import Request, Rollouts
from foreframe.errors import DataError, UsageError
from foreframe.evaluation import check_spec

__all__ = ["Request", "diagnose", "print_diagnosis", "total"]


def diagnose(
    trained: TrainedModel,
    pack: Pack,
    request: Request,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Measure a run's latent, its gap between reconstruction and prediction, its obedience and its spread.

    The first time on a pack a condition decoder is trained, on the CPU, and kept beside the cache of packs.

    Args:
        trained: A model on `device`.
        advance: Called with the number of rollouts done, of `total`.
    Returns:
        protocol, collapse, gap, obedience, spread, and which weights, clips and machine: values for JSON, each number
        finite or None.
    Raises:
        DataError: these clips are not of the kind the run was trained on, or none is long enough.
        UsageError: a number of the request is out of range.
    """
    rollouts = _rollouts(trained, pack, request, device)
    collapse, gap, spread = Collapse(tuple(trained.model.latent_shape)), Gap(), Spread(rollouts.samples)
    obedience = _obedience(pack, device)
    for batch in rollouts.batches(advance):
        collapse.add(batch.steps())
        for part in (gap, obedience, spread):
            part.add(batch)
    windows, chosen = rollouts.windows, rollouts.chosen
    names = "\n".join(windows.names(chosen))
    return {
        "protocol": {
            **asdict(request),
            "clips": len(chosen),
            "context": rollouts.context,
            "temperature": 1.0,
            "clip_names_sha256": hashlib.sha256(names.encode()).hexdigest(),
            "too_short": [episode.name for episode in windows.short],
            "data_sha256": pack.hash,
            "model_sha256": trained.provenance["weights_sha256"],
        },
        "collapse": collapse.result(),
        "gap": gap.result(),
        "obedience": obedience.result(rollouts.broken),
        "spread": spread.result(),
        "model": trained.provenance,
        "data": pack.path.name,
        "hardware": describe(device),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def total(trained: TrainedModel, pack: Pack, request: Request, device: torch.device) -> int:
    """How many rollouts `diagnose` makes. Raises as it does."""
    return _rollouts(trained, pack, request, device).total


def _rollouts(trained: TrainedModel, pack: Pack, request: Request, device: torch.device) -> Rollouts:
    check_spec(trained, pack)
    for name, least in (("horizon", 1), ("samples", 1), ("clips", 0)):
        if getattr(request, name) < least:
            raise UsageError(f"{name}: expected {least} or more, found {getattr(request, name)}")
    return Rollouts(trained.model, pack, request, trained.config.train.context, device)


def _obedience(pack: Pack, device: torch.device) -> Obedience:
    if pack.cond is None:
        return Obedience(None, (), device, "these clips have no conditions")
    try:
        found = decoder.find(pack)
    except DataError as error:
        return Obedience(None, (), device, str(error))
    return Obedience(found, decoder.target_names(pack), device)
