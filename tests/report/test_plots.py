"""Figures are drawn from the numbers of a result and of a log with gaps."""

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from foreframe.report.plots import Chart, Line, inline, line_figure, over_frames, per_frame, save
from foreframe.report.training import Training, final, training_charts, training_figure
from foreframe.video import read_image

ROWS = [
    {"step": 1, "loss": 2.0, "reconstruction": 1.0, "kl_nats": 3.0, "beta": 0.0, "forcing": 1.0, "lr": 1e-3},
    {"step": 2, "loss": math.nan, "lr": None, "note": "text"},
    {"step": 2, "val_prediction_psnr": 20.0, "val_reconstruction_psnr": 24.0, "val_repeat_last_psnr": 19.0},
    {"step": 3, "loss": 0.1, "kl_nats": 1.0, "beta": 1e-4},
]


def scores_figure() -> Figure:
    bands = [[19.0, 21.0], [18.0, 20.0], [17.0, 19.0]]
    lines = [
        per_frame("prediction", [20.0, 19.0, 18.0], 2, 0, bands),
        per_frame("repeat last", [18.0, 17.0, 16.0], 2, None),
    ]
    return line_figure(over_frames("Test", "PSNR (dB)", 2, lines))


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_both_figures_are_written_in_the_kind_of_their_suffix(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / "a" / f"curve.{suffix}", tmp_path / "a" / f"training.{suffix}"]
    save(scores_figure(), paths[0])
    save(training_figure(ROWS), paths[1])
    assert sorted((tmp_path / "a").iterdir()) == sorted(paths)
    for path in paths:
        if suffix == "png":
            assert min(read_image(path).shape[:2]) > 300
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save(scores_figure(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert inline(scores_figure(), "a") == inline(scores_figure(), "a")


def test_the_first_score_stands_over_the_first_predicted_frame() -> None:
    assert list(per_frame("", [1.0, 2.0], 2, 0).x) == [3, 4]


def test_a_log_of_one_number_gives_one_chart(tmp_path: Path) -> None:
    save(training_figure(ROWS), tmp_path / "all.png")
    save(training_figure([{"step": 1, "loss": 0.5}]), tmp_path / "one.png")
    assert read_image(tmp_path / "one.png").shape[1] < read_image(tmp_path / "all.png").shape[1]


def test_numbers_that_are_missing_or_not_finite_leave_no_point() -> None:
    charts = {quantity.key: chart for quantity, chart in training_charts([Training("run", 0, ROWS)]).items()}
    assert (charts["loss"].lines[0].x, charts["loss"].lines[0].y) == ([1, 3], [2.0, 0.1])
    assert charts["lr"].lines[0].x == [1]
    assert [line.name for line in charts["val_prediction_psnr"].lines] == ["run", "repeat last frame"]
    assert "val_one_step_psnr" not in charts


def test_the_loss_has_a_point_for_each_epoch_beside_its_line() -> None:
    rows = [{"step": step, "epoch": (step - 1) // 4, "loss": float(step), "beta": 1.0} for step in range(1, 11)]
    charts = {quantity.key: chart for quantity, chart in training_charts([Training("run", 0, rows)]).items()}
    means, line = charts["loss"].lines
    assert (means.x, means.y, means.dots) == ([4, 8, 10], [2.5, 6.5, 9.5], True)
    assert (line.x, line.faint) == ([float(row["step"]) for row in rows], True)
    assert charts["loss"].title == "Loss (points: epochs)"
    assert len(charts["beta"].lines) == 1, "schedules are not noisy"
    assert (final(rows, "loss"), final(rows, "beta"), final(rows, "lr")) == (9.5, 1.0, None)
    assert final(ROWS, "loss") == 0.1


def test_a_log_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="none of its 1 rows"):
        training_figure([{"step": 1, "loss": math.nan}])


def test_another_suffix_no_line_and_bounds_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        save(scores_figure(), tmp_path / "x.pdf")
    for charts in ([], [Chart("", "", "", [])]):
        with pytest.raises(ValueError, match="at least one"):
            line_figure(*charts)
    with pytest.raises(ValueError, match="2 values and bounds for 2 places"):
        line_figure(Chart("", "", "", [Line("x", [1, 2], [1.0, 2.0], 0, [0.0], [2.0])]))
    assert not list(tmp_path.iterdir())
