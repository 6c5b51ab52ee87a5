"""Grids of experiments: a comparison is one command that can be stopped at any time, and results in a page.

A grid is a function without arguments that returns its variants, `TrainConfig`s by name; each is trained once for every
seed. Those of the labs are in `labs.py`; a user's own are named `my_file.py` or `my_file.py:my_grid`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foreframe import presets
from foreframe.errors import UsageError
from foreframe.recipe import TrainConfig
from foreframe.sweep import labs

Variants = dict[str, TrainConfig[Any]]


@dataclass(frozen=True)
class Grid:
    """A named comparison. question: the first line of its docstring."""

    name: str
    question: str
    variants: Variants


def grids() -> dict[str, Callable[[], Variants]]:
    """Every named grid; `seed_a_kl` is called `seed-a-kl`."""
    return {name.replace("_", "-"): function for name, function in presets.public_functions(labs)}


def find(name: str) -> Grid:
    """The grid of that name, in the words of `presets.choose`; raises UsageError also if it is none."""
    wanted, function = presets.choose(name, "grid", grids())
    variants = function()
    if not isinstance(variants, dict) or not variants or not all(_is_variant(*item) for item in variants.items()):
        raise UsageError(
            f"{name}: expected a function that returns a TrainConfig for each name of a variant (letters, digits, "
            f"'.', '-', '_'), it returned {variants!r:.80}"
        )
    text = (inspect.getdoc(function) or wanted).split("\n")[0]
    return Grid(wanted, text, variants)


def _is_variant(name: object, config: object) -> bool:
    plain = isinstance(name, str) and re.fullmatch(r"[^\W_][\w.-]{0,59}", name)
    return bool(plain) and isinstance(config, TrainConfig)
