"""Imports that are killed go on where they were, and end as if they had never been killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from foreframe import disk
from foreframe.clip import ClipSpec
from foreframe.data.ingest import pool, reading
from foreframe.data.ingest.run import import_clips, pack_source
from foreframe.data.ingest.transform import shape
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack import journal, writer
from foreframe.data.pack.journal import BusyError, Journal, StoppedError
from foreframe.data.pack.pack import PackWriter
from foreframe.errors import DataError, UsageError
from foreframe.sim.make import make_clips

SPEC = ClipSpec(3, 4, 5, "vector", 2)
KILLED = """
import os, signal, sys
from pathlib import Path
from foreframe.data.pack import journal
from foreframe.data.ingest.run import import_clips
from foreframe.data.pack.pack import PackWriter
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


INTERRUPTED = """
import sys
from functools import partial
from pathlib import Path
from tests.data.test_restart import _slowly, ready
from foreframe.data.ingest import pool, reading
from foreframe.data.ingest.run import pack_source
clips = ready(*(partial(_slowly, n) for n in range(90)))
try:
    with pool.Readers(2) as readers:
        pack_source(clips, Path("made"), Path(sys.argv[1]), key="k", readers=readers)
except KeyboardInterrupt:
    raise SystemExit(130) from None
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
        os.truncate(partial_folder / "arrays" / "frames.npy", 200)
    elif damage == "journal":
        (partial_folder / journal.JOURNAL).write_text('{"key": ')
    elif damage == "gone":
        (partial_folder / "arrays" / "cond.npy").unlink()
    assert write(tmp_path / "pack", key="other" if damage == "key" else "k") == []
    assert not partial_folder.exists()


def test_a_last_line_cut_short_costs_only_the_clips_behind_the_last_safe_one(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pack", 3)
    path = tmp_path / ".pack.partial" / journal.JOURNAL
    path.write_text(path.read_text() + '{"clip": "clip-3", "sta')
    assert write(tmp_path / "pack") == ["clip-0", "clip-1", "clip-2"]


def test_what_is_added_behind_a_line_cut_short_is_found_by_the_writer_after_the_next(tmp_path: Path):
    for stop in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "pack", stop)
        with (tmp_path / ".pack.partial" / journal.JOURNAL).open("a") as file:
            file.write('{"clip": "clip-4", "sta')
    assert write(tmp_path / "pack") == [f"clip-{number}" for number in range(4)]


@pytest.mark.parametrize("at", ["sha256", "sync", "_put_in_place"])
def test_an_interrupt_while_a_pack_is_finished_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr({"sha256": writer, "sync": disk, "_put_in_place": PackWriter}[at], at, stop)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "pack")
    assert write(tmp_path / "pack") == [f"clip-{number}" for number in range(5)]
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_no_other_process_may_touch_a_pack_that_is_being_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    finish, refused = PackWriter._put_in_place, []

    def busy(writer: PackWriter) -> None:
        with pytest.raises(BusyError) as caught:
            Journal(tmp_path / ".pack.partial", "k").open({})
        refused.append(caught.value)
        finish(writer)

    monkeypatch.setattr(PackWriter, "_put_in_place", busy)
    write(tmp_path / "pack")
    assert len(refused) == 1


def test_where_files_cannot_be_locked_a_pack_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert write(tmp_path / "pack") == []


def test_a_writer_that_nobody_can_go_on_with_notes_nothing(tmp_path: Path):
    with PackWriter(tmp_path / "pack", SPEC, ("a", "b")) as writer:
        writer.add("a", "train", np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 2), np.float32))
        writer.note("a")
        assert [*writer.left_behind] == []
        assert not list(tmp_path.glob("*.partial"))


def test_numbers_without_a_name_each_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="cond_names: expected 2 names, found 1"):
        PackWriter(tmp_path / "pack", SPEC, ("a",))


def test_two_processes_cannot_write_the_same_pack(tmp_path: Path):
    with PackWriter(tmp_path / "pack", SPEC, ("a", "b"), resume="k") as writer:
        with pytest.raises(BusyError, match=rf"process {os.getpid()} on .* is making this pack; wait for it"):
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


def _die(start: int, stop: int) -> RawChunk:
    os._exit(3)


def _killed(start: int, stop: int) -> RawChunk:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _no_memory(start: int, stop: int) -> RawChunk:
    raise MemoryError


def _divide(start: int, stop: int) -> RawChunk:
    return RawChunk(np.zeros((1 // 0, 4, 6, 3), np.uint8))


def _torn(start: int, stop: int) -> RawChunk:
    raise OSError(errno.EIO, "Input/output error")


def _slowly(value: int, start: int, stop: int) -> RawChunk:
    if (value, start) == (1, 0):
        os.killpg(0, signal.SIGINT)  # as Ctrl-C does, once two processes read
    time.sleep(0.5)
    return _frames(value, start, stop)


def _frames(value: int, start: int, stop: int) -> RawChunk:
    if value == 3 and start >= 64:
        raise DataError("ended early")
    return RawChunk(np.full((stop - start, 4, 6, 3), value, np.uint8))


def ready(*reads, length: int = 150):
    clips = tuple(SourceClip(f"c{n}", "train", length, read, file=f"f{n % 3}") for n, read in enumerate(reads))
    return shape(SourceIndex("test", clips, (4, 6)), Options())


def read(clips, workers: int) -> list[tuple[str, int, object]]:
    """Clip, first frame, and the outcome, of every chunk."""
    with pool.Readers(workers) as readers:
        return [(clip.name, start, outcome) for clip, start, outcome in readers.read(clips)]


def test_clips_come_in_their_order_from_any_number_of_processes():
    clips = ready(*(partial(_frames, n) for n in range(7))).clips
    for workers in (0, 2):
        seen = [
            (name, start, "error" if isinstance(outcome, DataError) else int(outcome.frames[0, 0, 0, 0]))
            for name, start, outcome in read(clips, workers)
        ]
        whole = [(f"c{n}", start, n) for n in range(7) for start in (0, 64, 128)]
        broken = [item if item[:2] != ("c3", 64) else ("c3", 64, "error") for item in whole if item[:2] != ("c3", 128)]
        assert seen == broken


def test_a_reading_process_that_dies_costs_one_clip_and_the_others_are_read():
    clips = ready(*[partial(_frames, 1), _die, partial(_frames, 2), partial(_frames, 4)], length=60).clips
    for workers in (1, 2):
        found = read(clips, workers)
        assert [name for name, _, _ in found] == ["c0", "c1", "c2", "c3"]
        error = found.pop(1)[2]
        assert isinstance(error, DataError)
        expected = (
            "c1: expected data that a library can read, found one that ends the process which reads it (exit status 3)"
        )
        assert list(map(str, error.faults)) == [expected]
        assert [int(outcome.frames[0, 0, 0, 0]) for _, _, outcome in found] == [1, 2, 4]


@pytest.mark.parametrize(("last", "workers"), [("_killed", 1), ("_no_memory", 0)])
def test_what_was_read_before_memory_ran_out_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, workers: int
):
    monkeypatch.setattr(journal, "SECONDS", 0.0)
    reads = [partial(_frames, 1), partial(_frames, 2), {"_killed": _killed, "_no_memory": _no_memory}[last]]
    with (
        pytest.raises(StoppedError, match=r"c2: .*memory.*what was done is kept: start again with"),
        pool.Readers(workers) as readers,
    ):
        pack_source(ready(*reads), Path("made"), tmp_path / "p", key="k", on_bad="skip", readers=readers)
    with PackWriter(tmp_path / "p", ready(*reads).spec, resume="k") as writer:
        assert sorted(writer.left_behind) == ["c0"]
        writer.add("c0", "train", np.zeros((150, 4, 6, 3), np.uint8))


def test_another_error_names_the_clip_that_was_read(tmp_path: Path):
    for workers in (0, 1):
        with pytest.raises(ZeroDivisionError) as caught:
            read(ready(_divide).clips, workers)
        assert caught.value.__notes__ == ["This happened while frames 0 to 63 of the clip c0 were read."]


def test_a_disk_that_cannot_be_read_is_a_fault_of_the_clip(tmp_path: Path):
    pack = pack_source(ready(_torn, partial(_frames, 2)), Path("made"), tmp_path / "p", key="k", on_bad="skip")
    assert pack.manifest.left_out[0].reasons == ("c0: expected a clip that can be read, found Input/output error",)


def test_processes_read_only_a_little_ahead_even_where_short_clips_come_before_long_ones(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pool, "AHEAD_BYTES", 3 * 4 * 6 * 100)
    short = [SourceClip(f"s{n}", "train", 2, partial(_frames, n % 3)) for n in range(60)]
    long = [SourceClip(f"l{n}", "train", 64, partial(_frames, n % 3)) for n in range(60)]
    clips = shape(SourceIndex("test", (*short, *long), (4, 6)), Options()).clips
    most = 0
    with pool.Readers(1) as readers:
        for _ in readers.read(clips):
            most = max(most, readers._tracks[0].bytes)
    assert most <= 3 * 4 * 6 * (100 + 2 * 64)


def test_what_is_no_longer_wanted_is_not_read():
    with pool.Readers(1) as readers:
        _, _, outcome = next(readers.read(ready(*(partial(_slowly, n) for n in range(40))).clips))
        assert int(outcome.frames[0, 0, 0, 0]) == 0
        process = readers._tracks[0].reader.process
        assert process.is_alive()
    assert process.exitcode == -signal.SIGKILL


def test_reading_processes_that_cannot_all_be_started_leave_none(monkeypatch: pytest.MonkeyPatch):
    begun = []

    class Refusing(pool._Reader):
        def __init__(self, *arguments) -> None:
            if begun:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            super().__init__(*arguments)
            begun.append(self)

    monkeypatch.setattr(pool, "_Reader", Refusing)
    with pytest.raises(BlockingIOError):
        read(ready(*[partial(_frames, 1)] * 4).clips, 2)
    assert begun[0].process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("reads", "sent"),
    [
        ([partial(_frames, 3)], [("ClipChunk", False), ("DataError", True)]),
        ([_divide, partial(_frames, 1)], ["Raised"]),
        ([partial(_frames, 1), _no_memory], [("ClipChunk", False)] * 2 + [("ClipChunk", True), "Raised"]),
    ],
)
def test_a_reading_process_sends_what_reading_gave_up_to_what_ends_it(reads: list, sent: list):
    here, there = Pipe()
    reading.serve(there, reading.Clips(ready(*reads).clips, 64, ""))
    there.close()
    for kind in sent:
        found = here.recv()
        assert ((type(found[0]).__name__, found[1]) if isinstance(found, tuple) else type(found).__name__) == kind
    with pytest.raises(EOFError):
        here.recv()


def test_fewer_than_no_processes_are_refused():
    with pytest.raises(UsageError, match="workers: expected 0 or more, found -1"):
        pool.Readers(-1)


@pytest.mark.nightly  # it looks at the clock
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_ends_an_import_soon_without_a_word_from_its_workers(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "pack"], capture_output=True, text=True, start_new_session=True,
        timeout=600, check=False, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "")


def test_many_frames_are_read_in_other_processes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    few, many = ready(_die).clips, ready(*[_die] * 40).clips
    assert [pool.Readers(workers)._wanted(clips) for clips in (few, many) for workers in (None, 0, 9)] == [
        *(1, 0, 1),
        *(4, 0, 9),
    ]


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
        ("push", {"seed": -1}, "seed: expected 0 or more, found -1"),
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
