"""Several metrics at once, and what all of them promise about their inputs and their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foreframe.metrics import METRICS, score_frames

NAMES = [name for name in METRICS if name != "lpips"]


def clips(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ["psnr"], ["ssim-range2", "psnr-channel"], ["ssim-gaussian"]])
def test_metrics_at_once_give_what_each_gives_alone(names: list[str]) -> None:
    predicted, true = clips(3, 2, 4, 3, 20, 16, seed=1), clips(2, 4, 3, 20, 16)
    together = score_frames(predicted, true, names)
    assert list(together) == names
    for name, values in together.items():
        assert values.shape == (3, 2, 4)
        torch.testing.assert_close(values, METRICS[name](predicted, true), rtol=0, atol=1e-6)


def test_metrics_at_once_refuse_what_each_refuses() -> None:
    with pytest.raises(ValueError, match="expected values in"):
        score_frames(2 * clips(3, 16, 16), clips(3, 16, 16), NAMES)
    with pytest.raises(ValueError, match="smaller than the 11x11 window"):
        score_frames(clips(3, 8, 8), clips(3, 8, 8), NAMES)


def test_the_truth_repeated_for_each_sample_gives_the_same_scores() -> None:
    predicted, true = clips(3, 5, 3, 20, 16, seed=1), clips(5, 3, 20, 16)
    once, repeated = score_frames(predicted, true, NAMES), score_frames(predicted, true.expand_as(predicted), NAMES)
    for name in NAMES:
        torch.testing.assert_close(once[name], repeated[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frames_of_half_precision_are_scored_as_the_same_numbers_in_float32(dtype: torch.dtype) -> None:
    predicted, true = clips(2, 4, 3, 16, 16, seed=1).to(dtype), clips(4, 3, 16, 16).to(dtype)
    expected = score_frames(predicted.float(), true.float(), NAMES)
    for name, values in score_frames(predicted, true, NAMES).items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda frames: frames.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(frames.shape),
        lambda frames: frames.transpose(0, 1).contiguous().transpose(0, 1),
        lambda frames: torch.cat([frames, frames], 1)[:, : frames.shape[1]],
    ],
)
def test_the_layout_in_memory_changes_no_score(laid_out: Callable[[Tensor], Tensor]) -> None:
    predicted, true = clips(2, 5, 3, 20, 16, seed=1), clips(2, 5, 3, 20, 16)
    expected = score_frames(predicted, true, NAMES)
    for first, second in (
        (laid_out(predicted), true),
        (predicted, laid_out(true)),
        (laid_out(predicted), laid_out(true)),
    ):
        for name, values in score_frames(first, second, NAMES).items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-6)


def test_scores_carry_no_gradient() -> None:
    predicted = clips(2, 3, 16, 16).requires_grad_()
    for values in score_frames(predicted, clips(2, 3, 16, 16, seed=1), NAMES).values():
        assert not values.requires_grad


class Largest(TorchDispatchMode):
    """The size of the largest tensor made meanwhile."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self.given:
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("kind", ["alike", "of the wrong colour"])
def test_memory_grows_neither_with_the_samples_nor_with_the_clips(kind: str) -> None:
    def largest(samples: int, frames: int) -> int:
        true = clips(frames, 3, 32, 32) if kind == "alike" else torch.full((frames, 3, 32, 32), 0.9)
        predicted = (true + 0.01).clamp(max=1) if kind == "alike" else torch.full_like(true, 0.1)
        predicted = predicted.repeat(samples, 1, 1, 1, 1)
        with Largest([predicted, true]) as mode:
            score_frames(predicted, true, NAMES)
        return mode.bytes

    assert largest(6, 42) == largest(2, 42) == largest(2, 126) < 2**21
