"""The optimiser of all weights together, and the moving average of the weights beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foreframe.recipe import OptimizerConfig


def make_optimizer(config: OptimizerConfig, model: nn.Module, capturable: bool = False) -> Any:
    """One optimiser over all parameters; the labs' several with equal settings are the same mathematics.

    Fused: one pass, in which an update is skipped where `found_inf` is not zero. capturable: for recording on a GPU.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decay = config.weight_decay
    optimizer: Any
    if config.kind == "sgd":
        optimizer = torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=decay, fused=True)
        if config.momentum:
            # Made here: the fused kind leaves them uninitialised where its first update is skipped.
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    else:
        kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
        optimizer = kind(parameters, config.lr, config.betas, weight_decay=decay, fused=True, capturable=capturable)
    optimizer.found_inf = torch.zeros((), device=parameters[0].device)
    return optimizer


def average_share(decay: float, step: int) -> float:
    """The share by which the average moves at a step; early steps move it further, so that the start is forgotten."""
    return 1 - min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, share: Tensor) -> None:
    """Move the average by a share, a scalar, towards the weights; counters are copied."""
    current = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], share)
        else:
            value.copy_(current[name])
