from __future__ import annotations

import json

import numpy as np
import pytest

from foreframe import video
from foreframe.errors import ForeframeError
from foreframe.log import Bar, RunLog, read_log


def test_rows_beyond_the_checkpoint_are_cut_so_that_each_step_stands_once(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in range(1, 8):
            log.write({"step": step, "loss": 1.0 / step})
    with RunLog(tmp_path, 5) as log:
        log.write({"step": 6, "loss": 9.0})
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert read_log(tmp_path)[-1]["loss"] == 9.0


def test_a_last_line_cut_short_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(ForeframeError, match=r"log\.jsonl, line 2: expected a JSON object"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('"loss": "x"', "'loss': expected a number, found 'x'"),
        ('"kl": {"a": 1}', "'kl': expected a number, found {'a': 1}"),
        ('"lr": null', "'lr': expected a number, found None"),
        ('"lr": true', "'lr': expected a number, found True"),
        ('"note": 3', "'note': expected a text, found 3"),
    ],
)
@pytest.mark.parametrize("after", ["", '{"step": 3}\n'])
def test_a_row_whose_number_is_none_is_named(tmp_path, row, words, after):
    (tmp_path / "log.jsonl").write_text(f'{{"step": 1, "loss": 1, "note": "a\\nb"}}\n{{"step": 2, {row}}}\n{after}')
    with pytest.raises(ForeframeError) as caught:
        read_log(tmp_path)
    assert f"log.jsonl, line 2: {words}; fix this line, or delete it" in str(caught.value)


@pytest.mark.parametrize("loss", ["NaN", "1e999", "9" * 400, '"\\u001b[2J"', "[" * 100 + "]" * 100])
def test_a_number_that_no_log_holds_is_named_with_its_line(tmp_path, loss):
    (tmp_path / "log.jsonl").write_text(f'{{"step": 1, "loss": {loss}}}\n{{"step": 2}}\n')
    with pytest.raises(ForeframeError, match=r"log\.jsonl, line 1: expected a JSON object with a step, found"):
        read_log(tmp_path)


def test_a_line_longer_than_any_row_is_read_no_further(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n[' + b'{"":{}},' * 2**20 + b"0]\n")
    with pytest.raises(ForeframeError, match="line 2: expected a JSON object with a step"):
        read_log(tmp_path)


def test_what_is_said_steers_no_terminal(capsys):
    with Bar("x", 2) as bar:
        bar.say("a\x1b[2Jb\nc\r")
    assert "a\\x1b[2Jb\nc\\r\n" in capsys.readouterr().err


def test_tensorboard_holds_the_scalars_and_the_panels(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    gif = tmp_path / "panel.gif"
    video.write_gif(gif, np.zeros((3, 8, 8, 3), np.uint8), fps=10)
    with RunLog(tmp_path, 0, tensorboard=True) as log:
        log.write({"step": 1, "loss": 0.5})
        log.write({"step": 2, "loss": 0.25})
        log.picture("validation", gif, 2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert events.Images("validation")[0].encoded_image_string == gif.read_bytes()
