"""How the cost of a training step grows: with clips, with frames, with channels and with pixels.

Counted work everywhere, since that takes no machine; times where a plain step is small enough to be made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullLocator
from tests.reference.plain import plain_model

from benchmarks import train
from benchmarks.count import count_step
from benchmarks.measure import Candidate, Rounds, compare
from benchmarks.suites import BenchContext, Suite
from foreframe.clip import ClipSpec
from foreframe.models.svg import Config
from foreframe.report import plots

TIMED_FLOPS = {"cpu": 6e11, "cuda": 6e13}
"""A point is timed if a plain step there takes no more than this."""
ROUNDS = 3
LABELS = {
    "batch": "clips in a batch",
    "horizon": "frames predicted after 2 of context",
    "width": "channels of the first stage",
    "pixels": "pixels a side",
}
_QUANTITIES = (
    ("flops", 1e9, "GFLOP a clip"),
    ("saved_bytes", 1e6, "MB kept for backward, a clip"),
    ("seconds", 1.0, "seconds a clip, measured"),
)


@dataclass(frozen=True)
class Point:
    """One size of a training step; `axis` says along which line it lies."""

    axis: str
    batch: int = 4
    horizon: int = 10
    width: int = 64
    pixels: int = 64

    @property
    def value(self) -> int:
        return int(getattr(self, self.axis))


def points(quick: bool) -> list[Point]:
    """Batch from 2 (BatchNorm refuses 1) to 100, horizon from 2 to 100, width from 32 to 128, 64 and 128 pixels."""
    lines: dict[str, Sequence[int]] = {
        "batch": (2, 12, 100),
        "horizon": (2, 10, 30, 100),
        "width": (32, 64, 128),
        "pixels": (64, 128),
    }
    if quick:
        lines = {"batch": (2, 3), "horizon": (2, 3), "width": (4, 8), "pixels": (64, 128)}
    small = Point("batch", batch=2, horizon=2, width=4) if quick else Point("batch")
    return [replace(small, axis=axis, **{axis: value}) for axis, values in lines.items() for value in values]


def run(setting: BenchContext) -> Suite:
    """FLOPs and bytes of the plain and the fast step at every point, and seconds of both at the small ones."""
    suite = Suite()
    rounds = Rounds(min(ROUNDS, setting.rounds.rounds), 1)
    for backbone in ("dcgan",) if setting.quick else ("dcgan", "vgg"):
        for point in points(setting.quick):
            case = _case(backbone, point, setting.quick)
            model = train.build(case).train()
            rows: dict[str, dict[str, Any]] = {}
            for name, each in (("plain", plain_model(model)), ("fast", model)):
                setting.advance(f"growth: {case.name}, {name} counted")
                work = count_step(each, case.spec, train.CONTEXT, point.horizon, point.batch)
                rows[name] = {
                    "case": case.name,
                    "way": name,
                    "backbone": backbone,
                    "axis": point.axis,
                    "value": point.value,
                    "seconds": None,
                    **work.per_clip(point.batch),
                }
            if rows["plain"]["flops"] * point.batch <= TIMED_FLOPS[setting.device.type]:
                candidates = [
                    Candidate(
                        way.name,
                        train.make_step(way, case, model, setting.device),
                        rows[way.name]["flops"] * point.batch,
                        case.frames,
                    )
                    for way in (train.Variant("plain", plain=True), train.Variant("fast"))
                ]
                found = compare(case.name, candidates, setting.device, rounds, setting.advance)
                for row in found["ways"]:
                    rows[row["name"]]["seconds"] = row["seconds"]["median"] / point.batch
                suite.races.append({**found, "batch": point.batch})
            suite.counted += rows.values()
    return suite


def figure(counted: Sequence[Mapping[str, Any]], path: Path) -> None:
    """All of it in one picture: a column for each thing that grows, a row for each cost; plain dashed, fast drawn."""
    axes = [axis for axis in LABELS if any(row["axis"] == axis for row in counted)]
    backbones = list(dict.fromkeys(row["backbone"] for row in counted))
    with matplotlib.rc_context(plots.STYLE):
        drawn = Figure(figsize=(3.7 * len(axes), 8.6), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        for line, (key, unit, label) in enumerate(_QUANTITIES):
            first: Axes | None = None
            for column, axis in enumerate(axes):
                panel = drawn.add_subplot(len(_QUANTITIES), len(axes), line * len(axes) + column + 1, sharey=first)
                first = first or panel
                for colour, backbone in zip(plots.COLORS, backbones, strict=False):
                    for way, style in (("plain", (0, (5, 2.5))), ("fast", "-")):
                        rows = [
                            row
                            for row in counted
                            if (row["axis"], row["backbone"], row["way"]) == (axis, backbone, way)
                            and row[key] is not None
                        ]
                        where = [row["value"] for row in rows]
                        cost = [row[key] / unit for row in rows]
                        name = f"{backbone}, {way}"
                        panel.plot(where, cost, color=colour, linestyle=style, marker="o", markersize=3, label=name)
                panel.set(xscale="log", yscale="log", xlabel=LABELS[axis], ylabel=label if column == 0 else "")
                known = sorted({row["value"] for row in counted if row["axis"] == axis})
                panel.set_xticks(known, [str(value) for value in known])
                panel.xaxis.set_minor_locator(NullLocator())
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_minor_locator(NullLocator())
                panel.yaxis.set_major_formatter(lambda value, _: format(value, "g"))
        handles, labels = drawn.axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower left", ncols=4, fontsize=9.5, handlelength=3.5)
        plots.save(drawn, path)


def _case(backbone: str, point: Point, quick: bool) -> train.Case:
    sizes = {**(train.TINY if quick else {}), "width": point.width}
    config = Config(backbone=backbone, skip="svg", **sizes)  # type: ignore[arg-type]
    name = f"{backbone}, {point.axis} {point.value}"
    return train.Case(name, config, ClipSpec(3, point.pixels, point.pixels), 1.0, point.batch, point.horizon)
