from __future__ import annotations

import io
import json
import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from foreframe import config
from foreframe.errors import ConfigError

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
    with pytest.raises(ConfigError, match=r"unknown setting 'inner\.rat'; did you mean 'rate'\?"):
        config.from_dict(Outer, {"name": "x", "inner": {"rat": 1.0}})
    with pytest.raises(ConfigError, match=r"unknown setting 'siz'; did you mean 'size'\?"):
        config.from_dict(Outer, {"name": "x", "siz": 1})


def test_a_missing_setting_without_default_is_named():
    with pytest.raises(ConfigError, match="missing setting 'name'"):
        config.from_dict(Outer, {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "4"}, "size: expected int, found '4'"),
        ({"size": True}, "size: expected int, found True"),
        ({"on": 1}, "on: expected bool, found 1"),
        ({"inner": {"kind": "c"}}, r"inner\.kind: expected one of 'a', 'b', found 'c'"),
        ({"inner": {"kind": ["a"]}}, r"inner\.kind: expected one of 'a', 'b', found \['a'\]"),
        ({"pair": [1.0]}, "pair: expected 2 values, found 1"),
        ({"pair": 1.0}, r"pair: expected a list, found 1\.0"),
        ({"marks": [1, 2.5]}, r"marks\[1\]: expected int, found 2\.5"),
        ({"limit": 2.5}, r"limit: expected int, found 2\.5"),
        ({"inner": 3}, "inner: expected a group of settings, found 3"),
        ({"inners": [{}, {"kind": "c"}]}, r"inners\[1\]\.kind: expected one of"),
        ({"inner": {"rate": float("inf")}}, r"inner\.rate: expected a finite number"),
        ({"inner": {"rate": 10**400}}, r"inner\.rate: expected a finite number"),
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
    "a float beyond floats": (b'{"a": 1e999}', "1e999 is larger than any number"),
    "an integer beyond 64 bits": (b'{"a": 18446744073709551616}', "18446744073709551616 does not fit into 64 bits"),
    "an integer below 64 bits": (b'{"a": -9223372036854775809}', "does not fit into 64 bits"),
    "digits that Python refuses": (b'{"a": ' + b"9" * 5000 + b"}", "does not fit into 64 bits"),
    "a key given twice": (b'{"a": 1, "b": {"x": 1, "x": 2}}', "the key 'x' is given twice"),
    "Latin-1": (b'{"a": "caf\xe9"}', "codec can't decode byte 0xe9"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "codec can't decode byte"),
    "a byte-order mark": (b'\xef\xbb\xbf{"a": 1}', "BOM"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "surrogates not allowed"),
    "half a surrogate pair as a key": (b'{"\\udfff": 1}', "surrogates not allowed"),
    "an escape sequence": (b'{"a": "\\u001b[2J"}', "a control character in "),
    "a list too deep": (b"[" * 40 + b"]" * 40, "lists and objects more than 32 deep"),
    "a list that opens between blocks": (b" " * 2**16 + b"[" * 33, "lists and objects more than 32 deep"),
    "lists deeper than Python goes": (b"[" * 100_000, "lists and objects more than 32 deep"),
    "objects deeper than Python goes": (b'{"a":' * 100_000, "lists and objects more than 32 deep"),
    "too many values": (_many(200_000), "values that would take more than 60 MiB of memory"),
    "too many bytes": (b'"' + b"x" * config.LIMIT + b'"', "4194306 bytes, expected at most 4194304"),
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
        "signs": '[{\\"' * 200_000,
        "\u00e9": ["\U0001f600", "\\"],
    }
    path.write_text(json.dumps(values))
    assert config.read_json(path) == values


class _Growing(io.BytesIO):
    """A file that is longer than it was said to be; whoever asks for all of it fails."""

    def read(self, size: int | None = -1) -> bytes:
        assert size == 11
        return b"[" + b" " * 10


def test_a_file_that_grows_while_it_is_read_is_not_read_on(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text("[]")
    monkeypatch.setattr(Path, "open", lambda self, mode: _Growing())
    with pytest.raises(ConfigError, match=r"config\.json: not readable as JSON \(more than 10 bytes\)"):
        config.read_json(path, limit=10)


@pytest.mark.parametrize("shift", range(4))
def test_signs_inside_of_texts_count_nothing_wherever_a_block_ends(shift):
    text = "x" * (2**16 - 4 + shift) + '\\"' + "{[," * 2**18 + "\\" * 3
    content = json.dumps([text, text]).encode()
    assert config.loads(content) == [text, text]
    with pytest.raises(config.TooLargeError, match="more than 60 MiB"):
        config.loads(content[:-1] + b"," + b"{}," * 2**18 + b"{}]")


@pytest.mark.parametrize("sign", ["x", "\u00e9", "\U0001f600", "\\u00e9", "\\n"])
def test_a_text_is_weighed_by_its_widest_sign(sign):
    wide = {"x": 3, "\u00e9": 5, "\U0001f600": 9, "\\u00e9": 10, "\\n": 4}[sign]
    for length, fits in ((config.MEMORY // wide - 2**17, True), (config.MEMORY // wide, False)):
        content = b'["' + sign.encode() + b"x" * length + b'"]'
        if fits:
            assert len(config.parse(content)[0]) > length
        else:
            with pytest.raises(config.TooLargeError):
                config.parse(content)


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
