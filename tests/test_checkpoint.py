from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest
import torch

from foreframe import checkpoint
from foreframe.errors import CheckpointError, DiskError
from foreframe.tensors import read_tensors

LIKE = {"a": torch.empty(3), "b": torch.empty(4, dtype=torch.int64)}
NEW = {"best": {}}


def tensors(value=0.0):
    return {"weights": {"a": torch.full((3,), value), "b": torch.arange(4)}, "optimizer": {"0.exp_avg": torch.ones(3)}}


def fill(run, steps=(5, 10, 15), best=None):
    for step in steps:
        checkpoint.save(run, step, tensors(float(step)), {"best": {"step": best} if best else {}}, best)


def test_what_is_saved_is_read_back(tmp_path):
    fill(tmp_path, (7,))
    found = checkpoint.newest(tmp_path)
    assert found.step == 7
    assert torch.equal(found.tensors("weights", LIKE)["a"], torch.full((3,), 7.0))
    assert torch.equal(found.tensors("weights", LIKE)["b"], torch.arange(4))


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
    message = rf"{name}: damaged: expected SHA-256 [0-9a-f]{{64}}, found [0-9a-f]{{64}}"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path, 5)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.choose(tmp_path).tensors(name.split(".")[0], {})


def test_only_files_that_are_loaded_are_hashed_and_resuming_hashes_all(tmp_path, monkeypatch, figure):
    fill(tmp_path, (5, 10, 15), best=5)
    hashed, check = [], checkpoint._check_hash
    monkeypatch.setattr(
        checkpoint,
        "_check_hash",
        lambda path, *rest: (hashed.append(f"{path.parent.name}/{path.name}"), check(path, *rest)),
    )
    checkpoint.choose(tmp_path).tensors("weights", LIKE)
    assert hashed == [
        "step-00000015/state.json",
        "step-00000005/state.json",
        "step-00000005/weights.safetensors",
    ]
    hashed.clear()
    found = checkpoint.newest(tmp_path)
    whole = sorted(f"step-00000015/{name}" for name in found.hashes)
    assert sorted(hashed) == whole
    found.tensors("weights", LIKE)
    assert sorted(hashed) == whole
    figure("files hashed to load the best model of a run, state.json left out", 1, 1)


def test_a_file_that_is_gone_when_it_is_loaded_is_named(tmp_path):
    fill(tmp_path, (5,))
    found = checkpoint.choose(tmp_path)
    (found.path / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights.safetensors: cannot be read: No such file"):
        found.tensors("weights", LIKE)


def test_a_validation_to_be_repeated_is_read_under_its_old_name_too(tmp_path):
    for step, state in enumerate(({}, {"owes_validation": True}, {"validation_pending": True}), 1):
        checkpoint.save(tmp_path, step, tensors(), {**NEW, **state}, None)
        assert checkpoint.read(tmp_path, step).validation_pending is bool(state)


def test_a_damaged_newest_is_said_and_the_one_before_is_taken(tmp_path):
    fill(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000015" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    said = []
    assert checkpoint.newest(tmp_path, said.append).step == 10
    assert "weights.safetensors: damaged: expected" in said[0]


def test_with_every_checkpoint_damaged_nothing_starts_again_from_zero(tmp_path):
    fill(tmp_path)
    for manifest in (tmp_path / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of this run is whole"):
        checkpoint.newest(tmp_path)


def rewrite(path, change):
    """Change a manifest as a stranger would, its own hash included."""
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    path.write_bytes(checkpoint._manifest(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["files"].update({"../../x": {"size": 1}}),
            r"\.\./\.\./x: listed .* not there",
        ),
        (
            lambda m: m["files"].update({"ema.safetensors": {"size": 1}}),
            "ema.safetensors: listed .* not there",
        ),
        (lambda m: m["files"].update({"state.json": 7}), "state.json: listed in the manifest, but not there"),
        (lambda m: m["files"].pop("state.json"), "manifest.json: state.json is not listed in it"),
        (lambda m: m.update(files=[]), "manifest.json: not the manifest of step 5"),
        (lambda m: m.update(step=6), "manifest.json: not the manifest of step 5"),
        (lambda m: m.update(format=1), "manifest.json: expected format 2, found 1; made by another version"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path, change, message):
    fill(tmp_path, (5,))
    rewrite(tmp_path / "checkpoints" / "step-00000005" / "manifest.json", change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.choose(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"step": 6, "best": {}}', "state.json: not the state of step 5"),
        ('{"step": 5, "best": []}', "state.json: not the state of step 5"),
        ('{"step": 5, "best": {"step": "5"}}', "state.json: not the state of step 5"),
        ("[]", "state.json: expected a JSON object, found list"),
        ("{", "state.json: not readable as JSON"),
    ],
)
def test_a_state_that_says_something_else_is_refused(tmp_path, content, message):
    fill(tmp_path, (5,))
    folder = tmp_path / "checkpoints" / "step-00000005"
    (folder / "state.json").write_text(content)
    record = {"size": len(content), "sha256": hashlib.sha256(content.encode()).hexdigest()}
    rewrite(folder / "manifest.json", lambda m: m["files"].update({"state.json": record}))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.choose(tmp_path)


def test_a_step_that_is_not_there_is_asked_for_with_those_that_are(tmp_path):
    fill(tmp_path, (5, 10))
    for which in ("7", "bset"):
        with pytest.raises(CheckpointError, match=f"no checkpoint '{which}'; there are best, newest, 5, 10"):
            checkpoint.choose(tmp_path, which)


def test_tensors_that_are_no_safetensors_are_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04 no header")
    with pytest.raises(CheckpointError, match=r"x.safetensors: not readable as safetensors"):
        read_tensors(tmp_path / "x.safetensors", {})


def test_a_run_that_is_no_folder_cannot_hold_a_checkpoint(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(DiskError, match=r"step-00000005: cannot be written: (Not a directory|File exists)"):
        fill(tmp_path / "run", (5,))


def test_a_checkpoint_that_cannot_be_removed_stays_whole(tmp_path, monkeypatch):
    fill(tmp_path, (5, 10))
    rename = Path.rename

    def refuse(path, target):
        if "gone" in str(target):
            raise PermissionError(errno.EACCES, "not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    fill(tmp_path, (15,))
    assert [checkpoint.read(tmp_path, step).step for step in (5, 10, 15)] == [5, 10, 15]


def test_leftovers_of_a_killed_save_are_swept(tmp_path):
    (tmp_path / "checkpoints" / ".tmp-00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".tmp-file").touch()
    fill(tmp_path, (5,))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_weights_of_another_model_are_refused_tensor_by_tensor(tmp_path):
    model = torch.nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    checkpoint.save(tmp_path, 1, {"weights": state, "optimizer": {}}, NEW, None)
    with pytest.raises(CheckpointError) as error:
        checkpoint.choose(tmp_path).load_into(model)
    for part in (
        "weights.safetensors: its tensors are those of another model",
        "missing bias",
        "unexpected extra",
        "weight: expected torch.float32 (2, 3), found torch.float32 (2, 4)",
    ):
        assert part in str(error.value)


def test_weights_that_are_not_finite_are_refused_by_name_and_losses_that_were_not_are_remembered(tmp_path):
    wrong = {"a": torch.tensor([0.0, torch.nan, 1.0]), "b": torch.tensor([torch.inf])}
    checkpoint.save(tmp_path, 5, {"weights": wrong, "watch": wrong}, NEW, None)
    found = checkpoint.newest(tmp_path)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: holds numbers that are not finite, in a, b"):
        found.tensors("weights", wrong)
    assert found.tensors("watch", wrong)["b"].isinf().all()


KINDS = [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, lambda p, lr: torch.optim.SGD(p, lr, 0.9)]


@pytest.mark.parametrize("kind", KINDS)
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
    checkpoint.save(tmp_path, 3, {"weights": {}, "optimizer": checkpoint.pack_optimizer(first)}, NEW, None)
    checkpoint.unpack_optimizer(second, checkpoint.choose(tmp_path))
    for net, optimiser in ((model, first), (other, second)):
        optimiser.zero_grad()
        net(x).square().sum().backward()
        optimiser.step()
    assert torch.equal(model.weight, other.weight)
