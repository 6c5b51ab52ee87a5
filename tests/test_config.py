from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from foreframe import config
from foreframe.errors import ConfigError


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


def test_a_configuration_reads_back_as_itself():
    given = Outer("x", 4, (0.1, 0.2), (1, 2, 3), 7, True, Inner(0.25, "b"))
    assert config.from_dict(Outer, config.to_dict(given)) == given


def test_an_unknown_setting_is_named_with_its_path_and_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown setting 'inner\.rat'; did you mean 'rate'\?"):
        config.from_dict(Outer, {"name": "x", "inner": {"rat": 1.0}})


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
        ({"pair": [1.0]}, "pair: expected 2 values, found 1"),
        ({"marks": [1, 2.5]}, r"marks\[1\]: expected int, found 2\.5"),
        ({"inner": 3}, "inner: expected a group of settings, found 3"),
        ({"inner": {"rate": float("inf")}}, r"inner\.rate: expected a finite number"),
    ],
)
def test_a_value_of_another_type_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        config.from_dict(Outer, {"name": "x", **values})


def test_whole_numbers_are_taken_where_a_float_is_expected():
    assert config.from_dict(Outer, {"name": "x", "inner": {"rate": 1}}).inner.rate == 1.0


def test_differences_lists_only_what_differs():
    a, b = config.to_dict(Outer("x")), config.to_dict(Outer("x", inner=Inner(0.1)))
    assert config.differences(a, b) == ["inner.rate: 0.5 -> 0.1"]


def test_a_file_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": NaN}')
    with pytest.raises(ConfigError, match=r"config\.json: not readable as JSON"):
        config.read_json(path)
