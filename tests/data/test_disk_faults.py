"""Disks that refuse while clips are packed or handed on: what was there is untouched, and the message says enough."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe import disk
from foreframe.clip import ClipSpec
from foreframe.data.exports.run import export
from foreframe.data.ingest import reading
from foreframe.data.ingest.run import pack_source
from foreframe.data.ingest.transform import PreparedSource, shape
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack import journal
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError, DiskError, Fault
from tests.data.exports.conftest import tiny_pack

CAUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
FULL = "disk faults with the old folder untouched and path, cause and bytes in the message"
COUNTED = ("open", "mkdir", "rename", "replace", "write", "fsync", "truncate")
"""Calls of `os` that may be refused; so may io.open for writing, and what is done to the files that it opens."""
SPEC = ClipSpec(3, 4, 6, "vector", 2)
FRAME = 3 * 4 * 6 + 2 * 4
"""Bytes of a frame and its condition."""
HEADERS = 2 * 128


class Faults:
    """Counts what asks the disk for something, and refuses the n-th time."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.count, self.at, self.cause, self.refused = 0, -1, 0, ""
        self.folder = str(folder)
        for name in COUNTED:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))
        real = io.open

        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if ("r" in mode and "+" not in mode) or not str(file).startswith(self.folder):
                return real(file, mode, *arguments, **options)
            self._ask("open")
            return _File(real(file, mode, *arguments, **options), self._ask)

        patch.setattr(io, "open", opened)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *arguments: Any, **options: Any) -> Any:
            removing = "dir_fd" in options  # what is left of a removal is swept by the next
            if not removing and (isinstance(first, int) or str(first).startswith(self.folder)):
                self._ask(name)
            return real(first, *arguments, **options)

        return call

    def _ask(self, name: str) -> None:
        self.count += 1
        if self.count == self.at:
            self.refused = name
            raise OSError(self.cause, os.strerror(self.cause))

    def refuse(self, at: int, cause: int) -> None:
        self.count, self.at, self.cause = 0, at, cause


class _File:
    """A file of which every write, flush and truncation is asked for."""

    def __init__(self, file: Any, ask: Callable[[str], None]) -> None:
        self._file, self._ask = file, ask

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name not in ("write", "flush", "truncate"):
            return found

        def asked(*arguments: Any) -> Any:
            self._ask(name)
            return found(*arguments)

        return asked

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _numbers(name: int, start: int, stop: int) -> RawChunk:
    return RawChunk(np.full((stop - start, 2), name, np.float32))


def _frames(name: int, start: int, stop: int) -> RawChunk:
    return RawChunk(np.full((stop - start, 4, 6, 3), name, np.uint8))


def source(*values: int, length: int = 3) -> PreparedSource:
    clips = tuple(
        SourceClip(f"c{value}", "train", length, partial(_frames, value), partial(_numbers, value)) for value in values
    )
    return shape(SourceIndex("test", clips, (4, 6), "vector", ("a", "b")), Options())


def pack(dst: Path, *values: int) -> Pack:
    return pack_source(source(*values), Path("made"), dst, key="k", overwrite=True)


def plain(dst: Path, *values: int) -> Pack:
    with PackWriter(dst, SPEC, ("a", "b"), overwrite=True) as writer:
        for value in values:
            writer.add(f"c{value}", "train", np.full((3, 4, 6, 3), value, np.uint8), np.ones((3, 2), np.float32))
    return Pack.open(dst)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told(error: DiskError, folder: Path, cause: int) -> None:
    """The message holds path, cause, bytes needed and bytes free."""
    assert str(error).startswith(f"{folder}/"), error
    needed = "" if "/lock: " in str(error) else "[0-9,]+ bytes needed, "  # it is empty
    assert re.search(rf": cannot be written: {os.strerror(cause)} \({needed}[0-9,]+ free\)", str(error)), error


def refuse_each(
    folder: Path, patch: pytest.MonkeyPatch, work: Callable[[], object], dst: Path, all_causes: bool, every: int = 1
) -> int:
    """Do `work`, which replaces `dst`, with each of its calls refused in turn; how many were.

    What was at `dst` must still be there, or the new folder where only the bringing of its name to the disk was
    refused; and the same work must then go on, and end as if nothing had been. every: how many calls to the next try.
    """
    before, kept, late = content(dst), folder.with_name("kept"), 0
    shutil.copytree(dst, kept)
    work()
    after = content(dst)
    assert after != before
    faults = Faults(patch, folder)
    work()
    calls = faults.count
    tries = [
        (at, cause)
        for at in range(calls, 0, -every)
        for cause in (CAUSES if all_causes else [CAUSES[at % len(CAUSES)]])
    ]
    for at, cause in tries:
        shutil.rmtree(dst)
        shutil.copytree(kept, dst)
        faults.refuse(at, cause)
        try:
            work()
        except DiskError as error:
            told(error, folder, cause)
            late += content(dst) == after
        else:
            assert faults.refused == "mkdir"  # of a folder that is there
            assert content(dst) == after
        faults.refuse(-1, 0)
        assert content(dst) in (before, after)
        assert {path.name for path in folder.iterdir()} <= {dst.name, f".{dst.name}.partial", "pack"}
        work()
        assert content(dst) == after
        assert {path.name for path in folder.iterdir()} <= {dst.name, "pack"}
    assert late == sum(at > calls - 2 for at, _ in tries)  # the last two calls, of disk.sync, and no other
    return len(tries)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("all_causes", [False, pytest.param(True, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("make", [pack, plain])
def test_a_refused_call_leaves_the_pack_that_was_there_and_the_next_try_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, figure, make: Callable[..., Pack], all_causes: bool
):
    monkeypatch.setattr(journal, "SECONDS", 0.0)
    make(folder / "pack", 7)
    tried = refuse_each(folder, monkeypatch, lambda: make(folder / "pack", 1, 2, 3), folder / "pack", all_causes)
    assert tried > 20
    figure(FULL, tried, tried)


@pytest.mark.parametrize(
    ("form", "all_causes", "every"),
    [
        ("bair_lab", False, 1),
        ("lerobot", False, 17),
        pytest.param("bair_lab", True, 1, marks=pytest.mark.nightly),
        pytest.param("lerobot", False, 1, marks=pytest.mark.nightly),
    ],
)
def test_a_refused_call_leaves_the_export_that_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, figure, form: str, all_causes: bool, every: int
):
    monkeypatch.setattr(os, "sync", lambda: None)  # of the whole machine
    source = tiny_pack(folder / "pack", clips=[("a", "train", 2)])
    export(tiny_pack(folder.parent / "old", clips=[("b", "train", 1)]), folder / "out", form)
    out = folder / "out"
    work = partial(export, source, out, form, overwrite=True)
    tried = refuse_each(folder, monkeypatch, work, out, all_causes, every)
    assert tried > 10
    figure(FULL, tried, tried)


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
@pytest.mark.parametrize("limit", [0, 100, 128 + 50, 128 + 3 * 72, 128 + 7 * 72, 3000])
def test_a_disk_that_is_full_in_the_middle_of_a_file_costs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int
):
    import resource

    monkeypatch.setattr(journal, "SECONDS", 0.0)
    pack(folder / "pack", 7)
    before = content(folder / "pack")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DiskError, match=r"File too large \([0-9,]+ bytes needed, [0-9,]+ free\)"):
            pack(folder / "pack", *range(60))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(folder / "pack") == before
    read: list[str] = []
    real = reading._read
    monkeypatch.setattr(reading, "_read", lambda clip, *range: read.append(clip.name) or real(clip, *range))
    pack(folder / "pack", *range(60))
    assert content(folder / "pack") == content(pack(folder.parent / "other", *range(60)).path)
    kept = max(0, (limit - 128) // (3 * 72) - 1)
    assert len(read) - 60 <= 60 - kept
    assert [path.name for path in folder.iterdir()] == ["pack"]


def test_bytes_needed_are_those_still_to_come_or_of_this_piece_where_nobody_knows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write, calls = PackWriter._write, 0

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:  # the frames of the second clip
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(PackWriter, "_write", full)
    with pytest.raises(DiskError, match=rf"No space left on device \({HEADERS + 2 * 3 * FRAME:,} bytes needed, "):
        pack(folder / "pack", 1, 2, 3)
    with pytest.raises(DiskError, match=rf"\({HEADERS + 3 * FRAME:,} bytes needed, [0-9,]+ free\); nothing was kept"):
        plain(folder / "other", 1, 2, 3)


def test_a_disk_without_room_for_the_pack_is_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    needed = HEADERS + 6 * FRAME
    monkeypatch.setattr(disk, "free", lambda _: needed - 1)
    expected = rf"pack: {needed:,} bytes needed for 6 frames, {needed - 1:,} free there; nothing was written"
    with pytest.raises(DataError, match=expected):
        pack(folder / "deeper" / "pack", 1, 2)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(disk, "free", lambda _: needed)
    pack(folder / "pack", 1, 2)
    monkeypatch.setattr(disk, "free", lambda _: None)  # it cannot be told
    pack(folder / "other", 1, 2)


def test_room_that_an_earlier_try_has_filled_counts_as_there(folder: Path, monkeypatch: pytest.MonkeyPatch):
    finish = PackWriter._finish

    def stop(_: PackWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PackWriter, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(folder / "pack", 1, 2)
    assert PackWriter._finish is finish
    monkeypatch.setattr(disk, "free", lambda _: 0)
    assert len(pack(folder / "pack", 1, 2).frames) == 6


def test_clips_that_are_left_out_need_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch):
    good = source(1, 2)
    fault = Fault("c2", "", "a table", "none")
    bad = replace(good.clips[1], source=replace(good.clips[1].source, faults=(fault,)))
    monkeypatch.setattr(disk, "free", lambda _: HEADERS + 3 * FRAME)
    made = replace(good, clips=(good.clips[0], bad))
    assert len(pack_source(made, Path("made"), folder / "pack", key="k", on_bad="skip").frames) == 3


def test_what_cannot_be_read_back_is_deleted_and_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(PackWriter, "_finish", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(folder / "pack", 1, 2)
    with monkeypatch.context() as patched:
        patched.setattr(np, "frombuffer", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(DataError, match=r"arrays: cannot be read: Input/output error, so it was deleted; start"):
            pack(folder / "pack", 1, 2)
    assert list(folder.iterdir()) == []
    pack(folder / "pack", 1, 2).verify()


def test_where_even_the_old_pack_cannot_be_put_back_the_message_says_where_it_lies(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    pack(folder / "pack", 7)
    before, real = content(folder / "pack"), Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target == folder / "pack":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DiskError, match=r"Input/output error; what was there lies in .*/replaced \(") as caught:
        pack(folder / "pack", 1, 2)
    place = re.search(r"lies in (\S+)", str(caught.value))
    assert place is not None
    assert content(Path(place[1])) == before


def test_a_disk_that_refuses_to_take_frames_back_is_said_too(folder: Path, monkeypatch: pytest.MonkeyPatch):
    frames, numbers = np.zeros((3, 4, 6, 3), np.uint8), np.zeros((3, 2), np.float32)
    with PackWriter(folder / "pack", SPEC, ("a", "b")) as writer:
        writer.append(frames, numbers)
        faults = Faults(monkeypatch, folder)
        writer._files["frames.npy"] = _File(writer._files["frames.npy"], faults._ask)
        faults.refuse(1, errno.EIO)
        with pytest.raises(DiskError, match=r"pack: cannot be written: Input/output error \([0-9,]+ bytes needed, "):
            writer.rollback()
        writer.rollback()
        writer.add("a", "train", frames + 1, numbers)
    assert Pack.open(folder / "pack").frames.tolist() == (frames + 1).tolist()


def test_only_what_a_process_that_is_gone_has_left_is_swept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    begin = f".pack.{socket.gethostname()}"
    names = [f"{begin}.1.abc", f"{begin}.{10**30}.abc", f"{begin}.x.abc", ".pack.elsewhere.4194311.abc", "other"]
    for name in [*names, f"{begin}.4194311.abc"]:
        (folder / name).mkdir()
    real = os.kill

    def kill(pid: int, number: int) -> None:
        if pid == 1:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(pid, number)

    monkeypatch.setattr(os, "kill", kill)
    disk.sweep_drafts(folder / "pack")
    assert {path.name for path in folder.iterdir()} == set(names)
    disk.sweep_drafts(folder / "nowhere" / "pack")
