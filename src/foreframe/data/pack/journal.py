"""What a writer of a pack has done so far, so that a killed one can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from foreframe import config, disk
from foreframe.errors import DataError, DiskError

JOURNAL, LOCK, ARRAYS = "journal.jsonl", "lock", "arrays"
SECONDS = 5.0
"""Between two times at which everything is brought to the disk."""


class BusyError(DataError):
    """Another process is making the same pack."""


class StoppedError(DataError):
    """Reading had to stop, through no fault of the clips; the next writer can continue."""


class Journal:
    """A folder in which arrays are being written, and beside them a list of the clips that are in them whole.

    Its first line says which source it is; then each clip has one, and now and then one says how many frames are safely
    on the disk. Clips behind the last of these do not count.

    arrays: the folder of the arrays. found: {clip: (first frame, number of frames)} of the writer before.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.arrays = folder / ARRAYS
        self.found: dict[str, tuple[int, int]] = {}
        self._lock = disk.Lock(folder / LOCK)
        self._lines: list[str] = []
        self._safe = self._end = 0
        self._last = time.monotonic()

    def open(self, files: Mapping[str, tuple[int, int]]) -> int:
        """Take the folder, emptied unless it holds this very work; returns how many frames are safe in it.

        files: {name: (bytes before the first frame, bytes of a frame)}. Raises BusyError: another process writes here.
        """
        self.folder.mkdir(exist_ok=True)
        try:
            holder = self._lock.take()
        except DiskError:
            with suppress(OSError):
                self.folder.rmdir()  # only where it is empty
            raise
        if holder:
            raise BusyError(f"{self.folder}: {holder} is making this pack; wait for it, or end it")
        try:
            self._safe = self._read(files)
            if not self._safe:
                self.found = {}
                if self.arrays.exists():
                    shutil.rmtree(self.arrays)
                self.arrays.mkdir()
                disk.write(self.folder / JOURNAL, (json.dumps({"key": self.key}) + "\n").encode())
        except BaseException:
            self.close(remove=not self.found)
            raise
        return self._safe

    @property
    def is_resumable(self) -> bool:
        """Whether anything is safely on the disk with which another writer could continue."""
        return self._safe > 0

    def note(self, clip: str, start: int, length: int, files: Collection[BinaryIO]) -> None:
        """A clip is whole; from time to time everything is brought to the disk."""
        if start + length <= self._safe:
            return
        self._lines.append(json.dumps({"clip": clip, "start": start, "length": length}))
        self._end = start + length
        if time.monotonic() - self._last > SECONDS:
            self.sync(files)

    def close(self, *, remove: bool) -> None:
        """Release the folder. `remove`: delete it, as the work is done or given up."""
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def sync(self, files: Collection[BinaryIO]) -> None:
        """Bring everything to the disk, and then record it."""
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
        self._safe = self._end
        self._last = time.monotonic()

    def _read(self, files: Mapping[str, tuple[int, int]]) -> int:
        """Fills `found`; how many frames are safe, 0 where the folder holds something else or too little."""
        safe = whole = end = 0
        clips: dict[str, tuple[int, int]] = {}
        path = self.folder / JOURNAL
        with suppress(OSError, ValueError, KeyError, TypeError):
            first, *lines = path.read_bytes().splitlines(keepends=True)
            if config.loads(first) != {"key": self.key}:
                return 0
            end = len(first)
            for line in lines:
                if not line.endswith(b"\n"):  # cut short
                    break
                entry = config.loads(line)
                end += len(line)
                if "safe" in entry:
                    safe, whole = int(entry["safe"]), end
                    self.found |= clips
                    clips = {}
                else:
                    clips[entry["clip"]] = (int(entry["start"]), int(entry["length"]))
        for name, (before, frame) in files.items():
            array = self.arrays / name
            if not array.is_file() or array.stat().st_size < before + safe * frame:
                return 0
        if safe:
            os.truncate(path, whole)  # what follows would stand in the way of new lines
        return safe
