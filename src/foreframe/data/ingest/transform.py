"""From clips as they were recorded to clips as they are packed: columns, shift, stride, size, windows, splits.

All sources go through here, and only here do recorded rows become conditions that lead into their frame.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec
from foreframe.data.formats.images import Fit, check_size, fitted
from foreframe.data.formats.tables import read_json
from foreframe.data.ingest.report import count
from foreframe.data.layouts.contract import SPLITS, ClipChunk, RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import LAYOUT_OPTIONS, Between, Options
from foreframe.data.layouts.registry import find_layout
from foreframe.data.pack.manifest import FIT, fit_name
from foreframe.errors import DataError, Fault, NumberFault, UsageError, nearest
from foreframe.video.pixels import Size

NONE = "none"
"""As `columns`: no condition at all."""
FEW = 3
"""From this many clips on, each split with a share gets at least one."""


@dataclass(frozen=True)
class ReadyClip:
    """One clip as it will be packed. first: the recorded frame that its frame 0 is."""

    name: str
    split: str
    length: int
    transform: ClipTransform
    source: SourceClip
    first: int = 0

    def read(self, start: int, stop: int) -> ClipChunk:
        return self.transform.read(self.source, self.first, start, stop)

    def part(self, start: int, stop: int) -> str:
        """Name of the part (start, stop) of this clip."""
        first, last = (self.first + self.transform.stride * index for index in (start, stop - 1))
        return _part(self.source, first, last + 1)

    @property
    def cuttable(self) -> bool:
        """Whether it may be cut in two at a bad frame."""
        return self.source.part is not None

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong with it as a whole; faults of single numbers come with the frames that need them."""
        return _clip_level(self.source)


@dataclass(frozen=True)
class ClipTransform:
    """What is done to each span of a clip. native: (H, W) of the recorded pictures, where it is known. columns: the
    numbers of a row that are taken; None: there is no row, or it is a picture."""

    native: Size
    size: Size
    fit: Fit
    stride: int
    between: Between
    shift: int
    columns: tuple[int, ...] | None
    conditioned: bool

    def read(self, clip: SourceClip, first: int, start: int, stop: int) -> ClipChunk:
        """Frames start to stop-1, counted after the stride from recorded frame `first` on."""
        recorded = first + self.stride * np.arange(start, stop)
        begin, end = int(recorded[0]), int(recorded[-1]) + 1
        taken = clip.frames(begin, end)
        frames = fitted(taken.values[:: self.stride], self.size, self.fit)
        faults = {i // self.stride: found for i, found in taken.faults.items() if i % self.stride == 0}
        if clip.rows is None or not self.conditioned:
            return ClipChunk(frames, None, faults)
        joined = self.columns is not None and self.between == "join"
        rows_at = rows_for(recorded, clip.length, self.shift, self.stride if joined else 1)
        # Rows that lead to before the clip, or behind it, are judged with its first or last chunk.
        low = 0 if begin == 0 else int(rows_at.min())
        high = clip.length if end + self.stride > clip.length else int(rows_at.max()) + 1
        rows = clip.rows(low, high)
        for row, found in self._counted(clip, rows, low, high).items():
            places = np.flatnonzero((rows_at == row).any(axis=1)).tolist()
            if not places and not 0 <= (into := row + self.shift) < clip.length:
                places = [0 if into < 0 else len(frames) - 1]
            for place in places:
                faults[place] = (*faults.get(place, ()), *found)
        return ClipChunk(frames, self._cond(rows.values, rows_at - low), dict(sorted(faults.items())))

    def _counted(self, clip: SourceClip, rows: RawChunk, low: int, high: int) -> dict[int, tuple[Fault, ...]]:
        """The faults of each row of low to high-1; of single numbers only those in a column that is chosen."""
        found = {low + index: list(faults) for index, faults in rows.faults.items()}
        for fault in clip.faults:
            if isinstance(fault, NumberFault) and low <= fault.row < high:
                found.setdefault(fault.row, []).append(fault)
        chosen = set(self.columns or ())
        counted = {}
        for row, faults in sorted(found.items()):
            if counts := [each for each in faults if not isinstance(each, NumberFault) or chosen & {*each.columns}]:
                counted[row] = tuple(Fault(each.path, each.where, each.expected, each.found) for each in counts)
        return counted

    def _cond(self, rows: NDArray[Any], at: NDArray[np.intp]) -> NDArray[Any]:
        if self.columns is None:
            return fitted(rows[at[:, -1]], self.size, self.fit)
        numbers: NDArray[Any] = rows[:, list(self.columns)][at]
        return numbers.reshape(len(at), -1)


def rows_for(frames: NDArray[np.intp], length: int, shift: int, stride: int = 1) -> NDArray[np.intp]:
    """(T, stride): the recorded rows that lead into each of T frames and, before it, into those that the stride leaves
    out. Row t leads into frame t + shift; the first or last of the `length` rows stands in where there is none."""
    into = frames[:, None] + np.arange(1 - stride, 1)
    rows: NDArray[np.intp] = np.clip(into - shift, 0, length - 1)
    return rows


@dataclass(frozen=True)
class PreparedSource:
    """A source's index made ready for reading: what every clip will be, and what concerns all of them."""

    layout: str
    spec: ClipSpec | None
    clips: tuple[ReadyClip, ...]
    cond_names: tuple[str, ...]
    measured: tuple[str, ...]
    shift: int
    options: Mapping[str, Any]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    fps: float | None


def shape(survey: SourceIndex, options: Options) -> PreparedSource:
    """Apply the options that are the same for every source. Raises UsageError: an option cannot be, or names a column
    that is not there; DataError: the list of splits cannot be read."""
    _check(options)
    size = check_size(options.size or survey.size or (1, 1))
    columns = _columns(survey, options)
    shift = survey.shift if options.shift is None else options.shift
    conditioned = bool(columns) or (survey.cond == "image" and (options.columns or survey.chosen) != (NONE,))
    native, fit, stride, between = survey.size, options.fit, options.stride, options.between
    transform = ClipTransform(native or size, size, fit, stride, between, shift, columns or None, conditioned)
    names = _names(survey, columns, transform) if conditioned else ()
    measured = _measured(survey, names, options)
    notes: list[str] = []
    clips, faults = _with_splits(_with_names(survey.clips), options, notes)
    spec = None
    if native is not None:
        kind = survey.cond if conditioned else "none"
        spec = ClipSpec(3, *size, kind, {"none": 0, "image": 3, "vector": len(names)}[kind])
    warnings = list(survey.warnings)
    if options.shift and conditioned and (short := [clip for clip in clips if clip.length <= abs(shift)]):
        warnings.append(
            f"{count(len(short), 'clip')} not longer than the shift of {shift}: one row leads into each frame"
        )
    if native and options.size and fit == "stretch" and native[0] * size[1] != native[1] * size[0]:
        notes.append(
            f"pictures of {native[0]}x{native[1]} are stretched to {size[0]}x{size[1]}; --fit crop or --fit pad keeps "
            "their shape"
        )
    roles = [_roles(names, measured)] if columns else []
    return PreparedSource(
        survey.layout,
        spec,
        tuple(_ready(clips, transform, options.window, notes)),
        names,
        measured,
        shift if conditioned else 0,
        options.used(),
        (*survey.faults, *faults),
        tuple(warnings),
        (*survey.notes, *notes, *roles),
        survey.fps / stride if survey.fps else None,
    )


def refuse_options(options: Options, what: object) -> None:
    """UsageError where options are given for clips that are packed already."""
    if given := options.used():
        raise UsageError(
            f"{what}: packed already, so {', '.join(given)} cannot be chosen any more; import its source again with it"
        )


def _check(options: Options) -> None:
    if options.stride < 1:
        raise UsageError(f"stride: expected 1 or more, found {options.stride}")
    if options.window < 0 or options.window == 1:
        raise UsageError(f"window: expected 2 frames or more, or 0 for whole clips, found {options.window}")
    if options.shares is not None and options.lists is not None:
        raise UsageError("shares and lists: give one of them")
    if options.shares is not None and not (min(options.shares) >= 0 and abs(sum(options.shares) - 1) <= 1e-6):
        raise UsageError(f"shares: expected three numbers that add up to 1, found {options.shares}")


def _columns(survey: SourceIndex, options: Options) -> tuple[int, ...]:
    """Which numbers of a row are the condition, in the order of the row."""
    if survey.cond != "vector":
        if options.columns and options.columns != (NONE,):
            what = "pictures" if survey.cond == "image" else "no numbers"
            raise UsageError(f"columns: {survey.layout} has {what} beside its frames, so there is nothing to choose")
        return ()
    patterns = options.columns or survey.chosen
    if patterns == (NONE,):
        return ()
    for pattern in patterns:
        if not any(_means(pattern, name) for name in survey.columns):
            shown = ", ".join(survey.columns[:40]) + (", ..." if len(survey.columns) > 40 else "")
            raise UsageError(
                f"columns: no column is called '{pattern}'{nearest(pattern, survey.columns)} (there are {shown})"
            )
    wanted = patterns or survey.columns
    return tuple(i for i, name in enumerate(survey.columns) if any(_means(pattern, name) for pattern in wanted))


def _measured(survey: SourceIndex, names: tuple[str, ...], options: Options) -> tuple[str, ...]:
    """Those of the chosen columns that are measured states."""

    def called(patterns: tuple[str, ...]) -> set[str]:
        """With a stride, all numbers of a column have its role."""
        every = [(name, name.partition("@")[0]) for name in names]
        return {name for name, base in every for each in patterns if _means(each, name) or _means(each, base)}

    numbers = names if survey.cond == "vector" else ()
    for role, patterns in (("controls", options.controls), ("measured", options.measured)):
        for pattern in patterns:
            if not numbers or not called((pattern,)):
                raise UsageError(
                    f"{role}: none of the chosen columns is called '{pattern}' (they are: "
                    f"{', '.join(numbers[:40]) or 'none'})"
                )
    controls, measured = called(options.controls), called(options.measured)
    if both := [name for name in names if name in controls & measured]:
        raise UsageError(f"controls and measured: both name {', '.join(both[:8])}; a column has one role")
    found = (called(survey.measured) - controls) | measured
    return tuple(name for name in numbers if name in found)


def _roles(names: tuple[str, ...], measured: tuple[str, ...]) -> str:
    """Which columns are known in advance, and which are not, as a line."""
    parts = []
    for role, found in (("controls", [name for name in names if name not in measured]), ("measured states", measured)):
        shown = ", ".join(found[:8]) + f", ... ({len(found)})" * (len(found) > 8)
        parts.append(f"{role}: {shown or 'none'}")
    return f"{'; '.join(parts)} (an import with --controls or --measured decides otherwise)"


def _means(pattern: str, name: str) -> bool:
    """Whether a column is meant; one called `a[0]` can be given as it is."""
    return name == pattern or fnmatchcase(name, pattern)


def _names(survey: SourceIndex, columns: tuple[int, ...], transform: ClipTransform) -> tuple[str, ...]:
    if survey.cond == "image":
        return survey.columns
    chosen = [survey.columns[index] for index in columns]
    if transform.between == "last" or transform.stride == 1:
        return tuple(chosen)
    return tuple(f"{name}@{late - transform.stride + 1}" for late in range(transform.stride) for name in chosen)


def _with_names(clips: Sequence[SourceClip]) -> list[SourceClip]:
    """All clips; at fault are names that cannot stand in a pack, or differ in their Unicode form only."""
    names: dict[str, str] = {}
    named = []
    for clip in clips:
        other, wrong = names.setdefault(unicodedata.normalize("NFC", clip.name), clip.name), []
        if not fit_name(clip.name):
            wrong = [Fault(clip.name, "", f"as its name {FIT}", "another")]
        elif other != clip.name:
            wrong = [Fault(clip.name, "", "a name of its own", f"{other!a}, which differs in its Unicode form only")]
        named.append(replace(clip, faults=(*clip.faults, *wrong)))
    return named


def _with_splits(
    clips: Sequence[SourceClip], options: Options, notes: list[str]
) -> tuple[list[SourceClip], list[Fault]]:
    if options.lists is not None:
        return _listed(clips, options.lists)
    shares = options.shares or (0.8, 0.1, 0.1)
    open_ones = [clip for clip in clips if options.shares is not None or not clip.split]
    drawn = _drawn([clip.name for clip in open_ones], shares)
    if open_ones and options.shares is None:
        numbers = ", ".join(f"{split} {list(drawn.values()).count(split)}" for split in SPLITS)
        notes.append(f"the source has no splits of its own; drawn by the hash of each clip's name: {numbers}")
    chosen = {id(clip): drawn[clip.name] for clip in open_ones}
    return [replace(clip, split=chosen.get(id(clip), clip.split)) for clip in clips], []


def _drawn(names: Sequence[str], shares: tuple[float, float, float]) -> dict[str, str]:
    """A split for each name by its SHA-256; where a share came out empty, the clip next to its border is taken."""
    places = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64 for name in names}
    edges = np.cumsum(shares)
    found = {name: SPLITS[min(int(np.searchsorted(edges, place, side="right")), 2)] for name, place in places.items()}
    for number, split in enumerate(SPLITS):
        if shares[number] == 0 or split in found.values() or len(names) < FEW:
            continue
        middle = edges[number] - shares[number] / 2
        counts = Counter(found.values())
        spare = [name for name in names if counts[found[name]] > 1]
        found[min(spare, key=lambda name: (abs(places[name] - middle), name))] = split
    return found


def _listed(clips: Sequence[SourceClip], path: Path) -> tuple[list[SourceClip], list[Fault]]:
    """Clips with the splits of a JSON file; at fault are those in none or in two, and listed ones that are missing."""
    try:
        raw = read_json(path, str(path))
    except DataError as error:
        raise DataError("the lists of splits cannot be read:", error.faults) from error
    if not isinstance(raw, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in raw.values()
    ):
        raise DataError(f"{path}: expected JSON of the form {{'train': [names of clips], 'val': [...], 'test': [...]}}")
    for split in raw:
        if split not in SPLITS:
            raise DataError(f"{path}: there is no split '{split}', only {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    splits_of: dict[str, list[str]] = {clip.name: [] for clip in clips}
    unlisted = []
    for split, names in raw.items():
        for name in dict.fromkeys(names):
            if name in splits_of:
                splits_of[name].append(split)
            else:
                unlisted.append(Fault(path.name, name, "a clip of the source", "none"))
    listed = []
    for clip in clips:
        found = splits_of[clip.name]
        wrong = () if len(found) == 1 else (Fault(path.name, clip.name, "one split", " and ".join(found) or "none"),)
        listed.append(replace(clip, split=(*found, SPLITS[0])[0], faults=(*clip.faults, *wrong)))
    return listed, unlisted


def _ready(clips: Sequence[SourceClip], transform: ClipTransform, window: int, notes: list[str]) -> list[ReadyClip]:
    ready, left = [], []
    longest = max((-(-clip.length // transform.stride) for clip in clips if not _clip_level(clip)), default=window)
    if longest < window:
        raise UsageError(f"window: no clip is {window} frames long, the longest has {longest}; ask for fewer")
    for clip in clips:
        length = -(-clip.length // transform.stride)
        if not window or _clip_level(clip):
            ready.append(ReadyClip(clip.name, clip.split, length, transform, clip))
            continue
        for start in range(0, length - window + 1, window):
            first = start * transform.stride
            name = _part(clip, first, first + (window - 1) * transform.stride + 1)
            ready.append(ReadyClip(name, clip.split, window, transform, clip, first))
        if length % window:
            left.append(length % window)
    if left:
        notes.append(
            f"{count(len(left), 'clip')} did not divide by {window}; the last {sum(left):,} frames are left out"
        )
    return ready


def _clip_level(clip: SourceClip) -> tuple[Fault, ...]:
    """Faults that concern a clip as a whole."""
    return tuple(fault for fault in clip.faults if not isinstance(fault, NumberFault))


def _part(clip: SourceClip, start: int, stop: int) -> str:
    return clip.part(start, stop) if clip.part is not None else f"{clip.name}/{start:06d}-{stop - 1:06d}"


def open_source(folder: Path, layout: str | None, options: Options) -> PreparedSource:
    """What a source folder holds and what its clips will be.

    Raises:
        UsageError: an option that this layout does not know, or that cannot be.
        DataError: see `find_layout`.
    """
    chosen = find_layout(folder, layout)
    for name in LAYOUT_OPTIONS:
        if getattr(options, name) and name not in chosen.TAKES:
            raise UsageError(f"{name}: {chosen.NAME} has no use for it ({chosen.DESCRIBE})")
    return shape(chosen.survey(folder, options), options)
