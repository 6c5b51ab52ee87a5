"""LPIPS against the paper's formula; with the published weights where they are, with drawn ones everywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from foreframe import models
from foreframe.errors import UsageError
from foreframe.evaluation import Protocol, evaluate
from foreframe.metrics import METRICS
from foreframe.metrics.lpips import Lpips, _shapes
from foreframe.models.svg import Config


@pytest.fixture(scope="module")
def arrays():
    draw = np.random.default_rng(0)
    return {
        name: (np.abs(draw.normal(0, 1, shape)) if "NetLin" in name else draw.normal(0, 0.05, shape)).astype(np.float32)
        for name, shape in _shapes().items()
    }


@pytest.fixture(scope="module")
def weights(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "weights.safetensors"
    save_file(arrays, path)
    return path


def plain(arrays, one, other):
    """The formula of the paper, layer by layer and without anything clever."""
    total = 0.0
    maps = []
    for frame in (one, other):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((2 * frame - 1).permute(1, 2, 0) - shift) / scale
        x, found = x.permute(2, 0, 1)[None], []
        for number, (stride, padding) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
            if number in (1, 2):
                x = torch.max_pool2d(x, 3, 2)
            kernel = torch.from_numpy(arrays[f"AlexNet_0.Conv_{number}.kernel"]).permute(3, 2, 0, 1)
            x = torch.conv2d(
                x, kernel, torch.from_numpy(arrays[f"AlexNet_0.Conv_{number}.bias"]), stride, padding
            ).relu()
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        maps.append(found)
    for number, (a, b) in enumerate(zip(*maps, strict=True)):
        head = torch.from_numpy(arrays[f"NetLinLayer_{number}.Conv_0.kernel"]).view(1, -1, 1, 1)
        total += float(((a - b) ** 2 * head).sum(1).mean())
    return total


def test_each_frame_has_the_distance_of_the_formula(weights, arrays):
    draw = torch.Generator().manual_seed(0)
    true, guess = torch.rand(2, 3, 3, 64, 64, generator=draw), torch.rand(2, 2, 3, 3, 64, 64, generator=draw)
    found = Lpips.load(weights)(guess, true)
    assert found.shape == (2, 2, 3)
    for sample, clip, frame in np.ndindex(2, 2, 3):
        assert float(found[sample, clip, frame]) == pytest.approx(
            plain(arrays, guess[sample, clip, frame], true[clip, frame]), rel=1e-5
        )
    assert not Lpips.load(weights)(true, true).any()


@pytest.mark.skipif("FOREFRAME_LPIPS" not in os.environ, reason="needs FOREFRAME_LPIPS, a folder with the real weights")
def test_the_published_examples_have_the_published_distances(tmp_path):
    folder = Path(os.environ["FOREFRAME_LPIPS"])
    with np.load(folder / "lpips_alex.npz", allow_pickle=False) as published:
        save_file(dict(published), tmp_path / "lpips_alex.safetensors")
    metric = Lpips.load(tmp_path / "lpips_alex.safetensors")

    def picture(name):
        return torch.from_numpy(np.array(Image.open(folder / name).convert("RGB"))).permute(2, 0, 1)[None].float() / 255

    assert float(metric(picture("ex_p0.png"), picture("ex_ref.png"))) == pytest.approx(0.7219, abs=1e-4)
    assert float(metric(picture("ex_p1.png"), picture("ex_ref.png"))) == pytest.approx(0.1376, abs=1e-4)


def test_without_weights_there_is_no_number():
    frames = torch.zeros(1, 3, 64, 64)
    with pytest.raises(UsageError, match=r"lpips needs the weights of its network.*--lpips-weights FILE\.safetensors"):
        METRICS["lpips"](frames, frames)


def test_other_weights_are_refused_by_name(arrays, tmp_path):
    path = tmp_path / "x.safetensors"
    changed = {name: value for name, value in arrays.items() if name != "AlexNet_0.Conv_2.bias"}
    changed["NetLinLayer_4.Conv_0.kernel"] = np.zeros((1, 1, 512, 1), np.float32)
    save_file(changed, path)
    with pytest.raises(UsageError, match=re.escape(f"not the weights of LPIPS with AlexNet: {path}")) as error:
        Lpips.load(path)
    assert "missing AlexNet_0.Conv_2.bias" in str(error.value)
    assert "expected torch.float32 (1, 1, 256, 1), found torch.float32 (1, 1, 512, 1)" in str(error.value)
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(UsageError, match="not readable as safetensors"):
        Lpips.load(path)
    with path.open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(UsageError, match="134,217,728 bytes, expected at most"):
        Lpips.load(path)
    with pytest.raises(UsageError, match=r"expected weights of LPIPS with AlexNet as \.safetensors"):
        Lpips.load(path.with_suffix(".npz"))


def test_frames_that_the_network_cannot_take_are_refused(weights):
    metric = Lpips.load(weights)
    for shape in ((1, 1, 64, 64), (1, 3, 30, 64)):
        with pytest.raises(ValueError, match="LPIPS takes frames of 3 channels and 31 pixels a side or more"):
            metric(torch.zeros(shape), torch.zeros(shape))
    assert metric(torch.rand(1, 3, 31, 31), torch.rand(1, 3, 31, 31)).isfinite().all()


def test_lower_is_better_and_the_weights_are_in_the_protocol(weights, vector_pack):
    config = Config(backbone="dcgan", prior="fixed", width=4, g_dim=8, z_dim=3, rnn_size=8)
    torch.manual_seed(0)
    model = models.build(config, vector_pack.spec).eval()
    protocol = Protocol("test", 2, 3, samples=3, metrics=("psnr", "lpips"))
    with pytest.raises(UsageError, match="lpips needs the weights"):
        evaluate(model, vector_pack, protocol, torch.device("cpu"))
    metric = Lpips.load(weights)
    found = evaluate(model, vector_pack, protocol, torch.device("cpu"), lpips=metric)
    assert found.best_of_n["lpips"].mean <= found.scores["lpips"].mean
    assert found.best_of_n["psnr"].mean >= found.scores["psnr"].mean
    assert f"SHA-256 {metric.sha256}" in found.protocol.metrics["lpips"]
    assert found.baselines["repeat_last"]["lpips"].mean > 0
