"""What layouts of pictures and videos in folders have in common: splits, deep folders, numbers in names, tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreframe.data.formats.folders import DEEPEST, SPLIT_OF, Findings, by_number, counted, listing, relative
from foreframe.data.formats.images import PICTURES, read_pictures
from foreframe.data.formats.tables import read_named_table
from foreframe.data.layouts.contract import RawChunk
from foreframe.errors import Fault, NumberFault, printable
from foreframe.video.pixels import Size

_WAYS = 64
"""Ways through links by which one folder is entered: links to folders of links would double them at every step."""
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)


def safely(look: Callable[[], bool]) -> bool:
    """What `path.is_dir` or another such question answers; False where nobody may look, or the path is too long."""
    try:
        return look()
    except OSError:
        return False


def splits(folder: Path, finds: Findings) -> list[tuple[str, Path]]:
    """(split, folder) of train/, val/ and test/; ("", folder) where there are none of them."""
    _, folders = listing(folder, Findings(folder))
    found: dict[str, str] = {}
    for name in folders:
        split = SPLIT_OF.get(name.lower())
        if split is None:
            continue
        if split in found:
            finds.fault(folder / name, "one folder for the split", f"also {found[split]}/")
        else:
            found[split] = name
    return [(split, folder / found[split]) for split in ("train", "val", "test") if split in found] or [("", folder)]


def outside(folder: Path, parts: Sequence[tuple[str, Path]], endings: Iterable[str], finds: Findings) -> None:
    """Where there are folders for splits, files with such endings that are in none of them become faults."""
    if parts[0][0] == "":
        return
    wanted = set(endings)
    files, folders = listing(folder, finds)
    others = [(folder, files)]
    for name in folders:
        if name.lower() not in SPLIT_OF:
            others += walk(folder / name, finds)
    for path, names in others:
        strays = [name for name in names if Path(name).suffix.lower() in wanted]
        rest = [name for name in names if Path(name).suffix.lower() not in wanted]
        finds.ignored += [relative(path / name, finds.root) for name in rest]
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

    The number is the last run of digits in the name; all else must be the same in all names. What is not becomes a
    fault in `own`.
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


def gaps(numbers: Iterable[int]) -> str:
    """Numbers missing between these, which rise: `5 to 8, 11`; empty if there are none."""
    missing = [(before + 1, after - 1) for before, after in pairwise(numbers) if after > before + 1]
    words = [str(first) if first == last else f"{first} to {last}" for first, last in missing]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more spans" if len(words) > 8 else "")


def read_frames_of(
    folder: Path, names: Sequence[str], numbers: Sequence[int], native: Size, root: Path, start: int, stop: int
) -> RawChunk:
    """Pictures start to stop-1 of a folder."""
    paths = [folder / name for name in names[start:stop]]
    return RawChunk(*read_pictures(paths, numbers[start:stop], native, root))


def read_rows_of(values: NDArray[np.float32], start: int, stop: int) -> RawChunk:
    """Rows start to stop-1 of a table that is in memory."""
    return RawChunk(values[start:stop])


@dataclass(frozen=True)
class Beside:
    """The table of one clip as it was read."""

    shown: str
    values: NDArray[np.float32]
    names: tuple[str, ...]
    faults: tuple[Fault, ...]


def read_beside(path: Path, root: Path, rows: int | None) -> Beside:
    """The table at `path`, which should have this many rows."""
    shown = relative(path, root)
    values, names, faults = read_named_table(path, shown, rows)
    return Beside(shown, values, names, tuple(faults))


def agree(tables: Sequence[Beside]) -> tuple[tuple[str, ...], list[Beside]]:
    """Names of the columns that most tables have, and all tables with these: others get a fault, and zeros.

    Columns without names are called column_0, column_1, ...
    """
    whole = [table for table in tables if not table.faults] or [table for table in tables if table.values.shape[1]]
    if not whole:
        return (), list(tables)
    usual, _ = Counter(map(_kind, whole)).most_common(1)[0]
    like = next(table for table in whole if _kind(table) == usual)
    names, width = usual
    agreed = []
    for table in tables:
        if _kind(table) != usual:
            zeros = np.zeros((len(table.values), width), np.float32)
            wrong = Fault(table.shown, "", f"the columns of {like.shown}: {_columns(like)}", _columns(table))
            plain = tuple(fault for fault in table.faults if not isinstance(fault, NumberFault))
            table = replace(table, values=zeros, faults=plain or (wrong,))
        agreed.append(table)
    return names or tuple(f"column_{number}" for number in range(width)), agreed


def _kind(table: Beside) -> tuple[tuple[str, ...], int]:
    return table.names, table.values.shape[1]


def _columns(table: Beside) -> str:
    if not table.names:
        return f"{table.values.shape[1]} without names"
    return ", ".join(table.names[:12]) + (f", ... ({len(table.names)})" if len(table.names) > 12 else "")


def size_notes(sizes: Iterable[Size | None]) -> tuple[str, ...]:
    """One line on clips of different sizes, or nothing."""
    counts = Counter(f"{size[1]}x{size[0]}" for size in sizes if size is not None)
    return (f"clips of several sizes: {counted(counts)}",) if len(counts) > 1 else ()
