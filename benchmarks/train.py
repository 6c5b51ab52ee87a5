"""A training step: the plain loop over time against the fast models, one step of Adam included."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from tests.reference.plain import Encode, plain_model, twin_gradients
from torch import Tensor, nn

from benchmarks.count import Work, count_step, training_input
from benchmarks.measure import Candidate, Precision, compare
from benchmarks.suites import BenchContext, Suite
from foreframe import models
from foreframe.clip import ClipSpec
from foreframe.losses import LossConfig, Terms, elbo
from foreframe.models.svg import Config
from foreframe.training.graphs import Recorder
from foreframe.training.state import compile_parts
from foreframe.unrolled import free_running_steps

CONTEXT, HORIZON, BATCH, LARGE_BATCH = 2, 10, 12, 100
BETA, RATE = 1e-4, 2e-3
TINY: dict[str, Any] = {"width": 4, "g_dim": 8, "z_dim": 4, "rnn_size": 8}
"""Sizes of a rehearsal."""


@dataclass(frozen=True)
class Case:
    """What is trained on. `forcing` is the share of true frames fed; `encode` is how often the plain code encodes."""

    name: str
    config: Config
    spec: ClipSpec
    forcing: float
    batch: int = BATCH
    horizon: int = HORIZON
    encode: Encode = "twice"

    @property
    def frames(self) -> int:
        """Predicted in one step."""
        return self.batch * (CONTEXT + self.horizon - 1)


def cases(device: torch.device, quick: bool) -> list[Case]:
    """SVG with its learned prior, and the labs' training: a fixed prior, seven numbers as condition."""
    found: list[Case] = []
    for backbone in ("dcgan", "vgg"):
        svg = Config(backbone=backbone, prior="learned", skip="svg")
        lab = Config(backbone=backbone, prior="fixed", skip="svg", predictor_norm=True)
        for feed, forcing in (("teacher-forced", 1.0), ("free-running", 0.0), ("mixed", 0.5)):
            found.append(Case(f"svg {backbone} {feed}", svg, ClipSpec(3, 64, 64), forcing))
        for feed, forcing in (("teacher-forced", 1.0), ("free-running", 0.0)):
            found.append(Case(f"lab {backbone} {feed}", lab, ClipSpec(3, 64, 64, "vector", 7), forcing, encode="once"))
    if device.type == "cuda":
        forced = next(case for case in found if case.name == "svg vgg teacher-forced")
        found.append(replace(forced, name=f"{forced.name} batch {LARGE_BATCH}", batch=LARGE_BATCH))
    if device.type == "cpu":
        # Minutes for each round, and no goal is of these.
        found = [case for case in found if case.name not in ("svg vgg mixed", "svg vgg free-running")]
    if not quick:
        return found
    tiny = [case for case in found if case.config.backbone == "dcgan" or case.forcing == 1.0]
    return [replace(case, config=replace(case.config, **TINY), batch=2, horizon=3) for case in tiny]


@dataclass(frozen=True)
class Variant:
    """A way to make a training step. A new row of every race is a new entry of `WAYS`."""

    name: str
    plain: bool = False
    """The plain twin, in torch's usual memory layout, with Adam as torch makes it by default; else the fast model."""
    precision: Precision = "float32"
    """bfloat16: matrix products and convolutions under autocast, as `--precision bf16` trains."""
    compile: bool = False
    """As `--compile` trains."""
    graphs: bool = False
    """As `--graphs` trains."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    """Where the way is tried."""


WAYS = (
    Variant("plain", plain=True),
    Variant("fast"),
    Variant("fast recorded", graphs=True, devices=("cuda",)),
    Variant("fast bf16", precision="bfloat16", devices=("cuda",)),
    Variant("fast bf16 recorded", precision="bfloat16", graphs=True, devices=("cuda",)),
    Variant("fast bf16 compiled", precision="bfloat16", compile=True, devices=("cuda",)),
    Variant("fast bf16 compiled and recorded", precision="bfloat16", compile=True, graphs=True, devices=("cuda",)),
)
"""The first is what the others are compared with."""


def run(setting: BenchContext) -> Suite:
    """Races of all cases, work counted for each, and how far fast and plain differ in float64."""
    suite = Suite()
    suite.checks["exact"] = exactness()
    for case in cases(setting.device, setting.quick):
        model = build(case).train()
        counted = _count(case, model)
        suite.counted += [{"case": case.name, "way": name, **work} for name, work in counted.items()]
        try:
            suite.races.append(_race(case, model, counted, setting))
        except torch.OutOfMemoryError:
            suite.leave_out(case.name, f"does not fit into the memory of {torch.cuda.get_device_name(setting.device)}")
    return suite


def _race(case: Case, model: nn.Module, counted: dict[str, dict[str, float]], setting: BenchContext) -> dict[str, Any]:
    first_kl: dict[str, float] = {}
    candidates = []
    for way in WAYS:
        if setting.device.type not in way.devices:
            continue
        step = make_step(way, case, model, setting.device)
        first_kl[way.name] = float(step().kl_nats)
        flops = counted["plain" if way.plain else "fast"]["flops"] * case.batch
        candidates.append(Candidate(way.name, step, flops, case.frames, way.precision))
    found = compare(case.name, candidates, setting.device, setting.rounds, setting.advance)
    return {**found, "batch": case.batch, "first_kl_nats": first_kl}


def build(case: Case) -> nn.Module:
    """The fast model of a case, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = models.build(case.config, case.spec)
    return model


def make_step(way: Variant, case: Case, model: nn.Module, device: torch.device) -> Callable[[], Terms]:
    """One training step as a call: forward, loss, backward, Adam. The model's weights are copied first."""
    own = (plain_model(model, case.encode) if way.plain else copy.deepcopy(model)).to(device)
    if way.compile:
        compile_parts(own)
    adam = torch.optim.Adam(own.parameters(), RATE, fused=None if way.plain else True, capturable=way.graphs)
    clip, mask, noise = training_input(model, case.spec, CONTEXT, case.horizon, case.batch, case.forcing, device)
    target, fed_back_at = (
        clip.frames[:, 1:],
        {} if way.plain else {"free_running": free_running_steps(mask, CONTEXT)},
    )
    mask = mask if way.plain else mask.to(device)

    def step() -> Terms:
        adam.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=way.precision == "bfloat16"):
            unrolled = own(clip, CONTEXT, mask, noise, **fed_back_at)
        terms = elbo(unrolled, target, BETA, LossConfig())
        terms.loss.backward()
        adam.step()
        return terms

    if way.graphs:
        recorder = Recorder(lambda *_: step())
        return lambda: recorder(way.name, ())
    return step


def exactness() -> list[dict[str, Any]]:
    """How far a fast step is from the plain one in float64, at small widths: loss and gradient, relative.

    The gradient's number is the length of the difference of all gradients over the length of the plain ones.
    """
    found = []
    for backbone in ("dcgan", "vgg"):
        for prior in ("learned", "fixed"):
            for feed, forcing in (("teacher-forced", 1.0), ("free-running", 0.0), ("mixed", 0.5)):
                config = Config(backbone=backbone, prior=prior, skip="svg", **TINY)
                case = Case(feed, config, ClipSpec(3, 64, 64, "vector", 2), forcing, batch=3, horizon=3)
                loss, gradient = difference(build(case).double().train(), case)
                found.append({"backbone": backbone, "prior": prior, "feed": feed, "loss": loss, "gradient": gradient})
    return found


def difference(model: nn.Module, case: Case) -> tuple[float, float]:
    """(loss, gradient): how far the model's step is from its plain twin's, relative; in the model's own precision."""
    twin = plain_model(model, case.encode)
    like = next(model.parameters())
    given = training_input(model, case.spec, CONTEXT, case.horizon, case.batch, case.forcing, like.device, like.dtype)
    losses = [_backward(each, *given) for each in (model, twin)]
    plain = twin_gradients(twin)
    fast = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    apart = torch.stack([(fast[name] - plain[name]).square().sum() for name in plain]).sum()
    whole = torch.stack([value.square().sum() for value in plain.values()]).sum()
    return abs(float(losses[0] / losses[1]) - 1), float((apart / whole).sqrt())


def _backward(model: nn.Module, clip: Any, mask: Tensor, noise: Tensor) -> Tensor:
    loss = elbo(model(clip, CONTEXT, mask, noise), clip.frames[:, 1:], BETA, LossConfig()).loss
    loss.backward()
    return loss.detach()


def _count(case: Case, model: nn.Module) -> dict[str, dict[str, float]]:
    """Work of a step of the plain and of the fast model, for each clip; kernels for the batch, as a CPU dispatches."""
    narrow = build(replace(case, config=replace(case.config, **TINY))).train()
    found = {}
    for name, each, small in (
        ("plain", plain_model(model, case.encode), plain_model(narrow, case.encode)),
        ("fast", model, narrow),
    ):
        work: Work = count_step(each, case.spec, CONTEXT, case.horizon, case.batch, case.forcing)
        # Only a step that is made shows what our own operators do, and that does not depend on the width.
        made = count_step(small, case.spec, CONTEXT, case.horizon, 2, case.forcing, compute=True)
        found[name] = {**work.per_clip(case.batch), "inner_kernels": made.inner_kernels}
    return found
