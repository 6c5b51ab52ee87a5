"""Frozen dataclasses to JSON and strictly back: nothing is executed, nothing misspelt is ignored."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from foreframe.errors import ConfigError, nearest

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values; tuples become lists, paths text."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(cls: type[T], values: object, where: str = "", kinds: dict[str, type] | None = None) -> T:
    """Read a configuration of class `cls`; keys left out take their defaults.

    `kinds` gives the class at a dotted path whose annotation leaves it open.

    Raises:
        ConfigError: an unknown key (with its dotted path and the nearest name), a missing one without a
            default, or a value of another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or cls.__name__}: expected a group of settings, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            known = ", ".join(fields)
            raise ConfigError(f"unknown setting '{path}'{nearest(str(key), fields)} (known here: {known})")
        arguments[key] = _read((kinds or {}).get(path, hints[key]), value, path, kinds)
    for name, field in fields.items():
        if (
            name not in arguments
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            raise ConfigError(f"missing setting '{where + '.' if where else ''}{name}' of {cls.__name__}")
    return cls(**arguments)


def flatten(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names, for listing differences."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        flat.update(flatten(value, path) if isinstance(value, dict) else {path: value})
    return flat


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """One line for each setting in which two nested groups differ: `name: a -> b`."""
    left, right = flatten(a), flatten(b)
    names = [*left, *(name for name in right if name not in left)]
    return [
        f"{name}: {left.get(name, '(absent)')!r} -> {right.get(name, '(absent)')!r}"
        for name in names
        if left.get(name, "(absent)") != right.get(name, "(absent)")
    ]


def read_json(path: Path, limit: int = 64 * 2**20) -> Any:
    """The content of a JSON file no larger than `limit` bytes; NaN and infinity are refused as JSON does.

    Raises:
        ConfigError: the file is missing, too large or not JSON; the message names it.
    """
    try:
        if path.stat().st_size > limit:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes, expected at most {limit}")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _read(hint: Any, value: Any, path: str, kinds: dict[str, type] | None = None) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    group: Any = origin if dataclasses.is_dataclass(origin) else hint
    if dataclasses.is_dataclass(group):
        return from_dict(group, value, path, kinds)  # type: ignore[arg-type]
    if origin is typing.Literal:
        if value not in arguments:
            expected = ", ".join(repr(choice) for choice in arguments)
            raise ConfigError(
                f"{path}: expected one of {expected}, found {value!r}{nearest(str(value), map(str, arguments))}"
            )
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [choice for choice in arguments if choice is not type(None)]
        return _read(inner, value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: expected a list, found {value!r}")
        endless = len(arguments) == 2 and arguments[1] is Ellipsis
        if not endless and len(value) != len(arguments):
            raise ConfigError(f"{path}: expected {len(arguments)} values, found {len(value)}")
        hints = [arguments[0]] * len(value) if endless else list(arguments)
        return tuple(
            _read(inner, part, f"{path}[{i}]") for i, (inner, part) in enumerate(zip(hints, value, strict=True))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path}: expected {hint.__name__}, found {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: expected a finite number, found {value!r}")
    return value
