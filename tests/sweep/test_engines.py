"""Where runs are carried out: processes that end with whoever started them, and a Ray cluster, played here."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from foreframe import signals
from foreframe.errors import UsageError
from foreframe.report.experiment.collect import Request
from foreframe.sweep import cell, engines
from foreframe.sweep.cell import DONE, MESSAGE, Job, is_finished
from foreframe.sweep.engines import OUTPUT, LocalTask, engine
from tests.conftest import write_pack
from tests.runs import make

REQUEST = Request(samples=2, clips=1, panels=1, diagnosis=False)
WORKS = "import sys, time; print('begun', flush=True); sys.stdin.read(); print('alone', flush=True)"


@pytest.fixture
def stands_in(monkeypatch):
    """Another program in the place of a run's process."""

    def put(text):
        real = subprocess.Popen
        monkeypatch.setattr(engines.subprocess, "Popen", lambda words, **how: real([words[0], "-c", text], **how))

    return put


def wait_for(said, path):
    for _ in range(6000):
        if path.exists() and said in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(path.read_text() if path.exists() else path)


def test_a_process_is_asked_to_stop_and_notices_when_it_is_left_alone(tmp_path, stands_in):
    stands_in(WORKS)
    task = engine("local", 1, 0.0)(tmp_path, "{}")
    wait_for("begun", tmp_path / OUTPUT)
    assert task.poll() is None
    task.stop()
    assert isinstance(task, LocalTask)
    assert task.process.wait(20) == -signal.SIGTERM
    assert task.poll() == -signal.SIGTERM
    left = LocalTask(tmp_path, "{}")
    left.process.stdin.close()  # as the system does when whoever started it has ended
    assert left.process.wait(20) == 0
    assert left.poll() == 0
    assert (tmp_path / OUTPUT).read_text().split() == ["begun", "begun", "alone"]


def test_a_run_is_trained_scored_and_marked(tmp_path):
    pack = write_pack(tmp_path / "pack")
    make(pack, tmp_path / "run")
    job = Job(str(tmp_path / "run"), str(pack.path), REQUEST, "cpu", 1)
    assert Job.from_json(job.to_json()) == job
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell, "_end_with_starter", lambda: None)
        assert cell.main([job.to_json()]) == 0
        assert is_finished(tmp_path / "run", REQUEST)
        assert (tmp_path / "run" / "eval" / "report" / "gathered.json").exists()
        (tmp_path / "run" / DONE).unlink()
        patch.setattr(cell, "collect", lambda *_: signal.raise_signal(signal.SIGINT))
        assert cell.main([job.to_json()]) == 0
        assert not is_finished(tmp_path / "run", REQUEST)


def test_a_run_that_cannot_be_trained_says_why_and_ends_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cell, "_end_with_starter", lambda: None)
    assert cell.main([Job(str(tmp_path), str(tmp_path / "nothing"), REQUEST, "cpu", 1).to_json()]) == 1
    assert f"\n{MESSAGE}{tmp_path / 'nothing'}: " in capsys.readouterr().err


class Ray(types.ModuleType):
    """What is used of Ray: a task is a call that is made when it is looked at."""

    def __init__(self):
        super().__init__("ray")
        self.begun, self.cancelled, self.options = False, [], {}
        self.exceptions = types.SimpleNamespace(RayError=ZeroDivisionError)

    def is_initialized(self):
        return self.begun

    def init(self, **_):
        self.begun = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as its core does

    def remote(self, **options):
        self.options = options
        return lambda function: types.SimpleNamespace(remote=lambda *given: (function, given))

    def wait(self, references, timeout):
        assert timeout == 0
        return (references, [])

    def get(self, reference):
        if reference in self.cancelled:
            raise ZeroDivisionError
        return reference[0](*reference[1])

    def cancel(self, reference, force):
        assert not force
        self.cancelled.append(reference)


def test_a_ray_cluster_is_given_the_same_processes_and_leaves_the_signals_alone(tmp_path, stands_in, monkeypatch):
    stands_in("print('begun')")
    ray = Ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    with signals.handle_signals():
        there = engine("ray", 3, 0.5)
        with pytest.raises(signals.Stopped):
            signal.raise_signal(signal.SIGTERM)
    assert ray.options == {"num_cpus": 3, "num_gpus": 0.5, "max_retries": 0}
    task = there(tmp_path, "{}")
    assert task.poll() == 0
    assert (tmp_path / OUTPUT).read_text() == "begun\n"
    task.stop()
    assert task.poll() == 1
    engine("ray", 1, 0.0)  # a cluster that is there is not begun again


def test_a_task_that_is_cancelled_passes_the_request_on(tmp_path, stands_in):
    stands_in(WORKS)

    def cancel():  # as Ray does: no signal that would wake a process which waits
        wait_for("begun", tmp_path / OUTPUT)
        _thread.interrupt_main()

    threading.Thread(target=cancel).start()
    assert engines.carry(str(tmp_path), "{}") == -signal.SIGTERM


def test_without_ray_its_name_and_how_to_install_it_are_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed: pip install 'foreframe\[ray\]'"):
        engine("ray", 1, 0.0)
