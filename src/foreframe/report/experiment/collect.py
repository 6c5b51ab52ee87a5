"""The results of one run for a report: scores, diagnosis, moving clips; made once and kept beside the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foreframe import __version__, checkpoint, config, diagnose, disk, evaluation
from foreframe.checkpoint import Provenance, TrainedModel
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.errors import CheckpointError, ConfigError, DiskError, ForeframeError, UsageError
from foreframe.evaluation import Protocol, Result
from foreframe.log import Bar, read_log
from foreframe.recipe import RunConfig
from foreframe.report.experiment.panels import Panel, draw_panels

FORMAT = 3
LIMIT = 64 * 2**20
"""Bytes of the file that keeps it, at most."""


@dataclass(frozen=True)
class Request:
    """What to collect of each run, as flags of `foreframe report`; runs that are compared share it."""

    split: str | None = None
    horizon: int = 0
    samples: int = 10
    clips: int = 0
    panels: int = 3
    seed: int = 0
    checkpoint: str = "best"
    diagnosis: bool = True
    metrics: tuple[str, ...] = ("psnr", "ssim")

    def check(self) -> None:
        """Raises UsageError for numbers that cannot be."""
        for name, least in {"samples": 1, "clips": 0, "panels": 0, "horizon": -1}.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name}: expected {least} or more, found {getattr(self, name)}")
        evaluation.check_metrics(self.metrics)


@dataclass(frozen=True)
class Findings:
    """What is measured of a run and kept beside it."""

    prediction: Result
    reconstruction: Result
    diagnosis: diagnose.Diagnosis | None
    undiagnosed: str
    """Why there is no diagnosis."""


@dataclass(frozen=True)
class RunResults(Findings):
    """Everything about one run for a report."""

    run: Path
    config: RunConfig
    log: list[dict[str, Any]]
    environment: dict[str, Any]
    """Hardware and versions of the training."""
    last_step: int
    """Of the newest checkpoint."""
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()
    """What the reader should know."""

    @property
    def name(self) -> str:
        """The run's folder, by its last name."""
        return self.run.name or str(self.run)

    @property
    def provenance(self) -> Provenance:
        """Which weights were scored."""
        assert self.prediction.model is not None
        return self.prediction.model


def collect(
    run: Path,
    request: Request,
    device: torch.device,
    pack: Pack | None = None,
    progress: bool = False,
) -> RunResults:
    """Score and diagnose a run, and draw its panels; or read what was kept of that in RUN/eval/report.

    It is used again only if weights, data and request are the same and every byte is as it was written; what is
    damaged or was edited is made again, with a note.

    Args:
        pack: Clips to score on; by default those of the run.
        progress: Show a bar where something is made.
    Raises:
        CheckpointError: there is no checkpoint yet, or the run is still being trained.
        DataError: the clips are not of the kind the run was trained on, or too short.
        DiskError: what was made cannot be kept.
    """
    _refuse_while_training(run)
    trained, pack, request = _open(run, request, device, pack)
    identity = {
        "format": FORMAT,
        "foreframe": __version__,
        "weights_sha256": trained.provenance.weights_sha256,
        "data_sha256": pack.hash,
        "request": json.loads(json.dumps(asdict(request))),
    }
    folder = run / "eval" / "report"
    notes: list[str] = []
    made = _kept(folder, identity, notes)
    if made is None:
        made = _make(trained, pack, request, device, progress)
        _keep(folder, identity, *made)
    findings, panels = made
    last = checkpoint.choose(run, "newest")
    environment = dict(last.state.get("environment") or {})
    return RunResults(
        **vars(findings),
        run=run,
        config=trained.config,
        log=read_log(run),
        environment=environment,
        last_step=last.step,
        panels=panels,
        notes=tuple(notes),
    )


def _open(run: Path, request: Request, device: torch.device, pack: Pack | None) -> tuple[TrainedModel, Pack, Request]:
    """The model, its clips, and the request with what it leaves to run and pack filled in."""
    request.check()
    trained = checkpoint.load_run(run, request.checkpoint, device)
    pack = pack or Pack.open(trained.config.data.path)
    evaluation.check_spec(trained, pack)
    split, horizon = evaluation.resolve(trained.config, pack, request.split, request.horizon)
    return trained, pack, replace(request, split=split, horizon=horizon)


def _refuse_while_training(run: Path) -> None:
    lock = disk.Lock(run / ".lock")
    if not lock.path.exists():
        return
    holder = lock.take()
    lock.release()
    if holder:
        raise CheckpointError(f"{run}: still being trained ({holder}); wait for its end or stop it, then report on it")


def _make(
    trained: TrainedModel, pack: Pack, request: Request, device: torch.device, progress: bool
) -> tuple[Findings, tuple[Panel, ...]]:
    protocol = _protocol(trained, request)
    windows = Windows(pack, protocol.split, protocol.context + protocol.horizon, "first")
    rollouts = len(evaluation.evenly_spaced(len(windows), request.clips)) * (request.samples + 1)
    if request.diagnosis:
        rollouts += diagnose.total(trained, pack, protocol, device)
    with Bar(f"scoring {trained.run.name}", rollouts) if progress else nullcontext() as bar:
        advance = None if bar is None else bar.done
        prediction = evaluation.evaluate_run(trained, pack, protocol, device, advance)
        once = replace(protocol, mode="reconstruction", samples=1, temperature=0.0)
        reconstruction = evaluation.evaluate_run(trained, pack, once, device, advance)
        diagnosis, why_not = None, "it was not asked for"
        if request.diagnosis:
            diagnosis, why_not = _diagnose(trained, pack, protocol, device, advance)
    findings = Findings(prediction, reconstruction, diagnosis, why_not)
    return findings, tuple(draw_panels(trained, pack, prediction.protocol, request.panels, device))


def _diagnose(
    trained: TrainedModel,
    pack: Pack,
    protocol: Protocol,
    device: torch.device,
    advance: Callable[[int], None] | None,
) -> tuple[diagnose.Diagnosis | None, str]:
    """The diagnosis, or None and why there is none: a run that cannot be diagnosed still has scores."""
    try:
        return diagnose.diagnose(trained, pack, protocol, device, advance), ""
    except DiskError:
        raise
    except ForeframeError as error:
        return None, str(error)


def _protocol(trained: TrainedModel, request: Request) -> Protocol:
    """Of predictions as `_open` left the request."""
    assert request.split is not None
    return Protocol(
        request.split,
        trained.config.train.context,
        request.horizon,
        samples=request.samples,
        seed=request.seed,
        clips=request.clips,
        metrics=request.metrics,
    )


def _keep(folder: Path, identity: dict[str, Any], findings: Findings, panels: tuple[Panel, ...]) -> None:
    pictures = {f"panel-{number}.gif": panel.gif for number, panel in enumerate(panels)}
    listed = [
        {**config.to_dict(panel), "gif": name, "sha256": _sha256(panel.gif)}
        for name, panel in zip(pictures, panels, strict=True)
    ]
    content = {"identity": identity, **config.to_dict(findings), "panels": listed}
    text = json.dumps({**content, "sha256": _sha256(_canonical(content))}, indent=1, allow_nan=False) + "\n"
    files = {folder / name: gif for name, gif in pictures.items()} | {folder / "gathered.json": text.encode()}
    disk.put_all(files, [path for path in folder.glob("panel-*.gif") if path not in files])


def _kept(folder: Path, identity: dict[str, Any], notes: list[str]) -> tuple[Findings, tuple[Panel, ...]] | None:
    """The stored findings, if they have this identity and are whole; a note where they are not whole."""
    path = folder / "gathered.json"
    if not path.exists():
        return None
    try:
        content = config.read_json(path, LIMIT)
        given = content.pop("sha256", None) if isinstance(content, dict) else None
        if not isinstance(content, dict) or given != _sha256(_canonical(content)):
            raise ConfigError(f"{path}: changed since it was written")
        if content.pop("identity") != identity:
            return None
        panels = []
        for panel in content.pop("panels"):
            name, expected = panel.pop("gif"), panel.pop("sha256")
            gif = (folder / name).read_bytes()
            if _sha256(gif) != expected:
                raise ConfigError(f"{folder / name}: changed since it was written")
            panels.append(Panel(**panel, gif=gif))
        return config.from_dict(Findings, content), tuple(panels)
    except ConfigError as error:
        notes.append(f"{error}; made again")
    except OSError as error:
        notes.append(f"{error.filename}: cannot be read: {error.strerror}; made again")
    return None


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
