"""The figures of docs/cvae.md, drawn from the grids of both labs: `python -m benchmarks.figures FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from foreframe.recipe import TrainConfig
from foreframe.report.plots import Chart, Line, line_figure, save
from foreframe.schedules import Clock
from foreframe.sweep import find

SHOWN = {
    "beta": {
        "pose lab, 100 epochs": ("seed-a-kl-lab", ["cyclical", "monotonic", "none"]),
        "action lab, 100 epochs": (
            "seed-b-schedules-lab",
            ["from-20-by-0.01666-cyclical", "from-20-by-0.01666-monotonic"],
        ),
    },
    "forcing": {
        "pose lab, 100 epochs": ("seed-a-forcing-lab", ["forcing-1.0", "forcing-0.8", "forcing-0.3"]),
        "action lab, 100 epochs": (
            "seed-b-schedules-lab",
            ["from-20-by-0.01666-monotonic", "from-30-by-0.004-monotonic"],
        ),
    },
}
YLABEL = {"beta": "beta", "forcing": "teacher forcing"}


def values(train: TrainConfig[Any], schedule: str) -> list[float]:
    """A schedule at the first step of each epoch."""
    size = train.epoch_steps
    return [
        getattr(train, schedule).value(Clock(epoch * size, train.steps, size)) for epoch in range(train.steps // size)
    ]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for schedule, charts in SHOWN.items():
        drawn = []
        for title, (grid, names) in charts.items():
            variants = find(grid).variants
            lines = []
            for number, name in enumerate(names):
                curve = values(variants[name], schedule)
                label = (
                    name.removesuffix("-monotonic")
                    if schedule == "forcing"
                    else name.removeprefix("from-20-by-0.01666-")
                )
                lines.append(Line(label, range(len(curve)), curve, number))
            drawn.append(Chart(title, "epoch", YLABEL[schedule], lines, ends=(0.0, 1.05)))
        save(line_figure(*drawn), folder / f"{schedule}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
