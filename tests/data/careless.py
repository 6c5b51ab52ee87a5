"""Readers that judge nothing before they read, as a library with a fault might do: jobs for reading processes.

It imports little, so that the limits of a test may be small.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np

from foreframe.data.layouts.contract import RawChunk


def hdf5(path: Path) -> object:
    import h5py

    sys.audit("open", str(path), "rb", 0)
    return h5py.File(path)["a"][:].sum()


def parquet(path: Path) -> object:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        return pq.read_table(file)["a"].combine_chunks().flatten().to_numpy().sum()


def npz(path: Path) -> object:
    return np.load(path)["a"].sum()


def tfrecord(path: Path) -> object:
    with path.open("rb") as file:
        return len(bytearray(struct.unpack("<Q", file.read(8))[0]))


def spin(path: Path) -> None:
    path.read_bytes()
    while True:
        zlib.crc32(bytes(2**20))


def wait(path: Path) -> None:
    path.read_bytes()
    threading.Event().wait()


def crash(path: Path) -> None:
    path.read_bytes()
    os.kill(os.getpid(), signal.SIGSEGV)


def take(start: int, stop: int) -> RawChunk:
    return RawChunk(np.zeros((2**28, 1, 1, 3), np.uint8))


def no_memory(start: int, stop: int) -> RawChunk:
    raise MemoryError


def pictures(value: int, start: int, stop: int) -> RawChunk:
    return RawChunk(np.full((stop - start, 4, 6, 3), value, np.uint8))


def stop_forever(start: int, stop: int) -> RawChunk:
    threading.Event().wait()
    raise AssertionError
