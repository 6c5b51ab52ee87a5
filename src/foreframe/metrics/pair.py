"""What every metric asks of its two inputs, in the same words, and how many frames it takes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""How far outside [0, 1] a pixel may lie (rounding of a sigmoid or of a lower precision) before it is refused."""

_VALUES_AT_ONCE = {"cpu": 2**17}
_VALUES_ELSEWHERE = 2**22
"""Values of the truth compared at once: on a CPU what stays in cache, elsewhere enough to fill the device. It, and not
the number of samples, sets how much memory a metric takes."""


class Pair(NamedTuple):
    """Frames that may be compared: M true ones and S samples of each. S and M stand for the first axes as given."""

    predicted: Tensor  # (S, M, C, H, W), in the dtype given
    true: Tensor  # (M, C, H, W), in the dtype given
    shape: torch.Size  # (...), what (S, M) scores are given back as
    dtype: torch.dtype  # of the scores

    def parts(self) -> Iterator[slice]:
        """Slices of M, as even as possible, that are worth comparing at once."""
        frames, values = len(self.true), self.true[0].numel()
        at_once = _VALUES_AT_ONCE.get(self.true.device.type, _VALUES_ELSEWHERE)
        step = math.ceil(frames / math.ceil(frames / max(1, at_once // values)))
        return (slice(start, min(start + step, frames)) for start in range(0, frames, step))


def checked_pair(predicted: Tensor, true: Tensor) -> Pair:
    """The two tensors as a pair, to be scored in a floating dtype of at least 32 bits.

    predicted: (..., C, H, W), floating, in [0, 1]. true: the same shape, perhaps without some first axes: (B, T, C, H,
    W) serves (S, B, T, C, H, W).
    Raises ValueError for other shapes, whole numbers, and values outside [0, 1] or not finite.
    """
    extra = predicted.ndim - true.ndim
    if true.ndim < 3 or extra < 0 or predicted.shape[extra:] != true.shape:
        raise ValueError(
            f"predicted and true: expected (..., C, H, W) of one shape (true may lack first axes of predicted), "
            f"got {tuple(predicted.shape)} and {tuple(true.shape)}"
        )
    if not true.numel() or not predicted.numel():
        raise ValueError(f"predicted and true: expected pixels, got the empty shape {tuple(predicted.shape)}")
    for name, frames in (("predicted", predicted), ("true", true)):
        if not frames.is_floating_point():
            raise ValueError(f"{name}: expected floats in [0, 1], got {frames.dtype}; call Clip.unit() first")
    predicted, true = predicted.detach(), true.detach()
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, true.dtype), torch.float32)
    ends = torch.stack([end.to(dtype) for end in (*predicted.aminmax(), *true.aminmax())])
    lowest, highest, *of_true = ends.tolist()  # the only time a metric waits for its device
    for name, low, high in (("predicted", lowest, highest), ("true", *of_true)):
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also catches NaN, which aminmax hands on
            raise ValueError(
                f"{name}: expected values in [0, 1], got {low:g} to {high:g}; scale the frames to that range first"
            )
    shape = predicted.shape[:-3]
    true = true.reshape(-1, *true.shape[-3:])
    return Pair(predicted.reshape(-1, *true.shape), true, shape, dtype)
