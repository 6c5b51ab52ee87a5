"""Where the work runs: the device, its threads, its names, and what it can do."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from foreframe.errors import ConfigError, UsageError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]


def choose_device(name: DeviceName, threads: int | None = None) -> torch.device:
    """The device of that name (`auto` takes a GPU where there is one), with this many CPU threads. Raises UsageError:
    there is no such device here."""
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible here; use --device cpu or --device auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        keep_memory()
    return torch.device(name)


@dataclass(frozen=True)
class Hardware:
    """The machine and the versions with which something was computed, as runs and results record them."""

    device: str
    threads: int
    cores: int | None
    python: str
    torch: str
    foreframe: str


def describe(device: torch.device) -> Hardware:
    """This machine, with `device` as the one that computes."""
    import foreframe

    return Hardware(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        foreframe=foreframe.__version__,
    )


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raises ConfigError where a precision would be emulated, and so be slower than fp32 and worse."""
    if precision == "fp32":
        return
    if device.type == "cpu" and "amx_bf16" not in _processor_flags():
        raise ConfigError(
            "precision bf16: this processor has no matrix unit for it (AMX) and would take 1.1 to 2 times as long as "
            "with fp32; use --precision fp32"
        )
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"precision bf16: {torch.cuda.get_device_name(device)} has none; use --precision fp32")


@functools.cache
def _processor_flags() -> frozenset[str]:
    """What the processor says it can do; nothing where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return frozenset(word for line in lines if line.startswith("flags") for word in line.split())


def keep_memory() -> None:
    """Have the C library keep freed memory, as each step takes the same large blocks again: new pages are zeroed by the
    system, up to half the time of layers that only read and write. Linux with glibc; elsewhere nothing."""
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    trim_threshold, mmap_threshold = -1, -3
    if hasattr(library, "mallopt"):
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_threshold, 2**30)
