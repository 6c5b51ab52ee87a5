"""SVG's frame encoders and decoders (Denton & Fergus 2018): DCGAN and VGG, 64 or 128 pixels square.

An encoder turns a frame into a vector h (G) and a list of feature maps, largest first; a decoder turns a vector and
those maps back into a frame. `width` is the number of channels of the first stage, 64 in the paper. Both take the
frames of several time steps at once, time first: (T*B, ...) with `steps` = T.

Two identities save nearly half of the decoder's work and change nothing but rounding:

    conv(cat(maps, skip)) = conv_a(maps) + conv_b(skip)     and skip is the same in most steps: `Decoder.prepare`
    conv3x3(nearest_x2(maps)) = conv_transpose4x4(maps)     with sums of the 3x3 weights: `doubled`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe.nn.norm import NormKind, StepNorm, fold, wide

Backbone = Literal["dcgan", "vgg"]
SLOPE = 0.2
Maps = tuple[Tensor, ...]
SplitWeights = tuple[Tensor, Tensor]


class SkipCache(NamedTuple):
    """The skips of a decoder, prepared for many steps.

    weights: Of each `Join`, split. terms: The projected skips of R frames, (R*B, ...) for each `Join`. lengths: The
    number of steps, one after another, to which each of the R frames gives the skips.
    """

    weights: tuple[SplitWeights, ...]
    terms: Maps
    lengths: tuple[int, ...] = (1,)


def stage_widths(size: int, width: int) -> list[int]:
    """Channels of each stage, largest map first; the last one is 4 px (DCGAN) or 8 px (VGG) wide."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    return widths if size == 64 else [*widths, 8 * width]


def make_backbone(
    name: Backbone, size: int, channels: int, features: int, width: int, norm: NormKind = "step"
) -> tuple[nn.Module, Decoder]:
    """(encoder, decoder) for square frames of 64 or 128 pixels."""
    sizes = size, channels, features, width
    if name == "dcgan":
        return DcganEncoder(*sizes, norm), DcganDecoder(*sizes, norm)
    return VggEncoder(*sizes, norm), VggDecoder(*sizes, norm)


class _Layer(nn.Module):
    """A convolution, normalisation, LeakyReLU; without `norm` the convolution alone."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: NormKind | None, slope: float = SLOPE) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module | None = None if norm is None else StepNorm(conv.out_channels, norm)
        self.slope = slope

    def finish(self, maps: Tensor, steps: int) -> Tensor:
        return maps if self.norm is None else cast(Tensor, self.norm(maps, steps, self.slope))

    def fold(self) -> None:
        """Do in the convolution what normalisation does in eval mode."""
        self.norm = fold(self.conv, self.norm)


class ConvNorm(_Layer):
    """A layer with one input."""

    def forward(self, maps: Tensor, steps: int) -> Tensor:
        return self.finish(self.conv(maps), steps)


class Join(_Layer):
    """A convolution of cat(maps, skip), as the sum of two, which doubles height and width of `maps`.

    The DCGAN's is a transposed convolution of both; the VGG's a 3x3 convolution of doubled `maps` and a large `skip`.
    """

    folded: SplitWeights | None = None

    def split_weights(self) -> SplitWeights:
        """The weights for `maps`, (A, B, 4, 4) of a transposed convolution of stride 2, and those for the skip."""
        if self.folded is not None:
            return self.folded
        if isinstance(self.conv, nn.ConvTranspose2d):
            for_maps, for_skip = self.conv.weight.chunk(2, 0)
        else:
            for_maps, for_skip = self.conv.weight.chunk(2, 1)
            for_maps = doubled(for_maps)
        return for_maps.contiguous(memory_format=torch.channels_last), for_skip

    def project_skip(self, skip: Tensor, weights: SplitWeights) -> Tensor:
        """The convolution of the skip, with the bias."""
        if isinstance(self.conv, nn.ConvTranspose2d):
            return functional.conv_transpose2d(skip, weights[1], self.conv.bias, 2, 1)
        return functional.conv2d(skip, weights[1], self.conv.bias, 1, 1)

    def forward(
        self, maps: Tensor, weights: SplitWeights, term: Tensor, lengths: tuple[int, ...], steps: int
    ) -> Tensor:
        joined = add_per_segment(functional.conv_transpose2d(maps, weights[0], None, 2, 1), term, lengths)
        return self.finish(joined, steps)

    def fold(self) -> None:
        """As for any layer; the weights are split once, too."""
        super().fold()
        self.folded = self.split_weights()


def doubled(weight: Tensor) -> Tensor:
    """Weights (A, B, 4, 4) of the transposed convolution of stride 2 that doubles maps (nearest) and convolves them
    with `weight` (B, A, 3, 3): a pixel is copied to 2x2 places, so each place has the sum of 2x2 weights."""
    return functional.avg_pool2d(weight.flip(2, 3).transpose(0, 1), 2, 1, 1, divisor_override=1)


def add_per_segment(maps: Tensor, terms: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Add terms (R*B, ...) to maps (T*B, ...), each to its segment of steps, R `lengths`. Changes `maps` in training.

    With one segment `maps` may also be S samples of the same B clips, samples first.
    """
    if maps.requires_grad and not torch.compiler.is_compiling():
        added: Tensor = _AddPerSegment.apply(maps, terms, lengths)
        return added
    if len(lengths) == 1:
        same: Tensor = maps.unflatten(0, (-1, len(terms))) + terms
        return same.flatten(0, 1)
    parts = zip(_segments(maps, lengths), terms.chunk(len(lengths)), strict=True)
    return torch.cat([(part + term).flatten(0, 1) for part, term in parts])


def _segments(maps: Tensor, lengths: tuple[int, ...]) -> list[Tensor]:
    """Maps (T*B, ...) as views (length, B, ...)."""
    each = len(maps) // sum(lengths)
    parts = maps.split([length * each for length in lengths])
    return [part.unflatten(0, (length, each)) for part, length in zip(parts, lengths, strict=True)]


class _AddPerSegment(torch.autograd.Function):
    """The sum in place: maps just made by a convolution, which does not need them again, take no second memory."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, terms: Tensor, lengths: tuple[int, ...]) -> Tensor:
        for part, term in zip(_segments(maps, lengths), terms.chunk(len(lengths)), strict=True):
            part.add_(term)
        ctx.mark_dirty(maps)
        ctx.lengths = lengths
        return maps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, torch.cat([part.sum(0) for part in _segments(grad, ctx.lengths)]), None


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
        """The stages, smallest maps first: the `Join` that takes a skip, and the convolutions that follow."""

    def split_weights(self) -> tuple[SplitWeights, ...]:
        """The weights of each `Join`: split once for all steps."""
        return tuple(join.split_weights() for join, _ in self.chain())

    def prepare(self, skips: Maps, weights: tuple[SplitWeights, ...]) -> SkipCache:
        """The encoder's maps of R frames, (R*B, ...) each, projected once for all steps that they are the skips of."""
        stages = zip(self.chain(), weights, reversed(skips), strict=True)
        return SkipCache(weights, tuple(join.project_skip(skip, split) for (join, _), split, skip in stages))

    def forward(self, vectors: Tensor, cache: SkipCache, steps: int = 1) -> Tensor:
        """Vectors (T*B, G) to frames (T*B, C, H, W) in [0, 1]; with R = T = 1 also of S samples, samples first."""
        maps = self.stem(vectors[:, :, None, None], steps)
        for (join, convs), weights, term in zip(self.chain(), cache.weights, cache.terms, strict=True):
            maps = join(maps, weights, term, cache.lengths, steps)
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
    """SVG's initial weights, for `Module.apply`: N(0, 0.02), in BatchNorm N(1, 0.02); LSTM layers keep torch's own."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, StepNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
