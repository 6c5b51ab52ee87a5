"""Reading processes: whatever somebody's files do to a library, it happens in a process with limits.

A source's index, and then its clips chunk by chunk, are read by processes with a limit of memory and of processor time;
the one that started them watches the clock. A limit that is reached, or a library that crashes, is a fault of the file
or clip that was being read. Clips of one file stay with one process, which reads them in order, so that a video is
decoded once. The result is the same for any number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_char
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from foreframe import signals
from foreframe.data.ingest import reading
from foreframe.data.ingest.reading import Call, Clips, Limits, Outcome
from foreframe.data.ingest.transform import ReadyClip
from foreframe.data.layouts.contract import ClipChunk
from foreframe.data.pack.journal import StoppedError
from foreframe.errors import DataError, UsageError

CHUNK = 64
"""Frames in memory at a time, where they are small."""
AHEAD = 3
AHEAD_BYTES = 2**27
"""Chunks, or bytes of packed pictures, of each process that may wait to be taken."""
MANY = 5_000
"""From this many frames on, more than one process pays for its start."""
PATIENCE = 0.2
"""Seconds between two polls for a signal or a limit while waiting."""

T = TypeVar("T")


class Readers:
    """The processes that read a source; they start when they are needed, and none is left at the end of the `with`.

    workers: how many; 0: read in this process, without limits, what can be trusted; None: by the amount of work.

    Raises:
        UsageError: workers is below 0.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 0:
            raise UsageError(f"workers: expected 0 or more, found {workers}")
        self.workers = workers
        self.limits = Limits.from_environment()
        self._source = ""
        self._idle: list[_Reader] = []
        self._tracks: list[_Track] = []
        # At the latest when the interpreter ends: it would wait for them for ever.
        self._end = Finalize(self, _kill_all, (self._idle, self._tracks), exitpriority=1)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(self, job: Callable[[], T], source: Path) -> T:
        """What `job` returns; it can be pickled and reads files of the folder `source`. Raises DataError: a limit was
        reached, or the process crashed; the message names the file."""
        if self.workers == 0:
            return job()
        self._source = os.fspath(source)
        reader = _Reader(self.limits, Call(job, self._source))
        self._idle.append(reader)
        try:
            while (message := reader.receive(PATIENCE)) is None:
                signals.poll()
        except EOFError:
            self._idle.remove(reader)
            raise reader.error(str(source)) from None
        found = _checked(message)
        if isinstance(found, DataError):
            raise found
        result: T = found
        return result

    def read(self, clips: Sequence[ReadyClip]) -> Generator[tuple[ReadyClip, int, Outcome]]:
        """(clip, first frame, chunk) of all clips in their order. A clip that cannot be read ends with a DataError."""
        workers = self._wanted(clips)
        if not workers:
            for clip in clips:
                for start, outcome in reading.read_clip(clip, CHUNK):
                    yield clip, start, outcome
            return
        track_of = _assigned(clips, workers)
        for number in range(workers):
            own = deque(clip for clip, track in zip(clips, track_of, strict=True) if track == number)
            self._tracks.append(_Track(own, self._source, self.limits, self._idle.pop() if self._idle else None))
        for clip, track in zip(clips, track_of, strict=True):
            for start, _ in reading.spans(clip, CHUNK):
                outcome = self._next(clip, self._tracks[track])
                yield clip, start, outcome
                if isinstance(outcome, DataError):
                    break

    def _wanted(self, clips: Sequence[ReadyClip]) -> int:
        """How many processes to read these clips with."""
        if self.workers is not None:
            return min(self.workers, len(clips))
        cores = os.cpu_count() or 1
        many = sum(clip.length for clip in clips) >= MANY
        return min(8 if many else 1, cores, len(clips))

    def _next(self, clip: ReadyClip, track: _Track) -> Outcome:
        """The next chunk of a clip. Raises what ended its process, and Stopped where a signal has asked to stop."""
        self._receive(0)
        while not track.ahead:
            signals.poll()
            self._receive(PATIENCE)
            track.check_clock()
        outcome: Outcome = _checked(track.take())
        return outcome

    def _receive(self, seconds: float) -> None:
        """Take one chunk from each process that has one and may read further ahead; wait this long if there is none."""
        receivable = {track.reader.connection: track for track in self._tracks if track.todo and not track.full}
        for connection in wait([*receivable], seconds):
            receivable[connection].receive()  # type: ignore[index]


def _assigned(clips: Sequence[ReadyClip], workers: int) -> list[int]:
    """For each clip the number of the process that reads it."""
    files: dict[str, int] = {}
    return [
        files.setdefault(clip.source.file, len(files) % workers) if clip.source.file else number % workers
        for number, clip in enumerate(clips)
    ]


class _Track:
    """One process with the clips that it reads in order, sent at once, and the chunks that it is ahead."""

    def __init__(self, clips: deque[ReadyClip], source: str, limits: Limits, reader: _Reader | None) -> None:
        self.todo, self.source, self.limits = clips, source, limits
        self.ahead: deque[tuple[Any, int]] = deque()
        self.bytes = 0
        if reader is not None:
            reader.connection.send(self._job())
        self.reader = reader or _Reader(limits, self._job())

    def _job(self) -> Clips:
        return Clips(tuple(self.todo), CHUNK, self.source)

    @property
    def full(self) -> bool:
        return len(self.ahead) >= AHEAD and self.bytes >= AHEAD_BYTES

    def take(self) -> Any:
        outcome, size = self.ahead.popleft()
        self.bytes -= size
        return outcome

    def receive(self) -> None:
        """Take what the process has sent. Where it has ended, the clip is at fault; a new one reads the others."""
        try:
            message = self.reader.receive(0)
        except EOFError:
            error = self.reader.error(self.todo.popleft().name)
            self.ahead.append((error, 0))
            if isinstance(error, StoppedError):
                self.todo.clear()
            elif self.todo:
                self.reader = _Reader(self.limits, self._job())
            return
        if message is not None:
            outcome, is_last = message if isinstance(message, tuple) else (message, True)
            arrays = (outcome.frames, outcome.cond) if isinstance(outcome, ClipChunk) else ()
            size = sum(array.nbytes for array in arrays if array is not None)
            self.ahead.append((outcome, size))
            self.bytes += size
            if is_last:
                self.todo.popleft()

    def check_clock(self) -> None:
        """Give up the clip that is being read where that makes no progress."""
        if self.todo and not self.ahead:
            self.reader.check_clock()


class _Reader:
    """A process that does jobs, and the connection to it. It ignores signals to stop from its first moment on."""

    def __init__(self, limits: Limits, job: Call | Clips) -> None:
        self.limits, self._job = limits, job
        context = multiprocessing.get_context("spawn")
        with signals.signals_blocked():
            resource_tracker.ensure_running()  # the first process would start it, and it would receive signals then
        self._file = context.RawArray(c_char, reading.PATH_BYTES)
        self.connection, there = context.Pipe()
        self.process = context.Process(target=reading.work, args=(there, limits, self._file, os.getpid()), daemon=True)
        with there, signals.signals_blocked(), _no_main():
            self.process.start()
        self._place, self._since, self._timed_out = b"", time.monotonic(), False

    def receive(self, seconds: float) -> Any:
        """What the process sent; None where nothing came in this time. Raises EOFError: it has ended."""
        if not self.connection.poll(seconds):
            self.check_clock()
            return None
        try:
            message = self.connection.recv()
            if message is None:  # it has started
                self.connection.send(self._job)
        except (EOFError, OSError) as error:
            raise EOFError from error
        self._since = time.monotonic()
        return message

    def check_clock(self) -> None:
        """End the process if it has been at one file or chunk for too long."""
        if self._file.value != self._place:
            self._place, self._since = self._file.value, time.monotonic()
        if time.monotonic() - self._since > self.limits.seconds:
            self._timed_out = True
            self.process.kill()

    def kill(self) -> None:
        """It has nothing that could be left torn."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def error(self, name: str) -> DataError:
        """Why the process has ended: the fault of the last file that it opened, or of `name`, which it was to read."""
        self.process.join()
        self.connection.close()
        place, code = os.fsdecode(self._file.value) or name, self.process.exitcode or 0
        if self._timed_out:
            return reading.over_limit(place, f"{self.limits.seconds:,.0f} s")
        if code == -getattr(signal, "SIGXCPU", 0):
            return reading.over_limit(place, f"{self.limits.cpu:,} s of processor time")
        if code == -getattr(signal, "SIGKILL", 0):
            return StoppedError(
                f"{name}: the process that was reading it was killed (out of memory?); what was done is kept: start "
                "again with fewer --workers"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        found = f"one that ends the process which reads it ({how})"
        return reading.unreadable(place, "data that a library can read", found)


@contextmanager
def _no_main() -> Iterator[None]:
    """A process that starts in here does not import the user's script again, which may lack `if __name__ == ...`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _kill_all(idle: Sequence[_Reader], tracks: Sequence[_Track]) -> None:
    readers = [*idle, *(track.reader for track in tracks)]
    for reader in readers:
        reader.process.kill()
    for reader in readers:
        reader.kill()


def _checked(message: Any) -> Any:
    """A message, unless it is an error that is no fault of the data."""
    if isinstance(message, StoppedError):
        raise message
    if isinstance(message, reading.Raised):
        raise message.error from RuntimeError(f"in a process that reads:\n{message.text}")
    return message
