"""What layouts of pictures and videos in folders have in common: splits, deep folders, numbers in names, tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from statistics import mode
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import CondKind
from foreframe.data.formats.folders import DEEPEST, SPLIT_OF, Findings, by_number, counted, listing, relative
from foreframe.data.formats.images import PICTURES, read_pictures
from foreframe.data.formats.tables import read_named_table
from foreframe.data.layouts.contract import SPLITS, RawChunk, Read, SourceClip, SourceIndex
from foreframe.errors import Fault, NumberFault, printable
from foreframe.video.pixels import Size

T = TypeVar("T")

_WAYS = 64
"""Ways through links by which one folder is entered: links to folders of links would double them at every step."""
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)


def index_of(
    layout: str,
    clips: Sequence[SourceClip],
    size: Size | None,
    finds: Findings,
    cond: CondKind = "none",
    columns: tuple[str, ...] = (),
    chosen: tuple[str, ...] = (),
    shift: int = 0,
    fps: float | None = None,
    measured: tuple[str, ...] = (),
) -> SourceIndex:
    """The clips of a layout with all that was found beside them."""
    faults, warnings, notes = tuple(finds.faults), tuple(finds.warnings), finds.notes()
    return SourceIndex(layout, tuple(clips), size, cond, columns, chosen, measured, shift, faults, warnings, notes, fps)


def safely(look: Callable[[], bool]) -> bool:
    """What `path.is_dir` or another such question answers; False where nobody may look, the path is too long, or its
    links lead round in a circle."""
    try:
        return look()
    except (OSError, RuntimeError):
        return False


def splits(folder: Path, endings: Iterable[str], finds: Findings) -> list[tuple[str, Path]]:
    """(split, folder) of train/, val/ and test/; ("", folder) where there are none of them.

    Where there are some, files with such endings that are in none of them become faults.
    """
    _, folders = listing(folder, Findings(folder))
    found: dict[str, str] = {}
    for name in folders:
        split = SPLIT_OF.get(name.lower())
        if split and found.setdefault(split, name) != name:
            finds.fault(folder / name, "one folder for the split", f"also {found[split]}/")
    if not found:
        return [("", folder)]
    _check_outside(folder, set(endings), finds)
    return [(split, folder / found[split]) for split in SPLITS if split in found]


def _check_outside(folder: Path, wanted: set[str], finds: Findings) -> None:
    files, folders = listing(folder, finds)
    others = [(folder, files)]
    for name in folders:
        if name.lower() not in SPLIT_OF:
            others += walk(folder / name, finds)
    for path, names in others:
        strays = [name for name in names if Path(name).suffix.lower() in wanted]
        rest = [name for name in names if Path(name).suffix.lower() not in wanted]
        finds.ignore(path, rest)
        if strays:
            found = f"one outside of them{f' ({len(strays)} there)' if len(strays) > 1 else ''}"
            finds.fault(path / strays[0], "clips in train/, val/ and test/ only", found)


def walk(folder: Path, finds: Findings) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at and below `folder` with the names of its files; numbered folders by their number."""
    ways: Counter[Path] = Counter()
    todo: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(),))]
    while todo:
        path, around = todo.pop()
        files, folders = listing(path, finds)
        yield path, files
        deeper = []
        for name in sorted(folders, key=by_number):
            inner = path / name
            real = inner.resolve() if inner.is_symlink() else around[-1] / name
            if real in around or len(around) > DEEPEST:
                finds.fault(inner, f"folders {DEEPEST} deep at most", "a link to a folder around it, or a deeper one")
            elif ways[real] == _WAYS:
                finds.fault(inner, f"at most {_WAYS} ways into one folder", "a link that makes one more")
            else:
                ways[real] += 1
                deeper.append((inner, (*around, real)))
        todo += reversed(deeper)


def named_like_a_file(path: Path, endings: Iterable[str], finds: Findings) -> None:
    """A folder without folders in it, in which nothing was found, becomes a fault if it is named as files are."""
    if path != finds.root and path.suffix.lower() in endings and not listing(path, Findings(path))[1]:
        finds.fault(path, f"a file ({path.suffix})", "a folder")


def pictures_of(path: Path, files: Iterable[str], own: Findings) -> tuple[dict[int, str], list[str], frozenset[int]]:
    """Pictures of one folder by their number, in rising order, the other files, and the numbers of two pictures.

    The number is the last run of digits in the name; what else differs between names becomes a fault in `own`.
    """
    others: list[str] = []
    doubtful: set[int] = set()
    kinds: dict[tuple[str, str, str], dict[int, str]] = {}
    for name in files:
        file = Path(name)
        if file.suffix.lower() not in PICTURES:
            others.append(name)
            continue
        match = _NUMBERED.fullmatch(file.stem)
        if match is None:
            own.fault(path / name, "a picture with a number in its name", "none")
            continue
        found = kinds.setdefault((match[1], match[3], file.suffix.lower()), {})
        first = found.setdefault(int(match[2]), name)
        if first != name:
            own.fault(path, "one picture for each number", f"{first} and {name}")
            doubtful.add(int(match[2]))
    if not kinds:
        return {}, others, frozenset()
    usual = max(kinds, key=lambda kind: len(kinds[kind]))
    for kind, names in kinds.items():
        if kind != usual:
            some, like = next(iter(names.values())), printable(next(iter(kinds[usual].values())))
            more = f" ({len(names)} such names)" if len(names) > 1 else ""
            own.fault(path / some, f"a name that differs from {like} in its number only", f"another name{more}")
    return dict(sorted(kinds[usual].items())), others, frozenset(doubtful)


@lru_cache(maxsize=64)
def one_copy(items: tuple[T, ...]) -> tuple[T, ...]:
    """The same items, in one copy for all clips that have them, so that 40,000 clips take little memory."""
    return items


def read_frames_of(
    folder: Path, names: Sequence[str], numbers: Sequence[int], native: Size, root: Path, start: int, stop: int
) -> RawChunk:
    """Pictures start to stop-1 of a folder."""
    paths = [folder / name for name in names[start:stop]]
    return RawChunk(*read_pictures(paths, numbers[start:stop], native, root))


def read_rows_of(values: NDArray[np.float32], start: int, stop: int) -> RawChunk:
    """Rows start to stop-1 of a table that is in memory."""
    return RawChunk(values[start:stop])


Tabled = tuple[Path, tuple[Path, ...], int | None]
"""The folder or video of a clip, the tables beside it, of which there may be one, and its frames, if anybody knows."""


def rows_beside(
    clips: Sequence[Tabled], each: str, missing: str, root: Path
) -> tuple[tuple[str, ...], list[tuple[Read | None, tuple[Fault, ...]]]]:
    """What the tables beside clips hold: names of the columns; and for each clip its rows, and what is wrong there.

    Without any table there are no rows. All have the columns that most have: others get a fault, and zeros. Columns
    without names are called column_0, column_1, ... `each` and `missing` are for messages.
    """
    if not any(tables for _, tables, _ in clips):
        return (), [(None, ())] * len(clips)
    read = [_Table(tables[0], root, length) if tables else None for _, tables, length in clips]
    present = [table for table in read if table is not None]
    whole = [table for table in present if not table.faults] or [t for t in present if t.values.shape[1]]
    kind = Counter(table.kind for table in whole).most_common(1)[0][0] if whole else ((), 0)
    like = next((table for table in whole if table.kind == kind), None)
    found: list[tuple[Read | None, tuple[Fault, ...]]] = []
    for table, (path, tables, length) in zip(read, clips, strict=True):
        if table is None:
            values = np.zeros((length or 0, kind[1]), np.float32)
            faults: tuple[Fault, ...] = (Fault(relative(path, root), "", missing, "none"),)
        else:
            values, faults = table.like(like)
        if len(tables) > 1:
            more = Fault(relative(tables[1], root), "", f"one table {each}", f"also {tables[0].name}")
            faults = (more, *faults)
        found.append((partial(read_rows_of, values), faults))
    return kind[0] or tuple(f"column_{number}" for number in range(kind[1])), found


class _Table:
    """The table of one clip, which should have this many rows."""

    def __init__(self, path: Path, root: Path, rows: int | None) -> None:
        self.shown = relative(path, root)
        self.values, self.names, self.faults = read_named_table(path, self.shown, rows)

    @property
    def kind(self) -> tuple[tuple[str, ...], int]:
        return self.names, self.values.shape[1]

    @property
    def columns(self) -> str:
        if not self.names:
            return f"{self.values.shape[1]} without names"
        return ", ".join(self.names[:12]) + (f", ... ({len(self.names)})" if len(self.names) > 12 else "")

    def like(self, other: _Table | None) -> tuple[NDArray[np.float32], tuple[Fault, ...]]:
        """Its numbers and faults, if it has the columns of another; else zeros, and a fault."""
        if other is None or self.kind == other.kind:
            return self.values, tuple(self.faults)
        plain = tuple(fault for fault in self.faults if not isinstance(fault, NumberFault))
        wrong = Fault(self.shown, "", f"the columns of {other.shown}: {other.columns}", self.columns)
        return np.zeros((len(self.values), other.values.shape[1]), np.float32), plain or (wrong,)


def usual_size(sizes: Sequence[Size], finds: Findings) -> Size | None:
    """The size that most clips have, of equals the first; that there are others is worth a remark."""
    counts = Counter(f"{size[1]}x{size[0]}" for size in sizes)
    if len(counts) > 1:
        finds.remarks.append(f"clips of several sizes: {counted(counts)}")
    return mode(sizes) if sizes else None
