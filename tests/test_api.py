from __future__ import annotations

import ast
import dataclasses
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import foreframe
from foreframe import api, cli, demo
from foreframe.config import to_dict
from foreframe.data.open import open_clips
from foreframe.data.pack.pack import Pack
from foreframe.errors import CheckpointError, ConfigError, DataError, ForeframeError, InputError, UsageError
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.training.trainer import Trainer
from tests.runs import TINY

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
QUICK = dataclasses.replace(TINY, steps=3, validate_every=2, save_every=2)


@pytest.fixture(scope="module")
def run(vector_pack: Pack, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "a"
    foreframe.train(QUICK, vector_pack.path, path, device="cpu")
    return path


# ---------------------------------------------------------------- the page


def script() -> str:
    """All code of the page, one block after another."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def test_the_code_of_the_page_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(script(), str(PAGE), "exec"), {"__name__": "page"})  # noqa: S102 (its own page)
    printed = capsys.readouterr().out
    said = re.findall(r"^ *print\(.*\)  # (.+)$", script(), re.MULTILINE)
    assert len(said) >= 7
    for line in said:
        assert f"{line}\n" in printed, line
    assert "frames: got float64 (2, 64, 64, 3), expected uint8" in printed
    assert {"push.gif", "plan.mp4"} < {path.name for path in tmp_path.iterdir()}


def test_the_page_is_short_and_uses_no_file_of_the_checkout():
    words = re.sub(r"^```.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL).split()
    assert len(words) <= 600
    modules = {node.module for node in ast.walk(ast.parse(script())) if isinstance(node, ast.ImportFrom)}
    assert all(name.startswith("foreframe.") for name in modules)


# ---------------------------------------------------------------- importing


def test_importing_foreframe_imports_no_torch():
    code = "import sys, foreframe; print(foreframe.__version__, 'torch' in sys.modules, 'numpy' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [foreframe.__version__, "False", "False"]


def test_every_name_is_listed_and_is_there():
    assert {"load", "train", "evaluate", "Predictor", "Rollout", "State", "__version__"} <= set(dir(foreframe))
    for name in foreframe._PLACES:
        assert getattr(foreframe, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lod'; it has load, train"):
        foreframe.lod  # noqa: B018


# ---------------------------------------------------------------- loading


def test_a_run_is_loaded_by_its_folder_or_a_checkpoint_of_it(run):
    best = foreframe.load(str(run), device="cpu")
    step = best.trained.checkpoint.best["step"]
    assert best.trained.checkpoint.step == step
    assert foreframe.load(run, torch.device("cpu"), "newest").trained.checkpoint.step == 3
    assert foreframe.load(run, "cpu", 3).trained.checkpoint.step == 3
    assert foreframe.load(run / "checkpoints" / "step-00000003").trained.checkpoint.step == 3
    assert f"step {step} of 3" in best.card
    assert re.search(rf"validation  PSNR \d+\.\d\d dB over 3 frames \(val, step {step}\)", best.card)


@pytest.mark.parametrize(
    ("path", "others", "error", "sentence"),
    [
        (None, {}, InputError, "run: got NoneType, expected the path of a run's folder"),
        ("nowhere", {}, CheckpointError, "nowhere: not a run"),
        (".", {}, InputError, "run: got .*, a folder of runs, expected one of them: a"),
        ("a/config.json", {}, CheckpointError, "config.json: no folder; expected that of a run"),
        ("a", {"checkpoint": 7}, CheckpointError, "no checkpoint '7'; there are best, newest, 2, 3"),
        ("a", {"checkpoint": "bst"}, CheckpointError, "no checkpoint 'bst'"),
        ("a", {"device": "gpu"}, InputError, "device: got 'gpu', expected auto, cpu, cuda or cuda:N"),
        ("a", {"device": "cuda:99"}, InputError, r"device: got 'cuda:99', but \d CUDA devices are visible"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_sentence(run, path, others, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        foreframe.load(path if path is None else run.parent / path, **others)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- training and scoring


def test_training_from_python_is_training_from_the_command_line(vector_pack, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("from tests.test_api import QUICK\ndef tiny():\n    return QUICK\n")
    predictor = foreframe.train(f"{file}:tiny", vector_pack.path, tmp_path / "a", seed=5, optimizer__lr=1e-4)
    said = capsys.readouterr().out
    arguments = ["--data", str(vector_pack.path), "--run", str(tmp_path / "b"), "--seed", "5", "--optimizer.lr", "1e-4"]
    cli.main(["train", f"{file}:tiny", *arguments])
    assert capsys.readouterr().out.replace(str(tmp_path / "b"), str(tmp_path / "a")) == said
    assert RunConfig.read(tmp_path / "a") == RunConfig.read(tmp_path / "b")
    again = foreframe.load(tmp_path / "b")
    assert again.trained.provenance.weights_sha256 == predictor.trained.provenance.weights_sha256


def test_settings_are_named_by_two_underscores_or_a_dot():
    changed = api.with_settings(
        find("push-demo"), {"batch": 4, "optimizer__betas": (0.5, 0.9), "model.z_dim": 3, "rate__warmup": 7}
    )
    assert (changed.batch, changed.optimizer.betas, changed.model.z_dim, changed.rate.warmup) == (4, (0.5, 0.9), 3, 7)
    assert api.with_settings(find("push-demo"), {}) == find("push-demo")
    assert to_dict(changed)["horizon"] == find("push-demo").horizon


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"bacth": 4}, ConfigError, "unknown key 'bacth'; did you mean 'batch'"),
        ({"optimizer__lrr": 1}, ConfigError, r"unknown key 'optimizer\.lrr'; did you mean 'lr'"),
        ({"optimiser__lr": 1}, ConfigError, "unknown key 'optimiser'; did you mean 'optimizer'"),
        ({"steps__x": 1}, ConfigError, "unknown key 'steps__x': steps is not a group"),
        ({"steps": "many"}, ConfigError, r"steps: expected a whole number, .* found 'many'"),
        ({"steps": 0}, ConfigError, r"steps: expected a whole number, 1 to .* found 0"),
        ({"device": "gpu"}, InputError, "device: got 'gpu'"),
    ],
)
def test_a_wrong_setting_is_refused(vector_pack, tmp_path, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        foreframe.train(QUICK, vector_pack.path, tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_wrong_preset_run_or_data_is_refused(run, vector_pack, tmp_path):
    with pytest.raises(UsageError, match="there is no preset 'push-dmo'; did you mean 'push-demo'"):
        foreframe.train("push-dmo", vector_pack.path, tmp_path / "run")
    with pytest.raises(UsageError, match="holds a run already; `foreframe resume"):
        foreframe.train(QUICK, vector_pack.path, run)
    with pytest.raises(DataError, match="expected a pack"):
        foreframe.train(QUICK, tmp_path / "nothing", tmp_path / "run")
    with pytest.raises(InputError, match="preset: got int, expected"):
        foreframe.train(3, vector_pack.path, tmp_path / "run")


def test_a_training_that_is_interrupted_saves_and_interrupts_the_script(vector_pack, tmp_path, monkeypatch):
    real = Trainer.one_step

    def interrupted(self):
        if self.state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    monkeypatch.setattr(Trainer, "one_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"SIGINT; `foreframe resume .*` continues"):
        foreframe.train(QUICK, vector_pack.path, tmp_path / "run")
    assert foreframe.load(tmp_path / "run").trained.checkpoint.step == 2


def test_training_that_ran_out_of_time_returns_what_there_is(vector_pack, tmp_path):
    predictor = foreframe.train(QUICK, vector_pack.path, tmp_path / "run", max_minutes=0)
    assert predictor.trained.checkpoint.step == 1


def test_scores_are_those_of_the_command_line(run, capsys):
    result = foreframe.evaluate(run, samples=2, device="cpu")
    assert result.protocol.split == "test"
    assert result.protocol.samples == 2
    cli.main(["evaluate", str(run), "--samples", "2", "--device", "cpu"])
    (written,) = (run / "eval").glob("*.json")
    assert f'"mean": {result.scores["psnr"].mean}' in written.read_text()
    assert foreframe.evaluate(foreframe.load(run), horizon=-1).protocol.horizon == 6


def test_the_command_line_scores_by_the_function_that_python_has(run, tmp_path, monkeypatch):
    asked, real = [], api.evaluate
    monkeypatch.setattr(api, "evaluate", lambda *given, **named: asked.append(named) or real(*given, **named))
    cli.main(["evaluate", str(run), "--conditions", "zeroed", "--clips", "1", "--json", str(tmp_path / "r.json")])
    (named,) = asked
    assert (named["conditions"], named["clips"], named["progress"]) == ("zeroed", 1, True)
    result = foreframe.evaluate(run, conditions="zeroed", clips=1)
    assert f'"mean": {result.scores["psnr"].mean}' in (tmp_path / "r.json").read_text()
    assert result.protocol.conditions == "zeroed"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"metrics": ("pnsr",)}, "there is no metric 'pnsr'; did you mean 'psnr'"),
        ({"metrics": ("fvd",)}, "fvd is no metric of single frames"),
        ({"metrics": ("lpips",)}, "lpips needs the weights of its network"),
        ({"lpips_weights": "a.safetensors"}, "lpips weights: not used, since `lpips` is not among the metrics"),
        ({"fvd_context": False}, "fvd without context: not used without fvd weights"),
        ({"metrics": ("lpips",), "lpips_weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"fvd_weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_metrics_and_weights_that_do_not_fit_are_refused(run, wrong, sentence):
    with pytest.raises(ForeframeError, match=sentence):
        foreframe.evaluate(run, **wrong)


def test_the_demo_begins_a_run_as_training_does_and_continues_its_own_alone(tmp_path, run, capsys):
    pack, cpu = open_clips("push"), torch.device("cpu")
    first = demo._trainer(tmp_path / "run", pack, cpu)
    assert re.search(r"push-demo: [\d,]+ parameters, [\d,]+ windows", capsys.readouterr().out)
    first.lock.release()
    assert demo._trainer(tmp_path / "run", pack, cpu).setup.config == first.setup.config
    with pytest.raises(UsageError, match="holds another run; give `foreframe demo --out` another folder"):
        demo._trainer(run, pack, cpu)


def test_clips_of_other_columns_are_noted_and_of_another_kind_refused(run, image_pack):
    with pytest.raises(DataError, match="its clips are 3x32x64"):
        foreframe.evaluate(run, image_pack.path)


def test_arrays_of_a_pack_are_taken_as_they_are(run, vector_pack):
    frames, rows = vector_pack.read(vector_pack.split("test")[0], 0, 6)
    made = foreframe.load(run, "cpu").rollout(frames[:2], rows)
    assert made.frames.shape == (4, 4, 64, 64, 3)
    assert made.frames.dtype == np.uint8
