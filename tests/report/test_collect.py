"""What is collected about a run is made once, kept, and made again when anything about it is not as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foreframe import checkpoint, disk, evaluation
from foreframe.errors import CheckpointError, DataError, DiskError, UsageError
from foreframe.report.experiment import collect as collecting
from foreframe.report.experiment import panels
from foreframe.report.experiment.collect import Request, collect
from foreframe.report.gif import limited_gif
from tests.conftest import write_pack
from tests.runs import CPU, TINY, make

REQUEST = Request(samples=3, panels=1, diagnosis=False)


@pytest.fixture(scope="module")
def trained(vector_pack, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "tiny"
    make(vector_pack, run, replace(TINY, steps=2, save_every=1, validate_every=0)).run()
    collect(run, REQUEST, CPU)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture
def scored(monkeypatch):
    """How often a run was scored, once for each mode."""
    calls, real = [], evaluation.evaluate_run
    monkeypatch.setattr(
        evaluation, "evaluate_run", lambda *given, **named: calls.append(given) or real(*given, **named)
    )
    return calls


def test_what_is_collected_is_scored_once_and_kept(run, scored):
    found = collect(run, REQUEST, CPU)
    assert not scored
    assert found.notes == ()
    assert found.name == "tiny"
    assert found.last_step == 2
    assert found.environment["torch"]
    assert found.prediction.protocol.samples == 3
    assert found.reconstruction.protocol.mode == "reconstruction"
    assert (found.diagnosis, found.undiagnosed) == (None, "it was not asked for")


def test_what_is_kept_is_what_was_made(run):
    kept = collect(run, REQUEST, CPU)
    shutil.rmtree(run / "eval")
    again = collect(run, REQUEST, CPU)
    for mode in ("prediction", "reconstruction"):
        assert getattr(kept, mode).scores == getattr(again, mode).scores
    assert kept.panels == again.panels


@pytest.mark.parametrize("change", [{"samples": 2}, {"seed": 1}, {"horizon": 2}, {"metrics": ("psnr",)}])
def test_another_request_is_scored_anew(run, scored, change):
    found = collect(run, Request(**{"samples": 3, "panels": 1, "diagnosis": False, **change}), CPU)
    assert len(scored) == 2
    assert found.notes == ()


def test_other_weights_are_scored_anew(run, scored):
    step = checkpoint.choose(run).step
    other = next(path.name for path in (run / "checkpoints").iterdir() if path.name != f"step-{step:08d}")
    collect(run, Request(samples=3, panels=1, diagnosis=False, checkpoint=str(int(other[5:]))), CPU)
    assert len(scored) == 2


def test_other_clips_are_scored_anew(run, scored, vector_pack, tmp_path):
    collect(run, REQUEST, CPU, write_pack(tmp_path / "more", clips=12))
    assert len(scored) == 2


def test_a_score_that_was_edited_is_made_again_with_a_note(run, scored):
    path = run / "eval" / "report" / "gathered.json"
    values = json.loads(path.read_text())
    values["prediction"]["scores"]["psnr"]["mean"] += 1
    path.write_text(json.dumps(values))
    found = collect(run, REQUEST, CPU)
    assert len(scored) == 2
    assert found.notes == (f"{path}: changed since it was written; made again",)
    assert collect(run, REQUEST, CPU).notes == ()


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_picture_is_made_again_and_named(run, scored, how):
    path = run / "eval" / "report" / "panel-0.gif"
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-9] if how == "cut" else whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    found = collect(run, REQUEST, CPU)
    assert len(scored) == 2
    assert str(path) in found.notes[0]
    assert found.notes[0].endswith("made again")
    assert found.panels[0].gif == whole


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"sha256": 1}'])
def test_what_is_no_record_is_made_again_with_a_note(run, scored, content):
    path = run / "eval" / "report" / "gathered.json"
    path.write_bytes(content)
    found = collect(run, REQUEST, CPU)
    assert len(scored) == 2
    assert str(path) in found.notes[0]


def test_a_run_without_a_checkpoint_is_refused_by_name(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"tiny: no checkpoint yet"):
        collect(run, REQUEST, CPU)


def test_a_run_that_is_being_trained_is_refused_by_name(run):
    lock = disk.Lock(run / ".lock")
    assert lock.take() == ""
    with pytest.raises(CheckpointError, match=r"tiny: still being trained \(process \d+"):
        collect(run, REQUEST, CPU)
    lock.release()
    collect(run, REQUEST, CPU)


def test_panels_show_the_very_samples_that_were_scored(run):
    found = collect(run, Request(samples=3, clips=1, panels=2, diagnosis=False, metrics=("psnr",)), CPU)
    (panel,) = found.panels
    best, median, worst = (panel.psnr[name] for name in ("best", "median", "worst"))
    assert best == pytest.approx(found.prediction.best_of_n["psnr"].mean, abs=1e-4)
    assert (best + median + worst) / 3 == pytest.approx(found.prediction.scores["psnr"].mean, abs=1e-4)
    assert best >= median >= worst


def test_few_samples_are_not_called_what_they_are_not():
    assert panels._ranked([3.0]) == {"sample": 0}
    assert panels._ranked([3.0, 5.0]) == {"best": 1, "worst": 0}
    assert panels._ranked([3.0, 9.0, 5.0, 7.0]) == {"best": 1, "median": 2, "worst": 0}


def test_a_gif_that_would_be_too_large_shows_fewer_frames():
    pictures = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    asked = []

    def draw(frames, factor):
        asked.append((frames, factor))
        return pictures[:frames]

    whole, *shown = limited_gif(draw, 10, 10**9, frames=24, min_frames=12)
    assert shown == [24, 1.0]
    made, shown, _ = limited_gif(draw, 10, len(whole) * 3 // 4, frames=24, min_frames=12)
    assert 12 <= shown < 24
    assert len(made) <= len(whole) * 3 // 4
    assert limited_gif(draw, 10, 1, frames=24, min_frames=12)[1] == 12, "not below the least"
    assert {factor for _, factor in asked} == {1.0}


def test_a_run_that_cannot_be_diagnosed_still_has_scores(run, monkeypatch):
    def fails(*_):
        raise DataError("these clips are odd")

    monkeypatch.setattr(collecting.diagnose, "diagnose", fails)
    found = collect(run, Request(samples=1, panels=0, metrics=("psnr",)), CPU)
    assert (found.diagnosis, found.undiagnosed) == (None, "these clips are odd")
    assert found.panels == ()
    monkeypatch.setattr(collecting.diagnose, "diagnose", lambda *_: (_ for _ in ()).throw(DiskError("full")))
    with pytest.raises(DiskError, match="full"):
        collect(run, Request(samples=2, panels=0), CPU)


def test_a_diagnosis_is_of_the_clips_and_samples_that_were_scored(run, monkeypatch):
    asked = []
    monkeypatch.setattr(collecting.diagnose, "diagnose", lambda *given: asked.append(given[2]) or {"gap": {}})
    found = collect(run, Request(samples=2, panels=0, clips=1, seed=5), CPU)
    assert found.diagnosis == {"gap": {}}
    (wanted,) = asked
    assert (wanted.split, wanted.horizon, wanted.samples, wanted.clips, wanted.seed) == ("test", 3, 2, 1, 5)


def test_the_work_is_known_beforehand_and_what_is_kept_needs_no_bar(run, monkeypatch):
    bars = []

    class Counted:
        def __init__(self, what, total):
            self.what, self.total, self.rollouts = what, total, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def done(self, by):
            self.rollouts += by

    monkeypatch.setattr(collecting, "Bar", Counted)
    collect(run, REQUEST, CPU, progress=True)
    assert bars == []
    shutil.rmtree(run / "eval")
    collect(run, replace(REQUEST, diagnosis=True), CPU, progress=True)
    (bar,) = bars
    assert bar.what == "scoring tiny"
    assert bar.rollouts == bar.total > 2 * (3 + 1)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(samples=0), "samples: expected 1 or more, found 0"),
        (Request(panels=-1), "panels: expected 0 or more"),
        (Request(horizon=-2), "horizon: expected -1 or more"),
        (Request(metrics=()), "metrics: expected one at least"),
        (Request(metrics=("fid",)), "no metric 'fid'"),
    ],
)
def test_a_request_that_cannot_be_is_refused(run, request_, message):
    with pytest.raises(UsageError, match=message):
        collect(run, request_, CPU)
