"""Exported files do what the model does, for any number of clips, and say what they are."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from foreframe import checkpoint, models
from foreframe.clip import ClipSpec
from foreframe.errors import CheckpointError, TrainingError, UsageError
from foreframe.evaluation import Protocol, evaluate
from foreframe.gaussian import Gaussian
from foreframe.models import pose_cvae, pose_unet, svg
from foreframe.onnx import OnnxModel, export, write_steps
from foreframe.onnx.exporting import largest_difference
from foreframe.onnx.int8 import _subpixel
from foreframe.onnx.runner import companion
from foreframe.presets import find
from foreframe.recipe import RunConfig
from foreframe.rollout import predict, prepare_for_inference
from foreframe.unrolled import Step
from tests.conftest import random_clip

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SMALL = svg.Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8, predictor_layers=1)
VECTOR, PICTURE = ClipSpec(3, 64, 64, "vector", 2), ClipSpec(3, 16, 24, "image", 3)
LARGE, GREY = replace(VECTOR, height=128, width=128), ClipSpec(1, 64, 64)
STABLE = {"ir_version": 10, "opset_imports": [onnx.helper.make_opsetid("", 20)]}


def lively(model: nn.Module, spec: ClipSpec, gain: float = 1.0) -> nn.Module:
    """A model whose frames differ: larger weights, and BatchNorm that has seen some clips."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                module.weight.mul_(gain)
            if isinstance(module, nn.LSTM):
                for weight in module.parameters():
                    weight.mul_(gain / 2)
        for seed in range(20):
            clip, noise = random_clip(spec, 2, 3, seed), torch.randn(2, 2, *model.latent_shape, generator=draw)
            model(clip, 2, torch.ones(2, 2, dtype=torch.bool), noise)
    return model.eval()


def written(model, spec: ClipSpec, folder: Path) -> OnnxModel:
    """A model's files, read again."""
    write_steps(model, spec, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx")


def places(session) -> tuple[list[str], list[str]]:
    return [place.name for place in session.get_inputs()], [place.name for place in session.get_outputs()]


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory, vector_pack):
    """A run on disk with a checkpoint of a small SVG."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    config = replace(find("push-demo"), model=SMALL, horizon=4, eval_horizon=0)
    RunConfig.of("push-demo", config, vector_pack).write(folder)
    torch.manual_seed(0)
    model = models.build(SMALL, vector_pack.spec)
    model.fit_condition([0.1, -0.2], [0.5, 2.0])
    checkpoint.save(folder, 3, {"weights": lively(model, vector_pack.spec, 8).state_dict()}, {"best": {}}, None)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """(report, file, file in int8)."""
    folder = tmp_path_factory.mktemp("exported")
    return export(run, folder / "a.onnx", folder / "b.onnx"), folder / "a.onnx", folder / "b.onnx"


@pytest.fixture(scope="module")
def model(run):
    return prepare_for_inference(checkpoint.load_run(run, "best", CPU).model)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mode", ["prediction", "one-step"])
def test_a_rollout_by_the_files_is_the_models(exported, model, batch, mode):
    clip = random_clip(VECTOR, batch, 12)
    noise = torch.randn(batch, 11, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (
        predict(one, clip.frames[:, :2], clip.cond, noise, mode, clip.frames) for one in (model, OnnxModel(exported[1]))
    )
    assert theirs.shape == (batch, 10, 3, 64, 64)
    assert (ours - theirs).abs().max() < 1e-5
    assert ours.std(1).mean() > 1e-3, "frames that do not move would prove little"


def test_several_samples_of_a_clip_are_those_of_the_model(exported, model):
    clip = random_clip(VECTOR, 2, 5)
    noise = torch.randn(6, 4, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (predict(one, clip.frames[:, :2], clip.cond, noise) for one in (model, OnnxModel(exported[1])))
    assert (ours - theirs).abs().max() < 1e-5


def test_the_report_says_what_was_written_and_what_int8_costs(exported, vector_pack):
    report, file, small = exported
    assert set(report.files) == {file, companion(file, "start"), companion(file, "context"), small}
    assert all(path.stat().st_size == size for path, size in report.files.items())
    assert sorted(path.name for path in file.parent.iterdir()) == sorted(path.name for path in report.files)
    assert report.difference < 1e-5
    assert set(report.milliseconds) == {"torch", "fp32", "int8"}
    protocol = Protocol("test", 2, 4, clips=32, metrics=("psnr",))
    for name, int8 in (("fp32", None), ("int8", small)):
        scored = evaluate(OnnxModel(file, int8), vector_pack, protocol, CPU).scores["psnr"].mean
        assert report.psnr[name] == pytest.approx(scored, abs=1e-6)
    assert f"int8 costs {report.psnr['fp32'] - report.psnr['int8']:.3f} dB" in str(report)


def test_the_files_score_what_the_model_scores(exported, model, vector_pack):
    protocol = Protocol("test", 2, 4, samples=2, metrics=("psnr",))
    ours, theirs = (evaluate(one, vector_pack, protocol, CPU).scores for one in (model, OnnxModel(exported[1])))
    assert theirs["psnr"].per_frame == pytest.approx(ours["psnr"].per_frame, abs=1e-4)


def test_int8_is_near_and_its_convolutions_are_in_int8(exported):
    _, file, small = exported
    clip = random_clip(VECTOR, 2, 6)
    noise = torch.zeros(2, 5, 3)
    exact, coarse = (predict(OnnxModel(file, one), clip.frames[:, :2], clip.cond, noise) for one in (None, small))
    assert 0 < (exact - coarse).abs().mean() < 0.05
    nodes = onnx.load(str(small)).graph.node
    kinds = {out: node.op_type for node in nodes for out in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 5 + 4, "of the encoder; and of the decoder, but for its first, which is a product"
    assert all(kinds[node.input[0]] == kinds[node.input[1]] == "DequantizeLinear" for node in convolutions)


def test_the_files_say_what_goes_in_and_which_weights_they_hold(exported, run, vector_pack):
    _, file, small = exported
    files = (file, companion(file, "start"), companion(file, "context"), small)
    kept = [json.loads(onnx.load(str(path)).metadata_props[0].value) for path in files]
    for path, notes in zip(files, kept, strict=True):
        session = OnnxModel(file).sessions[notes["graph"]]
        assert list(notes["inputs"]) == places(session)[0]
        assert notes["weights_sha256"] == checkpoint.choose(run).hashes["weights.safetensors"]
        assert (notes["context"], notes["latent_shape"], notes["cond_names"]) == (2, [3], ["dy", "dx"])
        assert (notes["fps"], notes["model"], notes["cond"]) == (vector_pack.fps, "svg", "vector")
        assert b"site-packages" not in path.read_bytes(), "a path of this machine"
        assert str(Path(models.__file__).parent).encode() not in path.read_bytes(), "a path of this machine"


def test_every_output_is_an_input_of_the_next_call(exported):
    sessions = OnnxModel(exported[1]).sessions
    state = {name for name in places(sessions["step"])[0] if name.startswith("state.")}
    assert {"state.predictor.hidden", "state.prior.cell", "state.skip_terms.0"} <= state
    asked = state | set(places(sessions["context"])[0])
    for graph in ("start", "context"):
        assert {f"next.{name}" for name in state} <= set(places(sessions[graph])[1])
    for session in sessions.values():
        outputs = {name.removeprefix("next.") for name in places(session)[1]}
        assert outputs <= asked | {"frame"}
    assert not any("skip_terms" in name or "posterior" in name for name in places(sessions["step"])[1]), "left as it is"


def test_any_number_of_clips_is_declared(exported):
    for session in OnnxModel(exported[1]).sessions.values():
        assert {place.shape[0] for place in (*session.get_inputs(), *session.get_outputs())} == {"batch"}


def test_the_posterior_is_refused_beyond_the_context(exported):
    clip = random_clip(VECTOR, 1, 4)
    with pytest.raises(ValueError, match="in the context only"):
        predict(
            OnnxModel(exported[1]), clip.frames[:, :2], clip.cond, torch.zeros(1, 3, 3), "teacher-forced", clip.frames
        )


def test_a_condition_that_is_missing_is_named(exported):
    with pytest.raises(ValueError, match="'cond' is needed"):
        predict(OnnxModel(exported[1]), torch.zeros(1, 2, 3, 64, 64), None, torch.zeros(1, 2, 3))


def test_the_program_in_the_docs_predicts_what_the_model_predicts(exported, model, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parent.parent / "docs" / "onnx.md"
    (program,) = re.findall(r"^```python\n(# predict\.py.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "predict.py").write_text(program)
    for part in (".start", ".context", ""):
        shutil.copy(exported[1].with_name(f"a{part}.onnx"), tmp_path / f"push{part}.onnx")
    monkeypatch.chdir(tmp_path)
    left = runpy.run_path("predict.py")
    assert len(capsys.readouterr().out.splitlines()) == 10
    context, cond, noise = (torch.from_numpy(left[name]) for name in ("frames", "cond", "noise"))
    frames = predict(model, context, cond, noise[:, 1:])
    assert np.abs(left["known"]["frame"] - frames[:, -1].numpy()).max() < 1e-5


# ---------------------------------------------------------------- files that cannot be used


def test_a_file_that_is_there_is_not_replaced_unasked(exported, run, tmp_path):
    (tmp_path / "a.context.onnx").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"a\.context\.onnx: there is a file already; --overwrite"):
        export(run, tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=r"there is a file already"):
        export(run, tmp_path / "b.onnx", exported[2])
    assert [path.name for path in tmp_path.iterdir()] == ["a.context.onnx"]


def test_names_that_cannot_be_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export(run, tmp_path / "model.pt")
    with pytest.raises(UsageError, match="another name"):
        export(run, tmp_path / "a.onnx", tmp_path / "a.start.onnx")


def test_nothing_is_written_when_the_files_do_not_compute_what_the_model_does(run, tmp_path, monkeypatch):
    monkeypatch.setattr("foreframe.onnx.exporting.graphs", lambda model, spec, about: {"step": constant(about)})
    with pytest.raises(TrainingError, match="differ from the model by"):
        export(run, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def constant(about) -> onnx.ModelProto:
    """A file that always says the frame it was given."""
    place = onnx.helper.make_tensor_value_info("frame", 1, ["batch", 3, 64, 64])
    out = onnx.helper.make_tensor_value_info("next.frame", 1, ["batch", 3, 64, 64])
    node = onnx.helper.make_node("Identity", ["frame"], ["next.frame"])
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "constant", [place], [out]), **STABLE)
    onnx.helper.set_model_props(proto, {"foreframe": json.dumps({**about, "latent_shape": [3], "state": []})})
    return proto


def test_files_of_different_weights_are_not_mixed(exported, tmp_path):
    for graph in ("start", "context"):
        proto = onnx.load(str(companion(exported[1], graph)))
        proto.metadata_props[0].value = json.dumps({**json.loads(proto.metadata_props[0].value), "weights_sha256": "1"})
        onnx.save(proto, str(tmp_path / f"a.{graph}.onnx"))
    (tmp_path / "a.onnx").write_bytes(exported[1].read_bytes())
    with pytest.raises(CheckpointError, match="of other weights"):
        OnnxModel(tmp_path / "a.onnx")


def test_what_is_no_exported_file_is_said(exported, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(exported[1].read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not readable as ONNX"):
        OnnxModel(tmp_path / "broken.onnx")
    proto = constant({})
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "foreign.onnx"))
    with pytest.raises(CheckpointError, match="none that `foreframe export` wrote"):
        OnnxModel(tmp_path / "foreign.onnx")
    (tmp_path / "alone.onnx").write_bytes(exported[1].read_bytes())
    with pytest.raises(CheckpointError, match=r"alone\.start\.onnx: there is no such file"):
        OnnxModel(tmp_path / "alone.onnx")


# ---------------------------------------------------------------- graphs


class ToyState(NamedTuple):
    scene: torch.Tensor
    seen: tuple[torch.Tensor, torch.Tensor]
    unused: torch.Tensor
    nothing: None


class Toy(nn.Module):
    """Keeps the scene of the last context frame, moves a mean, remembers a condition; its posterior sees the target."""

    latent_shape = (1, 1, 1)

    def __init__(self):
        super().__init__()
        self.layer = nn.ConvTranspose2d(3, 3, 4, 2, 1)

    def initial(self, clip, context):
        scene = clip.frames[:, 0]
        return ToyState(scene, (scene.mean((1, 2, 3)), clip.cond[:, 0]), scene.flip(1), None)

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        scene = frame * state.seen[1] if context_left >= 0 else state.scene
        mean = 0.5 * state.seen[0] + (frame if target is None else target).mean((1, 2, 3))
        doubled = self.layer(frame)[:, :, ::2, 1::2]
        shown = torch.sigmoid(doubled + scene - cond * mean[:, None, None, None] + noise)
        return ToyState(scene, (mean, cond), frame, None), Step(shown, noise, Gaussian.standard_like(noise), None)

    def forward(self, clip, context, forcing, noise):
        return self.step(self.initial(clip, 1), clip.frames[:, 0], clip.cond[:, 1], noise[:, 0], clip.frames[:, 1], 0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    made = lively(Toy(), PICTURE)
    return made, written(made, PICTURE, tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("context", [1, 2, 3])
def test_any_model_is_exported_by_its_contract_alone(toy, context):
    assert largest_difference(*toy, PICTURE, context) < 1e-6


def test_only_what_is_used_of_a_state_goes_in_and_out(toy):
    found = {graph: places(session) for graph, session in toy[1].sessions.items()}
    assert found["step"] == (
        ["frame", "cond", "noise", "state.scene", "state.seen.0"],
        ["next.frame", "next.state.seen.0"],
    )
    assert found["context"] == (["target", "cond", "state.seen.0"], ["next.state.scene", "next.state.seen.0"])
    assert found["start"] == (["frame", "cond"], ["next.state.scene", "next.state.seen.0"])


class Forgetful(Toy):
    """All that it knows is the last frame and the condition."""

    def initial(self, clip, context):
        return ()

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        shown = torch.sigmoid(self.layer(frame * cond)[:, :, ::2, ::2] + noise)
        return state, Step(shown, noise, Gaussian.standard_like(noise), None)


def test_a_model_without_a_state_is_one_file(tmp_path):
    made = Forgetful().eval()
    files = written(made, PICTURE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert max(largest_difference(made, files, PICTURE, context) for context in (1, 2)) < 1e-5


def test_a_doubling_transposed_convolution_is_rewritten_without_changing_its_numbers():
    draw = np.random.default_rng(0)
    info = onnx.helper.make_tensor_value_info
    stored = {"w": draw.normal(size=(5, 3, 4, 4)), "b": draw.normal(size=3), "v": draw.normal(size=(3, 2, 4, 4))}
    settings = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], "group": 1}
    nodes = [
        onnx.helper.make_node("ConvTranspose", ["frame", "w", "b"], ["middle"], **settings),
        onnx.helper.make_node("ConvTranspose", ["middle", "v"], ["next.frame"], **settings),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [info("frame", 1, ["batch", 5, 4, 6])], [info("next.frame", 1, ["batch", 2, 16, 24])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in stored.items()],
    )  # fmt: skip
    proto = onnx.helper.make_model(graph, **STABLE)
    given = {"frame": draw.normal(size=(2, 5, 4, 6)).astype(np.float32)}

    def said():
        onnx.checker.check_model(proto)
        return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, given)[0]

    before = said()
    _subpixel(proto)
    assert "ConvTranspose" not in {node.op_type for node in proto.graph.node}
    np.testing.assert_allclose(said(), before, atol=1e-4)


CASES = {
    "svg-vgg": (replace(SMALL, backbone="vgg"), VECTOR),
    "svg-vgg-128": (replace(SMALL, backbone="vgg", prior="fixed"), LARGE),
    "svg-dcgan-128": (replace(SMALL, predictor_layers=2, posterior_layers=2, predictor_norm=True, norm="group"), LARGE),
    "svg-fixed": (replace(SMALL, prior="fixed", skip="svg"), VECTOR),
    "svg-none": (replace(SMALL, prior="none", skip="svg"), GREY),
    "svg-last-frame": (replace(SMALL, skip="last-frame"), VECTOR),
    "svg-none-last-frame": (replace(SMALL, prior="none", skip="last-frame"), VECTOR),
    "pose_unet": (pose_unet.Config(width=4, detail=4, scene=2), PICTURE),
    "pose_cvae": (pose_cvae.Config(f_dim=8, l_dim=4, n_dim=4, d_out=8), PICTURE),
    "pose_cvae-sigmoid": (pose_cvae.Config(f_dim=8, l_dim=4, n_dim=4, d_out=8, output="sigmoid"), PICTURE),
}


@pytest.mark.nightly  # the exporter takes up to half a minute for each
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_model_is_exported(case, tmp_path):
    config, spec = CASES[case]
    torch.manual_seed(0)
    made = prepare_for_inference(lively(models.build(config, spec), spec, 4 if case.startswith("svg") else 1))
    files = written(made, spec, tmp_path)
    for context in (1, 2, 3):
        assert largest_difference(made, files, spec, context) < 1e-5
