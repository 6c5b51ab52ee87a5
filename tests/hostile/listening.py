"""The audit hook of the hostile tests: what a command, or a process that reads for it, does that it must not do."""

from __future__ import annotations

import os
import sys
from types import CodeType
from typing import Any

ALARMS: list[str] = []
ARMED = False
CANARY = "hostile_canary"
NEVER = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen"),
    *("pickle.find_class", "socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"),
}
ROOT = os.environ.get("HOSTILE_ROOT", "")
FILE = "alarms.txt"
"""In ROOT, the alarms of reading processes."""
OURS = ("foreframe.", "numpy.", "multiprocessing.")
"""Modules of what this package's own processes send each other."""
OURS_TOO = {
    *(("functools", "partial"), ("pathlib", "PosixPath"), ("pathlib._local", "PosixPath"), ("numpy", "ndarray")),
    *(("numpy", "dtype"), ("ctypes", "c_char"), ("builtins", "set"), ("collections", "OrderedDict")),
}


def hear(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: notes what no command may do while it has a stranger's file before it."""
    if not ARMED:
        return
    bad = event in NEVER
    if event == "pickle.find_class":
        bad = arguments not in OURS_TOO and not str(arguments[0]).startswith(OURS)
    if event == "subprocess.Popen":
        bad = arguments[0] != "uname"  # Python's `platform`, for a library that is imported late
    if event.startswith("marshal.load"):
        bad = not sys._getframe(1).f_code.co_filename.startswith("<frozen importlib")
    elif event == "compile":
        bad = CANARY in str(arguments)
    elif event == "exec":
        bad = _is_theirs(arguments[0])
    elif event == "open":
        bad = _writes_elsewhere(*arguments)
    if bad:
        ALARMS.append(f"{event} {arguments!r:.200}")


def _is_theirs(code: object) -> bool:
    """Whether this is code from one of the files; Python itself executes much, above all when it imports."""
    if not isinstance(code, CodeType):
        return False
    inner = any(_is_theirs(constant) or CANARY in str(constant) for constant in code.co_consts)
    return inner or CANARY in code.co_filename or code.co_filename.startswith(ROOT)


def _writes_elsewhere(path: object, mode: object, flags: object) -> bool:
    writes = flags & 3 if isinstance(flags, int) else any(letter in str(mode) for letter in "wax+")
    if not writes or not isinstance(path, str | bytes):
        return False
    return not os.path.abspath(os.fsdecode(path)).startswith((ROOT, "/dev/", "/proc/self/"))  # noqa: PTH100


class _Filed(list[str]):
    """Alarms of a reading process: in a file, where the command's own process finds them."""

    def append(self, alarm: str) -> None:
        file = os.open(f"{ROOT}/{FILE}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{alarm}\n".encode())
        os.close(file)


def listen_in_a_reading_process() -> None:
    """Called by `sitecustomize`, before anything else happens in such a process."""
    global ARMED, ALARMS
    ARMED, ALARMS = True, _Filed()
    sys.addaudithook(hear)
