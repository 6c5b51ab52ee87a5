"""A save that is cut short at every call it makes, and a checkpoint damaged in every way: whole, or found out."""

from __future__ import annotations

import errno
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from foreframe import checkpoint
from foreframe.errors import CheckpointError, DiskError

CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
CAUSES = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT)


class Killed(BaseException):
    """The process ends here: nothing may catch this but what catches everything."""


class Cut:
    """Lets the first calls through, and has the next one of them, or all from there on, fail or end the process.

    calls: how many there were. unsafe: files that were written and not yet brought to the disk.
    """

    def __init__(self, monkeypatch, at: int, error: BaseException | None, forever: bool = False) -> None:
        self.calls, self.unsafe, self.at, self.error, self.forever = 0, set(), at, error, forever
        self.names: dict[int, str] = {}
        for name in CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name, call):
        def watched(*arguments, **options):
            self.calls += 1
            if self.error is not None and (self.calls == self.at or (self.forever and self.calls > self.at)):
                raise self.error
            result = call(*arguments, **options)
            if name == "open" and arguments[1] & os.O_CREAT:
                self.names[result] = os.fspath(arguments[0])
                self.unsafe.add(self.names[result])
            elif name == "open":
                self.names.pop(result, None)
            elif name == "fsync":
                self.unsafe.discard(self.names.get(arguments[0]))
            elif name in ("rename", "replace"):
                before, after = map(os.fspath, arguments[:2])
                moved = {path for path in self.unsafe if path.startswith(before)}
                self.unsafe = (self.unsafe - moved) | {path.replace(before, after, 1) for path in moved}
            return result

        return watched


def groups(step):
    return {"weights": {"a": torch.full((5,), float(step))}, "optimizer": {"0.m": torch.ones(3)}, "watch": {}}


def save(run, step, best=None):
    checkpoint.save(run, step, groups(step), {"best": {"step": best} if best else {}}, best)


def assert_whole(run, steps):
    """The newest checkpoint is one of these, whole, with the weights of its step."""
    found = checkpoint.newest(run)
    assert found is not None
    assert found.step in steps
    assert torch.equal(found.tensors("weights", groups(0)["weights"])["a"], torch.full((5,), float(found.step)))
    return found.step


def calls_of(run, step, tmp_path, monkeypatch):
    """How many calls an undisturbed save makes."""
    copy = tmp_path / "count"
    shutil.copytree(run, copy)
    with monkeypatch.context() as patched:
        cut = Cut(patched, 0, None)
        save(copy, step, 5)
        return cut.calls


@pytest.fixture(params=["a new step", "the same step again", "after damaged ones"])
def before(request, tmp_path):
    """A run with checkpoints, and the step to be saved next."""
    run = tmp_path / "before"
    for step in (5, 10, 15):
        save(run, step, 5)
    if request.param == "after damaged ones":
        save(run, 20, 5)
        for step in (15, 20):
            (run / "checkpoints" / f"step-000000{step}" / "manifest.json").unlink()
        return run, 12, {5}
    return (run, 20, {15}) if request.param == "a new step" else (run, 15, {10})


def test_the_process_ends_at_each_call_of_a_save_and_the_old_or_the_new_checkpoint_is_whole(
    before, tmp_path, monkeypatch, figure
):
    run, step, old = before
    calls = calls_of(run, step, tmp_path, monkeypatch)
    survived = 0
    for k in range(1, calls + 1):
        for lost in (False, True):
            copy = tmp_path / f"{k}-{lost}"
            shutil.copytree(run, copy)
            with monkeypatch.context() as patched:
                cut = Cut(patched, k, Killed())
                with pytest.raises(Killed):
                    save(copy, step, 5)
            if lost:  # the machine goes down too: what was not brought to the disk is not there
                for path in cut.unsafe:
                    if Path(path).exists():
                        os.truncate(path, 0)
            assert_whole(copy, {step, *old})
            checkpoint.recover(copy)
            assert_whole(copy, {step} if step == 15 else {step, *old})
            save(copy, step + 1, 5)
            survived += assert_whole(copy, {step + 1}) == step + 1
            assert not [path for path in (copy / "checkpoints").iterdir() if path.name.startswith(".")]
    figure("saves ended at every call, old or new checkpoint whole", survived, 2 * calls)


def test_a_save_that_is_done_outlives_the_machine(before, monkeypatch):
    run, step, _ = before
    with monkeypatch.context() as patched:
        cut = Cut(patched, 0, None)
        save(run, step, 5)
    assert not cut.unsafe
    assert_whole(run, {step})


@pytest.mark.parametrize("cause", CAUSES, ids=errno.errorcode.get)
def test_each_call_of_a_save_fails_and_the_old_or_the_new_checkpoint_is_whole(
    before, tmp_path, monkeypatch, cause, figure
):
    run, step, old = before
    calls = calls_of(run, step, tmp_path, monkeypatch)
    survived = 0
    for k in range(1, calls + 1):
        copy = tmp_path / f"copy-{k}"
        shutil.copytree(run, copy)
        with monkeypatch.context() as patched:
            Cut(patched, k, OSError(cause, os.strerror(cause)), forever=k % 2 == 0)
            try:
                save(copy, step, 5)
                refused = None
            except DiskError as error:
                refused = str(error)
        found = assert_whole(copy, {step, *old} if refused else {step})
        if refused:
            assert os.strerror(cause) in refused
            assert f"step-{step:08d}" in refused
            assert "bytes needed" in refused
            assert "free" in refused
            assert refused.endswith("earlier checkpoints are untouched")
        survived += found in {step, *old}
    figure("k-th system calls of a save that failed, checkpoint whole", survived, calls)


def test_files_too_large_for_the_system_leave_the_earlier_checkpoint_whole(tmp_path):
    """A real refusal, by the limit on the size of files, in a child whose limit it is."""
    import resource
    import signal

    save(tmp_path, 5)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            checkpoint.save(tmp_path, 10, {"weights": {"a": torch.zeros(10_000)}}, {"best": {}}, None)
        except DiskError as error:
            os._exit(0 if "File too large (40" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert_whole(tmp_path, {5})


# ---------------------------------------------------------------- damage


def damaged(content: bytes, kind: str, other: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == "burst":
        length = min(draw.randrange(1, 64), len(content) - at)
        return (
            content[:at]
            + bytes(byte ^ draw.randrange(1, 256) for byte in content[at : at + length])
            + content[at + length :]
        )
    if kind == "truncation":
        return content[:at]
    if kind == "appended":
        return content + draw.randbytes(draw.randrange(1, 64))
    if kind == "wrong file":
        return other
    half = len(content) // 2  # swap
    one, two = sorted((draw.randrange(half), draw.randrange(half, len(content))))
    size = min(draw.randrange(1, 32), two - one, len(content) - two)
    parts = content[:one], content[two : two + size], content[one + size : two], content[one : one + size]
    return b"".join([*parts, content[two + size :]])


@pytest.mark.parametrize("times", [300, pytest.param(10_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("kind", ["flip", "burst", "truncation", "swap", "appended", "wrong file"])
def test_damage_is_found_and_the_file_named(tmp_path, kind, times, figure):
    draw = random.Random(kind)
    checkpoint.save(tmp_path, 5, {**groups(5), "ema": {"a": torch.randn(50)}}, {"best": {}, "x": "y" * 50}, None)
    folder = tmp_path / "checkpoints" / "step-00000005"
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    found = 0
    for _ in range(times):
        path = draw.choice(list(files))
        content = files[path]
        while content == files[path]:
            content = damaged(files[path], kind, files[draw.choice(list(files))], draw)
        path.write_bytes(content)
        try:
            checkpoint.read(tmp_path, 5)
        except CheckpointError as error:
            found += str(path) in str(error)
        path.write_bytes(files[path])
    assert checkpoint.read(tmp_path, 5).step == 5
    figure(f"checkpoints damaged ({kind}) and found, file named", found, times)


# ---------------------------------------------------------------- any order


class Sequences(RuleBasedStateMachine):
    """Saves, kills, damage and going on in any order: the newest is always what it should be."""

    @initialize()
    def begin(self) -> None:
        self.run = Path(os.environ["FOREFRAME_TEST_FOLDER"]) / "run"
        shutil.rmtree(self.run, ignore_errors=True)
        self.step, self.good, self.best = 0, {}, None
        self.patch = pytest.MonkeyPatch()

    @rule(steps=st.integers(1, 3), better=st.booleans())
    def save(self, steps: int, better: bool) -> None:
        self.step += steps
        if better:
            self.best = self.step
        save(self.run, self.step, self.best)
        keep = [s for s in sorted({*self.good, self.step}) if s <= self.step][-checkpoint.KEEP :]
        whole = {**self.good, self.step: True}
        self.good = {s: whole[s] for s in whole if s in keep or (s == self.best)}

    @rule(steps=st.integers(1, 3), at=st.integers(1, 40))
    def killed_while_saving(self, steps: int, at: int) -> None:
        with self.patch.context() as patched:
            Cut(patched, at, Killed())
            with suppress(Killed):
                save(self.run, self.step + steps, self.best)
        self.there()

    @precondition(lambda self: self.good)
    @rule(file=st.sampled_from(["weights.safetensors", "state.json", "manifest.json"]))
    def newest_damaged(self, file: str) -> None:
        path = self.run / "checkpoints" / f"step-{max(self.good):08d}" / file
        path.write_bytes(path.read_bytes()[:-3])
        self.good[max(self.good)] = False

    @rule()
    def go_on(self) -> None:
        checkpoint.recover(self.run)
        self.there()

    def there(self) -> None:
        """What is on the disk now, by looking; the promises are about it."""
        steps = checkpoint._steps(self.run)
        known = {}
        for step in steps:
            try:
                checkpoint.read(self.run, step)
                known[step] = True
            except CheckpointError:
                known[step] = False
        lost = [s for s, whole in self.good.items() if whole and not known.get(s)]
        newer = [s for s in known if known[s]]
        assert not lost or newer, "a kill took a whole checkpoint and left none"
        assert not any(not known[s] for s in known if s not in self.good), "a kill left half a checkpoint"
        self.good = known
        if newer:
            self.step = max(newer)

    @invariant()
    def newest_is_the_highest_whole_one(self) -> None:
        if not hasattr(self, "good"):
            return
        whole = [step for step, is_whole in self.good.items() if is_whole]
        try:
            found = checkpoint.newest(self.run)
        except CheckpointError:
            assert self.good
            assert not whole
            return
        assert (found.step if found else None) == (max(whole) if whole else None)
        if found:
            self.step = found.step


@pytest.mark.parametrize("sequences", [40, pytest.param(2000, marks=pytest.mark.nightly)])
def test_any_order_of_saves_kills_and_damage(tmp_path, monkeypatch, sequences, figure):
    monkeypatch.setenv("FOREFRAME_TEST_FOLDER", str(tmp_path))
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Sequences,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=True,
        ),
    )
    figure("sequences of saves, kills and damage without a counter-example", sequences, sequences)
