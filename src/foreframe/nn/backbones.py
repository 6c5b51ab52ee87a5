"""SVG's frame encoders and decoders (Denton & Fergus 2018): DCGAN and VGG, 64 or 128 pixels square.

An encoder turns a frame into a vector h (B, G) and a list of feature maps, largest first; a decoder turns
a vector and those maps, joined on channels, back into a frame. `width` is the number of channels of the
first stage, 64 in the paper.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Backbone = Literal["dcgan", "vgg"]
SLOPE = 0.2


def stage_widths(size: int, width: int) -> list[int]:
    """Channels of each stage, largest map first; the last one is 4 px (DCGAN) or 8 px (VGG) wide."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    return widths if size == 64 else [*widths, 8 * width]


def make_backbone(name: Backbone, size: int, channels: int, features: int, width: int) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) for square frames of 64 or 128 pixels.

    Raises:
        ValueError: another size.
    """
    if size not in (64, 128):
        raise ValueError(f"the {name} backbone takes frames of 64x64 or 128x128 pixels, not {size}x{size}")
    if name == "dcgan":
        return DcganEncoder(size, channels, features, width), DcganDecoder(size, channels, features, width)
    return VggEncoder(size, channels, features, width), VggDecoder(size, channels, features, width)


class DcganEncoder(nn.Module):
    """4x4 convolutions of stride 2 down to 4 px, then one to a vector."""

    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = stage_widths(size, width)
        self.stages = nn.ModuleList(
            _normed(nn.Conv2d(before, after, 4, 2, 1), after) for before, after in pairwise([channels, *widths])
        )
        self.head = nn.Sequential(nn.Conv2d(widths[-1], features, 4), nn.BatchNorm2d(features), nn.Tanh())

    def forward(self, frame: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        skips = []
        for stage in self.stages:
            frame = stage(frame)
            skips.append(frame)
        return self.head(frame).flatten(1), tuple(skips)


class DcganDecoder(nn.Module):
    """The mirror image: each stage sees its own maps and the encoder's of the same size."""

    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = stage_widths(size, width)[::-1]
        self.stem = _normed(nn.ConvTranspose2d(features, widths[0], 4), widths[0])
        self.stages = nn.ModuleList(
            _normed(nn.ConvTranspose2d(2 * before, after, 4, 2, 1), after) for before, after in pairwise(widths)
        )
        self.out = nn.Sequential(nn.ConvTranspose2d(2 * widths[-1], channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, vector: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        maps: Tensor = self.stem(vector[:, :, None, None])
        for stage, skip in zip([*self.stages, self.out], reversed(skips), strict=True):
            maps = stage(torch.cat([maps, skip], 1))
        return maps


def vgg_depths(size: int) -> list[int]:
    """Convolutions in each block, largest map first."""
    return [2, 2, 3, 3] if size == 64 else [2, 2, 3, 3, 3]


class VggEncoder(nn.Module):
    """Blocks of 3x3 convolutions with max pooling between; the maps handed on are those before pooling."""

    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = stage_widths(size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_conv3(before if i == 0 else after, after) for i in range(depth)))
            for before, after, depth in zip([channels, *widths], widths, vgg_depths(size), strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.Conv2d(widths[-1], features, 4), nn.BatchNorm2d(features), nn.Tanh())

    def forward(self, frame: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        skips = []
        for block in self.blocks:
            maps = block(frame)
            skips.append(maps)
            frame = self.pool(maps)
        return self.head(frame).flatten(1), tuple(skips)


class VggDecoder(nn.Module):
    """Nearest-neighbour doubling before each block; the last layer is a 3x3 transposed convolution."""

    def __init__(self, size: int, channels: int, features: int, width: int) -> None:
        super().__init__()
        widths = stage_widths(size, width)[::-1]
        depths = vgg_depths(size)[::-1]
        self.stem = _normed(nn.ConvTranspose2d(features, widths[0], 4), widths[0])
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_conv3(a, b) for a, b in pairwise([2 * own] + [own] * (depth - 1) + [after])))
            for own, after, depth in zip(widths, widths[1:], depths, strict=False)
        )
        self.out = nn.Sequential(
            _conv3(2 * widths[-1], widths[-1]), nn.ConvTranspose2d(widths[-1], channels, 3, 1, 1), nn.Sigmoid()
        )

    def forward(self, vector: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        maps: Tensor = self.stem(vector[:, :, None, None])
        for block, skip in zip([*self.blocks, self.out], reversed(skips), strict=True):
            maps = block(torch.cat([self.up(maps), skip], 1))
        return maps


def _normed(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE))


def _conv3(before: int, after: int) -> nn.Sequential:
    return _normed(nn.Conv2d(before, after, 3, 1, 1), after)


def init_dcgan(module: nn.Module) -> None:
    """SVG's initial weights, for `Module.apply`: N(0, 0.02) in linear and convolution layers, N(1, 0.02) in BatchNorm.

    LSTM cells keep torch's own.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
