"""Shared by several verbs: their flags, and opening a run with clips."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foreframe import signals
from foreframe.errors import UsageError

if TYPE_CHECKING:
    import torch

    from foreframe.checkpoint import TrainedModel
    from foreframe.data.pack.pack import Pack

Mode = Literal["prediction", "one-step", "reconstruction", "teacher-forced"]
Device = Literal["auto", "cpu", "cuda"]


def import_torch() -> None:
    """Import torch without interruption: half imported after a signal, it crashes the process at its end."""
    with signals.defer_signals():
        importlib.import_module("torch")
    signals.poll()


@dataclass(frozen=True)
class Sampling:
    """Flags of verbs that make rollouts of a run."""

    split: str | None = None
    """Split of the clips. Default: test, or val where there is no test."""
    horizon: int = 0
    """Frames to predict; 0: the preset's, -1: to the end of the shortest clip (`rollout`: of the clip)."""
    samples: int = 10
    """Rollouts of each clip."""
    checkpoint: str = "best"
    """best (by validation), newest, or a step."""
    seed: int = 0
    """Of the noise; sample i is the same however many are asked for."""
    device: Device = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads."""

    def check(self) -> None:
        """Raises UsageError for a number that is too small."""
        at_least(samples=(self.samples, 1), horizon=(self.horizon, -1))

    def choose_device(self) -> torch.device:
        """The device, with its threads set."""
        from foreframe.device import choose_device

        return choose_device(self.device, self.threads)

    def load(self, run: Path) -> tuple[torch.device, TrainedModel]:
        """The device and the model of a run."""
        from foreframe.checkpoint import load_run

        device = self.choose_device()
        return device, load_run(run, self.checkpoint, device)

    def open(self, run: Path, data: str | None) -> tuple[torch.device, TrainedModel, Pack]:
        """The device, the model of a run, and clips: by default those of the run."""
        from foreframe.data.open import open_clips
        from foreframe.data.pack.pack import Pack

        device, trained = self.load(run)
        pack = Pack.open(trained.config.data.path) if data is None else open_clips(data, progress=True)
        known, given = trained.config.cond_names, pack.cond_names
        if pack.spec == trained.config.spec and known != given:
            note = f"note: the conditions are called {', '.join(given)}; in training they were {', '.join(known)}"
            print(note, file=sys.stderr)
        return device, trained, pack

    def resolve(self, trained: TrainedModel, pack: Pack) -> tuple[str, int]:
        """The split, and the frames to predict in each of its clips."""
        from foreframe.evaluation import default_horizon, default_split

        split = self.split or default_split(pack)
        return split, default_horizon(trained.config, pack, split, self.horizon)


@dataclass(frozen=True)
class Scoring(Sampling):
    """Flags of verbs that score a run on a split."""

    clips: int = 0
    """At most this many clips; 0: all."""

    def check(self) -> None:
        super().check()
        at_least(clips=(self.clips, 0))


SamplingFlags = Annotated[Sampling, tyro.conf.arg(name="")]
ScoringFlags = Annotated[Scoring, tyro.conf.arg(name="")]


def at_least(**values: tuple[int, int]) -> None:
    """Raises UsageError where the value of a flag, (value, least), is too small."""
    for name, (value, least) in values.items():
        if value < least:
            raise UsageError(f"--{name}: expected {least} or more, found {value}")


def known_metrics(metrics: tuple[str, ...]) -> None:
    """Raises UsageError for a name that is not a metric of single frames."""
    from foreframe.errors import nearest
    from foreframe.metrics import METRICS

    for name in metrics:
        if name == "fvd":
            raise UsageError("fvd is no metric of single frames: --fvd-weights FILE asks for it, beside --metrics")
        if name not in METRICS:
            raise UsageError(f"there is no metric '{name}'{nearest(name, METRICS)} (known: {', '.join(METRICS)})")
