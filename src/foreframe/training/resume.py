"""Checkpoints of a training: saved so that a resumed run continues exactly, and restored."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from foreframe import checkpoint, disk
from foreframe import config as settings
from foreframe.device import describe
from foreframe.errors import CheckpointError, DiskError, TrainingError
from foreframe.training.state import Reporter, Setup, State
from foreframe.training.watch import not_finite

SAVE_TRIES = 3
"""This many checkpoints in a row that the disk refuses end a run; a run's last one must succeed."""


def save(setup: Setup, state: State, reporter: Reporter, last: bool = False) -> None:
    """Write a checkpoint of this step, unless there is one; with several processes, the first does.

    A refusal of the disk is reported, and the next checkpoint tried when it is due.
    Raises DiskError if it refused too often, or the `last`, and TrainingError for a number that is not finite.
    """
    if not setup.world.is_main or state.saved == state.step:
        return
    tensors = {"weights": state.model.state_dict(), "optimizer": checkpoint.pack_optimizer(state.optimizer)}
    if state.average is not None:
        tensors["ema"] = state.average.state_dict()
    wrong = [f"{group}: {name}" for group, parts in tensors.items() for name in not_finite(parts)]
    if wrong:
        raise TrainingError(
            f"step {state.step}: not saved, since {len(wrong)} tensors are not finite: {', '.join(wrong[:5])}. "
            f"Earlier checkpoints are whole; `foreframe resume {setup.path}` continues from the newest"
        )
    values = {
        "best": state.best,
        "validation_pending": state.validation_pending,
        "config": settings.to_dict(setup.config),
        "environment": _environment(setup),
    }
    try:
        if reporter.log is not None:
            reporter.log.sync()
        tensors["watch"] = {"recent": state.watch.recent}
        checkpoint.save(setup.path, state.step, tensors, values, state.best.get("step"))
    except DiskError as error:
        state.refused += 1
        if last or state.step == setup.train.steps or state.refused == SAVE_TRIES:
            raise DiskError(f"{error}; then `foreframe resume {setup.path}` continues") from error
        reporter.note(state.step, f"{error}; training continues, the next checkpoint is tried in its turn")
    else:
        state.saved, state.refused = state.step, 0


def restore(setup: Setup, state: State, accept_changes: bool) -> None:
    """Go back to the newest whole checkpoint, if there is one.

    Raises CheckpointError if none is whole, the run's configuration was another, or the processes' weights differ.
    """
    if setup.world.is_main:
        checkpoint.recover(setup.path)
        disk.sweep(setup.path)
        disk.sweep(setup.path / "media")
    setup.world.barrier()
    found = checkpoint.newest(setup.path, say=print if setup.world.is_main else None)
    if found is not None:
        _compare(setup, found, accept_changes)
        found.load_into(state.model, "weights")
        if state.average is not None:
            found.load_into(state.average, "ema")
        checkpoint.unpack_optimizer(state.optimizer, found)
        state.watch.recent.copy_(found.tensors("watch", {"recent": state.watch.recent})["recent"])
        state.step = state.saved = found.step
        state.best, state.validation_pending = found.best, found.validation_pending
    elif setup.world.is_main:
        _check_space(setup, state)
    state.watch.reset_to(state.step)
    weights = torch.stack([value.double().sum().cpu() for value in state.model.state_dict().values()])
    if not setup.world.all_equal(torch.cat([torch.tensor([state.step], dtype=torch.float64), weights])):
        raise CheckpointError(
            f"{setup.path}: the processes begin with different weights; all machines must see the same folder "
            "there, and have the same version of torch"
        )


def _compare(setup: Setup, found: checkpoint.Checkpoint, accept_changes: bool) -> None:
    """Refuse another configuration than the checkpoint's; print what else has changed."""
    then, now = dict(found.state.get("config") or {}), settings.to_dict(setup.config)
    for values in (then, now):
        # The paths of clips and model may change, their content is compared by its hash; other code is printed below.
        values["data"] = {**values.get("data", {}), "path": ""}
        values["foreframe"] = values["model_file"] = ""
        values.setdefault("model_sha256", "")  # unknown to earlier versions
    changed = settings.differences(then, now)
    if changed and not accept_changes:
        listed = "\n  ".join(changed)
        raise CheckpointError(
            f"{setup.path / 'config.json'}: changed since step {found.step} was saved:\n  {listed}\n"
            "change it back, start a new run, or continue with --accept-changes"
        )
    others = settings.differences(found.state.get("environment") or {}, _environment(setup))
    if setup.world.is_main and (changed or others):
        print(f"not as at step {found.step}, so numbers will differ: {'; '.join([*changed, *others])}")


def _environment(setup: Setup) -> dict[str, Any]:
    """What numbers depend on besides the configuration, down to their last bit."""
    speed = {"compile": setup.speed.compile, "graphs": setup.speed.graphs}
    facts = asdict(describe(setup.device))
    del facts["cores"]
    return {**facts, "devices": setup.world.size, **speed}


def _check_space(setup: Setup, state: State) -> None:
    """Print it if the disk has no room for two checkpoints, while that costs nothing."""
    moments = 2 if "betas" in state.optimizer.param_groups[0] else 1
    copies = 1 + moments + (state.average is not None)
    needed = 2 * copies * checkpoint.size({"weights": state.model.state_dict()})
    free = disk.free(setup.path)
    if free is not None and free < needed:
        print(f"{setup.path}: two checkpoints take {needed:,} bytes here, and {free:,} are free")
