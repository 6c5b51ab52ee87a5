"""Models. One file each: a frozen `Config` beside a `Model`; the file's name is the model's name.

A new file in this folder is found, built, trained and tested as it is. A user's own model is a file anywhere that holds
`Config` and `Model`; it is code, run only when the user names it (`run_file`). `Model` below is the contract, which
`foreframe.conformance.check_model` tests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from foreframe.clip import Clip, ClipSpec
from foreframe.errors import ConfigError, UsageError, nearest
from foreframe.unrolled import Step, Unrolled

SIZE = 2**16
"""Largest whole number in a model's configuration: channels, units."""
COPY = "model.py"
"""A user's file in the folder of a run that trained its model: kept, and run only when it is named."""
LAYERS = 64
"""Largest of those whose names end in `layers`; each layer is an object, even before it has memory."""


class Model(nn.Module):
    """The contract of every model. A model keeps no memory, batch size or device in itself, and draws nothing."""

    latent_shape: tuple[int, ...]
    """Z..., the shape of one step's noise without B; (0,) for a model without a latent."""
    shares_context: bool = False
    """True: in `step`, state and noise may be those of S samples of each clip, S*B rows, samples first, while frame,
    cond and target have B (`unrolled.repeat_samples` repeats them): they are encoded once for all samples."""

    def fit_condition(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Standardise a vector condition by these of the training clips, D each. Raises ConfigError if it cannot."""
        raise ConfigError(
            f"train.standardise: {type(self).__module__} has no fit_condition(mean, std) to standardise the condition; "
            "write it, or set train.standardise to false"
        )

    def initial(self, clip: Clip, context: int) -> Any:
        """The state before the first step: tensors in tuples, first axis B, made from the first K frames alone."""
        raise NotImplementedError

    def step(
        self,
        state: Any,
        frame: Tensor,
        cond: Tensor | None,
        noise: Tensor,
        target: Tensor | None = None,
        context_left: int = -1,
    ) -> tuple[Any, Step]:
        """Frame t from frame t-1, the condition that leads into frame t, and noise (B, Z...).

        z is drawn from the posterior with `target`, the true frame t, else from the prior. `context_left` is K - t: how
        many context frames follow `frame`; negative beyond the context.
        """
        raise NotImplementedError

    def forward(
        self, clip: Clip, context: int, forcing: Tensor, noise: Tensor, free_running: frozenset[int] | None = None
    ) -> Unrolled:
        """Frames 1 .. T-1 with z from the posterior, for training.

        Args:
            clip: Frames and conditions, floats.
            context: K; the first K frames are always fed as they are.
            forcing: (B, T-1) bool; entry t-1 says whether step t is fed the true frame t-1 or the model's own.
            noise: (B, T-1, Z...).
            free_running: The steps at which some clip may be fed its own frame, known without reading `forcing` from a
                GPU; None: `unrolled.free_running_steps(forcing, context)`. For models that batch the other steps.
        """
        raise NotImplementedError


def names() -> list[str]:
    """The models on disk."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module(name: str) -> Any:
    """The module of a model's name. Raises ConfigError if there is none, with the nearest name."""
    if name not in names():
        short = name[:80]
        raise ConfigError(f"there is no model '{short}'{nearest(short, names())} (known: {', '.join(names())})")
    return importlib.import_module(f"{__name__}.{name}")


def name_of(config: Any) -> str:
    """The model's name of a configuration."""
    return type(config).__module__.rsplit(".", 1)[-1]


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A user's Python file that was run."""

    path: Path
    content: bytes
    module: Any

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


_FILES: dict[str, UserFile] = {}
"""Those run in this process, by their SHA-256."""


def run_file(path: Path) -> UserFile:
    """Run a user's Python file, which the user must have named, once. Raises UsageError if there is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: there is no such Python file ({error.strerror})") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest not in _FILES:
        module = ModuleType(f"foreframe_user_{digest[:16]}.{path.stem}")
        module.__file__ = str(path.resolve())
        sys.modules[module.__name__] = module  # where dataclasses look for the types of their fields
        exec(compile(content, str(path), "exec"), vars(module))  # noqa: S102 (the very bytes that were hashed)
        _FILES[digest] = UserFile(path.resolve(), content, module)
    return _FILES[digest]


def file_of(config: Any) -> UserFile | None:
    """The user's file that holds the model of a configuration; None for one of foreframe's own."""
    found = sys.modules[type(config).__module__]
    if found.__name__.startswith(f"{__name__}."):
        return None
    known = [file for file in _FILES.values() if file.module is found]
    path = Path(found.__file__ or "")
    return known[0] if known else UserFile(path.resolve(), path.read_bytes(), found)


def user_module(path: str, sha256: str) -> Any:
    """The module of a model in a user's file. Raises ConfigError, with hashes, unless it was run here."""
    if sha256 in _FILES:
        return _FILES[sha256].module
    others = [f"{file.path} has SHA-256 {digest}" for digest, file in _FILES.items()]
    raise ConfigError(
        f"model_file: this model is in a file of its own, {path[:200]}, with SHA-256 {sha256[:64]}; its code is run "
        f"only if you name it: --model-file FILE, the original or the run's copy {COPY}"
        + (f" (not the same file: {', '.join(others)})" if others else "")
    )


def build_on_meta(config: Any, spec: ClipSpec) -> Model:
    """The model with tensors that have a shape and no memory, in some milliseconds.

    Raises ConfigError if it cannot take such clips or numbers, or needs more memory than this machine has.
    """
    name = name_of(config)
    _check_sizes(config)
    try:
        with warnings.catch_warnings(), torch.device("meta"), _NoDraws():
            warnings.filterwarnings("error", message="Initializing zero-element tensors")
            model = instantiate(config, spec)
    except (ValueError, RuntimeError, UserWarning) as error:
        cause = str(error).partition("\n")[0]
        raise ConfigError(
            f"model: {name} cannot be built: {cause} (asked for: {config} for clips of {spec})"
        ) from error
    tensors = [*model.parameters(), *model.buffers()]
    unsaved = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    for where, part in model.named_modules():
        unsaved |= {f"{where}.{key}".lstrip(".") for key, value in vars(part).items() if isinstance(value, Tensor)}
    if unsaved:
        raise ConfigError(
            f"model: {name} keeps tensors that no checkpoint holds: {', '.join(sorted(unsaved))}; make them parameters "
            "or persistent buffers"
        )
    maps = spec.channels + (spec.cond_size if spec.cond == "image" else 0)
    numbers = maps * spec.height * spec.width + math.prod(model.latent_shape)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors) + 4 * numbers
    available = memory()
    if needed > available:
        raise ConfigError(
            f"model: {name} needs {needed:,} bytes for its weights and one frame, this machine has {available:,}: make "
            f"it smaller, or take a machine with more memory (asked for: {config} for clips of {spec})"
        )
    return model


def _check_sizes(config: Any) -> None:
    """Raises ConfigError for a size or a number of layers that cannot be, also in the configuration of a part."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _check_sizes(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            least = 0 if field.default == 0 else 1
            most = LAYERS if field.name.endswith("layers") else SIZE
            if not least <= value <= most:
                raise ConfigError(f"model.{field.name}: expected {least} to {most}, found {value}")


class _NoDraws(TorchFunctionMode):
    """Draws nothing normal: without memory there is nothing to fill, and torch would import its compiler for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "normal_":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def memory() -> int:
    """Bytes of memory of this machine; a large number where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**40


def build(config: Any, spec: ClipSpec) -> Model:
    """A model with new weights, channels last in memory, which convolutions prefer. Raises as `build_on_meta`."""
    build_on_meta(config, spec)
    untyped: Any = instantiate(config, spec)  # torch's annotations know no memory_format
    return cast(Model, untyped.to(memory_format=torch.channels_last))


def instantiate(config: Any, spec: ClipSpec) -> Model:
    """The model of a configuration that `build_on_meta` has checked, or a part of such a model."""
    kind = getattr(sys.modules[type(config).__module__], "Model", None)
    if not isinstance(kind, type) or not issubclass(kind, Model):
        raise ConfigError(
            f"model: expected beside {type(config).__name__} a class Model that inherits from foreframe.models.Model, "
            f"found {kind} in {sys.modules[type(config).__module__].__file__}"
        )
    return kind(config, spec)
