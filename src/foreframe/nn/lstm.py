"""SVG's recurrent parts. Their memory goes in and comes out as a value; no module keeps it.

All of them take a segment of steps, (T, B, ...), and compute in float32 at least: heads of a Gaussian in bfloat16 make
the KL of an untrained model several times too large.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from foreframe.gaussian import Gaussian
from foreframe.nn.norm import NormKind, StepNorm, wide


class Memory(NamedTuple):
    """Hidden and cell values of a stack of LSTM layers, each (B, layers, R)."""

    hidden: Tensor
    cell: Tensor


class LstmStack(nn.Module):
    """A linear embedding, then LSTM layers one above the other; gives the top one's outputs (T, B, R)."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.cells = nn.LSTM(width, width, layers)

    def initial(self, like: Tensor) -> Memory:
        """A memory of zeros for as many clips as `like` (B, ...) has, of its type and on its device."""
        zeros = like.new_zeros(like.shape[0], self.cells.num_layers, self.cells.hidden_size)
        return Memory(zeros, zeros)

    def forward(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Tensor]:
        before = (memory.hidden.transpose(0, 1).contiguous(), memory.cell.transpose(0, 1).contiguous())
        values, (hidden, cell) = self.cells(self.embed(inputs), before)
        return Memory(hidden.transpose(0, 1), cell.transpose(0, 1)), values


class FramePredictor(nn.Module):
    """The LSTM that predicts the next frame's vector (T, B, G), in (-1, 1); the action lab has a `norm` inside."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int, norm: NormKind | None) -> None:
        super().__init__()
        self.lstm = LstmStack(inputs, width, layers)
        self.out = nn.Linear(width, outputs)
        self.norm = None if norm is None else StepNorm(outputs, norm)

    def forward(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Tensor]:
        with torch.autocast(inputs.device.type, enabled=False):
            memory, values = self.lstm(memory, wide(inputs))
            vectors = self.out(values)
            if self.norm is not None:
                vectors = self.norm(vectors.flatten(0, 1), len(vectors)).unflatten(0, vectors.shape[:2])
            return memory, torch.tanh(vectors)


class GaussianLstm(nn.Module):
    """The LSTM behind a posterior or a learned prior: Gaussians over Z from what it has seen so far."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = LstmStack(inputs, width, layers)
        self.mean = nn.Linear(width, outputs)
        self.logvar = nn.Linear(width, outputs)

    def forward(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Gaussian]:
        with torch.autocast(inputs.device.type, enabled=False):
            memory, values = self.lstm(memory, wide(inputs))
            return memory, Gaussian.bounded(self.mean(values), self.logvar(values))
