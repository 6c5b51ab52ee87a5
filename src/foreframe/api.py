"""foreframe from Python: train on clips, load what was trained, score it; docs/api.md shows all of it."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foreframe import config as configuration
from foreframe import evaluation, signals
from foreframe.checkpoint import MANIFEST, TrainedModel, load_run
from foreframe.data.loading.windows import Windows
from foreframe.data.open import open_clips
from foreframe.data.pack.pack import Pack
from foreframe.device import choose_device
from foreframe.distributed import World
from foreframe.errors import ConfigError, InputError, UsageError, printable
from foreframe.log import Bar
from foreframe.metrics import Fvd, Lpips
from foreframe.predictor import Predictor
from foreframe.presets import find
from foreframe.recipe import RunConfig, TrainConfig
from foreframe.rollout import ModeName
from foreframe.training.state import Speed
from foreframe.training.trainer import Trainer, describe_model

PathLike = str | os.PathLike[str]


def load(run: PathLike, device: str | torch.device = "auto", checkpoint: str | int = "best") -> Predictor:
    """A trained model that is ready to predict.

    Args:
        run: Folder of a run, as `foreframe train` makes it, or of one of its checkpoints.
        device: auto (a GPU where there is one), cpu, cuda, or cuda:N.
        checkpoint: best (by validation), newest, or a step.
    Raises:
        InputError: it is the path of something else; there is no such device.
        CheckpointError, ConfigError: it is no run, or something in it is damaged; the file is named.
    """
    if not isinstance(run, str | os.PathLike):
        raise InputError(f"run: got {type(run).__name__}, expected the path of a run's folder")
    path = Path(run).expanduser()
    if path.parent.name == "checkpoints" and (path / MANIFEST).is_file():
        path, checkpoint = path.parent.parent, int(path.name.removeprefix("step-"))
    runs = [] if (path / "config.json").exists() else sorted(file.parent.name for file in path.glob("*/config.json"))
    if runs:
        raise InputError(f"run: got {path}, a folder of runs, expected one of them: {', '.join(runs[:10])}")
    chosen = _device(device)
    return Predictor(load_run(path, str(checkpoint), chosen), chosen)


def train(
    preset: str | TrainConfig[Any],
    data: PathLike,
    run: PathLike,
    *,
    device: str | torch.device = "auto",
    threads: int | None = None,
    max_minutes: float | None = None,
    **settings: Any,
) -> Predictor:
    """Train a preset on clips, and load the best checkpoint.

    Args:
        preset: Name of a preset, FILE.py:FUNCTION, or a `TrainConfig`.
        data: A pack, a folder in a known layout, or `push` or `dance`, the built-in samples.
        run: Folder of the new run; it must not hold one yet.
        device, threads: Where to compute, and with how many CPU threads.
        max_minutes: Stop after this long and save; `foreframe resume RUN` continues.
        settings: Any setting of the preset: `steps=500, seed=2`. One of a group by two underscores,
            `optimizer__lr=1e-3`, or by its dotted name, `**{"optimizer.lr": 1e-3}`.
    Raises:
        UsageError: there is no such preset or device, or the folder holds a run already.
        ConfigError: there is no such setting (the nearest name is offered), or it cannot have this value.
        DataError: the clips cannot be used.
        KeyboardInterrupt: it was interrupted, and has saved.
    """
    path, chosen = Path(run).expanduser(), _device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if not isinstance(preset, str | TrainConfig):
        raise InputError(f"preset: got {type(preset).__name__}, expected its name, FILE.py:FUNCTION, or a TrainConfig")
    name, plain = (preset, find(preset)) if isinstance(preset, str) else ("own", preset)
    config = with_settings(plain, settings)
    try:
        with signals.handle_signals():
            ended = begin(name, config, str(data), path, World(chosen), preset=plain).run(max_minutes)
            print(printable(f"{path}: {ended}"))
            signals.poll()
    except signals.Stopped as stopped:
        raise KeyboardInterrupt(f"{stopped}; `foreframe resume {path}` continues") from None
    return load(path, chosen)


def evaluate(
    run: PathLike | Predictor,
    data: PathLike | None = None,
    split: str | None = None,
    *,
    samples: int = 1,
    horizon: int = 0,
    mode: ModeName = "prediction",
    clips: int = 0,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    seed: int = 0,
    temperature: float = 1.0,
    conditions: evaluation.Conditions = "true",
    lpips_weights: PathLike | None = None,
    fvd_weights: PathLike | None = None,
    fvd_context: bool = True,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> evaluation.Result:
    """Score a model on held-out clips, beside trivial baselines on the same clips.

    Args:
        run: Folder of a run, whose best checkpoint is scored, or a `Predictor`.
        data: Clips to score on, as for `train`. Default: those of the run.
        split: Default: test, or val where there is no test.
        samples: S, rollouts of each clip; their mean and the best of them are scored.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the shortest clip.
        mode, clips, metrics, seed, temperature, conditions: As of `foreframe evaluate`.
        lpips_weights, fvd_weights, fvd_context: Likewise; files of weights (docs/concepts.md).
        progress: Show a bar.
    Raises:
        InputError, CheckpointError, ConfigError: as for `load`.
        UsageError: there is no such metric, or weights are missing or not used.
        DataError: the clips are not of the kind the run was trained on, or too short.
    """
    evaluation.check_metrics(metrics)
    if lpips_weights is not None and "lpips" not in metrics:
        raise UsageError("lpips weights: not used, since `lpips` is not among the metrics")
    if not fvd_context and fvd_weights is None:
        raise UsageError("fvd without context: not used without fvd weights")
    predictor = run if isinstance(run, Predictor) else load(run, device)
    lpips = None if lpips_weights is None else Lpips.load(Path(lpips_weights)).to(predictor.device)
    fvd = None if fvd_weights is None else Fvd.load(Path(fvd_weights), fvd_context).to(predictor.device)
    trained, pack = predictor.trained, clips_of(predictor.trained, data)
    split, horizon = evaluation.resolve(trained.config, pack, split, horizon)
    protocol = evaluation.Protocol(
        split, predictor.context, horizon, mode, samples, temperature, seed, conditions, clips, metrics
    )
    total = samples * len(evaluation.evenly_spaced(len(pack.split(split)), clips))
    with Bar(mode, total) if progress else nullcontext() as bar:
        advance = None if bar is None else bar.done
        return evaluation.evaluate_run(trained, pack, protocol, predictor.device, advance, lpips, fvd)


def with_settings(config: TrainConfig[Any], settings: dict[str, Any]) -> TrainConfig[Any]:
    """A configuration with some settings changed, by dotted names or such with `__` in place of the dot.

    Raises:
        ConfigError: there is no such setting, or a value is of another type.
    """
    values = configuration.to_dict(config)
    for name, value in settings.items():
        *groups, last = name.replace("__", ".").split(".")
        place = values
        for group in groups:
            if not isinstance(place.setdefault(group, {}), dict):
                raise ConfigError(f"unknown key '{name}': {group} is not a group of settings")
            place = place[group]
        place[last] = list(value) if isinstance(value, tuple) else value
    changed: TrainConfig[Any] = configuration.from_dict(TrainConfig, values, kinds={"model": type(config.model)})
    return changed


def begin(
    name: str,
    config: TrainConfig[Any],
    data: str,
    run: Path,
    world: World,
    speed: Speed | None = None,
    preset: TrainConfig[Any] | None = None,
    epochs: int | None = None,
) -> Trainer:
    """The trainer of a new run, which holds its folder; prints what is trained on what, and where schedules lead.

    Args:
        name: Name of the preset, as it is recorded.
        data: See `open_clips`.
        preset: What `config` was before it was changed: if for another number of steps, schedules and epochs that are
            still as there extend over them.
        epochs: Train that many instead of `config.steps`; an epoch is as long as the preset says.
    Raises:
        UsageError: the folder holds a run already.
        ConfigError, DataError: these clips cannot be trained on like this.
    """
    refuse_run(run)
    with world.main_process_first():
        pack = open_clips(data, progress=world.is_main)
    pass_steps = max(1, len(Windows(pack, config.split, config.length, config.windows)) // config.batch)
    if epochs is not None:
        config = replace(config, steps=epochs * (config.epoch_steps or pass_steps))
    elif preset is not None and config.steps != preset.steps:
        config = config.of_length(preset, pass_steps)
    record = RunConfig.of(name, config, pack)
    trainer = Trainer(record, pack, run, world.device, world, speed)
    if world.is_main:
        trainer.acquire_lock()
        refuse_run(run)  # it may have been begun while this one got ready
        record.write(run)
        windows = f"{len(trainer.windows):,} windows of {config.length} frames"
        print(f"{name}: {describe_model(trainer.state.model)}, {windows}")
        print(trainer.plan.course())
        if record.cond_measured:
            print(f"measured states beyond the context: {config.measured} ({', '.join(record.cond_measured[:8])})")
        short = [f"{episode.name} ({episode.length})" for episode in trainer.windows.short]
        if short:
            left_out = f"left out, shorter than {config.length} frames: {len(short)} clips: {', '.join(short)}"
            print(left_out, file=sys.stderr)
    return trainer


def refuse_run(run: Path) -> None:
    """Raises UsageError where a folder holds a run."""
    if (run / "config.json").exists():
        raise UsageError(f"{run}: holds a run already; `foreframe resume {run}` continues it")


def clips_of(trained: TrainedModel, data: PathLike | None) -> Pack:
    """The clips asked for, those of the run without `data`; where their columns have other names, it is printed."""
    pack = Pack.open(trained.config.data.path) if data is None else open_clips(str(data), progress=True)
    known, given = trained.config.cond_names, pack.cond_names
    if pack.spec == trained.config.spec and known != given:
        note = f"note: the conditions are called {', '.join(given)}; in training they were {', '.join(known)}"
        print(note, file=sys.stderr)
    return pack


def _device(name: str | torch.device) -> torch.device:
    """The device of a name, or itself. Raises InputError: there is none."""
    text = str(name)
    if text in ("auto", "cpu"):
        return choose_device(text)  # type: ignore[arg-type]
    kind, _, number = text.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise InputError(f"device: got {text!r}, expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"device: got {text!r}, but {torch.cuda.device_count()} CUDA devices are visible: use 'cpu'")
    return torch.device(text)
