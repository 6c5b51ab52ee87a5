"""A test set without truth: predicted by one command, named, handed in, and scored where truth is there."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from foreframe import cli
from foreframe.checkpoint import Provenance
from foreframe.data.formats.images import example_picture
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts import dance_lab
from foreframe.report.sequences import score, submission
from foreframe.report.starts import Start
from foreframe.video import read_image, write_png
from tests.test_cli import call

POSES, NAMES = 7, ("0", "2", "10")
SIZES = ["--model.f-dim", "16", "--model.l-dim", "8", "--model.n-dim", "4", "--model.d-out", "16"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand-out of the pose lab with three test sequences of 7 poses."""
    folder = tmp_path_factory.mktemp("lab") / "LAB4_Dataset"
    dance_lab.example(folder)
    shutil.rmtree(folder / "test")
    for order, name in enumerate(NAMES):
        for number in range(POSES):
            picture = example_picture(number + 10 * order, 64, 128, 4)
            write_png(folder / "test/test_label" / name / f"frame{number:06d}.png", picture)
        write_png(folder / "test/test_img" / name / "frame000000.png", example_picture(order, 64, 128, 2))
    return folder


@pytest.fixture(scope="module")
def run(lab: Path) -> Path:
    pack, path = lab.parent / "pack", lab.parent / "run"
    import_clips(lab, pack, "dance_lab", workers=0)
    short = ["--horizon", "3", "--eval-horizon", "3", "--batch", "2", "--threads", "1", "--steps", "1"]
    cli.main(["train", "pose-dance", "--data", str(pack), "--run", str(path), *short, *SIZES])
    return path


@pytest.fixture(scope="module")
def made(lab: Path, run: Path) -> Path:
    out = lab.parent / "out"
    command = ["rollout", str(run), "--data", str(lab), "--split", "test", "--out", str(out)]
    cli.main([*command, "--submission", str(out / "submission.csv")])
    return out


def frames_of(out: Path, name: str, sample: int = 1) -> np.ndarray:
    return np.stack([read_image(path) for path in sorted((out / name / f"sample-{sample}").iterdir())])


def truth_beside(lab: Path, folder: Path, names: tuple[str, ...], first: int = 0) -> None:
    """A copy of a hand-out, with true frames from number `first` of some sequences."""
    shutil.copytree(lab, folder)
    for name in names:
        for number in range(first, POSES):
            path = folder / "test/test_gt" / name / f"frame{number:06d}.png"
            write_png(path, example_picture(number + int(name), 64, 128, 1))


def small(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize((64, 32), Image.Resampling.BILINEAR))


def test_each_sequence_has_files_of_its_name(made: Path):
    files = {file for name in NAMES for file in (f"{name}.gif", f"{name}.mp4", f"{name}-strip.png", name)}
    assert {path.name for path in made.iterdir()} == {*files, "submission.csv"}
    for name in NAMES:
        pictures = sorted(path.name for path in (made / name / "sample-1").iterdir())
        assert pictures == [f"{t:05d}.png" for t in range(2, POSES + 1)]
        with Image.open(made / f"{name}.gif") as gif:
            assert gif.n_frames == POSES


def test_the_submission_holds_the_frames_in_the_order_of_the_course(lab: Path, made: Path):
    with (made / "submission.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", *(str(i) for i in range(3 * 32 * 64))]
    assert [row[0] for row in rows] == [str(i) for i in range(len(NAMES) * POSES)]
    read = np.array(rows, np.int64)[:, 1:].reshape(len(NAMES), POSES, 3, 32, 64)
    for order, name in enumerate(NAMES):
        assert (read[order, 0] == small(lab / "test/test_img" / name / "frame000000.png").transpose(2, 0, 1)).all()
        assert (read[order, 1:] == frames_of(made, name).transpose(0, 3, 1, 2)).all()


def test_a_row_of_the_submission_is_rounded_to_the_even_number():
    values = torch.tensor([0.5, 1.5, 2.5, 254.4]).div(255).double().reshape(1, 1, 2, 2)
    start = Start("0", 0, torch.zeros(1, 1, 1, 2, 2, dtype=torch.uint8), None, None, 2)
    rows = submission([start], [[values]]).decode().splitlines()
    assert rows[2] == "1," + ",".join(str(int(np.rint(value))) for value in (values.float() * 255).flatten().tolist())


def test_folders_are_taken_as_the_split_is(capsys, lab: Path, run: Path, made: Path, tmp_path: Path):
    folders = ["--frames", lab / "test/test_img", "--cond", lab / "test/test_label"]
    assert call(capsys, "rollout", run, *folders, "--out", tmp_path)[0] == 0
    for name in NAMES:
        assert (frames_of(tmp_path, name) == frames_of(made, name)).all()


def test_one_sequence_is_the_same_alone_and_among_others(capsys, lab: Path, run: Path, made: Path, tmp_path: Path):
    folders = ["--frames", lab / "test/test_img/0", "--cond", lab / "test/test_label/0"]
    code, out, _ = call(capsys, "rollout", run, *folders, "--out", tmp_path)
    assert code == 0
    assert out.startswith("0: prediction of 6 frames")
    found = np.stack([read_image(path) for path in sorted((tmp_path / "frames/sample-1").iterdir())])
    assert abs(found.astype(int) - frames_of(made, "0")).max() <= 1


def test_sequences_of_different_length_are_predicted_together(capsys, lab: Path, run: Path, made: Path, tmp_path: Path):
    shutil.copytree(lab / "test", tmp_path / "test")
    (tmp_path / f"test/test_label/2/frame{POSES - 1:06d}.png").unlink()
    folders = ["--frames", tmp_path / "test/test_img", "--cond", tmp_path / "test/test_label"]
    code, out, err = call(capsys, "rollout", run, *folders, "--samples", 2, "--out", tmp_path / "out")
    assert code == 0, err
    assert "3 sequences: prediction of 5 to 6 frames, 2 sample(s)" in out
    assert "prediction 34/34" in err
    assert [len(frames_of(tmp_path / "out", name, 2)) for name in NAMES] == [6, 5, 6]
    assert abs(frames_of(tmp_path / "out", "10").astype(int) - frames_of(made, "10")).max() <= 1


@pytest.mark.parametrize("first", [0, 1])
def test_where_truth_lies_beside_it_is_scored(capsys, lab: Path, run: Path, made: Path, tmp_path: Path, first: int):
    truth_beside(lab, tmp_path / "lab", ("0", "10"), first)
    out = tmp_path / "out"
    code, said, err = call(capsys, "rollout", run, "--data", tmp_path / "lab", "--split", "test", "--out", out)
    assert code == 0, err
    found = json.loads((out / "scores.json").read_text())
    assert list(found["sequences"]) == ["0", "10"]
    expected = []
    for name in ("0", "10"):
        paths = [tmp_path / "lab/test/test_gt" / name / f"frame{t:06d}.png" for t in range(1, POSES)]
        error = (np.stack([small(path) for path in paths]) / 255 - frames_of(out, name) / 255) ** 2
        whole = (-10 * np.log10(error.mean((1, 2, 3)))).mean()
        channels = (-10 * np.log10(error.mean((1, 2)))).mean()
        scores = found["sequences"][name]
        assert scores["psnr"]["prediction"]["1-6"] == pytest.approx(whole, abs=1e-4)
        assert scores["psnr-channel"]["prediction"]["1-6"] == pytest.approx(channels, abs=1e-4)
        expected.append(whole)
    assert found["mean"]["psnr"]["prediction"]["1-6"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert f"mean of 2, psnr: prediction {np.mean(expected):.2f} dB (frames 1-6); repeat last" in said
    assert "no true frames, so not scored: 2" in said
    assert {path.name for path in out.iterdir()} >= {"0-psnr.json", "0-psnr.png", "0-psnr.svg", "scores.json"}


def test_scores_of_an_earlier_rollout_go(capsys, lab: Path, run: Path, tmp_path: Path):
    for name in ("scores.json", "0-psnr.json"):
        (tmp_path / name).write_text("old")
    call(capsys, "rollout", run, "--data", lab, "--split", "test", "--horizon", 1, "--out", tmp_path)
    assert not {"scores.json", "0-psnr.json"} & {path.name for path in tmp_path.iterdir()}


def test_the_first_600_of_629_frames_also_have_a_score_by_themselves():
    truth = torch.zeros(1, 630, 1, 4, 4, dtype=torch.uint8)
    start = Start("0", 0, truth[:, :1], None, truth, 630)
    made = torch.full((629, 1, 4, 4), 0.1)
    made[600:] = 1.0  # 0 dB
    weights = Provenance("run", "preset", "model", 1, "weights", "0" * 64, "val")
    trained = SimpleNamespace(provenance=weights)
    found = json.loads(score([start], [[made]], "prediction", trained, dance_lab.SCORED).file)  # type: ignore[arg-type]
    level = -20 * np.log10(26 / 255)  # 0.1 as one of 256 levels
    assert found["mean"]["psnr"]["prediction"] == {
        "1-600": pytest.approx(level, abs=1e-4),
        "1-629": pytest.approx(level * 600 / 629, abs=1e-4),
    }


def test_further_frames_of_a_folder_are_truth(capsys, lab: Path, run: Path, tmp_path: Path):
    folders = ["--frames", lab / "val/val_img", "--cond", lab / "val/val_label"]
    modes = ["--mode", "reconstruction"]
    code, said, err = call(capsys, "rollout", run, *folders, *modes, "--out", tmp_path)
    assert code == 0, err
    assert "PSNR: reconstruction" in said
    assert len(json.loads((tmp_path / "psnr.json").read_text())["psnr"]["reconstruction"]["per_frame"]) == 8


def test_evaluate_says_what_to_do_with_a_split_without_truth(capsys, run: Path, lab: Path):
    for verb in (("evaluate", run), ("rollout", run, "--out", "x")):
        code, _, err = call(capsys, *verb, "--split", "test")
        assert code == 1
        assert "split 'test' has no true frames, so it cannot be scored" in err
        assert "`foreframe rollout RUN --data LAB4_Dataset --split test --out DIR`" in err


def test_what_does_not_fit_is_told(capsys, run: Path, lab: Path, tmp_path: Path):
    truth_beside(lab, tmp_path / "lab", ("0",))
    truth, poses = tmp_path / "lab/test/test_gt", tmp_path / "lab/test/test_label"
    (truth / "0/frame000003.png").unlink()
    (truth / "0/frame000004.png").unlink()
    shutil.copytree(poses / "0", poses / "3")
    shutil.rmtree(poses / "10")
    (tmp_path / "none").mkdir()
    frames = ["--frames", lab / "test/test_img"]
    for arguments, expected in (
        ([*frames, "--cond", poses], f"--cond {poses}: expected each sequence in both, found in one only: 10, 3"),
        ([*frames, "--cond", lab / "test/test_label", "--truth", truth], "0: expected 7 true frames, or 6 without the"),
        ([*frames, "--cond", lab / "none"], "expected each sequence in both, found in one only: 0, 10, 2"),
        (frames, "--cond is needed: a folder of pose pictures"),
        (["--frames", tmp_path / "none", "--cond", poses / "0"], "expected a folder of pictures, found none"),
        (["--truth", truth], "--truth needs --frames"),
        (["--data", lab, "--split", "test", "--clip", 1], "--clip: chooses a clip that is packed"),
        (["--data", lab, "--split", "test", "--mode", "one-step"], "--mode one-step needs the true frames"),
        (["--data", lab, "--split", "test", "--horizon", 9], "holds 7 conditions; with 1 context frames"),
        (["--submission", "x.csv", "--samples", 2], "--submission: holds one prediction of each sequence, not --samp"),
    ):
        code, _, err = call(capsys, "rollout", run, *arguments, "--out", tmp_path / "out")
        assert (code, expected in err) in ((1, True), (2, True)), err
    assert not (tmp_path / "out").exists()
