"""Verbs for clips: `foreframe data import`, `check`, `show`, `make`, `export` and `layouts`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from foreframe.cli.shared import at_least
from foreframe.data.layouts.options import Options
from foreframe.errors import UsageError


@dataclass(frozen=True)
class Source:
    """How a folder of clips is read."""

    layout: str | None = None
    """Name of the layout, where it is not recognized, or the file (.py) of one of your own."""
    shape: Annotated[Options, tyro.conf.arg(name="")] = Options()
    """How clips are made ready."""


SourceFlags = Annotated[Source, tyro.conf.arg(name="")]


def data_import(
    src: tyro.conf.Positional[Path],
    dst: tyro.conf.Positional[Path],
    source: SourceFlags = Source(),
    on_bad: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Check a folder of clips and pack it for training. Started again after a kill, it continues where it was.

    Args:
        src: The folder; its layout is recognised (`foreframe data layouts` lists those there are).
        dst: The pack to write.
        on_bad: stop before anything is packed, or skip bad clips; the pack then lists them.
        overwrite: Replace a pack at DST.
        workers: Processes that read, each with limits of memory and time. Default: by the amount of work, at least one.
            The pack is the same.
    """
    from foreframe.data.ingest.run import import_clips

    workers = 1 if workers == 0 else workers
    pack = import_clips(
        src, dst, source.layout, source.shape, on_bad=on_bad, overwrite=overwrite, workers=workers, progress=True
    )
    _print_pack(pack)


def data_check(
    src: tyro.conf.Positional[str],
    source: SourceFlags = Source(),
    length: int = 0,
    json: Path | None = None,
    workers: int | None = None,
) -> None:
    """List everything that is wrong with a folder of clips or a pack: path, row or frame, expected, found.

    Args:
        src: A folder in a known layout, a pack, or the name of a sample.
        length: Also report clips shorter than this many frames.
        json: Write the report here too.
        workers: As for `import`.
    """
    from json import dumps

    from rich.console import Console

    from foreframe import disk
    from foreframe.data.ingest.check import scan
    from foreframe.data.open import is_sample, open_clips

    folder = open_clips(src, options=source.shape, progress=True).path if is_sample(src) else Path(src)
    workers = 1 if workers == 0 else workers
    report = scan(folder, source.layout, source.shape, length=length, workers=workers, progress=True)
    Console().print(report, highlight=False)
    if json is not None:
        disk.put(json, dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if not report.ok:
        raise SystemExit(1)


def data_show(
    src: tyro.conf.Positional[str],
    out: Path = Path("clips.html"),
    source: SourceFlags = Source(),
    clips: int = 6,
    split: str | None = None,
) -> None:
    """Show clips on a page: GIFs, curves of the conditions, histograms, counts.

    Args:
        src: A pack, a folder in a known layout, or the name of a sample.
        out: The page to write, a name that ends in .html.
        clips: How many clips.
        split: Only this split. Default: all, in turn.
    """
    from foreframe.data.open import open_clips
    from foreframe.report.clips.page import write_clips_page

    if out.suffix.lower() != ".html":
        raise UsageError(f"--out: expected a name that ends in .html, found {out}")
    at_least(clips=(clips, 1))
    pack = open_clips(src, layout=source.layout, options=source.shape, progress=True)
    write_clips_page(pack, out, clips=clips, split=split)
    print(f"written: {out}")


def data_make(
    kind: tyro.conf.Positional[Literal["push", "dance"]],
    dst: tyro.conf.Positional[Path],
    clips: int = 1000,
    seed: int = 0,
    frames: int = 0,
    size: tuple[int, int] | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Simulate clips and pack them (needs the extra `sim`). Started again after a kill, it continues where it was.

    Args:
        kind: push: a robot arm pushes objects about. dance: a person dances; the pose of each frame is known.
        dst: The pack to write.
        clips: How many. More of the same seed only add to what there was.
        seed: Clip i is a function of the seed and of i.
        frames: Of each clip. Default: 30 (push), 60 (dance).
        size: Height and width. Default: 64 64.
        workers: Processes; the pack is the same however many. Default: one a core.
        overwrite: Replace a pack at DST.
    """
    from foreframe.sim.make import make_clips

    pack = make_clips(
        kind, dst, clips=clips, seed=seed, frames=frames, size=size, workers=workers, overwrite=overwrite, progress=True
    )
    _print_pack(pack)


def data_export(
    src: tyro.conf.Positional[str],
    dst: tyro.conf.Positional[Path],
    to: Literal["lerobot", "bair_lab", "dance_lab"],
    overwrite: bool = False,
) -> None:
    """Write clips in a form that other tools read: LeRobot v3.0, or the labs' folders.

    Args:
        src: A pack, a folder in a known layout, or the name of a sample.
        dst: The folder to write.
        to: The form.
        overwrite: Replace an earlier export at DST.
    """
    from foreframe.data.exports.run import export
    from foreframe.data.open import open_clips

    for note in export(open_clips(src, progress=True), dst, to, overwrite=overwrite, progress=True):
        print(f"note: {note}", file=sys.stderr)
    print(f"written: {dst}")


def data_layouts(check: Path | None = None) -> None:
    """List the kinds of folders that are known, and by what they are recognised; or check a layout of your own.

    Args:
        check: The file (.py) of a layout: list every violation of the contract.
    """
    from foreframe.data.ingest.conformance import check_layout
    from foreframe.data.layouts.registry import layouts

    if check is not None:
        print("\n".join(violations := check_layout(check)) or f"{check}: keeps the contract")
        if violations:
            raise SystemExit(1)
        return
    for layout in layouts().values():
        print(f"{layout.NAME:16}{layout.DESCRIBE}\n{'':16}{layout.LOOKS_FOR}")


def _print_pack(pack: Any) -> None:
    counts = ", ".join(f"{split} {values['episodes']}" for split, values in pack.manifest.splits.items())
    print(f"{pack.path}: clips of {pack.spec}: {counts} ({len(pack.frames):,} frames)")


def data() -> None:
    """Import, check, show, make and export clips: `foreframe data --help`."""
    raise UsageError("give one of: " + ", ".join(f"foreframe data {verb}" for verb in DATA))


DATA: dict[str, Callable[..., Any]] = {
    "import": data_import,
    "check": data_check,
    "show": data_show,
    "make": data_make,
    "export": data_export,
    "layouts": data_layouts,
}
