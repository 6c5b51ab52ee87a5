"""What a run says while it goes: `log.jsonl`, TensorBoard if wanted, and a progress bar."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foreframe import config, disk
from foreframe.errors import ForeframeError, UsageError, printable

PLAIN_SECONDS = 15.0
"""Where there is no terminal, the bar's line is printed this often."""


class RunLog:
    """Rows of a run, each a JSON object with its `step`. Those beyond `last_step`, which a killed run will take again,
    are cut when it is opened, so that each step stands there once."""

    def __init__(self, run: Path, last_step: int, tensorboard: bool = False) -> None:
        self.path = run / "log.jsonl"
        disk.put(self.path, "".join(_line(row) for row in read_log(run) if row["step"] <= last_step))
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._board = _summary_writer(run, last_step) if tensorboard else None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.sync()
        finally:
            os.close(self._handle)
            if self._board is not None:
                self._board.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, without its numbers that are not finite; numbers also go to TensorBoard. Raises DiskError: the
        run must end, or its log would have a hole."""
        row = {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}
        line = _line(row).encode()
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise disk.refused(self.path, error, len(line)) from error
        if self._board is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["step"])

    def sync(self) -> None:
        """Bring all rows to the disk. Raises DiskError."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise disk.refused(self.path, error) from error

    def picture(self, tag: str, gif: Path, step: int) -> None:
        """Show a GIF in TensorBoard."""
        if self._board is not None:
            # SummaryWriter.add_video needs moviepy; the image summary takes the bytes of a GIF as they are.
            from tensorboard.compat.proto.summary_pb2 import Summary

            image = Summary.Image(encoded_image_string=gif.read_bytes())
            self._board._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log: finite numbers by name, or a note; a last line cut short by a crash is left out. Raises
    ForeframeError: another line is not JSON, or one holds something else; the message names it."""
    path = run / "log.jsonl"
    if path.exists() and not path.is_file():
        raise ForeframeError(f"{path}: expected a file, found a folder, a pipe or a device")
    if not path.exists():
        return []
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(config.LIMIT + 1), b""), 1):
            try:
                row = config.loads(line)
                if not isinstance(row, dict) or type(row.get("step")) is not int:
                    raise ValueError("no step")
            except (ValueError, RecursionError) as error:
                if not file.peek(1):
                    break
                found = line[:60].decode(errors="replace")
                raise ForeframeError(
                    f"{path}, line {number}: expected a JSON object with a step, found {found!r}"
                ) from error
            for name, value in row.items():
                wanted, kinds = ("a text", (str,)) if name == "note" else ("a number", (int, float))
                if type(value) not in kinds:
                    raise ForeframeError(
                        f"{path}, line {number}: {config.shown(name)}: expected {wanted}, found {config.shown(value)}; "
                        "fix this line, or delete it"
                    )
            rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _summary_writer(run: Path, last_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install 'foreframe[tensorboard]'") from error
    return SummaryWriter(str(run / "tensorboard"), purge_step=last_step + 1)


class Bar:
    """A progress bar in a terminal, a line now and then elsewhere; `with Bar("training", total) as bar`."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal
        self._what, self._total, self._done, self._note = what, total, done, ""
        self._printed = time.monotonic()
        self._begun, self._first = self._printed, done
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._live)
        self._task = self._progress.add_task(what, total=total, completed=done, note="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, note: str = "", by: int = 1) -> None:
        """`by` more units done; `note` stands beside the bar."""
        self._done += by
        self._note = note or self._note
        self._progress.update(self._task, completed=self._done, note=self._note)
        now = time.monotonic()
        if not self._live and (now - self._printed > PLAIN_SECONDS or self._done == self._total):
            rate = (self._done - self._first) / max(now - self._begun, 1e-9)
            left = timedelta(seconds=round((self._total - self._done) / rate)) if rate else "0:00:00"
            print(f"{self._what} {self._done}/{self._total}  {note}  {left} left", file=sys.stderr, flush=True)
            self._printed = now

    def done(self, by: int) -> None:
        """`by` more units done; a callback for what knows no bars."""
        self.advance(by=by)

    def say(self, text: str) -> None:
        """A line above the bar, or several."""
        text = "\n".join(map(printable, text.split("\n")))
        if self._live:
            self._progress.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
