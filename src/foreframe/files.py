"""Files that others made: which are plain, whether one has changed, and the ones used last, kept open."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from foreframe.errors import reading, unreadable

Key = TypeVar("Key")
Item = TypeVar("Item")


class Identity(NamedTuple):
    """What differs when a file is written again, or this process is another."""

    process: int
    inode: int
    size: int
    changed: int


def identity(path: Path, display_path: str | Path, expected: str = "a file that can be read") -> Identity:
    """Size in bytes and other properties of a plain file. `display_path` stands in messages. Raises DataError: no such
    file, a folder, pipe or device."""
    with reading(display_path, "", expected):
        facts = path.stat()
    if odd := not_plain(facts.st_mode):
        raise unreadable(display_path, "", expected, odd)
    return Identity(os.getpid(), facts.st_ino, facts.st_size, facts.st_mtime_ns)


def not_plain(mode: int) -> str:
    """The kind of anything with this st_mode but a plain file, or an empty string: to open a pipe may take for ever,
    and a device has no end."""
    if stat.S_ISREG(mode):
        return ""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"


class Recent(Generic[Key, Item]):
    """The items used last, by key; one that is dropped is closed, if it has a method `close`. limit: how many are kept;
    with `size`, their sizes in sum. The last one always stays."""

    def __init__(self, limit: int, size: Callable[[Item], int] = lambda item: 1) -> None:
        self.limit, self.size = limit, size
        self._items: dict[Key, Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Key) -> Item | None:
        """The item of a key, now the one used last."""
        item = self._items.pop(key, None)
        return None if item is None else self._items.setdefault(key, item)

    def use(self, key: Key, make: Callable[[], Item], fits: Callable[[Item], bool] = lambda item: True) -> Item:
        """The item of a key; made, and its predecessor closed, if there is none that `fits`."""
        item = self.get(key)
        if item is not None and fits(item):
            return item
        self.drop(key)
        return self.put(key, make())

    def put(self, key: Key, item: Item) -> Item:
        """Keep an item in place of any other of its key."""
        self.drop(key)
        self._items[key] = item
        while len(self._items) > 1 and sum(map(self.size, self._items.values())) > self.limit:
            self.drop(next(iter(self._items)))
        return item

    def drop(self, key: Key) -> None:
        """Close the item of a key, if there is one."""
        close = getattr(self._items.pop(key, None), "close", None)
        if close is not None:
            close()

    def clear(self) -> None:
        """Close all items."""
        for key in [*self._items]:
            self.drop(key)
