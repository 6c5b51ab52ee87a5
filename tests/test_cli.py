"""The command line as a user meets it: verbs, messages and exit codes. Run in this process unless time is measured."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from foreframe import cli
from tests.conftest import write_pack

TINY = [
    "--model.width", "4", "--model.g-dim", "8", "--model.z-dim", "3", "--model.rnn-size", "8",
    "--model.backbone", "dcgan",
    "--horizon", "3", "--batch", "2", "--threads", "1", "--validate-every", "2", "--save-every", "2",
]  # fmt: skip


def call(capsys, *arguments):
    """(exit code, stdout, stderr) of a command."""
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("cli") / "pack")


@pytest.fixture(scope="module")
def run(pack, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    cli.main(["train", "svg-bair-learned", "--data", str(pack.path), "--run", str(path), "--steps", "4", *TINY])
    return path


def test_train_writes_a_run_with_its_overrides(run):
    config = json.loads((run / "config.json").read_text())
    assert config["preset"] == "svg-bair-learned"
    assert config["train"]["steps"] == 4
    assert config["train"]["model"]["width"] == 4
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    assert (run / "media" / "step-00000004.gif").stat().st_size > 1000


def test_resume_of_a_finished_run_says_so_and_is_no_failure(capsys, run):
    code, out, _ = call(capsys, "resume", run)
    assert code == 0
    assert "already complete at step 4" in out


def test_evaluate_prints_a_table_and_writes_its_protocol(capsys, run, tmp_path):
    code, out, _ = call(capsys, "evaluate", run, "--samples", 3, "--json", tmp_path / "r.json")
    assert code == 0
    assert "repeat last context frame" in out
    assert "best of 3" in out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["protocol"]["mode"] == "prediction"
    assert set(result["scores"]) == {"psnr", "ssim"}
    assert result["baselines"]["repeat_last"]["psnr"]["mean"] > 0
    assert len(result["protocol"]["model_sha256"]) == 64


def test_rollout_leaves_everything_that_is_promised(capsys, run, tmp_path):
    code, out, _ = call(capsys, "rollout", run, "--samples", 2, "--horizon", 5, "--out", tmp_path)
    assert code == 0, out
    assert {p.name for p in tmp_path.iterdir()} == {
        "rollout.gif", "rollout.mp4", "strip.png", "psnr.json", "psnr.png", "psnr.svg", "frames",
    }  # fmt: skip
    assert len(list((tmp_path / "frames" / "sample-2").iterdir())) == 5


def test_rollout_beyond_the_conditions_of_a_clip_says_how_far_it_can_go(capsys, run, tmp_path):
    code, _, err = call(capsys, "rollout", run, "--horizon", 50, "--out", tmp_path)
    assert code == 1
    assert "has 8 frames with conditions, so at most 6 can be predicted after 2, not 50" in err


def test_rollout_predicts_with_no_future_given(capsys, run, pack, tmp_path):
    from foreframe import video

    frames, cond = pack.read(pack.episodes[0], 0, 8)
    for t in range(2):
        video.write_png(tmp_path / f"{t}.png", np.array(frames[t]))
    np.savetxt(tmp_path / "cond.csv", np.vstack([cond, cond]), delimiter=",", fmt="%.5f")
    options = ["--frames", tmp_path / "0.png", tmp_path / "1.png", "--cond", tmp_path / "cond.csv"]
    code, _, err = call(capsys, "rollout", run, *options, "--out", tmp_path / "out")
    assert code == 0, err
    assert len(list((tmp_path / "out" / "frames" / "sample-1").iterdir())) == 14
    assert not (tmp_path / "out" / "psnr.json").exists()
    code, _, err = call(capsys, "rollout", run, *options[:2], "--cond", tmp_path / "cond.csv", "--out", tmp_path / "o")
    assert code == 1
    assert "--frames: expected 2 pictures, as many as the model's context, got 1" in err


def test_an_unknown_preset_is_wrong_usage_and_the_nearest_is_offered(capsys, pack, tmp_path):
    code, _, err = call(capsys, "train", "svg-bare-fixed", "--data", pack.path, "--run", tmp_path / "r")
    assert code == 2
    assert "no preset 'svg-bare-fixed'; did you mean 'svg-bair-fixed'?" in err
    assert "Traceback" not in err


def test_an_unknown_setting_is_wrong_usage(capsys, pack, tmp_path):
    code, _, err = call(capsys, "train", "push-demo", "--data", pack.path, "--run", tmp_path / "r", "--model.zdim", 3)
    assert code == 2
    assert "zdim" in err


def test_a_missing_data_folder_is_a_clear_failure(capsys, tmp_path):
    code, _, err = call(capsys, "train", "push-demo", "--data", tmp_path / "none", "--run", tmp_path / "r")
    assert code == 1
    assert "none" in err
    assert "push" in err, "the message names what could be given"
    assert not (tmp_path / "r").exists()


def test_a_second_training_into_one_folder_is_refused(capsys, run, pack):
    code, _, err = call(capsys, "train", "push-demo", "--data", pack.path, "--run", run)
    assert code == 2
    assert f"foreframe resume {run}" in err


def test_an_unknown_key_in_config_json_is_named_with_its_path(capsys, run, tmp_path):
    values = json.loads((run / "config.json").read_text())
    values["train"]["optimizer"]["lrr"] = 0.1
    (tmp_path / "config.json").write_text(json.dumps(values))
    code, _, err = call(capsys, "evaluate", tmp_path)
    assert code == 1
    assert "config.json: unknown setting 'train.optimizer.lrr'; did you mean 'lr'?" in err


def test_a_pickle_offered_as_a_run_is_refused_without_being_opened(capsys, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    (tmp_path / "old.pth").write_bytes(b"\x80\x04K\x01.")
    for name in ("model.pt", "old.pth"):
        for verb in (("evaluate",), ("resume",), ("rollout", "--out", tmp_path / "o")):
            code, _, err = call(capsys, verb[0], tmp_path / name, *verb[1:])
            assert code == 1
            assert "a pickle" in err
            assert "opens none" in err


def test_a_pickle_inside_a_run_is_found_by_its_hash(capsys, run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for weights in copy.glob("checkpoints/*/ema.safetensors"):
        torch.save({}, weights)
    for weights in copy.glob("checkpoints/*/weights.safetensors"):
        torch.save({}, weights)
    code, _, err = call(capsys, "evaluate", copy)
    assert code == 1
    assert "weights.safetensors" in err


def test_an_unknown_metric_is_wrong_usage(capsys, run):
    code, _, err = call(capsys, "evaluate", run, "--metrics", "pnsr")
    assert code == 2
    assert "no metric 'pnsr'; did you mean 'psnr'?" in err


def test_an_unknown_split_lists_the_known(capsys, run):
    code, _, err = call(capsys, "evaluate", run, "--split", "tset")
    assert code == 1
    assert "no split 'tset'; this pack has train (4 episodes), val (2 episodes), test (2 episodes)" in err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="there is nothing"):
        cli.main(["data", "show", str(tmp_path / "none"), "--debug"])


def test_presets_are_listed(capsys):
    code, out, _ = call(capsys, "presets")
    assert code == 0
    assert "svg-bair-learned" in out


def test_help_of_a_preset_lists_its_settings(capsys):
    code, out, _ = call(capsys, "train", "svg-bair-fixed", "--help")
    assert code == 0
    assert "--optimizer.lr" in out
    assert "--model.z-dim" in out


@pytest.mark.parametrize("arguments", [[], ["train"], ["evaluate"], ["data", "import"]], ids=" ".join)
def test_help_needs_neither_torch_nor_anything_else_heavy(arguments):
    script = (
        "import sys; from foreframe import cli\n"
        f"try: cli.main({[*arguments, '--help']!r})\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'matplotlib', 'av', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: foreframe" in done.stdout


def test_without_a_test_split_val_is_scored_and_conditions_of_other_names_are_noted(capsys, run, tmp_path):
    from foreframe.clip import ClipSpec
    from foreframe.data.pack import PackWriter
    from tests.conftest import moving_square

    spec = ClipSpec(3, 64, 64, "vector", 2)
    with PackWriter(tmp_path / "pack", spec, ("up", "left"), fps=10, source={"layout": "test"}) as writer:
        for number, split in enumerate(("train", "val")):
            writer.add(split, split, *moving_square(number, 8, 64, 64))
    code, out, err = call(capsys, "evaluate", run, "--data", tmp_path / "pack", "--json", tmp_path / "r.json")
    assert code == 0, err
    assert "split val" in out
    assert "note: the conditions are called up, left; in training they were dy, dx" in err


def test_clips_too_short_are_named_when_training_and_when_scoring(capsys, tmp_path):
    from foreframe.clip import ClipSpec
    from foreframe.data.pack import PackWriter
    from tests.conftest import moving_square

    with PackWriter(tmp_path / "pack", ClipSpec(3, 64, 64), (), fps=10, source={"layout": "test"}) as writer:
        for number, (split, length) in enumerate([("train", 8), ("train", 3), ("test", 8), ("test", 4)]):
            writer.add(f"clip-{number}", split, moving_square(number, length, 64, 64)[0], None)
    options = ["--data", tmp_path / "pack", "--run", tmp_path / "run", "--steps", 1, *TINY]
    code, _, err = call(capsys, "train", "svg-bair-fixed", *options)
    assert code == 0
    assert "left out, shorter than 5 frames: 1 clips: clip-1 (3)" in err
    code, out, _ = call(capsys, "evaluate", tmp_path / "run", "--horizon", 3)
    assert code == 0
    assert "not scored, too short for this horizon: 1 clips: clip-3" in out
