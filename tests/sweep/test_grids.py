"""Which runs a grid has: the labs' grids, a user's own, their sizes, and the folders that their settings decide."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from foreframe import cli, config, models
from foreframe.errors import ConfigError, UsageError
from foreframe.presets import find as preset
from foreframe.schedules import BetaSchedule, Clock, ForcingSchedule, RateSchedule
from foreframe.sweep import Grid, find, grids
from foreframe.sweep.run import identity, plan
from foreframe.sweep.scales import scaled

VARIANTS = {
    "seed-a-forcing": ["forcing-0.3", "forcing-0.8", "forcing-1.0"],
    "seed-a-kl": ["cyclical", "monotonic", "none"],
    "seed-a-optimizer": ["adam", "adamw", "sgd"],
    "seed-a-output": ["clamp", "sigmoid"],
    "seed-b-prior": ["fixed", "learned"],
    "seed-b-schedules": [
        "from-20-by-0.01666-monotonic",
        "from-20-by-0.01666-cyclical",
        "from-30-by-0.004-monotonic",
        "from-30-by-0.004-cyclical",
    ],
}
VARIANTS |= {f"{name}-lab": variants for name, variants in VARIANTS.items()}


def test_the_labs_comparisons_are_all_there():
    assert {name: [*find(name).variants] for name in grids()} == VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_a_grid_all_differ_and_say_what_they_ask(name):
    grid = find(name)
    configs = list(grid.variants.values())
    assert all(a != b for n, a in enumerate(configs) for b in configs[:n])
    assert grid.question.endswith((".", "?"))


@pytest.mark.parametrize("scale", ["tiny", "short"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_named_grid_can_be_planned_at_every_scale(name, scale, tmp_path, vector_pack, image_pack):
    pack = image_pack if name.startswith("seed-a") else vector_pack
    cells = plan(find(name), pack, tmp_path, scale, 2)
    assert len(cells) == len({cell.folder for cell in cells}) == 2 * len(VARIANTS[name])
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    for cell in cells:
        models.build_on_meta(cell.record.train.model, pack.spec)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_dry_run_lists_every_setting_of_every_variant_differences_first(name, tmp_path, capsys):
    cli.main(["sweep", name, "--dry-run", "--json", str(tmp_path / "grid.json")])
    head, apart, shared = capsys.readouterr().out.partition("written:")[0].split("\n\n")
    assert head.startswith(f"{name}: {find(name).question}")
    written = json.loads((tmp_path / "grid.json").read_text())
    expected = {variant: config.flatten(config.to_dict(train)) for variant, train in find(name).variants.items()}
    assert written == json.loads(json.dumps(expected))
    columns, *rows = apart.splitlines()
    assert columns.split() == VARIANTS[name]
    assert shared.startswith("in all of them\n")
    listed = [line.split()[0] for line in rows], [line.split()[0] for line in shared.splitlines()[1:]]
    assert sorted(listed[0] + listed[1]) == sorted({key for values in written.values() for key in values})
    assert [path.name for path in tmp_path.iterdir()] == ["grid.json"], "nothing is trained"


def test_a_dry_run_is_of_the_scale_that_would_be_trained(capsys):
    cli.main(["sweep", "seed-a-kl", "--dry-run", "--scale", "tiny"])
    assert re.search(r"^steps +6$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "message"),
    [([], "expected --data CLIPS and --out FOLDER"), (["--json", "x", "--data", "d", "--out", "o"], "--dry-run")],
)
def test_a_sweep_says_what_it_needs(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", "seed-a-kl", *flags])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_scale_keeps_the_form_of_schedules():
    full = replace(
        preset("svg-bair-fixed"),
        rate=RateSchedule("multi-step", warmup=6_000, milestones=(30_000,)),
        forcing=ForcingSchedule("linear", start=6_000, decay=1 / 12_000),
    )
    small = scaled(full, "short")
    assert small.steps < full.steps / 50
    for part in range(20):
        clocks = [Clock(c.steps * part // 20, c.steps, c.epoch_steps) for c in (full, small)]
        for name in ("beta", "forcing", "rate"):
            values = [getattr(c, name).value(clock) for c, clock in zip((full, small), clocks, strict=True)]
            assert values[0] == pytest.approx(values[1], abs=0.02), (part, name)


@pytest.mark.parametrize("kind", ["exponential", "inverse-sigmoid", "constant"])
def test_a_decay_counted_in_steps_is_as_far_at_the_end_of_a_shorter_run(kind):
    decay = {"exponential": 0.9999, "inverse-sigmoid": 4_000.0, "constant": 0.0}[kind]
    full = replace(preset("push-demo"), steps=20_000, epoch_steps=0, forcing=ForcingSchedule(kind, decay=decay))
    small = scaled(full, "tiny")
    ends = [c.forcing.value(Clock(c.steps, c.steps, 1)) for c in (full, small)]
    assert ends[0] == pytest.approx(ends[1], rel=0.25)


def test_paper_scale_changes_nothing():
    for name in grids():
        for train in find(name).variants.values():
            assert scaled(train, "paper") is train


def test_a_run_that_is_shorter_already_is_not_made_longer():
    short = replace(preset("push-demo"), steps=3, batch=1, horizon=2, eval_horizon=0)
    small = scaled(short, "tiny")
    assert (small.steps, small.batch, small.horizon, small.eval_horizon) == (3, 1, 2, 2)


OWN = '''
from dataclasses import replace
from foreframe.presets import find

def my_widths():
    """How wide?"""
    return {f"width-{w}": replace(find("push-demo"), model=replace(find("push-demo").model, width=w)) for w in (4, 8)}
'''


@pytest.mark.parametrize("suffix", ["", ":my_widths"])
def test_a_file_of_ones_own_is_a_grid(tmp_path, suffix):
    (tmp_path / "own.py").write_text(OWN)
    grid = find(f"{tmp_path / 'own.py'}{suffix}")
    assert (grid.name, grid.question, list(grid.variants)) == ("my_widths", "How wide?", ["width-4", "width-8"])


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "seed-a-kk", "no grid 'seed-a-kk'; did you mean 'seed-a-kl'"),
        ("def a(): return 1\ndef b(): return 2\n", "own.py", "name one of its grids, as in .*own.py:NAME.*known: a, b"),
        ("def a(): return 1\n", "own.py:b", "no grid 'b'.*known: a"),
        ("def a(): return 1\n", "own.py", "expected a function that returns a TrainConfig for each name"),
        ("def a(): return {}\n", "own.py", "expected a function that returns a TrainConfig for each name"),
        ("def a(): return {'x': 1}\n", "own.py", "expected a function that returns a TrainConfig for each name"),
        (OWN.replace("width-{w}", "../{w}"), "own.py", "letters, digits"),
        ("", "nothing.py", "nothing.py: there is no such Python file"),
    ],
)
def test_what_is_no_grid_is_refused_in_one_sentence(tmp_path, text, name, message):
    if text:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        find(str(tmp_path / name) if ".py" in name else name)


def grid_of(**variants):
    return Grid("mine", "?", {name.replace("_", "-"): scaled(config, "tiny") for name, config in variants.items()})


def test_a_folder_is_known_by_its_settings_and_not_by_its_name(tmp_path, vector_pack):
    push = preset("push-demo")
    first = plan(grid_of(a=push, b=replace(push, ema=0.5)), vector_pack, tmp_path, "paper", 1)
    first[0].folder.mkdir(parents=True)
    renamed = plan(grid_of(other=push), vector_pack, tmp_path, "paper", 1)
    assert renamed[0].folder == first[0].folder
    edited = plan(grid_of(a=replace(push, ema=0.7)), vector_pack, tmp_path, "paper", 1)
    assert edited[0].folder not in {cell.folder for cell in first}
    assert plan(grid_of(a=push), vector_pack, tmp_path, "paper", 2)[1].folder.name.startswith("a-seed-2-")
    assert first[0].record.preset == "mine:a"
    moved = replace(first[0].record, data=replace(first[0].record.data, path="/elsewhere"), foreframe="9")
    assert identity(moved) == identity(first[0].record)
    other_clips = replace(first[0].record, data=replace(first[0].record.data, hash="0"))
    assert identity(other_clips) != identity(first[0].record)


def test_the_labs_grids_share_their_common_run(tmp_path, image_pack):
    plan(find("seed-a-kl"), image_pack, tmp_path, "tiny", 1)[0].folder.mkdir(parents=True)
    assert plan(find("seed-a-forcing"), image_pack, tmp_path, "tiny", 1)[2].folder.name.startswith("cyclical-")


def test_a_variant_that_cannot_be_trained_is_named_before_anything_begins(tmp_path, vector_pack):
    push = preset("push-demo")
    grid = grid_of(good=push, bad=replace(push, beta=BetaSchedule(stop=-1.0)))
    with pytest.raises(ConfigError, match=r"mine, variant bad: train\.beta\.stop"):
        plan(grid, vector_pack, tmp_path, "paper", 1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="--seeds: expected 1 to 1000, found 0"):
        plan(grid_of(good=push), vector_pack, tmp_path, "paper", 0)
