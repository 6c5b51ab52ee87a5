"""Reads ready clips chunk by chunk, in order, ahead of whoever writes them; in other processes if asked to.

Clips of one file stay with one process, which reads them in order, so that a video is decoded once. What comes out
is the same whatever the number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from foreframe.data.clips import Chunk
from foreframe.data.shaping import ReadyClip
from foreframe.errors import DataError

CHUNK = 64
"""Frames in memory at a time, where they are small."""
CHUNK_BYTES = 2**26
"""At most so many bytes of recorded pictures in a chunk."""
AHEAD_BYTES = 2**27
"""Each process reads so many bytes of packed pictures ahead."""
MANY = 5_000
"""From so many frames on, other processes pay for their start."""

Outcome = Chunk | DataError
"""What reading a stretch gave; after a DataError nothing more of this clip is read."""


def processes(clips: Sequence[ReadyClip], workers: int | None) -> int:
    """How many processes to read with: as asked, or by the amount of work. 0: in this one."""
    if workers is not None:
        return min(workers, len(clips))
    cores = os.cpu_count() or 1
    return min(8, cores, len(clips)) if cores > 1 and sum(clip.length for clip in clips) >= MANY else 0


def read_clips(clips: Sequence[ReadyClip], workers: int = 0) -> Iterator[tuple[ReadyClip, int, Outcome]]:
    """(clip, first frame, chunk) of all clips in their order. A clip that cannot be read on ends with a DataError."""
    if not workers:
        for clip in clips:
            for start, stop in stretches(clip):
                outcome = _read(clip, start, stop)
                yield clip, start, outcome
                if isinstance(outcome, DataError):
                    break
        return
    with _Lanes(clips, workers) as lanes:
        for clip in clips:
            for start, _ in stretches(clip):
                ahead = lanes.next(clip)
                if ahead is not None:
                    yield clip, start, ahead


def stretches(clip: ReadyClip) -> Iterator[tuple[int, int]]:
    """Where the chunks of a clip begin and end."""
    height, width = clip.recipe.native
    step = max(1, min(CHUNK, CHUNK_BYTES // (3 * height * width * clip.recipe.stride)))
    for start in range(0, clip.length, step):
        yield start, min(start + step, clip.length)


class _Lanes:
    """Processes that each read some of the clips, in order and a little ahead."""

    def __init__(self, clips: Sequence[ReadyClip], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, context, _prepare) for _ in range(workers)]
        self.lane: dict[int, int] = {}
        files: dict[str, int] = {}
        work: list[list[ReadyClip]] = [[] for _ in range(workers)]
        for number, clip in enumerate(clips):
            file = clip.source.file
            lane = files.setdefault(file, len(files) % workers) if file else number % workers
            self.lane[id(clip)] = lane
            work[lane].append(clip)
        self.todo = [((clip, *piece) for clip in own for piece in stretches(clip)) for own in work]
        self.ahead: list[deque[Future[Outcome]]] = [deque() for _ in range(workers)]
        self.failed: set[int] = set()

    def __enter__(self) -> _Lanes:
        for lane in range(len(self.pools)):
            self._fill(lane)
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self.pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def next(self, clip: ReadyClip) -> Outcome | None:
        """The next chunk of `clip`; None where an earlier one of it failed."""
        lane = self.lane[id(clip)]
        future = self.ahead[lane].popleft()
        self._fill(lane)
        try:
            outcome = future.result()
        except BrokenProcessPool as error:
            raise DataError(
                f"{clip.name}: the process that was reading it died (out of memory?); try fewer --workers, or 0"
            ) from error
        if id(clip) in self.failed:
            return None
        if isinstance(outcome, DataError):
            self.failed.add(id(clip))
        return outcome

    def _fill(self, lane: int) -> None:
        ahead = self.ahead[lane]
        for clip, start, stop in self.todo[lane]:
            ahead.append(self.pools[lane].submit(_read, clip, start, stop))
            height, width = clip.recipe.size
            if len(ahead) >= 3 and len(ahead) * (stop - start) * 3 * height * width > AHEAD_BYTES:
                return


def _prepare() -> None:
    """A worker leaves Ctrl-C to its parent, and never outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _read(clip: ReadyClip, start: int, stop: int) -> Outcome:
    try:
        return clip.read(start, stop)
    except DataError as error:
        return DataError(str(error).split("\n")[0], error.faults)
    except OSError as error:
        return DataError(f"{clip.name}: cannot be read: {error.strerror or error}")
