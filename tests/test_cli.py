"""The command line as a user meets it: verbs, messages and exit codes. Run in this process unless time is measured."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from foreframe import cli, signals
from tests.conftest import write_pack

TINY = [
    "--model.width", "4", "--model.g-dim", "8", "--model.z-dim", "3", "--model.rnn-size", "8",
    "--model.backbone", "dcgan",
    "--horizon", "3", "--batch", "2", "--threads", "1", "--validate-every", "2", "--save-every", "2",
]  # fmt: skip


def call(capsys, *arguments):
    """(exit code, stdout, stderr) of a command."""
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("cli") / "pack")


@pytest.fixture(scope="module")
def run(pack, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    cli.main(["train", "svg-bair-learned", "--data", str(pack.path), "--run", str(path), "--steps", "4", *TINY])
    return path


def test_train_writes_a_run_with_its_overrides(run):
    config = json.loads((run / "config.json").read_text())
    assert config["preset"] == "svg-bair-learned"
    assert config["train"]["steps"] == 4
    assert config["train"]["model"]["width"] == 4
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    assert (run / "media" / "step-00000004.gif").stat().st_size > 1000


def test_resume_of_a_finished_run_says_so_and_is_no_failure(capsys, run):
    code, out, _ = call(capsys, "resume", run)
    assert code == 0
    assert "already complete at step 4" in out


def test_evaluate_prints_a_table_and_writes_its_protocol(capsys, run, tmp_path):
    code, out, _ = call(capsys, "evaluate", run, "--samples", 3, "--json", tmp_path / "r.json")
    assert code == 0
    assert "repeat last context frame" in out
    assert "best of 3" in out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["protocol"]["mode"] == "prediction"
    assert set(result["scores"]) == {"psnr", "ssim"}
    assert result["baselines"]["repeat_last"]["psnr"]["mean"] > 0
    assert len(result["protocol"]["model_sha256"]) == 64


def test_rollout_leaves_everything_that_is_promised(capsys, run, tmp_path):
    code, out, _ = call(capsys, "rollout", run, "--samples", 2, "--horizon", 5, "--out", tmp_path)
    assert code == 0, out
    assert {p.name for p in tmp_path.iterdir()} == {
        "rollout.gif", "rollout.mp4", "strip.png", "psnr.json", "psnr.png", "psnr.svg", "frames",
    }  # fmt: skip
    assert len(list((tmp_path / "frames" / "sample-2").iterdir())) == 5


def test_rollout_beyond_the_conditions_of_a_clip_says_how_far_it_can_go(capsys, run, tmp_path):
    code, _, err = call(capsys, "rollout", run, "--horizon", 50, "--out", tmp_path)
    assert code == 1
    assert "has 8 frames with conditions, so at most 6 can be predicted after 2, not 50" in err


def test_rollout_predicts_with_no_future_given(capsys, run, pack, tmp_path):
    from foreframe import video

    frames, cond = pack.read(pack.episodes[0], 0, 8)
    for t in range(2):
        video.write_png(tmp_path / f"{t}.png", np.array(frames[t]))
    np.savetxt(tmp_path / "cond.csv", np.vstack([cond, cond]), delimiter=",", fmt="%.5f")
    options = ["--frames", tmp_path / "0.png", tmp_path / "1.png", "--cond", tmp_path / "cond.csv"]
    code, _, err = call(capsys, "rollout", run, *options, "--out", tmp_path / "out")
    assert code == 0, err
    assert len(list((tmp_path / "out" / "frames" / "sample-1").iterdir())) == 14
    assert not (tmp_path / "out" / "psnr.json").exists()
    code, _, err = call(capsys, "rollout", run, *options[:2], "--cond", tmp_path / "cond.csv", "--out", tmp_path / "o")
    assert code == 1
    assert "--frames: expected 2 pictures, as many as the model's context, got 1" in err


def test_an_unknown_preset_is_wrong_usage_and_the_nearest_is_offered(capsys, pack, tmp_path):
    code, _, err = call(capsys, "train", "svg-bare-fixed", "--data", pack.path, "--run", tmp_path / "r")
    assert code == 2
    assert "no preset 'svg-bare-fixed'; did you mean 'svg-bair-fixed'?" in err
    assert "Traceback" not in err


def test_an_unknown_setting_is_wrong_usage(capsys, pack, tmp_path):
    code, _, err = call(capsys, "train", "push-demo", "--data", pack.path, "--run", tmp_path / "r", "--model.zdim", 3)
    assert code == 2
    assert "zdim" in err


def test_a_missing_data_folder_is_a_clear_failure(capsys, tmp_path):
    code, _, err = call(capsys, "train", "push-demo", "--data", tmp_path / "none", "--run", tmp_path / "r")
    assert code == 1
    assert "none" in err
    assert "push" in err, "the message names what could be given"
    assert not (tmp_path / "r").exists()


def test_a_second_training_into_one_folder_is_refused(capsys, run, pack):
    code, _, err = call(capsys, "train", "push-demo", "--data", pack.path, "--run", run)
    assert code == 2
    assert f"foreframe resume {run}" in err


def test_an_unknown_key_in_config_json_is_named_with_its_path(capsys, run, tmp_path):
    values = json.loads((run / "config.json").read_text())
    values["train"]["optimizer"]["lrr"] = 0.1
    (tmp_path / "config.json").write_text(json.dumps(values))
    code, _, err = call(capsys, "evaluate", tmp_path)
    assert code == 1
    assert "config.json: unknown key 'train.optimizer.lrr'; did you mean 'lr'?" in err


def test_a_pickle_offered_as_a_run_is_refused_without_being_opened(capsys, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    (tmp_path / "old.pth").write_bytes(b"\x80\x04K\x01.")
    for name in ("model.pt", "old.pth"):
        for verb in (("evaluate",), ("resume",), ("rollout", "--out", tmp_path / "o")):
            code, _, err = call(capsys, verb[0], tmp_path / name, *verb[1:])
            assert code == 1
            assert "which can run code when others read it; foreframe opens none" in err


def test_a_pickle_inside_a_run_is_found_by_its_hash(capsys, run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for weights in copy.glob("checkpoints/*/ema.safetensors"):
        torch.save({}, weights)
    for weights in copy.glob("checkpoints/*/weights.safetensors"):
        torch.save({}, weights)
    code, _, err = call(capsys, "evaluate", copy)
    assert code == 1
    assert "weights.safetensors" in err


def test_an_unknown_metric_is_wrong_usage(capsys, run):
    code, _, err = call(capsys, "evaluate", run, "--metrics", "pnsr")
    assert code == 2
    assert "no metric 'pnsr'; did you mean 'psnr'?" in err


def test_an_unknown_split_lists_the_known(capsys, run):
    code, _, err = call(capsys, "evaluate", run, "--split", "tset")
    assert code == 1
    assert "no split 'tset'; this pack has train (4 episodes), val (2 episodes), test (2 episodes)" in err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="there is nothing"):
        cli.main(["data", "show", str(tmp_path / "none"), "--debug"])


def test_presets_are_listed(capsys):
    code, out, _ = call(capsys, "presets")
    assert code == 0
    assert "svg-bair-learned" in out


def test_help_of_a_preset_lists_its_settings(capsys):
    code, out, _ = call(capsys, "train", "svg-bair-fixed", "--help")
    assert code == 0
    assert "--optimizer.lr" in out
    assert "--model.z-dim" in out


@pytest.mark.parametrize("arguments", [[], ["train"], ["evaluate"], ["data", "import"]], ids=" ".join)
def test_help_needs_neither_torch_nor_anything_else_heavy(arguments):
    script = (
        "import sys; from foreframe import cli\n"
        f"try: cli.main({[*arguments, '--help']!r})\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'matplotlib', 'av', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: foreframe" in done.stdout


def test_without_a_test_split_val_is_scored_and_conditions_of_other_names_are_noted(capsys, run, tmp_path):
    from foreframe.clip import ClipSpec
    from foreframe.data.pack.pack import PackWriter
    from tests.conftest import moving_square

    spec = ClipSpec(3, 64, 64, "vector", 2)
    with PackWriter(tmp_path / "pack", spec, ("up", "left"), fps=10, source={"layout": "test"}) as writer:
        for number, split in enumerate(("train", "val")):
            writer.add(split, split, *moving_square(number, 8, 64, 64))
    code, out, err = call(capsys, "evaluate", run, "--data", tmp_path / "pack", "--json", tmp_path / "r.json")
    assert code == 0, err
    assert "split val" in out
    assert "note: the conditions are called up, left; in training they were dy, dx" in err


def test_clips_too_short_are_named_when_training_and_when_scoring(capsys, tmp_path):
    from foreframe.clip import ClipSpec
    from foreframe.data.pack.pack import PackWriter
    from tests.conftest import moving_square

    with PackWriter(tmp_path / "pack", ClipSpec(3, 64, 64), (), fps=10, source={"layout": "test"}) as writer:
        for number, (split, length) in enumerate([("train", 8), ("train", 3), ("test", 8), ("test", 4)]):
            writer.add(f"clip-{number}", split, moving_square(number, length, 64, 64)[0], None)
    options = ["--data", tmp_path / "pack", "--run", tmp_path / "run", "--steps", 1, *TINY]
    code, _, err = call(capsys, "train", "svg-bair-fixed", *options)
    assert code == 0
    assert "left out, shorter than 5 frames: 1 clips: clip-1 (3)" in err
    code, out, _ = call(capsys, "evaluate", tmp_path / "run", "--horizon", 3)
    assert code == 0
    assert "not scored, too short for this horizon: 1 clips: clip-3" in out


# ---------------------------------------------------------------- errors of the system


def refusing(monkeypatch, error):
    def verb() -> None:
        raise error

    monkeypatch.setitem(cli.VERBS, "presets", verb)


def test_an_error_of_the_system_is_told_with_path_and_cause(capsys, monkeypatch, tmp_path):
    refusing(monkeypatch, PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x")))
    code, _, err = call(capsys, "presets")
    assert (code, err) == (1, f"foreframe: {tmp_path}/x: Permission denied; --debug shows where\n")
    refusing(monkeypatch, OSError(errno.EIO, "Input/output error"))
    assert call(capsys, "presets")[2] == "foreframe: OSError: Input/output error; --debug shows where\n"
    refusing(monkeypatch, OSError("of no number"))
    assert call(capsys, "presets")[2] == "foreframe: OSError: of no number; --debug shows where\n"


def test_a_full_disk_is_told_with_what_is_free(capsys, monkeypatch, tmp_path):
    refusing(monkeypatch, OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x")))
    code, _, err = call(capsys, "presets")
    assert code == 1
    assert f"foreframe: {tmp_path}/x: cannot be written: No space left on device (" in err
    assert " free)" in err
    refusing(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    assert f" bytes free in {Path.cwd()}" in call(capsys, "presets")[2]


# ---------------------------------------------------------------- signals


@dataclass
class Ended:
    """How a command ended: its exit code or the signal that ended it, the seconds of processor time from the signal
    sent to it until then, what it printed, and its calls of Python functions."""

    code: int
    signal: int
    seconds: float
    said: str
    calls: int

    @property
    def stopped(self) -> bool:
        """Whether the signal came before the end of the work."""
        return "stopped by" in self.said


def ended(arguments, folder: Path, moment: int, number: int) -> Ended:
    """Run a command in a child that has everything imported, which sends itself a signal at its n-th call of a Python
    function; 0: never. Before and after the command itself the child ignores signals."""
    said, facts = folder / "said.txt", folder / "facts.txt"
    facts.write_text("0 0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other threads of pytest do not matter here
        child = os.fork()
    if not child:
        code, calls = 99, 0

        def count(_: object, event: str, __: object) -> None:
            nonlocal calls
            calls += event == "call"
            if calls == moment and event == "call":
                sys.setprofile(None)
                facts.write_text(f"{calls} {time.process_time()}")
                os.kill(os.getpid(), number)

        try:
            with said.open("w") as sys.stdout:
                sys.stderr, sys.unraisablehook = sys.stdout, sys.__unraisablehook__
                warnings.simplefilter("ignore", ResourceWarning)  # as outside of tests: who is stopped closes no files
                signals.ignore()
                try:
                    sys.setprofile(count)
                    cli.main([str(argument) for argument in arguments])
                    code = 0
                except SystemExit as end:
                    code = int(end.code or 0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.setprofile(None)
                    if not moment:
                        facts.write_text(f"{calls} 0")
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    code, by = (os.waitstatus_to_exitcode(status), 0) if os.WIFEXITED(status) else (0, os.WTERMSIG(status))
    calls, since = facts.read_text().split()
    seconds = usage.ru_utime + usage.ru_stime - float(since) if float(since) else 0.0
    return Ended(code, by, seconds, said.read_text(), int(calls))


IMPORT = 10.0
"""Seconds of processor time that the import of torch may take, which is not torn apart."""
OLD = b"old"
PROMPT = 2.0 + 2.0
"""Seconds of processor time to end after a signal: two, and a step; the longest call into a library here takes less."""


def jobs(run, pack, folder: Path) -> dict[str, tuple[list[object], list[str]]]:
    """The arguments of each verb, and the files it writes into the folder."""
    rollouts = ["rollout.gif", "rollout.mp4", "strip.png", "psnr.json", "psnr.png", "psnr.svg"]
    return {
        "evaluate": (["evaluate", run, "--samples", 4, "--json", folder / "r.json"], ["r.json"]),
        "rollout": (["rollout", run, "--samples", 2, "--out", folder], rollouts),
        "diagnose": (["diagnose", run, "--samples", 4, "--json", folder / "d.json"], ["d.json"]),
        "report": (
            ["report", run, "--samples", 4, "--no-diagnosis", "--out", folder],
            ["index.html", "results.csv", "results.md"],
        ),
        "show": (["data", "show", pack.path, "--out", folder / "c.html"], ["c.html"]),
        "export": (
            ["export", run, "--onnx", folder / "m.onnx", "--overwrite", "--threads", 1],
            ["m.onnx", "m.start.onnx", "m.context.onnx"],
        ),
    }


def is_stopped_well(arguments, names: list[str], folder: Path, moment: int, number: int) -> bool:
    """Stop a command that would replace files, and check that it ended well; whether it had not been done before."""
    for name in names:
        (folder / name).write_bytes(OLD)
    kept = set(folder.iterdir())
    end = ended(arguments, folder.parent, moment, number)
    told = f"{arguments[0]} at call {moment}: {end}"
    assert (end.code, end.signal) == (0, 0), told
    assert "Traceback" not in end.said, told
    assert "ignored in" not in end.said, told
    assert end.seconds < PROMPT, told
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name], told
    left = {(folder / name).read_bytes() == OLD for name in names}
    assert len(left) == 1, f"{told}: some files are old and some new"
    if end.stopped:
        assert f"foreframe: stopped by {signal.Signals(number).name}; " in end.said
        if left == {True}:
            assert set(folder.iterdir()) == kept, told
    else:
        assert left == {False}, told
    return end.stopped


MOMENTS = {
    "evaluate": (1_000, 8_000),
    "rollout": (2_000, 30_000),
    "diagnose": (10_000,),
    "report": (5_000, 60_000),
    "show": (2_000, 20_000),
    "export": (100_000,),
}
"""Calls of Python functions after which the signal comes."""


def test_a_signal_ends_every_verb_at_once_and_leaves_nothing_half_done(run, pack, tmp_path, figure):
    (folder := tmp_path / "out").mkdir()
    landed, tried = 0, 0
    for verb, (arguments, names) in jobs(run, pack, folder).items():
        for moment in MOMENTS[verb]:
            number = signals.SIGNALS[tried % len(signals.SIGNALS)]
            landed += is_stopped_well(arguments, names, folder, moment, number)
            tried += 1
    assert landed >= 4, "commands that are done before the signal comes show little"
    figure("signals in commands that ended well", tried, tried)


@pytest.mark.nightly
def test_a_signal_ends_every_verb_at_any_moment(run, pack, tmp_path, figure):
    (folder := tmp_path / "out").mkdir()
    tried, landed = 0, 0
    for arguments, names in jobs(run, pack, folder).values():
        whole = ended(arguments, tmp_path, 0, 0).calls
        for part in range(15):
            number = signals.SIGNALS[tried % len(signals.SIGNALS)]
            landed += is_stopped_well(arguments, names, folder, 1 + whole * (2 * part + 1) // 30, number)
            tried += 1
    assert landed > 0.7 * tried, "most must come before the end, or little is shown"
    figure("signals in commands that ended well", tried, tried)


def test_a_second_signal_ends_a_command_that_would_finish_first(monkeypatch, tmp_path):
    def careful() -> None:
        with signals.defer_signals():
            for number in range(2):
                os.kill(os.getpid(), signals.SIGNALS[number])
                print(f"received {number + 1}", flush=True)

    monkeypatch.setitem(cli.VERBS, "presets", careful)
    end = ended(["presets"], tmp_path, 0, 0)
    assert (end.signal, end.said) == (signals.SIGNALS[1], "received 1\n")


def test_what_is_kept_is_said_by_verb(monkeypatch, capsys):
    def stops(*_: object, **__: object) -> None:
        raise signals.Stopped(signal.SIGTERM)

    for table, name in ((cli.VERBS, "demo"), (cli.DATA, "layouts")):
        monkeypatch.setitem(table, name, lambda: stops())
    assert call(capsys, "demo")[2] == (
        "foreframe: stopped by SIGTERM; what was done is kept, the same command continues\n"
    )
    assert call(capsys, "data", "layouts")[2] == (
        "foreframe: stopped by SIGTERM; nothing is left half done, the same command starts again\n"
    )
    monkeypatch.setattr(cli, "train", stops)
    assert "`foreframe resume RUN` continues" in call(capsys, "train", "push-demo")[2]


IMPORTING = """
import os, sys, time
from foreframe.cli import main
class Count:
    left = int(sys.argv.pop(1))
    def find_spec(self, *_):
        Count.left -= 1
        if Count.left == 0:
            print(time.process_time(), flush=True)
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
sys.meta_path.insert(0, Count())
main(sys.argv[1:])
"""


@pytest.mark.parametrize("moments", [1, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_signal_while_libraries_are_imported_is_handled(run, tmp_path, moments, figure):
    """In a process of its own: there a signal may come anywhere in the import of torch."""
    well = 0
    for moment in range(moments):
        command = [sys.executable, "-c", IMPORTING, 3 + 60 * moment, "evaluate", run, "--json", tmp_path / "r.json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,  # for a test that hangs
            env=os.environ | {"SIGNAL": str(int(signals.SIGNALS[moment % len(signals.SIGNALS)]))},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - float(done.stdout or "nan")
        assert done.returncode == 0, done
        assert done.stderr.startswith("foreframe: stopped by "), done
        assert done.stderr.count("\n") == 1, done
        assert seconds < PROMPT + IMPORT, (seconds, done)
        assert not list(tmp_path.iterdir())
        well += 1
    figure("signals in imports that ended the command well", well, moments)
