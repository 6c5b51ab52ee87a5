"""What a report claims of numbers that are known beforehand, and what stands on its page."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foreframe.checkpoint import Provenance
from foreframe.clip import ClipSpec
from foreframe.device import Hardware
from foreframe.diagnose import Diagnosis, DiagnosisProtocol
from foreframe.diagnose.collapse import CollapseResult
from foreframe.diagnose.diversity import BestOfN, DiversityResult
from foreframe.diagnose.gap import GapResult
from foreframe.diagnose.obedience import ObedienceResult
from foreframe.errors import UsageError
from foreframe.evaluation import MeasuredProtocol, Result
from foreframe.metrics import Difference, Summary, summarize
from foreframe.models.svg import Config
from foreframe.recipe import DataSource, RunConfig, TrainConfig
from foreframe.report.experiment import figures as experiment_figures
from foreframe.report.experiment import page as experiment
from foreframe.report.experiment import statistics, tables
from foreframe.report.experiment.collect import RunResults
from foreframe.report.experiment.page import write_report
from foreframe.report.experiment.panels import Panel
from foreframe.report.experiment.statistics import (
    best,
    caveats,
    group,
    run_names,
    scores,
    seed_noise,
    varied,
)
from foreframe.report.plots import inline
from foreframe.schedules import BetaSchedule
from foreframe.video.write import encode_gif
from tests.report.test_page import Tags

CLIPS, FRAMES = 24, 3
MACHINE = Hardware("cpu", 1, 2, "3.11", "2.13", "0.1")
HARD = torch.linspace(16, 30, CLIPS, dtype=torch.float64)[:, None].expand(CLIPS, FRAMES)
"""Clips differ by far more than models do."""


def noise(key, size=0.1):
    return size * torch.randn(CLIPS, FRAMES, generator=torch.Generator().manual_seed(key), dtype=torch.float64)


def made(name, gain, seed=1, beta=1e-4, key=0, cond="vector", metric="psnr", free=-2.0, rows=(), **changes):
    """A run whose scores lie `gain` above those of the clips, but for a little noise."""
    found = summarize(HARD + gain + noise(key))
    spec = ClipSpec(3, 64, 64, cond, {"vector": 2, "image": 3}[cond])
    train = TrainConfig(Config(), steps=20, seed=seed, beta=BetaSchedule(stop=beta))
    protocol = MeasuredProtocol(
        **{
            "split": "test",
            "context": 2,
            "horizon": FRAMES,
            "mode": "prediction",
            "samples": 5,
            "temperature": 1.0,
            "seed": 0,
            "conditions": "true",
            "clips": CLIPS,
            "metrics": {metric: "a definition"},
            "feed": "own",
            "latent": "prior",
            "reduction": "mean",
            "best_of_n": "best",
            "clip_names_sha256": "c",
            "too_short": (),
            "data_sha256": "d",
            "model_sha256": name,
            **changes,
        }
    )
    result = Result(
        protocol=protocol,
        scores={metric: found},
        baselines={"repeat_last": {metric: summarize(HARD + free)}},
        data="squares",
        hardware=MACHINE,
        created="2026-01-01T00:00:00+00:00",
        best_of_n={metric: found},
        model=Provenance(name, "tiny", "svg", 20, "weights", "w", "val"),
    )
    config = RunConfig("tiny", "svg", spec, DataSource(f"/somewhere/{name}", "d"), train)
    return RunResults(result, result, None, "it was not asked for", Path("runs", name), config, list(rows), {}, 20, ())


def variants_of(*runs, groups=None):
    return group(run_names(runs), runs, groups)


def answers(variants, metric="psnr"):
    """By column `better than ...` and row: the cell."""
    table = tables.results(variants, metric)
    names = [cell.text for cell in table.header]
    columns = {
        name.removeprefix("better than "): place for place, name in enumerate(names) if name.startswith("better")
    }
    return {name: {row[0].text: row[place].text for row in table.rows} for name, place in columns.items()}


def test_a_difference_is_claimed_with_its_interval_and_one_that_may_be_none_is_not():
    variants = variants_of(made("first", 0.0), made("second", 0.5, beta=1, key=1), made("third", 0.501, beta=2, key=2))
    best_one = variants[best("psnr", scores(variants, "psnr"))].name
    other = {"second": "third", "third": "second"}[best_one]
    found = answers(variants)
    assert list(found) == ["first", best_one, "repeat last context frame"]
    assert found["first"]["first"] == ""
    assert re.fullmatch(r"yes: \+0\.\d+ \[\+0\.4\d+, \+0\.5\d+\]", found["first"][best_one])
    assert found[best_one][other].startswith("not shown: ")
    assert found[best_one]["first"].startswith("no: -0.")
    assert caveats(variants) == [
        "Trained with one seed, so the variation between seeds is unknown: first, second, third."
    ]


def test_without_any_significant_difference_none_is_better():
    found = answers(variants_of(made("one", 0.0), made("two", 0.0, beta=1, key=3)))
    assert found["one"]["two"].startswith("not shown: ")


def test_a_run_below_a_trivial_baseline_is_not_better_than_it():
    found = answers(variants_of(made("bad", -4.0), made("good", 0.0, beta=1)))
    assert found["repeat last context frame"]["bad"].startswith("no: -2.")
    assert found["repeat last context frame"]["good"].startswith("yes: +")
    assert found["bad"]["repeat last context frame (baseline)"].startswith("yes: +2.")


def test_a_metric_of_which_less_is_better_is_read_that_way():
    runs = made("low", -1.0, metric="lpips", free=1.0), made("high", 2.0, beta=1, metric="lpips", free=1.0)
    found = answers(variants_of(*runs), "lpips")
    assert found["low"]["high"].startswith("no: +3.0")
    assert found["repeat last context frame"]["low"].startswith("yes: -2.")
    assert found["repeat last context frame"]["high"].startswith("no: +")


def test_what_limits_the_results_is_said_in_three_sentences():
    runs = made("one", 0.0, split="val"), replace(made("two", 0.0, beta=1, split="val"), last_step=7)
    assert caveats(variants_of(*runs)) == [
        "Trained with one seed, so the variation between seeds is unknown: one, two.",
        "Checkpoints were chosen on the split that is scored, val: the scores are optimistic.",
        "Stopped before the end of training: two (7 of 20 steps).",
    ]
    assert caveats(variants_of(made("alone", 0.0))) == []


def test_runs_that_differ_only_in_their_seed_are_one_variant():
    runs = [made("beta-1-seed1", 0.0, 1), made("beta-2", 1.0, 1, beta=2), made("beta-1-seed2", 0.4, 2, key=5)]
    found = variants_of(*runs)
    assert [(variant.name, variant.seeds) for variant in found] == [("beta-1", [1, 2]), ("beta-2", [1])]
    (score, _) = scores(found, "psnr")
    assert score.mean == pytest.approx(np.mean([run.prediction.scores["psnr"].mean for run in (runs[0], runs[2])]))
    names, rows = varied(found)
    assert names == ["train.seed", "train.beta.stop"]
    assert rows == [["1, 2", "0.0001"], ["1", "2"]] or rows == [["1, 2", "0.0001"], ["1", "2.0"]]


def test_a_difference_within_the_noise_of_seeds_is_not_claimed():
    noisy = [made(f"a-{seed}", gain, seed, key=seed) for seed, gain in ((1, 0.0), (2, 1.0), (3, 2.0))]
    other = [made(f"b-{seed}", gain, seed, 1.0, key=seed) for seed, gain in ((1, 0.5), (2, 1.5), (3, 2.5))]
    found = scores(variants_of(*noisy, *other), "psnr")
    between = seed_noise(found)
    # Deviation 1 in both, 4 degrees of freedom, 3 runs each: t(0.975, 4) = 2.7764 times sqrt(2 / 3).
    assert between.df == 4
    assert between.deviation == pytest.approx(1.0, abs=0.05)
    step = statistics.difference(*found, between)
    assert step.seeds == pytest.approx(2.7764 * between.deviation * np.sqrt(2 / 3), rel=1e-4)
    assert step.clips.significant
    assert not step.is_significant
    assert answers(variants_of(*noisy, *other))["a"]["b"].startswith("not shown: ")


def test_groups_that_are_given_are_taken_and_must_be_whole():
    runs = made("x", 0.0), made("y", 0.0, beta=1)
    assert [v.name for v in variants_of(*runs, groups={"x": "both", "y": "both"})] == ["both"]
    with pytest.raises(UsageError, match="variant of each run, found none of y"):
        variants_of(*runs, groups={"x": "both"})


@pytest.mark.parametrize("change", [{"horizon": 9}, {"split": "val"}, {"data_sha256": "other"}])
def test_unlike_protocols_and_data_are_refused_with_each_difference(tmp_path, change):
    with pytest.raises(UsageError) as error:
        write_report([made("one", 0.0), made("two", 0.0, **change)], tmp_path)
    ((name, value),) = change.items()
    assert "measured in different ways" in str(error.value)
    assert re.search(rf"one and two:\n +{name}: \S+ -> {value!r}", str(error.value))
    assert not any(tmp_path.iterdir())


def test_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="found none"):
        write_report([], tmp_path)


EVIL = "=<script>alert(1)<b>$x_$|&"


def scored(mean, interval=None):
    return Summary(mean, interval, (mean,), None, (mean,))


def difference(mean, interval):
    return Difference(mean, interval, interval[0] > 0, None, CLIPS, "paired")


DIAGNOSIS = Diagnosis(
    protocol=DiagnosisProtocol("test", FRAMES, 5, CLIPS, 0, 2, 1.0, "c", (), "d", "m"),
    collapse=CollapseResult(
        (8,),
        collapsed=True,
        kl=scored(0.001, (0.0009, 0.0011)),
        kl_definition="KL of <i>what</i>",
        units=8,
        active_units=2,
    ),
    gap=GapResult(scored(20.0), scored(20.25), difference(0.25, (0.2, 0.3)), "", ""),
    obedience=ObedienceResult({}, obeys=False, lost={"shuffled": difference(0.01, (-0.1, 0.2))}),
    spread=DiversityResult(5, BestOfN({"1": scored(20.0), "5": scored(21.0)}, "dB", "", "")),
    model=Provenance("run", "tiny", "svg", 20, "weights", "w", None),
    data="squares",
    hardware=MACHINE,
    created="2026-01-01T00:00:00+00:00",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    figures = out / "figures"
    figures.mkdir()
    for name in ("ssim-per-frame.svg", "mine.svg"):
        (figures / name).write_text("earlier")
    gif = encode_gif(np.zeros((3, 40, 30, 3), np.uint8), 10)
    rows = [{"step": step, "loss": 1 / step, "steps_per_second": 0.5} for step in (10, 20)]
    first = made(EVIL, 0.0, rows=rows, cond="image")
    first = replace(first, diagnosis=DIAGNOSIS, panels=(Panel("<b>clip</b>", {"best": 20.0}, 3, 60, gif),))
    second = replace(made("plain", 1.0, beta=1, key=4, cond="image"), notes=("<u>a note</u>",))
    write_report([first, second], out, "A <b>title</b>")
    return out


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_asks_nothing_of_anyone(page):
    tags = Tags(page)
    assert tags.open == []
    assert "script" not in [tag for tag, _ in tags.seen]
    for _, attributes in tags.seen:
        for key in ("src", "href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("data:", "#"))
    assert not re.search(r"@import|https?://|url\((?!#)", re.sub(r'src="data:[^"]*"', "", page))


def test_what_users_wrote_is_text(page):
    for wrong in ("<script", "<b>title", "<b>clip", "<u>a note", "<i>what"):
        assert wrong not in page
    for right in ("&lt;script&gt;alert(1)", "A &lt;b&gt;title", "&lt;b&gt;clip", "&lt;u&gt;a note", "&lt;i&gt;what"):
        assert right in page


def test_figures_in_the_page_follow_its_colours_and_keep_their_names_apart(page):
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 5  # PSNR, two takes, the loss, best of N
    assert not re.search(r"(?:fill|stroke): #", "".join(drawn))
    names = re.findall(r'\bid="([^"]+)"', "".join(drawn))
    assert len(names) == len(set(names))
    for figure in drawn:
        used = re.findall(r'(?:url\(#|href="#)([^")]+)', figure)
        assert set(used) <= set(re.findall(r'\bid="([^"]+)"', figure))


def test_a_training_ends_with_its_last_values_step_and_duration():
    rows = [{"step": step, "epoch": step // 11, "loss": float(step), "steps_per_second": 2.0} for step in range(1, 21)]
    table = tables.ends(variants_of(made("one", 0.0, rows=rows), made("two", 0.0)))
    assert [cell.text for cell in table.header] == ["run", "loss", "step", "took"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["one", "15.5", "20", "10 s"],
        ["two", "", "20", "not recorded"],
    ]


def test_a_pose_run_has_its_whole_take_with_the_mean_in_the_title(page):
    mean = made(EVIL, 0.0).prediction.scores["psnr"].mean
    assert f"PSNR per frame, mean {mean:.2f} dB" in page


def test_what_was_found_and_what_was_not_measured_is_said(page):
    assert "Collapsed posterior: " in page
    assert "Not shown to obey their conditions: " in page
    assert "plain: not diagnosed, since it was not asked for." in page
    assert "0.0010 [0.0009, 0.0011]" in page
    assert "2 of 8" in page
    assert "Not in any log: Reconstruction term, KL divergence" in page
    assert "40 s" in page
    assert "not recorded" in page
    assert "the first 3 of 60 frames" in page
    assert "train.beta.stop" in page


def test_beside_the_page_lie_its_figures_and_no_earlier_ones(folder):
    names = {path.name for path in (folder / "figures").iterdir()}
    drawn = {"psnr-per-frame", "training-loss", "best-of-n", "take-1", "take-2"}
    assert names == {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")} | {"mine.svg"}


def test_the_table_is_safe_in_a_spreadsheet_and_holds_the_numbers(folder):
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert [row["name"] for row in rows] == [f"'{EVIL}", "plain", "repeat last context frame"]
    assert [row["kind"] for row in rows] == ["variant", "variant", "baseline"]
    assert float(rows[1]["psnr"]) == made("plain", 1.0, key=4).prediction.scores["psnr"].mean
    assert float(rows[1]["psnr_over_first"]) == pytest.approx(1.0, abs=0.05)
    assert rows[1]["psnr_over_first_marked"] == "yes"
    assert rows[2]["psnr_over_first"].startswith("-")
    text = (folder / "results.md").read_text()
    assert "<" not in text.replace(r"\<", "")
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()}) == 1


def test_one_run_alone_has_a_page_without_differences(tmp_path):
    run = made("alone", 0.0)
    text = write_report([run], tmp_path).read_text(encoding="utf-8")
    assert "1 run, scored on 24 clips of the split test of squares: 2 frames given, 3 predicted" in text
    assert "Over the whole take" not in text
    assert "A single run." in text
    assert Tags(text).open == []


def test_panels_that_find_no_room_are_counted(monkeypatch):
    gif = encode_gif(np.zeros((3, 40, 30, 3), np.uint8), 10)
    panels = tuple(Panel(f"clip {number}", {"best": 20.0}, 3, 3, gif) for number in range(2))
    runs = [replace(made(name, 0.0, beta=beta), panels=panels) for name, beta in (("a", 1), ("b", 2))]
    monkeypatch.setattr(experiment, "GIF_BYTES", 3 * len(gif))
    section = experiment._samples(variants_of(*runs))
    assert [(name, len(found)) for name, found in section.pictures] == [("a", 2), ("b", 1)], (
        "each run has its first one"
    )
    assert "1 more did not fit on this page" in section.notes[-1]


def test_names_of_any_kind_can_be_drawn():
    runs = [made(name, 0.0, beta=number) for number, name in enumerate(("_hidden", "$a$b$", "日本", "x" * 200))]
    drawn = experiment_figures.per_frame(variants_of(*runs), "psnr")
    text = inline(drawn.figure, "x")
    for part in ("_hidden", "$a$b$", "日本", "…"):
        assert part in text
    assert "x" * 50 not in text
