"""The Frechet video distance: I3D against plain computations with drawn weights, the distance against closed forms."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from foreframe.config import to_dict
from foreframe.errors import UsageError
from foreframe.evaluation import Protocol, evaluate
from foreframe.metrics.fvd import Fvd, bias, frechet_distance
from foreframe.metrics.i3d import I3d, _Mixed, _Pool, _Unit, load_i3d
from foreframe.report.results import compare, print_result, result_table, write_json
from foreframe.unrolled import Step
from tests.conftest import write_pack

CPU = torch.device("cpu")
DOCS = Path(__file__).parent.parent.parent / "docs"


def drawn(network, seed=0):
    """A state dict of plausible size: signals neither die nor explode on their way."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(tensor.shape, generator=draw)
        if name.endswith("conv3d.weight"):
            found[name] = noise * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            found[name] = 1 + 0.2 * noise.tanh()
        else:
            found[name] = 0.1 * noise
    return found


@pytest.fixture(scope="module")
def state():
    return drawn(I3d())


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    save_file(state, path)
    return path


class Cheap(torch.nn.Module):
    """Stands for I3D where only what is done with features matters: 8 numbers that look at places and times."""

    def __init__(self):
        super().__init__()
        self.map = torch.randn(8, 3 * 3 * 4 * 4, generator=torch.Generator().manual_seed(0))

    def forward(self, clips):
        return functional.adaptive_avg_pool3d(clips, (3, 4, 4)).flatten(1) @ self.map.T


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("packs") / "long", frames=10)


class Shimmer(torch.nn.Module):
    """A stand-in for a model: the frame before, and noise."""

    latent_shape = (1,)

    def initial(self, clip, context):
        return ()

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        return state, Step((frame + 0.1 * noise[:, :, None, None]).clamp(0, 1), None, None, None)


@pytest.fixture(scope="module")
def model():
    return Shimmer().eval()


# ---------------------------------------------------------------- the network


def same_pads(size, kernel, stride):
    """TensorFlow's rule, from the number of outputs that "SAME" promises."""
    total = max(0, (int(np.ceil(size / stride)) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def windows(maps, kernel, stride):
    """Every window of (C, T, H, W) with zeros around, one by one: {place among the outputs: (C, t, h, w)}."""
    padded = np.pad(maps, [(0, 0), *(same_pads(*sizes) for sizes in zip(maps.shape[1:], kernel, stride, strict=True))])
    found = {}
    for place in np.ndindex(*(int(np.ceil(size / step)) for size, step in zip(maps.shape[1:], stride, strict=True))):
        cut = [slice(at * step, at * step + k) for at, step, k in zip(place, stride, kernel, strict=True)]
        found[place] = padded[:, *cut]
    return found


@pytest.mark.parametrize("size", [(4, 5, 6), (5, 7, 8), (1, 9, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (1, 1), (2, 2)])
def test_a_unit_pads_as_same_does_and_normalises_with_its_epsilon(size, kernel, stride):
    unit = _Unit(2, 3, kernel, stride).eval()
    unit.load_state_dict({**unit.state_dict(), **drawn(unit)})
    maps = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    found = unit(maps)[0].detach().double().numpy()
    weight = unit.conv3d.weight.detach().double().numpy()
    bn = {name: value.double().numpy() for name, value in unit.bn.state_dict().items()}
    plain = np.zeros_like(found)
    for place, window in windows(maps[0].double().numpy(), (kernel,) * 3, (stride,) * 3).items():
        raw = (weight * window).sum((1, 2, 3, 4))
        scaled = (raw - bn["running_mean"]) / np.sqrt(bn["running_var"] + 1e-3) * bn["weight"] + bn["bias"]
        plain[:, *place] = np.maximum(scaled, 0)
    assert found.shape[1:] == tuple(-(-n // stride) for n in size)
    np.testing.assert_allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 5, 6), (5, 7, 9), (1, 2, 3)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1,) * 3)],
)
def test_a_pool_takes_the_largest_of_each_padded_window(size, kernel, stride):
    maps = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(1))
    found = _Pool(kernel, stride)(maps)[0].numpy()
    for place, window in windows(maps[0].numpy(), kernel, stride).items():
        assert found[:, *place].tolist() == window.max((1, 2, 3)).tolist()


def unit(state, name, maps):
    weight = state[f"{name}.conv3d.weight"]
    pads = [
        pad
        for size, k in zip(reversed(maps.shape[2:]), reversed(weight.shape[2:]), strict=True)
        for pad in same_pads(size, k, 2 if k == 7 else 1)
    ]
    maps = torch.conv3d(functional.pad(maps, pads), weight, stride=2 if weight.shape[-1] == 7 else 1)
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, scale, shift = (state[f"{name}.bn.{part}"].view(1, -1, 1, 1, 1) for part in names)
    return ((maps - mean) / (var + 0.001).sqrt() * scale + shift).relu()


def pool(maps, kernel, stride):
    sizes = zip(reversed(maps.shape[2:]), reversed(kernel), reversed(stride), strict=True)
    pads = [pad for each in sizes for pad in same_pads(*each)]
    return torch.max_pool3d(functional.pad(maps, pads, value=-torch.inf), kernel, stride)


def mixed(state, name, maps):
    branches = (
        unit(state, f"{name}.b0", maps),
        unit(state, f"{name}.b1b", unit(state, f"{name}.b1a", maps)),
        unit(state, f"{name}.b2b", unit(state, f"{name}.b2a", maps)),
        unit(state, f"{name}.b3b", pool(maps, (3, 3, 3), (1, 1, 1))),
    )
    return torch.cat(branches, 1)


def plain_logits(state, clip):
    """I3D from a state dict, stage by stage and without anything clever: (T, 3, H, W) in [0, 1] to (400,)."""
    frames = functional.interpolate(clip, (224, 224), mode="bilinear", align_corners=False)
    maps = pool(unit(state, "Conv3d_1a_7x7", frames.transpose(0, 1)[None] * 2 - 1), (1, 3, 3), (1, 2, 2))
    maps = unit(state, "Conv3d_2c_3x3", unit(state, "Conv3d_2b_1x1", maps))
    maps = pool(maps, (1, 3, 3), (1, 2, 2))
    maps = mixed(state, "Mixed_3c", mixed(state, "Mixed_3b", maps))
    maps = pool(maps, (3, 3, 3), (2, 2, 2))
    for letter in "bcdef":
        maps = mixed(state, f"Mixed_4{letter}", maps)
    maps = pool(maps, (2, 2, 2), (2, 2, 2))
    maps = mixed(state, "Mixed_5c", mixed(state, "Mixed_5b", maps))
    pooled = torch.stack([maps[0, :, t : t + 2].mean((1, 2, 3)) for t in range(maps.shape[2] - 1)])
    return (pooled @ state["logits.conv3d.weight"].flatten(1).T + state["logits.conv3d.bias"]).mean(0)


def test_the_features_of_a_clip_are_those_of_the_paper_computed_plainly(state, weights):
    clip = torch.rand(9, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = Fvd.load(weights)(clip[None])
    assert found.shape == (1, 400)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[0].float(), plain_logits(state, clip), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


@pytest.mark.nightly
def test_longer_clips_have_the_plain_features_too_and_their_order_and_batch_change_nothing(state, weights):
    clips = torch.rand(2, 3, 18, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    fvd = Fvd.load(weights)
    found = fvd(clips)
    torch.testing.assert_close(found[1, 0].float(), plain_logits(state, clips[1, 0]), rtol=1e-4, atol=1e-4)
    assert found[1].equal(fvd(clips[1].flip(0)).flip(0))
    one, other = frechet_distance(*found), frechet_distance(*fvd(clips.flip(1)))
    assert one == pytest.approx(other, rel=1e-6)


def test_an_inception_module_joins_its_branches_in_order():
    module = _Mixed(5, 2, 3, 4, 2, 3, 1).eval()
    state = {**module.state_dict(), **drawn(module)}
    module.load_state_dict(state)
    maps = torch.rand(2, 5, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    found = module(maps)
    assert found.shape == (2, 2 + 4 + 3 + 1, 3, 5, 4)
    torch.testing.assert_close(found, mixed({f"m.{name}": value for name, value in state.items()}, "m", maps))


def test_each_stage_has_the_size_of_the_paper_and_the_whole_its_number_of_parameters():
    with torch.device("meta"):
        network, clip = I3d(), torch.empty(1, 3, 64, 224, 224)
    sizes = {}
    for name, stage in network.named_children():
        clip = stage(clip)
        sizes[name] = tuple(clip.shape[1:])
    assert sizes == {
        "Conv3d_1a_7x7": (64, 32, 112, 112),
        "MaxPool3d_2a_3x3": (64, 32, 56, 56),
        "Conv3d_2b_1x1": (64, 32, 56, 56),
        "Conv3d_2c_3x3": (192, 32, 56, 56),
        "MaxPool3d_3a_3x3": (192, 32, 28, 28),
        "Mixed_3b": (256, 32, 28, 28),
        "Mixed_3c": (480, 32, 28, 28),
        "MaxPool3d_4a_3x3": (480, 16, 14, 14),
        "Mixed_4b": (512, 16, 14, 14),
        "Mixed_4c": (512, 16, 14, 14),
        "Mixed_4d": (512, 16, 14, 14),
        "Mixed_4e": (528, 16, 14, 14),
        "Mixed_4f": (832, 16, 14, 14),
        "MaxPool3d_5a_2x2": (832, 8, 7, 7),
        "Mixed_5b": (832, 8, 7, 7),
        "Mixed_5c": (1024, 8, 7, 7),
        "logits": (400,),
    }
    counts = {name: value.numel() for name, value in network.named_parameters()}
    # 12.3 M is what is usually said of RGB I3D without its 400 classes. OpenVINO's model zoo counts 12.69 M in the
    # authors' own graph, in which BatchNorm has no scale.
    assert round(sum(n for name, n in counts.items() if "logits" not in name) / 1e6, 1) == 12.3
    assert round(sum(n for name, n in counts.items() if not name.endswith("bn.weight")) / 1e6, 2) == 12.69


@pytest.mark.parametrize(("length", "left"), [(9, 2), (16, 2), (17, 3)])
def test_nine_frames_are_the_fewest_that_leave_two_for_the_last_pooling(length, left):
    with torch.device("meta"):
        network, clip = I3d(), torch.empty(1, 3, length, 224, 224)
        for stage in list(network.children())[:-1]:
            clip = stage(clip)
        assert clip.shape[2] == left
        with pytest.raises(RuntimeError):
            network(torch.empty(1, 3, 8, 224, 224))


# ---------------------------------------------------------------- files of weights


def test_weights_are_read_with_and_without_the_counters_of_batch_norm(state, weights, tmp_path):
    path = tmp_path / "i3d.safetensors"
    counters = {"Mixed_3b.b0.bn.num_batches_tracked": torch.tensor(5)}
    save_file({**state, **counters}, path, metadata={"format": "pt"})
    (one, first), (other, second) = load_i3d(weights), load_i3d(path)
    for name, value in one.state_dict().items():
        assert value.equal(other.state_dict()[name])
        assert name.endswith("num_batches_tracked") or value.equal(state[name])
    assert first != second
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


def blocks(first_line):
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```python\n(# {first_line}\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def test_the_lines_of_the_page_convert_a_state_dict(state, tmp_path, monkeypatch):
    torch.save(state, tmp_path / "rgb_imagenet.pt")
    (tmp_path / "convert.py").write_text(blocks("convert_i3d.py"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("convert.py")
    assert load_i3d(tmp_path / "i3d.safetensors")[0].Mixed_5c.b2b.bn.bias.equal(state["Mixed_5c.b2b.bn.bias"])


def test_the_lines_of_the_page_that_check_weights_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Fvd, "load", lambda path: Fvd(Cheap(), path.name))
    (tmp_path / "check.py").write_text(blocks("check_i3d.py"))
    runpy.run_path(str(tmp_path / "check.py"))
    fvd = Fvd(Cheap(), "")
    apart = fvd(torch.ones(1, 15, 3, 64, 64)) - fvd(torch.zeros(1, 15, 3, 64, 64))
    assert float(capsys.readouterr().out) == pytest.approx(float(apart.square().sum()), rel=1e-9)


FAULTS = {
    "missing": (lambda s: s.pop("Mixed_4d.b1a.bn.bias"), "missing Mixed_4d.b1a.bn.bias"),
    "unknown": (lambda s: s.update(extra=torch.zeros(2)), "unexpected extra"),
    "classes": (
        lambda s: s.update({"logits.conv3d.bias": torch.zeros(157)}),
        r"expected torch.float32 \(400,\), found torch.float32 \(157,\)",
    ),
    "flow": (
        lambda s: s.update({"Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}),
        r"expected torch.float32 \(64, 3, 7, 7, 7\), found torch.float32 \(64, 2, 7, 7, 7\)",
    ),
    "double": (
        lambda s: s.update({"logits.conv3d.bias": torch.zeros(400).double()}),
        r"logits.conv3d.bias: expected torch.float32 \(400,\), found torch.float64 \(400,\)",
    ),
    "not finite": (
        lambda s: s["Mixed_3c.b0.bn.weight"].fill_(torch.nan),
        "Mixed_3c.b0.bn.weight: holds numbers that are not finite",
    ),
    "variance": (
        lambda s: s["Mixed_3c.b0.bn.running_var"].fill_(-1),
        "Mixed_3c.b0.bn.running_var: holds a variance below 0",
    ),
    "half": (lambda s: [s.pop(key) for key in list(s)[3:]], "missing Mixed_3b"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_of_another_kind_are_refused_by_name(state, tmp_path, fault):
    change, words = FAULTS[fault]
    tensors = {key: value.clone() for key, value in state.items()}
    change(tensors)
    save_file(tensors, tmp_path / "i3d.safetensors")
    with pytest.raises(UsageError, match=words) as error:
        load_i3d(tmp_path / "i3d.safetensors")
    assert str(tmp_path / "i3d.safetensors") in str(error.value)
    assert len(str(error.value)) < 2500


def test_files_that_are_no_weights_are_refused_before_anything_large_is_read(tmp_path):
    def refused(path, words):
        with pytest.raises(UsageError, match=words):
            load_i3d(path)

    path = tmp_path / "x.safetensors"
    for other in ("i3d_torchscript.pt", "i3d.npz"):
        refused(tmp_path / other, r"expected weights of I3D for RGB and 400 classes as \.safetensors")
    refused(path, "no such file; expected weights of I3D")
    for content in (b"\x80\x04\0\0\0\0\0\0 a pickle", b""):
        path.write_bytes(content)
        refused(path, "not readable as safetensors")
    with path.open("wb") as sparse:
        sparse.truncate(2**27)
    refused(path, "134,217,728 bytes, expected at most")
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    refused(path, "a header of 1099511627776 bytes, expected at most")
    for header in (b'{"x": 1, "x": 2}', b"[]", b'{"x": {"dtype": "F32", "shape": [' + b"1," * 2000 + b"1]}}"):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        refused(path, "given twice|not readable as safetensors")


# ---------------------------------------------------------------- the distance


def features(seed, count, size, scale=1.0, shift=0.0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=draw, dtype=torch.float64) * scale + shift


def whitened(count, size, seed=0):
    """Features whose sample mean is 0 and whose sample covariance is I, exactly."""
    centred = features(seed, count, size)
    centred = centred - centred.mean(0)
    return torch.linalg.qr(centred).Q * (count - 1) ** 0.5


def by_eigenvalues(real, predicted):
    """The formula with covariances and the symmetric root, as it is usually computed."""
    means, covariances = zip(*((x.mean(0), torch.cov(x.T)) for x in (real, predicted)), strict=True)
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    common = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    traces = sum(covariance.trace() for covariance in covariances)
    return float((means[0] - means[1]).square().sum() + traces - 2 * common)


def test_gaussians_of_one_dimension_have_the_distance_of_the_closed_form():
    real, predicted = 2 * whitened(50, 1) + 3, 5 * whitened(30, 1, 1) - 1
    assert frechet_distance(real, predicted) == pytest.approx((3 + 1) ** 2 + (5 - 2) ** 2, rel=1e-12)


def test_covariances_that_commute_have_the_distance_of_their_deviations():
    one, other = torch.tensor([1.0, 2, 0, 4]).double(), torch.tensor([3.0, 2, 1, 0]).double()
    turn = torch.linalg.qr(features(9, 4, 4)).Q
    shift = torch.tensor([1.0, 0, -2, 0]).double()
    found = frechet_distance(whitened(40, 4) * one @ turn, whitened(25, 4, 1) * other @ turn + shift)
    assert found == pytest.approx(float((one - other).square().sum() + shift.square().sum()), rel=1e-12)


@pytest.mark.parametrize(("count", "others", "size"), [(100, 60, 8), (10, 100, 30), (5, 3, 40), (2, 2, 400)])
def test_the_distance_is_that_by_eigenvalues_for_many_clips_and_for_few(count, others, size):
    real, predicted = features(0, count, size), features(1, others, size, 1.5, 0.2)
    found = frechet_distance(real, predicted)
    assert found == pytest.approx(by_eigenvalues(real, predicted), rel=1e-5)
    assert found == pytest.approx(frechet_distance(predicted, real), rel=1e-12)


def test_the_distance_is_that_of_scipys_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    real, predicted = features(0, 200, 12), features(1, 150, 12, 1.3, 0.1) @ features(2, 12, 12)
    one, other = (np.cov(x.numpy().T) for x in (real, predicted))
    root = linalg.sqrtm(one @ other).real
    plain = float((real.mean(0) - predicted.mean(0)).square().sum()) + np.trace(one + other - 2 * root)
    assert frechet_distance(real, predicted) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("count", [2, 30, 500])
def test_equal_sets_have_no_distance_in_any_order(count):
    real = features(0, count, 400, 10, 100)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(real, real[order]) <= 1e-9 * float(real.var(0).sum())
    other = features(1, count, 400, 11, 100)
    assert frechet_distance(real[order], other.flip(0)) == pytest.approx(frechet_distance(real, other), rel=1e-9)


def test_clips_that_are_all_alike_are_as_far_apart_as_their_features():
    real, predicted = torch.full((5, 6), 2.0), torch.full((7, 6), -1.0)
    assert frechet_distance(real, predicted) == pytest.approx(6 * 9)
    spread = whitened(20, 6) * 3
    assert frechet_distance(spread, predicted) == pytest.approx(6 + 6 * 9)


def test_fewer_clips_make_a_larger_distance_and_the_result_says_so():
    few = frechet_distance(features(0, 20, 100), features(1, 20, 100))
    many = frechet_distance(features(0, 2000, 100), features(1, 2000, 100))
    assert few > 10 * many
    assert bias(256) == "256 clips, 400 dimensions: biased upwards"
    assert bias(401) == "401 clips, 400 dimensions"


def test_features_without_a_distance_are_refused():
    good = torch.zeros(3, 4)
    for bad, words in (
        (torch.zeros(3, 5), r"found \(3, 4\) and \(3, 5\)"),
        (torch.zeros(4), r"found \(3, 4\) and \(4,\)"),
        (torch.zeros(1, 4), "expected 2 clips or more on either side, found 3 and 1"),
        (torch.full((3, 4), torch.inf), "features are not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            frechet_distance(good, bad)


# ---------------------------------------------------------------- in a result


def test_a_result_holds_the_distance_of_the_model_and_of_the_baselines_and_how_it_was_made(model, pack):
    fvd = Fvd(Cheap(), "abc")
    result = evaluate(model, pack, Protocol("train", 2, 7, samples=3), CPU, fvd=fvd)
    truth = torch.from_numpy(pack.frames.copy()).permute(0, 3, 1, 2).float() / 255
    clips = [truth[episode.start : episode.start + 9] for episode in pack.split("train")]
    repeated = [torch.cat((clip[:2], clip[1:2].expand(7, -1, -1, -1))) for clip in clips]
    apart = frechet_distance(fvd(torch.stack(clips)), fvd(torch.stack(repeated)))
    assert result.fvd.baselines["repeat_last"] == pytest.approx(apart, rel=1e-6)
    assert set(result.fvd.baselines) == {"repeat_last", "median_frame"}
    assert result.fvd.value > 0
    assert result.fvd.note == "4 clips, 400 dimensions: biased upwards"
    settings = json.loads(json.dumps(to_dict(result), allow_nan=False))["protocol"]["fvd"]
    expected = {"weights_sha256": "abc", "context_frames": 2, "length": 9, "clips": 4, "samples": 3}
    assert expected.items() <= settings.items()
    assert evaluate(model, pack, Protocol("train", 2, 7), CPU).protocol.fvd is None


def test_the_distance_does_not_depend_on_the_batch_or_on_how_samples_are_grouped(model, pack, monkeypatch):
    protocol, fvd = Protocol("train", 2, 7, samples=3), Fvd(Cheap(), "")
    one = evaluate(model, pack, protocol, CPU, batch=1, fvd=fvd).fvd
    monkeypatch.setattr("foreframe.evaluation.ROWS", 4)
    other = evaluate(model, pack, protocol, CPU, batch=3, fvd=fvd).fvd
    assert one.value == pytest.approx(other.value, rel=1e-5)
    assert one.baselines == pytest.approx(other.baselines, rel=1e-6)


def test_context_frames_are_part_of_the_clips_unless_they_are_left_out(model, pack):
    protocol = Protocol("train", 1, 9)
    both = [evaluate(model, pack, protocol, CPU, fvd=Fvd(Cheap(), "", context)) for context in (True, False)]
    assert [one.protocol.fvd.length for one in both] == [10, 9]
    assert [one.protocol.fvd.context_frames for one in both] == [1, 0]
    assert both[0].fvd.value != both[1].fvd.value
    fvd = Fvd(Cheap(), "", context=False)
    truth = torch.from_numpy(pack.frames.copy()).permute(0, 3, 1, 2).float() / 255
    clips = [truth[episode.start : episode.start + 10] for episode in pack.split("train")]
    plain = (
        fvd(torch.stack([clip[1:] for clip in clips])),
        fvd(torch.stack([clip[:1].expand(9, -1, -1, -1) for clip in clips])),
    )
    assert both[1].fvd.baselines["repeat_last"] == pytest.approx(frechet_distance(*plain), rel=1e-6)


def test_clips_of_which_there_is_no_distance_are_refused(model, pack):
    def refused(protocol, fvd, words):
        with pytest.raises(UsageError, match=words):
            evaluate(model, pack, protocol, CPU, fvd=fvd)

    with_context, without = Fvd(Cheap(), ""), Fvd(Cheap(), "", context=False)
    refused(
        Protocol("test", 2, 6), with_context, r"9 frames or more, these have 8 \(2 of context included\): .* 7 or more"
    )
    refused(Protocol("test", 2, 8), without, r"these have 8 \(without context\): give a horizon of 9 or more")
    refused(Protocol("test", 2, 7, clips=1), with_context, "sets of 2 clips or more, found 1")
    with pytest.raises(UsageError, match="frames of 3 channels, these have 1"):
        with_context.check(1, 2, 7, 10)


def test_weights_that_make_no_numbers_are_refused():
    class Broken(torch.nn.Module):
        def forward(self, clips):
            return torch.full((1, 400), torch.nan)

    with pytest.raises(UsageError, match="features are not finite; are its weights those of I3D"):
        Fvd(Broken(), "")(torch.zeros(1, 9, 3, 8, 8))


def test_results_of_other_clips_samples_context_or_weights_do_not_compare(model, pack, tmp_path):
    def result(name, fvd, **changes):
        return write_json(
            evaluate(
                model, pack, Protocol("train", 1, 9, **{"clips": 2, "metrics": ("psnr",), **changes}), CPU, fvd=fvd
            ),
            tmp_path / name,
        )

    first = result("first.json", Fvd(Cheap(), "a"))
    compare([first, result("again.json", Fvd(Cheap(), "a"))])
    for other, words in (
        (result("weights.json", Fvd(Cheap(), "b")), r"fvd.weights_sha256: 'a' -> 'b'"),
        (result("context.json", Fvd(Cheap(), "a", context=False)), r"fvd.context_frames: 1 -> 0"),
        (result("clips.json", Fvd(Cheap(), "a"), clips=3), r"fvd.clips: 2 -> 3"),
        (result("samples.json", Fvd(Cheap(), "a"), samples=2), r"fvd.samples: 1 -> 2"),
    ):
        with pytest.raises(UsageError, match=words):
            compare([first, other])


def test_the_table_shows_the_distance_beside_the_scores(model, pack, capsys):
    result = evaluate(model, pack, Protocol("train", 2, 7, samples=2), CPU, fvd=Fvd(Cheap(), ""))
    header, rows = result_table(result)
    assert header[-1] == "FVD"
    assert [row[-1] for row in rows] == [
        f"{result.fvd.value:.2f}",
        "",
        *(f"{value:.2f}" for value in result.fvd.baselines.values()),
    ]
    assert len({len(header), *map(len, rows)}) == 1
    print_result(result)
    assert "FVD: 4 clips, 400 dimensions: biased upwards; 9 frames a clip, context included" in capsys.readouterr().out


@pytest.mark.nightly
def test_i3d_itself_scores_a_model(model, pack, weights):
    protocol = Protocol("train", 2, 7)
    both = [evaluate(model, pack, protocol, CPU, batch, fvd=Fvd.load(weights)).fvd for batch in (1, 4)]
    assert both[0].value == pytest.approx(both[1].value, rel=1e-3)
    assert both[0].baselines == both[1].baselines
