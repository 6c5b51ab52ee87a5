"""Frozen dataclasses to JSON and strictly back: nothing is executed, nothing misspelt is ignored."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import reprlib
import stat
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from foreframe.errors import ConfigError, nearest

T = TypeVar("T")
LIMIT = 4 * 2**20
"""Bytes of a JSON file, unless another limit is given: enough for a condition of some 20,000 numbers."""
BYTES_A_VALUE = 20
"""In a file as large as may be, each value has so many bytes: short ones take forty times as much memory as there."""
DEPTH = 32
"""Lists and objects inside one another."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What would move the cursor of a terminal that shows it."""


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
        raise ConfigError(f"{where or cls.__name__}: expected a group of settings, found {shown(values)}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            known, short = ", ".join(fields), str(key)[:80]
            path = f"{where}.{short}" if where else short
            raise ConfigError(f"unknown setting '{path}'{nearest(short, fields)} (known here: {known})")
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


def to_json(config: Any) -> str:
    """A configuration as the text of a JSON file.

    Raises:
        ConfigError: `read_json` would refuse it, as it does a path that is not text.
    """
    text = json.dumps(to_dict(config), indent=2) + "\n"
    try:
        loads(text.encode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{type(config).__name__}: what was written could not be read again: {error}") from error
    return text


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The content of a JSON file no larger than `limit` bytes, which must be a plain file.

    Refused as well: a key given twice, NaN and numbers beyond a float or 64 bits, text that is not UTF-8 or holds
    signs that steer a terminal, and more values, or deeper ones, than a configuration has.

    Raises:
        ConfigError: the file is missing or one of these; the message names it.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{path}: expected a file, found a folder, a pipe or a device")
        if facts.st_size > limit:
            raise ConfigError(f"{path}: {facts.st_size} bytes, expected at most {limit}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        return loads(content, limit)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from error


def loads(content: bytes, limit: int = LIMIT) -> Any:
    """JSON from its bytes, as `read_json` takes it. Raises ValueError, or RecursionError where it is far too deep."""
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    values = sum(map(content.count, (b"{", b"[", b",")))
    if values > limit // BYTES_A_VALUE:
        raise ValueError(f"{values} values, expected at most {limit // BYTES_A_VALUE}")
    value = json.loads(
        content.decode(),
        object_pairs_hook=_unique,
        parse_int=_integer,
        parse_float=_finite,
        parse_constant=_refuse_constant,
    )
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode()  # half of a surrogate pair is no text
                if _CONTROL.search(item):
                    raise ValueError(f"a control character in {shown(item)}")
        level, depth = below, depth + 1
        if depth > DEPTH:
            raise ValueError(f"lists and objects more than {DEPTH} deep")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} is given twice")
        found[key] = value
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"{text[:30]} does not fit into 64 bits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:30]} is larger than any number")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def shown(value: object) -> str:
    """A value as in Python, its middle left out where it is long."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = 8


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
            close = nearest(str(value)[:80], map(str, arguments))
            raise ConfigError(f"{path}: expected one of {expected}, found {shown(value)}{close}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [choice for choice in arguments if choice is not type(None)]
        return _read(inner, value, path, kinds)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: expected a list, found {shown(value)}")
        endless = len(arguments) == 2 and arguments[1] is Ellipsis
        if not endless and len(value) != len(arguments):
            raise ConfigError(f"{path}: expected {len(arguments)} values, found {len(value)}")
        hints = [arguments[0]] * len(value) if endless else list(arguments)
        return tuple(
            _read(inner, part, f"{path}[{i}]", kinds) for i, (inner, part) in enumerate(zip(hints, value, strict=True))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path}: expected {hint.__name__}, found {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: expected a finite number, found {shown(value)}")
    return value
