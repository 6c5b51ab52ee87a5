"""SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 ask a command to stop; a second one ends the process at once.

Inside `handle_signals` a signal raises `Stopped` wherever the work happens to be: whatever is written is whole or not
there. Work that must not be interrupted runs inside `defer_signals`: there a signal is only recorded, and the work
calls `poll` where it may end. Being stopped is no failure: the command line prints what is kept and exits with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
LAUNCHERS = ("LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
"""Variables of launchers that pass a signal on to processes which may have received it already."""
REPEATED_SECONDS = 1.0
"""The same signal twice within this time is one request there."""
_ALARM = getattr(signal, "SIGALRM", None)
remote_signal: Callable[[], int] | None = None
"""The signal that another process which shares this one's work has received; 0: none has."""
forward: Callable[[int], object] | None = None
"""Is called with each signal, for processes that work for this one."""


class Stopped(BaseException):
    """A signal has asked to stop. Not an `Exception`: nothing that forgives errors may forgive it."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


class _State:
    """Of the whole process, as signals are. asked, since: the signal received, and when. raised: as `Stopped`."""

    handling = raised = False
    deferred = asked = 0
    since = 0.0


@contextmanager
def handle_signals() -> Iterator[None]:
    """Handle them in here; inside another one of these, or outside the main thread, this changes nothing. `Stopped`
    comes out even where a library made another error of it; one lost in a finalizer is raised again a moment later."""
    if _State.handling or not _in_main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    if _ALARM is not None:
        before[_ALARM] = signal.signal(_ALARM, _raise)
    _State.handling, hook = True, sys.unraisablehook
    sys.unraisablehook = lambda lost: _raise_later() if isinstance(lost.exc_value, Stopped) else hook(lost)
    try:
        if hasattr(signal, "pthread_sigmask"):  # whoever started this process may have blocked them until now
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    except Exception as error:
        if _State.raised:
            raise Stopped(_State.asked) from error
        raise
    finally:
        sys.unraisablehook = hook
        if _ALARM is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _State.handling, _State.raised, _State.asked = False, False, 0
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """In here a signal is only recorded, for `poll` and `asked`."""
    mine = int(_in_main_thread())  # signals come to no other
    _State.deferred += mine
    try:
        yield
    finally:
        _State.deferred -= mine


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes that start in here receive no signal before they handle them; this one does at the end of this."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def poll() -> None:
    """Raises Stopped if a signal has asked to."""
    if number := asked():
        raise Stopped(number)


def asked() -> int:
    """The number of the signal that has asked to stop; 0: none has."""
    return _State.asked or (0 if remote_signal is None else remote_signal())


def reinstall_handlers() -> None:
    """Take the signals back from a library that has taken them for itself."""
    if _State.handling:
        for number in SIGNALS:
            signal.signal(number, _handle)


def ignore() -> None:
    """For processes that work for another one: they leave it to that one to stop them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handle(number: int, _: object) -> None:
    now = time.monotonic()
    if forward is not None:
        forward(number)
    if _State.asked:
        repeated = number == _State.asked and now - _State.since < REPEATED_SECONDS
        if repeated and any(name in os.environ for name in LAUNCHERS):
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _State.asked, _State.since = number, now
    _raise()


def _raise(*_: object) -> None:
    if not _State.deferred:
        _State.raised = True
        raise Stopped(_State.asked)


def _raise_later() -> None:
    """In a hundredth of a second, when whatever lost it is over."""
    if _ALARM is not None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
