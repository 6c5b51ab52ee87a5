"""Being asked to stop: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 mean the same, and a second one ends the process at once.

Inside `requests` a signal raises `Stopped` wherever the work happens to be, so that nothing has to poll for it and
whatever is written in one piece or not at all stays so. What must not be interrupted runs inside `defer_signals`:
there the signal is only recorded, and the work calls `poll` where it may end. Being stopped is no failure: the command
line prints what is kept and exits with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PASSED_ON = ("LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
"""Names in the environment of a launcher that passes signals on to processes which may have heard of them already."""
PASSED_ON_SECONDS = 1.0
"""The same signal twice within this time is one request there."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
_ALARM = getattr(signal, "SIGALRM", None)


class Stopped(BaseException):
    """A signal has asked to stop. Not an `Exception`: nothing that forgives errors may forgive it."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


class _State:
    """Signals are the whole process's, so this is too."""

    listening = False
    gentle = 0
    asked = 0
    since = 0.0
    told = 0
    raised = False


@contextmanager
def requests() -> Iterator[None]:
    """Listen in here; inside another `requests`, or outside the main thread, this changes nothing.

    `Stopped` comes out of here even where a library made another error of it on its way. One that was lost on its way,
    in a finalizer, is raised again a moment later.
    """
    if _State.listening:
        yield
        return
    try:
        before = {number: signal.signal(number, _heard) for number in SIGNALS}
        if _ALARM is not None:
            before[_ALARM] = signal.signal(_ALARM, _raise)
    except ValueError:  # not the main thread: the caller's signals are the caller's
        yield
        return
    _State.listening, hook = True, sys.unraisablehook
    sys.unraisablehook = lambda lost: _again() if isinstance(lost.exc_value, Stopped) else hook(lost)
    try:
        yield
    except Exception as error:
        if _State.raised:
            raise Stopped(_State.asked) from error
        raise
    finally:
        sys.unraisablehook = hook
        if _ALARM is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _State.listening, _State.asked, _State.told, _State.raised = False, 0, 0, False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """In here a signal is only remembered; `poll` and `asked` tell of it. Signals come to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.gentle += 1
    try:
        yield
    finally:
        _State.gentle -= 1


def poll() -> None:
    """Raises Stopped if a signal has asked to."""
    if asked():
        raise Stopped(asked())


def asked() -> int:
    """The number of the signal that has asked to stop; 0: none has."""
    return _State.asked or _State.told


def tell(number: int) -> None:
    """Another process that shares this one's work was asked to stop: so is this one, where it works gently."""
    _State.told = number


def reinstall_handlers() -> None:
    """Take the signals back from a library that has taken them for itself."""
    if _State.listening:
        for number in SIGNALS:
            signal.signal(number, _heard)


def ignore() -> None:
    """For processes that work for another one: they leave it to that one to stop them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _heard(number: int, _: object) -> None:
    now = time.monotonic()
    if _State.asked:
        passed_on = number == _State.asked and now - _State.since < PASSED_ON_SECONDS
        if passed_on and any(name in os.environ for name in PASSED_ON):
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _State.asked, _State.since = number, now
    _raise()


def _raise(*_: object) -> None:
    if not _State.gentle:
        _State.raised = True
        raise Stopped(_State.asked)


def _again() -> None:
    """Raise it in a hundredth of a second, when whatever lost it is over."""
    if _ALARM is not None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
