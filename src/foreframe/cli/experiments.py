"""Verbs of comparisons: `sweep`, `report` and `diagnose`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from foreframe.cli.shared import Device, at_least, known_metrics, open_run

if TYPE_CHECKING:
    import torch

    from foreframe.data.pack.pack import Pack
    from foreframe.report.experiment.gather import Request, RunResults


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

    Stopped or killed, the same command goes on: what is finished is skipped.

    Args:
        grid: Name of a grid (`foreframe presets` lists them), FILE.py or FILE.py:FUNCTION for your own.
        data: Clips, as for `train`.
        out: Folder for the runs, in OUT/runs, and the page, in OUT/GRID. Several grids may share it.
        scale: paper: as written; short: narrower and shorter, minutes a run on a CPU; tiny: seconds, only to try it.
        seeds: Each variant is trained with so many.
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
    from foreframe.report.experiment.gather import Request
    from foreframe.report.experiment.page import write_report
    from foreframe.sweep import engines, find, run

    at_least(samples=(samples, 1), clips=(clips, 0), panels=(panels, 0), horizon=(horizon, -1))
    found = find(grid)
    chosen = choose_device(device, threads)
    pack = open_clips(data, progress=True)
    request = Request(split, horizon, samples, clips, panels, diagnose=diagnosis)
    cells = run.plan(found, pack, out, scale, seeds)
    workers, threads = run.workers_and_threads(workers, threads, len(cells), chosen.type)
    with run.held(out):
        shared = 1 / workers if chosen.type == "cuda" else 0.0
        run.run_all(cells, pack, request, engines.engine(engine, threads, shared), workers, device, threads)
        gathered = _gathered([cell.folder for cell in cells], request, chosen, pack)
        groups = {cell.folder.name: cell.variant for cell in cells}
        title = f"{found.question} ({scale} scale)" if scale != "paper" else found.question
        page = write_report(gathered, out / found.name, title, groups)
    print(f"look at it: {page}")


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    out: Path,
    title: str = "Experiment",
    data: str | None = None,
    split: str | None = None,
    horizon: int = 0,
    samples: int = 10,
    clips: int = 0,
    panels: int = 3,
    checkpoint: str = "best",
    seed: int = 0,
    diagnosis: bool = True,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    device: Device = "auto",
    threads: int | None = None,
) -> None:
    """Write one page about runs: scores with intervals, differences, curves, what scores hide, and clips to look at.

    Runs that differ in nothing but their seed are one variant. What was scored is kept in RUN/eval/report.

    Args:
        runs: Folders of runs; differences are to the first.
        out: Folder for the page (index.html, all in one file), its figures and its table.
        title: Of the page.
        data: Clips to score on, as for `train`. Default: those of each run.
        split: Which of their splits. Default: test, or val where there is no test.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the shortest clip.
        samples: Rollouts of each clip.
        clips: At most this many clips; 0: all.
        panels: Clips of each run that are shown moving.
        checkpoint: best (by validation), newest, or a step.
        seed: Of the noise.
        diagnosis: Also measure what scores hide (`foreframe diagnose`).
        metrics: Any of psnr, psnr-channel, ssim, ssim-range2, ssim-gaussian.
        device: Where to compute.
        threads: CPU threads.
    """
    from foreframe.data.open import open_clips
    from foreframe.device import choose_device
    from foreframe.report.experiment.gather import Request
    from foreframe.report.experiment.page import write_report

    known_metrics(metrics)
    at_least(samples=(samples, 1), clips=(clips, 0), panels=(panels, 0), horizon=(horizon, -1))
    chosen = choose_device(device, threads)
    pack = None if data is None else open_clips(data, progress=True)
    request = Request(split, horizon, samples, clips, panels, seed, checkpoint, diagnosis, metrics)
    print(f"look at it: {write_report(_gathered(runs, request, chosen, pack), out, title)}")


def diagnose(
    run: tyro.conf.Positional[Path],
    data: str | None = None,
    split: str | None = None,
    horizon: int = 0,
    samples: int = 10,
    clips: int = 0,
    checkpoint: str = "best",
    seed: int = 0,
    json: Path | None = None,
    device: Device = "auto",
    threads: int | None = None,
) -> None:
    """Measure what a score hides: a collapsed posterior, the gap to reconstruction, obedience, spread of samples.

    Args:
        run: Folder of the run.
        data: Clips, as for `train`. Default: those of the run.
        split: Which of their splits. Default: test, or val where there is no test.
        horizon: Frames to predict; 0: the preset's, -1: to the end of the shortest clip.
        samples: Rollouts of each clip.
        clips: At most this many clips; 0: all.
        checkpoint: best (by validation), newest, or a step.
        seed: Of the noise.
        json: Where to write the result. Default: in RUN/eval.
        device: Where to compute.
        threads: CPU threads.
    """
    from foreframe import diagnose as diagnosis
    from foreframe.evaluation import default_horizon, default_split, full_horizon
    from foreframe.log import Bar
    from foreframe.report.tables import write_result

    at_least(samples=(samples, 1), clips=(clips, 0), horizon=(horizon, -1))
    chosen, trained, pack = open_run(run, data, checkpoint, device, threads)
    split = split or default_split(pack)
    if horizon == -1:
        horizon = full_horizon(pack, split, trained.config.train.context)
    frames = horizon or default_horizon(trained.config, pack, split)
    request = diagnosis.Request(split, frames, samples, clips, seed)
    with Bar("diagnosing", diagnosis.total(trained, pack, request, chosen)) as bar:
        result = diagnosis.diagnose(trained, pack, request, chosen, bar.done)
    diagnosis.print_diagnosis(result)
    path = write_result(result, json or run / "eval" / f"{split}-diagnosis.json")
    print(f"written: {path}")


def _gathered(runs: Sequence[Path], request: Request, device: torch.device, pack: Pack | None) -> list[RunResults]:
    """What a report says of each run; says what had to be made again."""
    from foreframe.log import Bar
    from foreframe.report.experiment.gather import gather, total

    found = []
    for run in runs:
        with Bar(f"gathering {run.name}", total(run, request, device, pack)) as bar:
            found.append(gather(run, request, device, pack, bar.done))
        for note in found[-1].notes:
            print(note)
    return found
