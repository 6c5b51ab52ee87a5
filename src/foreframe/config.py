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
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from foreframe.errors import ConfigError, nearest

T = TypeVar("T")
LIMIT = 4 * 2**20
"""Bytes of a JSON file, unless another limit is given: enough for a condition of some 20,000 numbers."""
MEMORY = 60 * 2**20
"""Bytes of memory that reading any JSON may take, with its text: short values take forty times as much as there."""
DEPTH = 32
"""Lists and objects inside one another."""
_PRICES = {b"{": 200, b"[": 96, b":": 100, b",": 32, b'"': 16}
"""Bytes of memory for each such sign: what CPython takes at most for an object, a list, a key's places in its object
and among the keys known, a value's place and its number, half of a text's head."""
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))
_WIDEST = re.compile(rb"[\xf0-\xff]")
_BLOCK = 2**16
_BACKSLASHES = re.compile(rb"\\+")
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
    signs that steer a terminal, and what `parse` refuses.

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


class TooLargeError(ValueError):
    """JSON that would take more memory than it may."""


def loads(content: bytes, limit: int = LIMIT) -> Any:
    """JSON from its bytes, as `read_json` takes it. Raises ValueError, or RecursionError where it is too deep."""
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    value = parse(content, _unique, _refuse_constant, _integer, _finite)
    inside = [iter((value,))]
    while inside:
        for item in inside[-1]:
            if isinstance(item, str):
                item.encode()  # half of a surrogate pair is no text
                if _CONTROL.search(item):
                    raise ValueError(f"a control character in {shown(item)}")
            elif isinstance(item, dict | list):
                inside += [iter(item)] if isinstance(item, list) else [iter(item.values()), iter(item)]
                break
        else:
            inside.pop()
    return value


def parse(
    content: bytes,
    pairs: Callable[[list[tuple[str, Any]]], Any] = dict,
    constant: Callable[[str], Any] = float,
    integer: Callable[[str], Any] = int,
    number: Callable[[str], Any] = float,
) -> Any:
    """JSON from its bytes, after a look at what its values may take: the one way in for any JSON that others wrote.

    Args:
        pairs, constant, integer, number: What makes an object of its pairs, takes NaN and Infinity, and reads numbers.
    Raises:
        TooLargeError: reading it may take more than `MEMORY`, `content` included.
        RecursionError: lists and objects are more than `DEPTH` deep.
        ValueError: it is no JSON in UTF-8.
    """
    _weigh(content)
    return json.loads(
        content.decode(), object_pairs_hook=pairs, parse_constant=constant, parse_int=integer, parse_float=number
    )


def _weigh(content: bytes) -> None:
    """Count the signs outside of texts, a block at a time, before any object is made of them.

    What stands after the first fault may be counted wrongly; nothing is made of it either.
    """
    # One sign that is wide makes all of a text as wide, in the whole and in its part.
    wide = 1 if content.isascii() else (4 if _WIDEST.search(content) else 2)
    copied = 4 if b"\\u" in content else wide
    weight = len(content) * (1 + wide + copied * (2 if b"\\" in content else 1))
    at = depth = 0
    inside = False
    while True:
        if weight > MEMORY:
            raise TooLargeError(f"values that would take more than {MEMORY >> 20} MiB of memory")
        if at >= len(content):
            return
        end = at + _BLOCK
        if run := _BACKSLASHES.match(content, end - 1):  # a block ends with no escape begun
            end = run.end() + 1
        parts = content[at:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        signs = b"".join(parts[inside::2])
        weight += sum(price * signs.count(sign) for sign, price in _PRICES.items())
        weight += _PRICES[b'"'] * (len(parts) - 1)
        levels = list(accumulate(map(_STEPS.__getitem__, signs.translate(None, _NO_BRACKETS)), initial=depth))
        if max(levels) > DEPTH:
            raise RecursionError(f"lists and objects more than {DEPTH} deep")
        at, depth, inside = end, levels[-1], inside != (len(parts) % 2 == 0)


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
