"""Named experiments: functions without arguments that return a `TrainConfig`.

Every public function of a file in this folder is one; `svg_bair_fixed` is called `svg-bair-fixed`. `foreframe presets`
shows the first line of its docstring. A user's own is `my_file.py:my_preset`; that file may define the model, too.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
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
    """The experiment of that name, or of `FILE.py:FUNCTION`.

    Raises UsageError if there is none, with the nearest name, or the function returns something else.
    """
    if ".py:" in name:
        file, function = name.rsplit(":", 1)
        config = _from_file(Path(file), function)()
        if not isinstance(config, TrainConfig):
            raise UsageError(
                f"{name}: expected a function that returns a TrainConfig, it returned {type(config).__name__}"
            )
        return config
    known = presets()
    if name not in known:
        raise UsageError(f"there is no preset '{name}'{nearest(name, known)} (known: {', '.join(known)})")
    return known[name]()


def functions_of(path: Path) -> list[tuple[str, Callable[[], Any]]]:
    """The public functions of a user's Python file, which is run. Raises UsageError if there is no such file."""
    return public_functions(models.run_file(path).module)


def public_functions(module: Any) -> list[tuple[str, Callable[[], Any]]]:
    """Functions that a module defines itself, by name, but for those that begin with an underscore."""
    return [
        (name, function)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]


def _from_file(path: Path, function: str) -> Preset:
    known = dict(functions_of(path))
    if function not in known:
        raise UsageError(
            f"{path}: no preset '{function}'{nearest(function, known)} (it has: {', '.join(known) or 'none'})"
        )
    return known[function]
