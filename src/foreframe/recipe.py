"""How a model is trained, as one frozen description: what presets return and `config.json` holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import foreframe
from foreframe import config as settings
from foreframe import disk, measured, models
from foreframe.clip import ClipSpec
from foreframe.config import Range
from foreframe.data.loading.augment import AugmentConfig
from foreframe.data.pack.manifest import ColumnStats
from foreframe.data.pack.pack import Pack
from foreframe.errors import CheckpointError, ConfigError
from foreframe.losses import LossConfig
from foreframe.measured import Use
from foreframe.models import Model
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule, Share, Size, Steps

M = TypeVar("M")
FORMAT = 2
Count = Annotated[int, Range(1, 10**9)]
Few = Annotated[int, Range(1, 2**16)]
Length = Annotated[int, Range(1, 2**20)]
Decay = Annotated[float, Range(0, 1, below=True)]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser of all parameters together."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """Which optimiser."""
    lr: Size = 1e-3
    """Learning rate before its schedule."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam and AdamW: decay of the two moments."""
    momentum: Share = 0.9
    """SGD only."""
    weight_decay: Size = 0.0
    """L2 for Adam and SGD, decoupled for AdamW."""
    clip_norm: Size = 0.0
    """Largest norm of the gradient of all parameters together; 0 leaves it alone."""


@dataclass(frozen=True)
class TrainConfig(Generic[M]):
    """A preset. Lengths are in frames, times in steps."""

    model: M
    """The model's own settings."""
    context: Length = 2
    """K, frames given."""
    horizon: Length = 10
    """Frames predicted in training, after the context."""
    eval_horizon: Annotated[int, Range(-1, 2**20)] = 0
    """Frames predicted when scoring; 0: as in training, -1: to the end of the shortest clip."""
    steps: Count = 20_000
    """Length of the run; schedules extend over it (`foreframe train --steps`)."""
    batch: Few = 12
    """B, clips in a step, on all devices together."""
    accumulate: Few = 1
    """Parts in which a device works on its clips of a step, one after another, to need less memory; BatchNorm's
    statistics are then those of a part."""
    sync_norm: bool = True
    """With several devices: BatchNorm's statistics are over the clips of all of them, so that their number changes
    nothing. Off: each device's own, without the cost of communication."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: the networks' matrix products and convolutions in bfloat16, on hardware made for it; all else in fp32."""
    split: str = "train"
    """Split that is trained on."""
    standardise: bool = True
    """Bring a vector condition to mean 0 and deviation 1 over the training clips; the labs feed it as it is."""
    measured: Use = "given"
    """Measured states (positions, joint readings) beyond the context. predicted: the model's own, by a state head;
    unused: the model does without; given: the recorded ones, which nobody knows in advance, as in the labs."""
    windows: Literal["all", "tiled", "first"] = "all"
    """Where training clips may begin: anywhere, at every (K + horizon)th frame, or only at frame 0."""
    stride: Few = 1
    """Largest distance between the frames of a training window, drawn for each clip between 1 and this, small ones
    more often. More than 1 only where a frame's condition says all about it (a pose), not how it differs from the
    one before (an action)."""
    epoch_steps: Steps = 0
    """Steps that schedules call an epoch; 0: one pass over the windows."""
    seed: Annotated[int, Range(-(2**63), 2**64 - 1)] = 1
    """All randomness follows from it."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rate: RateSchedule = field(default_factory=RateSchedule)
    beta: BetaSchedule = field(default_factory=BetaSchedule)
    forcing: ForcingSchedule = field(default_factory=ForcingSchedule)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    ema: Decay = 0.0
    """Decay of the average of the weights that is scored and used afterwards; 0: none."""
    log_every: Count = 20
    """Steps between rows of the log."""
    validate_every: Steps = 1000
    """Steps between validations; 0: none."""
    validate_clips: Steps = 32
    """Clips of the validation split that are scored."""
    metric: Literal["psnr", "psnr-channel"] = "psnr"
    """The PSNR that validation measures and `sweep` and `report` score by; psnr-channel is the
    action lab's."""
    save_every: Count = 500
    """Steps between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the extra `tensorboard`)."""

    @property
    def length(self) -> int:
        """T = K + horizon."""
        return self.context + self.horizon

    def within(self, steps: int, pass_steps: int = 0) -> TrainConfig[M]:
        """The same course in another number of steps: an epoch, warm-up and forcing shrink or grow with the run.

        pass_steps: Those of one pass over the windows; 0: not known, so that epochs which are passes stay.
        """
        share, epoch = steps / self.steps, self.epoch_steps or pass_steps
        uses_epochs = "epoch" in (self.beta.unit, self.forcing.unit, self.rate.unit)
        return replace(
            self,
            steps=steps,
            epoch_steps=max(1, round(epoch * share)) if epoch and uses_epochs else self.epoch_steps,
            forcing=self.forcing.within(share) if self.forcing.unit == "step" else self.forcing,
            rate=self.rate.within(share),
        )

    def of_length(self, preset: TrainConfig[M], pass_steps: int = 0) -> TrainConfig[M]:
        """These settings, where whatever is still as in the preset extends over `steps` as in `within`."""
        extended = preset.within(self.steps, pass_steps)

        def timed(group: str, *names: str) -> Any:
            mine, theirs, new = (getattr(config, group) for config in (self, preset, extended))
            same = all(getattr(mine, name) == getattr(theirs, name) for name in (*names, "kind", "unit"))
            return replace(mine, **{name: getattr(new, name) for name in names}) if same else mine

        return replace(
            self,
            epoch_steps=extended.epoch_steps if self.epoch_steps == preset.epoch_steps else self.epoch_steps,
            forcing=timed("forcing", "start", "decay"),
            rate=timed("rate", "warmup", "milestones"),
        )

    def check(self, spec: ClipSpec) -> None:
        """Raises ConfigError for numbers that cannot be, or not with such clips."""
        settings.check_ranges(self)
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
    """`config.json`: everything needed to build the model again and to continue training it."""

    preset: str
    model: str
    spec: ClipSpec
    data: DataSource
    train: TrainConfig[Any]
    model_file: str = ""
    """Where the user's file with the model was; empty: the model is one of foreframe's."""
    model_sha256: str = ""
    """Of that file, of which `model.py` beside `config.json` is a copy."""
    cond_names: tuple[str, ...] = ()
    cond_measured: tuple[str, ...] = ()
    """Those of cond_names that are measured states."""
    cond_stats: tuple[ColumnStats, ...] = ()
    """Of each number of a vector condition, over the split that is trained on, in its own units."""
    fps: Annotated[float, Range(1e-3, 10**5)] = 10.0
    format: int = FORMAT
    foreframe: str = foreframe.__version__

    @classmethod
    def of(cls, preset: str, train: TrainConfig[Any], pack: Pack) -> RunConfig:
        """The record of a run on these clips."""
        file = models.file_of(train.model)
        return cls(
            preset=preset,
            model=models.name_of(train.model),
            spec=pack.spec,
            data=DataSource(str(pack.path.resolve()), pack.hash),
            train=train,
            model_file="" if file is None else str(file.path),
            model_sha256="" if file is None else file.sha256,
            cond_names=pack.cond_names,
            cond_measured=pack.manifest.measured_columns,
            cond_stats=pack.stats(train.split) if train.split in pack.splits else (),
            fps=pack.fps or 10.0,
        )

    @property
    def network(self) -> Any:
        """The `Config` of what is built: the model, in `foreframe.measured` where it predicts states or has none."""
        columns = [self.cond_names.index(name) for name in self.cond_measured]
        return measured.around(self.train.model, self.spec, columns, self.train.measured)

    def check(self) -> Model:
        """The model on meta, if it can be trained and built on this machine; else ConfigError, with the dotted path."""
        spec = self.spec
        spec.check()
        numbers = spec.cond_size if spec.cond == "vector" else 0
        if len(self.cond_stats) not in (0, numbers):
            raise ConfigError(f"cond_stats: expected those of {numbers} numbers, found {len(self.cond_stats)}")
        settings.check_ranges(self)
        if wrong := [name for name in self.cond_measured if name not in self.cond_names]:
            raise ConfigError(f"cond_measured: expected names of cond_names, found {', '.join(wrong)[:200]}")
        try:
            self.train.check(spec)
            return models.build_on_meta(self.network, spec)
        except ConfigError as error:
            raise ConfigError(f"train.{error}") from error

    def write(self, run: Path) -> None:
        """Write `run/config.json`, whole or not at all. Raises DiskError; ConfigError for what `read` would refuse."""
        self.check()
        file = models.file_of(self.train.model)
        if file is not None:
            disk.put(run / models.COPY, file.content)
        disk.put(run / "config.json", settings.to_json(self))

    @classmethod
    def read(cls, run: Path) -> RunConfig:
        """A run's configuration; see `read_with_model`."""
        return cls.read_with_model(run)[0]

    @classmethod
    def read_with_model(cls, run: Path) -> tuple[RunConfig, Model]:
        """Read a run's configuration strictly; with the model on meta, by which it was checked.

        Raises:
            CheckpointError: the folder is no run.
            ConfigError: a setting is unknown, missing, of another type, or cannot be; the message has its dotted path.
        """
        path = run / "config.json"
        try:
            if run.exists() and not run.is_dir():
                raise CheckpointError(_no_run_file(run))
            if not path.exists():
                raise CheckpointError(
                    f"{run}: not a run (there is no config.json in it); give the folder that `foreframe train --run` "
                    "made"
                )
        except OSError as error:
            raise CheckpointError(f"{run}: cannot be read: {error.strerror}") from error
        values = settings.read_json(path)
        try:
            head = values if isinstance(values, dict) else {"format": values}
            if head.get("format") != FORMAT:
                found, maker = settings.shown(head.get("format")), str(head.get("foreframe", "another version"))[:40]
                raise ConfigError(
                    f"format: expected {FORMAT}, found {found}; made by foreframe {maker}, this is "
                    f"{foreframe.__version__}: use that one, or start a new run"
                )
            if head.get("model_file"):
                module = models.user_module(str(head["model_file"]), str(head.get("model_sha256")))
            else:
                module = models.module(str(head.get("model")))
            kind = module.Config
            config = settings.from_dict(cls, values, kinds={"train.model": kind})
            return config, config.check()
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


_KINDS = (
    (b"PK", "a zip archive (.pt, .pth, TorchScript, .pt2, .npz)"),
    (b"\x80", "a pickle (.pt, .pth, .pkl)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF", "an HDF5 file"),
)
"""First bytes of files that other programs keep models in."""


def _no_run_file(path: Path) -> str:
    """The message for a file in the place of a run; a pipe or a device is not opened."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(8)
    what = next((name for magic, name in _KINDS if start.startswith(magic)), "")
    if what:
        return (
            f"{path}: {what}, which can run code when others read it; foreframe opens none. "
            "Give a run folder with safetensors checkpoints, as `foreframe train --run` makes it"
        )
    return f"{path}: no folder; expected that of a run, as `foreframe train --run` makes it"
