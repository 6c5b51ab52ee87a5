"""Figures are drawn from what a result and a log hold, with gaps."""

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from foreframe.report.plots import per_frame_figure, training_figure
from foreframe.video import read_png

CURVES = {
    "prediction": {"per_frame": [20.0, 19.0, 18.0], "per_frame_ci95": [[19.0, 21.0], [18.0, 20.0], [17.0, 19.0]]},
    "repeat_last": {"per_frame": [18.0, 17.0, 16.0], "per_frame_ci95": None},
}
ROWS = [
    {"step": 1, "loss": 2.0, "reconstruction": 1.0, "kl_nats": 3.0, "beta": 0.0, "forcing": 1.0, "lr": 1e-3},
    {"step": 2, "loss": math.nan, "lr": None, "note": "text"},
    {"step": 2, "val_prediction_psnr": 20.0, "val_reconstruction_psnr": 24.0, "val_repeat_last_psnr": 19.0},
    {"step": 3, "loss": 0.1, "kl_nats": 1.0, "beta": 1e-4},
]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_both_figures_are_written_in_the_kind_of_their_suffix(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / "a" / f"curve.{suffix}", tmp_path / "a" / f"training.{suffix}"]
    per_frame_figure(CURVES, 2, "PSNR in dB", "Test", paths[0])
    training_figure(ROWS, paths[1])
    assert sorted((tmp_path / "a").iterdir()) == sorted(paths)
    for path in paths:
        if suffix == "png":
            assert min(read_png(path).shape[:2]) > 300
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        per_frame_figure(CURVES, 2, "PSNR in dB", "Test", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_log_of_one_number_gives_one_panel(tmp_path: Path) -> None:
    training_figure(ROWS, tmp_path / "all.png")
    training_figure([{"step": 1, "loss": 0.5}], tmp_path / "one.png")
    assert read_png(tmp_path / "one.png").shape[1] < read_png(tmp_path / "all.png").shape[1]


def test_a_log_without_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the 1 rows"):
        training_figure([{"step": 1, "loss": math.nan}], tmp_path / "x.png")


def test_another_suffix_and_no_curve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        per_frame_figure(CURVES, 2, "PSNR", "Test", tmp_path / "x.pdf")
    with pytest.raises(ValueError, match="at least one"):
        per_frame_figure({}, 2, "PSNR", "Test", tmp_path / "x.png")
    wrong = {"prediction": {"per_frame": [1.0, 2.0], "per_frame_ci95": [[0.0, 2.0]]}}
    with pytest.raises(ValueError, match="expected 2 intervals, got 1"):
        per_frame_figure(wrong, 2, "PSNR", "Test", tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
