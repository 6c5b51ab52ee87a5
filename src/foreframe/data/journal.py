"""What a writer of a pack has done so far, so that a killed one can be taken up where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from foreframe.errors import DataError

JOURNAL, LOCK = "journal.jsonl", "lock"
SECONDS = 5.0
"""Between two times at which everything is brought to the disk."""


class BusyError(DataError):
    """Another process is making the same pack."""


class Journal:
    """A folder of arrays being written, and beside them a list of the clips that are in them whole.

    One line says which source it is, then one for each clip, then now and then how many frames are safely on the
    disk; clips behind the last such line do not count.

    found: {clip: (first frame, number of frames)} of the writer before.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.found: dict[str, tuple[int, int]] = {}
        self._lock: int | None = None
        self._lines: list[str] = []
        self._safe = self._end = 0
        self._last = time.monotonic()

    def open(self, files: Mapping[str, tuple[int, int]]) -> int:
        """Take the folder, emptied unless it holds this very work; returns how many frames are safe in it.

        files: {name: (bytes before the first frame, bytes of a frame)}.

        Raises:
            BusyError: another process is writing here.
        """
        self.folder.mkdir(exist_ok=True)
        self._take_lock()
        self._safe = self._read(files)
        if not self._safe:
            self.found = {}
            for path in self.folder.iterdir():
                if path.name != LOCK:
                    path.unlink()
            (self.folder / JOURNAL).write_text(json.dumps({"key": self.key}) + "\n", encoding="utf-8")
        return self._safe

    def note(self, clip: str, start: int, length: int, files: Collection[BinaryIO]) -> None:
        """A clip is whole; from time to time everything is brought to the disk."""
        if start + length <= self._safe:
            return
        self._lines.append(json.dumps({"clip": clip, "start": start, "length": length}))
        self._end = start + length
        if time.monotonic() - self._last > SECONDS:
            self._sync(files)

    def close(self, files: Collection[BinaryIO]) -> None:
        """Let go of the folder; with `files`, after everything was brought to the disk."""
        if files:
            with suppress(OSError):
                self._sync(files)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """The work is done: only the arrays stay."""
        (self.folder / JOURNAL).unlink()
        (self.folder / LOCK).unlink()

    def _sync(self, files: Collection[BinaryIO]) -> None:
        if not self._lines:
            return
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write("\n".join([*self._lines, json.dumps({"safe": self._end})]) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._lines = []
        self._last = time.monotonic()

    def _read(self, files: Mapping[str, tuple[int, int]]) -> int:
        """Fills `found`; how many frames are safe, 0 where the folder holds something else or too little."""
        safe = 0
        clips: dict[str, tuple[int, int]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            lines = (self.folder / JOURNAL).read_text(encoding="utf-8").splitlines()
            if json.loads(lines[0]) != {"key": self.key}:
                return 0
            for line in lines[1:]:  # a line cut short ends the loop
                entry = json.loads(line)
                if "safe" in entry:
                    safe = int(entry["safe"])
                    self.found |= clips
                    clips = {}
                else:
                    clips[entry["clip"]] = (int(entry["start"]), int(entry["length"]))
        for name, (before, frame) in files.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size < before + safe * frame:
                return 0
        return safe

    def _take_lock(self) -> None:
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            import fcntl
        except ImportError:  # Windows: nobody stops two at once
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise BusyError(f"{self.folder}: another process is making this pack; wait for it, or end it") from error
