"""Batches on their way to the device that works on them: read ahead by a thread, or kept there altogether.

Measured: a thread takes random windows from the memory map at a million 64x64 frames a second. A step on a CPU needs a
few hundred, so nothing is read ahead for it; a GPU needs a hundred times as many, and is never to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foreframe.clip import Clip
from foreframe.data.loading.windows import Windows, channels_first

DEVICE_SHARE = 0.25
"""A split is kept on a GPU if it takes at most this part of the memory free there; the rest is for the training."""
CHUNK = 4096
"""Frames copied to the device at a time."""

T = TypeVar("T")


class Feed:
    """Windows of one split, brought to a device in two halves: `fetch` on the host, `place` on the device. With
    `resident` the split's frames lie on the device as uint8, and only the numbers of the frames travel."""

    def __init__(self, windows: Windows, device: torch.device, resident: bool) -> None:
        self.windows, self.device, self.resident = windows, device, resident
        if resident:
            pack = windows.pack
            self._first, last = _span(windows)
            self._frames = _copied(pack.frames[self._first : last], device)
            self._cond = None if pack.cond is None else _copied(pack.cond[self._first : last], device)

    def fetch(self, indices: Tensor | Sequence[int], strides: Tensor | Sequence[int] | None = None) -> Clip | Tensor:
        """What is to be sent, as for `Windows.batch`; touches no device, so a thread may do it."""
        if self.resident:
            return pinned(self.windows.numbers(indices, strides) - self._first, self.device)
        clip = self.windows.batch(indices, strides)
        cond = None if clip.cond is None else pinned(clip.cond, self.device)
        return Clip(pinned(clip.frames, self.device), cond)

    def place(self, fetched: Clip | Tensor) -> Clip:
        """The same batch on the device, pixels uint8. Nothing waits for the copy."""
        if isinstance(fetched, Clip):
            return fetched.to(self.device)
        numbers = fetched.to(self.device, non_blocking=True)
        frames = channels_first(self._frames[numbers])
        return Clip(frames, None if self._cond is None else channels_first(self._cond[numbers]))


def fits(windows: Windows, device: torch.device) -> bool:
    """Whether the split is small enough to be kept on this device; never on a CPU, where it is mapped already."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size(windows) <= DEVICE_SHARE * free


def size(windows: Windows) -> int:
    """Bytes of a split's frames and conditions, from its first episode to its last."""
    first, last = _span(windows)
    arrays = [array for array in (windows.pack.frames, windows.pack.cond) if array is not None]
    return sum(array[first:last].nbytes for array in arrays)


class Ahead(Generic[T]):
    """What `make`, a function of the step alone, gives for one step after the other; a thread makes the next one while
    the last is used."""

    def __init__(self, make: Callable[[int], T], stop: int) -> None:
        self._make, self._stop = make, stop
        self._next: tuple[int, Future[T]] | None = None
        self._thread = ThreadPoolExecutor(1, "prefetch")

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def take(self, step: int) -> T:
        """What belongs to `step`. An error of the thread is raised here, at its step."""
        ready = self._next
        made = ready[1].result() if ready is not None and ready[0] == step else self._make(step)
        self._next = (step + 1, self._thread.submit(self._make, step + 1)) if step + 1 < self._stop else None
        return made


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """A host tensor from which a GPU copies without anybody waiting; for a CPU the tensor itself."""
    return values.pin_memory() if device.type == "cuda" else values


def _span(windows: Windows) -> tuple[int, int]:
    """From which frame of the pack to which the episodes lie."""
    return windows.episodes[0].start, windows.episodes[-1].start + windows.episodes[-1].length


def _copied(array: NDArray[Any], device: torch.device) -> Tensor:
    """A memory-mapped array on a device, a part at a time."""
    dtype = torch.uint8 if array.dtype == np.uint8 else torch.float32
    whole = torch.empty(array.shape, dtype=dtype, device=device)
    for at in range(0, len(array), CHUNK):
        whole[at : at + CHUNK] = torch.from_numpy(np.array(array[at : at + CHUNK]))
    return whole
