"""What a configuration asks for is counted before memory is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foreframe import __version__, models
from foreframe.clip import ClipSpec
from foreframe.data.pack.pack import Pack
from foreframe.errors import CheckpointError, ConfigError
from foreframe.models import pose_cvae, pose_unet, svg
from foreframe.recipe import FORMAT, OptimizerConfig, RunConfig
from foreframe.training.trainer import Trainer
from tests import runs
from tests.conftest import Figure

VECTOR, PICTURES = ClipSpec(3, 64, 64, "vector", 4), ClipSpec(3, 32, 64, "image", 3)
HUGE = ClipSpec(3, 2**16, 2**16, "image", 3)
TOO_MUCH: list[tuple[Any, ClipSpec, str]] = [
    (svg.Config(width=2**16), VECTOR, "svg needs .* bytes for its weights and one frame, this machine has"),
    (svg.Config(rnn_size=2**16), VECTOR, "svg needs"),
    (svg.Config(rnn_size=2**15, predictor_layers=64), VECTOR, "svg needs"),
    (svg.Config(), replace(VECTOR, channels=2**62), "svg cannot be built"),
    (svg.Config(), replace(VECTOR, cond_size=10**12), "svg needs"),
    (svg.Config(), replace(VECTOR, cond_size=-5), "svg cannot be built: .*negative dimension"),
    (svg.Config(), replace(VECTOR, channels=0), "svg cannot be built"),
    (pose_unet.Config(width=2**16), PICTURES, "pose_unet needs"),
    (pose_unet.Config(), HUGE, "pose_unet needs"),
    (pose_cvae.Config(f_dim=2**16), PICTURES, "pose_cvae needs"),
    (pose_cvae.Config(), HUGE, "pose_cvae needs"),
    (pose_cvae.Config(f_dim=7), PICTURES, "pose_cvae cannot be built"),
    (pose_cvae.Config(n_dim=1), PICTURES, "pose_cvae cannot be built"),
    (svg.Config(width=0), VECTOR, r"model\.width: expected 1 to 65536, found 0"),
    (svg.Config(z_dim=-1), VECTOR, r"model\.z_dim: expected 1 to 65536, found -1"),
    (svg.Config(predictor_layers=10**9), VECTOR, r"model\.predictor_layers: expected 1 to 64, found 1000000000"),
    (svg.Config(prior_layers=0), VECTOR, r"model\.prior_layers: expected 1 to 64"),
    (pose_cvae.Config(d_out=10**18), PICTURES, r"model\.d_out: expected 1 to 65536"),
]


@pytest.mark.parametrize("number", range(len(TOO_MUCH)))
def test_a_model_beyond_this_machine_is_refused_before_it_takes_memory(number: int):
    config, spec, message = TOO_MUCH[number]
    before = _peak()
    begun = time.process_time()
    with pytest.raises(ConfigError, match=message):
        models.build(config, spec)
    assert time.process_time() - begun < 1
    assert _peak() - before < 64


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def test_what_fits_exactly_is_built_and_a_byte_less_is_refused(monkeypatch: pytest.MonkeyPatch):
    config = svg.Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8)
    tensors = models.build(config, VECTOR).state_dict().values()
    needed = sum(value.numel() * value.element_size() for value in tensors) + 4 * (3 * 64 * 64 + 3)
    monkeypatch.setattr(models, "memory", lambda: needed)
    models.build(config, VECTOR)
    monkeypatch.setattr(models, "memory", lambda: needed - 1)
    with pytest.raises(ConfigError, match=f"svg needs {needed:,} bytes .* this machine has {needed - 1:,}"):
        models.build(config, VECTOR)


def test_where_the_system_does_not_tell_its_memory_nearly_everything_fits(monkeypatch: pytest.MonkeyPatch):
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(models.os, "sysconf", unknown)
    assert models.memory() == 2**40


@pytest.mark.parametrize(
    ("config", "spec"), [(svg.Config(), VECTOR), (pose_unet.Config(), PICTURES), (pose_cvae.Config(), PICTURES)]
)
def test_an_outline_has_the_shapes_of_the_model_and_no_memory_and_draws_nothing(config: Any, spec: ClipSpec):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_on_meta = models.build_on_meta(config, spec)
    assert torch.equal(torch.get_rng_state(), before)
    built = models.build(config, spec)
    assert {name: (value.shape, value.dtype) for name, value in build_on_meta.state_dict().items()} == {
        name: (value.shape, value.dtype) for name, value in built.state_dict().items()
    }
    assert all(value.is_meta for value in build_on_meta.state_dict().values())
    torch.set_rng_state(before)
    straight = models.module(models.name_of(config)).Model(config, spec)
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in straight.state_dict().items())


def test_the_name_of_a_model_is_never_a_way_out_of_its_folder():
    for name in ("../recipe", "os", "__init__", "svg.__class__", "", "x" * 10**6):
        with pytest.raises(ConfigError, match="there is no model") as caught:
            models.module(name)
        assert len(str(caught.value)) < 300


@pytest.fixture(scope="module")
def record(vector_pack: Pack) -> dict[str, Any]:
    """A configuration as it lies on disk."""
    from foreframe import config

    values: dict[str, Any] = json.loads(config.to_json(RunConfig.of("tiny", runs.TINY, vector_pack)))
    return values


def _set(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(values))
    group, *inner = path.split(".")
    changed[group] = _set(changed[group], ".".join(inner), value) if inner else value
    result: dict[str, Any] = changed
    return result


CANNOT_BE: list[tuple[str, Any, str]] = [
    ("format", 1, f"format: expected {FORMAT}, found 1; made by foreframe {__version__}, this is {__version__}: use"),
    ("format", None, f"format: expected {FORMAT}, found None"),
    ("model", "svgg", "there is no model 'svgg'; did you mean 'svg'?"),
    ("model", ["svg"], "there is no model"),
    ("spec.height", 10**9, "spec.height: expected 1 to 65536, found 1000000000"),
    ("spec.width", 0, "spec.width: expected 1 to 65536, found 0"),
    ("spec.channels", -1, "spec.channels: expected 1 to 65536, found -1"),
    ("spec.cond_size", 10**12, "spec.cond_size: 1000000000000 does not go with spec.cond 'vector'"),
    ("spec.cond_size", 0, "spec.cond_size: 0 does not go with spec.cond 'vector'"),
    ("spec.cond", "none", "spec.cond_size: 2 does not go with spec.cond 'none'"),
    ("spec.cond", "image", "cond_stats: expected those of 0 numbers, found 2"),
    ("cond_stats", [{"name": "x", "mean": 0, "std": 1, "min": 0, "max": 1}], "cond_stats: expected those of 2 numbers"),
    ("fps", 0, "fps: expected a number, 0.001 to 100,000, found 0.0"),
    ("fps", 1e300, "fps: expected"),
    ("train.context", 0, "train.context: expected a whole number, 1 to 1,048,576, found 0"),
    ("train.horizon", 10**15, "train.horizon: expected a whole number, 1 to 1,048,576, found 1000000000000000"),
    ("train.batch", 10**12, "train.batch: expected a whole number, 1 to 65,536"),
    ("train.steps", 2**63, "train.steps: expected a whole number, 1 to 1,000,000,000"),
    ("train.ema", 1.0, "train.ema: expected a number, 0 to below 1, found 1.0"),
    ("train.optimizer.lr", -1.0, "train.optimizer.lr: expected a number, 0 to 1,000,000,000, found -1.0"),
    ("train.optimizer.betas", [0.9, 1.0], "train.optimizer.betas[1]: expected a number, 0 to below 1, found 1.0"),
    ("train.forcing.decay", -1e308, "train.forcing.decay: expected a number, 0 to"),
    ("train.rate.gamma", 1e308, "train.rate.gamma: expected a number, 0 to 1"),
    ("train.augment.shift", 1e9, "train.augment"),
    ("train.model.width", 2**16, "train.model: svg needs"),
    ("train.model.width", -1, "train.model.width: expected 1 to 65536, found -1"),
    ("train.model.rnn_size", 2**64 - 1, "train.model.rnn_size: expected 1 to 65536"),
    ("train.model.layers", 1, "unknown key 'train.model.layers'"),
    ("spec.height", 32, "train.svg takes frames of 64x64 or 128x128 pixels"),
]


@pytest.mark.parametrize("number", range(len(CANNOT_BE)))
def test_a_number_that_cannot_be_is_refused_with_its_dotted_path(
    tmp_path: Path, record: dict[str, Any], number: int, figure: Figure
):
    path, value, message = CANNOT_BE[number]
    (tmp_path / "config.json").write_text(json.dumps(_set(record, path, value)))
    with pytest.raises(ConfigError) as caught:
        RunConfig.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/config.json: {message}")
    figure("sizes refused before memory", 1, 1)


def test_a_condition_without_numbers_to_standardise_it_by_is_refused_before_the_model_is_built(
    tmp_path: Path, vector_pack: Pack, monkeypatch: pytest.MonkeyPatch
):
    whole = RunConfig.of("tiny", runs.TINY, vector_pack)
    bare = replace(whole, cond_stats=())
    monkeypatch.setattr(models, "build", lambda *_: pytest.fail("it was built"))
    with pytest.raises(ConfigError, match="cond_stats: expected those of 2 numbers to standardise the condition by"):
        Trainer(bare, vector_pack, tmp_path, runs.CPU)
    monkeypatch.undo()
    Trainer(replace(bare, train=replace(runs.TINY, standardise=False)), vector_pack, tmp_path, runs.CPU)


def test_clips_of_a_step_beyond_this_machine_are_refused_before_the_model_is_built(
    tmp_path: Path, vector_pack: Pack, image_pack: Pack, monkeypatch: pytest.MonkeyPatch
):
    pictures = replace(runs.TINY, model=pose_unet.Config(width=8))
    for pack, train, numbers in ((vector_pack, runs.TINY, 3 * 64 * 64 + 2), (image_pack, pictures, 6 * 32 * 64)):
        needed = 4 * 2 * 5 * numbers
        config = RunConfig.of("tiny", train, pack)
        with monkeypatch.context() as patch:
            patch.setattr(models, "build", lambda *_: pytest.fail("it was built"))
            patch.setattr(models, "memory", lambda: needed - 1)  # noqa: B023 (called in this turn)
            with pytest.raises(
                ConfigError, match=rf"train\.batch: 2 clips of 5 frames .* {needed:,} bytes.* {needed - 1:,}"
            ):
                Trainer(config, pack, tmp_path, runs.CPU)
            patch.setattr(models, "memory", lambda: needed)  # noqa: B023
            with pytest.raises(pytest.fail.Exception, match="it was built"):
                Trainer(config, pack, tmp_path, runs.CPU)


def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("[2]")
    with pytest.raises(ConfigError, match=r"config\.json: format: expected 2, found \[2\]"):
        RunConfig.read(tmp_path)


def test_the_honest_configuration_is_read(tmp_path: Path, record: dict[str, Any]):
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert RunConfig.read(tmp_path).train == runs.TINY


def test_what_could_not_be_read_is_not_written(tmp_path: Path, vector_pack: Pack):
    honest = RunConfig.of("tiny", runs.TINY, vector_pack)
    for wrong, message in (
        (replace(honest, fps=float("nan")), "fps: expected"),
        (replace(honest, preset="\x1b[2J"), "a control character"),
        (replace(honest, train=replace(runs.TINY, ema=float("nan"))), "train.ema: expected"),
        (
            replace(honest, train=replace(runs.TINY, optimizer=OptimizerConfig(lr=float("nan")))),
            "optimizer.lr: expected",
        ),
        (replace(honest, train=replace(runs.TINY, seed=2**70)), "train.seed: expected a whole number, "),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


NO_RUNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a zip archive": (lambda path: path.write_bytes(b"PK\x03\x04"), r"a zip archive \(.pt, .pth, TorchScript"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x02}."), r"a pickle \(.pt, .pth, .pkl\), which can run code"),
    "GGUF": (lambda path: path.write_bytes(b"GGUF\x03"), "a GGUF file, which can run code when others read it"),
    "7z": (lambda path: path.write_bytes(b"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
    "text": (lambda path: path.write_bytes(b"hello"), "no folder; expected that of a run"),
    "nothing in it": (lambda path: path.write_bytes(b""), "no folder; expected that of a run"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no folder; expected that of a run"),
    "a name too long": (lambda path: None, "cannot be read: File name too long"),
    "nothing": (lambda path: None, "not a run"),
    "a link to itself": (lambda path: path.symlink_to(path), "not a run|Too many levels of symbolic links"),
    "an empty folder": (lambda path: path.mkdir(), r"not a run \(there is no config.json in it\)"),
}


@pytest.mark.parametrize("name", NO_RUNS)
def test_what_is_no_run_is_named_and_not_opened(tmp_path: Path, name: str):
    make, message = NO_RUNS[name]
    path = tmp_path / ("x" * 300 if name == "a name too long" else "run")
    make(path)
    with pytest.raises(CheckpointError, match=f"{path}: ({message})"):
        RunConfig.read(path)
