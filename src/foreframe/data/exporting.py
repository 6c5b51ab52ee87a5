"""Hands a pack on in somebody else's form: built under a temporary name and renamed, so there is all of it or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path

from foreframe import __version__
from foreframe.data.exports import exports
from foreframe.data.pack import Pack
from foreframe.data.writing import OLD, _prefix, _sweep
from foreframe.errors import DataError, UsageError, nearest
from foreframe.log import Bar

RECORD = "export.json"
"""Beside what was exported: which form, of which pack, written by what, with which notes."""


def export(pack: Pack, dst: Path, to: str, *, overwrite: bool = False, progress: bool = False) -> list[str]:
    """Write a pack in the form `to` into the folder `dst`, after comparing every file of it with its hash.

    Any exception while writing, Ctrl-C included, removes everything that was written.

    Args:
        dst: The folder to make; it must be empty or absent unless `overwrite`, and then only an export is replaced.
        to: Name of the form: a file in `foreframe/data/exports/`.
        progress: Show a bar.
    Returns:
        What the form could not hold as it was, one line each.
    Raises:
        UsageError: there is no form of this name, or it cannot hold such clips.
        DataError: the pack is damaged; `dst` exists; or it cannot be written (nothing is left of it then).
    """
    known = exports()
    if to not in known:
        raise UsageError(f"no form '{to}' to export to; there are {', '.join(known)}{nearest(to, known)}")
    dst = Path(dst)
    _refuse_existing(dst, overwrite)
    pack.verify()
    folder = dst.parent / f"{_prefix(dst)}export"
    total = sum(episode.length for episode in pack.episodes)
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        _sweep(dst)
        folder.mkdir()
    except OSError as error:
        raise DataError(f"{dst}: cannot be made: {error.strerror}") from error
    try:
        with Bar("writing frames", total) if progress else nullcontext() as bar:
            notes = known[to].write(pack, folder, (lambda frames: None) if bar is None else bar.done)
        record = {"form": to, "foreframe": __version__, "pack": pack.path.resolve().name, "pack_sha256": pack.hash}
        text = json.dumps({**record, "notes": notes}, indent=1, ensure_ascii=False) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
        if hasattr(os, "sync"):
            os.sync()  # once for all of the files, which may be a million small ones
        _put_in_place(folder, dst, overwrite)
    except OSError as error:
        free = shutil.disk_usage(dst.parent).free
        reason = error.strerror or error
        raise DataError(f"{dst}: cannot be written: {reason} ({free / 1e6:,.0f} MB free); nothing was kept") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return notes


def _refuse_existing(dst: Path, overwrite: bool) -> None:
    """DataError where an export must not be made: something is there, or it is no export and would be lost."""
    if not os.path.lexists(dst):
        return
    if dst.is_dir() and not dst.is_symlink() and not any(dst.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{dst}: already exists; choose another folder, or overwrite it with --overwrite")
    if dst.is_symlink() or not (dst / RECORD).is_file():
        raise DataError(f"{dst}: already exists and is not an export, so it is not overwritten; choose another folder")


def _put_in_place(folder: Path, dst: Path, overwrite: bool) -> None:
    """Rename the finished folder; an export that was there before is set aside first, and put back if that fails."""
    _refuse_existing(dst, overwrite)
    if not (dst / RECORD).exists():
        folder.rename(dst)
        return
    aside = Path(tempfile.mkdtemp(prefix=_prefix(dst), dir=dst.parent))
    try:
        dst.rename(aside / OLD)
        try:
            folder.rename(dst)
        except OSError:
            (aside / OLD).rename(dst)
            raise
    finally:
        if dst.exists():
            shutil.rmtree(aside, ignore_errors=True)
