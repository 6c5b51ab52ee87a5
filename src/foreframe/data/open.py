"""What `train --data` takes: a pack, a folder of clips in a known layout, or the name of a built-in sample."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from foreframe.data.cache import cache_folder, made_once, source_key
from foreframe.data.ingest.run import import_clips
from foreframe.data.ingest.transform import refuse_options, rows_for
from foreframe.data.layouts.contract import Inputs
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout, inputs_of, version_of
from foreframe.data.pack.pack import Pack, PackWriter, is_pack
from foreframe.errors import DataError, printable

SAMPLES = ("push", "dance")
CACHE_VERSION = 4
"""Part of every key: a changed importer does not find packs of its predecessor."""


def open_clips(
    data: Path | str,
    *,
    layout: str | None = None,
    options: Options = Options(),
    progress: bool = False,
) -> Pack:
    """Open clips for training, whatever form they have; sources are packed into the cache, once.

    data: the folder of a pack; `push`, `dance` or `sample:push` for a built-in sample; or a folder in a known layout
    (`./push` where it is named like a sample). Raises DataError: there is none, or it has faults (all are listed).
    """
    if is_sample(data):
        name = str(data).removeprefix("sample:")
        if name not in SAMPLES:
            raise DataError(f"{data}: no such sample; there are {', '.join(SAMPLES)}")
        refuse_options(options, data)
        if progress and Path(data).exists():
            print(f"{data} is the built-in sample here; the folder of that name is ./{data}", file=sys.stderr)
        return _sample(name, progress)
    path = Path(data)
    if layout is None and is_pack(path):
        refuse_options(options, path)
        return Pack.open(path)
    if not path.exists():
        choices = f"a pack, a folder of clips, or a built-in sample ({', '.join(SAMPLES)})"
        raise DataError(f"{path}: there is nothing; expected {choices}")
    chosen = find_layout(path, layout)
    key = source_key(path, options, [CACHE_VERSION, *version_of(chosen)])
    target = cache_folder() / f"{chosen.NAME}-{key[:16]}"

    def make() -> None:
        if progress:
            print(printable(f"packing {path} into {target}"), file=sys.stderr, flush=True)
        import_clips(path, target, layout or chosen.NAME, options, workers=None, progress=progress)

    return made_once(target, make)


def find_inputs(data: Path | str, split: str) -> Inputs | None:
    """Where the sequences of a split lie that has no truth in a source folder; None if it has, or `data` is no such
    folder. Raises DataError: the folder is of no known layout."""
    path = Path(data)
    if is_sample(data) or is_pack(path) or not path.is_dir():
        return None
    return inputs_of(find_layout(path), path).get(split)


def is_sample(data: Path | str) -> bool:
    """Whether `data` names a built-in sample rather than a folder."""
    return str(data).startswith("sample:") or (data in SAMPLES and not isinstance(data, Path))


def _sample(name: str, progress: bool) -> Pack:
    """A built-in sample as a pack."""
    from foreframe.data.formats import sample  # late: it brings a video decoder

    info = sample.open_sample(name)
    target = cache_folder() / f"{name}-{CACHE_VERSION}-{info.sha256[:16]}"

    def make() -> None:
        if progress:
            print(f"decoding the built-in sample into {target}", file=sys.stderr, flush=True)
        source = {"layout": "sample", "folder": name, "options": {}}
        with PackWriter(
            target, info.spec, info.columns, fps=info.fps, source=source, shift=info.shift, measured=info.measured
        ) as writer:
            for clip, split, frames, rows in info.clips:
                writer.add(clip, split, frames, rows[rows_for(np.arange(len(rows)), len(rows), info.shift)[:, 0]])

    return made_once(target, make)
