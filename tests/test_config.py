from __future__ import annotations

import io
import json
import math
import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from foreframe import config
from foreframe.errors import ConfigError, DataError

VALUES = config.MEMORY // 32


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    size: int = 3
    pair: tuple[float, float] = (0.9, 0.99)
    marks: tuple[int, ...] = ()
    limit: int | None = None
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    inners: tuple[Inner, ...] = ()


@dataclass(frozen=True)
class Open:
    part: Any
    parts: tuple[Any, ...] = ()


def test_a_configuration_reads_back_as_itself():
    given = Outer("x", 4, (0.1, 0.2), (1, 2, 3), 7, True, Inner(0.25, "b"), (Inner(1.0),))
    assert config.from_dict(Outer, config.to_dict(given)) == given


def test_a_limit_may_be_none():
    assert config.from_dict(Outer, {"name": "x", "limit": None}).limit is None
    assert config.from_dict(Outer, {"name": "x", "limit": 4}).limit == 4


def test_the_class_of_what_is_left_open_is_given_by_its_path():
    read = config.from_dict(Open, {"part": {"rate": 1.0}}, kinds={"part": Inner})
    assert read.part == Inner(1.0)


def test_an_unknown_setting_is_named_with_its_path_and_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown key 'inner\.rat'; did you mean 'rate'\?"):
        config.from_dict(Outer, {"name": "x", "inner": {"rat": 1.0}})
    with pytest.raises(ConfigError, match=r"unknown key 'siz'; did you mean 'size'\?"):
        config.from_dict(Outer, {"name": "x", "siz": 1})


def test_a_missing_setting_without_default_is_named():
    with pytest.raises(ConfigError, match="name: expected text, found no such key"):
        config.from_dict(Outer, {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "4"}, "size: expected a whole number, found '4'"),
        ({"size": True}, "size: expected a whole number, found True"),
        ({"on": 1}, "on: expected true or false, found 1"),
        ({"inner": {"kind": "c"}}, r"inner\.kind: expected one of 'a', 'b', found 'c'"),
        ({"inner": {"kind": ["a"]}}, r"inner\.kind: expected one of 'a', 'b', found \['a'\]"),
        ({"pair": [1.0]}, "pair: expected 2 values, found 1"),
        ({"pair": 1.0}, r"pair: expected a list, found 1\.0"),
        ({"marks": [1, 2.5]}, r"marks\[1\]: expected a whole number, found 2\.5"),
        ({"limit": 2.5}, r"limit: expected a whole number, found 2\.5"),
        ({"inner": 3}, "inner: expected an object, found 3"),
        ({"inners": [{}, {"kind": "c"}]}, r"inners\[1\]\.kind: expected one of"),
        ({"inner": {"rate": float("inf")}}, r"inner\.rate: expected a number, found inf"),
        ({"inner": {"rate": 10**400}}, r"inner\.rate: expected a number, found inf"),
    ],
)
def test_a_value_of_another_type_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        config.from_dict(Outer, {"name": "x", **values})


def test_whole_numbers_are_taken_where_a_float_is_expected():
    assert config.from_dict(Outer, {"name": "x", "inner": {"rate": 1}}).inner.rate == 1.0


@pytest.mark.parametrize(
    "values",
    [
        {"x" * 10**6: 1},
        {"name": "x", "size": "y" * 10**6},
        {"name": "x", "inner": {"kind": "z" * 10**6}},
        {"name": "x", "inner": [{"a": [0] * 1000}] * 1000},
        "v" * 10**6,
    ],
)
def test_a_message_stays_short_however_long_what_it_tells_of(values):
    with pytest.raises(ConfigError) as caught:
        config.from_dict(Outer, values)
    assert len(str(caught.value)) < 1000


def test_differences_lists_only_what_differs():
    a, b = config.to_dict(Outer("x")), config.to_dict(Outer("x", inner=Inner(0.1)))
    assert config.differences(a, b) == ["inner.rate: 0.5 -> 0.1"]


def test_differences_lists_what_only_one_of_them_has():
    assert config.differences({"a": 1}, {"b": {"c": 2}}) == ["a: 1 -> '(absent)'", "b.c: '(absent)' -> 2"]


def test_what_is_written_is_what_is_read(tmp_path):
    given = Outer("a folder\nof übung 🕺 and tabs\t", 4, (0.1, 1e-300), (), None, True)
    (tmp_path / "config.json").write_text(config.to_json(given), encoding="utf-8")
    assert config.from_dict(Outer, config.read_json(tmp_path / "config.json")) == given


@pytest.mark.parametrize(
    "given",
    [
        Outer(os.fsdecode(b"caf\xe9")),
        Outer("\x1b[2J"),
        Outer("x" * config.LIMIT),
        Outer("x", marks=(0,) * VALUES),
        Outer("x", inner=Inner(float("nan"))),
    ],
)
def test_what_could_not_be_read_again_is_not_written(given):
    with pytest.raises(ConfigError, match="Outer: what was written could not be read again: "):
        config.to_json(given)


def _many(count: int) -> bytes:
    return b"[" + b",".join([b'{"":0}'] * count) + b"]"


BAD = {
    "nothing": (b"", "Expecting value"),
    "no JSON": (b"{'a': 1}", "Expecting property name"),
    "two values": (b"{} {}", "Extra data"),
    "not a number": (b'{"a": NaN}', "NaN is not a JSON number"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
    "a float beyond floats": (b'{"a": 1e999}', "line 1, column 7: 1e999 is larger than any number"),
    "an integer beyond 64 bits": (b'{"a": 18446744073709551616}', "18446744073709551616 does not fit into 64 bits"),
    "a constant that is also a text": (b'["NaN",\n"1e999", NaN]', "line 2, column 10: NaN is not a JSON number"),
    "an integer below 64 bits": (b'{"a": -9223372036854775809}', "does not fit into 64 bits"),
    "digits that Python refuses": (
        b'{"a": ' + b"9" * 5000 + b"}",
        "line 1, column 7: 999999999999999999999999999999 does not fit into 64 bits",
    ),
    "a key given twice": (b'{"a": 1, "b": {"x": 1, "x": 2}}', "the key 'x' is given twice"),
    "Latin-1": (b'{"a": "caf\xe9"}', "byte 10: not UTF-8: 0xe9"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "byte 0: not UTF-8: 0xff"),
    "a byte-order mark": (b'\xef\xbb\xbf{"a": 1}', "BOM"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "half a surrogate pair in "),
    "half a surrogate pair as a key": (b'{"\\udfff": 1}', "half a surrogate pair in "),
    "an escape sequence": (b'{"a": "\\u001b[2J"}', "a control character in "),
    "a list too deep": (b"[" * 40 + b"]" * 40, "lists and objects more than 32 deep"),
    "a list a level too deep": (b"[" * 33 + b"]" * 33, "lists and objects more than 32 deep"),
    "lists deeper than Python goes": (b"[" * 100_000, "lists and objects more than 32 deep"),
    "objects deeper than Python goes": (b'{"a":' * 100_000, "lists and objects more than 32 deep"),
    "too many values": (_many(200_000), "values that would take more than 60 MiB of memory"),
    "too many bytes": (b'"' + b"x" * config.LIMIT + b'"', "expected at most 4194304 bytes, found 4194306"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_plain_json_is_named(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.read_json(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_as_much_as_may_be_is_read(tmp_path):
    path = tmp_path / "config.json"
    values = {
        "deep": [[[[]]]],
        "numbers": [2**64 - 1, -(2**63), 1.5e308, 5e-324],
        "text": "\t\n" * 1000,
        "n": [0] * 190_000,
        "32 levels": json.loads("[" * 31 + "]" * 31),
        "signs": '[{\\"' * 50_000,
        "\u00e9": ["\U0001f600", "\\"],
    }
    path.write_text(json.dumps(values))
    assert config.read_json(path) == values


class _Growing(io.BytesIO):
    """A file that is longer than it was said to be; whoever asks for all of it fails."""

    def read(self, size: int | None = -1) -> bytes:
        assert size == 3
        return b"[ ]"


def test_a_file_that_grows_while_it_is_read_is_not_read_on(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text("[]")
    monkeypatch.setattr(Path, "open", lambda self, mode: _Growing())
    with pytest.raises(ConfigError, match=r"config\.json: it grew while it was read"):
        config.read_json(path)


@pytest.mark.parametrize("sign", ["x", "\u00e9", "\U0001f600", "\\u00e9"])
def test_a_text_is_read_if_it_fits_into_the_memory_at_its_widest(sign):
    wide = 3 if sign == "x" else 9
    for length, fits in ((config.MEMORY // wide - 2**10, True), (config.MEMORY // wide, False)):
        content = b'["' + sign.encode() + b"x" * length + b'"]'
        if fits:
            assert len(config.loads(content, config.LARGEST)[0]) > length
        else:
            with pytest.raises(config.TooLargeError, match="more than 60 MiB"):
                config.loads(content, config.LARGEST + 2**20)


def test_what_others_write_may_hold_control_characters_and_numbers_that_are_not_finite():
    content = b'{"a\\u001b": [NaN, -Infinity, 1e999]}'
    (numbers,) = config.loads(content, finite=False, control=True).values()
    assert numbers[0] != numbers[0]
    assert numbers[1:] == [-math.inf, math.inf]
    with pytest.raises(config.JsonProblem, match=r"^line 1, column 14: NaN is not a JSON number"):
        config.loads(content, control=True)
    with pytest.raises(config.JsonProblem, match="a control character in"):
        config.loads(content, finite=False)
    with pytest.raises(config.JsonProblem, match="more than 3 bytes"):
        config.loads(b"[  ]", 3)


@dataclass(frozen=True)
class Ranged:
    share: Annotated[float, config.Range(0, 1, below=True)] = 0.5
    count: Annotated[int, config.Range(1)] = 1
    pair: tuple[Annotated[float, config.Range(0, 1)], ...] = ()
    most: Annotated[int, config.Range(1, 2**16)] | None = None


@dataclass(frozen=True)
class Holder:
    by_name: dict[str, Ranged]
    either: Inner | Ranged | None = None

    def __post_init__(self) -> None:
        if "x" in self.by_name:
            raise DataError("by_name: expected another name")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.0}, "share: expected a number, 0 to below 1, found 1.0"),
        ({"share": -0.1}, "share: expected a number, 0 to below 1, found -0.1"),
        ({"count": 0}, "count: expected a whole number, 1 or more, found 0"),
        ({"count": 1.5}, "count: expected a whole number, 1 or more, found 1.5"),
        ({"pair": [0.5, 2.0]}, "pair[1]: expected a number, 0 to 1, found 2.0"),
        ({"most": 2**16 + 1}, "most: expected a whole number, 1 to 65,536, found 65537"),
    ],
)
def test_a_number_beyond_the_range_of_its_field_is_refused(values, message):
    for where, read in (("", Ranged), ("by_name.a.", Holder)):
        with pytest.raises(ConfigError) as caught:
            config.from_dict(read, {"by_name": {"a": values}} if where else values)
        assert str(caught.value) == where + message
    if values != {"count": 1.5}:
        built = Ranged(**{key: tuple(value) if key == "pair" else value for key, value in values.items()})
        with pytest.raises(ConfigError) as caught:
            config.check_ranges(Open(built))
        assert str(caught.value) == "part." + message
    config.check_ranges(Ranged(pair=(0.5,)))


def test_dictionaries_unions_and_unknown_keys_are_read_as_asked_for():
    values = {"by_name": {"a": {"count": 2}}, "either": {"share": 0.25}}
    found = config.from_dict(Holder, values)
    assert found == Holder({"a": Ranged(count=2)}, Ranged(0.25))
    assert config.to_dict(found)["by_name"]["a"]["count"] == 2
    assert config.from_dict(Holder, {"by_name": {}, "either": {"rate": 2}}).either == Inner(2.0)
    assert config.from_dict(Holder, {"by_name": {}, "more": 1}, unknown="ignore") == Holder({})
    for wrong, message in (
        ({"by_name": []}, r"^by_name: expected an object, found \[\]"),
        ({}, "^by_name: expected an object, found no such key"),
        ({"by_name": {"x": {}}}, "^by_name: expected another name"),
    ):
        with pytest.raises(ConfigError, match=message):
            config.from_dict(Holder, wrong)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


STRANGE = {
    "a pipe": (os.mkfifo, "expected a file, found a folder, a pipe or a device"),
    "a folder": (os.mkdir, "expected a file, found a folder, a pipe or a device"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "expected a file, found a folder, a pipe or a device"),
    "a socket": (_socket, "expected a file, found a folder, a pipe or a device"),
    "a link to itself": (_loop, "cannot be read: Too many levels of symbolic links"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "there is no such file"),
    "nothing": (lambda path: None, "there is no such file"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path("config.json")
    make, message = STRANGE[name]
    make(path)
    with pytest.raises(ConfigError, match=f"^config.json: {message}"):
        config.read_json(path)


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    for name, message in (("x" * 300, "File name too long"), ("a\0b", "null byte")):
        with pytest.raises(ConfigError, match=message):
            config.read_json(tmp_path / name)


def test_values_that_python_alone_knows_are_left_as_they_are():
    assert config.to_dict(replace(Outer("x"), limit=None))["limit"] is None
    assert config.to_dict(Open(Inner, (Path("a/b"), [Inner()]))) == {
        "part": Inner,
        "parts": ["a/b", [{"rate": 0.5, "kind": "a"}]],
    }
