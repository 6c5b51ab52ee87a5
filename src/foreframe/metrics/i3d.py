"""I3D (Carreira & Zisserman, 2017): Inception-v1 with every kernel inflated in time, for RGB and Kinetics' 400 classes.

FVD uses its logits. Layers are named as in the widely used PyTorch port, and padded as TensorFlow's "SAME" is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe.errors import UsageError
from foreframe.metrics.weights import load_weights

CLASSES = 400
SIDE = 224
"""Pixels a side of the frames it takes: what remains of them is 7x7, the size of the last pooling."""
SHORTEST = 9
"""Frames of the shortest clip: three strides of 2 make 2 of them, the length of the last pooling."""
MIXED = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels in, and out of b0, b1a, b1b, b2a, b2b, b3b: the branches of each Inception module."""
_COUNTER = "num_batches_tracked"
"""BatchNorm's counter for training: newer files have it, older do not, and nothing here depends on it."""


class I3d(nn.Module):
    """Logits of clips, averaged over what time is left: (B, 3, T, 224, 224) in [-1, 1] to (B, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        for name, channels in MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
            self.add_module(name, _Mixed(*channels))
        self.logits = _Logits(1024, CLASSES)
        self.eval().requires_grad_(False)

    def forward(self, clips: Tensor) -> Tensor:
        maps = clips
        for stage in self.children():  # in the order of __init__
            maps = stage(maps)
        return maps


class _Unit(nn.Module):
    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outside, eps=1e-3)

    def forward(self, maps: Tensor) -> Tensor:
        padded = _same(maps, self.conv3d.kernel_size, self.conv3d.stride)
        return functional.relu(self.bn(self.conv3d(padded)), inplace=True)


class _Pool(nn.Module):
    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:
        # What comes here went through ReLU, so that zeros around it win nowhere.
        return functional.max_pool3d(_same(maps, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """An Inception module: four branches side by side."""

    def __init__(self, inside: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = _Unit(inside, b0, 1)
        self.b1a, self.b1b = _Unit(inside, b1a, 1), _Unit(b1a, b1b, 3)
        self.b2a, self.b2b = _Unit(inside, b2a, 1), _Unit(b2a, b2b, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inside, b3b, 1)

    def forward(self, maps: Tensor) -> Tensor:
        branches = self.b0(maps), self.b1b(self.b1a(maps)), self.b2b(self.b2a(maps)), self.b3b(self.b3a(maps))
        return torch.cat(branches, 1)


class _Logits(nn.Module):
    """Average over 2x7x7, a linear map with bias, and the mean over time."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, 1)

    def forward(self, maps: Tensor) -> Tensor:
        pooled = functional.avg_pool3d(maps, (2, SIDE // 32, SIDE // 32), stride=1)
        logits: Tensor = self.conv3d(pooled)
        return logits.flatten(2).mean(2)


def _same(maps: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around (..., T, H, W), so that a window gives ceil(size / stride) of each; the odd one comes behind."""
    pads: list[int] = []
    for size, window, step in zip(maps.shape[:-4:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(0, (-(-size // step) - 1) * step + window - size)
        pads += [total // 2, total - total // 2]
    return functional.pad(maps, pads)


def load_i3d(path: Path) -> tuple[I3d, str]:
    """The network with weights from a `.safetensors`, and its SHA-256. Raises UsageError, naming each wrong tensor."""
    with torch.device("meta"):
        network = I3d()
    state = network.state_dict()
    expected = {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
    found, sha256 = load_weights(path, expected, f"I3D for RGB and {CLASSES} classes", _COUNTER)
    for name, tensor in found.items():
        if name.endswith("running_var") and (tensor < 0).any():
            raise UsageError(f"{path}: {name}: holds a variance below 0")
    counters = {name: torch.zeros((), dtype=torch.int64) for name in state if name not in expected}
    network.load_state_dict({**found, **counters}, assign=True)
    return network.requires_grad_(False), sha256
