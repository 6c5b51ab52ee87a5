"""SVG's recurrent parts. Their memory goes in and comes out as a value; no module keeps it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from foreframe.gaussian import Gaussian


class Memory(NamedTuple):
    """Hidden and cell values of a stack of LSTM cells, each (B, layers, R)."""

    hidden: Tensor
    cell: Tensor


class LstmStack(nn.Module):
    """A linear embedding, then LSTM cells one above the other; gives the top one's output (B, R)."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(inputs, width)
        self.cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(layers))

    def initial(self, like: Tensor) -> Memory:
        """A memory of zeros for as many clips as `like` (B, ...) has, of its type and on its device."""
        zeros = like.new_zeros(like.shape[0], len(self.cells), self.width)
        return Memory(zeros, zeros)

    def forward(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Tensor]:
        value = self.embed(inputs)
        hidden, cell = [], []
        for layer, lstm in enumerate(self.cells):
            value, kept = lstm(value, (memory.hidden[:, layer], memory.cell[:, layer]))
            hidden.append(value)
            cell.append(kept)
        return Memory(torch.stack(hidden, 1), torch.stack(cell, 1)), value


class FramePredictor(nn.Module):
    """The LSTM that says the next frame's vector (B, G), in (-1, 1).

    `norm` adds the BatchNorm before the tanh that the action lab's template has and SVG does not.
    """

    def __init__(self, inputs: int, outputs: int, width: int, layers: int, norm: bool) -> None:
        super().__init__()
        self.lstm = LstmStack(inputs, width, layers)
        self.out = nn.Linear(width, outputs)
        self.norm = nn.BatchNorm1d(outputs) if norm else nn.Identity()

    def forward(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Tensor]:
        memory, value = self.lstm(memory, inputs)
        return memory, torch.tanh(self.norm(self.out(value)))


class GaussianLstm(nn.Module):
    """The LSTM behind a posterior or a learned prior: a Gaussian over Z from what it has seen so far."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = LstmStack(inputs, width, layers)
        self.mean = nn.Linear(width, outputs)
        self.logvar = nn.Linear(width, outputs)

    def forward(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Gaussian]:
        memory, value = self.lstm(memory, inputs)
        return memory, Gaussian.bounded(self.mean(value), self.logvar(value))
