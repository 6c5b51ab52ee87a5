"""What `--data` may be, and where packs of it are kept."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data import open as sources
from foreframe.data.cache import cache_folder
from foreframe.data.formats import sample
from foreframe.data.layouts.options import Options
from foreframe.data.open import is_sample, open_clips
from foreframe.data.pack.journal import BusyError
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError, UsageError

SPEC = ClipSpec(3, 4, 6)


def write(path: Path, seed: int = 0) -> None:
    with PackWriter(path, SPEC) as writer:
        writer.add("a", "train", np.random.default_rng(seed).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREFRAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


@pytest.fixture
def packed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was packed; every source is a pack of the same tiny clip."""
    made: list[Path] = []

    def importing(src: Path, dst: Path, *_: object, **__: object) -> None:
        made.append(src)
        write(dst)

    monkeypatch.setattr(sources, "import_clips", importing)
    return made


def test_a_name_is_a_sample_and_a_path_is_a_folder():
    assert is_sample("push")
    assert is_sample("sample:anything")
    assert not is_sample("./push")
    assert not is_sample(Path("push"))


def test_a_pack_is_opened_where_it_lies_and_options_cannot_change_it(tmp_path: Path, packed: list[Path]):
    write(tmp_path / "pack")
    assert open_clips(tmp_path / "pack").hash == Pack.open(tmp_path / "pack").hash
    assert packed == []
    with pytest.raises(UsageError, match=r"pack: packed already, so stride cannot be chosen any more"):
        open_clips(tmp_path / "pack", options=Options(stride=2))
    with pytest.raises(UsageError, match=r"push: packed already, so stride cannot be chosen any more"):
        open_clips("push", options=Options(stride=2))


def test_nothing_at_all_is_told_what_may_be_there(tmp_path: Path, cache: Path):
    with pytest.raises(DataError, match=r"none: there is nothing; expected a pack, a folder of clips, or a built-in s"):
        open_clips(tmp_path / "none")
    with pytest.raises(DataError, match=r"sample:pull: no such sample; there are push, dance"):
        open_clips("sample:pull")


def test_a_folder_is_packed_once_and_said_to_be(
    bair: Path, cache: Path, packed: list[Path], capsys: pytest.CaptureFixture[str]
):
    first = open_clips(bair, progress=True)
    assert f"packing {bair} into {first.path}" in capsys.readouterr().err
    assert first.path.parent == cache
    assert open_clips(bair).hash == first.hash
    assert open_clips(bair, options=Options(stride=2)).path != first.path
    assert packed == [bair, bair]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"FOREFRAME_CACHE": "~/own"}, "HOME/own/packs"),
        ("linux", {}, "HOME/.cache/foreframe/packs"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/foreframe/packs"),
        ("linux", {"XDG_CACHE_HOME": ""}, "HOME/.cache/foreframe/packs"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "HOME/Library/Caches/foreframe/packs"),
        ("win32", {}, "HOME/AppData/Local/foreframe/packs"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/foreframe/packs"),
    ],
)
def test_packs_are_kept_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variables: dict[str, str], folder: str
):
    for name in ("FOREFRAME_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sources.sys, "platform", platform)
    assert cache_folder() == Path(folder.replace("HOME", str(tmp_path)))


def test_a_damaged_cache_says_that_it_may_be_deleted(bair: Path, packed: list[Path]):
    pack = open_clips(bair)
    (pack.path / "frames.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"frames\.npy: expected 344 bytes as in the manifest, found 0") as caught:
        open_clips(bair)
    assert str(caught.value).endswith(f"\nThis is only a cache: delete {pack.path} and start again")


def test_who_comes_second_waits_for_the_first(bair: Path, packed: list[Path], monkeypatch: pytest.MonkeyPatch):
    waited = []

    def busy(src: Path, dst: Path, *_: object, **__: object) -> None:
        if len(waited) == 2:
            write(dst, seed=5)  # the other process is done
        raise BusyError("being made")

    monkeypatch.setattr(sources, "import_clips", busy)
    monkeypatch.setattr(time, "sleep", waited.append)
    pack = open_clips(bair)
    assert len(waited) == 3
    pack.verify()


def test_who_finds_the_pack_made_meanwhile_takes_it(bair: Path, packed: list[Path], monkeypatch: pytest.MonkeyPatch):
    def late(src: Path, dst: Path, *_: object, **__: object) -> None:
        write(dst)
        raise DataError(f"{dst}: already exists")

    monkeypatch.setattr(sources, "import_clips", late)
    open_clips(bair).verify()


def test_what_cannot_be_packed_is_said_as_it_is(bair: Path, packed: list[Path], monkeypatch: pytest.MonkeyPatch):
    def faulty(src: Path, dst: Path, *_: object, **__: object) -> None:
        raise DataError(f"{src}: 3 faults")

    monkeypatch.setattr(sources, "import_clips", faulty)
    with pytest.raises(DataError) as caught:
        open_clips(bair)
    assert str(caught.value) == f"{bair}: 3 faults"


def test_a_sample_is_unpacked_once_with_its_rows_where_they_lead(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    frames, rows = np.zeros((4, 4, 6, 3), np.uint8), np.arange(8, dtype=np.float32).reshape(4, 2)
    opened = []

    def opening(name: str) -> sample.SampleInfo:
        opened.append(name)
        clips = iter([("a", "train", frames, rows)])
        return sample.SampleInfo(name, ClipSpec(3, 4, 6, "vector", 2), ("x", "y"), 1, 10.0, "ab" * 32, clips)

    monkeypatch.setattr(sample, "open_sample", opening)
    pack = open_clips("push", progress=True)
    assert f"decoding the built-in sample into {pack.path}" in capsys.readouterr().err
    assert pack.cond is not None
    assert pack.cond[:, 0].tolist() == [0, 0, 2, 4]
    assert open_clips("sample:push").hash == pack.hash
    shutil.rmtree(pack.path)
    assert open_clips("push").hash == pack.hash
    assert opened == ["push"] * 3
    assert capsys.readouterr().err == ""
    (tmp_path / "elsewhere" / "push").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    open_clips("push", progress=True)
    assert capsys.readouterr().err == "push is the built-in sample here; the folder of that name is ./push\n"
