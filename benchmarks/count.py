"""Work counted instead of timed: the same on every machine, so that a test can hold it down.

Three numbers of one forward and backward pass:

    FLOPs    of convolutions and matrix products, an addition and a multiplication counting as two
    kernels  operators that torch dispatches below autograd and that touch numbers: views, allocations and
             questions about shapes are left out; an operator of our own counts as one, as an LSTM does, and what
             it dispatches in its turn is counted apart
    bytes    kept from forward for backward: each storage once and whole, parameters left out
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from foreframe.clip import Clip, ClipSpec
from foreframe.losses import LossConfig, elbo

_aten = torch.ops.aten
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}


@dataclass(frozen=True)
class Work:
    """What one forward and backward pass takes, for the whole batch."""

    flops: int
    """Forward and backward."""
    forward_kernels: int
    backward_kernels: int
    inner_kernels: int
    """What our own operators, each counted as one kernel above, dispatched in their turn."""
    saved_bytes: int
    """Kept for backward when forward has ended."""

    @property
    def kernels(self) -> int:
        return self.forward_kernels + self.backward_kernels

    def per_clip(self, batch: int) -> dict[str, float]:
        """Plain values; FLOPs and bytes for one of `batch` clips, kernels for all of them."""
        return {
            **asdict(self),
            "kernels": self.kernels,
            "flops": self.flops / batch,
            "saved_bytes": self.saved_bytes / batch,
        }


def count(forward: Callable[[], Tensor], parameters: Sequence[Tensor] = ()) -> Work:
    """Run `forward` once and its backward once, and count.

    Args:
        forward: Gives the scalar to differentiate.
        parameters: Whose bytes are held anyway, and so are not counted as saved.
    """
    flops = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    held = {_storage(parameter) for parameter in parameters}
    saved: dict[int, Any] = {}  # the storages themselves, so that no freed one's number is used again

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in held:
            saved[_storage(tensor)] = tensor.untyped_storage()
        return tensor

    with flops:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), KernelCounter() as ahead:
            loss = forward()
        size = sum(storage.nbytes() for storage in saved.values())
        saved.clear()
        with KernelCounter() as back:
            loss.backward()
    return Work(flops.get_total_flops(), ahead.total, back.total, ahead.inner + back.inner, size)


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of one call; 0 where the work is not torch's."""
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as flops:
        run()
    return int(flops.get_total_flops())


def count_step(
    model: nn.Module,
    spec: ClipSpec,
    context: int = 2,
    horizon: int = 10,
    batch: int = 12,
    forcing: float = 1.0,
    compute: bool = False,
) -> Work:
    """Count one training step of a model, its loss included and its optimiser left out.

    Args:
        model: A fast model or a plain twin, in training mode; it is copied, not changed.
        spec: Of its clips.
        context: K.
        horizon: Frames after the context; T = context + horizon.
        batch: B, at least 2, since BatchNorm refuses a single number per channel.
        forcing: 1: the true frame is fed at every step, 0: the model's own; between, a draw for each clip and step.
        compute: Without it only shapes are followed: seconds at any width and batch, but nothing is seen of what our
            own operators do inside, nor of the scratch memory of an LSTM layer. With it the step is made, on the CPU.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with nullcontext() if compute else FakeCopyMode(fake):
        there = copy.deepcopy(model)
    clip, mask, noise = training_input(model, spec, context, horizon, batch, forcing, "cpu")
    if not compute:
        cond = None if clip.cond is None else fake.from_tensor(clip.cond)
        clip, noise = Clip(fake.from_tensor(clip.frames), cond), fake.from_tensor(noise)

    def forward() -> Tensor:
        return elbo(there(clip, context, mask, noise), clip.frames[:, 1:], 1e-4, LossConfig()).loss

    return count(forward, list(there.parameters()))


def training_input(
    model: Any,
    spec: ClipSpec,
    context: int,
    horizon: int,
    batch: int,
    forcing: float,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> tuple[Clip, Tensor, Tensor]:
    """(clip, mask, noise) for one training step: frames of noise, always the same; mask (B, T-1) on the CPU."""
    length = context + horizon
    draw = torch.Generator().manual_seed(0)
    frames = torch.rand(batch, length, spec.channels, spec.height, spec.width, generator=draw)
    cond = None
    if spec.cond != "none":
        shape = (spec.cond_size,) if spec.cond == "vector" else (spec.cond_size, spec.height, spec.width)
        cond = torch.rand(batch, length, *shape, generator=draw).to(device, dtype)
    mask = torch.rand(batch, length - 1, generator=draw) < forcing
    latent = latent_shape(model)
    noise = torch.randn(batch, length - 1, *latent, generator=draw)
    return Clip(frames.to(device, dtype), cond), mask, noise.to(device, dtype)


def latent_shape(model: Any) -> tuple[int, ...]:
    """Z... of a fast model, or of a plain twin of `svg`, which says it by its settings."""
    if hasattr(model, "latent_shape"):
        return tuple(model.latent_shape)
    return (model.config.z_dim if model.config.prior != "none" else 0,)


class KernelCounter(TorchDispatchMode):
    """Counts the operators dispatched inside it, by name in `counts`; see the module's text for which.

    `inner` is the number of those that operators which are not torch's own dispatch while they compute.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.inner = 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        computes = func.namespace != "prim" and not func.is_view and torch.Tag.inplace_view not in func.tags
        if computes and name not in _ALLOCATIONS:
            self.counts[name] += 1
        values = kwargs or {}
        if func.namespace in ("aten", "prim") or not all(_real_on_cpu(value) for value in args):
            return func(*args, **values)
        # Past the dispatcher, which would hand the operator to the counter inside before its parts.
        with KernelCounter() as inside:
            result = func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **values)
        self.inner += inside.total + inside.inner
        return result


def _real_on_cpu(value: Any) -> bool:
    return not isinstance(value, Tensor) or (value.device.type == "cpu" and not isinstance(value, FakeTensor))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _conv(
    x: Any, w: Any, bias: Any, stride: Any, pad: Any, dilation: Any, transposed: bool, *rest: Any, **kw: Any
) -> int:
    """Each place of the smaller side (the output; the input of a transposed one) meets the whole kernel once."""
    places = x if transposed else kw["out_shape"]
    return int(2 * x[0] * prod(places[2:]) * prod(w))


def _conv_backward(
    grad: Any, x: Any, w: Any, bias: Any, stride: Any, pad: Any, dilation: Any, transposed: bool, *rest: Any, **kw: Any
) -> int:
    """As much as forward for the input's gradient and for the weight's, where they are wanted.

    Torch's own formula counts the weight's gradient of a grouped convolution as if it had no groups.
    """
    mask = rest[2]
    places = x if transposed else grad
    return int(2 * x[0] * prod(places[2:]) * prod(w) * (bool(mask[0]) + bool(mask[1])))


def _mkldnn_lstm(x: Any, w_in: Any, w_hidden: Any, *rest: Any, **kw: Any) -> int:
    return int(2 * prod(x[:-1]) * (prod(w_in) + prod(w_hidden)))


def _cudnn_lstm(x: Any, weights: Any, *rest: Any, **kw: Any) -> int:
    return int(2 * prod(x[:-1]) * sum(prod(shape) for shape in weights if len(shape) == 2))


_FORMULAS = {
    _aten.convolution: _conv,
    _aten.convolution_backward: _conv_backward,
    _aten.mkldnn_rnn_layer: _mkldnn_lstm,
    _aten.mkldnn_rnn_layer_backward: lambda *shapes, **kw: 2 * _mkldnn_lstm(*shapes, **kw),
    _aten._cudnn_rnn: _cudnn_lstm,
    _aten._cudnn_rnn_backward: lambda *shapes, **kw: 2 * _cudnn_lstm(*shapes, **kw),
}
