"""Every preset found on disk: it is described, it can be built, and it goes through config.json unchanged."""

from __future__ import annotations

import inspect
import json

import pytest
import torch

from foreframe import config as settings
from foreframe import models
from foreframe.clip import ClipSpec
from foreframe.errors import UsageError
from foreframe.presets import find, presets
from foreframe.recipe import DataSource, RunConfig
from foreframe.schedules import Clock

SPECS = dict.fromkeys(("svg", "recurrent_unet"), ClipSpec(3, 64, 64, "vector", 7))


@pytest.mark.parametrize("name", list(presets()))
def test_a_preset_builds_describes_itself_and_survives_json(name, tmp_path):
    first = (inspect.getdoc(presets()[name]) or "").split("\n")[0]
    assert 20 < len(first) <= 120
    config = find(name)
    model_name = models.name_of(config.model)
    spec = SPECS.get(model_name, ClipSpec(3, 32, 64, "image", 3))
    config.check(spec)
    with torch.device("meta"):
        models.build(config.model, spec)
    record = RunConfig(name, model_name, spec, DataSource("somewhere", "0" * 64), config)
    record.write(tmp_path)
    assert RunConfig.read(tmp_path) == record
    assert json.loads((tmp_path / "config.json").read_text())["train"]["model"] == settings.to_dict(config.model)


@pytest.mark.parametrize("name", list(presets()))
def test_a_presets_schedules_are_sane_all_along(name):
    config = find(name)
    for share in (0, 0.1, 0.5, 0.9, 1):
        clock = Clock(int(share * config.steps), config.steps, config.epoch_steps or 121)
        assert 0 <= config.beta.value(clock) <= max(config.beta.stop, config.beta.start)
        assert 0 <= config.forcing.value(clock) <= 1
        assert 0 <= config.rate.value(clock) <= 1


def test_the_seeds_are_all_there():
    assert {"svg-bair-fixed", "svg-bair-learned", "pose-dance", "pose-dance-unet", "push-demo"} <= set(presets())


def test_a_misspelt_preset_is_offered_the_nearest():
    with pytest.raises(UsageError, match="no preset 'svg-bair-lerned'; did you mean 'svg-bair-learned'"):
        find("svg-bair-lerned")


def test_a_preset_of_ones_own_is_found_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from foreframe.presets import find\n"
        "def my_push():\n"
        '    """Mine."""\n'
        '    return replace(find("push-demo"), batch=3)\n'
        "def wrong():\n"
        "    return 3\n"
    )
    assert find(f"{file}:my_push").batch == 3
    with pytest.raises(UsageError, match=r"no preset 'my_pusch'; did you mean 'my_push'\?"):
        find(f"{file}:my_pusch")
    with pytest.raises(UsageError, match="expected a function that returns a TrainConfig, it returned int"):
        find(f"{file}:wrong")
    with pytest.raises(UsageError, match="no such Python file"):
        find(f"{tmp_path / 'none.py'}:f")
