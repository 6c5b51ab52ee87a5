"""LPIPS (Zhang et al., 2018), version 0.1 with AlexNet: the distance of two frames in features of a trained network.

The user gives the weights, a `.safetensors` with the names of `_shapes`. Without them there is no LPIPS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe.errors import UsageError
from foreframe.metrics.weights import load_weights

LAYERS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
"""Channels in and out, kernel, stride and padding of AlexNet's convolutions. Each is followed by ReLU, whose output is
compared; before the second and the third there is a 3x3 max pooling of stride 2."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What the network takes is (2 * frame - 1 - SHIFT) / SCALE, channel by channel."""
SMALLEST = 31
"""Pixels a side of the smallest frame that reaches the last layer."""
_AT_ONCE = 64


class Lpips(nn.Module):
    """Distances of frames, 0 for equal ones; lower is better. `sha256` is of the file of weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Mapping[str, Tensor], sha256: str) -> None:
        super().__init__()
        self.sha256 = sha256
        self.convs = nn.ModuleList(
            nn.Conv2d(inside, outside, kernel, stride, padding) for inside, outside, kernel, stride, padding in LAYERS
        )
        for number, conv in enumerate(self.convs):
            conv.weight.data = weights[f"AlexNet_0.Conv_{number}.kernel"].permute(3, 2, 0, 1).contiguous()
            conv.bias.data = weights[f"AlexNet_0.Conv_{number}.bias"]
            self.register_buffer(f"head_{number}", weights[f"NetLinLayer_{number}.Conv_0.kernel"].view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path) -> Lpips:
        """With weights from a `.safetensors`. Raises UsageError if they are others; each wrong tensor is named."""
        expected = {name: torch.empty(shape, device="meta") for name, shape in _shapes().items()}
        return cls(*load_weights(path, expected, "LPIPS with AlexNet"))

    @torch.no_grad()
    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Distance of each frame: (..., 3, H, W) twice, floats in [0, 1], to (...); `true` may lack first axes.

        Raises ValueError for frames of other channels, or too small for the network.
        """
        channels, height, width = true.shape[-3:]
        if channels != 3 or min(height, width) < SMALLEST:
            raise ValueError(
                f"LPIPS takes frames of 3 channels and {SMALLEST} pixels a side or more, these are "
                f"{channels}x{height}x{width}"
            )
        shape, samples = predicted.shape[:-3], predicted.shape[: predicted.ndim - true.ndim]
        ones, others = predicted.flatten(0, -4), true.flatten(0, -4)
        known = [self._features(part) for part in others.split(_AT_ONCE)]
        found = []
        for sample in ones.view(max(1, samples.numel()), -1, channels, height, width):
            for part, features in zip(sample.split(_AT_ONCE), known, strict=True):
                layers = zip(self._features(part), features, strict=True)
                distances = [
                    ((one - other).square() * getattr(self, f"head_{number}")).sum(1).mean((1, 2))
                    for number, (one, other) in enumerate(layers)
                ]
                found.append(torch.stack(distances).sum(0))
        return torch.cat(found).view(shape)

    def _features(self, frames: Tensor) -> list[Tensor]:
        """Of each layer, every pixel's features brought to length 1."""
        maps = (2 * frames.float() - 1 - self.shift) / self.scale
        found = []
        for number, conv in enumerate(self.convs):
            if number in (1, 2):
                maps = functional.max_pool2d(maps, 3, 2)
            maps = functional.relu(conv(maps))
            found.append(maps / (maps.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def without_weights(*_: Tensor) -> Tensor:
    """Replaces the metric where no weights were given. Raises UsageError."""
    raise UsageError(
        "lpips needs the weights of its network, which are not part of foreframe: --lpips-weights FILE.safetensors"
    )


def _shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays: kernels are (H, W, in, out)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (inside, outside, kernel, _, _) in enumerate(LAYERS):
        shapes[f"AlexNet_0.Conv_{number}.kernel"] = (kernel, kernel, inside, outside)
        shapes[f"AlexNet_0.Conv_{number}.bias"] = (outside,)
        shapes[f"NetLinLayer_{number}.Conv_0.kernel"] = (1, 1, outside, 1)
    return shapes
