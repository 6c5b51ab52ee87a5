"""A pack is read strictly: what is not as it was written is named and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreframe.clip import ClipSpec
from foreframe.data.npy import header
from foreframe.data.pack import Pack, PackWriter
from foreframe.errors import DataError

SPEC = ClipSpec(3, 8, 10, "vector", 2)


def clip(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (length, 8, 10, 3), dtype=np.uint8), rng.normal(size=(length, 2)).astype(np.float32)


def write(path: Path, count: int = 3, **options) -> Path:
    with PackWriter(path, SPEC, ("a", "b"), fps=5, source={"layout": "test"}, **options) as writer:
        for number, length in enumerate([5, 3, 7, *range(1, 60)][:count]):
            writer.add(f"clip{number}", "val" if number == 2 else "train", *clip(length, number))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "pack")


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(layout=1), "layout: expected 2, found 1: the pack was written by another version"),
        (lambda m: m.update(spcc={}), "unknown key 'spcc'; did you mean 'spec'"),
        (lambda m: m["spec"].update(hight=3), "unknown key 'spec.hight'; did you mean 'height'"),
        (lambda m: m.pop("fps"), "missing key 'fps'"),
        (lambda m: m["spec"].update(height="8"), "spec.height: str is of the wrong type"),
        (lambda m: m["spec"].update(height=True), "spec.height: bool is of the wrong type"),
        (lambda m: m["spec"].update(height=0), "spec.height: expected 1 to 65536, found 0"),
        (lambda m: m["spec"].update(cond="sound"), "spec.cond: expected one of none, vector, image, found 'sound'"),
        (lambda m: m.update(cond_names=["a"]), "cond_names: expected 2 names, found 1"),
        (lambda m: m.update(cond_names=["a", 1]), r"cond_names\[1\]: expected str, found int"),
        (lambda m: m.update(fps=-1), "fps: expected a positive number or null"),
        (lambda m: m["files"].update({"../x": {}}), "unknown key 'files.../x'"),
        (lambda m: m["splits"]["train"].update(frames=9), "expected the splits of the manifest"),
        (lambda m: m["files"]["cond.npy"].update(size=1), "cond.npy: expected 1 bytes as in the manifest, found 248"),
    ],
)
def test_a_manifest_is_read_strictly(folder: Path, change, message):
    edit(folder, change)
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ('{"layout": 1, "layout": 1}', "key 'layout' occurs twice"),
        ('{"layout": NaN}', "NaN is not JSON"),
        ("[]", "top level: expected an object, found list"),
        ("\udcff", "expected JSON"),
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: str, message: str):
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[1].update(start=4), r"\[1\]: expected start 5 and a length of 1 or more, found start 4"),
        (lambda e: e[0].update(length=0), "found start 0 and length 0"),
        (lambda e: e[1].update(name="clip0"), "'clip0' occurs twice"),
        (lambda e: e.pop(), "expected the splits of the manifest"),
        (lambda e: e[0].update(lenght=3), "unknown key '.0..lenght'; did you mean 'length'"),
    ],
)
def test_an_index_of_episodes_is_read_strictly(folder: Path, change, message):
    episodes = json.loads((folder / "episodes.json").read_text())
    change(episodes)
    content = json.dumps(episodes).encode()
    (folder / "episodes.json").write_bytes(content)
    edit(folder, lambda m: m["files"]["episodes.json"].update(size=len(content)))
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x93NUMPY\x02\x00", "expected an .npy file"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00", "expected an .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff", "header of at most 1024 bytes"),
        (
            header(np.dtype(np.uint8), (10**15, 8, 10, 3)),
            r"expected uint8 of shape \(15, 8, 10, 3\), found uint8 of shape",
        ),
        (header(np.dtype(np.float32), (15, 8, 10, 3)), "found float32 of shape"),
        (header(np.dtype(np.uint8), (15, 8, 10, 3)).replace(b"False", b"True "), "expected the header of a C-ordered"),
        (header(np.dtype(np.uint8), (15, 8, 10, 3)).replace(b"'|u1'", b"'|O' "), "expected the header of a C-ordered"),
    ],
)
def test_an_array_with_another_header_is_refused_before_memory_is_taken(folder: Path, start: bytes, message: str):
    content = (folder / "frames.npy").read_bytes()
    (folder / "frames.npy").write_bytes(start + content[len(start) :])
    with pytest.raises(DataError, match=message):
        Pack.open(folder)


def test_a_missing_file_and_a_cut_one_are_named(folder: Path):
    frames = folder / "frames.npy"
    content = frames.read_bytes()
    frames.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"frames.npy: expected 3728 bytes as in the manifest, found 3727"):
        Pack.open(folder)
    frames.unlink()
    with pytest.raises(DataError, match=r"frames.npy: missing; the manifest lists it"):
        Pack.open(folder)


@pytest.mark.parametrize("name", ["frames.npy", "cond.npy", "episodes.json"])
def test_verify_names_the_changed_file_and_both_hashes(folder: Path, name: str):
    pack = Pack.open(folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        pack.verify()
    assert len(caught.value.faults) == 1
    assert name in caught.value.faults[0].path
    assert pack.manifest.files[name].sha256 in str(caught.value)
    assert len(caught.value.faults[0].found) == 64


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_the_json_files_a_pack_opens_or_is_refused_in_words(folder: Path, data: st.DataObject):
    name = data.draw(st.sampled_from(["manifest.json", "episodes.json"]))
    path = folder / name
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(max_size=4) | st.sampled_from([b"1e999", b"-1", b"null", b"[]", b'"', b"9" * 30]))
    path.write_bytes(whole[:start] + junk + whole[start + data.draw(st.integers(0, 6)) :])
    try:
        Pack.open(folder)
    except DataError as error:
        assert str(folder) in str(error)  # noqa: PT017
    finally:
        path.write_bytes(whole)
