"""The convolution blocks of the pose lab's network. All keep height and width."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each followed by LeakyReLU, plus the input (through a 1x1 where widths differ)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(after, after, 3, padding=1),
            nn.LeakyReLU(0.01),
        )
        self.identity = _adapter(before, after)

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = self.body(maps) + self.identity(maps)
        return added


class DepthConvBlock(nn.Module):
    """A depthwise separable convolution and a gated feed-forward layer, both with residual paths."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.depth = nn.Sequential(
            nn.Conv2d(before, before, 1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(before, before, 3, padding=1, groups=before),
            nn.Conv2d(before, after, 1),
        )
        self.identity = _adapter(before, after)
        self.expand = nn.Conv2d(after, 4 * after, 1)
        self.gate = nn.LeakyReLU(0.1)
        self.contract = nn.Conv2d(2 * after, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.depth(maps) + self.identity(maps)
        value, gate = self.expand(maps).chunk(2, 1)
        mixed: Tensor = maps + self.contract(value * self.gate(gate))
        return mixed


def _adapter(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else nn.Conv2d(before, after, 1)
