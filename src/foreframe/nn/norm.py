"""Normalisation of maps that hold several time steps at once, and the LeakyReLU that follows it.

SVG normalises over the clips of ONE time step; statistics of all steps together would be other mathematics (gradients
differ by 7 %). So each step keeps its own, and the running ones, used in eval mode, are moved chronologically:

    y[t] = leaky_relu(weight * (x[t] - mean[t]) / sqrt(var[t] + eps) + bias),   mean[t], var[t] over B, H, W
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, all_reduce
from torch.nn import functional

from foreframe.errors import ConfigError

NormKind = Literal["step", "batch", "group"]
"""step: statistics of each time step, as SVG has it. batch: of all steps that are worked on together.
group: GroupNorm, of each picture alone, the same in training and in use."""

EPS = 1e-5
MOMENTUM = 0.1
GROUP = 16
"""Channels of a group at most, with `group`."""


class StepNorm(nn.Module):
    """See the module's text. Takes maps (T*B, C, H, W) or vectors (T*B, C), time first."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, kind: NormKind = "step") -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if kind != "group":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))
        self.group: ProcessGroup | None = None

    def forward(self, maps: Tensor, steps: int = 1, slope: float = 1.0) -> Tensor:
        """Normalised and rectified: negative values are multiplied by `slope`, 1 leaves them alone."""
        if self.kind == "group":
            groups = max(1, self.weight.numel() // GROUP)
            return _rectified(functional.group_norm(maps, groups, self.weight, self.bias, EPS), slope)
        if not self.training:
            maps = functional.batch_norm(
                maps, self.running_mean, self.running_var, self.weight, self.bias, False, MOMENTUM, EPS
            )
            return _rectified(maps, slope)
        if self.kind == "batch":
            steps = 1
        if maps.numel() < 2 * steps * self.weight.numel() and self.group is None:
            raise ConfigError(
                "BatchNorm needs at least 2 clips in a batch, or in a part of it, to train; give more with --batch, or "
                "use --model.norm group"
            )
        if self.group is not None or torch.compiler.is_compiling():
            return _rectified(self._by_formula(maps, steps), slope)
        normed: Tensor
        normed, mean, var, _ = step_norm(maps, self.weight, self.bias, steps, EPS, slope)
        move_running(self.running_mean, self.running_var, mean.detach(), var.detach())
        return normed

    def _by_formula(self, maps: Tensor, steps: int) -> Tensor:
        """In operations that a compiler fuses, and that can be taken over the clips of all processes."""
        values = wide(maps).unflatten(0, (steps, -1))
        over = [1, *range(3, values.ndim)]
        count = values.numel() // (steps * values.shape[2])
        if self.group is None:
            var, mean = torch.var_mean(values, over, correction=0, keepdim=True)
        else:
            count *= self.group.size()
            mean = _Mean.apply(values.mean(over, keepdim=True), self.group)
            var = _Mean.apply((values - mean).square().mean(over, keepdim=True), self.group)
        unbiased = var.flatten(1) * (count / max(1, count - 1))
        move_running(self.running_mean, self.running_var, mean.flatten(1).detach(), unbiased.detach())
        shape = (-1, *[1] * (values.ndim - 3))
        scale = self.weight.view(shape) * torch.rsqrt(var + EPS)
        normed: Tensor = (values - mean) * scale + self.bias.view(shape)
        return normed.flatten(0, 1).to(maps.dtype)


class _Mean(torch.autograd.Function):
    """The mean over the processes of a group; so is its gradient, since each process has its share of the loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _mean_over(values, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _mean_over(grad, ctx.group), None


def _mean_over(values: Tensor, group: ProcessGroup) -> Tensor:
    values = values.clone(memory_format=torch.contiguous_format)
    all_reduce(values, group=group)
    return values / group.size()


class Folded(nn.Module):
    """The rectifier of a `StepNorm` whose scale and shift the layer before it has taken over."""

    def forward(self, maps: Tensor, steps: int = 1, slope: float = 1.0) -> Tensor:
        return _rectified(maps, slope)


@torch.no_grad()
def fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module | None) -> nn.Module | None:
    """Scale and shift a convolution as `norm`, which follows it, does in eval mode; returns the rest of `norm`."""
    if not isinstance(norm, StepNorm) or norm.kind == "group" or conv.bias is None:
        return norm
    scale = norm.weight * torch.rsqrt(norm.running_var + EPS)
    conv.weight.mul_(scale.view((1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)))
    conv.bias.copy_(conv.bias * scale + (norm.bias - scale * norm.running_mean))
    return Folded()


def synchronize(model: nn.Module, group: ProcessGroup | None) -> None:
    """Take statistics over the clips of all processes of a group, equally many each; None: over one's own."""
    for module in model.modules():
        if isinstance(module, StepNorm):
            module.group = group


def wide(values: Tensor) -> Tensor:
    """In float32 at least: what must not be rounded to bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _rectified(maps: Tensor, slope: float) -> Tensor:
    return maps if slope == 1.0 else functional.leaky_relu(maps, slope)


@torch.library.custom_op("foreframe::step_norm", mutates_args=())
def step_norm(
    maps: Tensor, weight: Tensor, bias: Tensor, steps: int, eps: float, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The layer in training; gives also mean, unbiased variance and 1 / sqrt(var + eps) of each step, (T, C).

    Step by step: the maps of one stay in the processor's cache while they are measured, normalised and rectified.
    """
    out = torch.empty_like(maps)
    means, rates = (weight.new_empty(steps, weight.numel()) for _ in range(2))
    for source, target, mean, rate in zip(maps.chunk(steps), out.chunk(steps), means, rates, strict=True):
        torch.ops.aten.native_batch_norm.out(
            source, weight, bias, None, None, True, 0.0, eps,
            out=target, save_mean=mean, save_invstd=rate,
        )  # fmt: skip
        if slope != 1.0:
            functional.leaky_relu_(target, slope)
    count = maps.numel() // means.numel()
    unbiased = (rates**-2 - eps).clamp_(min=0).mul_(count / max(1, count - 1))
    return out, means, unbiased, rates


@torch.library.custom_op("foreframe::move_running", mutates_args=("running_mean", "running_var"))
def move_running(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor) -> None:
    """Move running statistics (C,) by those of T steps (T, C), one after another: of each a share is left."""
    later = torch.arange(len(mean) - 1, -1, -1, dtype=mean.dtype, device=mean.device)
    shares = MOMENTUM * (1 - MOMENTUM) ** later
    for running, values in ((running_mean, mean), (running_var, var)):
        running.addmv_(values.t(), shares, beta=(1 - MOMENTUM) ** len(mean))


@torch.library.custom_op("foreframe::step_norm_backward", mutates_args=())
def step_norm_backward(
    grad: Tensor, maps: Tensor, out: Tensor, weight: Tensor, means: Tensor, rates: Tensor, eps: float, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of maps, weight and bias, again step by step."""
    grad_maps = torch.empty_like(maps)
    grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
    steps = len(means)
    parts = zip(
        grad.chunk(steps), maps.chunk(steps), out.chunk(steps), grad_maps.chunk(steps), means, rates, strict=True
    )
    for above, source, rectified, target, mean, rate in parts:
        if slope != 1.0:
            # A rectified value has the sign of the value it was made from.
            above = torch.ops.aten.leaky_relu_backward(above, rectified, slope, True)
        found, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            above, source, weight, None, None, mean, rate, True, eps, [True, True, True]
        )
        if steps == 1:
            return found, of_weight, of_bias
        target.copy_(found)
        grad_weight += of_weight
        grad_bias += of_bias
    return grad_maps, grad_weight, grad_bias


@step_norm.register_fake
def _(maps, weight, bias, steps, eps, slope):  # type: ignore[no-untyped-def]
    return torch.empty_like(maps), *(weight.new_empty(steps, weight.numel()) for _ in range(3))


@move_running.register_fake
def _(running_mean, running_var, mean, var):  # type: ignore[no-untyped-def]
    return None


@step_norm_backward.register_fake
def _(grad, maps, out, weight, means, rates, eps, slope):  # type: ignore[no-untyped-def]
    return torch.empty_like(maps), torch.empty_like(weight), torch.empty_like(weight)


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    maps, weight, _, _, ctx.eps, ctx.slope = inputs
    ctx.save_for_backward(maps, output[0], weight, output[1], output[3])
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad, *_):  # type: ignore[no-untyped-def]
    found = step_norm_backward(grad, *ctx.saved_tensors, ctx.eps, ctx.slope)
    return *found, None, None, None


step_norm.register_autograd(_gradient, setup_context=_keep)
