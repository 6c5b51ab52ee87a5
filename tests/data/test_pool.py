"""Reading processes: limits of memory and time, and what becomes of the file that reaches one."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import zipfile
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreframe import signals
from foreframe.data.formats.tfrecord import crc32c
from foreframe.data.ingest import reading
from foreframe.data.ingest.check import scan
from foreframe.data.ingest.pool import Readers
from foreframe.data.ingest.reading import ALLOWANCE, Limits
from foreframe.data.ingest.run import import_clips, pack_source
from foreframe.data.ingest.transform import shape
from foreframe.data.layouts import frame_folders
from foreframe.data.layouts.contract import SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import DataError, UsageError
from tests.conftest import Figure
from tests.data import careless

SMALL = Limits(memory=2**26, cpu=20, seconds=600.0)
pytestmark = pytest.mark.skipif(reading.resource is None, reason="no limits on this system")


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch):
    """One process with small limits."""
    with Readers(1) as found:
        found.limits = SMALL
        yield found


def _bomb_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2**30,), "u1", chunks=(2**27,), compression="gzip", fillvalue=1)


def _bomb_parquet(path: Path) -> None:
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**27, np.uint8)), 2**27)
    pq.write_table(pa.table({"a": values}), path, compression="zstd")


def _bomb_npz(path: Path) -> None:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**28},), }}\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for _ in range(2**8):
            file.write(bytes(2**20))


def _bomb_tfrecord(path: Path) -> None:
    length = struct.pack("<Q", 2**40)
    path.write_bytes(length + struct.pack("<I", crc32c(length)) + bytes(50))


BOMBS = {
    "bomb.h5": (_bomb_hdf5, careless.hdf5),
    "bomb.parquet": (_bomb_parquet, careless.parquet),
    "bomb.npz": (_bomb_npz, careless.npz),
    "bomb.tfrecord": (_bomb_tfrecord, careless.tfrecord),
}


def _peak(again: bool = False) -> int:
    """Bytes that this process has used at most, since it was last asked `again`."""
    if again:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_takes_more_memory_than_allowed_is_named_and_this_process_stays_small(
    readers: Readers, tmp_path: Path, figure: Figure, name: str
):
    make, read = BOMBS[name]
    make(tmp_path / name)
    before = _peak(again=True)
    with pytest.raises(DataError) as caught:
        readers.call(partial(read, tmp_path / name), tmp_path)
    grown = _peak() - before
    (fault,) = caught.value.faults
    assert fault.path == str(tmp_path / name)
    assert fault.expected == "a file that is read within 64 MiB of memory"
    assert fault.found == (
        "one that needs more; if you trust it, set FOREFRAME_READER_LIMITS=4 for four times as much, otherwise "
        "leave it out"
    )
    assert grown < 2**23
    figure("MiB by which the importing process grows before a bomb", grown / 2**20)


@pytest.mark.parametrize(
    ("read", "seconds", "words"),
    [
        (careless.spin, 60.0, "a file that is read within 2 s of processor time, found one that needs more"),
        (careless.wait, 0.0, "a file that is read within 0 s, found one that needs more"),
        (careless.crash, 60.0, "data that a library can read, found one that ends the process which "),
    ],
)
def test_a_file_that_never_ends_or_crashes_a_library_is_named(
    readers: Readers, tmp_path: Path, read, seconds: float, words: str
):
    (tmp_path / "a.bin").write_bytes(b"x")
    readers.limits = Limits(2**26, 2, seconds)
    if read is careless.wait:  # whatever it is at when the clock is looked at
        with pytest.raises(DataError, match=r"expected a file that is read within 0 s, found one that needs more"):
            readers.call(partial(read, tmp_path / "a.bin"), tmp_path)
        return
    with pytest.raises(DataError) as caught:
        readers.call(partial(read, tmp_path / "a.bin"), tmp_path)
    assert str(caught.value.faults[0]).startswith(f"{tmp_path}/a.bin: expected {words}")


def test_a_clip_that_reaches_a_limit_is_at_fault_and_the_others_are_packed(readers: Readers, tmp_path: Path):
    reads = {"a": partial(careless.pictures, 1), "b": careless.take, "c": partial(careless.pictures, 2)}
    clips = tuple(SourceClip(name, "train", 20, read, file="one file") for name, read in reads.items())
    source = shape(SourceIndex("test", clips, (4, 6)), Options())
    pack = pack_source(source, Path("made"), tmp_path / "p", key="k", on_bad="skip", readers=readers)
    assert [item.name for item in pack.episodes] == ["a", "c"]
    (left,) = pack.manifest.left_out
    assert left.clip == "b"
    assert left.reasons[0].startswith(
        "b: expected a file that is read within 64 MiB of memory, found one that needs more"
    )


def test_a_clip_that_is_read_for_too_long_is_at_fault(readers: Readers):
    source = shape(SourceIndex("test", (SourceClip("a", "train", 20, careless.stop_forever),), (4, 6)), Options())
    readers.limits = Limits(2**26, 20, 0.0)
    ((_, _, outcome),) = readers.read(source.clips)
    assert isinstance(outcome, DataError)
    assert str(outcome.faults[0]).startswith("a: expected a file that is read within 0 s, found one that needs more")


def test_the_index_of_every_import_and_check_is_read_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    frame_folders.example(tmp_path / "source")
    monkeypatch.setattr(frame_folders, "survey", lambda *_: pytest.fail("read in this process"))
    plain = import_clips(tmp_path / "source", tmp_path / "pack", workers=None)
    assert len(plain.episodes) == len(scan(tmp_path / "source", workers=1).clips)
    with pytest.raises(pytest.fail.Exception, match="read in this process"):
        scan(tmp_path / "source", workers=0)


class Ended(BaseException):
    """Instead of the end of a reading process that is played in this one."""


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch):
    """A reading process in this one: what it sets the limits of resources to, and the hook that it installs."""
    calls: dict[int, tuple[int, int]] = {}
    hooks: list = []

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(reading.signals, "ignore", lambda: None)
    monkeypatch.setattr(reading.os, "_exit", end)
    monkeypatch.setattr(reading.sys, "addaudithook", hooks.append)
    monkeypatch.setattr(reading.resource, "setrlimit", calls.__setitem__)
    for name in ("limits", "_file", "_folder", "_parent"):
        monkeypatch.setattr(reading.Guard, name, getattr(reading.Guard, name))
    return calls, hooks


class File:
    """In the place of the shared name of a file."""

    value = b""


def no_memory() -> None:
    raise MemoryError


def test_a_reading_process_sets_its_limits_does_its_jobs_and_ends_with_its_connection(played, tmp_path: Path):
    here, there = Pipe()
    here.send(reading.Call(no_memory, str(tmp_path)))
    index = SourceIndex("t", (SourceClip("a", "train", 9, careless.no_memory),), (4, 6))
    here.send(reading.Clips(shape(index, Options()).clips, 64, ""))
    file = File()

    class Closing:
        """A connection whose other end is closed after two jobs."""

        def __getattr__(self, name: str):
            return getattr(there, name)

        def recv(self):
            if not there.poll():
                raise EOFError
            return there.recv()

    with pytest.raises(Ended, match="0"):
        reading.work(Closing(), Limits(2**20, 5, 1.0), file, os.getppid())
    assert here.recv() is None
    assert str(here.recv().faults[0]).startswith(f"{tmp_path}: expected a file that is read within 1 MiB of memory")
    outcome, last = here.recv()
    assert last
    assert str(outcome.faults[0]).startswith("a: expected a file that is read within 1 MiB of memory")
    calls, (note,) = played
    assert set(calls) == {reading.resource.RLIMIT_CORE, reading.resource.RLIMIT_DATA, reading.resource.RLIMIT_CPU}
    reading.Guard.watch("/source")
    for arguments in (("/source/a", "r", 0), ("/elsewhere", "r", 0), (3, "r", 0)):
        note("open", arguments)
    note("import", ("/source/b",))
    assert file.value == b"/source/a"
    reading.Guard._parent = -1
    with pytest.raises(Ended, match="1"):
        note("open", ("/source/c", "r", 0))


def test_a_reading_process_ends_when_nobody_takes_its_results(tmp_path: Path):
    here, there = Pipe()
    here.close()
    with pytest.raises(ConnectionError):
        reading.serve(there, reading.Call(Path.cwd, str(tmp_path)))


def test_where_the_system_has_no_such_limits_there_are_none(played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls, _ = played
    monkeypatch.setattr(reading, "STATUS", tmp_path / "none")
    reading.Guard.start(Limits(), File(), 1)
    assert reading.resource.RLIMIT_DATA not in calls
    (tmp_path / "none").write_text("Name: x\n")
    reading.Guard.start(Limits(), File(), 1)
    assert reading.resource.RLIMIT_DATA not in calls
    calls.clear()
    monkeypatch.setattr(reading, "resource", None)
    reading.Guard.start(Limits(), File(), 1)
    assert calls == {}
    monkeypatch.delattr(signal, "pthread_sigmask")
    with signals.signals_blocked():
        pass


def test_a_limit_is_never_set_above_that_of_the_system(played, monkeypatch: pytest.MonkeyPatch):
    calls, _ = played
    for hard, soft in ((reading.resource.RLIM_INFINITY, 700), (500, 500)):
        monkeypatch.setattr(reading.resource, "getrlimit", lambda _, hard=hard: (0, hard))
        reading._set_soft(1, 700)
        assert calls[1] == (soft, hard)


def test_limits_are_scaled_by_a_factor_that_must_be_a_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ALLOWANCE, "0.5")
    assert Limits.from_environment() == Limits(2**31, 300, 900.0)
    for wrong in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(ALLOWANCE, wrong)
        with pytest.raises(
            UsageError, match=f"{ALLOWANCE}: expected a factor for the limits, such as 4, found '{wrong}'"
        ):
            Readers(0)


def test_a_script_without_a_main_guard_may_import(tmp_path: Path):
    frame_folders.example(tmp_path / "source")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom foreframe.data.ingest.run import import_clips\n"
        "print(len(import_clips(sys.argv[1], sys.argv[2], workers=1).episodes))\n"
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "source", tmp_path / "pack"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0
