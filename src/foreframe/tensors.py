"""Named tensors in safetensors files: nothing is executed, and nothing unexpected is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from foreframe import config
from foreframe.errors import CheckpointError


def read_tensors(path: Path, expected: Mapping[str, Tensor], ignored: str = "") -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, if they are as expected; else nothing of them is read.

    expected: names, shapes and types; the values do not matter. ignored: tensors whose names end so are skipped. Raises
    CheckpointError: no safetensors, or tensors missing, unexpected, of another shape or type; each one is named.
    """
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            names = [key for key in file.keys() if not ignored or not key.endswith(ignored)]  # noqa: SIM118
            found = {key: file.get_slice(key) for key in names}
            wrong = [f"missing {key}" for key in expected if key not in found]
            wrong += [f"unexpected {key}" for key in found if key not in expected]
            for key in expected.keys() & found.keys():
                here = f"{_DTYPES.get(found[key].get_dtype())} {tuple(found[key].get_shape())}"
                there = f"{expected[key].dtype} {tuple(expected[key].shape)}"
                wrong += [f"{key}: expected {there}, found {here}"] if here != there else []
            if not wrong:
                return {key: file.get_tensor(key) for key in found}
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors ({error})") from error
    listed = "\n  ".join(line[:200] for line in sorted(wrong)[:20])
    raise CheckpointError(f"{path}: its tensors are those of another model:\n  {listed}")


def _check_header(path: Path) -> None:
    """Raises ValueError for what safetensors lets pass: a header that takes much memory, or names a tensor twice."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > config.LIMIT:
            raise ValueError(f"a header of {length} bytes, expected at most {config.LIMIT}")
        config.loads(file.read(length))


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names in a safetensors header."""


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file."""
    content: bytes = safetensors.save({key: value.detach().contiguous().cpu() for key, value in tensors.items()})
    return content
