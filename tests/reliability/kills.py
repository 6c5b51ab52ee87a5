"""Trainings that get signals at chosen moments, each in a forked child.

    python -m tests.reliability.kills PACK FOLDER COUNT kill|stop

A moment is the beginning of a step or a validation, a row of the log, or a call that changes the disk. Those of the
uninterrupted run are counted first, so that a signal is aimed at a moment and not at a time. Prints what came of it as
JSON: `kill` sends SIGKILL, `stop` the three signals that ask to stop.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foreframe import checkpoint, signals
from foreframe.data.pack.pack import Pack
from foreframe.log import RunLog
from foreframe.training.trainer import Trainer
from tests.runs import TINY, again, content, make

CONFIG = replace(TINY, steps=10, horizon=2, validate_every=4, save_every=3)
CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
"""Of `os`, which is where everything goes that a training writes."""


def at_moments(happened: Callable[[], None]) -> None:
    """Have `happened` called at every moment from now on; in a child only, since it is never undone."""

    def before(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        @functools.wraps(call)
        def watched(*arguments: Any, **options: Any) -> Any:
            happened()
            return call(*arguments, **options)

        setattr(owner, name, watched)

    for name in CALLS:
        before(os, name)
    for owner, name in ((Trainer, "one_step"), (Trainer, "validate"), (Trainer, "restore"), (RunLog, "write")):
        before(owner, name)


def in_child(work: Callable[[], object]) -> int:
    """Do it in a forked child; returns how that ended, as `os.waitpid` says."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (for as long as the child lives)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def train(pack: Pack, run: Path, moment: int = 0, number: int = signal.SIGKILL) -> int:
    """Go on with a run; with a moment, send the signal at that one. How it ended, as `os.waitpid` says."""

    def work() -> None:
        passed, sent = 0, math.nan

        def happened() -> None:
            nonlocal passed, sent
            passed += 1
            if passed == moment:
                sent = time.monotonic()
                os.kill(os.getpid(), number)

        at_moments(happened)
        ended = again(pack, run).run()
        facts = {"passed": passed, "ended": ended, "seconds": time.monotonic() - sent}
        (run.parent / "facts").write_text(json.dumps(facts))

    return in_child(work)


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.parent / "facts").read_text())
    return found


def begin(pack: Pack, run: Path) -> None:
    make(pack, run, CONFIG)


def kill(pack: Pack, folder: Path, count: int, moments: int, expected: Any) -> dict[str, Any]:
    """Runs that are killed once to three times and then go on to the end."""
    draw = random.Random(count)
    landed = equal = runs = 0
    while landed < count and runs < 2 * count:
        run, hit = folder / f"run-{runs}", 0
        begin(pack, run)
        # The first kill of each run goes through all moments evenly, the others fall anywhere in what is left.
        for moment in [1 + runs * 7919 % moments, *(draw.randint(1, moments) for _ in range(runs % 3))]:
            status = train(pack, run, moment)
            assert status in (0, signal.SIGKILL), f"{run}: neither killed nor done: {status}"
            hit += status == signal.SIGKILL
        assert train(pack, run) == 0
        landed, runs = landed + hit, runs + 1
        equal += hit if content(run, CONFIG.steps) == expected else 0
    return {"runs": runs, "landed": landed, "equal": equal}


def stop(pack: Pack, folder: Path, count: int, moments: int, expected: Any) -> dict[str, Any]:
    """Runs that are asked to stop once, which ends them well, and then go on to the end."""
    well = equal = 0
    longest = 0.0
    for number in range(count):
        run = folder / f"run-{number}"
        begin(pack, run)
        asked = signals.SIGNALS[number % len(signals.SIGNALS)]
        status = train(pack, run, 1 + number * 7919 % moments, asked)
        found = facts(run)
        last = found["ended"] == f"complete at step {CONFIG.steps} of {CONFIG.steps}"
        saved = checkpoint.choose(run, "newest").step
        well += status == 0 and (last or found["ended"] == f"stopped by {asked.name} at step {saved} of {CONFIG.steps}")
        longest = max(longest, found["seconds"])
        assert train(pack, run) == 0
        equal += content(run, CONFIG.steps) == expected
    return {"runs": count, "well": well, "equal": equal, "seconds": round(longest, 2)}


def main() -> None:
    pack, folder, count, what = Pack.open(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    whole = folder / "whole"
    begin(pack, whole)
    assert train(pack, whole) == 0
    found = {"kill": kill, "stop": stop}[what](
        pack, folder, count, facts(whole)["passed"], content(whole, CONFIG.steps)
    )
    print(json.dumps({"moments": facts(whole)["passed"], **found}))


if __name__ == "__main__":
    main()
