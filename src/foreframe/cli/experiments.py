"""Verbs of comparisons: `sweep`, `report` and `diagnose`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from foreframe.cli.shared import Device, Scoring, ScoringFlags, at_least, known_metrics

if TYPE_CHECKING:
    import torch

    from foreframe.data.pack.pack import Pack
    from foreframe.report.experiment.collect import Request, RunResults


def sweep(
    grid: tyro.conf.Positional[str],
    data: str,
    out: Path,
    scale: Literal["tiny", "short", "paper"] = "paper",
    seeds: int = 1,
    workers: int = 0,
    threads: int | None = None,
    device: Device = "auto",
    engine: Literal["local", "ray"] = "local",
    split: str | None = None,
    horizon: int = 0,
    samples: int = 10,
    clips: int = 0,
    panels: int = 3,
    diagnosis: bool = True,
) -> None:
    """Train every variant of a grid, score them all in one way, and write a page that compares them.

    Stopped or killed, the same command continues: finished runs are skipped.

    Args:
        grid: Name of a grid (`foreframe presets` lists them), FILE.py or FILE.py:FUNCTION for your own.
        data: Clips, as for `train`.
        out: Folder for the runs, in OUT/runs, and the page, in OUT/GRID. Several grids may share it.
        scale: paper: as written; short: narrower and shorter, minutes a run on a CPU; tiny: seconds, only to try it.
        seeds: Trainings of each variant, with different seeds.
        workers: Runs at a time; 0: one on a GPU, one for every two cores without.
        threads: CPU threads of each. Default: an equal share of the cores.
        device: Where to compute.
        engine: local: processes of this machine; ray: tasks of a Ray cluster that sees the same folders.
        split: Which split is scored. Default: test, or val where there is no test.
        horizon: Frames predicted when scoring; 0: the preset's, -1: to the end of the shortest clip.
        samples: Rollouts of each clip when scoring.
        clips: Score at most this many clips; 0: all.
        panels: Clips of each run that are shown moving.
        diagnosis: Also measure what scores hide (`foreframe diagnose`).
    """
    from foreframe.data.open import open_clips
    from foreframe.device import choose_device
    from foreframe.report.experiment.collect import Request
    from foreframe.report.experiment.page import write_report
    from foreframe.sweep import engines, find, run

    at_least(samples=(samples, 1), clips=(clips, 0), panels=(panels, 0), horizon=(horizon, -1))
    found = find(grid)
    chosen = choose_device(device, threads)
    pack = open_clips(data, progress=True)
    request = Request(split, horizon, samples, clips, panels, diagnose=diagnosis)
    cells = run.plan(found, pack, out, scale, seeds)
    workers, threads = run.workers_and_threads(workers, threads, len(cells), chosen.type)
    with run.lock_sweep(out):
        shared = 1 / workers if chosen.type == "cuda" else 0.0
        run.run_all(cells, pack, request, engines.engine(engine, threads, shared), workers, device, threads)
        collected = _collect_all([cell.folder for cell in cells], request, chosen, pack)
        groups = {cell.folder.name: cell.variant for cell in cells}
        title = f"{found.question} ({scale} scale)" if scale != "paper" else found.question
        page = write_report(collected, out / found.name, title, groups)
    print(f"page: {page}")


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    out: Path,
    scoring: ScoringFlags = Scoring(),  # noqa: B008
    title: str = "Experiment",
    data: str | None = None,
    panels: int = 3,
    diagnosis: bool = True,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
) -> None:
    """Write one page about runs: scores with intervals, differences, curves, diagnoses, and clips.

    Runs that differ only in their seed are one variant. Scores are kept in RUN/eval/report.

    Args:
        runs: Folders of runs; differences are to the first.
        out: Folder for the page (index.html, all in one file), its figures and its table.
        title: Of the page.
        data: Clips to score on, as for `train`. Default: those of each run.
        panels: Clips of each run that are shown moving.
        diagnosis: Also measure what scores hide (`foreframe diagnose`).
        metrics: Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian.
    """
    from foreframe.data.open import open_clips
    from foreframe.report.experiment.collect import Request
    from foreframe.report.experiment.page import write_report

    known_metrics(metrics)
    scoring.check()
    at_least(panels=(panels, 0))
    device = scoring.choose_device()
    pack = None if data is None else open_clips(data, progress=True)
    request = Request(
        scoring.split,
        scoring.horizon,
        scoring.samples,
        scoring.clips,
        panels,
        scoring.seed,
        scoring.checkpoint,
        diagnosis,
        metrics,
    )
    print(f"page: {write_report(_collect_all(runs, request, device, pack), out, title)}")


def diagnose(
    run: tyro.conf.Positional[Path],
    scoring: ScoringFlags = Scoring(),  # noqa: B008
    data: str | None = None,
    json: Path | None = None,
) -> None:
    """Measure what a score hides: a collapsed posterior, the gap to reconstruction, obedience, diversity of samples.

    Args:
        run: Folder of the run.
        data: Clips, as for `train`. Default: those of the run.
        json: Where to write the result. Default: in RUN/eval.
    """
    from foreframe import diagnose as diagnosis
    from foreframe.diagnose.table import print_diagnosis
    from foreframe.log import Bar
    from foreframe.report.results import write_json

    scoring.check()
    device, trained, pack = scoring.open(run, data)
    split, horizon = scoring.resolve(trained, pack)
    request = diagnosis.Request(split, horizon, scoring.samples, scoring.clips, scoring.seed)
    with Bar("diagnosing", diagnosis.total(trained, pack, request, device)) as bar:
        result = diagnosis.diagnose(trained, pack, request, device, bar.done)
    print_diagnosis(result)
    path = write_json(result, json or run / "eval" / f"{split}-diagnosis.json")
    print(f"written: {path}")


def _collect_all(runs: Sequence[Path], request: Request, device: torch.device, pack: Pack | None) -> list[RunResults]:
    """The results of each run for a report; prints which were made again."""
    from foreframe.log import Bar
    from foreframe.report.experiment.collect import collect, total

    found = []
    for run in runs:
        with Bar(f"scoring {run.name}", total(run, request, device, pack)) as bar:
            found.append(collect(run, request, device, pack, bar.done))
        for note in found[-1].notes:
            print(note)
    return found
