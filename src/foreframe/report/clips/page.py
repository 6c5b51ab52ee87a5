"""The page of `foreframe data show`: what a pack holds, as facts, moving clips, curves and distributions.

One HTML file without script or network, of at most about 8 MB for up to a hundred clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foreframe import disk
from foreframe.data.ingest.report import count
from foreframe.data.pack.manifest import ColumnStats
from foreframe.data.pack.pack import Episode, Pack
from foreframe.evaluation import evenly_spaced
from foreframe.report.clips import statistics
from foreframe.report.clips.curves import curves
from foreframe.report.clips.moving import moving_clips, speed
from foreframe.report.clips.statistics import Brightness, format_number
from foreframe.report.html import TableText, duration, flat, listed, render, text_table

NAMED = 12
"""Columns that a sentence names, at most."""
FAR = 30
"""Standard deviations from its mean at which a number is probably an error in the recording."""
EXCLUDED, REASONS, REASON = 200, 3, 300
"""What was left out: clips that are listed, reasons of each, letters of a reason."""


def write_clips_page(pack: Pack, out: Path, *, clips: int = 6, split: str | None = None) -> Path:
    """Write the page that shows `clips` clips of a pack, evenly spaced over it and its splits, or over one split.

    The conditions of a clip are drawn as they were recorded, each over the frame that it leads into. The same pack
    gives the same bytes.

    Raises:
        DataError: the pack has no such split.
        DiskError: the disk refused; a page that was there is untouched.
    """
    out = Path(out)
    episodes = sample(pack, clips, split)
    known = "train" if "train" in pack.splits else ""
    stats = pack.manifest.stats
    brightness = statistics.brightness(pack, known)
    charts, still, drawn = curves(pack, episodes)
    page = render(
        "clips_page.html.j2",
        title=str(pack.manifest.source.get("folder") or pack.path.resolve().name),
        intro=[_intro(pack)],
        facts=_facts(pack),
        splits=_splits(pack),
        warnings=_warnings(pack, stats, brightness, known),
        clips=moving_clips(pack, episodes, charts),
        chosen=split,
        speed=speed(pack),
        drawn=(drawn, len(stats)),
        still=listed([f"{name} = {format_number(value)}" for name, value in still], 2 * NAMED),
        known=known or "all splits",
        columns=statistics.columns(pack, stats, known),
        sampled=statistics.total(pack, known) > statistics.ROWS,
        lengths=statistics.lengths(pack),
        brightness=brightness,
        left_out=[
            (item.clip, [_cut(reason) for reason in item.reasons[:REASONS]], len(item.reasons) - REASONS)
            for item in pack.manifest.left_out[:EXCLUDED]
        ],
        left_out_count=count(len(pack.manifest.left_out), "item"),
        left_out_more=max(0, len(pack.manifest.left_out) - EXCLUDED),
    )
    disk.put(out, page)
    return out


def sample(pack: Pack, wanted: int, split: str | None = None) -> list[Episode]:
    """Evenly spaced episodes of one split, or of all: then at least one of each as far as `wanted` suffices, and most
    of the largest.

    Raises:
        DataError: the pack has no such split.
    """
    splits = {name: pack.split(name) for name in ([split] if split else pack.splits)}
    quota = dict.fromkeys(list(splits)[: max(1, wanted)], 1)
    while sum(quota.values()) < min(wanted, sum(map(len, splits.values()))):
        unfilled = [name for name in quota if quota[name] < len(splits[name])]
        quota[max(unfilled, key=lambda name: len(splits[name]) / quota[name])] += 1
    return [splits[name][i] for name, number in quota.items() for i in evenly_spaced(len(splits[name]), number)]


def _intro(pack: Pack) -> str:
    size = pack.spec.cond_size
    what = {
        "none": "nothing is recorded beside the frames",
        "vector": "one number leads into each frame" if size == 1 else f"{size:,} numbers lead into each frame",
        "image": "a picture leads into each frame",
    }
    total = count(statistics.total(pack, ""), "frame")
    return f"{count(len(pack.episodes), 'clip')}, {total} in all; {what[pack.spec.cond]}."


def _facts(pack: Pack) -> list[tuple[str, str]]:
    spec, manifest = pack.spec, pack.manifest
    color = {1: "gray", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")
    rate = f"{pack.fps:g} frames a second" if pack.fps else "frames a second not known"
    facts = [("Frames", f"{spec.height} × {spec.width} pixels (height × width), {color}; {rate}")]
    if spec.cond == "none":
        facts.append(("Condition", "none"))
    else:
        what = count(spec.cond_size, "number") if spec.cond == "vector" else "a picture"
        names = f": {listed(pack.cond_names, NAMED)}" if pack.cond_names else ""
        facts.append(("Condition", f"{what} a frame{names}"))
        thing = "the row" if spec.cond == "vector" else "the picture"
        own = manifest.alignment.partition("; ")[2]
        taken = f" (taken from {own})" if own else ""
        facts.append(("Alignment", f"{thing} of frame t leads from frame t−1 into frame t{taken}"))
    source = dict(manifest.source)
    layout, folder = source.pop("layout", "not known"), source.pop("folder", "")
    facts.append(("Source", f"layout {layout}" + (f", folder {folder}" if folder else "")))
    options = [f"{key.removeprefix('options.')} = {value}" for key, value in flat(source)]
    facts.append(("Options", "; ".join(options) or "none: the defaults of the layout"))
    size = sum(record.size for record in manifest.files.values())
    facts.append(("Pack", f"{size / 1e6:,.1f} MB; SHA-256 of its manifest {pack.hash[:16]}…"))
    return facts


def _splits(pack: Pack) -> TableText:
    header = ["split", "clips", "frames", "clip length"] + ["duration"] * bool(pack.fps)
    rows = []
    for split in pack.splits:
        lengths = sorted({episode.length for episode in pack.split(split)})
        total = pack.manifest.splits[split]["frames"]
        length = [duration(total / pack.fps)] if pack.fps else []
        ends = " to ".join(f"{length:,}" for length in lengths[:1] + lengths[1:][-1:])
        rows.append([split, f"{pack.manifest.splits[split]['episodes']:,}", f"{total:,}", ends, *length])
    return text_table("Splits", header, rows)


def _warnings(pack: Pack, stats: Sequence[ColumnStats], brightness: Brightness, known: str) -> list[str]:
    """What is probably not as the user means it."""
    found = []
    if not known:
        found.append("There is no split `train`; the distributions below are those of all clips.")
    if "val" not in pack.splits:
        found.append("There is no split `val`, so a training cannot be validated.")
    if single := sum(episode.length == 1 for episode in pack.episodes):
        found.append(f"{count(single, 'clip')} of a single frame: nothing can be predicted in them.")
    if constant := [item.name for item in stats if item.min == item.max]:
        found.append(f"Constant, so without information for a model: {listed(constant, NAMED)}.")
    far = [item.name for item in stats if max(item.max - item.mean, item.mean - item.min) > FAR * item.std > 0]
    if far:
        found.append(
            f"Numbers over {FAR} standard deviations from the mean, perhaps errors in the recording: "
            f"{listed(far, NAMED)} (see their least and largest below)."
        )
    for split in pack.splits if known and stats else ():
        if split != known and (outside := _outside(pack, stats, split)):
            found.append(f"In {split}, frames lie well outside the range of {known}: {listed(outside, NAMED)}.")
    if brightness.blank:
        found.append(
            f"{brightness.blank:,} of {count(brightness.pictures, 'picture')} sampled are of one color throughout."
        )
    if brightness.pairs and brightness.same > 0.1 * brightness.pairs:
        found.append(
            f"{brightness.same / brightness.pairs:.0%} of the sampled frames equal the next one in every pixel; if the "
            "source repeats frames, a stride skips the copies."
        )
    if pack.manifest.left_out:
        found.append(f"{count(len(pack.manifest.left_out), 'item')} of the source left out at import; see the end.")
    return found


def _outside(pack: Pack, stats: Sequence[ColumnStats], split: str) -> list[str]:
    """Columns of which over 1 % of the frames of a split lie a tenth of train's range beyond it."""
    low, high = np.array([item.min for item in stats]), np.array([item.max for item in stats])
    room = 0.1 * (high - low)
    beyond, total = np.zeros(len(stats), np.int64), 0
    for rows in statistics.rows_of(pack, split):
        beyond += ((rows < low - room) | (rows > high + room)).sum(axis=0)
        total += len(rows)
    shares = beyond / total
    return [f"{item.name} ({share:.0%})" for item, share in zip(stats, shares, strict=True) if share > 0.01]


def _cut(text: str) -> str:
    return text if len(text) <= REASON else f"{text[:REASON]}…"
