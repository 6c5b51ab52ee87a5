"""How a model is trained, as one frozen description: what presets return and `config.json` holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import foreframe
from foreframe import config as settings
from foreframe import models
from foreframe.clip import ClipSpec
from foreframe.data.augment import AugmentConfig
from foreframe.data.manifest import ColumnStats
from foreframe.data.pack import Pack
from foreframe.errors import CheckpointError, ConfigError
from foreframe.losses import LossConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule

M = TypeVar("M")
FORMAT = 2


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser of all parameters together."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """Which optimiser."""
    lr: float = 1e-3
    """Learning rate before its schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam and AdamW: decay of the two moments."""
    momentum: float = 0.9
    """SGD only."""
    weight_decay: float = 0.0
    """L2 for Adam and SGD, decoupled for AdamW."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of all parameters together; 0 leaves it alone."""


@dataclass(frozen=True)
class TrainConfig(Generic[M]):
    """A preset. Lengths are in frames, times in steps."""

    model: M
    """The model's own settings."""
    context: int = 2
    """K, frames given."""
    horizon: int = 10
    """Frames predicted in training, after the context."""
    eval_horizon: int = 0
    """Frames predicted when scoring; 0: as in training, -1: to the end of the shortest clip."""
    steps: int = 20_000
    """Length of the run; schedules stretch over it."""
    batch: int = 12
    """B, clips in a step, on all devices together."""
    accumulate: int = 1
    """Parts in which a device works on its clips of a step, one after another, to need less memory; BatchNorm's
    statistics are then those of a part."""
    sync_norm: bool = True
    """With several devices: BatchNorm's statistics are over the clips of all of them, so that their number changes
    nothing. Off: each device's own, without the talk that costs."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: the networks' matrix products and convolutions in bfloat16, on hardware made for it; all else in fp32."""
    split: str = "train"
    """Split that is trained on."""
    standardise: bool = True
    """Bring a vector condition to mean 0 and deviation 1 over the training clips; the labs feed it as it is."""
    windows: Literal["all", "tiled", "first"] = "all"
    """Where training clips may begin: anywhere, at every (K + horizon)th frame, or only at frame 0."""
    stride: int = 1
    """Largest distance between the frames of a training window, drawn for each clip between 1 and this, small ones
    more often. More than 1 only where a frame's condition says all about it (a pose), not how it differs from the
    one before (an action)."""
    epoch_steps: int = 0
    """Steps that schedules call an epoch; 0: one pass over the windows."""
    seed: int = 1
    """All randomness follows from it."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rate: RateSchedule = field(default_factory=RateSchedule)
    beta: BetaSchedule = field(default_factory=BetaSchedule)
    forcing: ForcingSchedule = field(default_factory=ForcingSchedule)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    ema: float = 0.0
    """Decay of the average of the weights that is scored and used afterwards; 0: none."""
    log_every: int = 20
    """Steps between rows of the log."""
    validate_every: int = 1000
    """Steps between validations; 0: none."""
    validate_clips: int = 32
    """Clips of the validation split that are looked at."""
    save_every: int = 500
    """Steps between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the extra `tensorboard`)."""

    @property
    def length(self) -> int:
        """T = K + horizon."""
        return self.context + self.horizon

    def check(self, spec: ClipSpec) -> None:
        """Raises ConfigError for numbers that cannot be, or not with such clips."""
        for name, least in (
            ("context", 1),
            ("horizon", 1),
            ("steps", 1),
            ("batch", 1),
            ("accumulate", 1),
            ("log_every", 1),
            ("save_every", 1),
            ("stride", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema: expected 0 <= ema < 1, found {self.ema}")
        self.augment.check(spec)
        if self.stride > 1 and spec.cond == "vector":
            raise ConfigError(
                "stride: frames left out would leave out their actions too; use 1 with a vector condition"
            )


@dataclass(frozen=True)
class DataSource:
    """The pack a run was trained on."""

    path: str
    hash: str


@dataclass(frozen=True)
class RunConfig:
    """`config.json`: everything needed to build the model again and to go on training it."""

    preset: str
    model: str
    spec: ClipSpec
    data: DataSource
    train: TrainConfig[Any]
    cond_names: tuple[str, ...] = ()
    cond_stats: tuple[ColumnStats, ...] = ()
    """Of each number of a vector condition, over the split that is trained on, in its own units."""
    fps: float = 10.0
    format: int = FORMAT
    foreframe: str = foreframe.__version__

    @classmethod
    def of(cls, preset: str, train: TrainConfig[Any], pack: Pack) -> RunConfig:
        """The record of a run on these clips."""
        return cls(
            preset=preset,
            model=models.name_of(train.model),
            spec=pack.spec,
            data=DataSource(str(pack.path.resolve()), pack.hash),
            train=train,
            cond_names=pack.cond_names,
            cond_stats=pack.stats(train.split) if train.split in pack.splits else (),
            fps=pack.fps or 10.0,
        )

    def write(self, run: Path) -> None:
        temporary = run / ".config.json.tmp"
        temporary.write_text(json.dumps(settings.to_dict(self), indent=2) + "\n", encoding="utf-8")
        temporary.replace(run / "config.json")

    @classmethod
    def read(cls, run: Path) -> RunConfig:
        """Read a run's configuration strictly.

        Raises:
            CheckpointError: the folder is no run.
            ConfigError: a setting is unknown, missing or of another type; the message has its dotted path.
        """
        if run.is_file():
            raise CheckpointError(_no_run_file(run))
        path = run / "config.json"
        if not path.is_file():
            raise CheckpointError(
                f"{run}: not a run (there is no config.json in it); give the folder that `foreframe train --run` made"
            )
        values = settings.read_json(path)
        try:
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                found = values.get("format") if isinstance(values, dict) else values
                raise ConfigError(f"format: expected {FORMAT}, found {found!r}; made by another version of foreframe?")
            config = models.module(str(values.get("model"))).Config
            return settings.from_dict(cls, values, kinds={"train.model": config})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _no_run_file(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return (
            f"{path}: a pickle (.pt, .pth), which can run code when it is read; foreframe opens none. "
            "Give a run folder with safetensors checkpoints, as `foreframe train --run` makes it"
        )
    return f"{path}: a file; expected the folder of a run, as `foreframe train --run` makes it"
