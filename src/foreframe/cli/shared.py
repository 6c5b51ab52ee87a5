"""Shared by several verbs: their flags, and opening a run with clips."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foreframe import signals
from foreframe.errors import UsageError

if TYPE_CHECKING:
    import torch

    from foreframe.predictor import Predictor
    from foreframe.report.experiment.collect import Request

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

    def load(self, run: Path) -> Predictor:
        """The model of a run on the device."""
        from foreframe import api

        self.check()
        return api.load(run, self.choose_device(), self.checkpoint)


@dataclass(frozen=True)
class Scoring(Sampling):
    """Flags of verbs that score a run on a split."""

    clips: int = 0
    """At most this many clips; 0: all."""

    def check(self) -> None:
        super().check()
        at_least(clips=(self.clips, 0))


@dataclass(frozen=True)
class Reporting(Scoring):
    """Flags of verbs that write a page about runs."""

    panels: int = 3
    """Clips of each run that are shown moving."""
    diagnosis: bool = True
    """Also measure what scores hide (`foreframe diagnose`)."""
    metrics: tuple[str, ...] = ()
    """Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian. Default: the PSNR that the first run is validated by
    (setting `metric`), and ssim."""

    def request(self, metric: str) -> Request:
        """What to collect of each run; metric: that of its validations."""
        from foreframe.report.experiment.collect import Request

        given = {field.name: getattr(self, field.name) for field in fields(Request)}
        request = Request(**given | {"metrics": self.metrics or (metric, "ssim")})
        request.check()
        return request


SamplingFlags = Annotated[Sampling, tyro.conf.arg(name="")]
ScoringFlags = Annotated[Scoring, tyro.conf.arg(name="")]
ReportingFlags = Annotated[Reporting, tyro.conf.arg(name="")]


def at_least(**values: tuple[int, int]) -> None:
    """Raises UsageError where the value of a flag, (value, least), is too small."""
    for name, (value, least) in values.items():
        if value < least:
            raise UsageError(f"--{name}: expected {least} or more, found {value}")
