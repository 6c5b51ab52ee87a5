"""The check of a user's own layout: it finds each violation, and says it in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreframe.cli.clips import data_layouts
from foreframe.data.ingest.conformance import check_layout
from foreframe.data.open import open_clips
from foreframe.errors import UsageError

GOOD = """
from functools import partial
from pathlib import Path
import numpy as np
from foreframe.data.formats.folders import Findings, listing, relative
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.errors import DataError, Fault

NAME = "raw"
DESCRIBE = "films of four bytes a picture"
LOOKS_FOR = "train|val/NAME.raw"
TAKES = ()

def recognises(folder):
    return any(folder.glob("train/*.raw"))

def survey(folder, options):
    finds = Findings(folder)
    clips = []
    for split in ("train", "val"):
        for name in listing(folder / split, finds)[0]:
            path = folder / split / name
            clips.append(_clip(path, relative(path, folder), split))
    return SourceIndex(NAME, tuple(clips), (2, 2), "vector", ("x",), faults=tuple(finds.faults))

def _clip(path, shown, split):
    data = path.read_bytes()
    good = len(data) == 48 and data[0] < 64
    faults = () if good else (Fault(shown, "", "48 bytes", str(len(data))),)
    return SourceClip(shown.removesuffix(".raw"), split, 12, partial(_frames, path), partial(_rows, path), faults)

def _frames(path, start, stop):
    data = np.frombuffer(path.read_bytes()[:48].ljust(48, b"-"), np.uint8).reshape(12, 2, 2, 1)
    return RawChunk(np.repeat(data[start:stop], 3, axis=3))

def _rows(path, start, stop):
    return RawChunk(np.arange(start, stop, dtype=np.float32)[:, None])

def example(folder):
    for number, name in enumerate(("train/a", "train/b", "val/c")):
        path = folder / f"{name}.raw"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(range(number, number + 48)))
"""


COUNTED = """
    with Path(__file__).with_suffix(".count").open("a+") as file:
        file.write(".")
        if file.tell() % 3 == 1:  # of every three surveys the first one has no clip c
            clips.pop()
"""
REFUSED = """
    if len([*folder.rglob("*.raw")]) < 3:
        raise DataError("three films are needed")
    finds = Findings(folder)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    (tmp_path / "raw.py").write_text(GOOD)
    return tmp_path / "raw.py"


def test_a_layout_of_ones_own_that_keeps_the_contract_can_be_used(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data_layouts(layout)
    assert capsys.readouterr().out == f"{layout}: keeps the contract\n"
    monkeypatch.setenv("FOREFRAME_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("train/a", "val/b")):
        path = tmp_path / "films" / f"{name}.raw"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(range(number, number + 48)))
    pack = open_clips(tmp_path / "films", layout=str(layout))
    assert [episode.name for episode in pack.episodes] == ["train/a", "val/b"]
    assert open_clips(tmp_path / "films", layout=str(layout)).path == pack.path
    layout.write_text(GOOD + "\n# another version\n")
    assert open_clips(tmp_path / "films", layout=str(layout)).path != pack.path


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("TAKES = ()", "", "TAKES: expected it in the file, found none"),
        ("TAKES = ()", "TAKES = ('size',)", "TAKES: expected some of camera, cuts, count, found size"),
        ('NAME = "raw"', 'NAME = "Raw!"', "NAME: expected a-z, 0-9 and _ only, found 'Raw!'"),
        ('LOOKS_FOR = "', 'LOOKS_FOR = "\\n', "LOOKS_FOR: expected one line of text, found '\\ntrain|val/NAME.raw'"),
        ('any(folder.glob("train/*.raw"))', "False", "recognises: expected True for its own example, found False"),
        ('any(folder.glob("train/*.raw"))', "True", "recognises: expected False for an empty folder, found True"),
        (
            "def example(folder):", 'def example(folder):\n    (folder / "val" / "val_img").mkdir(parents=True)',
            "example: expected a source that no other layout recognises, found that dance_lab does",
        ),
        ('"val/c"', '"train/c"', "example: expected clips in train and val, found none in val"),
        (
            "faults=tuple(finds.faults))", "faults=(Fault('x', '', 'a', 'b'),))",
            "example: expected no fault, found x: expected a, found b",
        ),
        (
            "faults=tuple(finds.faults))", "notes=('1 other file not used: x',))",
            "example: expected no file that is not used, found 1 other file not used: x",
        ),
        ('(2, 2), "vector"', 'None, "vector"', "survey: expected a size and clips, found size None and 3 clips"),
        ('shown.removesuffix(".raw")', '"x"', "survey: expected a name of its own for each clip, found two called x"),
        ('("x",)', '("x", "x")', "survey: expected different names of columns, found x, x"),
        ("split, 12", "'dev', 12", "train/a: expected a split (train, val, test, or empty), found 'dev'"),
        (
            "partial(_rows, path)", "None",
            "train/a: expected rows if and only if there is a condition (vector), found otherwise",
        ),
        (
            "partial(_rows, path)", "lambda start, stop: _rows(path, start, stop)",
            "train/a: expected a clip that can be sent to another process, found ",
        ),
        (
            "data[start:stop]", "np.random.default_rng().integers(256, size=data[start:stop].shape, dtype=np.uint8)",
            "import: expected the same bytes of a second import, found others",
        ),
        (
            "data[start:stop]", "np.random.default_rng().integers(256, size=data[start:stop].shape, dtype=np.uint8)",
            "train/a: expected in the pack what the clip reads as, found other numbers",
        ),
        (
            "    return SourceIndex(", COUNTED + "    return SourceIndex(",
            "import: expected every clip, found no val/c",
        ),
        ("data[start:stop]", "data[start:stop][::-1]", "train/a: expected the same frames in pieces, found others"),
        ("dtype=np.float32", "dtype=float", "train/a: expected rows as float32 (12, 1), found float64 (12, 1)"),
        ("len(data) == 48 and data[0] < 64", "True", "train/a.raw: expected a fault that names it (half), found none"),
        (
            "Fault(shown,", "Fault(str(path),",
            "train/a.raw: expected relative paths in faults (half), found the whole path",
        ),
        ("for name in listing(folder / split, finds)[0]", "for name in ('a.raw',)", "FileNotFoundError"),
        (
            "NAME, tuple(clips)", "NAME, tuple(clips[:1] + clips[-1:])",
            "train/b.raw: expected a fault, or other clips, when it is missing, found neither",
        ),
    ],
)  # fmt: skip
def test_each_violation_is_one_sentence(layout: Path, old: str, new: str, violation: str):
    assert old in GOOD
    layout.write_text(GOOD.replace(old, new))
    found = check_layout(layout)
    assert any(violation in sentence for sentence in found), found
    assert all(sentence.isprintable() for sentence in found)


def test_a_layout_may_refuse_a_whole_source_of_which_a_file_is_missing(layout: Path):
    layout.write_text(GOOD.replace("\n    finds = Findings(folder)\n", REFUSED))
    assert check_layout(layout) == []


def test_violations_are_printed_and_end_the_command_with_1(layout: Path, capsys: pytest.CaptureFixture[str]):
    layout.write_text(GOOD.replace("TAKES = ()", ""))
    with pytest.raises(SystemExit) as ended:
        data_layouts(layout)
    assert ended.value.code == 1
    assert capsys.readouterr().out == "TAKES: expected it in the file, found none\n"


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"none\.py: expected a file that holds a layout, found none"):
        check_layout(tmp_path / "none.py")
    with pytest.raises(UsageError, match=r"no layout 'vidoes'; there are .*; did you mean 'videos'\?"):
        check_layout("vidoes")
