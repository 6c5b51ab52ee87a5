"""A run on disk: checkpoints that are whole or not there, and never run code when read.

`RUN/checkpoints/step-00001234/` holds `weights`, `optimizer`, `watch` and (with averaging) `ema` as safetensors,
`state.json`, and `manifest.json` with the size and SHA-256 of each. The folder is built under a temporary name, flushed
to the disk and renamed. The newest checkpoint is the highest step whose manifest verifies; nothing depends on clocks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreframe import config as settings
from foreframe import disk, models
from foreframe.errors import CheckpointError, ConfigError, DiskError
from foreframe.models import Model
from foreframe.recipe import RunConfig
from foreframe.tensors import read_tensors, tensor_bytes

FORMAT = 2
MANIFEST, STATE = "manifest.json", "state.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest and `state.json` are whole. hashes: SHA-256 of each file. whole: all of them were
    compared when it was opened; else `tensors` compares the one that it reads."""

    path: Path
    step: int
    state: dict[str, Any]
    hashes: dict[str, str]
    whole: bool

    def tensors(self, name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `weights`, `ema`, `optimizer` or `watch`, on the CPU; see `read_tensors`. Raises
        CheckpointError: also for a damaged file, and for numbers that are not finite."""
        file = self.path / f"{name}.safetensors"
        if not self.whole:
            _check_hash(file, self.hashes.get(file.name))
        found = read_tensors(file, expected)
        bad = [key for key, value in found.items() if not value.isfinite().all()]
        if bad and name != "watch":  # which remembers losses as they were
            listed = ", ".join(sorted(bad)[:20])
            raise CheckpointError(f"{file}: holds numbers that are not finite, in {listed}")
        return found

    @property
    def scored(self) -> str:
        """The weights that are scored and used: the average where there is one."""
        return "ema" if "ema.safetensors" in self.hashes else "weights"

    @property
    def validation_pending(self) -> bool:
        """Whether the validation of this step was interrupted. Older checkpoints call it `owes_validation`."""
        return self.state.get("validation_pending", self.state.get("owes_validation")) is True

    @property
    def best(self) -> dict[str, Any]:
        """step, psnr, split and horizon of the best validation so far; empty before the first."""
        found: dict[str, Any] = self.state["best"]
        return found

    def load_into(self, model: nn.Module, name: str | None = None) -> None:
        """Put weights into a model built for the same configuration; see `tensors`."""
        model.load_state_dict(self.tensors(name or self.scored, model.state_dict()))


@dataclass(frozen=True)
class Provenance:
    """Which weights were used: of which run, and at which step."""

    run: str
    preset: str
    model: str
    step: int
    weights: str
    weights_sha256: str
    chosen_on_split: str | None
    """The split by whose score this step was chosen; None where it was not."""


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for use: in eval mode on its device, with the run and the checkpoint it came from."""

    run: Path
    config: RunConfig
    checkpoint: Checkpoint
    model: Model

    @property
    def provenance(self) -> Provenance:
        best = self.checkpoint.best
        return Provenance(
            run=self.run.name,
            preset=self.config.preset,
            model=self.config.model,
            step=self.checkpoint.step,
            weights=self.checkpoint.scored,
            weights_sha256=self.checkpoint.hashes[f"{self.checkpoint.scored}.safetensors"],
            chosen_on_split=best.get("split") if best.get("step") == self.checkpoint.step else None,
        )


def load_run(run: Path, which: str, device: torch.device, model_file: Path | None = None) -> TrainedModel:
    """The model of a run's checkpoint (`best`, `newest` or a step), with averaged weights where there are some.

    model_file: the Python file, which is run, of a model that is none of foreframe's. Raises CheckpointError or
    ConfigError: the folder is no run, or a file in it, which is named, is damaged.
    """
    if model_file is not None:
        models.run_file(model_file)
    config, model = RunConfig.read_with_model(run)
    chosen = choose(run, which)
    return TrainedModel(run, config, chosen, fill(model, chosen.tensors(chosen.scored, model.state_dict()), device))


def fill(model: Model, weights: Mapping[str, Tensor], device: torch.device) -> Model:
    """The model of `models.build_on_meta` with these weights in eval mode, in the memory layout of `models.build`."""
    model.load_state_dict(weights, assign=True)
    untyped: Any = model  # torch's annotations know no memory_format
    filled: Model = untyped.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    return filled


def save(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], best_step: int | None
) -> Path:
    """Write the checkpoint of `step` and remove others, but for the two newest before it and the best.

    tensors: weights, optimizer, watch, and ema where there is one. state: JSON values; `step` is added. Raises
    DiskError: the disk refused; older checkpoints are untouched.
    """
    final = _folder(run, step)
    try:
        with disk.new_folder(final) as draft:
            contents = ((f"{name}.safetensors", tensor_bytes(group)) for name, group in tensors.items())
            files: dict[str, dict[str, Any]] = {}
            for name, content in chain(contents, [(STATE, _json({**state, "step": step}))]):
                files[name] = {"size": len(content), "sha256": disk.write(draft / name, content)}
            disk.write(draft / MANIFEST, _manifest({"format": FORMAT, "step": step, "files": files}))
    except OSError as error:
        refused = disk.refused(final, error, size(tensors))
        raise DiskError(f"{refused}; earlier checkpoints are untouched") from error
    steps = _steps(run)
    kept = [known for known in steps if known <= step][-KEEP:]
    for old in steps:
        # A checkpoint beyond this step was damaged, or this step would not have been taken again.
        if old not in (*kept, best_step):
            _remove(run, old)
    disk.sweep(final.parent)
    return final


def size(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Bytes that a checkpoint of these takes, but for some kilobytes of names."""
    return sum(value.numel() * value.element_size() for group in tensors.values() for value in group.values())


def recover(run: Path) -> None:
    """Bring `checkpoints` in order after a writer that was killed; only for who holds the run's lock."""
    disk.recover(run / "checkpoints")


def newest(run: Path, say: Callable[[str], None] | None = None) -> Checkpoint | None:
    """The newest whole checkpoint, or None if the run has none at all. A damaged one is named through `say`. Raises
    CheckpointError: there are checkpoints, and none is whole."""
    problems = []
    for step in reversed(_steps(run)):
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

    Its tensors are compared with their hashes when they are read. Raises CheckpointError: there is none, or it is
    damaged, which is not passed over, as by `newest`: a score must not silently be another one's.
    """
    steps = _steps(run)
    if not steps:
        raise CheckpointError(f"{run}: no checkpoint yet (looked for checkpoints/step-*); train first")
    last = read(run, steps[-1], whole=False)
    if which == "newest":
        return last
    if which == "best":
        return read(run, last.best["step"], whole=False) if last.best.get("step") in steps else last
    if not which.isdigit() or int(which) not in steps:
        raise CheckpointError(f"{run}: no checkpoint '{which}'; there are best, newest, {', '.join(map(str, steps))}")
    return read(run, int(which), whole=False)


def read(run: Path, step: int, whole: bool = True) -> Checkpoint:
    """The checkpoint of one step; not `whole`: without hashing the files of tensors, which `tensors` then does. Raises
    CheckpointError: a file is missing, of another size or of another hash; the message names it and both."""
    path = _folder(run, step)
    manifest = _read_json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / MANIFEST}: expected format {FORMAT}, found {_brief(manifest.get('format'))}; made by another "
            "version of foreframe?"
        )
    files = manifest.get("files")
    given = manifest.pop("sha256", None)
    if _manifest(manifest) != (path / MANIFEST).read_bytes():
        found = hashlib.sha256(_json(manifest)).hexdigest()
        raise CheckpointError(f"{path / MANIFEST}: damaged: expected SHA-256 {_brief(given)}, found {found}")
    if manifest.get("step") != step or not isinstance(files, dict):
        raise CheckpointError(f"{path / MANIFEST}: not the manifest of step {step}")
    for needed in ("weights.safetensors", STATE):
        if needed not in files:
            raise CheckpointError(f"{path / MANIFEST}: {needed} is not listed in it")
    for name, expected in files.items():
        file = path / name
        if Path(name).name != name or not isinstance(expected, dict) or not file.is_file():
            raise CheckpointError(f"{file}: listed in the manifest, but not there")
        size = file.stat().st_size
        if size != expected.get("size"):
            raise CheckpointError(f"{file}: damaged: expected {_brief(expected.get('size'))} bytes, found {size}")
        if whole or name == STATE:
            _check_hash(file, expected.get("sha256"))
    state = _read_json(path / STATE)
    best = state.get("best")
    if state.get("step") != step or not isinstance(best, dict) or not _is_best(best):
        raise CheckpointError(f"{path / STATE}: not the state of step {step}")
    return Checkpoint(path, step, state, {name: record.get("sha256") for name, record in files.items()}, whole)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as named tensors, `INDEX.NAME`; its settings follow from the configuration."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, found: Checkpoint) -> None:
    """The reverse of `pack_optimizer`. Raises CheckpointError: the moments are not those of these parameters.

    Moments are laid out in memory as their parameters are: a fused update goes through both in the order of memory.
    """
    group = optimizer.param_groups[0]
    names = ["exp_avg", "exp_avg_sq", "step"] if "betas" in group else ["momentum_buffer"] if group["momentum"] else []
    expected = {
        f"{index}.{name}": torch.zeros(()) if name == "step" else parameter
        for index, parameter in enumerate(group["params"])
        for name in names
    }
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in found.tensors("optimizer", expected).items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def _brief(value: object) -> str:
    """A file's value in a message: as much of it as a hash is long."""
    return str(value)[:64]


def _is_best(best: dict[str, Any]) -> bool:
    kinds: dict[str, Any] = {"step": int, "psnr": (int, float), "split": str, "horizon": int}
    return set(best) <= set(kinds) and all(isinstance(value, kinds[name]) for name, value in best.items())


def _manifest(values: Mapping[str, Any]) -> bytes:
    """A manifest with a hash of itself: no byte of it can change unseen."""
    return _json({**values, "sha256": hashlib.sha256(_json(values)).hexdigest()})


def _remove(run: Path, step: int) -> None:
    """Remove a checkpoint at one stroke, so that no half of it ever has its name."""
    folder = _folder(run, step)
    aside = folder.with_name(f"{disk.TEMPORARY}gone-{step:08d}")
    try:
        folder.rename(aside)
    except OSError:  # it stays, whole; the next save tries again
        return
    shutil.rmtree(aside, ignore_errors=True)


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _steps(run: Path) -> list[int]:
    names = [path.name.removeprefix("step-") for path in (run / "checkpoints").glob("step-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and f"{int(name):08d}" == name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = settings.read_json(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _check_hash(path: Path, expected: object) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if found != expected:
        raise CheckpointError(f"{path}: damaged: expected SHA-256 {_brief(expected)}, found {found}")
