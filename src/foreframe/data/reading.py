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
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from foreframe.data.clips import Chunk
from foreframe.data.journal import StoppedError
from foreframe.data.shaping import ReadyClip
from foreframe.errors import DataError, UsageError

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
    """How many processes to read with: as asked, or by the amount of work. 0: in this one.

    Raises:
        UsageError: fewer than none are asked for.
    """
    if workers is not None:
        if workers < 0:
            raise UsageError(f"workers: expected 0 or more, found {workers}")
        return min(workers, len(clips))
    cores = os.cpu_count() or 1
    return min(8, cores, len(clips)) if cores > 1 and sum(clip.length for clip in clips) >= MANY else 0


def read_clips(clips: Sequence[ReadyClip], workers: int = 0) -> Generator[tuple[ReadyClip, int, Outcome]]:
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
        for number, clip in enumerate(clips):
            for start, _ in stretches(clip):
                ahead = lanes.next(number)
                if ahead is not None:
                    yield clip, start, ahead


def stretches(clip: ReadyClip) -> Iterator[tuple[int, int]]:
    """Where the chunks of a clip begin and end."""
    height, width = clip.recipe.native
    step = max(1, min(CHUNK, CHUNK_BYTES // (3 * height * width * clip.recipe.stride)))
    for start in range(0, clip.length, step):
        yield start, min(start + step, clip.length)


class _Lanes:
    """Processes that each read some of the clips, in order and a little ahead.

    Each is given all of its clips when it starts, so that a long list of paths is not sent again with every chunk.
    """

    def __init__(self, clips: Sequence[ReadyClip], workers: int) -> None:
        self.clips = clips
        self.lane: list[int] = []
        files: dict[str, int] = {}
        for number, clip in enumerate(clips):
            file = clip.source.file
            self.lane.append(files.setdefault(file, len(files) % workers) if file else number % workers)
        work = [{n: clip for n, clip in enumerate(clips) if self.lane[n] == lane} for lane in range(workers)]
        context = multiprocessing.get_context("spawn")
        self.pools = [ProcessPoolExecutor(1, context, _prepare, (own,)) for own in work]
        self.todo = [((n, *piece) for n, clip in own.items() for piece in stretches(clip)) for own in work]
        self.ahead: list[deque[tuple[Future[Outcome], int]]] = [deque() for _ in work]
        self.bytes = [0] * workers
        self.failed: set[int] = set()

    def __enter__(self) -> _Lanes:
        try:
            with _without_ctrl_c():
                for lane in range(len(self.pools)):
                    self._fill(lane)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pool, ahead in zip(self.pools, self.ahead, strict=True):
            for future, _size in ahead:  # a pool that nobody holds any more forgets to do this itself
                future.cancel()
            pool.shutdown(wait=False)

    def next(self, number: int) -> Outcome | None:
        """The next chunk of a clip; None where an earlier one of it failed."""
        lane = self.lane[number]
        future, size = self.ahead[lane].popleft()
        self.bytes[lane] -= size
        self._fill(lane)
        try:
            outcome = future.result()
        except BrokenProcessPool as error:
            raise StoppedError(
                f"{self.clips[number].name}: the process that was reading it died (out of memory?); what was done is "
                "kept: start again with fewer --workers, or 0"
            ) from error
        if number in self.failed:
            return None
        if isinstance(outcome, DataError):
            self.failed.add(number)
        return outcome

    def _fill(self, lane: int) -> None:
        ahead = self.ahead[lane]
        while len(ahead) < 3 or self.bytes[lane] < AHEAD_BYTES:
            piece = next(self.todo[lane], None)
            if piece is None:
                return
            number, start, stop = piece
            height, width = self.clips[number].recipe.size
            size = (stop - start) * 3 * height * width
            ahead.append((self.pools[lane].submit(_read_one, number, start, stop), size))
            self.bytes[lane] += size


_clips: dict[int, ReadyClip] = {}
"""In a worker: the clips that it reads."""


def _prepare(clips: dict[int, ReadyClip]) -> None:
    """A worker leaves Ctrl-C to its parent, and never outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _clips.update(clips)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start in here do not hear Ctrl-C, from their first moment on; it waits for the end of this."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read_one(number: int, start: int, stop: int) -> Outcome:
    return _read(_clips[number], start, stop)


def _read(clip: ReadyClip, start: int, stop: int) -> Outcome:
    try:
        return clip.read(start, stop)
    except DataError as error:
        return DataError(str(error).split("\n")[0], error.faults)
    except OSError as error:
        return DataError(error.strerror or str(error))
    except MemoryError as error:
        raise StoppedError(
            f"{clip.name}: not enough memory to read it; what was done is kept: start again with fewer --workers, or 0"
        ) from error
    except Exception as error:
        error.add_note(f"This happened while frames {start} to {stop - 1} of the clip {clip.name} were read.")
        raise
