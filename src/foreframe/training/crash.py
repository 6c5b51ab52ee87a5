"""A step that ended a run, kept so that it can be taken again on any machine: `RUN/crash/step-00000123/`.

In it are the run's `config.json`, `weights.safetensors` as they were, `batch.safetensors` with the inputs of the
step, and `crash.json` with the values seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from foreframe import config as settings
from foreframe import disk
from foreframe.checkpoint import fill
from foreframe.clip import Clip
from foreframe.errors import CheckpointError, ConfigError
from foreframe.models import Model
from foreframe.recipe import RunConfig, TrainConfig
from foreframe.tensors import read_tensors, tensor_bytes
from foreframe.training.step import StepInputs, measure
from foreframe.training.watch import NAMES, Buffers, Skipped, not_finite

RECORD = "crash.json"
JSON_BYTES = 2**20


@dataclass(frozen=True)
class Record:
    """`crash.json`.

    step: as the log counts, from 1. clips: of the batch. free_running: as in `StepInputs`, for each part of each
    process. values: of `watch.NAMES`, as text, since JSON has no infinity. first: see `examine`.
    """

    step: int
    clips: tuple[str, ...]
    free_running: tuple[tuple[int, ...], ...]
    values: tuple[str, ...]
    first: str


@dataclass(frozen=True)
class Replayed:
    record: Record
    values: tuple[str, ...]
    first: str

    def __str__(self) -> str:
        lines = [f"step {self.record.step}, clips {', '.join(self.record.clips)}"]
        lines += [
            f"  {name:16}then {then:14} now {now}"
            for name, then, now in zip(NAMES, self.record.values, self.values, strict=True)
        ]
        return "\n".join([*lines, f"first: {self.first or NOTHING}"])


NOTHING = "nothing; every number is finite when the step is taken again, so the cause lay outside of it"


def examine(model: Model, inputs: StepInputs, train: TrainConfig[Any]) -> tuple[tuple[str, ...], str]:
    """Take a step again up to its gradients; the model is left as it was.

    Returns the values of `watch.NAMES` as text, and in words what was not finite first: weights, inputs, a module's
    output, a parameter's gradient; an empty text if all is finite.
    """
    first = [f"{name} of the model" for name in not_finite(dict(model.state_dict()))]
    named = {"frames": inputs.clip.frames, "condition": inputs.clip.cond, "noise": inputs.noise, "beta": inputs.beta}
    first += [f"the {name} given" for name in not_finite({k: v for k, v in named.items() if v is not None})]
    kept = Buffers(model)
    with _first_nonfinite(model.train()) as found:
        terms = measure(model, inputs, train)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    values = torch.cat([terms[:3], norm[None].to(terms), kept.largest().to(terms)])
    overflown = [f"{name} of the model" for name in not_finite(dict(model.named_buffers()))]
    kept.put_back(torch.ones((), dtype=torch.bool, device=norm.device))
    model.zero_grad(set_to_none=True)
    first += [*found, *overflown, *(f"the {name}" for name in not_finite(dict(zip(NAMES, values, strict=True))))]
    return _texts(values.tolist()), (first or [""])[0]


def write(
    run: Path, config: RunConfig, model: Model, inputs: StepInputs, clips: list[str], seen: Skipped, first: str
) -> Path:
    """Keep a step, with the model as it was before it, the inputs and names of its whole batch; returns its folder.

    seen: The watch's event. first: From `examine`. Raises DiskError if the disk refused.
    """
    number = seen.step + 1
    final = run / "crash" / f"step-{number:08d}"
    free_running = tuple(tuple(sorted(part)) for part in inputs.free_running)
    record = Record(number, tuple(clips), free_running, _texts(seen.values), first)
    try:
        with disk.new_folder(final) as draft:
            disk.write(draft / "weights.safetensors", tensor_bytes(model.state_dict()))
            disk.write(draft / "batch.safetensors", tensor_bytes(_batch(inputs)))
            disk.write(draft / RECORD, settings.to_json(record).encode())
            config.write(draft)
    except OSError as error:
        raise disk.refused(final, error) from error
    return final


def replay(folder: Path) -> Replayed:
    """Take a kept step again, on the CPU. Raises CheckpointError or ConfigError, naming a file that is damaged."""
    if not (folder / RECORD).is_file():
        raise CheckpointError(
            f"{folder}: there is no {RECORD} in it; expected a folder RUN/crash/step-..., which a run leaves that is "
            "ended by numbers that are not finite"
        )
    config, model = RunConfig.read_with_model(folder)
    try:
        record = settings.from_dict(Record, settings.read_json(folder / RECORD, JSON_BYTES))
    except ConfigError as error:
        raise ConfigError(f"{folder / RECORD}: {error}") from error
    train, parts = config.train, len(record.free_running)
    if parts < 1 or train.batch % parts or len(record.values) != len(NAMES):
        raise ConfigError(f"{folder / RECORD}: {train.batch} clips in {parts} parts are no step of this run")
    model = fill(model, read_tensors(folder / "weights.safetensors", model.state_dict()), torch.device("cpu"))
    model.requires_grad_(True)
    spec, sides = config.spec, (config.spec.height, config.spec.width)
    shape, steps = (train.batch, train.length), (train.batch, train.length - 1)
    with torch.device("meta"):
        frames, cond = torch.empty(*shape, spec.channels, *sides), None
        if spec.cond != "none":
            cond = torch.empty(*shape, spec.cond_size, *(sides if spec.cond == "image" else ()))
        forcing, noise = torch.empty(steps, dtype=torch.bool), torch.empty(*steps, *model.latent_shape)
        like = StepInputs(Clip(frames, cond), None, forcing, noise, torch.empty(4), ())
    found = read_tensors(folder / "batch.safetensors", _batch(like))
    clip = Clip(found["frames"], found.get("cond"))
    numbers = torch.stack([found["beta"], *torch.zeros(3)])
    free_running = tuple(map(frozenset, record.free_running))
    inputs = StepInputs(clip, None, found["forcing"], found["noise"], numbers, free_running)
    values, first = examine(model, inputs, train)
    return Replayed(record, values, first)


@contextmanager
def _first_nonfinite(model: nn.Module) -> Iterator[list[str]]:
    """Where a number is not finite first, in order of time: outputs in the forward pass, gradients in the backward."""
    found: list[str] = []

    def look(where: str, values: list[Any]) -> None:
        if not found and any(torch.is_tensor(value) and not_finite({where: value}) for value in values):
            found.append(where)

    def see_output(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        look(f"the output of {name or 'the model'} ({type(module).__name__})", tree_leaves(output))

    def see_gradient(name: str, parameter: Tensor) -> None:
        look(f"the gradient of {name}", [parameter.grad])

    hooks = [module.register_forward_hook(partial(see_output, name)) for name, module in model.named_modules()]
    for name, parameter in model.named_parameters():
        hooks.append(parameter.register_post_accumulate_grad_hook(partial(see_gradient, name)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _batch(inputs: StepInputs) -> dict[str, Tensor]:
    clip = inputs.clip
    parts = {"frames": clip.frames, "forcing": inputs.forcing, "noise": inputs.noise, "beta": inputs.beta}
    return parts if clip.cond is None else {**parts, "cond": clip.cond}


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(f"{value:.6g}" for value in values)
