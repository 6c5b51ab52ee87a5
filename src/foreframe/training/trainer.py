"""Training: `Trainer.run` is the loop, top to bottom; everything else here serves it.

Batches, noise, forcing coins, beta and the learning rate are functions of the step, so a run that was
stopped goes on from its newest checkpoint exactly as if it had never stopped. A signal is heard between steps, and
inside a validation, which is then made up for.

A step has three parts. `draw` says on the host what is worked on, `place` brings it to the device, and `update` is
the work: there nothing waits for the device, so that a GPU is never without work. With several processes each does
this for its share of the clips; only the first writes and speaks.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreframe import checkpoint, disk, evaluation, models, seeds, signals, video
from foreframe import config as settings
from foreframe.clip import Clip
from foreframe.data.loading.augment import augment
from foreframe.data.loading.prefetch import Ahead, Feed, fits, pinned
from foreframe.data.loading.windows import Windows, batch_indices
from foreframe.data.pack.pack import Pack
from foreframe.device import check_precision, describe
from foreframe.distributed import World
from foreframe.errors import CheckpointError, ConfigError, DataError, DiskError, NotFiniteError, TrainingError
from foreframe.log import Bar, RunLog
from foreframe.losses import COLLAPSED_NATS, Terms
from foreframe.nn.norm import synchronise
from foreframe.recipe import RunConfig
from foreframe.rollout import draw_noise
from foreframe.schedules import Clock
from foreframe.training import crash
from foreframe.training.graphs import Recorder
from foreframe.training.optimizer import average_share, make_optimizer, update_average
from foreframe.training.speed import Speed
from foreframe.training.step import Drawn, Given, draw_forcing, draw_strides, measure, share_of, take_rows
from foreframe.training.watch import IN_A_ROW, IN_KEPT, KEPT, Skipped, Spike, Watch, not_finite
from foreframe.unrolled import free_running_steps

PANEL_CLIPS = 4
EXPLODED_NATS = 1e4
SAVE_TRIES = 3
"""So many checkpoints in a row that the disk refuses end a run; the last one of a run is not forgiven at all."""
LOOK_EVERY = KEPT // 2
"""Steps between looks at how steps went, at most, on a GPU, which is not to be waited for; on a CPU it is each."""
OUT_OF_TIME = 1
"""Stands among the numbers of signals for the end of `max_minutes`; no signal asked for has it."""


class Trainer:
    """A run in progress: the model, its average, the optimiser, and where on disk they live."""

    def __init__(
        self,
        config: RunConfig,
        pack: Pack,
        run: Path,
        device: torch.device,
        world: World | None = None,
        speed: Speed | None = None,
        accept_changes: bool = False,
    ) -> None:
        train, self.speed = config.train, speed or Speed()
        self.world = world or World(device)
        train.check(pack.spec)
        check_precision(train.precision, device)
        self.speed.check(device, self.world)
        self.rows = share_of(train.batch, self.world.rank, self.world.size, train.accumulate)
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
        _check_sizes(config, len(self.rows))
        self.config, self.train, self.pack, self.run_path, self.device = config, train, pack, run, device
        self.accept_changes = accept_changes
        self.windows = Windows(pack, train.split, train.length, train.windows)
        if train.validate_every and "val" in pack.splits:
            # What validation will refuse is refused now, not at the first validation.
            Windows(pack, "val", train.context + evaluation.default_horizon(config, pack, "val"), "first")
        self.epoch_steps = train.epoch_steps or max(1, len(self.windows) // train.batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            self.model = models.build(train.model, pack.spec).to(device)
        if train.standardise and pack.spec.cond == "vector":
            stats = config.cond_stats
            self.model.fit_condition([item.mean for item in stats], [item.std for item in stats])
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False) if train.ema else None
        if self.world.size > 1 and train.sync_norm:
            synchronise(self.model, self.world.group)
        if self.speed.compile:
            compile_parts(self.model)
        self.optimizer = make_optimizer(train.optimizer, self.model, capturable=self.speed.graphs)
        self.recorder = Recorder(self._update_again) if self.speed.graphs else None
        self.feed = Feed(self.windows, device, resident=fits(self.windows, device))
        self.reads_ahead = device.type == "cuda"
        self.ahead: Ahead[Drawn] | None = None
        self.step = 0
        self.best: dict[str, Any] = {}
        self.owes_validation = False
        """Whether the validation of this step was stopped, and is to be made up for."""
        self.watch = Watch(device)
        self.lock = disk.Lock(run / ".lock")
        self.log: RunLog | None = None
        self.bar: Bar | None = None
        self._saved, self._refused = -1, 0

    @property
    def scored(self) -> nn.Module:
        """The model that is validated and used: the average where there is one."""
        scored: nn.Module = self.model if self.average is None else self.average
        return scored

    def run(self, max_minutes: float | None = None) -> str:
        """Train to the end, or until `max_minutes` have passed or a signal asks to stop; says why it ended."""
        train, reason = self.train, 0
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        with ExitStack() as stack:
            stack.enter_context(signals.requests())
            stack.enter_context(signals.defer_signals())
            stack.callback(self.lock.release)
            self.take()
            self.restore()
            if self.step == train.steps and not self.owes_validation:
                return f"already complete at step {self.step}"
            if self.world.is_main:
                self.log = stack.enter_context(RunLog(self.run_path, self.step, train.tensorboard))
                self.bar = stack.enter_context(Bar("training", train.steps, self.step))
            if self.owes_validation:
                self.validate()
                self.save()
                reason = self.world.all_reduce_max(signals.asked())
            self.ahead = stack.enter_context(Ahead(self.draw, train.steps)) if self.reads_ahead else None
            begun, start = time.monotonic(), self.step
            while self.step < train.steps and not reason:
                terms, numbers = self.one_step()
                self.step += 1
                logs, validates, saves = map(self._is_due, (train.log_every, train.validate_every, train.save_every))
                if logs or validates or saves or self.device.type == "cpu" or self.step % LOOK_EVERY == 0:
                    self.look()
                if self.bar is not None:
                    rate = (self.step - start) / (time.monotonic() - begun)
                    self.bar.advance(self._told(terms, numbers, rate, logs))
                if validates:
                    self._tell_latent(terms)
                better = self.validate() if validates else False
                if saves or better:
                    self.save()
                late = time.monotonic() > deadline
                # The processes stop at the same step, whichever of them was asked.
                reason = self.world.all_reduce_max(signals.asked() or (OUT_OF_TIME if late else 0))
            if reason and self.step < train.steps:
                # No validation here: a run that was never stopped would have none at this step.
                self.look()
                self.save(last=True)
        self.world.barrier()
        ended = "complete"
        if self.step < train.steps or self.owes_validation:
            name = f"after {max_minutes:g} minutes" if reason == OUT_OF_TIME else f"by {signal.Signals(reason).name}"
            ended = f"stopped {name}"
        return f"{ended} at step {self.step} of {train.steps}"

    def take(self) -> None:
        """Hold the run's folder, so that no other training comes into it; `run` does it too, and lets go in the end.

        Raises:
            TrainingError: another one holds it.
        """
        if not self.world.is_main or self.lock.held:
            return
        self.run_path.mkdir(parents=True, exist_ok=True)
        holder = self.lock.take()
        if holder:
            raise TrainingError(
                f"{self.run_path}: another training is at work here ({holder}); wait for it, end it, or train in "
                "another folder"
            )

    def one_step(self) -> tuple[Terms, dict[str, Any]]:
        """One update of the weights; returns the loss terms and the step's settings."""
        drawn = self.draw(self.step) if self.ahead is None else self.ahead.take(self.step)
        given = self.place(drawn)
        terms, norm = self.update(given) if self.recorder is None else self.recorder(given.own, given.tensors())
        return terms, {**self.settings(self.step), "grad_norm": norm}

    def settings(self, step: int) -> dict[str, float]:
        """What schedules say of a step: beta, the probability of forcing, the learning rate."""
        train, clock = self.train, self._clock(step)
        rate = train.optimizer.lr * train.rate.value(clock)
        return {"beta": train.beta.value(clock), "forcing": train.forcing.value(clock), "lr": rate}

    def draw(self, step: int, whole: bool = False) -> Drawn:
        """What a step works on, drawn for the whole batch, of which this process takes its rows.

        whole: Take all rows, those of each process as a part of their own, as they are to it.
        """
        train, now = self.train, self.settings(step)
        _, indices = batch_indices(len(self.windows), train.batch, train.seed, step)
        strides = draw_strides(train.stride, train.batch, train.seed, step)
        shape = (train.batch, train.length - 1)
        coins = draw_forcing(train.forcing, now["forcing"], shape, train.seed, self._clock(step))
        # Found in the coins of all processes, which must take the same way through the model.
        own = tuple(free_running_steps(part, train.context) for part in coins.chunk(train.accumulate))
        if self.speed.compile or self.speed.graphs:
            # Two ways through the model are made ready, not one for every pattern of coins.
            later = frozenset(range(train.context + 1, train.length))
            own = tuple(later if part else part for part in own)
        rows = torch.arange(train.batch) if whole else self.rows
        if whole and not train.sync_norm:
            own = tuple(part for part in own for _ in range(self.world.size))
        noise = torch.randn((*shape, *self.model.latent_shape), generator=seeds.generator(train.seed, "noise", step))
        # How clips are varied is drawn for the whole batch together with the varying, so all of them are needed.
        taken = torch.arange(train.batch) if train.augment.active else rows
        pixels = self.feed.fetch(indices[taken], strides[taken])
        numbers = torch.tensor([now["beta"], now["lr"], average_share(train.ema, step), step], dtype=torch.float64)
        coins, noise, numbers = (pinned(part, self.device) for part in (coins[rows], noise[rows], numbers))
        return Drawn(step, rows, pixels, coins, own, noise, numbers)

    def place(self, drawn: Drawn) -> Given:
        """What was drawn, on the device: sent without waiting, pixels turned to floats and varied there."""
        train = self.train
        clip = self.feed.place(drawn.pixels).unit()
        if train.augment.active:
            clip = augment(clip, train.augment, seeds.generator(train.seed, "augment", drawn.step))
            clip = clip if self.world.size == 1 else take_rows(clip, drawn.rows.to(self.device))
        coins, noise, numbers = (
            part.to(self.device, non_blocking=True) for part in (drawn.coins, drawn.noise, drawn.numbers)
        )
        beta, rate, share = numbers[:3].float().unbind()
        return Given(clip, coins, drawn.own, noise, beta, rate, share, numbers[3].long())

    def update(self, given: Given) -> tuple[Terms, Tensor]:
        """The work of a step: tensors in, the terms and the gradient's norm out, and nothing is read on the way.

        A step that is not finite changes nothing; `look` tells of it.
        """
        train = self.train
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        kept = self.watch.keep(self.model)
        terms = measure(self.model, given, train)
        values = torch.cat([terms, kept.largest().to(terms)])
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self.world.mean_([*gradients, values])
        norm = nn.utils.get_total_norm(gradients)
        if train.optimizer.clip_norm:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), train.optimizer.clip_norm, norm)
        skipped = self.watch.see(given.step, torch.cat([values[:3], norm[None].to(values), values[-1:]]))
        kept.put_back(skipped)
        self.optimizer.found_inf.copy_(skipped)
        for group in self.optimizer.param_groups:
            group["lr"] = given.rate
        self.optimizer.step()
        if self.average is not None:
            update_average(self.average, self.model, torch.where(skipped, 0, given.share))
        return Terms(*values[:-1].unbind()), norm

    def _update_again(self, own: tuple[frozenset[int], ...], tensors: Sequence[Tensor | None]) -> tuple[Terms, Tensor]:
        """`update` for the recorder, which knows tensors only."""
        frames, cond, *others = tensors
        assert frames is not None
        coins, *rest = (part for part in others if part is not None)
        return self.update(Given(Clip(frames, cond), coins, own, *rest))

    def look(self) -> None:
        """Tell of the steps since the last look that were not finite or stood out; waits for the device.

        Raises:
            TrainingError: too many were not finite. The last of them is kept for `foreframe replay`.
        """
        for event in self.watch.look(self.step):
            number = event.step + 1
            if isinstance(event, Spike):
                self._note(
                    number, f"the loss of {event.loss:.4g} is {event.sigmas:.1f} deviations above those before it"
                )
                continue
            given = self.place(self.draw(event.step, whole=True))
            _, first = crash.examine(self.model, given, self.train)
            _, indices = batch_indices(len(self.windows), self.train.batch, self.train.seed, event.step)
            clips = self.windows.names(indices)
            text = f"not finite: {', '.join(event.wrong)}; clips {', '.join(clips)}; first {first or crash.NOTHING}"
            self._note(number, f"{text}; this step is skipped")
            if event.fatal:
                self._end_with(event, given, clips, first, f"step {number}: {text}")

    def validate(self) -> bool:
        """Score prediction, and reconstruction under its own name, and show a panel of clips.

        Returns whether the model is the best so far. A signal stops it; the run makes up for it when it goes on.
        """
        better = False
        if self.world.is_main and "val" in self.pack.splits:
            try:
                better = self._validate()
                self.owes_validation = False
            except NotFiniteError as error:
                self._note(self.step, f"validation: {error}")
                self.owes_validation = False
            except signals.Stopped:
                self.owes_validation = True
            self._saved = -1
        self.world.barrier()
        return better

    def save(self, last: bool = False) -> None:
        """Write a checkpoint of this step, unless there is one; with several processes, the first does.

        A disk that refuses is told of, and tried again when the next checkpoint is due; not if this is the `last`.

        Raises:
            DiskError: it has refused too often.
            TrainingError: there is a number that is not finite, which no checkpoint may hold.
        """
        if not self.world.is_main or self._saved == self.step:
            return
        tensors = {"weights": self.model.state_dict(), "optimizer": checkpoint.pack_optimizer(self.optimizer)}
        if self.average is not None:
            tensors["ema"] = self.average.state_dict()
        wrong = [f"{group}: {name}" for group, parts in tensors.items() for name in not_finite(parts)]
        if wrong:
            raise TrainingError(
                f"step {self.step}: not saved, since {len(wrong)} tensors are not finite: {', '.join(wrong[:5])}. "
                f"Earlier checkpoints are whole; `foreframe resume {self.run_path}` goes on from the newest"
            )
        state = {
            "best": self.best,
            "owes_validation": self.owes_validation,
            "config": settings.to_dict(self.config),
            "environment": self._environment(),
        }
        try:
            if self.log is not None:
                self.log.sync()
            tensors["watch"] = {"recent": self.watch.recent}
            checkpoint.save(self.run_path, self.step, tensors, state, self.best.get("step"))
        except DiskError as error:
            self._refused += 1
            if last or self.step == self.train.steps or self._refused == SAVE_TRIES:
                raise DiskError(f"{error}; then `foreframe resume {self.run_path}` goes on") from error
            self._note(self.step, f"{error}; training goes on, the next checkpoint is tried in its turn")
        else:
            self._saved, self._refused = self.step, 0

    def restore(self) -> None:
        """Go back to the newest whole checkpoint, if there is one.

        Raises:
            CheckpointError: none is whole; or the run's configuration is not the one it was saved with.
        """
        if self.world.is_main:
            checkpoint.recover(self.run_path)
            disk.sweep(self.run_path)
            disk.sweep(self.run_path / "media")
        self.world.barrier()
        found = checkpoint.newest(self.run_path, say=print if self.world.is_main else None)
        if found is not None:
            self._compare(found)
            found.load_into(self.model, "weights")
            if self.average is not None:
                found.load_into(self.average, "ema")
            checkpoint.unpack_optimizer(self.optimizer, found)
            self.watch.recent.copy_(found.tensors("watch", {"recent": self.watch.recent})["recent"])
            self.step = self._saved = found.step
            self.best, self.owes_validation = found.best, found.state.get("owes_validation") is True
        elif self.world.is_main:
            self._check_space()
        self.watch.go_on(self.step)
        weights = torch.stack([value.double().sum().cpu() for value in self.model.state_dict().values()])
        if not self.world.all_equal(torch.cat([torch.tensor([self.step], dtype=torch.float64), weights])):
            raise CheckpointError(
                f"{self.run_path}: the processes begin with different weights; all machines must see the same folder "
                "there, and have the same version of torch"
            )

    def _compare(self, found: checkpoint.Checkpoint) -> None:
        """Refuse another configuration than the checkpoint's; say what else is not as it was."""
        then, now = dict(found.state.get("config") or {}), settings.to_dict(self.config)
        for values in (then, now):
            # Where the clips lie may change, what they are is compared by their hash; code is told of below.
            values["data"] = {**values.get("data", {}), "path": ""}
            values["foreframe"] = ""
        changed = settings.differences(then, now)
        if changed and not self.accept_changes:
            listed = "\n  ".join(changed)
            raise CheckpointError(
                f"{self.run_path / 'config.json'}: changed since step {found.step} was saved:\n  {listed}\n"
                "change it back, start a new run, or go on with --accept-changes"
            )
        others = settings.differences(found.state.get("environment") or {}, self._environment())
        if self.world.is_main and (changed or others):
            print(f"not as at step {found.step}, so numbers will differ: {'; '.join([*changed, *others])}")

    def _environment(self) -> dict[str, Any]:
        """What numbers depend on besides the configuration, down to their last bit."""
        speed = {"compile": self.speed.compile, "graphs": self.speed.graphs}
        facts = describe(self.device)
        del facts["cores"]
        return {**facts, "devices": self.world.size, **speed}

    def _check_space(self) -> None:
        """Say it if the disk has no room for two checkpoints, while that costs nothing."""
        moments = 2 if "betas" in self.optimizer.param_groups[0] else 1
        copies = 1 + moments + (self.average is not None)
        needed = 2 * copies * checkpoint.size({"weights": self.model.state_dict()})
        free = disk.free(self.run_path)
        if free is not None and free < needed:
            print(f"{self.run_path}: two checkpoints take {needed:,} bytes here, and {free:,} are free")

    def _validate(self) -> bool:
        train = self.train
        horizon = evaluation.default_horizon(self.config, self.pack, "val")
        row: dict[str, Any] = {"step": self.step}
        model = self.scored.eval()
        for mode in ("prediction", "reconstruction"):
            protocol = evaluation.Protocol(
                "val", train.context, horizon, mode, clips=train.validate_clips, metrics=("psnr",)
            )
            result = evaluation.evaluate(model, self.pack, protocol, self.device)
            row[f"val_{mode}_psnr"] = result["scores"]["psnr"]["mean"]
        row["val_repeat_last_psnr"] = result["baselines"]["repeat_last"]["psnr"]["mean"]
        if self.log is not None:
            self.log.write(row)
        score = row["val_prediction_psnr"]
        better = bool(score > self.best.get("psnr", -math.inf))  # never if it is not a number
        if better:
            self.best = {"step": self.step, "psnr": score, "split": "val", "horizon": horizon}
        self._say(
            f"step {self.step}: validation over {horizon} frames: prediction {score:.2f} dB, "
            f"reconstruction {row['val_reconstruction_psnr']:.2f}, repeat-last {row['val_repeat_last_psnr']:.2f}"
            + (" (best so far)" if better else "")
        )
        try:
            self._panel(model, horizon)
        except DiskError as error:
            self._note(self.step, f"{error}; training goes on without this picture")
        return better

    def _end_with(self, event: Skipped, given: Given, clips: list[str], first: str, text: str) -> None:
        kept = ""
        if self.world.is_main:
            try:
                folder = crash.write(self.run_path, self.config, self.model, given, clips, event, first)
                kept = f"It is kept: `foreframe replay {folder}` takes it again. "
            except DiskError as error:
                kept = f"It could not be kept: {error}. "
        else:
            self.world.barrier()  # the first process tells
        raise TrainingError(
            f"{text}; {IN_A_ROW} such steps in a row, or {IN_KEPT} of {KEPT}, end a run. {kept}The newest checkpoint "
            "is unharmed; try a lower learning rate or --optimizer.clip-norm 1"
        )

    def _tell_latent(self, terms: Terms) -> None:
        """What the latent does; a collapsed posterior is said, since no score shows it."""
        if self.bar is None or not math.prod(self.model.latent_shape):
            return
        nats, active = float(terms.kl_nats), float(terms.active_units)
        if not math.isfinite(nats):
            return  # the step was skipped, which was told
        if nats < COLLAPSED_NATS:
            self._note(
                self.step,
                f"KL {nats:.4f} nats a frame: the posterior has collapsed, z carries nothing and the model is "
                "deterministic in effect; a lower beta gives z a part",
            )
        elif nats > EXPLODED_NATS:
            self._note(
                self.step,
                f"KL {nats:.4g} nats a frame: it explodes, prediction will be far from reconstruction; a higher beta "
                "or a lower learning rate holds it",
            )
        else:
            self._say(f"KL {nats:.2f} nats a frame, {active:.0f} latent units active")

    def _note(self, step: int, text: str) -> None:
        """Something to be read later: a line above the bar, and a row of the log."""
        if self.log is not None:
            self.log.write({"step": step, "note": text})
        self._say(f"step {step}: {text}")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.say(text)

    def _told(self, terms: Terms, numbers: dict[str, Any], rate: float, logs: bool) -> str:
        """What stands beside the bar, empty where a GPU would be waited for; with `logs`, a row of the log too."""
        if not logs and (self.device.type != "cpu" or (self.step % 5 != 0 and self.step != 1)):
            return ""
        values = {**_values(terms), **numbers, "grad_norm": float(numbers["grad_norm"])}
        if logs and self.log is not None:
            self.log.write({"step": self.step, **values, "steps_per_second": rate})
        return _beside(values, self.best, rate)

    def _is_due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now; never with 0."""
        return bool(every) and (self.step % every == 0 or self.step == self.train.steps)

    def _clock(self, step: int) -> Clock:
        return Clock(step, self.train.steps, self.epoch_steps)

    def _panel(self, model: nn.Module, horizon: int) -> None:
        train = self.train
        length = train.context + min(horizon, 60)
        windows = Windows(self.pack, "val", length, "first")
        indices = list(range(min(PANEL_CLIPS, len(windows))))
        clip = windows.batch(indices).to(self.device).unit()
        noise = draw_noise(model, indices, length, seed=0).to(self.device)
        predicted = evaluation.unroll(model, clip, noise, train.context, "prediction")
        rows: list[video.Row] = []
        for number, (truth, guess) in enumerate(zip(clip.frames, predicted, strict=True)):
            rows.append((f"truth {number}", video.pictures(truth)))
            rows.append((f"prediction {number}", video.pictures(torch.cat([truth[: train.context], guess]))))
        path = self.run_path / "media" / f"step-{self.step:08d}.gif"
        video.write_gif(path, video.grid(rows, context=train.context), self.config.fps)
        if self.log is not None:
            self.log.picture("validation", path, self.step)


def _check_sizes(config: RunConfig, clips: int) -> None:
    """Raises ConfigError for a condition that cannot be standardised, and for clips of a step beyond this machine."""
    train, spec = config.train, config.spec
    if train.standardise and spec.cond == "vector" and not config.cond_stats:
        raise ConfigError(
            f"cond_stats: expected those of {spec.cond_size} numbers to standardise the condition by, found none; set "
            "train.standardise to false to feed it as it is, or train anew"
        )
    pixels = spec.height * spec.width
    numbers = spec.channels * pixels + spec.cond_size * (pixels if spec.cond == "image" else 1)
    needed, there = 4 * clips * train.length * numbers, models.memory()
    if needed > there:
        raise ConfigError(
            f"train.batch: {clips:,} clips of {train.length:,} frames on a device take {needed:,} bytes by themselves, "
            f"this machine has {there:,}: make the batch or the horizon smaller"
        )


def compile_parts(model: nn.Module) -> None:
    """Have each part of a model that holds convolutions compiled at its first call, by itself: steps are many."""
    for part in model.children():
        if any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in part.modules()):
            part.compile(dynamic=False)


def _values(terms: Terms) -> dict[str, float]:
    """The terms as numbers for the log; `psnr` is of the training batch, whose z saw the answer."""
    names = [field.name for field in fields(Terms)]
    read = dict(zip(names, torch.stack([getattr(terms, name) for name in names]).tolist(), strict=True))
    mse = read.pop("mse")
    return {**read, "psnr": -10 * math.log10(max(mse, 1e-10))}


def _beside(values: dict[str, float], best: dict[str, Any], rate: float) -> str:
    text = (
        f"loss {values['loss']:.4f} rec {values['reconstruction']:.4f} KL {values['kl_nats']:.2f} nats "
        f"active {values['active_units']:.0f} beta {values['beta']:.2g} forcing {values['forcing']:.2f} "
        f"train {values['psnr']:.1f} dB"
    )
    return f"{text} val {best['psnr']:.2f} dB {rate:.2f}/s" if best else f"{text} {rate:.2f}/s"


def describe_model(model: nn.Module) -> str:
    """`1,585,620 parameters`."""
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"
