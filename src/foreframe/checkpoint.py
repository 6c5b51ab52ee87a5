"""A run on disk: checkpoints that are whole or not there, and never run code when read.

`RUN/checkpoints/step-00001234/` holds `weights`, `optimizer` and (with averaging) `ema` as safetensors,
`state.json`, and `manifest.json` with the size and SHA-256 of each, written last. The folder is built under
a temporary name, flushed to the disk and renamed. The newest checkpoint is the highest step whose manifest
verifies; nothing depends on clocks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foreframe import models
from foreframe.errors import CheckpointError
from foreframe.recipe import RunConfig

FORMAT = 1
MANIFEST = "manifest.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every byte was compared with its manifest."""

    path: Path
    step: int
    state: dict[str, Any]
    hashes: dict[str, str]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of `weights`, `ema` or `optimizer`, on the CPU.

        Raises:
            CheckpointError: there is no such file, or it is not readable as safetensors.
        """
        path = self.path / f"{name}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError, struct.error) as error:
            raise CheckpointError(f"{path}: not readable as safetensors ({error})") from error

    @property
    def scored(self) -> str:
        """The weights that are scored and used: the average where there is one."""
        return "ema" if "ema.safetensors" in self.hashes else "weights"

    def load_into(self, model: nn.Module, name: str | None = None) -> None:
        """Put weights into a model built for the same configuration.

        Raises:
            CheckpointError: tensors are missing, unexpected or of another shape; each one is named.
        """
        name = name or self.scored
        found, expected = self.tensors(name), model.state_dict()
        wrong = [f"missing {key}" for key in expected if key not in found]
        wrong += [f"unexpected {key}" for key in found if key not in expected]
        wrong += [
            f"{key}: expected {tuple(expected[key].shape)}, found {tuple(found[key].shape)}"
            for key in expected
            if key in found and expected[key].shape != found[key].shape
        ]
        if wrong:
            raise CheckpointError(f"{self.path}: {name} are those of another model:\n  " + "\n  ".join(wrong[:20]))
        model.load_state_dict(found)


@dataclass(frozen=True)
class TrainedModel:
    """A model ready to be used: in eval mode on its device, with where it came from."""

    run: Path
    config: RunConfig
    checkpoint: Checkpoint
    model: Any

    @property
    def provenance(self) -> dict[str, Any]:
        """Which weights these are, for the protocol of a result."""
        best = self.checkpoint.state.get("best") or {}
        return {
            "run": self.run.name,
            "preset": self.config.preset,
            "model": self.config.model,
            "step": self.checkpoint.step,
            "weights": self.checkpoint.scored,
            "weights_sha256": self.checkpoint.hashes[f"{self.checkpoint.scored}.safetensors"],
            "chosen_on_split": best.get("split") if best.get("step") == self.checkpoint.step else None,
        }


def load_run(run: Path, which: str, device: torch.device) -> TrainedModel:
    """The model of a run's checkpoint (`best`, `newest` or a step), with averaged weights where there are some.

    Raises:
        CheckpointError, ConfigError: the folder is no run, or something in it is damaged; the file is named.
    """
    config = RunConfig.read(run)
    chosen = choose(run, which)
    model = models.build(config.train.model, config.spec)
    chosen.load_into(model)
    return TrainedModel(run, config, chosen, model.to(device).eval().requires_grad_(False))


def save(
    run: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], best_step: int | None
) -> Path:
    """Write the checkpoint of `step` and remove older ones, but for the two newest and the best.

    Args:
        tensors: Named groups of tensors: weights, optimizer, and ema where there is one.
        state: JSON values; `step` is added.
        best_step: The checkpoint to keep beside the newest ones.
    Raises:
        CheckpointError: the disk refused (full, read-only, not permitted); older checkpoints are untouched.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{os.getpid()}-{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        for name, group in tensors.items():
            save_file(
                {key: value.detach().contiguous().cpu() for key, value in group.items()},
                temporary / f"{name}.safetensors",
            )
        _write_json(temporary / "state.json", {**state, "step": step})
        files = {
            path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(temporary.iterdir())
        }
        _write_json(temporary / MANIFEST, {"format": FORMAT, "step": step, "files": files})
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(run).free if run.exists() else 0
        raise CheckpointError(
            f"{final}: the checkpoint could not be written: {error.strerror or error} ({free} bytes are free); "
            "earlier checkpoints are untouched"
        ) from error
    steps = sorted(_steps(run))
    for old in steps[:-KEEP]:
        if old != best_step:
            shutil.rmtree(folder / f"step-{old:08d}", ignore_errors=True)
    return final


def newest(run: Path, say: Any = None) -> Checkpoint | None:
    """The newest whole checkpoint, or None if the run has none at all.

    A damaged one is named through `say` and the one before it is taken.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    problems = []
    for step in sorted(_steps(run), reverse=True):
        try:
            return read(run, step)
        except CheckpointError as error:
            problems.append(str(error))
            if say is not None:
                say(f"damaged, so the checkpoint before it is taken: {error}")
    if problems:
        raise CheckpointError("no checkpoint of this run is whole:\n  " + "\n  ".join(problems))
    return None


def choose(run: Path, which: str = "best") -> Checkpoint:
    """The checkpoint called `newest`, `best` (by validation; the newest if none was validated), or a step number.

    Unlike `newest`, a damaged checkpoint is not passed over: a score must not silently be another one's.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    steps = sorted(_steps(run))
    if not steps:
        raise CheckpointError(f"{run}: no checkpoint yet (looked for checkpoints/step-*); train first")
    last = read(run, steps[-1])
    if which == "newest":
        return last
    if which == "best":
        best = last.state.get("best") or {}
        return read(run, best["step"]) if best.get("step") in steps else last
    if not which.isdigit() or int(which) not in steps:
        raise CheckpointError(f"{run}: no checkpoint '{which}'; there are best, newest, {', '.join(map(str, steps))}")
    return read(run, int(which))


def read(run: Path, step: int) -> Checkpoint:
    """The checkpoint of one step, verified.

    Raises:
        CheckpointError: a file is missing, of another size or of another hash; the message names it and both.
    """
    path = run / "checkpoints" / f"step-{step:08d}"
    manifest = _read_json(path / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if manifest.get("format") != FORMAT or manifest.get("step") != step or not isinstance(files, dict):
        raise CheckpointError(f"{path / MANIFEST}: not the manifest of step {step} in format {FORMAT}")
    for name, expected in files.items():
        file = path / name
        if Path(name).name != name or not isinstance(expected, dict) or not file.is_file():
            raise CheckpointError(f"{file}: listed in the manifest, but not there")
        if file.stat().st_size != expected.get("size"):
            raise CheckpointError(f"{file}: expected {expected.get('size')} bytes, found {file.stat().st_size}")
        found = _sha256(file)
        if found != expected.get("sha256"):
            raise CheckpointError(f"{file}: damaged: expected SHA-256 {expected.get('sha256')}, found {found}")
    for needed in ("weights.safetensors", "state.json"):
        if needed not in files:
            raise CheckpointError(f"{path}: {needed} is not in the manifest")
    state = _read_json(path / "state.json")
    return Checkpoint(path, step, state, {name: record["sha256"] for name, record in files.items()})


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as named tensors, `INDEX.NAME`; its settings follow from the configuration."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `pack_optimizer`, into an optimiser of the same parameters.

    Moments are laid out in memory as their parameters are, channels last or not: a fused update goes through both in
    the order of memory, and does not look.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def _steps(run: Path) -> list[int]:
    names = [path.name.removeprefix("step-") for path in (run / "checkpoints").glob("step-*") if path.is_dir()]
    return [int(name) for name in names if name.isdigit()]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
