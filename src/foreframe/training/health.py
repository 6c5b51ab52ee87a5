"""Reports on how steps went: numbers that are not finite, losses that jump, a latent that collapses or explodes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from foreframe.errors import DiskError, TrainingError
from foreframe.losses import COLLAPSED_NATS
from foreframe.training import crash
from foreframe.training.state import Reporter, Setup, State
from foreframe.training.step import StepInputs, StepPlan, draw
from foreframe.training.watch import IN_A_ROW, IN_KEPT, KEPT, Spike

EXPLODED_NATS = 1e4


def report_events(
    setup: Setup, state: State, plan: StepPlan, place: Callable[[StepInputs], StepInputs], reporter: Reporter
) -> None:
    """Report the steps since the last call that were not finite or stood out; waits for the device.

    place: Brings the inputs of a step to the device: a skipped step is taken again to find where it began.
    Raises TrainingError if too many were not finite; the last of them is kept for `foreframe replay`.
    """
    for event in state.watch.drain_events(state.step):
        if isinstance(event, Spike):
            text = f"the loss of {event.loss:.4g} is {event.sigmas:.1f} deviations above those before it"
            reporter.note(event.step + 1, text)
            continue
        drawn = draw(plan, event.step, torch.arange(setup.train.batch))
        if not setup.train.sync_norm:
            # Each process normalised its own share of a part.
            drawn = drawn._replace(
                free_running=tuple(part for part in drawn.free_running for _ in range(setup.world.size))
            )
        inputs = place(drawn)
        _, first = crash.examine(state.model, inputs, setup.train)
        clips = plan.feed.windows.names(plan.indices(event.step))
        text = f"not finite: {', '.join(event.wrong)}; clips {', '.join(clips)}; first {first or crash.NOTHING}"
        reporter.note(event.step + 1, f"{text}; this step is skipped")
        if not event.fatal:
            continue
        kept = ""
        if setup.world.is_main:
            try:
                folder = crash.write(setup.path, setup.config, state.model, inputs, clips, event, first)
                kept = f"It is kept: `foreframe replay {folder}` takes it again. "
            except DiskError as error:
                kept = f"It could not be kept: {error}. "
        else:
            setup.world.barrier()  # the first process reports it
        raise TrainingError(
            f"step {event.step + 1}: {text}; {IN_A_ROW} such steps in a row, or {IN_KEPT} of {KEPT}, end a run. {kept}"
            "The newest checkpoint is unharmed; try a lower learning rate or --optimizer.clip-norm 1"
        )


def report_latent(state: State, values: dict[str, float], reporter: Reporter) -> None:
    """The KL in nats a frame and the active units; a collapsed posterior is noted, since no score shows it."""
    nats, active = values["kl_nats"], values["active_units"]
    if not math.prod(state.model.latent_shape) or not math.isfinite(nats):
        return
    if nats < COLLAPSED_NATS:
        reporter.note(
            state.step,
            f"KL {nats:.4f} nats a frame: the posterior has collapsed, z carries nothing and the model is "
            "deterministic in effect; a lower beta gives z a part",
        )
    elif nats > EXPLODED_NATS:
        reporter.note(
            state.step,
            f"KL {nats:.4g} nats a frame: it explodes, prediction will be far from reconstruction; a higher beta "
            "or a lower learning rate holds it",
        )
    else:
        reporter.say(f"KL {nats:.2f} nats a frame, {active:.0f} latent units active")
