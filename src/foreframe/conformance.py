"""The contract of `foreframe.models.Model` as checks that run on any model, a user's own too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreframe import models
from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError
from foreframe.models import Model
from foreframe.rollout import ModeName, predict

SPECS = (ClipSpec(3, 64, 64, "vector", 3), ClipSpec(3, 32, 64, "image", 3), ClipSpec(3, 64, 64))
"""The usual clips; a model takes one of these kinds at least."""
CLIPS, CONTEXT, LENGTH, LONG = 2, 2, 5, 12
RTOL, ATOL = 1e-4, 2e-5
"""Within these, frames count as equal: sums in another order differ by rounding."""


def check_model(config: Any, spec: ClipSpec | None = None) -> list[str]:
    """Where a model breaks the contract, a sentence each; an empty list if it holds.

    config: the model's `Config`, best of small sizes; or the path of a user's file, which is run, and whose `Config()`
    is made small. spec: the clips; None: each of `SPECS` that the model takes.
    """
    if isinstance(config, str | Path):
        config = small(models.run_file(Path(config)).module.Config())
    if spec is not None:
        return _violations(config, spec)
    found: list[str] = []
    refused: list[str] = []
    for each in SPECS:
        try:
            models.build_on_meta(config, each)
        except ConfigError as error:
            refused.append(str(error))
        else:
            found += [f"{each}: {sentence}" for sentence in _violations(config, each)]
    if len(refused) == len(SPECS):
        return [f"clips: expected at least one of the usual kinds to be taken, found none: {'; '.join(refused)}"]
    return found


def small(config: Any) -> Any:
    """A configuration made quick: every whole number of 32 or more is divided by 8."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return replace(config, **{name: value // 8 for name, value in values.items() if value in range(32, 10_000)})


def _violations(config: Any, spec: ClipSpec) -> list[str]:
    found: list[str] = []
    for check in CHECKS:
        try:
            found += check(Case.of(config, spec))
        except Exception as error:  # whatever a model raises is a violation of its own
            name = check.__name__.removeprefix("check_").replace("_", " ")
            found.append(f"{name}: expected no error, found {type(error).__name__}: {error}")
    return found


@dataclass(frozen=True)
class Case:
    """A model in eval mode, with clips to try it on and noise for three samples of each."""

    model: Model
    clip: Clip
    noise: Tensor

    @classmethod
    def of(cls, config: Any, spec: ClipSpec) -> Case:
        """The model after two passes in training mode, by which BatchNorm's statistics leave their start."""
        draws = torch.Generator().manual_seed(1)
        shape = (CLIPS, LONG, spec.channels, spec.height, spec.width)
        sides = {"none": None, "vector": (), "image": (spec.height, spec.width)}[spec.cond]
        cond = None if sides is None else torch.rand(*shape[:2], spec.cond_size, *sides, generator=draws)
        clip = Clip(torch.rand(shape, generator=draws), cond)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = models.build(config, spec)
            noise = torch.randn(3 * CLIPS, LONG - 1, *model.latent_shape, generator=draws)
            for _ in range(2):
                model(clip.window(0, LENGTH), CONTEXT, _mask(True), noise[:CLIPS, : LENGTH - 1])
        return cls(model.eval(), clip, noise)

    def rolled(
        self, clip: Clip | None = None, noise: Tensor | None = None, length: int = LENGTH, mode: ModeName = "prediction"
    ) -> Tensor:
        """Frames K .. length-1; by default of the case's own clips, and one sample of each."""
        clip = (clip or self.clip).window(0, length)
        noise = self.noise[:CLIPS] if noise is None else noise
        truth = None if mode == "prediction" else clip.frames
        return predict(self.model, clip.frames[:, :CONTEXT], clip.cond, noise[:, : length - 1], mode, truth)

    def trained(self, forcing: Tensor) -> Tensor:
        """Frames K .. T-1 of `forward`."""
        with torch.no_grad():
            out = self.model(self.clip.window(0, LENGTH), CONTEXT, forcing, self.noise[:CLIPS, : LENGTH - 1])
        frames: Tensor = out.frames[:, CONTEXT - 1 :]
        return frames


def _mask(value: bool) -> Tensor:
    return torch.full((CLIPS, LENGTH - 1), value)


def _unlike(what: str, found: Tensor, expected: Tensor) -> Iterator[str]:
    if found.shape != expected.shape:
        yield f"{what}: expected frames {tuple(expected.shape)}, found {tuple(found.shape)}"
    elif not torch.allclose(found, expected, RTOL, ATOL):
        most = float((found - expected).abs().max())
        yield f"{what}: expected equal frames (within {ATOL:g}), found a difference of {most:.3g}"


def check_outputs(case: Case) -> Iterator[str]:
    """Shapes, and pixels in [0, 1]."""
    model, clip = case.model, case.clip.window(0, LENGTH)
    with torch.no_grad():
        out = model(clip, CONTEXT, _mask(False), case.noise[:CLIPS, : LENGTH - 1])
    expected = tuple(clip.frames[:, 1:].shape)
    if tuple(out.frames.shape) != expected:
        yield f"forward: expected frames 1 .. T-1, {expected}, found {tuple(out.frames.shape)}"
    low, high = float(out.frames.min()), float(out.frames.max())
    if not 0 <= low <= high <= 1:
        yield f"forward: expected pixels in [0, 1], found {low:.3g} to {high:.3g}"
    if (out.prior is None) != (out.posterior is None):
        yield "forward: expected both prior and posterior or neither, found one of them"
    expected = (CLIPS, LENGTH - 1, *model.latent_shape)
    for name, part in (("prior", out.prior), ("posterior", out.posterior)):
        if part is not None and not tuple(part.mean.shape) == tuple(part.logvar.shape) == expected:
            yield f"forward: expected the {name}'s mean and logvar as latent_shape says, {expected}, found " + (
                f"{tuple(part.mean.shape)} and {tuple(part.logvar.shape)}"
            )


def check_single_clips(case: Case) -> Iterator[str]:
    """A batch gives what single clips give."""
    together = case.rolled()
    for i in range(CLIPS):
        rows = slice(i, i + 1)
        one = Clip(case.clip.frames[rows], None if case.clip.cond is None else case.clip.cond[rows])
        yield from _unlike(f"clip {i} alone and in a batch", case.rolled(one, case.noise[rows])[0], together[i])


def check_samples(case: Case) -> Iterator[str]:
    """Samples of a clip, rolled out together, are what they are one by one."""
    together = case.rolled(noise=case.noise).unflatten(0, (3, CLIPS))
    for number, frames in enumerate(together):
        alone = case.rolled(noise=case.noise[CLIPS * number : CLIPS * (number + 1)])
        yield from _unlike(f"sample {number} alone and among three", frames, alone)


def check_condition(case: Case) -> Iterator[str]:
    """The condition of a frame changes that frame, and none before it."""
    if case.clip.cond is None:
        return
    before = case.rolled()
    for t in range(CONTEXT, LENGTH):
        cond = case.clip.cond.clone()
        cond[:, t] = 1 - cond[:, t]
        changed = (case.rolled(Clip(case.clip.frames, cond)) - before).abs().flatten(2).amax((0, 2)) > 0
        if changed[: t - CONTEXT].any():
            first = CONTEXT + int(changed.nonzero()[0])
            yield f"cond[:, {t}]: expected it to leave frames before {t} alone, found frame {first} changed"
        if not changed[t - CONTEXT]:
            yield f"cond[:, {t}]: expected it to change frame {t}, found that frame unchanged"


def check_unseen_frames(case: Case) -> Iterator[str]:
    """Prediction never looks at the frames it predicts."""
    spoilt = case.clip.frames.clone()
    spoilt[:, CONTEXT:] = 1 - spoilt[:, CONTEXT:]
    if not torch.equal(case.rolled(Clip(spoilt, case.clip.cond)), case.rolled()):
        yield "prediction: expected it not to depend on the frames it predicts, found that it does"


def check_forcing(case: Case) -> Iterator[str]:
    """`forward` and the rollout agree, and each clip follows its own row of the forcing mask."""
    forced, free = case.trained(_mask(True)), case.trained(_mask(False))
    yield from _unlike("forcing of ones and the teacher-forced rollout", forced, case.rolled(mode="teacher-forced"))
    yield from _unlike("forcing of zeros and the reconstruction", free, case.rolled(mode="reconstruction"))
    mixed = case.trained(torch.tensor([[True], [False]]).expand(-1, LENGTH - 1))
    yield from _unlike("a forced clip beside a free one", mixed[0], forced[0])
    yield from _unlike("a free clip beside a forced one", mixed[1], free[1])


def check_long_rollout(case: Case) -> Iterator[str]:
    """A rollout continues beyond the trained length."""
    frames = case.rolled(length=LONG)
    if frames.shape[1] != LONG - CONTEXT:
        yield f"a rollout over {LONG} frames: expected {LONG - CONTEXT} predicted frames, found {frames.shape[1]}"


def check_repeatable(case: Case) -> Iterator[str]:
    """A model draws nothing and remembers nothing: noise and state are values that go in and come out."""
    first = case.rolled()
    torch.rand(1)
    if not torch.equal(case.rolled(), first):
        yield "a rollout taken twice: expected the same frames, found others; noise and state come from outside alone"


def check_gradients(case: Case) -> Iterator[str]:
    """Every parameter learns."""
    model = case.model.train()
    out = model(case.clip.window(0, LENGTH), CONTEXT, _mask(False), case.noise[:CLIPS, : LENGTH - 1])
    loss = out.frames.square().mean()
    if out.posterior is not None and out.prior is not None:
        loss = loss + sum(part.square().mean() for part in (*out.posterior, *out.prior))
    if out.state_error is not None:
        loss = loss + out.state_error
    loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    if idle:
        yield f"parameters: expected a gradient for each, found none for {', '.join(idle)}"


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    *(check_outputs, check_single_clips, check_samples, check_condition, check_unseen_frames, check_forcing),
    *(check_long_rollout, check_repeatable, check_gradients),
)
