"""Exported files in the place of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreframe import config
from foreframe.clip import Clip
from foreframe.errors import CheckpointError
from foreframe.models import Model
from foreframe.onnx.graphs import Graph
from foreframe.onnx.proto import NEXT, package
from foreframe.unrolled import Step

COMPANIONS: tuple[Graph, ...] = ("start", "context")
"""The files beside that of `step`, where a model has a state."""


class OnnxModel(Model):
    """Exported files with the interface of a model: `rollout`, `predict` and `evaluate` take it as it is.

    Modes `prediction` and `one-step` only: the files draw z from the posterior for context frames alone. A state is a
    tuple of tensors; distributions are not returned.

    Args:
        path: The file of `step`; the others are looked for beside it.
        int8: A file of `step` in int8, used instead of `path`.
        threads: For ONNX Runtime. Default: as many as torch has.
    Raises:
        UsageError: ONNX Runtime is missing.
        CheckpointError: a file is missing, unreadable, or not one of foreframe's.
    """

    def __init__(self, path: Path, int8: Path | None = None, threads: int | None = None) -> None:
        super().__init__()
        self.sessions = {"step": _session(int8 or path, threads)}
        self.notes = _notes(int8 or path, self.sessions["step"])
        self.latent_shape = tuple(self.notes["latent_shape"])
        if self.notes["state"]:
            for graph in COMPANIONS:
                self.sessions[graph] = _session(companion(path, graph), threads)
                theirs = _notes(companion(path, graph), self.sessions[graph])
                if theirs.get("weights_sha256") != self.notes.get("weights_sha256"):
                    raise CheckpointError(
                        f"{companion(path, graph)}: of other weights than {int8 or path}; export both again"
                    )
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModel:
        return self  # nothing in it changes

    def initial(self, clip: Clip, context: int) -> tuple[Tensor, ...]:
        """The state after frame 0."""
        if "start" not in self.sessions:
            return ()
        said = self._run("start", {"frame": clip.frames[:, 0], "cond": None if clip.cond is None else clip.cond[:, 0]})
        return tuple(said[NEXT + name] for name in self.notes["state"])

    def step(
        self,
        state: tuple[Tensor, ...],
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[tuple[Tensor, ...], Step]:
        """As of every model. In the context nothing is painted: there the step's frame is the target itself.

        Raises:
            ValueError: a target beyond the context.
        """
        if target is not None and context_left < 1:
            raise ValueError("exported files see true frames in the context only: use mode prediction or one-step")
        given = {"frame": frame, "target": target, "cond": cond, "noise": noise}
        given.update(zip(self.notes["state"], state, strict=True))
        said: dict[str, Tensor] = {}
        if target is None or "context" in self.sessions:
            said = self._run("step" if target is None else "context", given)
        after = tuple(said.get(NEXT + name, part) for name, part in zip(self.notes["state"], state, strict=True))
        shown = said["next.frame"] if target is None else target
        return after, Step(shown, None, None, None)

    def _run(self, graph: Graph, given: dict[str, Tensor | None]) -> dict[str, Tensor]:
        session = self.sessions[graph]
        fed = {}
        for place in session.get_inputs():
            value = given[place.name]
            if value is None:
                raise ValueError(f"{graph}: '{place.name}' is needed; this model was trained on clips that have it")
            fed[place.name] = value.detach().cpu().contiguous().numpy()
        device = next(value.device for value in given.values() if value is not None)
        names = [place.name for place in session.get_outputs()]
        return {
            name: torch.from_numpy(value).to(device) for name, value in zip(names, session.run(names, fed), strict=True)
        }


def companion(path: Path, graph: Graph) -> Path:
    """Where `start` or `context` lies beside the file of `step`."""
    return path.with_name(f"{path.stem}.{graph}.onnx")


def _session(path: Path, threads: int | None) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; `foreframe export RUN --onnx FILE` writes it")
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common base of their own
        raise CheckpointError(f"{path}: not readable as ONNX ({str(error).splitlines()[0]})") from error


def _notes(path: Path, session: Any) -> dict[str, Any]:
    """What the file says of itself, as `notes` wrote it."""
    written = session.get_modelmeta().custom_metadata_map.get("foreframe")
    if written is None:
        raise CheckpointError(f"{path}: an ONNX file, but none that `foreframe export` wrote")
    found: dict[str, Any] = config.loads(written.encode())
    return found
