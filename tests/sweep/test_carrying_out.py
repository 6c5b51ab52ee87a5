"""A grid on its way: what is started when, skipped, tried again, told and stopped. Its runs are played by an engine."""

from __future__ import annotations

import io
import json
import os
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from foreframe import disk, signals
from foreframe.errors import ConfigError, TrainingError, UsageError
from foreframe.presets import find as preset
from foreframe.report.experiment.collect import Request
from foreframe.sweep import Grid, cell, table
from foreframe.sweep.cell import DONE, Job, is_finished, mark
from foreframe.sweep.engines import OUTPUT
from foreframe.sweep.run import lock_sweep, plan, run_all, workers_and_threads
from foreframe.sweep.scales import scaled
from foreframe.sweep.table import State

REQUEST = Request(samples=2)


class Played:
    """An engine whose runs take some polls; a variant in `fails` ends with 1 so many times."""

    def __init__(self, fails=None, polls=2, at_start=lambda engine: None):
        self.fails, self.polls, self.at_start = dict(fails or {}), polls, at_start
        self.started, self.stopped, self.at_once, self.most = [], [], 0, 0

    def __call__(self, run, job):
        self.started.append(run.name.rsplit("-seed", 1)[0])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.at_start(self)
        return PlayedTask(self, run, job)


class PlayedTask:
    def __init__(self, engine, run, job):
        self.engine, self.run, self.job, self.left = engine, run, Job.from_json(job), engine.polls
        self.asked = False

    def poll(self):
        self.left -= 1
        if self.left > 0 and not self.asked:
            return None
        self.engine.at_once -= 1
        name = self.run.name.rsplit("-seed", 1)[0]
        if self.asked:
            return 0
        if self.engine.fails.get(name, 0):
            self.engine.fails[name] -= 1
            (self.run / OUTPUT).write_text("some words\nforeframe: the clips\nare gone\n")
            return 1
        (self.run / DONE).write_text(json.dumps(mark(self.job.request)))
        return 0

    def stop(self):
        self.asked = True
        self.engine.stopped.append(self.run.name)


@pytest.fixture
def cells(tmp_path, vector_pack, monkeypatch):
    monkeypatch.setattr("foreframe.sweep.run.POLL_SECONDS", 0.0)
    tiny = scaled(preset("push-demo"), "tiny")
    grid = Grid("mine", "?", {name: replace(tiny, ema=ema) for name, ema in (("a", 0.1), ("b", 0.2), ("c", 0.3))})
    return lambda: plan(grid, vector_pack, tmp_path, "paper", 1)


def go(cells, pack, engine, workers=2, request=REQUEST):
    run_all(cells, pack, request, engine, workers, "cpu", 1)


def test_so_many_runs_at_a_time_and_each_once(cells, vector_pack, capsys):
    engine, those = Played(), cells()
    go(those, vector_pack, engine)
    assert (engine.started, engine.most) == (["a", "b", "c"], 2)
    assert all(one.state is State.DONE and not one.skipped for one in those)
    assert capsys.readouterr().err.count(": done") == 3
    again, those = Played(), cells()
    go(those, vector_pack, again)
    assert again.started == []
    assert all(one.skipped for one in those)
    assert capsys.readouterr().err.count("done before") == 3


def test_another_request_is_carried_out_and_another_version_too(cells, vector_pack, monkeypatch):
    go(cells(), vector_pack, Played())
    more = Played()
    go(cells(), vector_pack, more, request=Request(samples=3))
    assert more.started == ["a", "b", "c"]
    monkeypatch.setattr(cell, "__version__", "9.9")
    newer = Played()
    go(cells(), vector_pack, newer, request=Request(samples=3))
    assert newer.started == ["a", "b", "c"]


def test_a_run_that_fails_is_named_with_its_last_message_and_the_others_are_completed(cells, vector_pack, tmp_path):
    engine = Played(fails={"b": 1})
    with pytest.raises(TrainingError, match=r"1 of 3 runs failed:\n  b, seed 1: the clips are gone \("):
        go(cells(), vector_pack, engine)
    assert engine.started == ["a", "b", "c"]
    again = Played()
    go(cells(), vector_pack, again)
    assert again.started == ["b"]


def test_a_run_that_was_killed_says_so(cells, vector_pack, monkeypatch):
    monkeypatch.setattr(PlayedTask, "poll", lambda self: -9)
    with pytest.raises(TrainingError, match="exited without an error message; possibly killed by"):
        go(cells(), vector_pack, Played())


def test_a_signal_stops_every_running_run_and_starts_no_other(cells, vector_pack):
    engine = Played(polls=10**9, at_start=lambda one: len(one.started) == 2 and os.kill(os.getpid(), signal.SIGTERM))
    those = cells()
    with pytest.raises(signals.Stopped), signals.handle_signals():
        go(those, vector_pack, engine)
    assert engine.started == ["a", "b"]
    assert len(engine.stopped) == 2
    assert [one.state for one in those] == [State.WAITING] * 3


def test_variants_with_the_same_settings_are_one_run(tmp_path, vector_pack, monkeypatch):
    monkeypatch.setattr("foreframe.sweep.run.POLL_SECONDS", 0.0)
    tiny = scaled(preset("push-demo"), "tiny")
    cells = plan(Grid("mine", "?", {"a": tiny, "also-a": tiny}), vector_pack, tmp_path, "paper", 1)
    cells[1].folder = cells[0].folder
    engine = Played()
    go(cells, vector_pack, engine)
    assert len(engine.started) == 1
    assert [one.skipped for one in cells] == [False, True]


def test_a_run_that_somebody_trains_is_waited_for(cells, vector_pack):
    those = cells()
    those[0].folder.mkdir(parents=True)
    lock = disk.Lock(those[0].folder / ".lock")
    assert lock.take() == ""
    engine = Played(at_start=lambda one: len(one.started) == 2 and lock.release())
    go(those, vector_pack, engine)
    assert engine.started == ["b", "c", "a"]


def test_a_run_whose_settings_were_edited_is_refused(cells, vector_pack):
    those = cells()
    go(those, vector_pack, Played())
    path = those[0].folder / "config.json"
    path.write_text(path.read_text().replace('"ema": 0.1', '"ema": 0.15'))
    with pytest.raises(ConfigError, match=r"config\.json: was edited; remove this folder or put it back"):
        go(those, vector_pack, Played())


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    with (
        lock_sweep(tmp_path / "out"),
        pytest.raises(TrainingError, match=rf"another sweep is running here \(process {os.getpid()} on "),
        lock_sweep(tmp_path / "out"),
    ):
        pass
    with lock_sweep(tmp_path / "out"):
        pass


def test_a_mark_that_is_damaged_counts_for_nothing(tmp_path):
    assert not is_finished(tmp_path, REQUEST)
    (tmp_path / DONE).write_text(json.dumps(mark(REQUEST)))
    assert is_finished(tmp_path, REQUEST)
    assert not is_finished(tmp_path, Request(samples=3))
    (tmp_path / DONE).write_text("{")
    assert not is_finished(tmp_path, REQUEST)


def test_workers_and_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert workers_and_threads(0, None, 10, "cpu") == (4, 2)
    assert workers_and_threads(0, None, 3, "cpu") == (3, 2)
    assert workers_and_threads(0, None, 10, "cuda") == (1, 8)
    assert workers_and_threads(16, 1, 20, "cpu") == (16, 1)
    assert workers_and_threads(16, None, 20, "cpu") == (16, 1)
    for wrong in ((-1, None), (1, 0)):
        with pytest.raises(UsageError, match="--workers, --threads"):
            workers_and_threads(*wrong, 3, "cpu")


def test_the_table_shows_the_newest_numbers_even_while_a_row_is_written(cells, vector_pack):
    one = cells()[0]
    one.folder.mkdir(parents=True)
    assert table.newest(one.folder) == {}
    rows = [{"step": 3, "loss": 2.0}, {"step": 4, "note": "x"}, {"step": 5, "val_prediction_psnr": 20.0}, [1]]
    (one.folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "lo')
    assert table.newest(one.folder) == {"step": 5, "loss": 2.0, "val_prediction_psnr": 20.0}
    (one.folder / "log.jsonl").write_text("x" * 10**6 + "\n" + '{"step": 6, "loss": 1.5}\n')
    assert table.newest(one.folder) == {"step": 6, "loss": 1.5}


def test_on_a_terminal_the_table_is_drawn_in_place(cells, vector_pack, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(table, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    go(cells(), vector_pack, Played())
    assert "validation (dB)" in screen.getvalue()
    assert "a, seed 1" in screen.getvalue()
