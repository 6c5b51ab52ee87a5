"""Training: `Trainer.run` is the loop, top to bottom; everything else here serves it.

All inputs of a step are functions of the step, so a run that was stopped continues from its newest checkpoint exactly
as if it had never stopped. Signals are handled between steps, and inside a validation, which is then repeated.

`draw` makes the inputs of a step on the host, `place` brings them to the device, and `update` computes without waiting
for the device. With several processes each does this for its share of the clips; only the first writes and reports.
"""

from __future__ import annotations

import math
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from foreframe import disk, signals
from foreframe.data.loading.augment import warp
from foreframe.data.loading.prefetch import Ahead, Feed, fits
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.distributed import World
from foreframe.errors import TrainingError
from foreframe.losses import Terms
from foreframe.recipe import RunConfig
from foreframe.training import health, resume, validation
from foreframe.training.graphs import Inputs, Recorder
from foreframe.training.optimizer import update_average
from foreframe.training.state import Reporter, Setup, Speed, State
from foreframe.training.step import StepInputs, StepPlan, draw, measure
from foreframe.training.watch import KEPT

VALUES = (*Terms._fields, "grad_norm")
"""The numbers that a step returns, (7,)."""
REPORT_EVERY = KEPT // 2
"""Steps between reports on how steps went, at most, on a GPU, which is not to be waited for; on a CPU it is each."""
OUT_OF_TIME = 1
"""Stands among the numbers of signals for the end of `max_minutes`; no signal asked for has it."""


class Trainer:
    """A run in progress. plan: how steps are drawn. rows: those of this process among the clips of a batch."""

    def __init__(
        self,
        config: RunConfig,
        pack: Pack,
        path: Path,
        device: torch.device,
        world: World | None = None,
        speed: Speed | None = None,
        accept_changes: bool = False,
    ) -> None:
        setup = Setup(config, pack, path, device, world or World(device), speed or Speed())
        setup.check()
        train = config.train
        self.setup, self.rows, self.accept_changes = setup, setup.rows, accept_changes
        self.windows = Windows(pack, train.split, train.length, train.windows)
        self.state = State.new(setup)
        self.feed = Feed(self.windows, device, resident=fits(self.windows, device))
        uniform = setup.speed.compile or setup.speed.graphs
        self.plan = StepPlan(train, self.feed, self.state.model.latent_shape, uniform)
        self.recorder = Recorder(self._update_tensors) if setup.speed.graphs else None
        self.reads_ahead = device.type == "cuda"
        self.ahead: Ahead[StepInputs] | None = None
        self.lock = disk.Lock(path / ".lock")
        self.reporter = Reporter()

    def run(self, max_minutes: float | None = None) -> str:
        """Train to the end, or until `max_minutes` have passed or a signal asks to stop; says why it ended."""
        setup, state, train, world = self.setup, self.state, self.setup.train, self.setup.world
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        reason = 0
        with ExitStack() as stack:
            stack.enter_context(signals.handle_signals())
            stack.enter_context(signals.defer_signals())
            stack.callback(self.lock.release)
            self.acquire_lock()
            self.restore()
            if state.step == train.steps and not state.validation_pending:
                return f"already complete at step {state.step}"
            self.reporter.open(stack, setup, state.step)
            if state.validation_pending:
                self.validate()
                self.save()
                reason = world.all_reduce_max(signals.asked())
            self.ahead = stack.enter_context(Ahead(self.draw, train.steps)) if self.reads_ahead else None
            begun, start = time.monotonic(), state.step
            while state.step < train.steps and not reason:
                values = self.one_step()
                state.step += 1
                logs, validates, saves = map(self._is_due, (train.log_every, train.validate_every, train.save_every))
                if logs or validates or saves or setup.device.type == "cpu" or state.step % REPORT_EVERY == 0:
                    health.report_events(setup, state, self.plan, self.place, self.reporter)
                self._advance(values, (state.step - start) / (time.monotonic() - begun), logs)
                if validates:
                    health.report_latent(state, self._read(values), self.reporter)
                better = self.validate() if validates else False
                if saves or better:
                    self.save()
                late = time.monotonic() > deadline
                # The processes stop at the same step, whichever of them was asked.
                reason = world.all_reduce_max(signals.asked() or (OUT_OF_TIME if late else 0))
            if reason and state.step < train.steps:
                # No validation here: a run that was never stopped would have none at this step.
                health.report_events(setup, state, self.plan, self.place, self.reporter)
                self.save(last=True)
        world.barrier()
        ended = "complete"
        if state.step < train.steps or state.validation_pending:
            name = f"after {max_minutes:g} minutes" if reason == OUT_OF_TIME else f"by {signal.Signals(reason).name}"
            ended = f"stopped {name}"
        return f"{ended} at step {state.step} of {train.steps}"

    def acquire_lock(self) -> None:
        """Hold the run's folder until `run` ends, against other trainings. Raises TrainingError if one has it."""
        if not self.setup.world.is_main or self.lock.held:
            return
        self.setup.path.mkdir(parents=True, exist_ok=True)
        holder = self.lock.take()
        if holder:
            raise TrainingError(
                f"{self.setup.path}: another training is running here ({holder}); wait for it, end it, or train in "
                "another folder"
            )

    def one_step(self) -> Tensor:
        """One update of the weights; returns `VALUES`."""
        drawn = self.draw(self.state.step) if self.ahead is None else self.ahead.take(self.state.step)
        inputs = self.place(drawn)
        return self.update(inputs) if self.recorder is None else self.recorder(inputs.free_running, inputs.tensors())

    def draw(self, step: int) -> StepInputs:
        """The inputs of a step, on the host."""
        return draw(self.plan, step, self.rows)

    def place(self, drawn: StepInputs) -> StepInputs:
        """The inputs on the device: sent without waiting, pixels turned to floats and augmented there."""
        inputs = drawn.to(self.setup.device)
        clip = self.feed.place(inputs.pixels).unit()
        return inputs._replace(pixels=clip if inputs.grid is None else warp(clip, inputs.grid), grid=None)

    def update(self, inputs: StepInputs) -> Tensor:
        """Inputs to `VALUES` without reading the device; a step that is not finite changes nothing."""
        state, train = self.state, self.setup.train
        model, optimizer = state.model, state.optimizer
        rate, share = inputs.numbers[1:3].float()
        model.train()
        optimizer.zero_grad(set_to_none=True)
        kept = state.watch.keep(model)
        terms = measure(model, inputs, train)
        values = torch.cat([terms, kept.largest().to(terms)])
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self.setup.world.mean_([*gradients, values])
        norm = nn.utils.get_total_norm(gradients)
        if train.optimizer.clip_norm:
            nn.utils.clip_grads_with_norm_(model.parameters(), train.optimizer.clip_norm, norm)
        norm_value = norm[None].to(values)
        skipped = state.watch.record(inputs.step, torch.cat([values[:3], norm_value, values[-1:]]))
        kept.put_back(skipped)
        optimizer.found_inf.copy_(skipped)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if state.average is not None:
            update_average(state.average, model, torch.where(skipped, 0, share))
        return torch.cat([values[:-1], norm_value])

    def _update_tensors(self, free_running: tuple[frozenset[int], ...], tensors: Inputs) -> Tensor:
        """`update` for the recorder, which knows tensors only."""
        return self.update(StepInputs.of_tensors(free_running, tensors))

    def validate(self) -> bool:
        """See `validation.validate`."""
        return validation.validate(self.setup, self.state, self.reporter)

    def save(self, last: bool = False) -> None:
        """See `resume.save`."""
        resume.save(self.setup, self.state, self.reporter, last)

    def restore(self) -> None:
        """See `resume.restore`."""
        resume.restore(self.setup, self.state, self.accept_changes)

    def _advance(self, values: Tensor, rate: float, logs: bool) -> None:
        """Move the bar; read the values where they are shown or logged, but rarely where a GPU is waited for."""
        step = self.state.step
        shows = logs or (self.setup.device.type == "cpu" and (step % 5 == 0 or step == 1))
        read = self._read(values) if shows else None
        self.reporter.advance(step, read, self.state.best, rate, logs)

    def _read(self, values: Tensor) -> dict[str, float]:
        """A step's `VALUES` and settings by name; `psnr` is of the training batch, whose z saw the answer."""
        read = dict(zip(VALUES, values.tolist(), strict=True))
        norm, psnr = read.pop("grad_norm"), -10 * math.log10(max(read.pop("mse"), 1e-10))
        step = self.state.step - 1
        at = {"epoch": self.plan.clock(step).epoch, **self.plan.settings(step)}
        return {**read, "psnr": psnr, **at, "grad_norm": norm}

    def _is_due(self, every: int) -> bool:
        """Whether a thing done every n-th step, and at the end, is to be done now; never with 0."""
        return bool(every) and (self.state.step % every == 0 or self.state.step == self.setup.train.steps)


def describe_model(model: nn.Module) -> str:
    """`1,585,620 parameters`."""
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"
