"""Where the work runs: the device, its threads and its names."""

from __future__ import annotations

import os
import platform
from typing import Any, Literal

import torch

from foreframe.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda"]


def choose_device(name: DeviceName, threads: int | None = None) -> torch.device:
    """The device of that name (`auto` takes a GPU where there is one), with so many CPU threads.

    Raises:
        UsageError: there is no such device here.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible here; use --device cpu or --device auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware and versions, as they are written into runs and results."""
    import foreframe

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "foreframe": foreframe.__version__,
    }
