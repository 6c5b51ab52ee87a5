"""A pack is read strictly: what is not as it was written is named and refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreframe.clip import ClipSpec
from foreframe.data.pack.manifest import read_episodes
from foreframe.data.pack.npy import header
from foreframe.data.pack.pack import Pack, PackWriter
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


def seal(folder: Path, manifest: object) -> None:
    """A manifest with the hash that somebody would give it who wants it to be believed."""
    if isinstance(manifest, dict):
        manifest["sha256"] = ""
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_bytes(sealed(text.encode()))


def sealed(content: bytes) -> bytes:
    blank = re.sub(rb'\n "sha256": "[^"\n]*"', b'\n "sha256": ""', content)
    mine = hashlib.sha256(blank).hexdigest().encode()
    return blank.replace(b'\n "sha256": ""', b'\n "sha256": "' + mine + b'"')


def edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    seal(folder, manifest)


def put(folder: Path, name: str, content: bytes) -> None:
    """Another file in a pack, and a manifest that says that this is it."""
    (folder / name).write_bytes(content)
    record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda m: m["files"].update({name: record}))


def edit_episodes(folder: Path, change) -> None:
    episodes = json.loads((folder / "episodes.json").read_text())
    episodes = change(episodes) or episodes
    put(folder, "episodes.json", lines(episodes))


def lines(episodes: list) -> bytes:
    return ("[\n" + ",\n".join(map(json.dumps, episodes)) + "\n]\n").encode()


@pytest.mark.parametrize("measured", [("b",), ()])
def test_a_pack_keeps_which_columns_are_measured(tmp_path: Path, measured: tuple[str, ...]):
    manifest = Pack.open(write(tmp_path / "pack", measured=measured)).manifest
    assert manifest.measured == manifest.measured_columns == measured


@pytest.mark.parametrize(("layout", "measured"), [("bair_lab", ("position_x", "state.x")), ("videos", ())])
def test_an_earlier_pack_has_the_roles_of_its_layout(tmp_path: Path, layout: str, measured: tuple[str, ...]):
    spec, names = ClipSpec(3, 8, 10, "vector", 3), ("action_0", "position_x", "state.x")
    with PackWriter(tmp_path / "pack", spec, names, source={"layout": layout}) as writer:
        writer.add("a", "train", clip(5, 0)[0], np.zeros((5, 3), np.float32))
    edit(tmp_path / "pack", lambda manifest: manifest.pop("measured"))
    assert Pack.open(tmp_path / "pack").manifest.measured_columns == measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(layout=1), "layout: expected 3, found 1: the pack was written by another version"),
        (lambda m: m.update(spcc={}), "unknown key 'spcc'; did you mean 'spec'"),
        (lambda m: m["spec"].update(hight=3), "unknown key 'spec.hight'; did you mean 'height'"),
        (lambda m: m.pop("fps"), "fps: expected a number, found no such key"),
        (lambda m: m["spec"].update(height="8"), "spec.height: expected a whole number, found '8'"),
        (lambda m: m["spec"].update(height=True), "spec.height: expected a whole number, found True"),
        (lambda m: m["spec"].update(height=0), "spec.height: expected 1 to 65536, found 0"),
        (
            lambda m: m["spec"].update(cond="sound"),
            "spec.cond: expected one of 'none', 'vector', 'image', found 'sound'",
        ),
        (lambda m: m.update(cond_names=["a"]), "cond_names: expected 2 names, found 1"),
        (lambda m: m.update(cond_names=["a", 1]), r"cond_names\[1\]: expected text, found 1"),
        (lambda m: m.update(fps=-1), "fps: expected a positive number or null"),
        (lambda m: m["spec"].update(cond_size=0), "spec.cond_size: 0 does not go with spec.cond 'vector'"),
        (lambda m: m["spec"].update(cond="none"), "spec.cond_size: 2 does not go with spec.cond 'none'"),
        (lambda m: m["stats"].pop(), r"stats: expected one for each of cond_names, found \['a'\]"),
        (lambda m: m["stats"][1].update(std=-1.0), r"stats\[1\].std: expected a number, 0 or more, found -1.0"),
        (lambda m: m.update(measured=["c"]), r"measured: expected names of cond_names, found \['c'\]"),
        (lambda m: m.update(splits=[]), r"splits: expected an object, found \[\]"),
        (lambda m: m["splits"].update(train=3), "splits.train: expected an object, found 3"),
        (
            lambda m: m["left_out"].append({"clip": "x", "reasons": [1]}),
            r"left_out\[0\].reasons\[0\]: expected text, fo",
        ),
        (lambda m: m["files"].update({"../x": {}}), "files.../x.size: expected a whole number, found no such key"),
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
        ('{"layout": 1, "layout": 1}', "expected JSON: the key 'layout' is given twice"),
        ('{"layout": NaN}', "line 1, column 12: NaN is not a JSON number"),
        ('{"layout": ' + "9" * 5000 + "}", "expected JSON"),
        ('{"source": {"folder": "\\udcff"}}', "expected JSON: half a surrogate pair in "),
        ('{"layout": 3}', "spec: expected an object, found no such key"),
        ('{"layout": 2}', "layout: expected 3, found 2: the pack was written by another version"),
        ("[]", r"Manifest: expected an object, found \[\]"),
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
        (lambda e: e[:-1], "expected the splits of the manifest"),
        (
            lambda e: e[1].update(name=""),
            r"\[1\]\.name: expected printable text, with no '\.\.' between slashes, found ''",
        ),
        (lambda e: e[0].update(lenght=3), "unknown key '.0..lenght'; did you mean 'length'"),
    ],
)
def test_an_index_of_episodes_is_read_strictly(folder: Path, change, message):
    edit_episodes(folder, change)
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
    manifest = (folder / "manifest.json").read_bytes()
    content = whole[:start] + junk + whole[start + data.draw(st.integers(0, 6)) :]
    if name == "episodes.json":
        put(folder, name, content)
    else:
        path.write_bytes(sealed(content))
    try:
        Pack.open(folder)
    except DataError as error:
        assert str(folder) in str(error)  # noqa: PT017
        assert "manifest.json: has changed" not in str(error)  # noqa: PT017
    finally:
        path.write_bytes(whole)
        (folder / "manifest.json").write_bytes(manifest)


def test_a_manifest_that_was_edited_is_refused_with_both_hashes(folder: Path):
    path = folder / "manifest.json"
    before = json.loads(path.read_text())
    path.write_bytes(path.read_bytes().replace(b'"fps": 5.0', b'"fps": 9.0'))
    with pytest.raises(DataError, match=r"manifest\.json: has changed since it was written: exp") as caught:
        Pack.open(folder)
    assert before["sha256"] in str(caught.value)
    edit(folder, lambda m: m.update(fps=9.0))
    assert json.loads(path.read_text())["sha256"] in str(caught.value)
    assert Pack.open(folder).fps == 9.0


def test_an_index_of_episodes_that_was_edited_is_refused_with_both_hashes_when_it_is_opened(folder: Path):
    path = folder / "episodes.json"
    before, content = path.read_bytes(), path.read_bytes().replace(b'"train"', b'"trial"')
    path.write_bytes(content)
    hashes = f"SHA-256 {hashlib.sha256(before).hexdigest()}, found {hashlib.sha256(content).hexdigest()}"
    with pytest.raises(DataError, match=rf"episodes\.json: expected {hashes}"):
        Pack.open(folder)
    path.write_bytes(content.replace(b'"trial"', b'"train"'))
    Pack.open(folder)
    path.write_bytes(before.replace(b"clip0", b"clip9"))  # every count is as it was
    with pytest.raises(DataError, match=r"episodes\.json: expected SHA-256"):
        Pack.open(folder)


def test_a_manifest_set_in_another_way_is_refused(folder: Path):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(DataError, match=r"manifest\.json: sha256: expected a line of its own, as it was written"):
        Pack.open(folder)


def test_no_text_in_a_manifest_is_taken_for_its_hash(tmp_path: Path):
    odd = 'a\n "sha256": "x"\n'
    with PackWriter(tmp_path / "pack", SPEC, ("a", odd), source={"sha256": "", odd: {"sha256": ""}}) as writer:
        writer.add("c", "train", *clip(3, 0))
    pack = Pack.open(tmp_path / "pack")
    pack.verify()
    assert pack.manifest.source == {"sha256": "", odd: {"sha256": ""}}


HOSTILE = [
    # Giant counts: nothing is reserved for what a manifest claims.
    ("manifest", lambda m: m["spec"].update(height=2**16, width=2**16), "expected uint8 of shape"),
    ("manifest", lambda m: m["spec"].update(channels=10**12), "spec.channels: expected 1 to 65536, found 10000"),
    ("manifest", lambda m: m["spec"].update(cond_size=2**16 + 1), "spec.cond_size: 65537 does not go with"),
    ("manifest", lambda m: m["files"]["frames.npy"].update(size=10**15), "expected 1000000000000000 bytes as in the"),
    ("manifest", lambda m: m["files"]["cond.npy"].update(size=-1), "expected -1 bytes as in the manifest, found 248"),
    ("manifest", lambda m: m["splits"]["train"].update(frames=10**18), "expected the splits of the manifest"),
    ("manifest", lambda m: m["splits"].update({f"s{n}": {"episodes": 1, "frames": 1} for n in range(999)}), "expected"),
    ("episodes", lambda e: e[2].update(length=10**18), "expected the splits of the manifest"),
    ("episodes", lambda e: e[2].update(length=10**400), r"JSON: line \d+, column \d+: 10+ does not fit"),
    # Episodes that overlap, leave gaps or start before the first frame.
    ("episodes", lambda e: e[1].update(start=0), r"\[1\]: expected start 5"),
    ("episodes", lambda e: e[1].update(start=6), r"\[1\]: expected start 5"),
    ("episodes", lambda e: e[0].update(start=-5), r"\[0\]: expected start 0"),
    ("episodes", lambda e: e[0].update(length=-5), "found start 0 and length -5"),
    ("episodes", lambda e: e[0].update(start=0.0), r"\[0\].start: expected a whole number, found 0.0"),
    ("episodes", lambda e: e[0].update(length=True), r"\[0\].length: expected a whole number, found True"),
    # Names that lead elsewhere, cannot be printed, or look like another one.
    ("episodes", lambda e: e[0].update(name="../../etc/x"), r"\[0\].name: expected printable text"),
    ("episodes", lambda e: e[0].update(name="a/.."), r"\[0\].name: expected printable text"),
    ("episodes", lambda e: e[0].update(name="..\\x"), r"\[0\].name: expected printable text"),
    ("episodes", lambda e: e[0].update(name="a\nb"), r"\[0\].name: expected printable text.*found 'a\\nb'"),
    ("episodes", lambda e: e[0].update(name="\x1b[2J"), r"\[0\].name: expected printable text.*x1b"),
    ("episodes", lambda e: e[0].update(split="../val"), r"\[0\].split: expected printable text"),
    ("episodes", lambda e: e[0].update(name="\ud800"), "expected JSON: half a surrogate pair in "),
    ("episodes", lambda e: e[0].update(name="\u00e9") or e[1].update(name="e\u0301"), "occurs twice, also as '.xe9'"),
    # Files that are not part of a pack.
    ("manifest", lambda m: m["files"].update({"/etc/passwd": {"size": 1, "sha256": ""}}), "files: .* found /etc/pass"),
    ("manifest", lambda m: m["files"].pop("cond.npy"), "files: expected cond.npy, episodes.*found episodes.json, f"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "change", "message"), HOSTILE)
def test_a_hostile_pack_is_refused_before_memory_is_taken(folder: Path, where: str, change, message: str, figure):
    (edit if where == "manifest" else edit_episodes)(folder, change)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            Pack.open(folder)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 4 * 2**20
    figure("hostile packs refused", 1, 1)


def test_an_index_that_is_no_file_or_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    path = folder / "manifest.json"
    with monkeypatch.context() as patch:
        patch.setattr("foreframe.config.LARGEST", 100)
        with pytest.raises(DataError, match=r"manifest\.json: expected at most 100 bytes, found \d+"):
            Pack.open(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        with pytest.raises(DataError, match=r"manifest\.json: cannot be read: Input/output error"):
            Pack.open(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"manifest\.json: expected a file, found a folder, a pipe or a device"):
        Pack.open(folder)


def failing(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_name_that_no_reader_takes_is_refused_by_the_writer_too(tmp_path: Path):
    def names(*given: str) -> None:
        with PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
            for number, name in enumerate(given):
                writer.add(name, "train", *clip(3, number))

    for name in ("", "../x", "a\nb"):
        with pytest.raises(DataError, match="name: expected printable text"):
            names(name)
    with pytest.raises(DataError, match=r"name: 'e\\u0301' occurs twice, also as '\\xe9'"):
        names("\u00e9", "e\u0301")
    assert list(tmp_path.iterdir()) == []


def listed(count: int) -> list[dict]:
    return [{"name": f"clip{n}", "split": "train", "start": n, "length": 1} for n in range(count)]


def read(tmp_path: Path, content: bytes, count: int):
    path = tmp_path / "episodes.json"
    path.write_bytes(content)
    return read_episodes(path, {"train": {"episodes": count, "frames": count}})


def test_an_index_of_many_blocks_is_read_whole(tmp_path: Path):
    for count in (1, 2, 3000, *range(4085, 4101)):
        episodes = read(tmp_path, lines(listed(count)), count)
        assert [episode.name for episode in episodes] == [f"clip{n}" for n in range(count)]


def test_an_index_may_end_anywhere_in_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foreframe.data.pack.manifest.MAX_LINE_BYTES", 200)
    content = lines(listed(5))
    for blanks in range(220):
        padded = content.replace(b'"clip0"', b" " * blanks + b'"clip0"') if blanks < 120 else content
        assert len(read(tmp_path, padded, 5)) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"episodes": []}', "expected a list with one episode a line, as it was written"),
        (json.dumps(listed(3)).encode(), "expected a list with one episode a line"),
        (lines(listed(3))[:-1], "expected a list with one episode a line"),
        (lines(listed(3)) + b" ", "expected a list with one episode a line"),
        (lines(listed(3))[:-3] + b",\n", "expected a list with one episode a line"),
        (b"[\n" + b"x" * 2**18 + b"\n]\n", "expected a list with one episode a line"),
        (b"[\n3\n]\n", r"\[0\]: expected an object, found 3"),
        (b"[\n3],[3\n]\n", "expected JSON: line 1, column 4: Extra data"),
        (b"[\n\n]\n", r"expected the splits of the manifest"),
        (b"", "expected a list with one episode a line"),
    ],
)
def test_an_index_set_in_another_way_is_refused(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content, 3)


def test_more_clips_left_out_than_a_reader_takes_are_counted(tmp_path: Path):
    reason = "\U0001f600" * 50
    with PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
        writer.add("c", "train", *clip(3, 0))
        for number in range(12_000):
            writer.leave_out(f"clip{number}", [reason])
    left_out = Pack.open(tmp_path / "pack").manifest.left_out
    more = 12_000 - (len(left_out) - 1)
    assert 1000 < more < 11_000
    assert [item.clip for item in left_out[:-1]] == [f"clip{number}" for number in range(12_000 - more)]
    assert left_out[-1].clip == f"{more:,} more"
    assert "foreframe data check" in left_out[-1].reasons[0]


@pytest.mark.nightly
def test_a_pack_of_a_hundred_thousand_clips_is_opened(tmp_path: Path):
    count = 100_000
    with PackWriter(tmp_path / "pack", ClipSpec(1, 1, 1, "none", 0)) as writer:
        for number in range(count):
            writer.add(f"train/a folder with a long name/episode_{number:06d}", "train", np.zeros((1, 1, 1, 1), "u1"))
    assert len(Pack.open(tmp_path / "pack").episodes) == count
