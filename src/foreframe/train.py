"""Training: `Trainer.run` is the loop, top to bottom; everything else here serves it.

Batches, noise, forcing coins, beta and the learning rate are functions of the step, so a run that was
stopped goes on from its newest checkpoint exactly as if it had never stopped.

A step has three parts. `draw` says on the host what is worked on, `place` brings it to the device, and `update` is
the work: there nothing waits for the device, so that a GPU is never without work. With several processes each does
this for its share of the clips; only the first writes and speaks.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foreframe import checkpoint, evaluate, models, runtime, seeds, video
from foreframe.clip import Clip
from foreframe.data.augment import augment
from foreframe.data.pack import Pack
from foreframe.data.prefetch import Ahead, Feed, fits, pinned
from foreframe.data.windows import Windows, batch_indices
from foreframe.errors import CheckpointError, ConfigError, DataError, TrainingError
from foreframe.graphs import Recorder
from foreframe.log import Bar, RunLog
from foreframe.losses import Terms, elbo
from foreframe.nn.norm import synchronise
from foreframe.optimizer import average_share, make_optimizer, update_average
from foreframe.recipe import RunConfig
from foreframe.rollout import draw_noise
from foreframe.schedules import Clock, ForcingSchedule
from foreframe.unrolled import fed_back

PANEL_CLIPS = 4
COLLAPSED_NATS = 0.01
OUT_OF_TIME = 1
"""Stands among the numbers of signals for the end of `max_minutes`; no signal asked for has it."""


class Drawn(NamedTuple):
    """What a step is to work on, on the host: for the clips of this process, b of the B of the batch.

    pixels: as `Feed.fetch` gives them. coins (b, T-1) bool; own: as `Given` says; noise (b, T-1, Z...). numbers: beta,
    learning rate, the share by which the average moves, and the step, float64.
    """

    step: int
    pixels: Clip | Tensor
    coins: Tensor
    own: tuple[frozenset[int], ...]
    noise: Tensor
    numbers: Tensor


class Given(NamedTuple):
    """The same on the device, pixels as floats: tensors, but for `own`.

    own: for each part of the batch, the steps at which some clip of it is fed the model's own frame.
    """

    clip: Clip
    coins: Tensor
    own: tuple[frozenset[int], ...]
    noise: Tensor
    beta: Tensor
    rate: Tensor
    share: Tensor
    step: Tensor

    def tensors(self) -> list[Tensor | None]:
        return [self.clip.frames, self.clip.cond, self.coins, *self[3:]]

    def parts(self) -> Iterator[tuple[Clip, Tensor, Tensor, frozenset[int]]]:
        """Clips, coins, noise and `own`, part by part."""
        size = self.clip.batch // len(self.own)
        for number, own in enumerate(self.own):
            rows = slice(number * size, (number + 1) * size)
            yield _rows(self.clip, rows), self.coins[rows], self.noise[rows], own


class Trainer:
    """A run in progress: the model, its average, the optimiser, and where on disk they live."""

    def __init__(
        self,
        config: RunConfig,
        pack: Pack,
        run: Path,
        device: torch.device,
        world: runtime.World | None = None,
        speed: runtime.Speed | None = None,
    ) -> None:
        train, self.speed = config.train, speed or runtime.Speed()
        self.world = world or runtime.World(device)
        train.check(pack.spec)
        runtime.check_precision(train.precision, device)
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
        self.config, self.train, self.pack, self.run_path, self.device = config, train, pack, run, device
        self.windows = Windows(pack, train.split, train.length, train.windows)
        if train.validate_every and "val" in pack.splits:
            # What validation will refuse is refused now, not at the first validation.
            Windows(pack, "val", train.context + evaluate.default_horizon(config, pack, "val"), "first")
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
        self.trouble = torch.tensor([-1, 0, 0, 0, 0], device=device)
        """The first step that was not finite, -1 for none; then whether its loss, its terms, its gradient were it."""

    @property
    def scored(self) -> nn.Module:
        """The model that is validated and used: the average where there is one."""
        scored: nn.Module = self.model if self.average is None else self.average
        return scored

    def run(self, max_minutes: float | None = None) -> str:
        """Train to the end, or until `max_minutes` have passed or a signal asks to stop; says why it ended."""
        train, first = self.train, self.world.first
        self.restore()
        if self.step >= train.steps:
            return f"already complete at step {self.step}"
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        ended = "complete"
        with ExitStack() as stack:
            log = stack.enter_context(RunLog(self.run_path, self.step, train.tensorboard)) if first else None
            asked = stack.enter_context(_stop_requests())
            bar = stack.enter_context(Bar("training", train.steps, self.step)) if first else None
            self.ahead = stack.enter_context(Ahead(self.draw, train.steps)) if self.reads_ahead else None
            begun, start = time.monotonic(), self.step
            while self.step < train.steps:
                terms, numbers = self.one_step()
                self.step += 1
                logs, validates, saves = map(self._is_due, (train.log_every, train.validate_every, train.save_every))
                if logs or validates or saves:
                    self.insist_finite()
                if log is not None and bar is not None:
                    rate = (self.step - start) / (time.monotonic() - begun)
                    bar.advance(self._told(terms, numbers, rate, log if logs else None))
                    if validates:
                        self.validate(log, bar)
                        bar.say(_latent(terms))
                    if saves:
                        self.save()
                if validates:
                    self.world.wait()
                late = time.monotonic() > deadline
                # The processes stop at the same step, whichever of them was asked.
                reason = self.world.most(asked[0] if asked else OUT_OF_TIME if late else 0)
                if reason == OUT_OF_TIME:
                    ended = f"stopped after {max_minutes:g} minutes"
                elif reason:
                    ended = f"stopped by {signal.Signals(reason).name}"
                if reason:
                    break
            if self.step < train.steps:
                # No validation here: a run that was never stopped would have none at this step.
                self.insist_finite()
                if first:
                    self.save()
        self.world.wait()
        return f"{ended} at step {self.step} of {train.steps}"

    def one_step(self) -> tuple[Terms, dict[str, Any]]:
        """One update of the weights; returns the loss terms and the step's settings."""
        drawn = self.draw(self.step) if self.ahead is None else self.ahead.take(self.step)
        given = self.place(drawn)
        terms, norm = self.update(given) if self.recorder is None else self.recorder(given.own, given.tensors())
        if self.device.type == "cpu":
            self.insist_finite()
        return terms, {**self.settings(self.step), "grad_norm": norm}

    def settings(self, step: int) -> dict[str, float]:
        """What schedules say of a step: beta, the probability of forcing, the learning rate."""
        train, clock = self.train, self._clock(step)
        rate = train.optimizer.lr * train.rate.value(clock)
        return {"beta": train.beta.value(clock), "forcing": train.forcing.value(clock), "lr": rate}

    def draw(self, step: int) -> Drawn:
        """What a step works on, drawn for the whole batch, of which this process takes its rows."""
        train, now = self.train, self.settings(step)
        _, indices = batch_indices(len(self.windows), train.batch, train.seed, step)
        strides = draw_strides(train.stride, train.batch, train.seed, step)
        shape = (train.batch, train.length - 1)
        coins = draw_forcing(train.forcing, now["forcing"], shape, train.seed, self._clock(step))
        # Found in the coins of all processes, which must take the same way through the model.
        own = tuple(fed_back(part, train.context) for part in coins.chunk(train.accumulate))
        if self.speed.compile or self.speed.graphs:
            # Two ways through the model are made ready, not one for every pattern of coins.
            later = frozenset(range(train.context + 1, train.length))
            own = tuple(later if part else part for part in own)
        noise = torch.randn((*shape, *self.model.latent_shape), generator=seeds.generator(train.seed, "noise", step))
        # How clips are varied is drawn for the whole batch together with the varying, so all of them are needed.
        taken = torch.arange(train.batch) if train.augment.active else self.rows
        pixels = self.feed.fetch(indices[taken], strides[taken])
        numbers = torch.tensor([now["beta"], now["lr"], average_share(train.ema, step), step], dtype=torch.float64)
        coins, noise, numbers = (pinned(part, self.device) for part in (coins[self.rows], noise[self.rows], numbers))
        return Drawn(step, pixels, coins, own, noise, numbers)

    def place(self, drawn: Drawn) -> Given:
        """What was drawn, on the device: sent without waiting, pixels turned to floats and varied there."""
        train = self.train
        clip = self.feed.place(drawn.pixels).unit()
        if train.augment.active:
            clip = augment(clip, train.augment, seeds.generator(train.seed, "augment", drawn.step))
            clip = clip if self.world.size == 1 else _rows(clip, self.rows.to(self.device))
        coins, noise, numbers = (
            part.to(self.device, non_blocking=True) for part in (drawn.coins, drawn.noise, drawn.numbers)
        )
        beta, rate, share = numbers[:3].float().unbind()
        return Given(clip, coins, drawn.own, noise, beta, rate, share, numbers[3].long())

    def update(self, given: Given) -> tuple[Terms, Tensor]:
        """The work of a step: tensors in, the terms and the gradient's norm out, and nothing is read on the way.

        An update that is not finite is not made; `insist_finite` tells of it.
        """
        train = self.train
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        measured = []
        for clip, coins, noise, own in given.parts():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
                unrolled = self.model(clip, train.context, coins, noise, own)
            part = elbo(unrolled, clip.frames[:, 1:], given.beta, train.loss)
            (part.loss / train.accumulate).backward()
            measured.append(torch.stack([getattr(part, field.name).detach() for field in fields(Terms)]))
        values = torch.stack(measured).mean(0)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self.world.mean_([*gradients, values])
        terms = Terms(*values.unbind())
        norm = nn.utils.get_total_norm(gradients)
        if train.optimizer.clip_norm:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), train.optimizer.clip_norm, norm)
        self._mark(given.step, terms, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = given.rate
        self.optimizer.step()
        if self.average is not None:
            update_average(self.average, self.model, given.share)
        return terms, norm

    def _update_again(self, own: tuple[frozenset[int], ...], tensors: Sequence[Tensor | None]) -> tuple[Terms, Tensor]:
        """`update` for the recorder, which knows tensors only."""
        frames, cond, *others = tensors
        assert frames is not None
        coins, *rest = (part for part in others if part is not None)
        return self.update(Given(Clip(frames, cond), coins, own, *rest))

    def validate(self, log: RunLog, bar: Bar) -> None:
        """Score prediction, and reconstruction under its own name; keep the best; write a panel of clips."""
        if "val" not in self.pack.splits:
            return
        train = self.train
        horizon = evaluate.default_horizon(self.config, self.pack, "val")
        row: dict[str, Any] = {"step": self.step}
        model = self.scored.eval()
        for mode in ("prediction", "reconstruction"):
            protocol = evaluate.Protocol(
                "val", train.context, horizon, mode, clips=train.validate_clips, metrics=("psnr",)
            )
            result = evaluate.evaluate(model, self.pack, protocol, self.device)
            row[f"val_{mode}_psnr"] = result["scores"]["psnr"]["mean"]
        row["val_repeat_last_psnr"] = result["baselines"]["repeat_last"]["psnr"]["mean"]
        log.write(row)
        score = row["val_prediction_psnr"]
        better = score > self.best.get("psnr", -math.inf)
        if better:
            self.best = {"step": self.step, "psnr": score, "split": "val", "horizon": horizon}
            self.save()
        bar.say(
            f"step {self.step}: validation over {horizon} frames: prediction {score:.2f} dB, "
            f"reconstruction {row['val_reconstruction_psnr']:.2f}, repeat-last {row['val_repeat_last_psnr']:.2f}"
            + (" (best so far)" if better else "")
        )
        self._panel(log, model, horizon)

    def save(self) -> None:
        tensors = {"weights": self.model.state_dict(), "optimizer": checkpoint.pack_optimizer(self.optimizer)}
        if self.average is not None:
            tensors["ema"] = self.average.state_dict()
        state = {"best": self.best, "threads": torch.get_num_threads(), "torch": torch.__version__}
        checkpoint.save(self.run_path, self.step, tensors, state, self.best.get("step"))

    def restore(self) -> None:
        """Go back to the newest whole checkpoint, if there is one."""
        found = checkpoint.newest(self.run_path, say=print if self.world.first else None)
        if found is not None:
            found.load_into(self.model, "weights")
            if self.average is not None:
                found.load_into(self.average, "ema")
            checkpoint.unpack_optimizer(self.optimizer, found.tensors("optimizer"))
            self.step, self.best = found.step, found.state["best"]
        weights = torch.stack([value.double().sum().cpu() for value in self.model.state_dict().values()])
        if not self.world.same(torch.cat([torch.tensor([self.step], dtype=torch.float64), weights])):
            raise CheckpointError(
                f"{self.run_path}: the processes begin with different weights; all machines must see the same folder "
                "there, and have the same version of torch"
            )

    def insist_finite(self) -> None:
        """Waits for the device and raises TrainingError if a step was not finite: which, in what, on which clips."""
        step, *wrong = self.trouble.tolist()
        if step < 0:
            return
        names = [name for name, is_wrong in zip(("loss", "reconstruction", "kl"), wrong, strict=False) if is_wrong]
        _, indices = batch_indices(len(self.windows), self.train.batch, self.train.seed, step)
        raise TrainingError(
            f"step {step}: not finite: {', '.join(names or ['gradient'])}; "
            f"clips {', '.join(self.windows.names(indices))}. "
            "The last checkpoint is unharmed; try a lower learning rate or --optimizer.clip-norm 1"
        )

    def _mark(self, step: Tensor, terms: Terms, norm: Tensor) -> None:
        """Have the optimiser pass over a step that is not finite, and note the first one; all of it on the device."""
        wrong = ~torch.stack([terms.loss, terms.reconstruction, terms.kl, norm]).isfinite()
        self.optimizer.found_inf.copy_(wrong.any())
        is_first = wrong.any() & (self.trouble[0] < 0)
        self.trouble.copy_(torch.where(is_first, torch.cat([step[None], wrong.long()]), self.trouble))

    def _told(self, terms: Terms, numbers: dict[str, Any], rate: float, log: RunLog | None) -> str:
        """A row for the log if one is given, and what stands beside the bar; empty where a GPU would be waited for."""
        if log is None and (self.device.type != "cpu" or (self.step % 5 != 0 and self.step != 1)):
            return ""
        values = {**_values(terms), **numbers, "grad_norm": float(numbers["grad_norm"])}
        if log is not None:
            log.write({"step": self.step, **values, "steps_per_second": rate})
        return _note(values, self.best, rate)

    def _is_due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now; never with 0."""
        return bool(every) and (self.step % every == 0 or self.step == self.train.steps)

    def _clock(self, step: int) -> Clock:
        return Clock(step, self.train.steps, self.epoch_steps)

    def _panel(self, log: RunLog, model: nn.Module, horizon: int) -> None:
        train = self.train
        length = train.context + min(horizon, 60)
        windows = Windows(self.pack, "val", length, "first")
        indices = list(range(min(PANEL_CLIPS, len(windows))))
        clip = windows.batch(indices).to(self.device).unit()
        noise = draw_noise(model, indices, length, seed=0).to(self.device)
        predicted = evaluate.unroll(model, clip, noise, train.context, "prediction")
        rows: list[video.Row] = []
        for number, (truth, guess) in enumerate(zip(clip.frames, predicted, strict=True)):
            rows.append((f"truth {number}", video.pictures(truth)))
            rows.append((f"prediction {number}", video.pictures(torch.cat([truth[: train.context], guess]))))
        path = self.run_path / "media" / f"step-{self.step:08d}.gif"
        path.parent.mkdir(exist_ok=True)
        video.write_gif(path, video.grid(rows, context=train.context), self.config.fps)
        log.picture("validation", path, self.step)


def share_of(batch: int, rank: int, size: int, accumulate: int) -> Tensor:
    """The rows of a batch that belong to one process, (batch / size,) int64, those of its first part first.

    A part is the same clips of the batch whatever the number of processes, which share each part among them.

    Raises:
        ConfigError: the clips cannot be shared equally.
    """
    shares = size * accumulate
    if batch % shares:
        devices = f"{size} devices" if size > 1 else "1 device"
        parts = f", each in {accumulate} parts" if accumulate > 1 else ""
        raise ConfigError(
            f"batch: {batch} clips cannot be shared equally by {devices}{parts}; "
            f"give a multiple of {shares}, as in --batch {math.ceil(batch / shares) * shares}"
        )
    return torch.arange(batch).view(accumulate, size, -1)[:, rank].flatten()


def compile_parts(model: nn.Module) -> None:
    """Have each part of a model that holds convolutions compiled at its first call, by itself: steps are many."""
    for part in model.children():
        if any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in part.modules()):
            part.compile(dynamic=False)


def draw_forcing(
    schedule: ForcingSchedule, probability: float, shape: tuple[int, int], seed: int, clock: Clock
) -> Tensor:
    """Which steps are fed the true frame: (B, T-1) bool on the CPU, true with the given probability.

    Who shares a coin follows `schedule.coin`; one for an epoch is a function of the epoch alone.
    """
    if schedule.coin == "epoch":
        draw = torch.rand((), generator=seeds.generator(seed, "forcing-epoch", clock.epoch)).expand(shape)
    elif schedule.coin == "batch":
        draw = torch.rand((), generator=seeds.generator(seed, "forcing", clock.step)).expand(shape)
    else:
        draw = torch.rand(shape, generator=seeds.generator(seed, "forcing", clock.step))
    return draw < probability


def draw_strides(most: int, count: int, seed: int, step: int) -> Tensor:
    """Distances between the frames of each clip, (B,) int64 from 1 to `most`, uniform in their logarithm."""
    draws = torch.rand(count, generator=seeds.generator(seed, "stride", step))
    return (draws * math.log(most)).exp().round().long()


def _rows(clip: Clip, rows: slice | Tensor) -> Clip:
    return Clip(clip.frames[rows], None if clip.cond is None else clip.cond[rows])


def _values(terms: Terms) -> dict[str, float]:
    """The terms as numbers for the log; `psnr` is of the training batch, whose z saw the answer."""
    names = [field.name for field in fields(Terms)]
    read = dict(zip(names, torch.stack([getattr(terms, name) for name in names]).tolist(), strict=True))
    mse = read.pop("mse")
    return {**read, "psnr": -10 * math.log10(max(mse, 1e-10))}


def _latent(terms: Terms) -> str:
    """What the latent does, in a sentence; a collapsed posterior is said, since no score shows it."""
    if float(terms.kl_nats) < COLLAPSED_NATS:
        return (
            f"KL {float(terms.kl_nats):.4f} nats a frame: the posterior has collapsed, z carries nothing and the model "
            "is deterministic in effect; a lower beta gives z a part"
        )
    return f"KL {float(terms.kl_nats):.2f} nats a frame, {float(terms.active_units):.0f} latent units active"


def _note(values: dict[str, float], best: dict[str, Any], rate: float) -> str:
    text = (
        f"loss {values['loss']:.4f} rec {values['reconstruction']:.4f} KL {values['kl_nats']:.2f} nats "
        f"active {values['active_units']:.0f} beta {values['beta']:.2g} forcing {values['forcing']:.2f} "
        f"train {values['psnr']:.1f} dB"
    )
    return f"{text} val {best['psnr']:.2f} dB {rate:.2f}/s" if best else f"{text} {rate:.2f}/s"


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Signals that ask to stop, collected: the step is finished and saved; a second one ends at once."""
    asked: list[int] = []

    def handle(number: int, _: object) -> None:
        name = signal.Signals(number)
        signal.signal(name, previous[name])
        asked.append(number)

    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    try:
        previous = {number: signal.signal(number, handle) for number in watched}
    except ValueError:  # not the main thread: the caller's signals are the caller's
        previous = {}
    try:
        yield asked
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def describe_model(model: nn.Module) -> str:
    """`1,585,620 parameters`."""
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"
