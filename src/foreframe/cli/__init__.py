"""The command line: verbs to calls. Nothing heavy is imported before a verb is known, so `--help` is quick.

Exit codes: 0 done, or stopped as asked by a signal; 1 the job failed; 2 wrong usage. A failure is one message;
`--debug` adds the traceback. A new verb is a function in one of the files beside this one, and a line in a table.
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from foreframe import disk, signals
from foreframe.cli import courses
from foreframe.cli.clips import DATA, data
from foreframe.cli.experiments import diagnose, report, sweep
from foreframe.cli.shared import import_torch
from foreframe.cli.training import Train, presets, replay, resume, train
from foreframe.cli.using import compare, demo, evaluate, export, rollout
from foreframe.errors import ForeframeError, UsageError, printable

VERBS: dict[str, Callable[..., Any]] = {
    "presets": presets,
    "train": Train,
    "resume": resume,
    "replay": replay,
    "evaluate": evaluate,
    "rollout": rollout,
    "compare": compare,
    "diagnose": diagnose,
    "report": report,
    "sweep": sweep,
    "export": export,
    "demo": demo,
    "data": data,
}


KEPT = {
    "train": "`foreframe resume RUN` continues; if there is no RUN yet, the same command starts again",
    "resume": "the newest checkpoint is kept, the same command continues from it",
    "demo": "what was done is kept, the same command continues",
    "sweep": "each run has saved, the same command continues all of them",
    "report": "what was scored is kept, the same command continues",
    "data import": "what was packed is kept, the same command continues",
    "data make": "what was packed is kept, the same command continues",
}
"""What is left by a command that was stopped, where that is more than nothing."""
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Causes that only writing can have."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `foreframe`."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its stack traces would surround our one message
    of_any_verb = argparse.ArgumentParser(prog="foreframe", add_help=False, allow_abbrev=False)
    of_any_verb.add_argument("--debug", action="store_true")
    of_any_verb.add_argument("--model-file", action="append", type=Path, default=[])
    flags, arguments = of_any_verb.parse_known_args(arguments)
    try:
        with signals.handle_signals():
            courses.refuse(arguments)
            for file in flags.model_file:
                import_torch()
                from foreframe.models import run_file

                print(f"running the code of {run_file(file).path}", file=sys.stderr)
            _dispatch(arguments)
    except signals.Stopped as stopped:
        kept = KEPT.get(" ".join(arguments[: 2 if arguments[:1] == ["data"] else 1]))
        kept = kept or "nothing is left half done, the same command starts again"
        _end(stopped, f"stopped by {stopped.signal.name}; {kept}", 0)
    except ForeframeError as error:
        if flags.debug:
            raise
        _end(error, str(error), 2 if isinstance(error, UsageError) else 1)
    except (OSError, MemoryError, RuntimeError) as error:
        if flags.debug:
            raise
        _end(error, f"{printable(_describe_error(error))}; --debug shows where", 1)


def _end(error: BaseException, message: str, code: int) -> None:
    """Print why the command ends; a process among several leaves that to its launcher, which prints the first."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from foreframe import distributed

        distributed.record(error, message, code)
        code = code or 1  # so that the launcher ends the others
    else:
        print(f"foreframe: {message}", file=sys.stderr)
    if code:
        raise SystemExit(code) from None


def _describe_error(error: Exception) -> str:
    """One sentence on an error that nobody has put into words; where it is the system's, with path and cause."""
    if not isinstance(error, OSError) or not error.strerror:
        return f"{type(error).__name__}: {error}"
    named = error.filename2 or error.filename
    if not isinstance(named, str):
        folders = {Path.cwd(), Path(tempfile.gettempdir())} if error.errno in CANNOT_WRITE else ()
        free = [f"{left:,} bytes free in {folder}" for folder in folders if (left := disk.free(folder)) is not None]
        return f"{error.strerror} ({', '.join(free)})" if free else f"{type(error).__name__}: {error.strerror}"
    return str(disk.refused(Path(named), error)) if error.errno in CANNOT_WRITE else f"{named}: {error.strerror}"


def _dispatch(arguments: list[str]) -> None:
    description = (
        "foreframe learns to predict video from what is about to be done. Every verb takes --model-file FILE.py for "
        "runs whose model is in a file of your own: its code is run."
    )
    if arguments[:1] == ["--version"]:
        from foreframe import __version__

        print(f"foreframe {__version__}")
    elif arguments[:1] == ["train"] and len(arguments) > 1:
        train(arguments[1:])
    elif arguments[:1] == ["data"] and len(arguments) > 1:
        verbs = {name: _with_torch(function) for name, function in DATA.items()}
        tyro.extras.subcommand_cli_from_dict(verbs, prog="foreframe data", args=arguments[1:])
    else:
        verbs = {
            name: function if isinstance(function, type) else _with_torch(function) for name, function in VERBS.items()
        }
        tyro.extras.subcommand_cli_from_dict(verbs, prog="foreframe", description=description, args=arguments)


def _with_torch(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with torch imported beforehand, once its flags are read; `train` does so itself."""

    @functools.wraps(verb)
    def called(*args: Any, **kwargs: Any) -> Any:
        import_torch()
        return verb(*args, **kwargs)

    return called
