"""A model in a file of the user's own: trained, resumed, loaded; its code is run only when the file is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foreframe import models, presets
from foreframe.checkpoint import load_run
from foreframe.cli import main
from foreframe.errors import CheckpointError, ConfigError, UsageError
from foreframe.recipe import RunConfig
from foreframe.training import crash
from foreframe.training.trainer import Trainer
from tests.test_docs import code

CPU = torch.device("cpu")
PRESET = '''

from foreframe.recipe import TrainConfig


def mine() -> TrainConfig[Config]:
    """My own model on the sample `push`, to see that everything works."""
    return TrainConfig(model=Config(width=4, z_dim=2), context=2, horizon=2, steps=2, batch=2, validate_every=0)
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "_FILES", {})
    path = tmp_path / "my_file.py"
    path.write_text(code("add-a-model.md", "src/foreframe/models/tiny.py") + PRESET)
    return path


@pytest.fixture
def run(file: Path, vector_pack, tmp_path: Path) -> Path:
    """A finished run, as another process finds it."""
    folder = tmp_path / "run"
    record = RunConfig.of("mine", presets.find(f"{file}:mine"), vector_pack)
    record.write(folder)
    assert Trainer(record, vector_pack, folder, CPU).run() == "complete at step 2 of 2"
    models._FILES.clear()
    return folder


def test_a_run_records_the_file_and_keeps_a_copy(file, run):
    values = json.loads((run / "config.json").read_text())
    assert (values["model"], values["model_file"]) == ("my_file", str(file))
    assert (run / "model.py").read_bytes() == file.read_bytes()
    assert values["model_sha256"] == models.run_file(file).sha256


def test_code_is_run_only_when_its_file_is_named(file, run, figure):
    for reads in (lambda: RunConfig.read(run), lambda: load_run(run, "newest", CPU), lambda: crash.replay(run)):
        with pytest.raises((ConfigError, CheckpointError)) as error:
            reads()
        assert not models._FILES
        if isinstance(error.value, ConfigError):
            assert f"in a file of its own, {file}, with SHA-256 " in str(error.value)
            assert "--model-file FILE, the original or the run's copy model.py" in str(error.value)
    figure("reads of a run with code beside it, and none of it run", 3, 3)


@pytest.mark.parametrize("copy", [False, True], ids=["the original", "the copy"])
def test_a_run_is_loaded_and_resumed_with_its_file(file, run, vector_pack, copy):
    named = run / "model.py" if copy else file
    loaded = load_run(run, "newest", CPU, named)
    assert type(loaded.model).__name__ == "Model"
    record = RunConfig.read(run)
    longer = replace(record, train=replace(record.train, steps=3))
    trainer = Trainer(longer, vector_pack, run, CPU, accept_changes=True)
    assert trainer.run() == "complete at step 3 of 3"


def test_a_file_that_was_changed_is_refused_with_both_hashes(file, run):
    file.write_text(file.read_text() + "\n# changed\n")
    expected = json.loads((run / "config.json").read_text())["model_sha256"]
    changed = models.run_file(file).sha256
    with pytest.raises(
        ConfigError, match=rf"SHA-256 {expected}; .*not the same file: .*my_file.py has SHA-256 {changed}"
    ):
        load_run(run, "newest", CPU, file)


def test_the_command_line_takes_the_file_with_any_verb(file, run, tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["evaluate", str(run), "--json", str(result), "--clips", "1", "--device", "cpu"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "only if you name it: --model-file FILE" in capsys.readouterr().err
    for flag in (["--model-file", str(file)], [f"--model-file={file}"]):
        main([*flag, *arguments])
        assert f"running the code of {file}" in capsys.readouterr().err
        assert json.loads(result.read_text())["model"]["model"] == "my_file"
    with pytest.raises(SystemExit):
        main([*arguments, "--model-file", str(tmp_path / "none.py")])
    assert "there is no such Python file (No such file or directory)" in capsys.readouterr().err


def test_what_is_no_model_is_refused(tmp_path, monkeypatch, vector_pack):
    monkeypatch.setattr(models, "_FILES", {})
    path = tmp_path / "odd.py"
    path.write_text("from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Config:\n    size: int = 1\n")
    config = models.run_file(path).module.Config()
    with pytest.raises(
        ConfigError, match=r"beside Config a class Model that inherits from foreframe.models.Model, found"
    ):
        models.build_on_meta(config, vector_pack.spec)
    with pytest.raises(UsageError, match=r"none.py: there is no such Python file"):
        models.run_file(tmp_path / "none.py")
