"""The rollouts of a diagnosis, made once and shared by all its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from foreframe import evaluation as scoring
from foreframe.clip import Clip
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.errors import NotFiniteError
from foreframe.evaluation import Protocol
from foreframe.models import Model
from foreframe.rollout import ModeName, draw_noise, prepare_for_inference, rollout
from foreframe.unrolled import Step

Kind = Literal["true", "shuffled", "zeroed", "shifted", "swapped"]
DEFINITIONS: dict[Kind, str] = {
    "true": "the clip's own conditions",
    "shuffled": "the clip's own conditions in another order of time",
    "zeroed": "zeros",
    "shifted": "each of the clip's conditions one frame too late",
    "swapped": "for the predicted frames, the conditions of the next clip in the split",
}
BATCH = 16
"""Clips at once: memory does not grow with their number."""


@dataclass(frozen=True)
class Batch:
    """Some clips and predictions of their frames K .. T-1, h of them.

    clip: floats, all T frames. last: frame K-1, (B, C, H, W). truth: (B, h, C, H, W). given: conditions of each kind,
    (B, T, ...). predicted: one sample under each that is not `broken`, with the same noise. samples: (S, B, h, C, H, W)
    under the true ones, the first being `predicted["true"]`. reconstruction: as `predicted`, z from the posterior.
    """

    clip: Clip
    last: Tensor
    truth: Tensor
    given: dict[Kind, Tensor]
    predicted: dict[Kind, Tensor]
    samples: Tensor
    reconstruction: Tensor
    steps: Callable[[], Iterator[Step]]
    """The steps K .. T-1 with true frames fed back and z from the posterior."""


class Rollouts:
    """The clips of a protocol, and their rollouts batch by batch.

    Raises:
        DataError: the split has no clip that long.
    """

    def __init__(self, model: Model, pack: Pack, protocol: Protocol, device: torch.device) -> None:
        self.model, self.protocol, self.device = prepare_for_inference(model), protocol, device
        self.context = protocol.context
        self.samples = 1 if 0 in model.latent_shape else protocol.samples
        """Samples of each clip; without a latent all are equal, and one is made."""
        self.windows = Windows(pack, protocol.split, protocol.context + protocol.horizon, "first")
        self.chosen: list[int] = scoring.evenly_spaced(len(self.windows), protocol.clips)
        self.kinds: list[Kind] = [kind for kind in DEFINITIONS if kind == "true" or pack.cond is not None]
        if len(self.chosen) == 1 and pack.cond is not None:
            self.kinds.remove("swapped")
        self.broken: dict[Kind, str] = {}
        """Wrong conditions under which a frame was not finite, and where."""

    @property
    def total(self) -> int:
        """Rollouts in all: samples, other conditions, reconstruction, and the teacher-forced one."""
        return len(self.chosen) * (self.samples + len(self.kinds) - 1 + 2)

    def batches(self, advance: Callable[[int], None] | None = None) -> Iterator[Batch]:
        """Args: advance: called with the number of new rollouts."""
        size = max(1, min(BATCH, scoring.ROWS // self.samples))
        for start in range(0, len(self.chosen), size):
            yield self._batch(start, min(start + size, len(self.chosen)), advance)

    def _batch(self, start: int, stop: int, advance: Callable[[int], None] | None) -> Batch:
        indices = self.chosen[start:stop]
        clip = self.windows.batch(indices).to(self.device).unit()
        given = self._given(clip, start, stop)

        def frames(rows: Clip, samples: int, mode: ModeName = "prediction") -> Tensor:
            protocol = replace(self.protocol, samples=samples, mode=mode)
            return torch.cat(list(scoring.sample(self.model, rows, indices, protocol, advance)))

        samples = frames(clip, self.samples)
        predicted: dict[Kind, Tensor] = {"true": samples[0]}
        for kind in self.kinds[1:]:
            if kind not in self.broken:
                try:
                    predicted[kind] = frames(Clip(clip.frames, given[kind]), 1)[0]
                except NotFiniteError as error:
                    self.broken[kind] = str(error)
        reconstruction = frames(clip, 1, "reconstruction")[0]

        def steps() -> Iterator[Step]:
            noise = draw_noise(self.model, indices, len(clip), self.protocol.seed).to(self.device)
            known = clip.frames[:, : self.context]
            yield from rollout(self.model, known, clip.cond, noise, "teacher-forced", clip.frames)
            if advance is not None:
                advance(len(indices))

        truth = clip.frames[:, self.context :]
        return Batch(clip, clip.frames[:, self.context - 1], truth, given, predicted, samples, reconstruction, steps)

    def _given(self, clip: Clip, start: int, stop: int) -> dict[Kind, Tensor]:
        """The conditions of each kind, (B, T, ...); empty where clips have none."""
        if clip.cond is None:
            return {}
        found: dict[Kind, Tensor] = {}
        for conditions in get_args(scoring.Conditions):
            rows = scoring.conditions_given(clip.cond, replace(self.protocol, conditions=conditions))
            found[conditions] = cast(Tensor, rows)
        if "swapped" in self.kinds:
            # Of the next clip, whatever batch it is in; not its context rows, as the context frames are this clip's.
            following = [self.chosen[(place + 1) % len(self.chosen)] for place in range(start, stop)]
            theirs = self.windows.batch(following).to(self.device).unit().cond
            assert theirs is not None
            found["swapped"] = torch.cat([clip.cond[:, : self.context], theirs[:, self.context :]], 1)
        return found
