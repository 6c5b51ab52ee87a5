"""Hands a pack on in somebody else's form: built under a temporary name and renamed, so there is all of it or none."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

from foreframe import __version__, disk, signals
from foreframe.data.exports import Export, exports
from foreframe.data.pack.pack import Pack
from foreframe.errors import DiskError, UsageError, nearest
from foreframe.log import Bar

RECORD = "export.json"
"""Beside what was exported: which form, of which pack, written by what, with which notes."""


def export(pack: Pack, dst: Path, to: str, *, overwrite: bool = False, progress: bool = False) -> list[str]:
    """Write a pack in the form `to` into the folder `dst`, after comparing every file of it with its hash.

    Any exception while writing, Ctrl-C included, removes everything that was written. A signal that asks to stop is
    handled between two pieces of a clip.

    Args:
        dst: The folder to make; it must be empty or absent unless `overwrite`, and then only an export is replaced.
        to: Name of the form: a file in `foreframe/data/exports/`.
        progress: Show a bar.
    Returns:
        What the form could not hold as it was, one line each.
    Raises:
        UsageError: there is no form of this name, or it cannot hold such clips.
        DataError: the pack is damaged, or `dst` exists.
        DiskError: the disk refuses to be written to; what was at `dst` is untouched.
    """
    known = exports()
    if to not in known:
        raise UsageError(f"no form '{to}' to export to; there are {', '.join(known)}{nearest(to, known)}")
    dst = Path(dst)
    _refuse_existing(dst, overwrite)
    pack.verify()
    size = sum(record.size for record in pack.manifest.files.values())  # no form takes much more
    with signals.defer_signals():
        try:
            disk.sweep_drafts(dst)
            dst.parent.mkdir(parents=True, exist_ok=True)
            folder = disk.new_draft(dst)
        except OSError as error:
            raise disk.refused(dst, error, size) from error
        try:
            return _fill(folder, pack, dst, known[to], overwrite, progress)
        except OSError as error:
            raise DiskError(f"{disk.refused(dst, error, size)}; nothing was kept") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, pack: Pack, dst: Path, form: Export, overwrite: bool, progress: bool) -> list[str]:
    """Write everything into the temporary `folder` and put that in place."""
    total = sum(episode.length for episode in pack.episodes)
    with Bar("writing frames", total) if progress else nullcontext() as bar:

        def tick(frames: int) -> None:
            if bar is not None:
                bar.done(frames)
            signals.poll()

        notes = form.write(pack, folder, tick)
    record = {
        "form": form.NAME, "foreframe": __version__, "pack": pack.path.resolve().name, "pack_sha256": pack.hash
    }  # fmt: skip
    text = json.dumps({**record, "notes": notes}, indent=1, ensure_ascii=False) + "\n"
    disk.write(folder / RECORD, text.encode())
    if hasattr(os, "sync"):
        os.sync()  # once for all of the files, which may be a million small ones
    signals.poll()
    _refuse_existing(dst, overwrite)
    disk.replace_folder(folder, dst)
    disk.sync(dst.parent)
    return notes


def _refuse_existing(dst: Path, overwrite: bool) -> None:
    """DataError where an export must not be made: something is there, or it is no export and would be lost."""
    disk.check_replaceable(dst, overwrite, "an export", (RECORD,))
