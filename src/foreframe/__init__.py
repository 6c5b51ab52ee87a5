"""foreframe learns to predict video from what is about to be done.

    foreframe.train(preset, data, run)      foreframe.load(run)      foreframe.evaluate(run)

Importing it is cheap: torch is imported when one of these is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreframe.api import evaluate as evaluate
    from foreframe.api import load as load
    from foreframe.api import train as train
    from foreframe.conformance import check_model as check_model
    from foreframe.data.ingest.conformance import check_layout as check_layout
    from foreframe.evaluation import Result as Result
    from foreframe.predictor import Predictor as Predictor
    from foreframe.predictor import Rollout as Rollout
    from foreframe.predictor import State as State

__version__ = "0.1.0"
_PLACES = {
    "load": "api",
    "train": "api",
    "evaluate": "api",
    "check_model": "conformance",
    "check_layout": "data.ingest.conformance",
    "Result": "evaluation",
    "Predictor": "predictor",
    "Rollout": "predictor",
    "State": "predictor",
}
"""The module of each name that is imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'foreframe' has no attribute {name!r}; it has {', '.join(_PLACES)}")
    found = getattr(importlib.import_module(f"foreframe.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
