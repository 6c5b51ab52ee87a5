"""Named experiments: functions without arguments that return a `TrainConfig`.

Every public function of a file in this folder is one; `svg_bair_fixed` is called `svg-bair-fixed`. `foreframe presets`
shows the first line of its docstring. A user's own is `my_file.py:my_preset`; that file may define the model, too.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foreframe import models
from foreframe.errors import UsageError, nearest
from foreframe.recipe import TrainConfig

Preset = Callable[[], TrainConfig[Any]]


def presets() -> dict[str, Preset]:
    """Every named experiment, by name."""
    found: dict[str, Preset] = {}
    for item in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{item.name}")
        found.update({name.replace("_", "-"): function for name, function in public_functions(module)})
    return dict(sorted(found.items()))


def find(name: str) -> TrainConfig[Any]:
    """The experiment of that name, in the words of `choose`; raises UsageError also if it is no TrainConfig."""
    config = choose(name, "preset", presets())[1]()
    if not isinstance(config, TrainConfig):
        raise UsageError(f"{name}: expected a function that returns a TrainConfig, it returned {type(config).__name__}")
    return config


def choose(name: str, kind: str, known: Mapping[str, Callable[[], Any]]) -> tuple[str, Callable[[], Any]]:
    """The function of that name, or of `FILE.py:FUNCTION`, or of a user's `FILE.py` that has one; the file is run.

    Raises UsageError if there is none, with the nearest name.
    """
    file, wanted = "", name
    if name.endswith(".py") or ".py:" in name:
        file, _, wanted = (name, "", "") if name.endswith(".py") else name.rpartition(":")
        known = dict(public_functions(models.run_file(Path(file)).module))
        wanted = "".join(known) if not wanted and len(known) == 1 else wanted
    if wanted not in known:
        problem = f"{file}: no {kind} '{wanted}'" if file else f"there is no {kind} '{wanted}'"
        problem = problem if wanted else f"{file}: name one of its {kind}s, as in {file}:NAME"
        raise UsageError(f"{problem}{nearest(wanted, known)} (known: {', '.join(known) or 'none'})")
    return wanted, known[wanted]


def public_functions(module: Any) -> list[tuple[str, Callable[[], Any]]]:
    """Functions that a module defines itself, by name, but for those that begin with an underscore."""
    return [
        (name, function)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
