"""Reads all of a source of clips, or of a pack, and lists everything that is wrong with it at once."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from glob import escape
from pathlib import Path

import numpy as np

from foreframe.data.ingest.pool import Readers
from foreframe.data.ingest.report import Report
from foreframe.data.ingest.transform import open_source, refuse_options, shape
from foreframe.data.ingest.validate import inspect
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack.manifest import MANIFEST, read_manifest
from foreframe.data.pack.pack import Episode, Pack, changed, is_pack
from foreframe.errors import DataError, Fault


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
        layout, options, workers: As for an import.
        length: Frames that each clip should have at least; shorter ones become faults.
        progress: Show a bar.
    Raises:
        DataError: the folder is in no known layout (a fault inside one goes into the report instead).
    """
    folder = Path(folder)
    if layout is None and is_pack(folder):
        refuse_options(options, folder)
        return check_pack(folder, length=length, workers=workers, progress=progress)
    with Readers(workers) as readers:
        source = readers.call(partial(open_source, folder, layout, options), folder)
        return inspect(source, folder, length=length, readers=readers, progress=progress)


def check_pack(folder: Path | str, *, length: int = 0, workers: int | None = 0, progress: bool = False) -> Report:
    """The report on a pack: hashes of all files, finite conditions, constant and duplicate clips, short ones. Raises
    DataError: its manifest is missing or damaged, or its files are as they were written and yet no pack."""
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
    measured = tuple(escape(name) for name in pack.manifest.measured_columns)
    survey = SourceIndex("pack", clips, size, kind, pack.cond_names, measured=measured, fps=pack.fps)
    source = replace(shape(survey, Options()), shift=pack.manifest.shift)  # the rows are shifted already
    with Readers(workers) as readers:
        report = inspect(source, Path(folder), length=length, readers=readers, progress=progress)
    report.spec = pack.spec
    report.notes += [f"left out at import: {item.clip}: {'; '.join(item.reasons)}" for item in pack.manifest.left_out]
    report.faults[:0] = changed(pack.path, pack.manifest)
    return report


def _frames(pack: Path, hash: str, episode: Episode, start: int, stop: int) -> RawChunk:
    return RawChunk(_opened(pack, hash).read(episode, start, stop - start)[0])


def _cond(pack: Path, hash: str, episode: Episode, start: int, stop: int) -> RawChunk:
    cond = _opened(pack, hash).read(episode, start, stop - start)[1]
    assert cond is not None  # the pack of this hash has conditions
    faults = {}
    if cond.dtype != np.uint8:
        for index in np.flatnonzero(~np.isfinite(cond).all(axis=1)).tolist():
            fault = Fault(episode.name, f"frame {start + index}", "finite conditions", str(cond[index].tolist()))
            faults[index] = (fault,)
    return RawChunk(cond, faults)


@lru_cache(maxsize=2)
def _opened(path: Path, hash: str) -> Pack:
    """The pack of this hash, opened once in each process."""
    pack = Pack.open(path)
    if pack.hash != hash:
        raise DataError(f"{path}: another pack was put in its place while it was read; check it again")
    return pack
