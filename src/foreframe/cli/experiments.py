"""Verbs of comparisons: `sweep`, `report` and `diagnose`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from foreframe.cli.shared import Reporting, ReportingFlags, Scoring, ScoringFlags
from foreframe.errors import UsageError

if TYPE_CHECKING:
    import torch

    from foreframe.data.pack.pack import Pack
    from foreframe.report.experiment.collect import Request, RunResults
    from foreframe.sweep import Grid
    from foreframe.sweep.scales import ScaleName


def sweep(
    grid: tyro.conf.Positional[str],
    data: str | None = None,
    out: Path | None = None,
    reporting: ReportingFlags = Reporting(),  # noqa: B008
    scale: Literal["tiny", "short", "paper"] = "paper",
    seeds: int = 1,
    workers: int = 0,
    engine: Literal["local", "ray"] = "local",
    dry_run: bool = False,
    json: Path | None = None,
) -> None:
    """Train every variant of a grid, score them all in one way, and write a page that compares them.

    Stopped or killed, the same command continues: finished runs are skipped.

    Args:
        grid: Name of a grid (`foreframe presets` lists them), FILE.py or FILE.py:FUNCTION for your own.
        data: Clips, as for `train`. Needed, as OUT is, for all but --dry-run.
        out: Folder for the runs, in OUT/runs, and the page, in OUT/GRID. Several grids may share it.
        reporting: How runs are scored; --threads are those of each run, by default an equal share of the cores.
        scale: paper: as written; short: narrower and shorter, minutes a run on a CPU; tiny: seconds, only to try it.
        seeds: Trainings of each variant, with different seeds.
        workers: Runs at a time; 0: one on a GPU, one for every two cores without.
        engine: local: processes of this machine; ray: tasks of a Ray cluster that sees the same folders.
        dry_run: Print every variant with all its settings, and train nothing.
        json: Where --dry-run also writes them.
    """
    from foreframe.data.open import open_clips
    from foreframe.report.experiment.page import write_report
    from foreframe.sweep import engines, find, run

    found = find(grid)
    if dry_run:
        return _list(found, scale, json)
    if data is None or out is None:
        raise UsageError("sweep: expected --data CLIPS and --out FOLDER; only --dry-run does without")
    if json is not None:
        raise UsageError(f"--json {json}: goes with --dry-run; a sweep writes results.csv beside its page")
    metric = next(iter(found.variants.values())).metric
    request, device = reporting.request(metric), reporting.choose_device()
    pack = open_clips(data, progress=True)
    cells = run.plan(found, pack, out, scale, seeds)
    workers, threads = run.workers_and_threads(workers, reporting.threads, len(cells), device.type)
    with run.lock_sweep(out):
        shared = 1 / workers if device.type == "cuda" else 0.0
        run.run_all(cells, pack, request, engines.engine(engine, threads, shared), workers, reporting.device, threads)
        collected = _collect_all([cell.folder for cell in cells], request, device, pack)
        groups = {cell.folder.name: cell.variant for cell in cells}
        title = f"{found.question} ({scale} scale)" if scale != "paper" else found.question
        page = write_report(collected, out / found.name, title, groups)
    print(f"page: {page}")


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    out: Path,
    reporting: ReportingFlags = Reporting(),  # noqa: B008
    title: str = "Experiment",
    data: str | None = None,
) -> None:
    """Write one page about runs: scores with intervals, differences, curves, diagnoses, and clips.

    Runs that differ only in their seed are one variant. Scores are kept in RUN/eval/report.

    Args:
        runs: Folders of runs; differences are to the first.
        out: Folder for the page (index.html, all in one file), its figures and its table.
        title: Of the page.
        data: Clips to score on, as for `train`. Default: those of each run.
    """
    from foreframe.data.open import open_clips
    from foreframe.recipe import RunConfig
    from foreframe.report.experiment.page import write_report

    request, device = reporting.request(RunConfig.read(runs[0]).train.metric), reporting.choose_device()
    pack = None if data is None else open_clips(data, progress=True)
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
    from foreframe.api import clips_of
    from foreframe.evaluation import Protocol, resolve
    from foreframe.log import Bar
    from foreframe.report.diagnosis import print_diagnosis
    from foreframe.report.results import write_json

    predictor = scoring.load(run)
    trained, device, pack = predictor.trained, predictor.device, clips_of(predictor.trained, data)
    split, horizon = resolve(trained.config, pack, scoring.split, scoring.horizon)
    protocol = Protocol(
        split, predictor.context, horizon, samples=scoring.samples, seed=scoring.seed, clips=scoring.clips
    )
    with Bar("diagnosing", diagnosis.total(trained, pack, protocol, device)) as bar:
        result = diagnosis.diagnose(trained, pack, protocol, device, bar.done)
    print_diagnosis(result)
    path = write_json(result, json or run / "eval" / f"{split}-diagnosis.json")
    print(f"written: {path}")


def _list(grid: Grid, scale: ScaleName, json: Path | None) -> None:
    from foreframe.sweep import listing

    settings = listing.settings(grid, scale)
    print(f"{grid.name}: {grid.question} ({scale} scale)\n\n{listing.text(settings)}")
    if json is not None:
        listing.write(settings, json)
        print(f"written: {json}")


def _collect_all(runs: Sequence[Path], request: Request, device: torch.device, pack: Pack | None) -> list[RunResults]:
    """The results of each run for a report; prints which were made again."""
    from foreframe.report.experiment.collect import collect

    found = []
    for run in runs:
        found.append(collect(run, request, device, pack, progress=True))
        for note in found[-1].notes:
            print(note)
    return found
