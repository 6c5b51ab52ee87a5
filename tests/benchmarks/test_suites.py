"""Every suite at tiny sizes: what it hands back, not how fast it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.count import Work
from benchmarks.measure import Rounds
from benchmarks.suites import BenchContext

from benchmarks import data, growth, measure, metrics, rollout, run, tables, train
from foreframe.data.loading.windows import Windows
from foreframe.errors import UsageError

QUICK = BenchContext(torch.device("cpu"), Rounds(2, 1), quick=True)


WORK = Work(1, 1, 1, 0, 1).per_clip(1)


@pytest.fixture
def _uncounted(monkeypatch):
    monkeypatch.setattr(train, "_count", lambda case, model: {way: WORK for way in ("plain", "fast")})


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(measure._YARDSTICK, "cpu", 8)
    cases = train.cases
    monkeypatch.setattr(train, "cases", lambda device, quick: cases(device, quick)[:1])
    monkeypatch.setattr(train, "exactness", lambda: [{"loss": 1e-16, "gradient": 1e-14}])
    monkeypatch.setattr(
        growth, "points", lambda quick: [growth.Point("width", 2, 2, 4), growth.Point("width", 2, 2, 8)]
    )


@pytest.mark.nightly
def test_a_training_comparison_holds_plain_and_fast_with_their_work_and_first_kl():
    suite = train.run(QUICK)
    (comparison,) = suite.races
    assert [row["name"] for row in comparison["ways"]] == ["plain", "fast"]
    assert all(len(row["rounds"]) == 2 and row["flops"] > 0 for row in comparison["ways"])
    assert comparison["first_kl_nats"]["plain"] == pytest.approx(comparison["first_kl_nats"]["fast"], rel=1e-3)
    assert [row["way"] for row in suite.counted] == ["plain", "fast"]
    assert suite.counted[0]["flops"] > suite.counted[1]["flops"]


@pytest.mark.usefixtures("_uncounted")
def test_a_row_for_a_gpu_is_not_tried_on_a_cpu():
    assert any(way.graphs for way in train.WAYS)
    assert len(train.run(QUICK).races[0]["ways"]) == 2


@pytest.mark.usefixtures("_uncounted")
def test_a_new_way_is_one_entry_and_is_made_as_it_says(monkeypatch):
    compiled = []
    monkeypatch.setattr(train, "compile_parts", compiled.append)
    monkeypatch.setattr(train, "WAYS", (*train.WAYS, train.Variant("compiled", compile=True)))
    assert train.run(QUICK).races[0]["ways"][2]["name"] == "compiled"
    assert len(compiled) == 1


def test_exactness_covers_both_backbones_priors_and_all_feeds(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(train, "difference", lambda model, case: (0.0, 0.0))
    assert len({(row["backbone"], row["prior"], row["feed"]) for row in train.exactness()}) == 12


@pytest.mark.nightly
@pytest.mark.parametrize(
    # Four exports to ONNX are minutes; tests/test_onnx.py has one for every change.
    "predictors",
    [rollout.PREDICTORS[:1], pytest.param(rollout.PREDICTORS, marks=pytest.mark.nightly)],
    ids=["fast", "all"],
)
def test_rollouts_agree_and_best_of_n_does_not_depend_on_chunks(monkeypatch, predictors):
    monkeypatch.setattr(rollout, "PREDICTORS", predictors)
    suite = rollout.run(QUICK)
    assert [comparison["race"] for comparison in suite.races][:2] == ["one clip, dcgan", "best of 4, dcgan"]
    assert suite.races[0]["largest_difference"]["fast"] < 1e-5
    model = rollout.settled("dcgan", rollout.QUICK)
    context, noise = rollout.given(model, rollout.QUICK, 4, QUICK.device)
    truth = torch.rand(rollout.QUICK.horizon, 3, 64, 64)
    best = [rollout.best_of_n(rollout.chunks(model, context, noise, size), truth) for size in (1, 4)]
    assert best[0] == pytest.approx(best[1], rel=1e-5)


@pytest.mark.nightly
def test_a_predictor_whose_package_is_missing_is_left_out_with_the_reason(monkeypatch):
    def missing(model, context, noise):
        raise UsageError("needs onnxruntime: pip install 'foreframe[onnx]'")

    monkeypatch.setattr(rollout, "PREDICTORS", (rollout.Predictor("onnx", missing),))
    suite = rollout.run(QUICK)
    assert suite.left_out[0] == {"row": "dcgan: onnx", "why": "needs onnxruntime: pip install 'foreframe[onnx]'"}


def test_a_pack_and_its_pngs_hold_the_same_frames(tmp_path):
    pack = data.write_pack(tmp_path / "pack", 2)
    assert 5_000 < data.write_pngs(tmp_path / "png", pack) < 12_000
    windows = Windows(pack, "train", 4)
    indices = data.batch_indices(len(windows), 2, 0, 3)[1]
    read = data.read_pngs(tmp_path / "png", windows, 2, 3)
    assert torch.equal(read, windows.batch(indices).unit().frames)


def test_reading_is_compared_by_frames_and_set_beside_a_step():
    suite = data.run(QUICK)
    rows = suite.races[0]["ways"]
    assert rows[0]["factor"]["median"] == 1.0
    assert rows[2]["factor"] is None
    assert suite.checks["share_of_step"]["min"] > 0


@pytest.mark.parametrize(
    ("loop", "package", "names"),
    [
        (metrics.scikit_image_loop, "skimage.metrics", ("psnr-channel", "ssim")),
        (metrics.gaussian_loop, "scipy.signal", ("psnr-channel", "ssim-gaussian")),
    ],
)
def test_the_published_loops_give_what_the_metrics_give(loop, package, names):
    module = pytest.importorskip(package)
    truth = torch.rand(2, 3, 16, 16)
    predicted = (truth + 0.1 * torch.rand(2, *truth.shape)).clamp(0, 1)
    expected = loop(module, predicted.numpy(), truth.numpy())
    for found in (metrics.batched(predicted, truth, names), metrics.together(predicted, truth, names)):
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_missing_package_leaves_its_loop_out_and_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(metrics, "optional", lambda name: None)
    suite = metrics.run(QUICK)
    assert suite.left_out[0]["why"] == "scikit-image is not installed: pip install scikit-image"
    assert all(row["factor"] is None for found in suite.races for row in found["ways"])


@pytest.mark.nightly
def test_growth_counts_every_point_and_times_the_small_ones(monkeypatch, tmp_path):
    monkeypatch.setitem(growth.TIMED_FLOPS, "cpu", 1.5e8)
    found = growth.run(QUICK).counted
    assert found[2]["flops"] > found[0]["flops"] > found[1]["flops"]
    assert [row["seconds"] is None for row in found] == [False, False, True, True]
    growth.figure(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.nightly
@pytest.mark.usefixtures("_uncounted")
def test_one_file_holds_everything_and_says_that_it_is_a_rehearsal(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "points", lambda quick: [growth.Point("width", 2, 2, 4)])
    suites = ("train", "data", "metrics", "growth")
    found = run.run_bench(suites, "cpu", rounds=1, quick=True, json=tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == found
    assert set(found) == {"format", "created", "hardware", "settings", "suites"}
    assert tuple(found["suites"]) == suites
    assert all(set(suite) == {"races", "checks", "counted", "left_out"} for suite in found["suites"].values())
    assert {"processor", "torch", "threads", "versions"} <= set(found["hardware"])
    assert (tmp_path / "b-growth.png").exists()
    text = tables.markdown(found)
    assert "a rehearsal: its numbers mean nothing" in text
    assert "| svg dcgan teacher-forced | CPU time | times faster |" in text


def test_too_few_rounds_are_refused(tmp_path):
    with pytest.raises(UsageError, match="expected 1 or more"):
        run.run_bench(rounds=0, json=tmp_path / "b.json")


def test_tables_show_medians_with_their_range():
    comparison = {
        "race": "r",
        "clock": "cpu_seconds",
        "ways": [
            {
                "name": "a",
                "precision": "bfloat16",
                "seconds": {"median": 0.0123, "min": 0.01, "max": 0.02},
                "factor": {"median": 1.5, "min": 1.25, "max": 2.0},
                "flops": 1.0,
                "gflops_per_second": 100.0,
                "share_of_matmul": 0.5,
                "frames": 1,
                "frames_per_second": 1234.0,
                "peak_bytes": 2_000_000,
            }
        ],
        "yardsticks": [],
    }
    _, rows = tables.comparison_table(comparison)
    assert rows == [["a (bfloat16)", "12.3 [10-20] ms", "1.50 [1.25-2.00]", "1,234", "100", "0.50", "2 MB"]]


def test_sizes_of_a_rehearsal_change_no_case_but_its_sizes(monkeypatch):
    monkeypatch.undo()
    full = {case.name: case for case in train.cases(QUICK.device, quick=False)}
    for case in train.cases(QUICK.device, quick=True):
        other = full[case.name]
        sizes = {name: getattr(other.config, name) for name in train.TINY}
        config = replace(case.config, **sizes)
        assert replace(case, config=config, batch=other.batch, horizon=other.horizon) == other
