"""Files of a model with some of their bytes or values changed: read whole or refused, soon and in little memory."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreframe import checkpoint, config, models, tensors
from foreframe.data.pack.pack import Pack
from foreframe.errors import ConfigError, ForeframeError
from foreframe.recipe import RunConfig
from tests import runs
from tests.conftest import Figure

SECONDS, MEGABYTES = 1.0, 256
ODD: tuple[Any, ...] = (
    *(-1, 0, 1, 7, 2**16, 2**31, 2**40, 2**53 + 1, 2**63 - 1, 2**64 - 1, 10**12, -(2**63)),
    *(0.5, -0.0, 1e-300, 5e-324, 1e38, 1e308, -1e308, True, False, None),
    *("", "x", "../../etc/passwd", "/dev/zero", "a" * 5000, "vector", "image", "none", "svg", "pose_cvae", "__class__"),
    *([], {}, [[]], [0] * 5000, {"": {}}, {"__reduce__": "os.system"}, [["a", 1]] * 3),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(vector_pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("mutations") / "run"
    runs.make(vector_pack, run, replace(runs.TINY, steps=2, ema=0.0, validate_every=2, save_every=2)).run()
    return run


def bytes_changed(content: bytes, draw: Random) -> bytes:
    """One to eight bytes replaced, left out, put in, or a stretch of them moved."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(changed))
        how = draw.randrange(5)
        if how == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif how == 1:
            changed[place] = draw.choice(b'"{}[]:,0-9.eE\\\x00\xff')
        elif how == 2:
            del changed[place : place + draw.randint(1, 20)]
        elif how == 3:
            changed[place:place] = draw.choice((b"9" * 30, b"[" * 50, b"-", b"e999", b"\\ud800", b"\x1b", b'"a":1,'))
        else:
            start = draw.randrange(len(changed))
            changed[place:place] = changed[start : start + draw.randint(1, 200)]
        changed = changed or bytearray(b" ")
    return bytes(changed)


def values_changed(values: Any, draw: Random) -> Any:
    """One to three values anywhere in it replaced, left out, doubled, or put in under another name."""
    changed = copy.deepcopy(values)
    for _ in range(draw.randint(1, 3)):
        groups = list(_groups(changed))
        group = draw.choice(groups)
        keys = list(group) if isinstance(group, dict) else list(range(len(group)))
        key = draw.choice(keys) if keys else None
        how = draw.randrange(5)
        if key is None or how == 0:
            if isinstance(group, dict):
                group[draw.choice(("x", "__class__", "step", "sha256", ""))] = _odd(draw)
            else:
                group.append(_odd(draw))
        elif how == 1:
            del group[key]
        elif how == 2 and isinstance(group[key], int | float):
            group[key] = group[key] * draw.choice((-1, 2, 10**6, 0.5))
        elif how == 3 and len(keys) > 1:
            group[key] = copy.deepcopy(group[draw.choice(keys)])
        else:
            group[key] = _odd(draw)
    return changed


def _odd(draw: Random) -> Any:
    return copy.deepcopy(draw.choice(ODD))


def _groups(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _groups(part)


def _peak() -> float:
    """The most memory since the last call, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak / 2**10


def _try(reads: Callable[[], object], file: str) -> bool:
    """Whether it is read, and not refused by a message that names the file."""
    _peak()
    before, begun, said = _peak(), time.process_time(), file
    try:
        reads()
    except ForeframeError as error:
        said = str(error)
    assert file in said
    assert len(said) < 10_000
    assert time.process_time() - begun < SECONDS
    assert _peak() - before < MEGABYTES
    return said == file


def _seal(manifest: Path, changed: Path) -> None:
    """The manifest that goes with a changed file, as its author would write it."""
    values = json.loads(manifest.read_bytes())
    content = changed.read_bytes()
    values["files"][changed.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_bytes(_sealed(values))


def _sealed(values: Any) -> bytes:
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key != "sha256"}
        own = hashlib.sha256((json.dumps(values, indent=1) + "\n").encode()).hexdigest()
        values = {**values, "sha256": own}
    return (json.dumps(values, indent=1) + "\n").encode()


def _change(content: bytes, draw: Random) -> bytes:
    if draw.random() < 0.5:
        return bytes_changed(content, draw)
    return json.dumps(values_changed(json.loads(content), draw), indent=1).encode()


def _configs(run: Path, made: Path, draw: Random) -> bool:
    path = made / "config.json"
    path.write_bytes(_change((run / "config.json").read_bytes(), draw))

    def reads() -> None:
        read = RunConfig.read(made)
        assert (
            config.from_dict(RunConfig, json.loads(config.to_json(read)), kinds={"train.model": type(read.train.model)})
            == read
        )
        checkpoint.load_run(made, "best", CPU)

    return _try(reads, "config.json" if _is_refused(lambda: RunConfig.read(made)) else "checkpoints")


def _is_refused(reads: Callable[[], object]) -> bool:
    try:
        reads()
    except ForeframeError:
        return True
    return False


def _manifests(run: Path, made: Path, draw: Random) -> bool:
    path = made / "checkpoints" / "step-00000002" / "manifest.json"
    content = (run / path.relative_to(made)).read_bytes()
    if draw.random() < 0.3:
        path.write_bytes(bytes_changed(content, draw))
    else:
        path.write_bytes(_sealed(values_changed(json.loads(content), draw)))
    return _try(lambda: checkpoint.read(made, 2), "step-00000002")


def _states(run: Path, made: Path, draw: Random) -> bool:
    path = made / "checkpoints" / "step-00000002" / "state.json"
    path.write_bytes(_change((run / path.relative_to(made)).read_bytes(), draw))
    _seal(path.with_name("manifest.json"), path)

    def reads() -> None:
        found = checkpoint.choose(made, "best")
        assert found.step == 2
        assert isinstance(found.best.get("psnr", 0.0), int | float)

    return _try(reads, "state.json")


@cache
def _expected(run: Path) -> dict[str, torch.Tensor]:
    record = RunConfig.read(run)
    expected: dict[str, torch.Tensor] = models.build_on_meta(record.train.model, record.spec).state_dict()
    return expected


def _headers(run: Path, made: Path, draw: Random) -> bool:
    path = made / "checkpoints" / "step-00000002" / "weights.safetensors"
    content = (run / path.relative_to(made)).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = _change(content[8 : 8 + length], draw)
    said = (
        len(header) if draw.random() < 0.9 else draw.choice((0, 1, 2**31, 2**63, 2**64 - 1, len(content), 99_999_999))
    )
    path.write_bytes(struct.pack("<Q", said) + header + content[8 + length :])
    expected = _expected(run)

    def reads() -> None:
        found = tensors.read_tensors(path, expected)
        assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}
        assert all(value.isfinite().all() for value in found.values())

    return _try(reads, "weights.safetensors")


KINDS = {
    "config.json": (_configs, 200),
    "manifest.json": (_manifests, 600),
    "state.json": (_states, 600),
    "safetensors header": (_headers, 600),
}
"""How each is tried, and how often: a configuration that is read has its model built, which takes longest."""


def _all(run: Path, tmp_path: Path, kind: str, seed: int, count: int) -> int:
    draw, made = Random(f"{kind} {seed}"), tmp_path / "changed"
    shutil.copytree(run, made)
    read = 0
    for _ in range(count):
        read += KINDS[kind][0](run, made, draw)
    assert 0 < read < count  # so that neither everything nor nothing is refused
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_of_a_model_are_read_whole_or_refused(run: Path, tmp_path: Path, kind: str, figure: Figure):
    count = KINDS[kind][1]
    figure("mutated model files refused or read whole", _all(run, tmp_path, kind, 0, count), count)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_files_of_a_model_are_read_whole_or_refused(
    run: Path, tmp_path: Path, kind: str, seed: int, figure: Figure
):
    count = 5 * KINDS[kind][1]
    figure("mutated model files refused or read whole", _all(run, tmp_path, kind, seed, count), count)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=100)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_json_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        value = config.read_json(path)
    except ConfigError:
        return
    assert json.loads(content) == value


@settings(max_examples=100)
@given(JSON)
def test_any_values_are_a_configuration_or_refused(value: object):
    for cls in (RunConfig, models.module("svg").Config):
        try:
            config.from_dict(cls, value)
        except ConfigError:
            pass
        else:
            assert isinstance(value, dict)
