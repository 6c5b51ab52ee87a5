"""Listing of somebody's folder: sorted alike on every machine, never out of it, and plain files only."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

from foreframe.errors import DataError, Fault, explain, printable

SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}
"""Names of folders, in lower case, that hold a split."""
_PLATFORM_FILES = {"thumbs.db", "desktop.ini"}
DEEPEST = 24  # folders within folders that are followed


@dataclass
class Findings:
    """What is gathered in one source folder. remarks: lines for `notes`. ignored: files that no layout asked for."""

    root: Path
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def fault(self, path: Path, expected: str, found: str, where: str = "") -> None:
        self.faults.append(Fault(relative(path, self.root), where, expected, found))

    def ignore(self, folder: Path, names: Iterable[str]) -> None:
        self.ignored += [relative(folder / name, self.root) for name in names]

    @contextmanager
    def collecting(self, path: Path | None = None) -> Iterator[None]:
        """Take the faults of a DataError, and continue; with `path`, they are faults of that file."""
        try:
            yield
        except DataError as error:
            for fault in error.faults:
                if path is None:
                    self.faults.append(fault)
                else:
                    self.fault(path, fault.expected, fault.found, fault.where)

    def notes(self) -> tuple[str, ...]:
        """The remarks, and one line on the files that no layout asked for, if there are any."""
        if not self.ignored:
            return tuple(self.remarks)
        some = ", ".join(self.ignored[:3]) + (", ..." if len(self.ignored) > 3 else "")
        return (*self.remarks, f"{len(self.ignored)} other file{'s' * (len(self.ignored) > 1)} not used: {some}")


def listing(folder: Path, finds: Findings) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in `folder`, each in one order on every machine.

    Links that leave the source or lead nowhere, pipes and devices become faults; hidden and platform files are ignored.
    """
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _PLATFORM_FILES:
                    finds.ignored.append(relative(folder / entry.name, finds.root))
                elif entry.is_symlink() and (problem := _bad_link(folder / entry.name, finds.root)):
                    finds.fault(folder / entry.name, "a file, or a link that stays inside the source", problem)
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
                else:
                    finds.fault(folder / entry.name, "a plain file or a folder", "a pipe, socket or device")
    except OSError as error:
        finds.fault(folder, "a folder that can be read", explain(error))
    return sorted(files, key=_order), sorted(folders, key=_order)


def some_files(folder: Path, depth: int = 8, links: bool = True) -> Iterator[Path]:
    """A few thousand of the files below a folder; never raises. links: enter links to folders."""
    left = 4000
    todo = [(folder, depth)]
    while todo and left > 0:
        inner, deeper = todo.pop()
        folders = []
        try:
            with os.scandir(inner) as entries:
                for entry in islice(entries, 1000):
                    left -= 1
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=links):
                        folders.append(entry.name)
                    else:
                        yield inner / entry.name
        except OSError:
            continue
        if deeper:
            todo += [(inner / name, deeper - 1) for name in sorted(folders, reverse=True)]


def may_enter(folder: Path, finds: Findings) -> bool:
    """Whether a layout's folder is there and inside the source; a link that leads out of it becomes a fault."""
    try:
        if folder.is_symlink() and (problem := _bad_link(folder, finds.root)):
            finds.fault(folder, "a folder, or a link that stays inside the source", problem)
            return False
        return folder.is_dir()
    except OSError as error:
        finds.fault(folder, "a folder that can be read", explain(error))
        return False


def numbered(names: Iterable[str], pattern: re.Pattern[str]) -> tuple[dict[int, str], list[str], list[tuple[str, str]]]:
    """Names as {number: name} in rising order by the first group of `pattern`, the rest, and pairs of one number."""
    found: dict[int, str] = {}
    others, twice = [], []
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            others.append(name)
        elif (first := found.setdefault(int(match[1]), name)) != name:
            twice.append((first, name))
    return dict(sorted(found.items())), others, twice


def by_number(name: str) -> tuple[int, int, bytes]:
    """Sorting key of folder names: numbers first and by value (9 before 10), other names by their NFC bytes."""
    return (0, int(name), b"") if name.isascii() and name.isdecimal() and len(name) < 19 else (1, 0, _nfc(name))


def relative(path: Path, root: Path) -> str:
    """A path below the source as printed in messages: '/' between parts, what cannot be printed escaped."""
    return printable("/".join(path.relative_to(root).parts) or str(root))


def takes(numbers: Sequence[int], cuts: Iterable[int] = ()) -> list[tuple[int, ...]]:
    """Rising numbers in spans without a gap; a new one starts at each cut."""
    starts = [place for place, (a, b) in enumerate(pairwise(numbers), start=1) if b != a + 1 or b in cuts]
    return [tuple(numbers[first:end]) for first, end in pairwise([0, *starts, len(numbers)]) if end > first]


def runs(numbers: Iterable[int]) -> str:
    """Whole numbers in a few words: 3, 5 to 8, 11."""
    return _spans((take[0], take[-1]) for take in takes(sorted(numbers)))


def gaps(numbers: Iterable[int]) -> str:
    """Numbers missing between these, which rise: 5 to 8, 11; empty if there are none."""
    return _spans((before + 1, after - 1) for before, after in pairwise(numbers) if after > before + 1)


def _spans(spans: Iterable[tuple[int, int]]) -> str:
    words = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more spans" if len(words) > 8 else "")


def counted(things: Mapping[str, int]) -> str:
    """{'.jpg': 3} as `3 .jpg`, for messages."""
    return ", ".join(f"{number} {name or 'without ending'}" for name, number in sorted(things.items()))


def _bad_link(path: Path, root: Path) -> str:
    """What is wrong with a link, or an empty string."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        return f"a link that leads nowhere ({'a loop' if 'loop' in str(error).lower() else 'no such file'})"
    return "" if target.is_relative_to(root.resolve()) else f"a link to {target}"


def _order(name: str) -> tuple[bytes, bytes]:
    return _nfc(name), os.fsencode(name)


def _nfc(name: str) -> bytes:
    return unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")
