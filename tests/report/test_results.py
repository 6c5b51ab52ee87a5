from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from foreframe.errors import ConfigError, UsageError
from foreframe.report.results import compare, print_comparison, read_result, result_table, write_comparison

PROTOCOL = {
    "split": "test",
    "context": 2,
    "horizon": 10,
    "mode": "prediction",
    "samples": 1,
    "temperature": 1.0,
    "seed": 0,
    "conditions": "true",
    "metrics": {"psnr": "PSNR, peak 1."},
    "feed": "own",
    "latent": "prior",
    "reduction": "mean",
    "best_of_n": "best",
    "clips": 4,
    "clip_names_sha256": "a",
    "data_sha256": "d",
    "too_short": [],
    "model_sha256": "m",
}


def result(path, values=(20.0, 21.0, 22.0, 23.0), run="run", **changes):
    summary = {
        "mean": sum(values) / len(values),
        "ci95": [20.0, 23.0],
        "per_frame": [21.5],
        "per_frame_ci95": None,
        "per_clip": list(values),
    }
    machine = {"device": "cpu", "threads": 1, "cores": 2, "python": "3", "torch": "2", "foreframe": "0.1.0"}
    model = {"run": run, "preset": "p", "model": "svg", "step": 1, "weights": "ema", "weights_sha256": "m"}
    written = {
        "protocol": {**PROTOCOL, **changes},
        "scores": {"psnr": summary},
        "baselines": {},
        "model": {**model, "chosen_on_split": None},
        "data": "pack",
        "hardware": machine,
        "created": "2026-01-01T00:00:00+00:00",
    }
    path.write_text(json.dumps(written))
    return path


def test_results_of_one_protocol_are_set_side_by_side_clip_by_clip(tmp_path, capsys):
    first = result(tmp_path / "a.json", run="one")
    second = result(tmp_path / "b.json", (20.5, 21.4, 22.6, 23.5), run="two", model_sha256="other")
    found = compare([first, second])
    assert [one.name for one in found.results] == ["one", "two"]
    assert found.results[0].over_first == {}
    apart = found.results[1].over_first["psnr"]
    assert apart.mean == pytest.approx(0.5)
    assert apart.significant
    assert apart.how.startswith("paired")
    print_comparison(found)
    said = capsys.readouterr().out
    assert "+0.500" in said
    assert "* excludes 0" in said


def test_other_clips_are_compared_by_their_means(tmp_path):
    first = result(tmp_path / "a.json")
    second = result(tmp_path / "b.json", clip_names_sha256="b")
    found = compare([first, second])
    assert found.results[1].over_first["psnr"].how.startswith("not the same clips")
    assert [one.name for one in found.results] == [str(first), str(second)], (
        "runs of one name are told apart by their files"
    )


def test_unlike_protocols_are_refused_with_each_difference(tmp_path):
    first = result(tmp_path / "a.json")
    second = result(tmp_path / "b.json", horizon=28, mode="reconstruction")
    third = result(tmp_path / "c.json", metrics={"psnr": "PSNR, peak 255."})
    with pytest.raises(UsageError) as error:
        compare([first, second, third])
    for part in (
        "different ways",
        "horizon: 10 -> 28",
        "mode: 'prediction' -> 'reconstruction'",
        "metrics.psnr: 'PSNR",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("earlier", [None, "none", "given"])
@pytest.mark.parametrize("use", ["predicted", "unused"])
def test_a_model_that_was_given_the_states_of_the_future_is_not_compared_with_one_that_was_not(tmp_path, earlier, use):
    first, second = result(tmp_path / "a.json", measured=earlier), result(tmp_path / "b.json", measured="given")
    assert len(compare([first, second]).results) == 2
    with pytest.raises(UsageError, match=f"measured: 'given' -> '{use}'"):
        compare([first, result(tmp_path / "c.json", measured=use)])


def test_a_table_says_which_states_a_model_was_given(tmp_path):
    for measured, name in (("none", "prediction"), ("predicted", "prediction, measured states predicted")):
        _, rows = result_table(read_result(result(tmp_path / "a.json", measured=measured)))
        assert rows[0][0] == name


def test_results_written_before_still_load():
    paths = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/*.json"))
    found = [read_result(path) for path in paths if path.name != "bench.json"]
    assert len(found) == 30
    assert {result.protocol.conditions for result in found} == {"true", "shuffled", "zeroed"}


def test_one_result_is_nothing_to_compare(tmp_path):
    with pytest.raises(UsageError, match="expected two results or more to compare, found 1"):
        compare([result(tmp_path / "a.json")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.pop("protocol"),
            "not a result of `foreframe evaluate`: protocol: expected an object, found no such key",
        ),
        (lambda r: r.update(more=1), "unknown key 'more'"),
        (lambda r: r.update(scores={}), "scores: expected those of the metrics"),
        (lambda r: r["scores"].update(ssim=1), "scores.ssim: expected an object, found 1"),
        (lambda r: r["protocol"]["metrics"].update(ssim=""), "scores: expected those of the metrics in its protocol"),
        (
            lambda r: r["scores"]["psnr"].update(per_clip=["1"]),
            r"scores.psnr.per_clip\[0\]: expected a number, found '1'",
        ),
        (
            lambda r: r["scores"]["psnr"].update(per_clip=[]),
            r"per_clip: expected a number for each clip, found none",
        ),
        (lambda r: r["scores"]["psnr"].update(mean=30.0), r"its mean is not that of its clips; was it edited\\?"),
        (
            lambda r: r.update(fvd={"value": 1.0, "baselines": {}, "note": ""}),
            "fvd: expected a value together with its protocol",
        ),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, change, message):
    path = result(tmp_path / "a.json")
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        read_result(path)


def test_a_comparison_is_written_in_three_forms(tmp_path):
    found = compare([result(tmp_path / "a.json", run="x|y"), result(tmp_path / "b.json", (20.5, 21.4, 22.6, 23.5))])
    for ending in ("json", "csv", "md"):
        write_comparison(found, tmp_path / f"out.{ending}")
    assert json.loads((tmp_path / "out.json").read_text())["results"][1]["over_first"]["psnr"]["clips"] == 4
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "result,PSNR (dB),PSNR (dB): difference"
    lines = (tmp_path / "out.md").read_text().splitlines()
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    with pytest.raises(UsageError, match=r"expected a name that ends in .json, .csv or .md, found"):
        write_comparison(found, tmp_path / "out.txt")
