"""The rollouts of a diagnosis, made once and shared by all its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor

from foreframe import evaluation as scoring
from foreframe import signals
from foreframe.clip import Clip
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.errors import NotFiniteError
from foreframe.models import Model
from foreframe.rollout import ModeName, draw_noise, prepare_for_inference, rollout
from foreframe.unrolled import Step

Kind = Literal["true", "shuffled", "zeroed", "shifted", "swapped"]
KINDS: tuple[Kind, ...] = ("true", "shuffled", "zeroed", "shifted", "swapped")
DEFINITIONS: dict[Kind, str] = {
    "true": "the clip's own conditions",
    "shuffled": "the clip's own conditions in another order of time",
    "zeroed": "zeros",
    "shifted": "each of the clip's conditions one frame too late",
    "swapped": "for the predicted frames, the conditions of the next clip in the split",
}
BATCH, ROWS = 16, 64
"""Clips at once, and rollouts at once: memory does not grow with the clips."""


@dataclass(frozen=True)
class Request:
    """What to diagnose."""

    split: str
    horizon: int
    """Frames predicted after the context."""
    samples: int = 10
    """Samples of each clip."""
    clips: int = 0
    """At most this many clips, evenly spaced over the split; 0: all."""
    seed: int = 0
    """Of the noise, and of the order of shuffled conditions."""


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
    """The clips of a request, and their rollouts batch by batch.

    Raises:
        DataError: the split has no clip that long.
    """

    def __init__(self, model: Model, pack: Pack, request: Request, context: int, device: torch.device) -> None:
        self.model, self.request, self.context, self.device = prepare_for_inference(model), request, context, device
        self.latent = 0 not in model.latent_shape
        self.samples = request.samples if self.latent else 1
        """Samples of each clip; without a latent all are equal, and one is made."""
        self.windows = Windows(pack, request.split, context + request.horizon, "first")
        self.chosen: list[int] = scoring.evenly_spaced(len(self.windows), request.clips)
        one = len(self.chosen) == 1
        self.kinds: tuple[Kind, ...] = ("true",) if pack.cond is None else KINDS[:-1] if one else KINDS
        self.broken: dict[Kind, str] = {}
        """Wrong conditions under which a frame was not finite, and where."""

    @property
    def total(self) -> int:
        """Rollouts in all: samples, other conditions, reconstruction, and the teacher-forced one."""
        return len(self.chosen) * (self.samples + len(self.kinds) - 1 + 2)

    def batches(self, advance: Callable[[int], None] | None = None) -> Iterator[Batch]:
        """Args: advance: called with the number of new rollouts."""
        size = max(1, min(BATCH, ROWS // self.samples))
        for start in range(0, len(self.chosen), size):
            yield self._batch(start, min(start + size, len(self.chosen)), advance)

    def _batch(self, start: int, stop: int, advance: Callable[[int], None] | None) -> Batch:
        indices = self.chosen[start:stop]
        clip = self.windows.batch(indices).to(self.device).unit()
        given = self._given(clip, start, stop)

        def frames(rows: Clip, numbers: range, mode: ModeName = "prediction") -> Tensor:
            signals.poll()
            noise = torch.cat([self._noise(indices, number) for number in numbers])
            found = scoring.unroll(self.model, rows, noise, self.context, mode)
            if advance is not None:
                advance(len(found))
            return cast(Tensor, found.unflatten(0, (len(numbers), -1)))

        together = max(1, ROWS // len(indices))
        parts = [
            frames(clip, range(first, min(first + together, self.samples)))
            for first in range(0, self.samples, together)
        ]
        samples = torch.cat(parts)
        others = {kind: Clip(clip.frames, given[kind]) for kind in self.kinds if kind != "true"}
        predicted: dict[Kind, Tensor] = {"true": samples[0]}
        for kind, rows in others.items():
            if kind not in self.broken:
                try:
                    predicted[kind] = frames(rows, range(1))[0]
                except NotFiniteError as error:
                    self.broken[kind] = str(error)
        reconstruction = frames(clip, range(1), "reconstruction")[0]

        def steps() -> Iterator[Step]:
            noise = self._noise(indices, 0)
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
        plain = scoring.Protocol(self.request.split, self.context, self.request.horizon, seed=self.request.seed)
        found: dict[Kind, Tensor] = {"true": clip.cond}
        for kind in self.kinds[1:4]:
            protocol = replace(plain, conditions=cast(scoring.Conditions, kind))
            found[kind] = cast(Tensor, scoring.conditions_given(clip.cond, protocol))
        if "swapped" in self.kinds:
            # Of the next clip, whatever batch it is in; not its context rows, as the context frames are this clip's.
            following = [self.chosen[(place + 1) % len(self.chosen)] for place in range(start, stop)]
            theirs = self.windows.batch(following).to(self.device).unit().cond
            assert theirs is not None
            found["swapped"] = torch.cat([clip.cond[:, : self.context], theirs[:, self.context :]], 1)
        return found

    def _noise(self, indices: list[int], sample: int) -> Tensor:
        length = self.context + self.request.horizon
        return draw_noise(self.model, indices, length, self.request.seed, sample).to(self.device)
