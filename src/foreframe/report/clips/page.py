"""The page of `foreframe data show`: what a pack holds, as facts, moving clips, curves and distributions.

One HTML file without script or network, of at most about 8 MB for up to a hundred clips. Of a large pack it looks at
evenly spread parts, so it takes seconds and little memory whatever its size; only `manifest.stats` covers every frame.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foreframe import disk
from foreframe.data.ingest.report import count
from foreframe.data.pack.manifest import ColumnStats
from foreframe.data.pack.pack import Episode, Pack
from foreframe.report.clips.sheet import Plot, plots_of, rgb, sample, spread, unchanging
from foreframe.report.html import flat, laid_out, render
from foreframe.video.write import encode_gif

FRAMES = 60
"""Frames of a clip that are shown, at most."""
GIF_BYTES = 5_200_000
"""All GIFs together; in the page they take a third more."""
LEAST_SIDE, SHOWN_SIDE, SHOWN_WIDTH, MOST_WIDTH = 96, 128, 256, 320
"""Pixels: pictures are not shrunk below the first; they are shown with each side at least the second, and where that
allows it about as wide as the third, and never wider than the last."""
DRAWN, LISTED, NAMED = 64, 256, 12
"""Columns whose curves are drawn, that get a histogram, and that a sentence names, at most."""
ROWS, BLOCK = 1_000_000, 4096
"""Rows that a histogram counts, at most about; and rows read at once."""
PICTURES, PIXELS = 400, 2**16
"""Pictures whose brightness is looked at, and pixels of each, at most."""
BINS, LEVELS, LENGTHS = 40, 64, 30
"""Bars in the histograms of columns, of brightness and of clip lengths."""
FPS, MOST_FPS = 10, 50
"""Of a GIF where the pack does not know; and at most, because browsers slow down anything faster."""
FAR = 30
"""So many deviations from its mean, a number is probably an error in the recording."""
EXCLUDED, REASONS, REASON = 200, 3, 300
"""What was left out: clips that are listed, reasons of each, letters of a reason."""


class Tick(NamedTuple):
    """A mark on an axis: its place in percent from the left or from the top."""

    place: float
    text: str


class Curve(NamedTuple):
    """A line of a drawing 1000 wide and 1000 high, as the points of an SVG polyline."""

    name: str
    full: str
    points: str


@dataclass(frozen=True)
class Drawing:
    """Curves of one clip over its frames."""

    title: str
    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


@dataclass(frozen=True)
class Bars:
    """A histogram as the outline of an SVG path, as many units wide as it has bars and 100 high."""

    bars: int
    path: str
    low: str
    high: str


@dataclass(frozen=True)
class Moving:
    """A clip as a GIF: `width` in CSS pixels. `note` says what of it is shown."""

    name: str
    split: str
    note: str
    source: str
    width: int
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Column:
    """A number of a vector condition over train. `bars` is None where it is constant, or beyond what is drawn."""

    name: str
    constant: bool
    numbers: tuple[tuple[str, str], ...]
    bars: Bars | None


def write_clips_page(pack: Pack, out: Path, *, clips: int = 6, split: str | None = None) -> Path:
    """Write the page that shows `clips` clips of a pack, spread evenly over it and its splits, or over one split.

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
    looks = _look(pack, known)
    drawings, still = _drawings(pack, episodes)
    budget = max(20_000, GIF_BYTES // len(episodes) - 25_000)
    page = render(
        "clips_page.html.j2",
        title=_title(pack),
        intro=[_intro(pack)],
        facts=_facts(pack),
        splits=_splits(pack),
        warnings=_warnings(pack, stats, looks, known),
        clips=[_moving(pack, *pair, budget) for pair in zip(episodes, drawings, strict=True)],
        chosen=split,
        speed=_speed(pack),
        drawn=(min(DRAWN, len(stats)), len(stats)),
        still=_named([f"{name} = {_number(value)}" for name, value in still], 2 * NAMED),
        known=known or "all splits",
        columns=_columns(pack, stats, known),
        sampled=_total(pack, known) > ROWS,
        lengths=_lengths(pack),
        looks=looks,
        left_out=[
            (item.clip, [_cut(reason) for reason in item.reasons[:REASONS]], len(item.reasons) - REASONS)
            for item in pack.manifest.left_out[:EXCLUDED]
        ],
        left_out_count=count(len(pack.manifest.left_out), "item"),
        left_out_more=max(0, len(pack.manifest.left_out) - EXCLUDED),
    )
    disk.put(out, page)
    return out


def _title(pack: Pack) -> str:
    return str(pack.manifest.source.get("folder") or pack.path.resolve().name)


def _intro(pack: Pack) -> str:
    total = sum(number["frames"] for number in pack.manifest.splits.values())
    what = {
        "none": "nothing is recorded beside the frames",
        "vector": f"{count(pack.spec.cond_size, 'number')} lead into each frame",
        "image": "a picture leads into each frame",
    }
    if pack.spec.cond_size == 1:
        what["vector"] = "one number leads into each frame"
    return f"{count(len(pack.episodes), 'clip')}, {count(total, 'frame')} in all; {what[pack.spec.cond]}."


def _facts(pack: Pack) -> list[tuple[str, str]]:
    spec, manifest = pack.spec, pack.manifest
    colour = {1: "grey", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")
    rate = f"{pack.fps:g} frames a second" if pack.fps else "frames a second not known"
    facts = [("Frames", f"{spec.height} × {spec.width} pixels (height × width), {colour}; {rate}")]
    if spec.cond == "none":
        facts.append(("Condition", "none"))
    else:
        what = count(spec.cond_size, "number") if spec.cond == "vector" else "a picture"
        names = f": {_named(pack.cond_names)}" if pack.cond_names else ""
        facts.append(("Condition", f"{what} a frame{names}"))
        thing = "the row" if spec.cond == "vector" else "the picture"
        own = manifest.alignment.partition("; ")[2]
        taken = f" (taken from {own})" if own else ""
        facts.append(("Alignment", f"{thing} of frame t leads from frame t−1 into frame t{taken}"))
    source = dict(manifest.source)
    layout, folder = source.pop("layout", "not known"), source.pop("folder", "")
    facts.append(("Source", f"layout {layout}" + (f", folder {folder}" if folder else "")))
    options = [f"{key.removeprefix('options.')} = {value}" for key, value in flat(source)]
    facts.append(("Options", "; ".join(options) or "none: everything as the layout does by itself"))
    size = sum(record.size for record in manifest.files.values())
    facts.append(("Pack", f"{size / 1e6:,.1f} MB; SHA-256 of its manifest {pack.hash[:16]}…"))
    return facts


def _splits(pack: Pack) -> dict[str, Any]:
    header = ["split", "clips", "frames", "clip length"] + ["duration"] * bool(pack.fps)
    rows = []
    for split in pack.splits:
        number, total = pack.manifest.splits[split]["episodes"], pack.manifest.splits[split]["frames"]
        duration = [_duration(total / pack.fps)] if pack.fps else []
        rows.append(
            [split, _Whole(number), _Whole(total), _range([item.length for item in pack.split(split)]), *duration]
        )
    return laid_out("Splits", header, rows)


def _range(lengths: Sequence[int]) -> str:
    low, high = min(lengths), max(lengths)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


class _Whole(int):
    """A count, with a comma between thousands."""

    def __str__(self) -> str:
        return f"{int(self):,}"


def _warnings(pack: Pack, stats: Sequence[ColumnStats], looks: Looks, known: str) -> list[str]:
    """What is probably not as the user means it."""
    found = []
    if not known:
        found.append("There is no split `train`; the distributions below are those of all clips.")
    if "val" not in pack.splits:
        found.append("There is no split `val`, so a training has nothing to be judged by.")
    if single := sum(episode.length == 1 for episode in pack.episodes):
        found.append(f"{count(single, 'clip')} of a single frame: nothing can be predicted in them.")
    if constant := [item.name for item in stats if item.min == item.max]:
        one = len(constant) == 1
        found.append(
            f"{count(len(constant), 'column')} never {'changes' if one else 'change'} and {'tells' if one else 'tell'} "
            f"a model nothing: {_named(constant)}."
        )
    far = [item.name for item in stats if max(item.max - item.mean, item.mean - item.min) > FAR * item.std > 0]
    if far:
        found.append(
            f"Numbers over {FAR} deviations from the mean, perhaps errors in the recording: {_named(far)} "
            "(see their least and largest below)."
        )
    for split in pack.splits if known and stats else ():
        if split != known and (outside := _outside(pack, stats, split)):
            found.append(f"In {split}, frames lie well outside the range of {known}: {_named(outside)}.")
    if looks.blank:
        found.append(f"{looks.blank:,} of {count(looks.pictures, 'picture')} looked at are of one colour throughout.")
    if looks.pairs and looks.same > 0.1 * looks.pairs:
        found.append(
            f"{looks.same / looks.pairs:.0%} of the frames looked at equal the next one in every pixel; perhaps the "
            "source repeats frames, and a stride would skip the copies."
        )
    if pack.manifest.left_out:
        found.append(f"{count(len(pack.manifest.left_out), 'item')} of the source left out at import; see the end.")
    return found


def _outside(pack: Pack, stats: Sequence[ColumnStats], split: str) -> list[str]:
    """Columns of which over 1 % of the frames of a split lie a tenth of train's range beyond it."""
    low, high = np.array([item.min for item in stats]), np.array([item.max for item in stats])
    room = 0.1 * (high - low)
    beyond, total = np.zeros(len(stats), np.int64), 0
    for rows in _rows(pack, split):
        beyond += ((rows < low - room) | (rows > high + room)).sum(axis=0)
        total += len(rows)
    shares = beyond / total
    return [f"{item.name} ({share:.0%})" for item, share in zip(stats, shares, strict=True) if share > 0.01]


def _speed(pack: Pack) -> str:
    if pack.fps is None:
        return f"played at {FPS} frames a second, as the pack does not know its own rate"
    return f"played at {min(pack.fps, MOST_FPS):g} frames a second" + (
        f" instead of {pack.fps:g}" if pack.fps > MOST_FPS else ""
    )


def _moving(pack: Pack, episode: Episode, drawings: tuple[Drawing, ...], budget: int) -> Moving:
    """The beginning of a clip as a GIF of at most `budget` bytes; pose pictures beside its frames.

    Pictures that take too much are shrunk; where that is not enough, fewer frames are shown.
    """
    shown, spec = min(episode.length, FRAMES), pack.spec
    side, wide = min(spec.height, spec.width), spec.width * (2 if spec.cond == "image" else 1)
    fps = min(pack.fps or FPS, MOST_FPS)
    factor = math.sqrt(3 * budget / (shown * spec.height * wide))  # a pixel rarely takes less than a third of a byte
    while True:
        factor = min(1, max(factor, LEAST_SIDE / side))
        size = max(1, round(spec.height * factor)), max(1, round(spec.width * factor))
        data = _gif(_beside(pack, episode, shown, size), fps)
        if len(data) <= budget or (shown == 1 and min(size) <= LEAST_SIDE):
            break
        if min(size) > LEAST_SIDE:
            factor *= min(0.95, math.sqrt(0.95 * budget / len(data)))
        else:
            shown = max(1, min(shown - 1, int(0.95 * shown * budget / len(data))))
    notes = [count(shown, "frame") if shown == episode.length else f"the first {shown} of {episode.length:,} frames"]
    if size != (spec.height, spec.width):
        notes.append(f"shrunk to {size[0]} × {size[1]}")
    times = max(math.ceil(SHOWN_SIDE / side), SHOWN_WIDTH // wide)
    width = min(wide * times, max(wide // spec.width * MOST_WIDTH, math.ceil(SHOWN_SIDE / side * wide)))
    source = f"data:image/gif;base64,{base64.b64encode(data).decode()}"
    return Moving(episode.name, episode.split, ", ".join(notes), source, width, drawings)


def _beside(pack: Pack, episode: Episode, shown: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The first frames of a clip, and on their right the pictures that lead into them, if there are."""
    frames, cond = pack.read(episode, 0, shown)
    pictures = _pictures(frames, size)
    if pack.spec.cond != "image" or cond is None:
        return pictures
    gap = np.full((shown, size[0], max(1, size[1] // 32), 3), 128, np.uint8)
    return np.concatenate([pictures, gap, _pictures(cond, size)], axis=2)


def _pictures(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames as RGB of another size, one after another: what they are read from may be larger than memory."""
    if frames.shape[1:3] == size:
        return np.ascontiguousarray(rgb(frames))
    small = (
        Image.fromarray(np.ascontiguousarray(rgb(frame))).resize(size[::-1], Image.Resampling.BOX) for frame in frames
    )
    return np.stack([np.asarray(picture) for picture in small])


def _gif(pictures: NDArray[np.uint8], fps: float) -> bytes:
    if len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 256:
        # A GIF has 256 colours: 64 levels of red, green and blue tell as much, and theirs are found many times quicker.
        pictures = pictures & np.uint8(0xFC) | pictures >> np.uint8(6)
    return encode_gif(np.ascontiguousarray(pictures), fps)


def _drawings(pack: Pack, episodes: Sequence[Episode]) -> tuple[list[tuple[Drawing, ...]], list[tuple[str, float]]]:
    """The curves of each clip, on the same scales, and the columns that change in none of them."""
    if pack.spec.cond != "vector" or pack.cond is None:
        return [() for _ in episodes], []
    names = pack.cond_names[:DRAWN]
    rows = [pack.cond[e.start : e.start + min(e.length, FRAMES), : len(names)] for e in episodes]
    low = np.min([values.min(axis=0) for values in rows], axis=0).astype(np.float64)
    high = np.max([values.max(axis=0) for values in rows], axis=0).astype(np.float64)
    plots = plots_of(names, low, high)
    drawings = [tuple(_drawing(names, plot, values) for plot in plots) for values in rows]
    return drawings, unchanging(names, low, high)


def _drawing(names: Sequence[str], plot: Plot, rows: NDArray[Any]) -> Drawing:
    last = len(rows) - 1
    across = [round(1000 * t / last) for t in range(len(rows))] if last else [500, 500]
    scale = 1000 / (plot.high - plot.low)
    curves = []
    for column, short in zip(plot.columns, plot.short, strict=True):
        heights = [round((plot.high - float(value)) * scale) for value in rows[:, column]]
        places = zip(across, heights if last else heights * 2, strict=True)
        curves.append(Curve(short, names[column], " ".join(f"{x},{y}" for x, y in places)))
    ticks = [Tick(100 * t / last, text) for t, text in _ticks(0, last, 5)] if last else [Tick(50, "0")]
    up = [Tick(round((plot.high - y) * scale / 10, 2), text) for y, text in _ticks(plot.low, plot.high, 4)]
    title = "" if len(plot.columns) == 1 else plot.title
    return Drawing(title, tuple(curves), tuple(Tick(round(tick.place, 2), tick.text) for tick in ticks), tuple(up))


def _ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round numbers in [low, high], at most `most` of them, whole where both ends are."""
    least = 1.0 if isinstance(low, int) else 0.0
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    step = max(least, magnitude)
    for wider in (max(least, times * magnitude) for times in (2, 5, 10, 20)):
        fit = math.floor(high / wider) - math.ceil(low / wider) + 1
        if fit < 2 or math.floor(high / step) - math.ceil(low / step) < most:
            break
        step = wider
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f".{decimals}f" if decimals <= 5 and max(abs(low), abs(high)) < 1e5 else ".3g"
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [(number * step, format(number * step, form).replace("-", "−")) for number in numbers]


def _columns(pack: Pack, stats: Sequence[ColumnStats], known: str) -> list[Column]:
    """Histograms of the first columns and the numbers of all."""
    bars: list[Bars | None] = [None] * len(stats)
    for place, counts in enumerate(_histograms(pack, stats[:LISTED], known) if stats else ()):
        if stats[place].min < stats[place].max:
            bars[place] = _bars(counts, "", "")
    return [
        Column(
            item.name,
            item.min == item.max,
            tuple(
                (what, _number(value))
                for what, value in (("mean", item.mean), ("deviation", item.std), ("min", item.min), ("max", item.max))
            ),
            shape,
        )
        for item, shape in zip(stats, bars, strict=True)
    ]


def _histograms(pack: Pack, stats: Sequence[ColumnStats], known: str) -> NDArray[np.int64]:
    """(D, BINS) counts between the least and the largest number of each column."""
    low, high = np.array([item.min for item in stats]), np.array([item.max for item in stats])
    scale = BINS / np.where(high > low, high - low, 1)
    offsets = BINS * np.arange(len(stats))
    counts = np.zeros(BINS * len(stats), np.int64)
    for rows in _rows(pack, known):
        places = np.clip(((rows[:, : len(stats)] - low) * scale).astype(np.int64), 0, BINS - 1)
        counts += np.bincount((places + offsets).ravel(), minlength=len(counts))
    return counts.reshape(len(stats), BINS)


def _rows(pack: Pack, split: str) -> Iterator[NDArray[Any]]:
    """Conditions of a split (of all, if it is empty) in blocks; of more than ROWS rows, evenly spread blocks."""
    assert pack.cond is not None
    runs: list[list[int]] = []
    for episode in pack.split(split) if split else pack.episodes:
        if runs and runs[-1][1] == episode.start:
            runs[-1][1] += episode.length
        else:
            runs.append([episode.start, episode.start + episode.length])
    blocks = [(start, min(start + BLOCK, stop)) for begin, stop in runs for start in range(begin, stop, BLOCK)]
    for start, stop in blocks[:: math.ceil(_total(pack, split) / ROWS)]:
        yield pack.cond[start:stop]


def _total(pack: Pack, split: str) -> int:
    return sum(number["frames"] for name, number in pack.manifest.splits.items() if not split or name == split)


def _lengths(pack: Pack) -> list[tuple[str, str, Bars]]:
    """(split, its clips in words, histogram) on one scale; nothing where all clips are equally long."""
    every = [episode.length for episode in pack.episodes]
    low, high = min(every), max(every)
    if low == high:
        return []
    width = math.ceil((high - low + 1) / LENGTHS)
    edges = np.arange(low, high + width + 1, width)
    found = []
    for split in pack.splits:
        counts, _ = np.histogram([episode.length for episode in pack.split(split)], edges)
        number = count(pack.manifest.splits[split]["episodes"], "clip")
        found.append((split, number, _bars(counts, f"{low:,}", f"{high:,} frames")))
    return found


@dataclass(frozen=True)
class Looks:
    """What evenly spread pictures look like: brightness 0 to 255, and how many are blank or equal to the next one."""

    pictures: int
    bars: Bars
    mean: str
    deviation: str
    blank: int
    pairs: int
    same: int


def _look(pack: Pack, known: str) -> Looks:
    episodes = pack.split(known) if known else list(pack.episodes)
    ends = np.cumsum([episode.length for episode in episodes])
    levels = np.zeros(256, np.int64)
    blank = pairs = same = 0
    places = spread(range(int(ends[-1])), PICTURES)
    thin = max(1, math.ceil(math.sqrt(pack.spec.height * pack.spec.width / PIXELS)))
    for place in places:
        number = int(np.searchsorted(ends, place, side="right"))
        index = episodes[number].start + place - int(ends[number]) + episodes[number].length
        picture = pack.frames[index]
        grey = rgb(picture[::thin, ::thin]).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        levels += np.bincount(np.rint(grey).astype(np.int64).ravel(), minlength=256)
        blank += bool((picture == picture[0, 0]).all())
        if place + 1 < ends[number]:
            pairs += 1
            same += bool(np.array_equal(picture, pack.frames[index + 1]))
    mean = float((levels * np.arange(256)).sum() / levels.sum())
    deviation = math.sqrt(float((levels * (np.arange(256) - mean) ** 2).sum() / levels.sum()))
    bars = _bars(levels.reshape(LEVELS, -1).sum(axis=1), "0 (black)", "255 (white)")
    return Looks(len(places), bars, f"{mean:.1f}", f"{deviation:.1f}", blank, pairs, same)


def _bars(counts: NDArray[np.int64], low: str, high: str) -> Bars:
    """The tallest bar reaches the top; one that is not empty can always be seen."""
    top = max(1, int(counts.max()))
    heights = [100 - max(2.0, round(100 * int(number) / top, 1)) if number else 100 for number in counts]
    steps = "".join(f"V{height:g}H{place}" for place, height in enumerate(heights, 1))
    return Bars(len(counts), f"M0,100{steps}V100Z", low, high)


def _named(names: Sequence[str], most: int = NAMED) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _number(value: float) -> str:
    if value == 0 or 1e-4 <= abs(value) < 1e4:
        return f"{value:.4g}".replace("-", "−")
    return (f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.3g}").replace("-", "−")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _cut(text: str) -> str:
    return text if len(text) <= REASON else f"{text[:REASON]}…"
