"""A training seen from its parts: what it was set up with, what it changes, and where it reports."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreframe import evaluation, models
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.device import check_precision
from foreframe.distributed import World
from foreframe.errors import ConfigError, DataError, UsageError
from foreframe.log import Bar, RunLog
from foreframe.models import Model
from foreframe.nn.norm import synchronize
from foreframe.recipe import RunConfig, TrainConfig
from foreframe.training.optimizer import make_optimizer
from foreframe.training.step import share_of
from foreframe.training.watch import Watch


@dataclass(frozen=True)
class Speed:
    """Ways to do the same work sooner, paid for in advance; only roundings change, so no part of the experiment."""

    compile: bool = False
    """Have torch compile the parts of the model that hold convolutions."""
    graphs: bool = False
    """Record a step as a CUDA graph and replay it."""

    def check(self, device: torch.device, world: World) -> None:
        """Raises UsageError for what cannot be done here."""
        if self.graphs and device.type != "cuda":
            raise UsageError(f"--graphs: recordings are a matter of CUDA devices, this is {device.type}; leave it out")
        if self.graphs and world.size > 1:
            raise UsageError("--graphs: a step that other devices take part in cannot be recorded; use one device")


@dataclass(frozen=True)
class Setup:
    """What a training is given and never changes. path: the run's folder."""

    config: RunConfig
    pack: Pack
    path: Path
    device: torch.device
    world: World
    speed: Speed

    @property
    def train(self) -> TrainConfig[Any]:
        return self.config.train

    @property
    def rows(self) -> Tensor:
        """The clips of each batch that this process works on, (b,) int64."""
        return share_of(self.train.batch, self.world.rank, self.world.size, self.train.accumulate)

    def check(self) -> None:
        """Refuse settings (ConfigError, UsageError) and clips (DataError) of no use, before memory is taken."""
        config, train, pack = self.config, self.train, self.pack
        train.check(pack.spec)
        check_precision(train.precision, self.device)
        self.speed.check(self.device, self.world)
        clips = len(self.rows)
        if pack.spec != config.spec:
            raise DataError(f"{pack.path}: its clips are {pack.spec}; this run takes {config.spec}")
        if pack.hash != config.data.hash:
            raise DataError(
                f"{pack.path}: not the data this run was started on (manifest {pack.hash[:12]}, "
                f"expected {config.data.hash[:12]}); start a new run for other data"
            )
        if train.split not in pack.splits:
            raise DataError(
                f"{pack.path}: no split '{train.split}' to train on; it has {', '.join(pack.splits)}: name one, as in "
                f"--split {pack.splits[0]}"
            )
        if train.standardise and pack.spec.cond == "vector" and not config.cond_stats:
            raise ConfigError(
                f"cond_stats: expected those of {pack.spec.cond_size} numbers to standardise the condition by, found "
                "none; set train.standardise to false to feed it as it is, or start a new run"
            )
        pixels = pack.spec.height * pack.spec.width
        numbers = pack.spec.channels * pixels + pack.spec.cond_size * (pixels if pack.spec.cond == "image" else 1)
        needed, available = 4 * clips * train.length * numbers, models.memory()
        if needed > available:
            raise ConfigError(
                f"train.batch: {clips:,} clips of {train.length:,} frames on a device take {needed:,} bytes, without "
                f"the model; this machine has {available:,}: make the batch or the horizon smaller"
            )
        if train.validate_every and "val" in pack.splits:
            Windows(pack, "val", train.context + evaluation.default_horizon(config, pack, "val"), "first")


@dataclass
class State:
    """What training changes; a checkpoint holds it.

    best: Step, psnr, split and horizon of the best validation. validation_pending: that of this step was interrupted,
    and is to be repeated. saved: Step of the checkpoint written last. refused: Those refused by the disk since.
    """

    model: Model
    average: Model | None
    optimizer: Any
    watch: Watch
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    validation_pending: bool = False
    saved: int = -1
    refused: int = 0

    @property
    def scored(self) -> Model:
        """The model that is validated and used: the average where there is one."""
        return self.model if self.average is None else self.average

    @classmethod
    def new(cls, setup: Setup) -> State:
        train, spec = setup.train, setup.pack.spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            model = models.build(setup.config.network, spec).to(setup.device)
        if train.standardise and spec.cond == "vector":
            stats = setup.config.cond_stats
            model.fit_condition([item.mean for item in stats], [item.std for item in stats])
        average = copy.deepcopy(model).eval().requires_grad_(False) if train.ema else None
        if setup.world.size > 1 and train.sync_norm:
            synchronize(model, setup.world.group)
        if setup.speed.compile:
            compile_parts(model)
        optimizer = make_optimizer(train.optimizer, model, capturable=setup.speed.graphs)
        return cls(model, average, optimizer, Watch(setup.device))


def compile_parts(model: nn.Module) -> None:
    """Have each part of a model that holds convolutions compiled at its first call."""
    for part in model.children():
        if isinstance(part, Model):
            compile_parts(part)
        elif any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in part.modules()):
            part.compile(dynamic=False)


class Reporter:
    """The log and the progress bar of the first process; silent in the others, and before a run begins."""

    def __init__(self) -> None:
        self.log: RunLog | None = None
        self.bar: Bar | None = None

    def open(self, stack: ExitStack, setup: Setup, step: int) -> None:
        """Open both until the stack ends, unless this is another process than the first."""
        if setup.world.is_main:
            self.log = stack.enter_context(RunLog(setup.path, step, setup.train.tensorboard))
            self.bar = stack.enter_context(Bar("training", setup.train.steps, step))

    def row(self, row: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(row)

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.say(text)

    def note(self, step: int, text: str) -> None:
        """A line above the bar and a row of the log, to be read later."""
        self.row({"step": step, "note": text})
        self.say(f"step {step}: {text}")

    def advance(
        self, step: int, values: dict[str, float] | None, best: dict[str, Any], rate: float, logs: bool
    ) -> None:
        """One step done; with `values` they are shown, with `logs` a row is written too."""
        if self.bar is None:
            return
        if values is not None and logs:
            self.row({"step": step, **values, "steps_per_second": rate})
        self.bar.advance("" if values is None else _beside_bar(values, best, rate))


def _beside_bar(values: dict[str, float], best: dict[str, Any], rate: float) -> str:
    text = (
        f"loss {values['loss']:.4f} rec {values['reconstruction']:.4f} KL {values['kl_nats']:.2f} nats "
        f"active {values['active_units']:.0f} beta {values['beta']:.2g} forcing {values['forcing']:.2f} "
        f"train {values['psnr']:.1f} dB"
    )
    return f"{text} val {best['psnr']:.2f} dB {rate:.2f}/s" if best else f"{text} {rate:.2f}/s"
