"""Frozen dataclasses to JSON and strictly back, and the one reader of JSON: nothing is executed, nothing is ignored."""

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
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from foreframe.errors import ConfigError, ForeframeError, nearest

T = TypeVar("T")
Unknown = Literal["refuse", "ignore"]
LIMIT = 4 * 2**20
"""Bytes of a JSON file, unless another limit is given: enough for a condition of some 20,000 numbers."""
MEMORY = 60 * 2**20
"""Bytes of memory that reading any JSON may take, with its text: short values take up to 45 times their text."""
LARGEST = MEMORY // 3
"""Bytes of the largest file that can be read in that memory: the limit of files that list data."""
DEPTH = 32
"""Lists and objects inside one another."""
_BYTES_FOR = {b"{": 200, b"[": 96, b":": 100, b",": 32, b'"': 16}
"""Memory for each such character, as measured of CPython where it takes most."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Half a surrogate pair, and what would move the cursor of a terminal that prints it."""
_TOKEN = re.compile(
    r'"(?:[^"\\]++|\\.)*+"|(NaN|-?Infinity|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+)', re.DOTALL
)
"""A text, or (captured) a number or constant."""
_TOO_DEEP = f"lists and objects more than {DEPTH} deep"
_UNIONS = (types.UnionType, typing.Union)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class JsonProblem(ValueError):
    """Text that is not read as JSON. why: what is wrong; place: its line and column, or byte; empty if unknown."""

    def __init__(self, why: str, place: str = "") -> None:
        self.why, self.place = why, place
        super().__init__(f"{place}: {why}" if place else why)


class TooLargeError(JsonProblem):
    """JSON that would take more than `MEMORY`."""


class FieldError(ConfigError):
    """A value is not what its field takes. where: its dotted path; expected, found: in words."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        self.where, self.expected, self.found = where, expected, found
        super().__init__(f"{where}: expected {expected}, found {found}")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for `Annotated[float, Range(0, 1)]`; both are included, but for `most` if `below`."""

    least: float = -math.inf
    most: float = math.inf
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.below and value == self.most)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"{self.least:,} or more"
        return f"{self.least:,} to {'below ' * self.below}{self.most:,}"


def check_ranges(config: Any, where: str = "") -> None:
    """Raises FieldError for a number in a dataclass, or in those inside of it, beyond the `Range` of its field."""
    for name, hint in _hints(type(config)).items():  # type: ignore[arg-type]
        _check_range(hint, getattr(config, name), _join(where, name))


def _check_range(hint: Any, value: Any, path: str) -> None:
    if dataclasses.is_dataclass(value):
        check_ranges(value, path)
    elif isinstance(value, tuple):
        for i, (inner, part) in enumerate(zip(_parts(hint, len(value)), value, strict=True)):
            _check_range(inner, part, f"{path}[{i}]")
    elif value is not None:
        for choice in typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else [hint]:
            if typing.get_origin(choice) is Annotated and value not in choice.__metadata__[0]:
                raise FieldError(path, _kind(choice), shown(value))


def from_dict(
    cls: type[T],
    values: object,
    where: str = "",
    kinds: Mapping[str, type] | None = None,
    unknown: Unknown = "refuse",
) -> T:
    """Read a dataclass `cls` from JSON values; keys left out take their defaults.

    Args:
        where: Dotted path of the values.
        kinds: The class at a dotted path whose annotation leaves it open.
        unknown: What to do with keys that are not fields.
    Raises:
        ConfigError: an unknown key (with the nearest name), or what `cls` itself refuses.
        FieldError: a missing key, a value of another type or out of range.
    """
    if not isinstance(values, dict):
        raise FieldError(where or cls.__name__, "an object", shown(values))
    hints, arguments = _hints(cls), {}  # type: ignore[arg-type]
    for key, value in values.items():
        path = _join(where, key[:80])
        if key in hints:
            arguments[key] = _read(hints[key], value, path, kinds or {}, unknown)
        elif unknown == "refuse":
            raise ConfigError(f"unknown key '{path}'{nearest(key[:80], hints)} (known here: {', '.join(hints)})")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in arguments and field.default is field.default_factory is dataclasses.MISSING:
            raise FieldError(_join(where, field.name), _kind(hints[field.name]), "no such key")
    try:
        return cls(**arguments)
    except ForeframeError as error:
        raise ConfigError(_join(where, str(error))) from error


def _read(hint: Any, value: Any, path: str, kinds: Mapping[str, type], unknown: Unknown) -> Any:
    hint = kinds.get(path, hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(origin or hint):
        return from_dict(origin or hint, value, path, kinds, unknown)
    if origin in _UNIONS:
        if value is None and type(None) in arguments:
            return None
        *others, last = [choice for choice in arguments if choice is not type(None)]
        for other in others:
            with suppress(ConfigError):
                return _read(other, value, path, kinds, unknown)
        return _read(last, value, path, kinds, unknown)
    if origin is tuple:
        if not isinstance(value, list):
            raise FieldError(path, "a list", shown(value))
        hints = _parts(hint, len(value))
        if len(value) != len(hints):
            raise FieldError(path, f"{len(hints)} values", str(len(value)))
        pairs = enumerate(zip(hints, value, strict=True))
        return tuple(_read(inner, part, f"{path}[{i}]", kinds, unknown) for i, (inner, part) in pairs)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise FieldError(path, "an object", shown(value))
        inner = arguments[1]
        return {key: _read(inner, part, _join(path, key[:80]), kinds, unknown) for key, part in value.items()}
    return value if hint is Any else read_value(hint, value, path)


def read_value(hint: Any, value: Any, path: str) -> Any:
    """A number, text, true or false, or one of a few."""
    kind, limits = (hint.__origin__, hint.__metadata__[0]) if typing.get_origin(hint) is Annotated else (hint, Range())
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value in choices:
            return value
        raise FieldError(path, _kind(hint), shown(value) + nearest(str(value)[:80], map(str, choices)))
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not kind or (kind in (int, float) and not (math.isfinite(value) and value in limits)):
        raise FieldError(path, _kind(hint), shown(value))
    return value


def _kind(hint: Any) -> str:
    """What a field takes, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{_KINDS[arguments[0]]}, {arguments[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in _UNIONS:
        return _kind(arguments[0])
    return "a list" if origin is tuple else _KINDS.get(hint, "an object")


def _parts(hint: Any, count: int) -> list[Any]:
    """The types in a tuple of `count` values."""
    parts = typing.get_args(hint)
    return [parts[0]] * count if parts[-1] is Ellipsis else list(parts)


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values; tuples become lists, paths text."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return str(value) if isinstance(value, Path) else value


def to_json(config: Any) -> str:
    """A dataclass as the text of a JSON file. Raises ConfigError: `read_json` would refuse it."""
    text = json.dumps(to_dict(config), indent=2) + "\n"
    try:
        loads(text.encode())
    except JsonProblem as error:
        raise ConfigError(f"{type(config).__name__}: what was written could not be read again: {error}") from error
    return text


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The content of a plain JSON file of at most `limit` bytes; see `loads`. Raises ConfigError, which names it."""
    try:
        return loads(read_bytes(path, limit), limit)
    except JsonProblem as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """A plain file of at most `limit` bytes. Raises ConfigError: it is missing, something else, or larger."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{path}: expected a file, found a folder, a pipe or a device")
        if facts.st_size > limit:
            raise ConfigError(f"{path}: expected at most {limit} bytes, found {facts.st_size}")
        with path.open("rb") as file:
            content = file.read(facts.st_size + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > facts.st_size:
        raise ConfigError(f"{path}: it grew while it was read")
    return content


def loads(content: bytes, limit: int = LIMIT, *, finite: bool = True, control: bool = False) -> Any:
    """JSON from its bytes, in at most `MEMORY` bytes of memory.

    Args:
        finite: Off: NaN, Infinity and -Infinity are numbers.
        control: Texts may hold control characters, as the names of other people's files do.
    Raises:
        JsonProblem: more than `limit` bytes or `DEPTH` levels, a key given twice, NaN, numbers beyond a float or 64
            bits, text that is not UTF-8 or steers a terminal.
    """
    if len(content) > limit:
        raise JsonProblem(f"more than {limit} bytes")
    if memory_for(content) > MEMORY:
        raise TooLargeError(f"values that would take more than {MEMORY >> 20} MiB of memory")

    def problem(token: str, why: str) -> JsonProblem:
        at = next(match.start() for match in _TOKEN.finditer(text) if match[1] == token)
        place = f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"
        return JsonProblem(f"{token[:30]} {why}", place)

    def refuse(constant: str) -> None:
        raise problem(constant, "is not a JSON number")

    def integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
            raise problem(digits, "does not fit into 64 bits")
        return int(digits)

    def finite_number(digits: str) -> float:
        if math.isfinite(value := float(digits)):
            return value
        raise problem(digits, "is larger than any number")

    try:
        text = content.decode()
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=integer,
            parse_float=finite_number if finite else float,
            parse_constant=refuse if finite else float,
        )
    except json.JSONDecodeError as error:
        raise JsonProblem(error.msg, f"line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise JsonProblem(f"not UTF-8: 0x{content[error.start]:02x}", f"byte {error.start}") from error
    except RecursionError as error:
        raise JsonProblem(_TOO_DEEP) from error
    _check(value, _SURROGATE if control else _UNPRINTABLE, DEPTH)
    return value


def memory_for(content: bytes) -> int:
    """Bytes of memory that reading JSON takes at most. Characters inside of texts count as if they stood outside."""
    wide = 1 if content.isascii() and b"\\u" not in content else 4
    return len(content) * (1 + 2 * wide) + sum(cost * content.count(sign) for sign, cost in _BYTES_FOR.items())


def _check(value: Any, refused: re.Pattern[str], levels: int) -> None:
    """Raises JsonProblem for more than these levels of lists and objects, and for characters in a text."""
    if isinstance(value, str):
        if found := refused.search(value):
            what = "half a surrogate pair" if _SURROGATE.match(found[0]) else "a control character"
            raise JsonProblem(f"{what} in {shown(value)}")
    elif isinstance(value, dict | list):
        if not levels:
            raise JsonProblem(_TOO_DEEP)
        for part in chain(value, value.values()) if isinstance(value, dict) else value:
            _check(part, refused, levels - 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise JsonProblem(f"the key {shown(twice)} is given twice")
    return found


def shown(value: object) -> str:
    """A value as in Python, its middle left out where it is long."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = 8


def flatten(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names, for listing differences."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = _join(where, key)
        flat.update(flatten(value, path) if isinstance(value, dict) else {path: value})
    return flat


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """One line for each setting in which two nested groups differ: `name: a -> b`."""
    left, right = flatten(a), flatten(b)
    pairs = {name: (left.get(name, "(absent)"), right.get(name, "(absent)")) for name in {**left, **right}}
    return [f"{name}: {old!r} -> {new!r}" for name, (old, new) in pairs.items() if old != new]
