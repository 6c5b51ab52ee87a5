"""A model's `initial` and `step` as ONNX graphs for any number of clips."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from foreframe import seeds
from foreframe.clip import Clip, ClipSpec
from foreframe.models import Model
from foreframe.onnx.proto import NEXT, cut, describe, needed, quietly
from foreframe.rollout import map_state, prepare_for_inference

Graph = Literal["start", "context", "step"]


def graphs(model: Model, spec: ClipSpec, about: dict[str, Any]) -> dict[Graph, Any]:
    """The graphs as ONNX protos, `step` alone where the model has no state. Takes seconds for each.

    Args:
        model: From `prepare_for_inference`.
        spec: The clips it takes.
        about: Written into each, with the names of the state's tensors and the meaning of every input.
    """
    model = _contiguous(model)
    frame, cond, noise = random_step(spec, model.latent_shape, rows=3)
    target = frame.flip(0).contiguous()
    clip = Clip(frame[:, None], None if cond is None else cond[:, None])
    with torch.no_grad():
        state, _ = model.step(model.initial(clip, 1), frame, cond, noise, target, 1)
        # With tensors of its own: a model may keep a condition in its state.
        after, _ = model.step(state, frame.clone(), None if cond is None else cond.clone(), noise.clone())
    given, left = _flat(state), _flat(after)
    kept = [name for name in given if left[name] is given[name]]
    moved = [name for name in given if name not in kept]

    # Copies: the exporter takes two inputs that are one tensor for one input.
    values = {name: value.clone(memory_format=torch.contiguous_format) for name, value in given.items()}
    step = _traced(
        _Step(model, state, moved), {"frame": frame, "cond": cond, "noise": noise, "state": values}, ["frame", *moved]
    )
    used = needed(step, set())
    found: dict[Graph, Any] = {"step": step}
    if used:
        everything = {"frame": frame, "target": target, "cond": cond, "noise": noise, "state": values}
        found["context"] = _traced(_Context(model, state, kept), everything, list(given))
        used = needed(found["context"], used)
        found["start"] = _traced(_Start(model, state, kept), {"frame": frame, "cond": cond}, list(given))
        cut(found["start"], used)
    about = {**about, "latent_shape": list(model.latent_shape), "state": [name for name in given if name in used]}
    for graph, proto in found.items():
        describe(proto, graph, about)
    return found


class _Graph(nn.Module):
    """A function of tensors that uses a model.

    like: A state of the model, without numbers. names: Of the tensors of a state, those that come out or are kept.
    """

    def __init__(self, model: Model, state: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.like = map_state(state, lambda part: part.to("meta"))

    def filled(self, tensors: dict[str, Tensor]) -> Any:
        """The state of these tensors, in the order of `_flat`."""
        left = iter(tensors.values())
        return map_state(self.like, lambda _: next(left))


class _Step(_Graph):
    """The prediction step: the frame, and those parts of the state that it moves."""

    def forward(
        self, frame: Tensor, cond: Tensor | None, noise: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        after, step = self.model.step(self.filled(state), frame, cond, noise)
        left = _flat(after)
        return step.frame, *(left[name] for name in self.names)


class _Context(_Graph):
    """A step through the context, and a look at its target."""

    def forward(
        self, frame: Tensor, target: Tensor, cond: Tensor | None, noise: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        after, _ = self.model.step(self.filled(state), frame, cond, noise, target, 1)
        return _looked(self.model, after, target, cond, self.names)


class _Start(_Graph):
    """The state before the first step, and a look at frame 0."""

    def forward(self, frame: Tensor, cond: Tensor | None) -> tuple[Tensor, ...]:
        state = self.model.initial(Clip(frame[:, None], None if cond is None else cond[:, None]), 1)
        return _looked(self.model, state, frame, cond, self.names)


def _looked(model: Model, state: Any, frame: Tensor, cond: Tensor | None, kept: list[str]) -> tuple[Tensor, ...]:
    """A state that has looked at the last known frame.

    A model looks at it in the first step of prediction, with `context_left` 0. That step is taken here once, for what
    the steps after it keep as it is; all else that it computes is cut off afterwards.
    """
    noise = frame.new_zeros(frame.shape[0], *model.latent_shape)
    seen = _flat(model.step(state, frame, cond, noise, None, 0)[0])
    before = _flat(state)
    return tuple(seen[name] if name in kept or name not in before else before[name] for name in seen)


def _flat(state: Any, where: str = "state") -> dict[str, Tensor]:
    """The tensors of a state by name, such as `state.predictor.hidden` or `state.skip_terms.0`."""
    if isinstance(state, Tensor):
        return {where: state}
    found: dict[str, Tensor] = {}
    if isinstance(state, tuple):
        for name, part in zip(getattr(state, "_fields", range(len(state))), state, strict=True):
            found.update(_flat(part, f"{where}.{name}"))
    return found


def _contiguous(model: Model) -> Model:
    """With channels last, strides of unknown batches make the exporter three times as slow."""
    model = prepare_for_inference(model)
    untyped: Any = model  # torch's annotations know no memory_format
    untyped.to(memory_format=torch.contiguous_format)
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                setattr(module, name, value.contiguous())
    return model


def random_step(spec: ClipSpec, latent: tuple[int, ...], rows: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Frame, condition and noise of a step, for this many clips."""
    draw = seeds.generator(0, "onnx", rows)
    frame = torch.rand(rows, spec.channels, spec.height, spec.width, generator=draw)
    shape = (spec.cond_size,) if spec.cond == "vector" else (spec.cond_size, spec.height, spec.width)
    cond = None if spec.cond == "none" else torch.rand(rows, *shape, generator=draw)
    return frame, cond, torch.randn(rows, *latent, generator=draw)


def _traced(module: nn.Module, inputs: dict[str, Any], outputs: list[str]) -> Any:
    """A module's forward as an ONNX proto with named places and any batch."""
    batch = torch.export.Dim("batch", min=1)
    names: list[str] = []
    shapes: list[Any] = []
    for name, value in inputs.items():
        if isinstance(value, dict):
            names += value
            shapes.append({key: {0: batch} for key in value})
        else:
            names += [] if value is None else [name]
            shapes.append(None if value is None else {0: batch})
    with quietly(), torch.no_grad():
        # Strict: `len` of a tensor, which models use, is a number that is fixed for good in the other way of tracing.
        program = torch.export.export(module.eval(), tuple(inputs.values()), dynamic_shapes=tuple(shapes), strict=True)
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=[NEXT + name for name in outputs],
        )
    assert made is not None
    return made.model_proto
