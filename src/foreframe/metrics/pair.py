"""What every metric asks of its two inputs, asked once and in the same words."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""How far outside [0, 1] a pixel may lie (rounding of a sigmoid or of a lower precision) before it is refused."""


def checked_pair(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in one floating dtype of at least 32 bits, or an error that says what does not fit.

    Args:
        predicted: (..., C, H, W), floating, in [0, 1].
        true: The same shape, or that shape without some of its first axes: (B, T, C, H, W) serves (S, B, T, C, H, W).
    Raises:
        ValueError: shapes that do not fit, whole numbers instead of floats, values outside [0, 1] or not finite.
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
        low, high = (float(x) for x in frames.detach().aminmax())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also catches NaN, which aminmax hands on
            raise ValueError(
                f"{name}: expected values in [0, 1], got {low:g} to {high:g}; scale the frames to that range first"
            )
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, true.dtype), torch.float32)
    return predicted.to(dtype), true.to(dtype)
