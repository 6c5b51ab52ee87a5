from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from foreframe.data.exports import exports
from foreframe.data.exports import run as exporting
from foreframe.data.exports.run import export
from foreframe.data.pack.pack import Pack
from foreframe.errors import DataError, DiskError, UsageError
from tests.data.exports.conftest import tiny_pack


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return tiny_pack(tmp_path / "pack")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_forms_are_found_by_their_files():
    assert [*exports()] == ["bair_lab", "dance_lab", "lerobot"]
    for name, form in exports().items():
        assert name == form.NAME
        assert form.DESCRIBE
        assert "\n" not in form.DESCRIBE


def test_an_unknown_form_lists_those_there_are(pack: Pack, tmp_path: Path):
    with pytest.raises(UsageError, match=r"no form 'lerobo' .* bair_lab, dance_lab, lerobot; did you mean 'lerobot'\?"):
        export(pack, tmp_path / "out", "lerobo")


def test_the_export_tells_where_it_came_from(pack: Pack, tmp_path: Path):
    notes = export(pack, tmp_path / "deeper" / "out", "bair_lab")
    record = json.loads((tmp_path / "deeper/out/export.json").read_text())
    assert (record["form"], record["pack"], record["pack_sha256"]) == ("bair_lab", "pack", pack.hash)
    assert record["notes"] == notes
    assert entries(tmp_path / "deeper") == ["out"]


def test_an_empty_folder_is_filled_and_any_other_refused(pack: Pack, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    export(pack, tmp_path / "empty", "bair_lab")
    with pytest.raises(DataError, match="already exists; choose another folder, or overwrite it with --overwrite"):
        export(pack, tmp_path / "empty", "bair_lab")


def test_only_an_export_is_overwritten(pack: Pack, tmp_path: Path):
    export(pack, tmp_path / "out", "bair_lab")
    export(pack, tmp_path / "out", "lerobot", overwrite=True)
    assert entries(tmp_path / "out") == ["data", "export.json", "meta"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years")
    for folder in (tmp_path / "precious", pack.path):
        with pytest.raises(DataError, match="is not an export, so it is not overwritten"):
            export(pack, folder, "lerobot", overwrite=True)
    assert (tmp_path / "precious/thesis.txt").read_text() == "years"
    assert entries(tmp_path) == ["out", "pack", "precious"]


def test_a_damaged_pack_is_not_handed_on(pack: Pack, tmp_path: Path):
    with (pack.path / "frames.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([int(pack.frames[-1, -1, -1, -1]) ^ 1]))
    with pytest.raises(DataError, match="the pack has changed since it was written"):
        export(pack, tmp_path / "out", "lerobot")
    assert entries(tmp_path) == ["pack"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("form", ["lerobot", "bair_lab"])
def test_an_exception_while_writing_leaves_nothing_behind(
    pack: Pack, tmp_path: Path, form: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    real = exports()[form]

    class Stopped:
        @staticmethod
        def write(pack, dst, tick):
            def tock(frames: int) -> None:
                raise error

            return real.write(pack, dst, tock)

    monkeypatch.setattr(exporting, "exports", lambda: {form: Stopped})
    with pytest.raises(error):
        export(pack, tmp_path / "out", form)
    assert entries(tmp_path) == ["pack"]


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
@pytest.mark.parametrize(("form", "limit"), [("lerobot", 0), ("lerobot", 2000), ("lerobot", 9000), ("bair_lab", 100)])
def test_a_full_disk_leaves_nothing_behind(pack: Pack, tmp_path: Path, form: str, limit: int):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(
            DiskError, match=r"out: cannot be written: File too large \([0-9,]+ bytes needed, [0-9,]+ free"
        ):
            export(pack, tmp_path / "out", form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert entries(tmp_path) == ["pack"]


def test_a_failing_rename_leaves_the_old_export_whole(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    export(pack, tmp_path / "out", "bair_lab")
    before = sorted(tmp_path.glob("out/**/*"))
    real = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == tmp_path / "out" and self.name != "replaced":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DiskError, match="cannot be written: No space left on device"):
        export(pack, tmp_path / "out", "lerobot", overwrite=True)
    assert sorted(tmp_path.glob("out/**/*")) == before
    assert entries(tmp_path) == ["out", "pack"]


def test_what_a_killed_export_left_is_swept_by_the_next(pack: Pack, tmp_path: Path):
    left = tmp_path / f".out.{socket.gethostname()}.{2**22 + 7}.export"
    left.mkdir()
    export(pack, tmp_path / "out", "bair_lab")
    assert entries(tmp_path) == ["out", "pack"]


def test_a_bar_counts_every_frame(pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    total = len(pack.frames)
    for form in ("bair_lab", "lerobot"):
        export(pack, tmp_path / form, form, progress=True)
        assert f"writing frames {total}/{total}" in capsys.readouterr().err
    poses = tiny_pack(tmp_path / "poses", "pose")
    export(poses, tmp_path / "dance_lab", "dance_lab", progress=True)
    assert f"writing frames {total}/{total}" in capsys.readouterr().err
