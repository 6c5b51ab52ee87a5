"""Reads ready clips chunk by chunk, in order, ahead of whoever writes them; in other processes if asked to.

Clips of one file stay with one process, which reads them in order, so that a video is decoded once. What comes out
is the same whatever the number of processes.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

from foreframe import signals
from foreframe.data.ingest import worker
from foreframe.data.ingest.transform import ReadyClip
from foreframe.data.layouts.contract import ClipChunk
from foreframe.data.pack.journal import StoppedError
from foreframe.errors import DataError, UsageError

CHUNK = 64
"""Frames in memory at a time, where they are small."""
CHUNK_BYTES = 2**26
"""At most so many bytes of recorded pictures in a chunk."""
AHEAD = 3
AHEAD_BYTES = 2**27
"""Of each process so many chunks, or so many bytes of packed pictures, wait to be taken."""
MANY = 5_000
"""From so many frames on, other processes pay for their start."""
PATIENCE = 0.2
"""Seconds between two looks at whether a signal has asked to stop, while there is nothing to do but wait."""

Outcome = ClipChunk | DataError
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
            for start, outcome in _read_clip(clip):
                yield clip, start, outcome
        return
    with _WorkerPool(clips, workers) as lanes:
        for number, clip in enumerate(clips):
            for start, _ in stretches(clip):
                outcome = lanes.next(number)
                yield clip, start, outcome
                if isinstance(outcome, DataError):
                    break


def stretches(clip: ReadyClip) -> Iterator[tuple[int, int]]:
    """Where the chunks of a clip begin and end."""
    height, width = clip.recipe.native
    step = max(1, min(CHUNK, CHUNK_BYTES // (3 * height * width * clip.recipe.stride)))
    for start in range(0, clip.length, step):
        yield start, min(start + step, clip.length)


def serve(connection: Connection) -> None:
    """In a process started by `worker`: reads the clips that it is sent, in order, and sends what that gave.

    How far it gets ahead is up to the other one: a connection that nobody reads is soon full, and sending waits.
    """
    for outcome in _served(connection):
        connection.send(outcome)


def _served(connection: Connection) -> Iterator[Outcome | _Raised]:
    try:
        for clip in connection.recv():
            for _, outcome in _read_clip(clip):
                yield outcome
    except Exception as error:
        yield _Raised(error, traceback.format_exc())


@dataclass(frozen=True)
class _Raised:
    """What ended a process: no fault of its clips, but out of memory, or a mistake of ours."""

    error: Exception
    text: str


class _WorkerPool:
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
        self.processes: list[BaseProcess] = []
        self.connections: list[Connection] = []
        self.ahead: list[deque[tuple[Outcome | _Raised, int]]] = [deque() for _ in range(workers)]
        self.bytes = [0] * workers
        self.ended: set[int] = set()
        # At the latest when the interpreter ends: it would wait for them for ever.
        self._end = Finalize(self, _kill, (self.processes, self.connections), exitpriority=1)

    def __enter__(self) -> _WorkerPool:
        try:
            for _ in self.ahead:
                process, connection = worker.start()
                self.processes.append(process)
                self.connections.append(connection)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def next(self, number: int) -> Outcome:
        """The next chunk of a clip. Raises what ended its process, and Stopped where a signal has asked to stop."""
        lane = self.lane[number]
        self._receive(0)
        while not self.ahead[lane]:
            if lane in self.ended:
                raise StoppedError(
                    f"{self.clips[number].name}: the process that was reading it died (out of memory?); what was done "
                    "is kept: start again with fewer --workers, or 0"
                )
            signals.poll()
            self._receive(PATIENCE)
        outcome, size = self.ahead[lane].popleft()
        self.bytes[lane] -= size
        if isinstance(outcome, _Raised):
            raise outcome.error from RuntimeError(f"in a process that reads:\n{outcome.text}")
        return outcome

    def _receive(self, seconds: float) -> None:
        """One chunk of each process that has one and may get further ahead; waits so long where there is none."""
        receivable = {
            connection: lane
            for lane, connection in enumerate(self.connections)
            if lane not in self.ended and (len(self.ahead[lane]) < AHEAD or self.bytes[lane] < AHEAD_BYTES)
        }
        for connection in wait([*receivable], seconds):
            assert isinstance(connection, Connection)
            lane = receivable[connection]
            try:
                found = connection.recv()
                if found is None:
                    connection.send([clip for clip, own in zip(self.clips, self.lane, strict=True) if own == lane])
                    continue
            except (EOFError, OSError):
                self.ended.add(lane)
                continue
            size = _size(found)
            self.ahead[lane].append((found, size))
            self.bytes[lane] += size


def _kill(processes: Sequence[BaseProcess], connections: Sequence[Connection]) -> None:
    """No process reads on, none is left. They have nothing of which anything could be torn."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for connection in connections:
        connection.close()


def _size(outcome: Outcome | _Raised) -> int:
    """Bytes of pictures and numbers."""
    if not isinstance(outcome, ClipChunk):
        return 0
    return outcome.frames.nbytes + (0 if outcome.cond is None else outcome.cond.nbytes)


def _read_clip(clip: ReadyClip) -> Iterator[tuple[int, Outcome]]:
    for start, stop in stretches(clip):
        outcome = _read(clip, start, stop)
        yield start, outcome
        if isinstance(outcome, DataError):
            break


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
