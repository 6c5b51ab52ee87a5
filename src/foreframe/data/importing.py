"""From somebody's folder of clips to a pack: everything is checked, and by default nothing is packed after a fault."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from foreframe.data.check import find_layout, inspect
from foreframe.data.clips import Options, Survey
from foreframe.data.folders import shown
from foreframe.data.pack import Pack, PackWriter
from foreframe.data.report import Report, count
from foreframe.data.writing import refuse_existing
from foreframe.errors import DataError

OnBad = Literal["stop", "skip"]
TOLD = 10
"""Lines of warnings that an import prints."""


def import_clips(
    src: Path | str,
    dst: Path | str,
    *,
    layout: str | None = None,
    size: tuple[int, int] | None = None,
    cuts: Sequence[int] = (),
    on_bad: OnBad = "stop",
    overwrite: bool = False,
    progress: bool = False,
) -> Pack:
    """Check the clips in `src` and pack them into the new folder `dst`; each picture is read once.

    Args:
        layout: Name of the source's layout; found out when None.
        size: (H, W) to bring pictures to; None for the layout's own (bair_lab: as they are; dance_lab: 32x64).
        cuts: Frame numbers at which a new take starts (dance_lab).
        on_bad: "stop" lists every fault and packs nothing; "skip" leaves out what is faulty and lists it in the
            manifest: whole clips, or single frames where a long take may be cut.
        overwrite: Replace a pack that is at `dst`; a folder that is no pack is never replaced.
        progress: Show a bar, then warnings and notes, on stderr.
    Raises:
        DataError: with all faults; or no layout fits, `dst` exists, nothing is left to pack, the disk is full.
    """
    src, dst = Path(src), Path(dst)
    chosen = find_layout(src, layout)
    refuse_existing(dst, overwrite)
    if dst.resolve() == src.resolve() or dst.resolve().is_relative_to(src.resolve()):
        raise DataError(f"{dst}: lies inside the source {src}; choose a folder outside it")
    survey = chosen.survey(src, Options(size, tuple(cuts)))
    skip = on_bad == "skip"
    advice = "nothing was packed; mend the source, or leave these clips out with --on-bad skip"
    if survey.spec is None or (survey.faults and not skip) or not survey.clips:
        _insist(inspect(survey, src, progress=progress), survey, advice)
    if survey.spec is None:
        raise DataError(f"{src} ({survey.layout}): expected at least one clip, found none")
    folder = shown(src.resolve().name)
    source = {"layout": survey.layout, "folder": folder, "options": dict(survey.options)}
    writer = PackWriter(
        dst,
        survey.spec,
        survey.cond_names,
        fps=survey.fps,
        source=source,
        shift=survey.shift,
        overwrite=overwrite,
    )
    with writer:
        report = inspect(survey, src, writer, skip=skip, progress=progress)
        if not skip:
            report.insist(advice)
        if not report.clips:
            report.insist("no clip is left to pack")
    if progress:
        _tell(report)
    return Pack.open(dst)


def _tell(report: Report) -> None:
    """What a user should know of an import that went well, on stderr."""
    if report.left_out:
        print(f"left out, as the manifest lists: {count(len(report.left_out), 'item')}", file=sys.stderr)
    for kind, lines in (("warning", report.warnings), ("note", report.notes)):
        for line in lines[:TOLD]:
            print(f"{kind}: {line}", file=sys.stderr)
        if len(lines) > TOLD:
            print(f"... and {len(lines) - TOLD:,} more {kind}s; `foreframe data check` lists them", file=sys.stderr)


def _insist(report: Report, survey: Survey, advice: str) -> None:
    if survey.spec is None or not survey.clips:
        advice = f"no clip can be used ({count(len(survey.clips), 'clip')} found)"
    report.insist(advice)
