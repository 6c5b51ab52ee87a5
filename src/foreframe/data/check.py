"""Reads all of a source of clips, or of a pack, and lists everything that is wrong with it at once."""

from __future__ import annotations

from functools import lru_cache, partial
from json import dumps
from pathlib import Path

import numpy as np
from rich.console import Console

from foreframe import disk
from foreframe.data.clips import Options, Piece, SourceClip, Survey
from foreframe.data.folders import shown
from foreframe.data.inspection import inspect
from foreframe.data.layouts import GENERAL, Layout, layouts
from foreframe.data.manifest import MANIFEST, read_manifest
from foreframe.data.pack import Episode, Pack, changed, is_pack
from foreframe.data.report import Report
from foreframe.data.shaping import Source, refuse_options, shape
from foreframe.errors import DataError, Fault, UsageError, nearest


def scan(
    folder: Path | str,
    layout: str | None = None,
    options: Options = Options(),
    *,
    length: int = 0,
    workers: int | None = 0,
    progress: bool = False,
) -> Report:
    """Read every picture and table of a source, or every byte of a pack, and report all that is wrong.

    Args:
        layout: Name of the source's layout; found out when None.
        options: As for an import.
        length: Frames that each clip should have at least; shorter ones become faults.
        workers: Processes to read with; None: by the amount of work.
        progress: Show a bar.
    Raises:
        DataError: the folder is in no known layout (a fault inside one goes into the report instead).
    """
    folder = Path(folder)
    if layout is None and is_pack(folder):
        refuse_options(options, folder)
        return check_pack(folder, length=length, workers=workers, progress=progress)
    source = open_source(folder, layout, options)
    return inspect(source, folder, length=length, workers=workers, progress=progress)


def check(
    src: Path | str,
    *,
    layout: str | None = None,
    options: Options = Options(),
    length: int = 0,
    workers: int | None = None,
    json: Path | None = None,
) -> bool:
    """`foreframe data check`: scan a source, a pack or a sample, print the report; whether nothing is wrong.

    length: Frames that each clip should have at least; 0 for any. json: Also write the report to this file. Raises
    DiskError: the disk refused; a report that was there is untouched.
    """
    from foreframe.data.sources import is_sample, open_clips  # late: it packs what is checked here

    folder = open_clips(src, options=options, progress=True).path if is_sample(src) else Path(src)
    report = scan(folder, layout, options, length=length, workers=workers, progress=True)
    Console().print(report, highlight=False)
    if json is not None:
        disk.put(json, dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return report.ok


def check_pack(folder: Path | str, *, length: int = 0, workers: int | None = 0, progress: bool = False) -> Report:
    """The report on a pack: hashes of all files, finite conditions, constant and duplicate clips, short ones.

    Raises:
        DataError: there is none, its manifest is damaged, or its files are as they were written and yet no pack.
    """
    manifest = read_manifest(Path(folder) / MANIFEST)[0]
    try:
        pack = Pack.open(folder)
    except DataError:
        if not (faults := changed(Path(folder), manifest)):
            raise
        return Report(str(folder), "pack", manifest.spec, faults=faults)
    kind, size = pack.spec.cond, (pack.spec.height, pack.spec.width)
    clips = tuple(
        SourceClip(
            item.name,
            item.split,
            item.length,
            partial(_frames, pack.path, pack.hash, item),
            partial(_cond, pack.path, pack.hash, item) if kind != "none" else None,
        )
        for item in pack.episodes
    )
    survey = Survey("pack", clips, size, kind, pack.cond_names, fps=pack.fps)
    report = inspect(shape(survey, Options()), Path(folder), length=length, workers=workers, progress=progress)
    report.spec = pack.spec
    report.notes += [f"left out at import: {item.clip}: {'; '.join(item.reasons)}" for item in pack.manifest.left_out]
    report.faults[:0] = changed(pack.path, pack.manifest)
    return report


def open_source(folder: Path, layout: str | None, options: Options) -> Source:
    """What a source folder holds and what its clips will be, by its layout and a user's options.

    Raises:
        UsageError: an option that this layout does not know, or that cannot be.
        DataError: see `find_layout`.
    """
    chosen = find_layout(folder, layout)
    for name in ("camera", "cuts", "count"):
        if getattr(options, name) and name not in chosen.TAKES:
            raise UsageError(f"{name}: {chosen.NAME} has no use for it ({chosen.DESCRIBE})")
    return shape(chosen.survey(folder, options), options)


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
    fitting = [layout for layout in fitting if layout.NAME not in GENERAL] or fitting
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
    for near in (*entries[:50], folder.parent, folder.parent.parent):
        if near.is_dir() and (is_pack(near) or any(layout.recognises(near) for layout in known)):
            return "\n".join([*lines, f"Did you mean {near} ?"])
    return "\n".join(lines)


def _frames(pack: Path, hash: str, episode: Episode, start: int, stop: int) -> Piece:
    return Piece(_opened(pack, hash).read(episode, start, stop - start)[0])


def _cond(pack: Path, hash: str, episode: Episode, start: int, stop: int) -> Piece:
    cond = _opened(pack, hash).read(episode, start, stop - start)[1]
    assert cond is not None  # the pack of this hash has conditions
    faults = {}
    if cond.dtype != np.uint8:
        for index in np.flatnonzero(~np.isfinite(cond).all(axis=1)).tolist():
            fault = Fault(episode.name, f"frame {start + index}", "finite conditions", str(cond[index].tolist()))
            faults[index] = (fault,)
    return Piece(cond, faults)


@lru_cache(maxsize=2)
def _opened(path: Path, hash: str) -> Pack:
    """The pack of this hash, opened once in each process."""
    pack = Pack.open(path)
    if pack.hash != hash:
        raise DataError(f"{path}: another pack was put in its place while it was read; check it again")
    return pack
