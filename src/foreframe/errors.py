"""What foreframe raises on purpose. Each message says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def printable(text: str) -> str:
    """`text` fit for one line of a message: line breaks, signs that steer a terminal and stray bytes are escaped."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class ForeframeError(Exception):
    """Base of every error that the user can fix: the command line prints it without a traceback, exit 1. Whatever a
    message holds, it breaks its own lines only, and steers no terminal."""

    def __str__(self) -> str:
        return "\n".join(map(printable, super().__str__().split("\n")))


class UsageError(ForeframeError):
    """The command itself is wrong (an unknown preset, an unknown flag): exit 2."""


class InputError(UsageError, ValueError):
    """Something given to a function of the Python API cannot be used."""


class ConfigError(ForeframeError):
    """A configuration cannot be read; the message holds the dotted path of the key."""


class CheckpointError(ForeframeError):
    """A run or checkpoint on disk is missing, damaged or of another kind; the message names the file."""


class DiskError(ForeframeError):
    """The disk refused (full, read-only, not permitted, broken); the message has path, cause, bytes needed and free."""


class TrainingError(ForeframeError):
    """Training cannot continue (a loss that is not finite); the message names the term, the step and the clips."""


class PeerError(TrainingError):
    """Another process of the same training has ended, so that this one has to."""


class NotFiniteError(ForeframeError):
    """A model predicted a frame that is not finite; the message has its number."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a source of clips: where it is, what was expected there and what was found; printable."""

    path: str
    where: str
    expected: str
    found: str

    def __post_init__(self) -> None:
        for name in ("path", "where", "expected", "found"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def __str__(self) -> str:
        place = f"{self.path}, {self.where}" if self.where else self.path
        return f"{place}: expected {self.expected}, found {self.found}"


class DataError(ForeframeError):
    """Clips cannot be used as they are. `faults` lists everything that is wrong, not only the first."""

    def __init__(self, message: str, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join([message, *(f"  {fault}" for fault in self.faults)]))


def unreadable(path: str | Path, where: str, expected: str, found: str) -> DataError:
    """The error for one fault of one file. path: as it is to be printed. where: a place in the file, or nothing."""
    return DataError("this file cannot be read:", [Fault(str(path), where, expected, found)])


@contextmanager
def reading(path: str | Path, where: str, expected: str, *types: type[Exception]) -> Iterator[None]:
    """Turns exceptions of the given types, and OSError, into `unreadable`, with their text as what was found."""
    caught: tuple[type[Exception], ...] = (OSError, *types)
    try:
        yield
    except caught as error:
        raise unreadable(path, where, expected, explain(error)) from error


def explain(error: BaseException) -> str:
    """The text of an exception in one line of at most 200 characters; its type where it has none."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else getattr(error, "strerror", None) or error
    return " ".join(str(text).split())[:200] or type(error).__name__


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `names`, or an empty string: the tail of an error message."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


class NumberFault(Fault):
    """Numbers of one row that cannot be used; what is wrong with a row or a table as a whole is a plain `Fault`.

    It counts only where one of `columns` is chosen, and where its row leads into a frame that is not left out by a
    stride, or into none at all, such as the last one with a shift of 1.

    columns: indices of the numbers, as in `SourceIndex.columns`. row: which row of the clip; unused in a `RawChunk`,
    whose faults stand under their row.
    """

    columns: tuple[int, ...]
    row: int

    def __init__(
        self, path: str, where: str, expected: str, found: str, columns: tuple[int, ...], row: int = -1
    ) -> None:
        super().__init__(path, where, expected, found)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "row", row)
