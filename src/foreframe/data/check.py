"""Reads all of a source of clips, or of a pack, and lists everything that is wrong with it at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from json import dumps
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from foreframe.data.clips import Chunk, Options, SourceClip, Survey
from foreframe.data.folders import shown
from foreframe.data.layouts import Layout, layouts
from foreframe.data.manifest import LeftOut
from foreframe.data.pack import Episode, Pack, PackWriter, is_pack
from foreframe.data.report import ClipLine, Report
from foreframe.errors import DataError, Fault, UsageError, nearest
from foreframe.log import Bar

CHUNK = 64
"""Frames in memory at a time."""


def scan(
    folder: Path | str,
    layout: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    cuts: tuple[int, ...] = (),
    window: int | None = None,
    progress: bool = False,
) -> Report:
    """Read every picture and table of a source, or every byte of a pack, and report all that is wrong.

    Args:
        layout: Name of the source's layout; found out when None.
        size, cuts: As for an import, see `Options`.
        window: Frames that each clip should have at least; shorter ones become faults.
        progress: Show a bar.
    Raises:
        DataError: the folder is in no known layout (a fault inside one goes into the report instead).
    """
    folder = Path(folder)
    if layout is None and is_pack(folder):
        return check_pack(folder, window=window, progress=progress)
    survey = find_layout(folder, layout).survey(folder, Options(size, cuts))
    return inspect(survey, folder, window=window, progress=progress)


def check(
    src: Path | str,
    *,
    layout: str | None = None,
    size: tuple[int, int] | None = None,
    cuts: tuple[int, ...] = (),
    length: int = 0,
    json: Path | None = None,
) -> bool:
    """`foreframe data check`: scan a source, a pack or a sample, print the report; whether nothing is wrong.

    length: Frames that each clip should have at least; 0 for any. json: Also write the report to this file.
    """
    from foreframe.data.sources import is_sample, open_clips  # late: it packs what is checked here

    folder = open_clips(src, progress=True).path if is_sample(src) else Path(src)
    report = scan(folder, layout, size=size, cuts=cuts, window=length or None, progress=True)
    Console().print(report, highlight=False)
    if json is not None:
        json.write_text(dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report.ok


def check_pack(folder: Path | str, *, window: int | None = None, progress: bool = False) -> Report:
    """The report on a pack: hashes of all files, finite conditions, constant and duplicate clips, short ones."""
    pack = Pack.open(folder)
    names = tuple(pack.cond_names)
    clips = tuple(SourceClip(item.name, item.split, item.length, partial(_read, pack, item)) for item in pack.episodes)
    survey = Survey("pack", pack.spec, clips, names, pack.manifest.alignment, {}, fps=pack.fps)
    report = inspect(survey, Path(folder), window=window, progress=progress)
    report.notes += [f"left out at import: {item.clip}: {'; '.join(item.reasons)}" for item in pack.manifest.left_out]
    try:
        pack.verify()
    except DataError as error:
        report.faults[:0] = error.faults
    return report


def find_layout(folder: Path, name: str | None = None) -> Layout:
    """The layout of a source folder, by its name or by looking.

    Raises:
        UsageError: there is no layout of this name.
        DataError: the folder is missing, or fits no layout or more than one; the message says what was looked
            for, what is there instead, and which folder nearby would fit.
    """
    known = layouts()
    if name is not None and name not in known:
        raise UsageError(f"no layout '{name}'; there are {', '.join(known)}{nearest(name, known)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of clips, found {'a file' if folder.exists() else 'nothing'}")
    if name is not None:
        return known[name]
    fitting = [layout for layout in known.values() if layout.recognises(folder)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(layout.NAME for layout in fitting)
        raise DataError(f"{folder}: fits more than one layout ({names}); say which with --layout")
    if is_pack(folder):
        raise DataError(f"{folder}: is a pack already; give it to `train --data` as it is")
    raise DataError(_fits_none(folder.resolve(), list(known.values())))


def _fits_none(folder: Path, known: list[Layout]) -> str:
    """What was looked for in a folder, what it holds instead, and which folder nearby fits."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return f"{folder}: cannot be read: {error.strerror}"
    inside = [shown(entry.name) + ("/" if entry.is_dir() else "") for entry in entries]
    holds = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") if inside else "nothing"
    lines = [f"{folder}: not a folder of clips in a known layout. It holds {holds}. Looked for:"]
    lines += [f"  {layout.NAME}: {layout.LOOKS_FOR}" for layout in known]
    for near in (folder.parent, folder.parent.parent, *entries[:50]):
        if near.is_dir() and (is_pack(near) or any(layout.recognises(near) for layout in known)):
            return "\n".join([*lines, f"Did you mean {near} ?"])
    return "\n".join(lines)


def inspect(
    survey: Survey,
    folder: Path,
    writer: PackWriter | None = None,
    *,
    skip: bool = False,
    window: int | None = None,
    progress: bool = False,
) -> Report:
    """Read every clip of a survey once; those without fault go to `writer`, if there is one.

    skip: Go on after a fault, leaving out the clip, or the frames where a clip may be cut. Without it, the
    writer gets nothing more after the first fault, while the scan lists all others.
    """
    report = Report(str(folder), survey.layout, survey.spec)
    report.faults += survey.faults
    report.warnings += survey.warnings
    report.notes += survey.notes
    report.left_out += [LeftOut(fault.path, (str(fault),)) for fault in survey.faults]
    inspection = _Inspection(report, writer, skip, window)
    total = sum(clip.length for clip in survey.clips)
    with Bar("reading frames", total) if progress else nullcontext() as bar:
        for clip in survey.clips:
            if survey.spec is None:
                report.faults += clip.faults
                continue
            for done in inspection.read(clip):
                if bar is not None:
                    bar.advance(by=done)
    if skip and writer is not None:
        for item in report.left_out:
            writer.leave_out(item.clip, item.reasons)
    return report


class _Run:
    """Good frames in a row, as they are read: their hash, and whether anything happens in them."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.digest = hashlib.sha256()
        self.first: NDArray[np.uint8] | None = None
        self.constant = True
        self.black = True

    def add(self, frames: NDArray[np.uint8]) -> None:
        frames = np.ascontiguousarray(frames)
        self.digest.update(frames.data)
        if self.first is None:
            self.first = frames[0].copy()
        self.constant = self.constant and bool((frames == self.first).all())
        self.black = self.black and not frames.any()


class _Inspection:
    """Goes through clips one after another; knows those it has seen, to find the same one in two splits."""

    def __init__(self, report: Report, writer: PackWriter | None, skip: bool, window: int | None) -> None:
        self.report, self.writer, self.skip, self.window = report, writer, skip, window
        self.seen: dict[bytes, ClipLine] = {}

    def read(self, clip: SourceClip) -> Iterator[int]:
        """Read one clip into the report and the writer; yields how many frames each step took."""
        faults = list(clip.faults)
        if self.window is not None and clip.length < self.window:
            faults.append(Fault(clip.name, "", f"{self.window} frames or more", str(clip.length)))
        cut = self.skip and clip.part is not None and not faults
        run: _Run | None = None
        for start in range(0, clip.length, CHUNK):
            chunk = clip.read(start, min(start + CHUNK, clip.length))
            length = len(chunk.frames)
            bad = dict(sorted(chunk.faults.items()))
            faults += [fault for index in bad for fault in bad[index]]
            if cut and run is not None and 0 in bad:
                self._close(clip, run, start, cut)
                run = None
            for first, last in _between(bad, length) if cut or not faults else ():
                run = run or _Run(start + first)
                run.add(chunk.frames[first:last])
                self._write(chunk, first, last)
                if last < length:
                    self._close(clip, run, start + last, cut)
                    run = None
            yield length
        if faults and not cut:
            self._drop(LeftOut(clip.name, tuple(map(str, faults))), faults)
            return
        if run is not None:
            self._close(clip, run, clip.length, cut and bool(faults))
        self.report.faults += faults
        self.report.left_out += [LeftOut(fault.path, (str(fault),)) for fault in faults]

    def _write(self, chunk: Chunk, first: int, last: int) -> None:
        if self.writer is not None and (self.skip or not self.report.faults):
            self.writer.append(chunk.frames[first:last], None if chunk.cond is None else chunk.cond[first:last])

    def _close(self, clip: SourceClip, run: _Run, stop: int, cut: bool) -> None:
        """The run is an episode, unless it is too short or stands in another split already."""
        length = stop - run.start
        name = clip.part(run.start, stop) if cut and clip.part is not None else clip.name
        if cut and length < max(2, self.window or 2):
            self._drop(LeftOut(name, (f"only {length} frames between frames that cannot be used",)))
            return
        line = ClipLine(name, clip.split, length)
        other = self.seen.setdefault(run.digest.digest(), line)
        if other.split != clip.split:
            fault = Fault(
                name, "", "clips that are in one split only", f"the same frames as {other.name} ({other.split})"
            )
            self._drop(LeftOut(name, (str(fault),)), [fault])
            return
        if other is not line:
            self.report.warnings.append(f"{name}: the same frames as {other.name}")
        if run.black or run.constant:
            what = "black" if run.black else "the same"
            self.report.warnings.append(f"{name}: every frame is {what}")
        if self.writer is not None and (self.skip or not self.report.faults):
            self.writer.commit(name, clip.split)
        self.report.clips.append(line)

    def _drop(self, item: LeftOut, faults: Sequence[Fault] = ()) -> None:
        self.report.faults += faults
        self.report.left_out.append(item)
        if self.writer is not None:
            self.writer.rollback()


def _between(bad: Iterable[int], length: int) -> Iterator[tuple[int, int]]:
    """The stretches (first, last + 1) of 0 to length-1 that hold none of `bad`."""
    first = 0
    for index in (*bad, length):
        if index > first:
            yield first, index
        first = index + 1


def _read(pack: Pack, episode: Episode, start: int, stop: int) -> Chunk:
    frames, cond = pack.read(episode, start, stop - start)
    faults = {}
    if cond is not None and cond.dtype != np.uint8:
        for index in np.flatnonzero(~np.isfinite(cond).all(axis=1)).tolist():
            fault = Fault(episode.name, f"frame {start + index}", "finite conditions", str(cond[index].tolist()))
            faults[index] = (fault,)
    return Chunk(frames, cond, faults)
