"""From training to predicted video with scores, on the sample in the package."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from foreframe import disk, evaluation, signals
from foreframe.api import begin, evaluate, load
from foreframe.config import to_dict
from foreframe.data.open import open_clips
from foreframe.data.pack.pack import Pack
from foreframe.device import choose_device
from foreframe.distributed import World
from foreframe.errors import UsageError
from foreframe.log import read_log
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.report import html, results
from foreframe.report.plots import line_figure, over_frames, per_frame
from foreframe.report.rollout import Rolling, write_rollouts
from foreframe.report.starts import from_pack
from foreframe.report.training import Training, training_charts
from foreframe.rollout import ModeName
from foreframe.training.trainer import Trainer

PRESET = "push-demo"
CLIPS_SHOWN = 6
SAMPLES = 2


def run_demo(out: Path, max_minutes: float, threads: int | None = None) -> None:
    """Train `push-demo`, score it on the test clips, and leave GIFs and one page of them in `out`.

    An interrupted demo continues.
    """
    begun = time.monotonic()
    device = choose_device("auto", threads)
    pack = open_clips("push", progress=True)
    run, page_path = out / "run", out / "index.html"
    trainer = _trainer(run, pack, device)
    print(trainer.run(max_minutes))
    signals.poll()
    predictor = load(run, device, "newest")
    trained = predictor.trained
    found: dict[ModeName, evaluation.Result] = {}
    wanted: list[tuple[ModeName, int]] = [("prediction", SAMPLES), ("reconstruction", 1)]
    for mode, samples in wanted:
        found[mode] = evaluate(predictor, split="test", samples=samples, mode=mode, progress=True)
        results.write_json(found[mode], out / f"{mode}.json")
    results.print_result(found["prediction"])
    for clip in range(min(CLIPS_SHOWN, len(pack.split("test")))):
        shown = Rolling(samples=SAMPLES, scale=2, fps=6.0)
        write_rollouts(trained, [from_pack(trained, pack, "test", clip, 0)], out / f"clip-{clip}", device, shown)
    minutes = (time.monotonic() - begun) / 60
    _write_page(page_path, out, found, trained.config, run, minutes)
    gain = _gain(found["prediction"])
    print(f"prediction is {gain:+.2f} dB against repeating the last frame; {minutes:.1f} minutes in all")
    print(f"page: {page_path} (or {out}/clip-*/rollout.gif)")


def _trainer(run: Path, pack: Pack, device: torch.device) -> Trainer:
    """Of a new run, or of the one that an interrupted demo left."""
    if not (run / "config.json").exists():
        return begin(PRESET, find(PRESET), "push", run, World(device))
    record = RunConfig.of(PRESET, find(PRESET), pack)
    if RunConfig.read(run) != record:
        raise UsageError(f"{run}: holds another run; give `foreframe demo --out` another folder")
    return Trainer(record, pack, run, device)


def _gain(result: evaluation.Result) -> float:
    """Prediction above repeating the last context frame, in dB."""
    return result.scores["psnr"].mean - result.baselines["repeat_last"]["psnr"].mean


def _write_page(
    path: Path, out: Path, found: dict[ModeName, evaluation.Result], config: RunConfig, run: Path, minutes: float
) -> None:
    prediction = found["prediction"]
    known, psnr = config.train.context, prediction.scores["psnr"]
    lines = [per_frame("prediction", psnr.per_frame, known, 0, psnr.per_frame_ci95)]
    lines += [
        per_frame(name, prediction.baselines[key]["psnr"].per_frame, known, None)
        for key, name in results.BASELINES.items()
    ]
    curve = line_figure(over_frames("PSNR per frame", "PSNR (dB)", known, lines))
    figures = [html.Drawn("psnr-per-frame", "Bands: 95 % intervals over clips", curve)]
    charts = training_charts([Training("", 0, read_log(run))])  # none when it was stopped within the first steps
    figures += [html.Drawn(quantity.key, quantity.caption, line_figure(chart)) for quantity, chart in charts.items()]
    header, rows = results.result_table(prediction)
    seen = results.result_table(found["reconstruction"])[1][0]
    rows = [rows[0], *rows[1:], [f"{seen[0]} (z has seen the frame: not a prediction)", *seen[1:]]]
    hardware = prediction.hardware
    intro = [
        f"A simulated robot arm pushes objects. The model is given {known} frames and the arm's actions and positions, "
        f"and predicts the {prediction.protocol.horizon} frames that follow. Every clip here was kept out of training.",
        f"Prediction is {_gain(prediction):+.2f} dB against repeating the last frame. Made in {minutes:.1f} minutes on "
        f"{hardware.device} with {hardware.threads} threads.",
    ]
    gifs = [(clip, out / f"clip-{clip}" / "rollout.gif") for clip in range(CLIPS_SHOWN)]
    videos = [
        html.picture_of(gif, f"Test clip {clip}: truth, prediction, error, a second sample")
        for clip, gif in gifs
        if gif.exists()
    ]
    table = html.text_table("Scores on the test clips; in brackets 95 % intervals over clips", header, rows)
    details = {key: value for key, value in to_dict(prediction).items() if key in ("protocol", "model", "hardware")}
    sections = [
        html.Section("Videos", pictures=[("", videos)]),
        html.Section("Numbers", [table]),
        html.Section("Curves", figures=figures),
        html.Section("How this was made", folded=[("All settings", html.flat(details))]),
    ]
    disk.put(path, html.page("foreframe: the demo", intro, sections))
