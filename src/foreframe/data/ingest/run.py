"""From somebody's folder of clips to a pack: everything is checked, and by default nothing is packed after a fault."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Literal

import foreframe
from foreframe import signals
from foreframe.data.cache import source_key
from foreframe.data.ingest.pool import Readers
from foreframe.data.ingest.report import Report, count
from foreframe.data.ingest.transform import PreparedSource, open_source
from foreframe.data.ingest.validate import inspect
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout, version_of
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.data.pack.writer import refuse_existing
from foreframe.errors import DataError, printable

OnBad = Literal["stop", "skip"]
MAX_PRINTED = 10
"""Lines of warnings that an import prints."""


def import_clips(
    src: Path | str,
    dst: Path | str,
    layout: str | None = None,
    options: Options = Options(),
    *,
    on_bad: OnBad = "stop",
    overwrite: bool = False,
    workers: int | None = 0,
    progress: bool = False,
) -> Pack:
    """Check the clips in `src` and pack them into the new folder `dst`; each picture is read once.

    One that was killed, stopped by a signal or refused by the disk continues where it was when started again.

    Args:
        layout: Name of the source's layout, or the file (.py) of one; found out when None.
        on_bad: "stop" lists every fault and packs nothing; "skip" leaves out what is faulty (whole clips, or frames of
            a take that may be cut) and lists it in the manifest.
        overwrite: Replace a pack that is at `dst`; a folder that is no pack is never replaced.
        workers: Processes that read, with limits of memory and time; None: by the amount of work; 0: this one, without
            limits. The pack is the same.
        progress: Show a bar, then warnings and notes, on stderr.
    Raises:
        UsageError: an option that this layout does not know, or that cannot be.
        DataError: with all faults; or no layout fits, `dst` exists, nothing is left to pack, there is no room for it.
        DiskError: the disk refuses; what was at `dst` is untouched.
    """
    src, dst = Path(src), Path(dst)
    chosen = find_layout(src, layout)
    refuse_existing(dst, overwrite)
    if dst.resolve().is_relative_to(src.resolve()):
        raise DataError(f"{dst}: lies inside the source {src}; choose a folder outside it")
    if src.resolve().is_relative_to(dst.resolve()):
        raise DataError(f"{dst}: holds the source {src}, which would be lost; choose another folder")
    with Readers(workers) as readers:
        source = readers.call(partial(open_source, src, layout or chosen.NAME, options), src)
        key = source_key(src, options, [*version_of(chosen), on_bad, foreframe.__version__])
        return pack_source(
            source, src, dst, key=key, on_bad=on_bad, overwrite=overwrite, readers=readers, progress=progress
        )


def pack_source(
    source: PreparedSource,
    src: Path,
    dst: Path,
    *,
    key: str,
    on_bad: OnBad = "stop",
    overwrite: bool = False,
    readers: Readers | None = None,
    progress: bool = False,
) -> Pack:
    """Pack what `source` holds. src: its name in messages. key: changes when anything about it does. readers: None:
    this process, without limits."""
    skip = on_bad == "skip"
    advice = "nothing was packed; fix the source, or leave these clips out with --on-bad skip"
    if source.spec is None or (source.faults and not skip) or not source.clips:
        none = source.spec is None or not source.clips
        why = f"no clip can be used ({count(len(source.clips), 'clip')} found)" if none else advice
        inspect(source, src, readers=readers, progress=progress).raise_if_faults(why)
    if source.spec is None:
        raise DataError(f"{src} ({source.layout}): expected at least one clip, found none")
    writer = PackWriter(
        dst,
        source.spec,
        source.cond_names,
        fps=source.fps,
        source={"layout": source.layout, "folder": printable(src.resolve().name), "options": dict(source.options)},
        shift=source.shift,
        measured=source.measured,
        overwrite=overwrite,
        resume=key,
        expected=sum(max(0, clip.length) for clip in source.clips if not clip.faults),
    )
    with signals.defer_signals(), writer:
        if progress and writer.left_behind:
            print(f"continuing with {count(len(writer.left_behind), 'clip')} done before", file=sys.stderr)
        report = inspect(source, src, writer, skip=skip, readers=readers, progress=progress)
        if not skip:
            report.raise_if_faults(advice)
        if not report.clips:
            report.raise_if_faults("no clip is left to pack")
    if progress:
        _print_summary(report)
    return Pack.open(dst)


def _print_summary(report: Report) -> None:
    """What a user should know of an import that went well, on stderr."""
    if report.left_out:
        print(f"left out, as the manifest lists: {count(len(report.left_out), 'item')}", file=sys.stderr)
    for kind, lines in (("warning", report.warnings), ("note", report.notes)):
        for line in lines[:MAX_PRINTED]:
            print(f"{kind}: {printable(line)}", file=sys.stderr)
        if len(lines) > MAX_PRINTED:
            print(
                f"... and {len(lines) - MAX_PRINTED:,} more {kind}s; `foreframe data check` lists them", file=sys.stderr
            )
