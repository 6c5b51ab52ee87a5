"""Verbs that train: `presets`, `train`, `resume` and `replay`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foreframe import signals
from foreframe.cli.shared import Device, at_least, import_torch
from foreframe.errors import UsageError, printable

if TYPE_CHECKING:
    from foreframe.distributed import World
    from foreframe.training.state import Speed
    from foreframe.training.trainer import Trainer


def presets() -> None:
    """List the named experiments that `train` knows, and the grids of them that `sweep` does."""
    import inspect

    from rich.console import Console
    from rich.table import Table

    from foreframe.presets import presets as known
    from foreframe.sweep import grids

    for heading, named in (("preset", known()), ("grid", grids())):
        table = Table(heading, "what it is", box=None, pad_edge=False)
        for name, function in named.items():
            table.add_row(name, (inspect.getdoc(function) or "").split("\n")[0])
        Console().print(table)


@dataclass(frozen=True)
class Computing:
    """How long and where a training computes. Bit-equal numbers need the same threads, devices and flags throughout."""

    max_minutes: float | None = None
    """Stop after this long and save; `foreframe resume RUN` continues."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    devices: int = 1
    """How many of them, each with a process of its own; the batch is shared among them."""
    nodes: int = 1
    """On how many machines, each with as many devices."""
    threads: int | None = None
    """CPU threads of each process. Default: torch's choice; with several processes, an equal share of the cores."""
    compile: bool = False
    """Have torch compile the model's parts: minutes at the start, less time for each step (docs/performance.md)."""
    graphs: bool = False
    """Record a step as a CUDA graph and replay it: for GPUs that wait for Python."""

    def run(self, trainer: Callable[[World, Speed], Trainer]) -> None:
        """Train in as many processes as asked for, and draw how it went."""
        from foreframe import distributed
        from foreframe.training.state import Speed

        if distributed.launch(self.device, self.devices, self.nodes):
            return
        with distributed.join(self.device, self.threads, self.devices) as world:
            _run(trainer(world, Speed(self.compile, self.graphs)), self.max_minutes)


ComputingFlags = Annotated[Computing, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Train:
    """Train a preset on clips.

    Every setting of a preset can be given too, as a dotted flag: `foreframe train PRESET --help` lists them.
    """

    preset: tyro.conf.Positional[str]
    """Name of a preset (`foreframe presets`), or FILE.py:FUNCTION for your own."""
    data: str
    """A pack, a folder in a known layout (packed into a cache first), or `push`, the sample inside."""
    run: Path
    """Folder of the new run; it must not hold one yet."""
    steps: int | None = None
    """Length of the run; schedules and epochs extend over it, unless they are given too. Default: the preset's."""
    epochs: int | None = None
    """Length of the run in epochs, each as long as in the preset, instead of --steps."""
    seed: int | None = None
    """All randomness follows from it. Default: the preset's."""
    computing: ComputingFlags = Computing()


def train(arguments: list[str]) -> None:
    """Parse `train` in two passes: its own flags, then the chosen preset's settings."""
    asks_help = any(argument in ("-h", "--help") for argument in arguments)
    if asks_help and not arguments[0].startswith("-"):
        _settings(arguments[0], ["--help"])
    request, rest = tyro.cli(Train, prog="foreframe train", args=arguments, return_unknown_args=True)
    import_torch()
    from foreframe.api import begin, refuse_run
    from foreframe.presets import find

    if request.steps is not None and request.epochs is not None:
        raise UsageError(f"--steps {request.steps} and --epochs {request.epochs}: give one of them")
    lengths = {"steps": request.steps, "epochs": request.epochs}
    at_least(**{name: (length, 1) for name, length in lengths.items() if length is not None})
    config = _settings(request.preset, rest)
    chosen = {"steps": request.steps, "seed": request.seed}
    config = replace(config, **{name: value for name, value in chosen.items() if value is not None})
    refuse_run(request.run)
    given: dict[str, Any] = {"preset": find(request.preset), "epochs": request.epochs}
    request.computing.run(partial(begin, request.preset, config, request.data, request.run, **given))


def _settings(preset: str, arguments: list[str]) -> Any:
    """A preset with dotted overrides applied."""
    from foreframe.presets import find
    from foreframe.recipe import TrainConfig

    found = find(preset)
    kind: Any = TrainConfig[type(found.model)]  # type: ignore[misc]
    description = f"Settings of {preset}, given after --data and --run (for those: foreframe train --help)."
    return tyro.cli(kind, prog=f"foreframe train {preset}", description=description, default=found, args=arguments)


def resume(
    run: tyro.conf.Positional[Path],
    computing: ComputingFlags = Computing(),
    data: str | None = None,
    accept_changes: bool = False,
) -> None:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped.

    Args:
        run: Folder of the run.
        data: Where its clips are now, if they have moved; they must be the same.
        accept_changes: Continue although config.json was changed since the newest checkpoint; the changes are listed.
    """
    from foreframe.data.open import open_clips
    from foreframe.data.pack.pack import Pack
    from foreframe.recipe import RunConfig
    from foreframe.training.trainer import Trainer

    config = RunConfig.read(run)

    def trainer(world: World, speed: Speed) -> Trainer:
        with world.main_process_first():
            pack = Pack.open(config.data.path) if data is None else open_clips(data, progress=world.is_main)
        return Trainer(config, pack, run, world.device, world, speed, accept_changes)

    computing.run(trainer)


def replay(crash: tyro.conf.Positional[Path], threads: int | None = None) -> None:
    """Take a step again that ended a run by numbers that are not finite, and say where they began.

    Args:
        crash: Folder of the step, RUN/crash/step-...; nothing else of the run is needed.
        threads: CPU threads.
    """
    from foreframe.device import choose_device
    from foreframe.training import crash as kept

    choose_device("cpu", threads)
    print(kept.replay(crash))


def _run(trainer: Trainer, max_minutes: float | None) -> None:
    """Train, and draw how it went."""
    from foreframe.log import read_log
    from foreframe.report.plots import save
    from foreframe.report.training import training_figure

    ended = trainer.run(max_minutes)
    if not trainer.setup.world.is_main:
        return
    print(printable(f"{trainer.setup.path}: {ended}"))
    if signals.asked():  # whoever asked does not wait for pictures
        return
    rows = read_log(trainer.setup.path)
    if rows:
        save(training_figure(rows), trainer.setup.path / "media" / "training.png")
