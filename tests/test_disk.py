from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from foreframe import disk
from foreframe.errors import DiskError


def test_a_file_is_replaced_whole_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    disk.put(path, "old")
    disk.put(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["c.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_refusal_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "c.txt"
    disk.put(path, "old")

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(DiskError, match=r"c.txt: cannot be written: No space .* \(3 bytes needed, [\d,]+ free\)"):
            disk.put(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.txt"]


def test_what_the_system_writes_in_part_is_written_on(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    assert disk.write(tmp_path / "x", b"0123456789" * 3) == disk.write(tmp_path / "y", b"0123456789" * 3)
    assert (tmp_path / "x").read_bytes() == b"0123456789" * 3


def test_a_pipe_is_written_to_as_it_is(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    disk.put(path, "text")
    reader.join()
    assert read == [b"text"]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_that_refuses_is_an_error_like_any_other():
    with pytest.raises(DiskError, match=r"/dev/full: cannot be written: No space left .* \(4 bytes needed, "):
        disk.put(Path("/dev/full"), "text")


def test_what_was_left_unfinished_is_swept_and_all_else_stays(tmp_path, monkeypatch):
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-file").touch()
    (tmp_path / "file").touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", lambda *_: (_ for _ in ()).throw(PermissionError()))
        disk.sweep(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".tmp-file", "file"]
    disk.sweep(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_is_free_is_told_of_a_path_that_is_not_there_yet(tmp_path, monkeypatch):
    assert disk.free(tmp_path / "not" / "yet") > 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (_ for _ in ()).throw(OSError()))
    assert disk.free(tmp_path) is None
    assert str(disk.refused(tmp_path / "x", OSError("broken"))) == f"{tmp_path / 'x'}: cannot be written: broken"


def test_a_lock_is_held_by_one_and_says_by_whom(tmp_path):
    first, second = disk.Lock(tmp_path / "lock"), disk.Lock(tmp_path / "lock")
    assert first.take() == ""
    assert first.held
    assert second.take().startswith(f"process {os.getpid()} on ")
    assert not second.held
    second.release()
    first.release()
    assert second.take() == ""
    (tmp_path / "lock").write_text("")
    assert first.take() == "another process"


def test_a_lock_ends_with_its_process(tmp_path):
    lock, child = disk.Lock(tmp_path / "lock"), os.fork()
    if not child:
        lock.take()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert lock.take() == ""


def test_a_lock_that_cannot_be_made_is_an_error_and_a_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    with pytest.raises(DiskError, match="lock: cannot be written: No such file or directory"):
        disk.Lock(tmp_path / "none" / "lock").take()
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    assert [disk.Lock(tmp_path / "lock").take() for _ in range(2)] == ["", ""]
