"""Imports that are killed go on where they were, and end as if they had never been killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from foreframe.clip import ClipSpec
from foreframe.data import journal, reading
from foreframe.data.clips import Options, Piece, SourceClip, Survey
from foreframe.data.importing import import_clips, pack_source
from foreframe.data.journal import BusyError, Journal
from foreframe.data.making import make_clips
from foreframe.data.pack import PackWriter
from foreframe.data.shaping import shape
from foreframe.errors import DataError, UsageError

SPEC = ClipSpec(3, 4, 5, "vector", 2)
KILLED = """
import os, signal, sys
from pathlib import Path
from foreframe.data import journal
from foreframe.data.importing import import_clips
from foreframe.data.pack import PackWriter
journal.SECONDS = 0.0
left = int(sys.argv[3])
append = PackWriter.append
def killed(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    append(*arguments)
PackWriter.append = killed
import_clips(sys.argv[1], sys.argv[2], on_bad="skip")
"""


@pytest.mark.parametrize("moment", [0, 2])
def test_an_import_killed_at_any_clip_goes_on_and_gives_the_same_bytes(bair: Path, tmp_path: Path, moment: int):
    (bair / "processed_data/train/traj_0/2/3.png").write_bytes(b"")
    plain = import_clips(bair, tmp_path / "plain", on_bad="skip")
    done = subprocess.run([sys.executable, "-c", KILLED, bair, tmp_path / "pack", str(moment)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "pack").exists()
    assert import_clips(bair, tmp_path / "pack", on_bad="skip").hash == plain.hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bair", "pack", "plain"]


def write(folder: Path, stop_after: int | None = None, key: str = "k") -> list[str]:
    """Write five clips of 3 frames, or be interrupted; which of them were there already."""
    with PackWriter(folder, SPEC, ("a", "b"), resume=key) as writer:
        known = sorted(writer.left_behind)
        for number in range(5):
            if number == stop_after:
                raise KeyboardInterrupt
            name = f"clip-{number}"
            frames, cond = np.full((3, 4, 5, 3), number, np.uint8), np.full((3, 2), number, np.float32)
            if name in known:
                writer.check_left_behind(name, 3)
                found = writer.read_back(0, 3)
                np.testing.assert_array_equal(found[0], frames)
                np.testing.assert_array_equal(found[1], cond)
            writer.add(name, "train", frames, cond)
            writer.note(name)
    return known


def test_what_a_writer_left_is_found_and_is_read_back(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pack", 3)
    assert write(tmp_path / "pack") == ["clip-0", "clip-1", "clip-2"]
    write(tmp_path / "plain")
    for name in ("frames.npy", "cond.npy", "manifest.json"):
        assert (tmp_path / "pack" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.parametrize("damage", ["key", "short", "journal", "gone"])
def test_what_does_not_fit_is_thrown_away_and_written_again(tmp_path: Path, damage: str):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pack", 3)
    partial_folder = tmp_path / ".pack.partial"
    if damage == "short":
        os.truncate(partial_folder / "frames.npy", 200)
    elif damage == "journal":
        (partial_folder / journal.JOURNAL).write_text('{"key": ')
    elif damage == "gone":
        (partial_folder / "cond.npy").unlink()
    assert write(tmp_path / "pack", key="other" if damage == "key" else "k") == []
    assert not partial_folder.exists()


def test_a_last_line_cut_short_costs_only_the_clips_behind_the_last_safe_one(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pack", 3)
    path = tmp_path / ".pack.partial" / journal.JOURNAL
    path.write_text(path.read_text() + '{"clip": "clip-3", "sta')
    assert write(tmp_path / "pack") == ["clip-0", "clip-1", "clip-2"]


def test_two_processes_cannot_write_the_same_pack(tmp_path: Path):
    with PackWriter(tmp_path / "pack", SPEC, ("a", "b"), resume="k") as writer:
        with pytest.raises(BusyError, match="another process is making this pack"):
            Journal(tmp_path / ".pack.partial", "k").open({})
        writer.add("a", "train", np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 2), np.float32))


def test_clips_that_changed_their_length_are_not_mixed(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pack", 3)
    with (
        pytest.raises(DataError, match="does not fit its source any more"),
        PackWriter(tmp_path / "pack", SPEC, ("a", "b"), resume="k") as writer,
    ):
        writer.check_left_behind("clip-0", 4)


def _die(start: int, stop: int) -> Piece:
    os._exit(3)


def _frames(value: int, start: int, stop: int) -> Piece:
    if value == 3 and start >= 64:
        raise DataError("ended early")
    return Piece(np.full((stop - start, 4, 6, 3), value, np.uint8))


def ready(*reads, length: int = 150):
    clips = tuple(SourceClip(f"c{n}", "train", length, read, file=f"f{n % 3}") for n, read in enumerate(reads))
    return shape(Survey("test", clips, (4, 6)), Options())


def test_clips_come_in_their_order_from_any_number_of_processes():
    clips = ready(*(partial(_frames, n) for n in range(7))).clips
    for workers in (0, 2):
        seen = [
            (clip.name, start, "error" if isinstance(outcome, DataError) else int(outcome.frames[0, 0, 0, 0]))
            for clip, start, outcome in reading.read_clips(clips, workers)
        ]
        whole = [(f"c{n}", start, n) for n in range(7) for start in (0, 64, 128)]
        broken = [item if item[:2] != ("c3", 64) else ("c3", 64, "error") for item in whole if item[:2] != ("c3", 128)]
        assert seen == broken


def test_a_reading_process_that_dies_is_an_error_not_a_hang():
    with pytest.raises(DataError, match="the process that was reading it died"):
        list(reading.read_clips(ready(_die).clips, 1))


def test_many_frames_are_read_in_other_processes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    few, many = ready(_die).clips, ready(*[_die] * 40).clips
    assert (reading.processes(few, None), reading.processes(many, None), reading.processes(many, 0)) == (0, 4, 0)


def test_a_pack_from_a_source_holds_what_was_read(tmp_path: Path):
    pack = pack_source(ready(partial(_frames, 1), partial(_frames, 2)), Path("made"), tmp_path / "p", key="k")
    assert [(item.name, item.length) for item in pack.episodes] == [("c0", 150), ("c1", 150)]
    assert pack.frames[150:].min() == pack.frames[150:].max() == 2


@pytest.mark.skipif(not (find_spec("mujoco") and find_spec("gymnasium_robotics")), reason="needs the extra `sim`")
def test_simulated_clips_are_the_same_whatever_the_number_of_workers_and_more_only_add(tmp_path: Path):
    one = make_clips("push", tmp_path / "one", clips=3, frames=3, seed=5, workers=0)
    two = make_clips("push", tmp_path / "two", clips=3, frames=3, seed=5, workers=2)
    more = make_clips("push", tmp_path / "more", clips=4, frames=3, seed=5, workers=0)
    assert one.hash == two.hash
    np.testing.assert_array_equal(more.frames[:9], one.frames)
    assert one.manifest.source["options"]["seed"] == 5


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("push", {"clips": 0}, "expected 1 clip or more of 2 frames or more, found 0 of 0"),
        ("push", {"frames": 1}, "found 1000 of 1"),
        ("dance", {"size": (8, 64)}, "size: expected 16 to 512 pixels a side, found 8x64"),
        ("push", {"size": (64, 32)}, "size: push draws squares; found 64x32"),
    ],
)
def test_clips_that_cannot_be_made_are_refused(tmp_path: Path, kind, settings, message):
    with pytest.raises(UsageError, match=message):
        make_clips(kind, tmp_path / "p", **settings)


def test_the_journal_is_plain_json_lines(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pack", 2)
    lines = [json.loads(line) for line in (tmp_path / ".pack.partial" / journal.JOURNAL).read_text().splitlines()]
    assert lines[0]["key"].startswith("k ")
    assert lines[1:] == [
        {"clip": "clip-0", "start": 0, "length": 3},
        {"clip": "clip-1", "start": 3, "length": 3},
        {"safe": 6},
    ]
