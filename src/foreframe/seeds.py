"""All randomness is a function of (seed, step, rank, stream): nothing has to be remembered to resume exactly."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator that depends on `seed` and `key` alone, on every machine.

    `key` is whatever names the draw, such as `("noise", step, rank)`. SHA-256 spreads near keys far apart.
    """
    text = ":".join(str(part) for part in (seed, *key))
    state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return torch.Generator().manual_seed(state % 2**63)


def permutation(seed: int, epoch: int, length: int) -> Tensor:
    """The order of `length` windows in one epoch, (length,) int64."""
    return torch.randperm(length, generator=generator(seed, "order", epoch))
