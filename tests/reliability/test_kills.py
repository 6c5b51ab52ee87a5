"""Signals at chosen moments of a training: what comes out in the end is the run that nobody disturbed."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from foreframe import signals


def disturb(pack, folder, count, what):
    command = [sys.executable, "-m", "tests.reliability.kills", pack.path, folder, count, what]
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.nightly)])
def test_runs_that_were_killed_end_bitwise_equal_to_the_one_that_was_not(vector_pack, tmp_path, kills, figure):
    found = disturb(vector_pack, tmp_path, kills, "kill")
    assert found["landed"] >= kills, "a kill that does not land proves nothing"
    figure("kills landed, and final weights, average, optimiser and log bitwise equal", found["equal"], found["landed"])


@pytest.mark.parametrize("stops", [3, pytest.param(100, marks=pytest.mark.nightly)])
def test_runs_asked_to_stop_save_and_say_so_and_go_on_bitwise_equal(vector_pack, tmp_path, stops, figure):
    found = disturb(vector_pack, tmp_path, stops, "stop")
    figure("signals in training: saved, and exit 0", found["well"], stops)
    figure("signals in training: bitwise equal after going on", found["equal"], stops)
    figure("signals in training: longest way to the end, in milliseconds", round(1000 * found["seconds"]))


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_is_an_exception_and_where_it_is_deferred_it_is_recorded(number):
    with signals.handle_signals():
        with pytest.raises(signals.Stopped, match=number.name):
            os.kill(os.getpid(), number)
        assert signals.asked() == number
    assert signals.asked() == 0
    with signals.handle_signals(), signals.defer_signals():
        signals.poll()
        with signals.handle_signals():  # changes nothing
            os.kill(os.getpid(), number)
        with pytest.raises(signals.Stopped, match=number.name):
            signals.poll()


def test_a_second_signal_ends_the_process_at_once():
    child = os.fork()
    if not child:
        with signals.handle_signals(), signals.defer_signals():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_launcher_passes_on_is_not_a_second_one(monkeypatch, again):
    monkeypatch.setenv("LOCAL_RANK", "0")
    child = os.fork()
    if not child:
        with signals.handle_signals(), signals.defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), again)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFEXITED(status) if again == signal.SIGTERM else os.WTERMSIG(status) == again


def test_the_signal_of_another_process_is_raised_where_the_work_polls(monkeypatch):
    with signals.handle_signals():
        monkeypatch.setattr(signals, "remote_signal", lambda: signal.SIGTERM)
        assert signals.asked() == signal.SIGTERM
        with pytest.raises(signals.Stopped, match="SIGTERM"):
            signals.poll()
    monkeypatch.undo()
    assert not signals.asked()


def test_signals_are_taken_back_from_a_library_that_took_them():
    signals.reinstall_handlers()
    assert signal.getsignal(signal.SIGTERM) is not signals._handle
    with signals.handle_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.reinstall_handlers()
        with pytest.raises(signals.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_signals_blocked_for_a_new_process_are_received_once_it_handles_them():
    script = """
from foreframe import signals
try:
    with signals.handle_signals():
        input()
except signals.Stopped as stopped:
    print(stopped.signal.name)
"""
    with signals.signals_blocked():
        child = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        child.send_signal(signal.SIGUSR1)  # while Python starts
    out, _ = child.communicate("", timeout=120)
    assert (child.returncode, out) == (0, "SIGUSR1\n")


def test_a_signal_is_forwarded_each_time(monkeypatch):
    received = []
    monkeypatch.setattr(signals, "forward", received.append)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with signals.handle_signals(), signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM, signal.SIGTERM]


def test_handlers_of_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.handle_signals():
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def made_into_another_error():
    with signals.handle_signals():
        try:
            os.kill(os.getpid(), signals.SIGNALS[0])
        except BaseException:
            raise ValueError("something else") from None


def lost_in_a_finalizer():
    class Loses:
        def __del__(self) -> None:
            os.kill(os.getpid(), signals.SIGNALS[0])

    with signals.handle_signals():
        Loses()
        gc.collect()
        time.sleep(120)  # for a test that hangs


@pytest.mark.parametrize("lost", [made_into_another_error, lost_in_a_finalizer])
def test_being_stopped_comes_through_whatever_a_library_does(lost):
    with pytest.raises(signals.Stopped):
        lost()


def fails_by_itself():
    with signals.handle_signals(), signals.defer_signals():
        os.kill(os.getpid(), signals.SIGNALS[0])
        raise ValueError("its own")


def test_an_error_after_a_signal_that_was_only_remembered_is_an_error():
    with pytest.raises(ValueError, match="its own"):
        fails_by_itself()
