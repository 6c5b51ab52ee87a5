"""The life of a process that reads clips for another one.

It imports nothing heavy before it listens for the end of that other one, so that it cannot be left behind while it
starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from foreframe import signals


def start() -> tuple[BaseProcess, Connection]:
    """A process that reads the clips it is sent, and the connection to it; see `reading.serve`.

    It leaves signals to whoever started it, from its first moment on.
    """
    context = multiprocessing.get_context("spawn")
    with _unheard():
        resource_tracker.ensure_running()  # the first process would start it, and would hear signals from then on
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there,), daemon=True)
    with there, _unheard():
        process.start()
    return process, here


def work(connection: Connection) -> None:
    """What the process does, until it has read everything or nobody wants it any more."""
    signals.ignore()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the other one is gone
        connection.send(None)  # ready to be sent a long list
        from foreframe.data.ingest.pool import serve

        serve(connection)
    os._exit(0)  # it has nothing to tidy up, and taking the interpreter apart can take seconds


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def _unheard() -> Iterator[None]:
    """Processes that start in here hear no signal that asks to stop; this one hears it at the end of this."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
