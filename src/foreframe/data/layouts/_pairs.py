"""Frames in one folder and what shows the poses in another beside it: what such layouts have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from foreframe.data.formats.folders import SPLIT_OF, Findings, gaps, listing, relative, some_files, takes
from foreframe.data.formats.images import PICTURES, commonest_size
from foreframe.data.layouts._shared import index_of, pictures_of, read_frames_of, splits, usual_size, walk
from foreframe.data.layouts.contract import Read, SourceClip, SourceIndex
from foreframe.errors import printable
from foreframe.video.pixels import Size

FRAMES = ("frames", "images", "img", "rgb")  # names of the folder of frames, in lower case


@dataclass(frozen=True)
class Folder:
    """One folder of frames: its place below the frames and its pictures by number, in rising order.

    frames, partners: the two folders that stand beside each other. below: '/' between parts, empty for the frames
    themselves. doubtful: numbers that two pictures claim, so that it is unknown which is meant.
    tree: names of files in every folder at and below `partners`, by such a place.
    """

    split: str
    prefix: str
    frames: Path
    partners: Path
    below: str
    pictures: dict[int, str]
    doubtful: frozenset[int]
    tree: dict[str, dict[str, None]]

    @property
    def path(self) -> Path:
        return self.frames / self.below

    @property
    def path_beside(self) -> Path:
        return self.partners / self.below

    @property
    def name(self) -> str:
        """As clips of this folder are called; empty for pictures right in the frames, without a split."""
        return "/".join(filter(None, (self.prefix, printable(self.below))))


@dataclass(frozen=True)
class Paired:
    """A folder of frames with its poses.

    numbers: of its frames that have a pose. rows: how those of a take are read, given the size of the frames. file:
    that holds the poses of all frames, if there is one.
    """

    item: Folder
    numbers: Collection[int]
    rows: Callable[[tuple[int, ...], Size], Read]
    file: str = ""


def index_of_pairs(layout: str, pairs: Sequence[Paired], finds: Findings) -> SourceIndex:
    """The takes by the numbers of their frames. Each may be cut again at a bad frame."""
    natives = [few_sizes(pair.item.path, list(pair.item.pictures.values())) for pair in pairs]
    size = usual_size([native for native in natives if native is not None], finds)
    clips = []
    for pair, found in zip(pairs, natives, strict=True):
        item, native = pair.item, found or size or (1, 1)
        cut = takes([number for number in item.pictures if number in pair.numbers and number not in item.doubtful])
        for taken in cut:
            names = tuple(item.pictures[number] for number in taken)
            frames = partial(read_frames_of, item.path, names, taken, native, finds.root)
            part = partial(part_name, item.name, taken, len(cut) == 1 and bool(item.below))
            rows = pair.rows(taken, native)
            name = part(0, len(taken))
            clips.append(SourceClip(name, item.split, len(taken), frames, rows, part=part, file=pair.file))
        if missing := gaps(item.pictures):
            name = item.name or relative(item.frames, item.frames.parent)
            finds.warnings.append(f"{name}: no frame {missing}; the take is cut there")
    return index_of(layout, clips, size, finds, "image", ("pose",))


def few_sizes(folder: Path, names: Sequence[str]) -> Size | None:
    """The commonest size among a few pictures of a folder."""
    step = max(1, len(names) // 8)
    return commonest_size(folder / name for name in names[::step])


def looks_paired(folder: Path, partners: Iterable[str], endings: Iterable[str]) -> bool:
    """Whether there are pictures in a folder of frames and files with such endings in one of `partners` beside it."""
    wanted = set(endings)
    try:
        bases = [folder, *(entry for entry in folder.iterdir() if entry.name.lower() in SPLIT_OF and entry.is_dir())]
        for base in bases:
            inside = {entry.name.lower(): entry for entry in base.iterdir()}
            sides = [[inside[name] for name in names if name in inside] for names in (FRAMES, partners)]
            if all(sides) and all(
                any(path.suffix.lower() in kinds for side in found for path in some_files(side))
                for found, kinds in zip(sides, (set(PICTURES), wanted), strict=True)
            ):
                return True
    except OSError:
        return False
    return False


def folders(folder: Path, partners: Sequence[str], what: str, finds: Findings) -> list[Folder]:
    """Every folder of frames that has pictures in it; `what` stands in the folder beside it, in words."""
    found: list[Folder] = []
    for split, base in splits(folder, PICTURES, finds):
        files, inside = listing(base, finds)
        sides = [_side(base, inside, names, words, finds) for names, words in ((FRAMES, "frames"), (partners, what))]
        finds.ignore(base, (name for name in (*files, *inside) if base / name not in sides))
        frames, other = sides
        if frames is None or other is None:
            continue
        prefix = relative(base, folder) if base != folder else ""
        tree = {_below(path, other): dict.fromkeys(files) for path, files in walk(other, finds)}
        known, faulty = len(found), len(finds.faults)
        for path, files in walk(frames, finds):
            pictures, others, doubtful = pictures_of(path, files, finds)
            finds.ignore(path, others)
            if pictures:
                found.append(Folder(split, prefix, frames, other, _below(path, frames), pictures, doubtful, tree))
        if len(found) == known and len(finds.faults) == faulty:
            finds.fault(frames, "pictures, or a folder of pictures for each clip", "none")
    return _with_inner_splits(found)


def _below(path: Path, folder: Path) -> str:
    return "/".join(path.relative_to(folder).parts)


def _with_inner_splits(found: list[Folder]) -> list[Folder]:
    """Folders named train, val and test may also stand below the frames, if all clips are in them."""
    inner = [SPLIT_OF.get(item.below.split("/")[0].lower(), "") for item in found]
    if not all(inner) or any(item.split for item in found):
        return found
    return [replace(item, split=split) for split, item in zip(inner, found, strict=True)]


def part_name(name: str, numbers: tuple[int, ...], whole: bool, start: int, stop: int) -> str:
    """A take that fills a folder has its name; others are named by their first and last frame."""
    if whole and (start, stop) == (0, len(numbers)):
        return name
    return "/".join(filter(None, (name, f"{numbers[start]:06d}-{numbers[stop - 1]:06d}")))


def _side(base: Path, inside: Sequence[str], names: Sequence[str], what: str, finds: Findings) -> Path | None:
    """The one folder of `base` with one of these names; none or several become a fault."""
    found = [name for name in inside if name.lower() in names]
    if len(found) != 1:
        finds.fault(base, f"one folder of {what} ({', '.join(names)})", " and ".join(found) or "none")
        return None
    return base / found[0]
