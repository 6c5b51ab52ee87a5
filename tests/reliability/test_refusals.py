"""A disk that refuses while a training goes on: what is there stays whole, the message says what is the matter."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from foreframe import checkpoint, disk
from foreframe.errors import DiskError
from foreframe.log import RunLog, read_log
from foreframe.training import resume
from tests.runs import TINY, again, content, make

SHORT = replace(TINY, steps=8, horizon=2, validate_every=4, save_every=2)
CAUSES = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)


@pytest.fixture(scope="module")
def whole(vector_pack, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    make(vector_pack, run, SHORT).run()
    return content(run, SHORT.steps)


def refusing(monkeypatch, where, cause, times=1):
    """The next calls of `disk.write` for a file whose path holds `where` are refused."""
    left, write = [times], disk.write

    def refuse(path, data):
        if where in str(path) and left[0] > 0:
            left[0] -= 1
            raise OSError(cause, os.strerror(cause))
        return write(path, data)

    monkeypatch.setattr(disk, "write", refuse)


def without_refusals(found):
    files, rows, best = found
    return files, [row for row in rows if "written" not in row.get("note", "")], best


@pytest.mark.parametrize("cause", CAUSES, ids=errno.errorcode.get)
def test_a_checkpoint_that_cannot_be_written_is_told_of_and_training_goes_on(
    vector_pack, tmp_path, whole, cause, monkeypatch, figure
):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, SHORT)
    refusing(monkeypatch, "00000002/weights", cause)
    refusing(monkeypatch, "00000004/optimizer", cause)
    assert trainer.run() == "complete at step 8 of 8"
    notes = [row for row in read_log(run) if "written" in row.get("note", "")]
    assert [row["step"] for row in notes] == [2, 4]
    for part in ("step-00000002", os.strerror(cause), "bytes needed", "free", "the next checkpoint is tried"):
        assert part in notes[0]["note"]
    assert without_refusals(content(run, 8)) == whole
    figure("refusals of the disk in training survived", 2, 2)


def test_a_disk_that_refuses_three_times_ends_the_run_with_the_earlier_checkpoint_whole(
    vector_pack, tmp_path, whole, monkeypatch
):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, replace(SHORT, validate_every=0))
    with monkeypatch.context() as patched:
        saves = iter(range(100))
        save = checkpoint.save

        def once(*arguments):
            if next(saves):
                raise DiskError("the disk is full")
            return save(*arguments)

        patched.setattr(checkpoint, "save", once)
        patched.setattr(resume, "SAVE_TRIES", 2)
        with pytest.raises(DiskError, match="the disk is full"):
            trainer.run()
    assert checkpoint.newest(run).step == 2
    assert again(vector_pack, run).run() == "complete at step 8 of 8"
    assert content(run, 8)[0] == whole[0]


def test_the_last_checkpoint_is_not_forgiven(vector_pack, tmp_path, monkeypatch):
    run = tmp_path / "run"
    refusing(monkeypatch, "00000008/weights", errno.ENOSPC)
    with pytest.raises(DiskError, match=r"step-00000008: cannot be written: No space left .* earlier checkpoints are"):
        make(vector_pack, run, SHORT).run()
    assert checkpoint.newest(run).step == 6
    assert again(vector_pack, run).run() == "complete at step 8 of 8"


@pytest.mark.parametrize("short", [False, True], ids=["refused", "half a row"])
def test_a_log_that_cannot_be_written_ends_the_run_and_leaves_no_hole(
    vector_pack, tmp_path, whole, monkeypatch, short, figure
):
    run = tmp_path / "run"
    trainer = make(vector_pack, run, SHORT)
    with monkeypatch.context() as patched:
        write, rows = os.write, iter(range(100))

        def full(handle, data):
            if b'"loss"' in bytes(data[:200]) and next(rows) == 4:
                if short:
                    return write(handle, data[:20])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(handle, data)

        patched.setattr(os, "write", full)
        with pytest.raises(
            DiskError, match=r"log.jsonl: cannot be written: No space left on device \(\d+ bytes needed, "
        ):
            trainer.run()
    assert checkpoint.newest(run).step == 4
    assert again(vector_pack, run).run() == "complete at step 8 of 8"
    assert content(run, 8) == whole
    figure("refusals of the disk in training survived", 1, 1)


def test_a_picture_that_cannot_be_written_is_told_of_and_training_goes_on(vector_pack, tmp_path, whole, monkeypatch):
    run = tmp_path / "run"
    refusing(monkeypatch, ".gif", errno.EROFS)
    assert make(vector_pack, run, SHORT).run() == "complete at step 8 of 8"
    (note,) = [row["note"] for row in read_log(run) if "written" in row.get("note", "")]
    assert "step-00000004.gif: cannot be written: Read-only file system" in note
    assert "training continues without this picture" in note
    assert without_refusals(content(run, 8)) == whole


def test_too_little_room_for_two_checkpoints_is_said_at_the_start(vector_pack, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(disk, "free", lambda _: 1000)
    make(vector_pack, tmp_path / "run", SHORT).run(max_minutes=0)
    assert "two checkpoints take " in capsys.readouterr().out


def test_a_number_that_is_not_finite_is_left_out_of_the_log_since_json_has_none(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write({"step": 1, "loss": float("nan"), "kl": 1.0})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "kl": 1.0}\n'
