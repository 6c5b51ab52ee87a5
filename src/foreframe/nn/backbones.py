"""SVG's frame encoders and decoders (Denton & Fergus 2018): DCGAN and VGG, 64 or 128 pixels square.

An encoder turns a frame into a vector h (G) and a list of feature maps, largest first; a decoder turns a vector
and those maps, joined on channels, back into a frame. `width` is the number of channels of the first stage, 64 in
the paper. Both take the frames of several time steps at once, time first: (T*B, ...) with `steps` = T.

Two identities save nearly half of the decoder's work and change nothing but rounding:

    conv(cat(maps, skip)) = conv_a(maps) + conv_b(skip)     and skip is the same in most steps: `Join.remember`
    conv3x3(nearest_x2(maps)) = conv_transpose4x4(maps)     with sums of the 3x3 weights: `doubled`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe.nn.norm import NormKind, StepNorm, fold, wide

Backbone = Literal["dcgan", "vgg"]
SLOPE = 0.2
Maps = tuple[Tensor, ...]
Halves = tuple[Tensor, Tensor]


def stage_widths(size: int, width: int) -> list[int]:
    """Channels of each stage, largest map first; the last one is 4 px (DCGAN) or 8 px (VGG) wide."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    return widths if size == 64 else [*widths, 8 * width]


def make_backbone(
    name: Backbone, size: int, channels: int, features: int, width: int, norm: NormKind = "step"
) -> tuple[nn.Module, Decoder]:
    """(encoder, decoder) for square frames of 64 or 128 pixels.

    Raises:
        ValueError: another size.
    """
    if size not in (64, 128):
        raise ValueError(f"the {name} backbone takes frames of 64x64 or 128x128 pixels, not {size}x{size}")
    if name == "dcgan":
        return DcganEncoder(size, channels, features, width, norm), DcganDecoder(size, channels, features, width, norm)
    return VggEncoder(size, channels, features, width, norm), VggDecoder(size, channels, features, width, norm)


class ConvNorm(nn.Module):
    """A convolution, normalisation, LeakyReLU; without `norm` the convolution alone."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: NormKind | None, slope: float = SLOPE) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module | None = None if norm is None else StepNorm(conv.out_channels, norm)
        self.slope = slope

    def forward(self, maps: Tensor, steps: int) -> Tensor:
        maps = self.conv(maps)
        return maps if self.norm is None else self.norm(maps, steps, self.slope)

    def fold(self) -> None:
        """Do in the convolution what normalisation does in eval mode."""
        self.norm = fold(self.conv, self.norm)


class Join(nn.Module):
    """A convolution of cat(maps, skip), as the sum of two, which doubles height and width of `maps`.

    The DCGAN's is a transposed convolution that doubles both; the VGG's is a 3x3 convolution of doubled `maps`
    beside a `skip` that is large already.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: NormKind | None) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module | None = None if norm is None else StepNorm(conv.out_channels, norm)
        self.folded: Halves | None = None

    def halves(self) -> Halves:
        """The weights for `maps`, (A, B, 4, 4) of a transposed convolution of stride 2, and those for the skip."""
        if self.folded is not None:
            return self.folded
        if isinstance(self.conv, nn.ConvTranspose2d):
            own, other = self.conv.weight.chunk(2, 0)
        else:
            own, other = self.conv.weight.chunk(2, 1)
            own = doubled(own)
        return own.contiguous(memory_format=torch.channels_last), other

    def remember(self, skip: Tensor, halves: Halves) -> Tensor:
        """The convolution of the skip, with the bias."""
        if isinstance(self.conv, nn.ConvTranspose2d):
            return functional.conv_transpose2d(skip, halves[1], self.conv.bias, 2, 1)
        return functional.conv2d(skip, halves[1], self.conv.bias, 1, 1)

    def forward(self, maps: Tensor, halves: Halves, heard: Tensor, runs: tuple[int, ...], steps: int) -> Tensor:
        joined = add_runs(functional.conv_transpose2d(maps, halves[0], None, 2, 1), heard, runs)
        return joined if self.norm is None else cast(Tensor, self.norm(joined, steps, SLOPE))

    def fold(self) -> None:
        """As for `ConvNorm`; the halves are made ready, too."""
        self.norm = fold(self.conv, self.norm)
        self.folded = self.halves()


def doubled(weight: Tensor) -> Tensor:
    """Weights (A, B, 4, 4) of the transposed convolution of stride 2 that doubles maps (nearest) and convolves them
    with `weight` (B, A, 3, 3): a pixel is copied to 2x2 places, so each place has the sum of 2x2 weights."""
    return functional.avg_pool2d(weight.flip(2, 3).transpose(0, 1), 2, 1, 1, divisor_override=1)


def add_runs(maps: Tensor, heard: Tensor, runs: tuple[int, ...]) -> Tensor:
    """Add to maps (T*B, ...) what stretches of steps hear in common: heard (R*B, ...), `runs` their R lengths.

    With one run `maps` may also be S samples of the same B clips, samples first. In training `maps` itself is changed.
    """
    if maps.requires_grad and not torch.compiler.is_compiling():
        added: Tensor = _AddRuns.apply(maps, heard, runs)
        return added
    if len(runs) == 1:
        same: Tensor = maps.unflatten(0, (-1, len(heard))) + heard
        return same.flatten(0, 1)
    parts = zip(_steps(maps, runs), heard.chunk(len(runs)), strict=True)
    return torch.cat([(part + common).flatten(0, 1) for part, common in parts])


def _steps(maps: Tensor, runs: tuple[int, ...]) -> list[Tensor]:
    """Stretches of maps (T*B, ...) as (run, B, ...), views."""
    each = len(maps) // sum(runs)
    return [
        part.unflatten(0, (run, each)) for part, run in zip(maps.split([n * each for n in runs]), runs, strict=True)
    ]


class _AddRuns(torch.autograd.Function):
    """The sum in place: maps just made by a convolution, which has no use for them any more, need no second memory."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, heard: Tensor, runs: tuple[int, ...]) -> Tensor:
        for part, common in zip(_steps(maps, runs), heard.chunk(len(runs)), strict=True):
            part.add_(common)
        ctx.mark_dirty(maps)
        ctx.runs = runs
        return maps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, torch.cat([part.sum(0) for part in _steps(grad, ctx.runs)]), None


class DcganEncoder(nn.Module):
    """4x4 convolutions of stride 2 down to 4 px, then one to a vector."""

    def __init__(self, size: int, channels: int, features: int, width: int, norm: NormKind) -> None:
        super().__init__()
        widths = stage_widths(size, width)
        self.stages = nn.ModuleList(
            ConvNorm(nn.Conv2d(before, after, 4, 2, 1), norm) for before, after in pairwise([channels, *widths])
        )
        self.head = ConvNorm(nn.Conv2d(widths[-1], features, 4), norm, slope=1.0)

    def forward(self, frames: Tensor, steps: int = 1) -> tuple[Tensor, Maps]:
        """(T*B, C, H, W) to vectors (T*B, G) and the maps of each stage, largest first."""
        skips = []
        for stage in self.stages:
            frames = stage(frames, steps)
            skips.append(frames)
        return torch.tanh(self.head(frames, steps)).flatten(1), tuple(skips)


def vgg_depths(size: int) -> list[int]:
    """Convolutions in each block, largest map first."""
    return [2, 2, 3, 3] if size == 64 else [2, 2, 3, 3, 3]


class VggEncoder(nn.Module):
    """Blocks of 3x3 convolutions with max pooling between; the maps handed on are those before pooling."""

    def __init__(self, size: int, channels: int, features: int, width: int, norm: NormKind) -> None:
        super().__init__()
        widths = stage_widths(size, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_conv3(before if i == 0 else after, after, norm) for i in range(depth))
            for before, after, depth in zip([channels, *widths], widths, vgg_depths(size), strict=False)
        )
        self.head = ConvNorm(nn.Conv2d(widths[-1], features, 4), norm, slope=1.0)

    def forward(self, frames: Tensor, steps: int = 1) -> tuple[Tensor, Maps]:
        """(T*B, C, H, W) to vectors (T*B, G) and the maps of each block, largest first."""
        skips = []
        for block in self.blocks:
            for conv in block:  # type: ignore[attr-defined]
                frames = conv(frames, steps)
            skips.append(frames)
            frames = functional.max_pool2d(frames, 2)
        return torch.tanh(self.head(frames, steps)).flatten(1), tuple(skips)


class Decoder(nn.Module, ABC):
    """From a vector to a picture, each stage beginning with a `Join`."""

    stem: ConvNorm

    @abstractmethod
    def chain(self) -> list[tuple[Join, list[ConvNorm]]]:
        """The stages, smallest maps first: what doubles and hears a skip, and the convolutions that follow."""

    def halves(self) -> tuple[Halves, ...]:
        """The weights of each `Join`, made ready: once for all steps."""
        return tuple(join.halves() for join, _ in self.chain())

    def remember(self, skips: Maps, halves: tuple[Halves, ...]) -> Maps:
        """What each stage hears of the encoder's maps of R frames, (R*B, ...) each: once for all steps."""
        stages = zip(self.chain(), halves, reversed(skips), strict=True)
        return tuple(join.remember(skip, weights) for (join, _), weights, skip in stages)

    def forward(
        self, vectors: Tensor, halves: tuple[Halves, ...], heard: Maps, runs: tuple[int, ...] = (1,), steps: int = 1
    ) -> Tensor:
        """Vectors (T*B, G) to frames (T*B, C, H, W) in [0, 1].

        Args:
            halves: From `halves`.
            heard: From `remember`, of R frames.
            runs: For how many of the T steps each of these holds. With R = 1 and steps = 1 the vectors may be those of
                S samples of B clips, samples first.
            steps: T.
        """
        maps = self.stem(vectors[:, :, None, None], steps)
        for (join, convs), weights, part in zip(self.chain(), halves, heard, strict=True):
            maps = join(maps, weights, part, runs, steps)
            for conv in convs:
                maps = conv(maps, steps)
        return torch.sigmoid(wide(maps))


class DcganDecoder(Decoder):
    """The encoder's mirror image."""

    def __init__(self, size: int, channels: int, features: int, width: int, norm: NormKind) -> None:
        super().__init__()
        widths = stage_widths(size, width)[::-1]
        self.stem = ConvNorm(nn.ConvTranspose2d(features, widths[0], 4), norm)
        self.stages = nn.ModuleList(
            Join(nn.ConvTranspose2d(2 * before, after, 4, 2, 1), norm) for before, after in pairwise(widths)
        )
        self.out = Join(nn.ConvTranspose2d(2 * widths[-1], channels, 4, 2, 1), None)

    def chain(self) -> list[tuple[Join, list[ConvNorm]]]:
        return [(cast(Join, join), []) for join in (*self.stages, self.out)]


class VggDecoder(Decoder):
    """Nearest-neighbour doubling at the head of each block; the last layer is a 3x3 transposed convolution."""

    def __init__(self, size: int, channels: int, features: int, width: int, norm: NormKind) -> None:
        super().__init__()
        widths = stage_widths(size, width)[::-1]
        self.stem = ConvNorm(nn.ConvTranspose2d(features, widths[0], 4), norm)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    Join(nn.Conv2d(2 * own, own, 3, 1, 1), norm),
                    *(_conv3(a, b, norm) for a, b in pairwise([own] * (depth - 1) + [after])),
                ]
            )
            for own, after, depth in zip(widths, widths[1:], vgg_depths(size)[::-1], strict=False)
        )
        self.join = Join(nn.Conv2d(2 * widths[-1], widths[-1], 3, 1, 1), norm)
        self.out = ConvNorm(nn.ConvTranspose2d(widths[-1], channels, 3, 1, 1), None)

    def chain(self) -> list[tuple[Join, list[ConvNorm]]]:
        blocks = [[*cast(nn.ModuleList, block)] for block in self.blocks]
        return [*((cast(Join, block[0]), cast(list[ConvNorm], block[1:])) for block in blocks), (self.join, [self.out])]


def _conv3(before: int, after: int, norm: NormKind) -> ConvNorm:
    return ConvNorm(nn.Conv2d(before, after, 3, 1, 1), norm)


def init_dcgan(module: nn.Module) -> None:
    """SVG's initial weights, for `Module.apply`: N(0, 0.02) in linear and convolution layers, N(1, 0.02) in BatchNorm.

    LSTM layers keep torch's own.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, StepNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
