"""Files of others: which are opened at all, and which stay open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foreframe.errors import DataError, explain, reading
from foreframe.files import Recent, identity


class Open:
    def __init__(self, size: int = 1) -> None:
        self.size, self.closed = size, False

    def close(self) -> None:
        self.closed = True


def test_only_the_items_used_last_stay_open():
    recent: Recent[str, Open] = Recent(2)
    first, second = recent.use("a", Open), recent.use("b", Open)
    assert recent.use("a", Open) is first
    third = recent.use("c", Open)
    assert [item.closed for item in (first, second, third)] == [False, True, False]
    assert recent.get("b") is None
    recent.clear()
    assert len(recent) == 0
    assert first.closed
    assert third.closed


def test_an_item_that_does_not_fit_is_closed_and_made_again():
    recent: Recent[str, Open] = Recent(2)
    old = recent.use("a", Open)
    new = recent.use("a", Open, lambda item: item is not old)
    assert old.closed
    assert not new.closed
    assert new is not old
    assert recent.put("a", old) is old
    assert new.closed


def test_items_are_kept_by_their_sizes_and_the_last_one_always_is():
    recent: Recent[int, bytes] = Recent(5, len)
    for key, size in ((0, 2), (1, 3), (2, 1), (3, 9)):
        recent.use(key, lambda size=size: bytes(size))
        assert recent.get(key) is not None
    assert [recent.get(key) is not None for key in range(4)] == [False, False, False, True]
    recent.drop(7)
    recent.drop(3)
    assert len(recent) == 0


def test_a_file_that_was_written_again_is_another_one(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"12")
    before = identity(path, "a")
    assert before == identity(path, "a")
    assert before.size == 2
    path.write_bytes(b"123")
    assert before != identity(path, "a")


def test_what_is_no_plain_file_is_refused_by_its_name(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe, socket or device")):
        with pytest.raises(DataError, match=f"shown: expected a table, found {words}"):
            identity(path, "shown", "a table")
    with pytest.raises(DataError, match="expected a file that can be read, found No such file or directory"):
        identity(tmp_path / "none", "shown")


def test_only_the_given_errors_become_faults_and_each_has_words():
    with (
        pytest.raises(DataError, match="x, row 1: expected numbers, found two lines"),
        reading("x", "row 1", "numbers", ValueError),
    ):
        raise ValueError("two\nlines")
    with pytest.raises(KeyError), reading("x", "row 1", "numbers", ValueError):
        raise KeyError("a")
    assert explain(KeyError("a 'name'")) == "a 'name'"
    assert explain(EOFError()) == "EOFError"
    assert explain(OSError(2, "gone")) == "gone"
    assert len(explain(ValueError("x" * 999))) == 200
