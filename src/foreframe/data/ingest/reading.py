"""What a reading process does: jobs, within limits; see `pool`. It imports little, so that it starts in a second."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from foreframe import signals
from foreframe.data.ingest.transform import ReadyClip
from foreframe.data.layouts.contract import ClipChunk
from foreframe.data.pack.journal import StoppedError
from foreframe.errors import DataError, Fault, UsageError

resource: Any = None
with suppress(ImportError):  # Windows: no limits but that of the clock
    resource = importlib.import_module("resource")

CHUNK_BYTES = 2**26
"""Bytes of recorded pictures in a chunk, at most."""
ALLOWANCE = "FOREFRAME_READER_LIMITS"
"""Variable of the environment: a factor for all limits."""
STATUS = Path("/proc/self/status")
PATH_BYTES = 4096
Outcome = ClipChunk | DataError
"""Result of reading a span of a clip; after a DataError nothing more of this clip is read."""


@dataclass(frozen=True)
class Limits:
    """What a reading process may use. memory: bytes more than it has when it starts. cpu: seconds of processor time
    for one file or chunk. seconds: by the clock, without a new file or chunk."""

    memory: int = 2**32
    cpu: int = 600
    seconds: float = 1800.0

    @classmethod
    def from_environment(cls) -> Limits:
        """The usual limits times $FOREFRAME_READER_LIMITS. Raises UsageError: that is no positive number."""
        given = os.environ.get(ALLOWANCE, "1")
        try:
            factor = float(given)
        except ValueError:
            factor = 0.0
        if not 0 < factor <= 1e6:
            raise UsageError(f"{ALLOWANCE}: expected a factor for the limits, such as 4, found '{given}'")
        return cls(int(cls.memory * factor), max(1, int(cls.cpu * factor)), cls.seconds * factor)


def spans(clip: ReadyClip, chunk: int) -> Iterator[tuple[int, int]]:
    """Where the chunks of a clip begin and end, of `chunk` frames at most."""
    height, width = clip.transform.native
    step = max(1, min(chunk, CHUNK_BYTES // (3 * height * width * clip.transform.stride)))
    for start in range(0, clip.length, step):
        yield start, min(start + step, clip.length)


def over_limit(name: str, limit: str) -> DataError:
    found = f"one that needs more; if you trust it, set {ALLOWANCE}=4 for four times as much, otherwise leave it out"
    return unreadable(name, f"a file that is read within {limit}", found)


def unreadable(name: str, expected: str, found: str) -> DataError:
    return DataError(f"{name}: cannot be read", [Fault(name, "", expected, found)])


def work(connection: Connection, limits: Limits, file: Any, parent: int) -> None:
    """Do jobs until nobody wants them any more: then the connection is closed."""
    signals.ignore()
    with suppress(EOFError, ConnectionError):
        Guard.start(limits, file, parent)
        connection.send(None)  # ready to be sent a long list
        while True:
            serve(connection, connection.recv())
    os._exit(0)  # nothing to tidy up, and taking the interpreter apart can take seconds


def serve(connection: Connection, job: Call | Clips) -> None:
    """Send what a job gives, no faster than it is received: a full connection lets it wait."""
    try:
        for outcome in job.outcomes():
            connection.send(outcome)
    except ConnectionError:
        raise
    except Exception as error:
        connection.send(Raised(error, traceback.format_exc()))


@dataclass(frozen=True)
class Raised:
    """An error that is no fault of the data: wrong usage, or a mistake of ours."""

    error: Exception
    text: str


@dataclass(frozen=True)
class Call:
    """Read the index of a source."""

    function: Callable[[], Any]
    source: str

    def outcomes(self) -> Iterator[Any]:
        Guard.watch(self.source)
        try:
            found = self.function()
        except MemoryError:
            found = Guard.out_of_memory("")
        yield found


@dataclass(frozen=True)
class Clips:
    """Read clips; gives (outcome, whether it is the last one of its clip)."""

    clips: tuple[ReadyClip, ...]
    chunk: int
    source: str

    def outcomes(self) -> Iterator[tuple[Outcome, bool]]:
        for clip in self.clips:
            Guard.watch(self.source)
            for start, outcome in read_clip(clip, self.chunk):
                done = isinstance(outcome, DataError) or start + len(outcome.frames) >= clip.length
                yield outcome, done


def read_clip(clip: ReadyClip, chunk: int) -> Iterator[tuple[int, Outcome]]:
    for start, stop in spans(clip, chunk):
        Guard.renew()
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
        if Guard.limits is not None:
            return Guard.out_of_memory(clip.name)
        raise StoppedError(
            f"{clip.name}: not enough memory to read it; what was done is kept: start again with more memory"
        ) from error
    except Exception as error:
        error.add_note(f"This happened while frames {start} to {stop - 1} of the clip {clip.name} were read.")
        raise


class Guard:
    """The limits of this process, if it is one that reads."""

    limits: Limits | None = None
    _file: Any = None
    _folder = ""
    _parent = 0

    @classmethod
    def start(cls, limits: Limits, file: Any, parent: int) -> None:
        cls.limits, cls._file, cls._parent = limits, file, parent
        if resource is not None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
            if (used := _data_bytes()) is not None:
                _set_soft(resource.RLIMIT_DATA, used + limits.memory)
        cls.renew()
        sys.addaudithook(cls._note)

    @classmethod
    def renew(cls) -> None:
        """Processor time for the next file or chunk."""
        if cls.limits is not None and resource is not None:
            _set_soft(resource.RLIMIT_CPU, int(time.process_time()) + cls.limits.cpu)

    @classmethod
    def watch(cls, folder: str) -> None:
        """Note files of this folder as they are opened."""
        cls._folder = folder
        if cls._file is not None:
            cls._file.value = b""

    @classmethod
    def _note(cls, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook: a library that opens files without Python calls `sys.audit("open", ...)` beforehand."""
        if event == "open" and cls._folder and isinstance(arguments[0], str) and arguments[0].startswith(cls._folder):
            cls._file.value = os.fsencode(arguments[0])[: PATH_BYTES - 1]
            cls.renew()
            if os.getppid() != cls._parent:  # nobody waits for the result
                os._exit(1)

    @classmethod
    def out_of_memory(cls, name: str) -> DataError:
        assert cls.limits is not None
        place = name or os.fsdecode(cls._file.value) or cls._folder
        return over_limit(place, f"{cls.limits.memory / 2**20:,.0f} MiB of memory")


def _set_soft(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _data_bytes() -> int | None:
    """Bytes of this process that count for RLIMIT_DATA (maps of files do not); None where only Linux would say."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmData:"):
                return 1024 * int(line.split()[1])
    return None
