"""What `train --data` takes: a pack, a folder of clips in a known layout, or the name of the built-in sample."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from foreframe.clip import ClipSpec
from foreframe.data.check import find_layout
from foreframe.data.importing import import_clips
from foreframe.data.layouts.bair_lab import SHIFT
from foreframe.data.pack import Pack, PackWriter, is_pack
from foreframe.errors import DataError

SAMPLES = ("push",)
SAMPLE_NAMES = ("move_x", "move_y", "move_z", "gripper", "position_x", "position_y", "position_z")
CACHE_VERSION = 1
"""Part of every key: a changed importer does not find packs of its predecessor."""


def open_clips(
    data: Path | str,
    *,
    layout: str | None = None,
    size: tuple[int, int] | None = None,
    cuts: Sequence[int] = (),
    progress: bool = False,
) -> Pack:
    """Open clips for training, whatever form they have; sources are packed into the cache, once.

    data: the folder of a pack; `push` or `sample:push` for the built-in sample; or a folder in a known layout.
    A folder named like a sample is reached as `./push`.

    Raises:
        DataError: nothing of the kind is there, or the source has faults (all are listed).
    """
    if is_sample(data):
        name = str(data).removeprefix("sample:")
        if name not in SAMPLES:
            raise DataError(f"{data}: no such sample; there is {', '.join(SAMPLES)}")
        return _sample(progress)
    path = Path(data)
    if layout is None and is_pack(path):
        return Pack.open(path)
    if not path.exists():
        choices = f"a pack, a folder of clips, or the built-in sample ({', '.join(SAMPLES)})"
        raise DataError(f"{path}: there is nothing; expected {choices}")
    chosen = find_layout(path, layout)
    key = _source_key(path, [chosen.NAME, size, list(cuts)])
    target = cache_folder() / f"{chosen.NAME}-{key[:16]}"

    def make() -> None:
        if progress:
            print(f"packing {path} into {target}", file=sys.stderr, flush=True)
        import_clips(path, target, layout=chosen.NAME, size=size, cuts=cuts, progress=progress)

    return _made_once(target, make)


def is_sample(data: Path | str) -> bool:
    """Whether `data` names a built-in sample rather than a folder."""
    return str(data).startswith("sample:") or (data in SAMPLES and not isinstance(data, Path))


def cache_folder() -> Path:
    """Where packed sources are kept: $FOREFRAME_CACHE, or the platform's place for caches."""
    if own := os.environ.get("FOREFRAME_CACHE"):
        return Path(own).expanduser() / "packs"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "foreframe" / "packs"


def _made_once(target: Path, make: Callable[[], None]) -> Pack:
    """The pack at `target`, made if it is not there. Two at once do not meet: whoever is second takes the first's."""
    try:
        if not target.exists():
            try:
                make()
            except DataError:
                if not is_pack(target):
                    raise
                return Pack.open(target)
        return Pack.open(target)
    except DataError as error:
        if target.exists():
            raise DataError(f"{error}\nThis is only a cache: delete {target} and start again", error.faults) from error
        raise


def _sample(progress: bool) -> Pack:
    """The built-in sample as a pack; rows lead into the next frame, so they are shifted by one, as in bair_lab."""
    from foreframe.data import sample  # late: it brings a video decoder

    target = cache_folder() / f"push-{sample.header()['sha256'][:16]}"

    def make() -> None:
        if progress:
            print(f"decoding the built-in sample into {target}", file=sys.stderr, flush=True)
        clips = iter(sample.decode_sample())
        first = next(clips)
        height, width = first.frames.shape[1:3]
        spec = ClipSpec(3, height, width, "vector", len(SAMPLE_NAMES))
        source = {"layout": "sample", "folder": "push", "options": {}}
        with PackWriter(target, spec, SAMPLE_NAMES, fps=10, source=source, shift=SHIFT) as writer:
            for clip in itertools.chain([first], clips):
                rows = np.concatenate([clip.actions, clip.positions], axis=1)
                writer.add(clip.name, clip.split, clip.frames, np.concatenate([rows[:1], rows[:-1]]))

    return _made_once(target, make)


def _source_key(folder: Path, options: Iterable[object]) -> str:
    """SHA-256 over the folder's place, the names, sizes and times of all its files, and the options."""
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, str(folder.resolve()), *options]).encode())
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            try:
                found = Path(base, name).stat()
                facts = f"{found.st_size} {found.st_mtime_ns}"
            except OSError as error:
                facts = f"errno {error.errno}"
            digest.update(os.fsencode(f"{base}/{name}\0{facts}\n"))
    return digest.hexdigest()
