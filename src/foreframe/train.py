"""Training: `Trainer.run` is the loop, top to bottom; everything else here serves it.

Batches, noise, forcing coins, beta and the learning rate are functions of the step, so a run that was
stopped goes on from its newest checkpoint exactly as if it had never stopped.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreframe import checkpoint, evaluate, models, seeds, video
from foreframe.clip import Clip
from foreframe.data.augment import augment
from foreframe.data.pack import Pack
from foreframe.data.windows import Windows, batch_indices
from foreframe.errors import DataError, TrainingError
from foreframe.log import Bar, RunLog
from foreframe.losses import Terms, elbo
from foreframe.recipe import OptimizerConfig, RunConfig
from foreframe.rollout import draw_noise
from foreframe.schedules import Clock, ForcingSchedule

PANEL_CLIPS = 4
COLLAPSED_NATS = 0.01


class Trainer:
    """A run in progress: the model, its average, the optimiser, and where on disk they live."""

    def __init__(self, config: RunConfig, pack: Pack, run: Path, device: torch.device) -> None:
        train = config.train
        train.check(pack.spec)
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
        self.optimizer = make_optimizer(train.optimizer, self.model)
        self.step = 0
        self.best: dict[str, Any] = {}

    @property
    def scored(self) -> nn.Module:
        """The model that is validated and used: the average where there is one."""
        scored: nn.Module = self.model if self.average is None else self.average
        return scored

    def run(self, max_minutes: float | None = None) -> str:
        """Train to the end, or until `max_minutes` have passed or a signal asks to stop; says why it ended."""
        train = self.train
        self.restore()
        if self.step >= train.steps:
            return f"already complete at step {self.step}"
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        ended = "complete"
        with (
            RunLog(self.run_path, self.step, train.tensorboard) as log,
            _stop_requests() as asked,
            Bar("training", train.steps, self.step) as bar,
        ):
            begun, first = time.monotonic(), self.step
            while self.step < train.steps:
                terms, numbers = self.one_step()
                self.step += 1
                rate = (self.step - first) / (time.monotonic() - begun)
                if self.step % train.log_every == 0 or self.step == train.steps:
                    row = {"step": self.step, **_values(terms), **numbers, "steps_per_second": rate}
                    log.write(row)
                bar.advance(_note(terms, numbers, self.best, rate) if self.step % 5 == 0 or self.step == 1 else "")
                if train.validate_every and (self.step % train.validate_every == 0 or self.step == train.steps):
                    self.validate(log, bar)
                    bar.say(_latent(terms))
                if self.step % train.save_every == 0 or self.step == train.steps:
                    self.save()
                if asked or time.monotonic() > deadline:
                    ended = f"stopped by {asked[0]}" if asked else f"stopped after {max_minutes:g} minutes"
                    break
            if self.step < train.steps:
                # No validation here: a run that was never stopped would have none at this step.
                self.save()
        return f"{ended} at step {self.step} of {train.steps}"

    def one_step(self) -> tuple[Terms, dict[str, float]]:
        """One update of the weights; returns the loss terms and the step's settings."""
        train, step = self.train, self.step
        clock = Clock(step, train.steps, self.epoch_steps)
        beta, forcing = train.beta.value(clock), train.forcing.value(clock)
        rate = train.optimizer.lr * train.rate.value(clock)
        _, indices = batch_indices(len(self.windows), train.batch, train.seed, step)
        clip = self.windows.batch(indices, draw_strides(train.stride, len(indices), train.seed, step))
        clip = clip.to(self.device).unit()
        clip = augment(clip, train.augment, seeds.generator(train.seed, "augment", step))
        coins = draw_forcing(train.forcing, forcing, clip, train.seed, clock)
        noise = torch.randn(
            (clip.batch, len(clip) - 1, *self.model.latent_shape), generator=seeds.generator(train.seed, "noise", step)
        )
        self.model.train()
        unrolled = self.model(clip, train.context, coins, noise.to(self.device))
        terms = elbo(unrolled, clip.frames[:, 1:], beta, train.loss)
        self.optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.optimizer.clip_norm or math.inf)
        self._insist_finite(terms, norm, indices)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.average is not None:
            update_average(self.average, self.model, train.ema, step)
        return terms, {"beta": beta, "forcing": forcing, "lr": rate, "grad_norm": float(norm)}

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
        found = checkpoint.newest(self.run_path, say=print)
        if found is None:
            return
        found.load_into(self.model, "weights")
        if self.average is not None:
            found.load_into(self.average, "ema")
        checkpoint.unpack_optimizer(self.optimizer, found.tensors("optimizer"))
        self.step, self.best = found.step, found.state["best"]

    def _insist_finite(self, terms: Terms, norm: Tensor, indices: Tensor) -> None:
        if bool(torch.isfinite(terms.loss) & torch.isfinite(norm)):
            return
        parts = {"loss": terms.loss, "reconstruction": terms.reconstruction, "kl": terms.kl}
        wrong = [name for name, value in parts.items() if not torch.isfinite(value)] or ["gradient"]
        raise TrainingError(
            f"step {self.step}: not finite: {', '.join(wrong)}; clips {', '.join(self.windows.names(indices))}. "
            "The last checkpoint is unharmed; try a lower learning rate or --optimizer.clip-norm 1"
        )

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


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """One optimiser over all parameters; the labs' several with equal settings are the same mathematics."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.kind == "sgd":
        return torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=config.weight_decay)
    kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    return kind(parameters, config.lr, config.betas, weight_decay=config.weight_decay)


def draw_forcing(schedule: ForcingSchedule, probability: float, clip: Clip, seed: int, clock: Clock) -> Tensor:
    """Which steps are fed the true frame: (B, T-1) bool on the CPU, true with the given probability.

    Who shares a coin follows `schedule.coin`; one for an epoch is a function of the epoch alone.
    """
    shape = (clip.batch, len(clip) - 1)
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


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights; early steps move it faster, so that the start is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    current = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def _values(terms: Terms) -> dict[str, float]:
    """The terms as numbers for the log; `psnr` is of the training batch, whose z saw the answer."""
    values = {
        name: float(getattr(terms, name).detach())
        for name in ("loss", "reconstruction", "kl", "kl_nats", "active_units")
    }
    return {**values, "psnr": -10 * math.log10(max(float(terms.mse), 1e-10))}


def _latent(terms: Terms) -> str:
    """What the latent does, in a sentence; a collapsed posterior is said, since no score shows it."""
    if float(terms.kl_nats) < COLLAPSED_NATS:
        return (
            f"KL {float(terms.kl_nats):.4f} nats a frame: the posterior has collapsed, z carries nothing and the model "
            "is deterministic in effect; a lower beta gives z a part"
        )
    return f"KL {float(terms.kl_nats):.2f} nats a frame, {float(terms.active_units):.0f} latent units active"


def _note(terms: Terms, numbers: dict[str, float], best: dict[str, Any], rate: float) -> str:
    values = _values(terms)
    text = (
        f"loss {values['loss']:.4f} rec {values['reconstruction']:.4f} KL {values['kl_nats']:.2f} nats "
        f"active {values['active_units']:.0f} beta {numbers['beta']:.2g} forcing {numbers['forcing']:.2f} "
        f"train {values['psnr']:.1f} dB"
    )
    return f"{text} val {best['psnr']:.2f} dB {rate:.2f}/s" if best else f"{text} {rate:.2f}/s"


@contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Signals that ask to stop, collected: the step is finished and saved; a second one ends at once."""
    asked: list[str] = []

    def handle(number: int, _: object) -> None:
        name = signal.Signals(number)
        signal.signal(name, previous[name])
        asked.append(name.name)

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
