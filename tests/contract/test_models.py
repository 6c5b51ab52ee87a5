"""The contract of `foreframe.models.Model`: every model in the package holds it, and each violation is found."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from foreframe import conformance, models
from foreframe.clip import Clip, ClipSpec
from foreframe.conformance import CHECKS, SPECS, Case, check_model, small
from foreframe.errors import ConfigError
from foreframe.gaussian import Gaussian
from foreframe.nn.condition import Standardize
from foreframe.unrolled import Step, Unrolled


def accepted() -> list[tuple[str, ClipSpec]]:
    found = []
    for name in models.names():
        for spec in SPECS:
            try:
                models.build_on_meta(small(models.module(name).Config()), spec)
            except ConfigError:
                continue
            found.append((name, spec))
    assert {name for name, _ in found} == set(models.names()), "a model takes none of the usual clips"
    return found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "spec"), accepted(), ids=lambda part: part if isinstance(part, str) else part.cond)
def test_every_model_holds_the_contract(name, spec, check):
    assert list(check(Case.of(small(models.module(name).Config()), spec))) == []


# ---------------------------------------------------------------- a model that breaks one promise at a time


@dataclass(frozen=True)
class Config:
    """breaks: the promise not to keep."""

    breaks: str = ""


class Model(models.Model):
    """Last frame, condition and z, mixed; vectors as condition only."""

    def __init__(self, config: Config, spec: ClipSpec) -> None:
        super().__init__()
        if spec.cond != "vector" or config.breaks == "clips":
            raise ConfigError(f"vectors only, these clips are {spec}")
        self.breaks, self.latent_shape = config.breaks, (2,)
        self.standardise = Standardize(spec.cond_size)
        self.mix = nn.Linear(2 + spec.cond_size, spec.channels)
        self.posterior = nn.Linear(spec.channels, 4)
        if config.breaks == "idle":
            self.unused = nn.Parameter(torch.ones(1))
        self.calls = 0

    def initial(self, clip: Clip, context: int) -> tuple[torch.Tensor, ...]:
        if self.breaks == "raises":
            raise KeyError("no such thing")
        return (clip.cond[:, -1] if self.breaks == "reaches back" else clip.cond[:, 0],)

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        self.calls += self.breaks == "remembers"
        rows = len(noise)
        prior, posterior = Gaussian.standard_like(noise), None
        if target is not None:
            posterior = Gaussian.bounded(*self.posterior(target.mean((2, 3))).chunk(2, 1))
        z = (posterior or prior).sample(noise)
        if self.breaks == "draws":
            z = z + torch.randn_like(z)
        given = 0 * cond if self.breaks == "deaf" else cond
        mixed = self.mix(torch.cat([z, self.standardise(given)], 1)) + state[0].mean(1, keepdim=True) * 0
        if self.breaks == "mixes clips":
            mixed = mixed + mixed.mean(0)
        if self.breaks == "mixes samples" and rows > 2:
            mixed = mixed + 1
        shown = torch.sigmoid(mixed[:, :, None, None] + frame + self.calls)
        return state, Step(2 * shown if self.breaks == "range" else shown, z, prior, posterior)

    def forward(self, clip, context, forcing, noise, free_running=None):
        steps, state = [], self.initial(clip, context)
        for t in range(1, len(clip)):
            fed = clip.frames[:, t - 1]
            if t > context and self.breaks != "always forced":
                keep = forcing[:1] if self.breaks == "one coin" else forcing
                fed = torch.where(keep[:, t - 1, None, None, None], fed, steps[-1].frame)
            state, step = self.step(state, fed, clip.cond[:, t], noise[:, t - 1], clip.frames[:, t], context - t)
            steps.append(step)
        out = Unrolled.of(steps)
        if self.breaks == "shape":
            return Unrolled(out.frames[:, 1:], out.prior, out.posterior)
        if self.breaks == "latent":
            return Unrolled(out.frames, out.prior, Gaussian(out.posterior.mean[..., :1], out.posterior.logvar[..., :1]))
        return Unrolled(out.frames, None, out.posterior) if self.breaks == "half" else out


@pytest.mark.parametrize(
    ("breaks", "sentence"),
    [
        ("shape", "forward: expected frames 1 .. T-1, (2, 4, 3, 64, 64), found (2, 3, 3, 64, 64)"),
        ("range", "forward: expected pixels in [0, 1], found "),
        ("half", "forward: expected both prior and posterior or neither, found one of them"),
        ("latent", "forward: expected the posterior's mean and logvar as latent_shape says, (2, 4, 2), found "),
        ("mixes clips", "clip 0 alone and in a batch: expected equal frames (within 2e-05), found a difference of "),
        ("mixes samples", "sample 0 alone and among three: expected equal frames (within 2e-05), found a difference "),
        ("deaf", "cond[:, 2]: expected it to change frame 2, found that frame unchanged"),
        ("always forced", "forcing of zeros and the reconstruction: expected equal frames (within 2e-05), found a "),
        ("one coin", "a free clip beside a forced one: expected equal frames (within 2e-05), found a difference of "),
        ("draws", "a rollout taken twice: expected the same frames, found others; noise and state come from outside"),
        ("remembers", "a rollout taken twice: expected the same frames, found others; noise and state come from outsi"),
        ("idle", "parameters: expected a gradient for each, found none for unused"),
        ("raises", "outputs: expected no error, found KeyError: 'no such thing'"),
    ],
)
def test_a_broken_promise_is_one_sentence(breaks, sentence, figure):
    found = check_model(Config(breaks), SPECS[0])
    assert [line for line in found if line.startswith(sentence)], found
    figure("broken promises of a model found", 1, 1)


def test_a_model_that_holds_the_contract_is_left_alone_and_one_that_takes_no_clips_is_not():
    assert check_model(Config()) == []
    (sentence,) = check_model(Config("clips"))
    assert sentence.startswith("clips: expected at least one of the usual kinds to be taken, found none: ")


def test_a_condition_that_reaches_back_and_frames_that_are_looked_at_are_found(monkeypatch):
    case = Case.of(Config(), SPECS[0])
    real = Case.rolled

    def cheats(self, clip=None, *arguments, **named):
        frames = real(self, clip, *arguments, **named).clone()
        clip = clip or self.clip
        return frames + clip.cond[:, 4].mean() + clip.frames[:, 4].mean()

    monkeypatch.setattr(Case, "rolled", cheats)
    found = [*conformance.check_condition(case), *conformance.check_unseen_frames(case)]
    assert "cond[:, 4]: expected it to leave frames before 4 alone, found frame 2 changed" in found
    assert "prediction: expected it not to depend on the frames it predicts, found that it does" in found


def test_a_file_of_a_user_is_checked_as_it_is(tmp_path):
    source = inspect.getsource(inspect.getmodule(Config))
    head, tail = source.split("# -----", 1)
    file = tmp_path / "mine.py"
    imports = [line for line in head.splitlines() if line.startswith(("from", "import")) and "pytest" not in line]
    body = tail.partition("\n")[2].partition("@pytest")[0]
    file.write_text("\n".join([*imports, body]))
    assert check_model(file, SPECS[0]) == []
