"""What several verbs share: the words of their flags, and opening a run beside clips."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foreframe import signals
from foreframe.errors import UsageError

if TYPE_CHECKING:
    import torch

    from foreframe.checkpoint import TrainedModel

Mode = Literal["prediction", "one-step", "reconstruction", "teacher-forced"]
Device = Literal["auto", "cpu", "cuda"]


def import_torch() -> None:
    """Import it in one piece: torn apart by a signal, it makes the process crash at its end."""
    with signals.defer_signals():
        importlib.import_module("torch")
    signals.poll()


def open_run(
    run: Path, data: str | None, checkpoint: str, device: Device, threads: int | None, clips: bool = True
) -> tuple[torch.device, TrainedModel, Any]:
    """The device, the model of a run, and the clips asked for."""
    from foreframe.checkpoint import load_run
    from foreframe.data.open import open_clips
    from foreframe.data.pack.pack import Pack
    from foreframe.device import choose_device

    chosen = choose_device(device, threads)
    trained = load_run(run, checkpoint, chosen)
    if not clips:
        return chosen, trained, None
    pack = Pack.open(trained.config.data.path) if data is None else open_clips(data, progress=True)
    known, given = trained.config.cond_names, pack.cond_names
    if pack.spec == trained.config.spec and known != given:
        note = f"note: the conditions are called {', '.join(given)}; in training they were {', '.join(known)}"
        print(note, file=sys.stderr)
    return chosen, trained, pack


def at_least(**values: tuple[int, int]) -> None:
    """Raises UsageError where the value of a flag, (value, least), is too small."""
    for name, (value, least) in values.items():
        if value < least:
            raise UsageError(f"--{name}: expected {least} or more, found {value}")


def known_metrics(metrics: tuple[str, ...]) -> None:
    """Raises UsageError for a name that is no metric of single frames."""
    from foreframe.errors import nearest
    from foreframe.metrics import METRICS

    for name in metrics:
        if name == "fvd":
            raise UsageError("fvd is no metric of single frames: --fvd-weights FILE asks for it, beside --metrics")
        if name not in METRICS:
            raise UsageError(f"there is no metric '{name}'{nearest(name, METRICS)} (known: {', '.join(METRICS)})")
