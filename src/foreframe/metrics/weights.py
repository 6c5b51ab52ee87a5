"""Weights that the user gives for a metric."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from foreframe.errors import CheckpointError, UsageError
from foreframe.tensors import read_tensors

MOST_BYTES = 64 * 2**20


def load_weights(
    path: Path, expected: Mapping[str, Tensor], network: str, ignored: str = ""
) -> tuple[dict[str, Tensor], str]:
    """A network's tensors from a `.safetensors`, on the CPU, and its SHA-256. Raises UsageError, naming wrong ones."""
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path}: expected weights of {network} as .safetensors; docs/concepts.md says how to convert other files"
        )
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected weights of {network}")
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path}: {path.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}")
    try:
        found = read_tensors(path, expected, ignored)
    except CheckpointError as error:
        raise UsageError(f"not the weights of {network}: {error}") from error
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise UsageError(f"{path}: {name}: holds numbers that are not finite")
    with path.open("rb") as file:
        return found, hashlib.file_digest(file, "sha256").hexdigest()
