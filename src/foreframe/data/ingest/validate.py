"""Reads every clip of a source once: what is wrong goes into a report, what is right to a writer."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreframe import signals
from foreframe.data.ingest.alignment import Alignment
from foreframe.data.ingest.pool import CHUNK, Readers
from foreframe.data.ingest.reading import Outcome
from foreframe.data.ingest.report import ClipLine, Report
from foreframe.data.ingest.transform import PreparedSource, ReadyClip
from foreframe.data.layouts.contract import ClipChunk
from foreframe.data.pack.manifest import LeftOut
from foreframe.data.pack.pack import PackWriter
from foreframe.errors import DataError, Fault, printable
from foreframe.log import Bar


def inspect(
    source: PreparedSource,
    folder: Path,
    writer: PackWriter | None = None,
    *,
    skip: bool = False,
    length: int = 0,
    readers: Readers | None = None,
    progress: bool = False,
) -> Report:
    """Read every clip of a source once; those without fault go to `writer`, if there is one.

    skip: Leave out a clip with a fault, or its frames where it may be cut. Without it, the writer gets nothing after
    the first fault, while the scan lists all others. readers: None: this process.
    """
    given = [*source.faults], [*source.warnings], [*source.notes]
    report = Report(str(folder), source.layout, source.spec, [], *given)
    report.left_out += [LeftOut(fault.path, (str(fault),)) for fault in source.faults]
    if source.spec is None:
        report.faults += [fault for clip in source.clips for fault in clip.faults]
        return report
    inspection = _Inspection(report, source, writer, folder, skip, length)
    clips = []
    names: set[str] = set()
    for clip in source.clips:
        if clip.length < 1:
            inspection.refuse(clip, "a clip with frames", "none")
        elif clip.name in names:
            inspection.refuse(clip, "one clip of this name", "another one")
        else:
            clips.append(clip)
            names.add(clip.name)
    with (
        signals.defer_signals(),
        Bar("reading frames", sum(clip.length for clip in clips)) if progress else nullcontext() as bar,
        closing(_outcomes(clips, writer, readers or Readers(0))) as found,
    ):
        for clip, outcomes in found:
            for done in inspection.read(clip, outcomes):
                if bar is not None:
                    bar.advance(by=done)
                signals.poll()
    report.alignment = inspection.alignment.result(source.spec)
    if report.alignment is not None and report.alignment.warning:
        report.warnings.append(report.alignment.warning)
    if skip and writer is not None:
        for item in report.left_out:
            writer.leave_out(item.clip, item.reasons)
    return report


def _outcomes(
    clips: Sequence[ReadyClip], writer: PackWriter | None, readers: Readers
) -> Generator[tuple[ReadyClip, Iterator[tuple[int, Outcome]]]]:
    """Each clip with its chunks: from the source, or from what a killed writer has left of it."""
    known = writer.left_behind if writer is not None else frozenset()
    todo = [clip for clip in clips if clip.name not in known]
    with closing(readers.read(todo)) as read:
        stream = groupby(read, key=lambda item: id(item[0]))
        for clip in clips:
            if writer is not None and clip.name in known:
                yield clip, _salvaged(clip, writer)
            else:
                _, found = next(stream)
                yield clip, ((start, outcome) for _, start, outcome in found)


def _salvaged(clip: ReadyClip, writer: PackWriter) -> Iterator[tuple[int, Outcome]]:
    writer.check_left_behind(clip.name, clip.length)
    for start in range(0, clip.length, CHUNK):
        yield start, ClipChunk(*writer.read_back(start, min(start + CHUNK, clip.length)))


class _CleanSpan:
    """Good frames in a row, as they are read: their hash, and whether all are as the first one."""

    def __init__(self, start: int, first: NDArray[np.uint8]) -> None:
        self.start, self.first = start, first.copy()
        self.digest, self.constant = hashlib.sha256(), True

    def add(self, frames: NDArray[np.uint8]) -> None:
        frames = np.ascontiguousarray(frames)
        self.digest.update(frames.data)
        self.constant = self.constant and bool((frames == self.first).all())


class _Inspection:
    """Goes through clips one after another; finds those that are in two splits."""

    def __init__(
        self, report: Report, source: PreparedSource, writer: PackWriter | None, folder: Path, skip: bool, length: int
    ) -> None:
        self.report, self.writer, self.skip, self.length = report, writer, skip, length
        self.folder = folder
        self.seen: dict[bytes, ClipLine] = {}
        self.known = set(report.faults)
        states_only = source.measured and len(source.measured) == len(source.cond_names)
        self.alignment = Alignment(source.shift if states_only else 0)

    def refuse(self, clip: ReadyClip, expected: str, found: str) -> None:
        """Leave out a clip that is not even read."""
        self._drop(clip.name, Fault(clip.name, "", expected, found))

    def read(self, clip: ReadyClip, outcomes: Iterable[tuple[int, Outcome]]) -> Iterator[int]:
        """Take one clip into the report and the writer; yields how many frames each step took."""
        faults = list(clip.faults)
        if clip.length < self.length:
            faults.append(Fault(clip.name, "", f"{self.length} frames or more", str(clip.length)))
        cut = self.skip and clip.cuttable and not faults
        run: _CleanSpan | None = None
        whole = True
        for start, outcome in outcomes:
            if isinstance(outcome, DataError):
                faults += self._relative(clip, outcome)
                cut = whole = False
                yield clip.length - start
                break
            frames = len(outcome.frames)
            bad = dict(sorted(outcome.faults.items()))
            whole = whole and not bad
            faults += [fault for index in bad for fault in bad[index]]
            if cut and run is not None and 0 in bad:
                self._close(clip, run, start, cut)
                run = None
            for first, last in _between(bad, frames) if cut or not faults else ():
                run = run or _CleanSpan(start + first, outcome.frames[first])
                good = outcome.frames[first:last], None if outcome.cond is None else outcome.cond[first:last]
                run.add(good[0])
                self.alignment.add(*good, new=run.start == start + first)
                if self.sink is not None:
                    self.sink.append(*good)
                if last < frames:
                    self._close(clip, run, start + last, cut)
                    run = None
            yield frames
        if faults and not cut:
            self._drop(clip.name, *faults)
            return
        if run is not None:
            self._close(clip, run, clip.length, cut and bool(faults), whole)
        self._report(faults)
        self.report.left_out += [LeftOut(fault.path, (str(fault),)) for fault in faults]

    def _relative(self, clip: ReadyClip, error: DataError) -> list[Fault]:
        """What stopped the reading of a clip, with paths as the user knows them."""
        if not error.faults:
            return [Fault(clip.name, "", "a clip that can be read", str(error))]
        found = []
        for fault in error.faults:
            path = Path(fault.path)
            roots = [root for root in (self.folder, self.folder.absolute()) if path.is_relative_to(root)]
            name = printable("/".join(path.relative_to(roots[0]).parts)) if roots else ""
            found.append(Fault(name or fault.path, fault.where, fault.expected, fault.found))
        return found

    @property
    def sink(self) -> PackWriter | None:
        """The writer, as long as clips go to it."""
        return self.writer if self.skip or not self.report.faults else None

    def _close(self, clip: ReadyClip, run: _CleanSpan, stop: int, cut: bool, whole: bool = False) -> None:
        """The run is an episode, unless it is too short or stands in another split already."""
        length = stop - run.start
        name = clip.part(run.start, stop) if cut else clip.name
        if cut and length < max(2, self.length):
            self._drop(name, f"only {length} frames between frames that cannot be used")
            return
        line = ClipLine(name, clip.split, length)
        other = self.seen.setdefault(run.digest.digest(), line)
        if other.split != clip.split:
            found = f"the same frames as {other.name} ({other.split})"
            self._drop(name, Fault(name, "", "clips that are in one split only", found))
            return
        if other is not line:
            self.report.warnings.append(f"{name}: the same frames as {other.name}")
        if run.constant:
            what = "the same" if run.first.any() else "black"
            self.report.warnings.append(f"{name}: every frame is {what}")
        if self.sink is not None:
            self.sink.commit(name, clip.split)
            if whole:
                self.sink.note(clip.name)
        self.report.clips.append(line)

    def _drop(self, name: str, *why: Fault | str) -> None:
        self._report(reason for reason in why if isinstance(reason, Fault))
        self.report.left_out.append(LeftOut(name, tuple(map(str, why))))
        if self.writer is not None:
            self.writer.rollback()

    def _report(self, faults: Iterable[Fault]) -> None:
        """Every fault once, though all windows of a clip may share it."""
        new = [fault for fault in dict.fromkeys(faults) if fault not in self.known]
        self.known.update(new)
        self.report.faults += new


def _between(bad: Iterable[int], length: int) -> Iterator[tuple[int, int]]:
    """The spans (first, last + 1) of 0 to length-1 that hold none of `bad`."""
    first = 0
    for index in (*bad, length):
        if index > first:
            yield first, index
        first = index + 1
