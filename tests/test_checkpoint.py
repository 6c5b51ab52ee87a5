from __future__ import annotations

import errno
import json
import os

import pytest
import torch

from foreframe import checkpoint
from foreframe.errors import CheckpointError


def tensors(value=0.0):
    return {"weights": {"a": torch.full((3,), value), "b": torch.arange(4)}, "optimizer": {"0.exp_avg": torch.ones(3)}}


def fill(run, steps=(5, 10, 15), best=None):
    for step in steps:
        checkpoint.save(run, step, tensors(float(step)), {"best": {"step": best} if best else {}}, best)


def test_what_is_saved_is_read_back(tmp_path):
    fill(tmp_path, (7,))
    found = checkpoint.newest(tmp_path)
    assert found.step == 7
    assert torch.equal(found.tensors("weights")["a"], torch.full((3,), 7.0))
    assert torch.equal(found.tensors("weights")["b"], torch.arange(4))


def test_steps_are_ordered_as_numbers_and_two_and_the_best_are_kept(tmp_path):
    fill(tmp_path, (2, 9, 10, 100), best=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000010",
        "step-00000100",
    ]
    assert checkpoint.choose(tmp_path, "newest").step == 100
    assert checkpoint.choose(tmp_path, "best").step == 2
    assert checkpoint.choose(tmp_path, "10").step == 10


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        checkpoint.choose(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_byte_is_found_and_the_file_named_with_both_hashes(tmp_path, name):
    fill(tmp_path, (5,))
    path = tmp_path / "checkpoints" / "step-00000005" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        CheckpointError, match=rf"{name}: damaged: expected SHA-256 [0-9a-f]{{64}}, found [0-9a-f]{{64}}"
    ):
        checkpoint.choose(tmp_path)


def test_a_damaged_newest_is_said_and_the_one_before_is_taken(tmp_path):
    fill(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000015" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    said = []
    assert checkpoint.newest(tmp_path, said.append).step == 10
    assert "weights.safetensors: expected" in said[0]


def test_with_every_checkpoint_damaged_nothing_starts_again_from_zero(tmp_path):
    fill(tmp_path)
    for manifest in (tmp_path / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of this run is whole"):
        checkpoint.newest(tmp_path)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    fill(tmp_path, (5,))
    path = tmp_path / "checkpoints" / "step-00000005" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../../secret"] = {"size": 1, "sha256": ""}
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="secret"):
        checkpoint.choose(tmp_path)


@pytest.mark.parametrize("call", ["rename", "fsync", "mkdir"])
def test_a_full_disk_leaves_the_earlier_checkpoint_whole_and_says_so(tmp_path, monkeypatch, call):
    fill(tmp_path, (5,))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync" if call == "fsync" else f"pathlib.Path.{call}", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*earlier checkpoints are untouched"):
        checkpoint.save(tmp_path, 10, tensors(), {}, None)
    monkeypatch.undo()
    assert checkpoint.newest(tmp_path).step == 5
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_leftovers_of_a_killed_save_are_swept(tmp_path):
    (tmp_path / "checkpoints" / ".tmp-1-00000001").mkdir(parents=True)
    fill(tmp_path, (5,))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_weights_of_another_model_are_refused_tensor_by_tensor(tmp_path):
    model = torch.nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    checkpoint.save(tmp_path, 1, {"weights": state, "optimizer": {}}, {}, None)
    with pytest.raises(CheckpointError) as error:
        checkpoint.choose(tmp_path).load_into(model)
    for part in ("missing bias", "unexpected extra", "weight: expected (2, 3), found (2, 4)"):
        assert part in str(error.value)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, 0.9)])
def test_an_optimiser_goes_through_a_checkpoint_unchanged(tmp_path, kind):
    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    first, second = kind(model.parameters(), lr=0.1), kind(other.parameters(), lr=0.1)
    x = torch.randn(4, 3)
    for _ in range(3):
        first.zero_grad()
        model(x).square().sum().backward()
        first.step()
    other.load_state_dict(model.state_dict())
    checkpoint.save(tmp_path, 3, {"weights": {}, "optimizer": checkpoint.pack_optimizer(first)}, {}, None)
    checkpoint.unpack_optimizer(second, checkpoint.choose(tmp_path).tensors("optimizer"))
    for net, optimiser in ((model, first), (other, second)):
        optimiser.zero_grad()
        net(x).square().sum().backward()
        optimiser.step()
    assert torch.equal(model.weight, other.weight)
