"""Work on a GPU recorded once and replayed: what were thousands of launches, each waiting for Python, is one.

A recording (a CUDA graph) repeats the same kernels on the same memory. So whatever differs from call to call comes in
tensors, which are copied to where the kernels read; whatever decides which kernels run is the `key` of a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

WARM_UPS = 3
"""Calls of each key that are not recorded: libraries choose their kernels and optimisers make their state in them."""

R = TypeVar("R")
Inputs = Sequence[Tensor | None]


class Recorder(Generic[R]):
    """Does `work(key, inputs)`, from the fourth call of a key on by replaying a recording of it.

    Inputs of one key always have the same shapes and types, and `work` must not read the device. What is returned is
    overwritten by the next call.
    """

    def __init__(self, work: Callable[[Any, Inputs], R]) -> None:
        self._work = work
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, tuple[Graph, Inputs, R]] = {}
        self._pool: Any = None

    def __call__(self, key: Hashable, inputs: Inputs) -> R:
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] <= WARM_UPS:
            return Graph.warm_up(lambda: self._work(key, inputs))
        if key not in self._recorded:
            graph = Graph(self._pool)
            places: Inputs = [None if part is None else part.clone() for part in inputs]
            result = graph.record(lambda: self._work(key, places))
            self._pool, self._recorded[key] = graph.pool, (graph, places, result)
        graph, places, result = self._recorded[key]
        for place, part in zip(places, inputs, strict=True):
            if place is not None and part is not None:
                place.copy_(part, non_blocking=True)
        graph.replay()
        return result


class Graph:
    """One CUDA graph. Recordings that are never replayed at the same time share a pool of memory."""

    def __init__(self, pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self.pool = torch.cuda.graph_pool_handle() if pool is None else pool

    @staticmethod
    def warm_up(work: Callable[[], R]) -> R:
        """Do it on a stream of its own, as recording asks."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = work()
        current.wait_stream(stream)
        return result

    def record(self, work: Callable[[], R]) -> R:
        """Note what would be done; nothing is done yet."""
        # Another thread reads the next batch into pinned memory meanwhile, which is none of the recording's business.
        with torch.cuda.graph(self._graph, pool=self.pool, capture_error_mode="thread_local"):
            return work()

    def replay(self) -> None:
        self._graph.replay()
