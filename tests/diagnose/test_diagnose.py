"""A whole diagnosis: of tiny models, of what their conditions and latents do, and of the decoder in its cache."""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace

import numpy as np
import pytest
import torch

from foreframe import diagnose as package
from foreframe import disk
from foreframe.checkpoint import load_run
from foreframe.config import from_dict, to_dict
from foreframe.data.loading.windows import Windows
from foreframe.data.open import open_clips
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.diagnose import Diagnosis, decoder, diagnose, total
from foreframe.diagnose.obedience import Obedience
from foreframe.diagnose.unrolling import Rollouts
from foreframe.errors import DataError, DiskError, UsageError
from foreframe.evaluation import Protocol, evaluate
from foreframe.presets import find
from foreframe.report.diagnosis import print_diagnosis
from foreframe.schedules import BetaSchedule, ForcingSchedule
from foreframe.unrolled import Step
from tests.conftest import moving_square, write_pack
from tests.runs import CPU, TINY, make

PROTOCOL = Protocol("train", 2, 3, samples=3)
WHOLE = decoder.STEPS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a decoder that learns for a moment only."""
    monkeypatch.setenv("FOREFRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoder, "STEPS", 3)
    return tmp_path / "cache" / "decoders"


@pytest.fixture(scope="module")
def tiny(vector_pack, tmp_path_factory):
    """A run of two steps whose weights are blown up, so that conditions and noise are seen in its frames."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    make(vector_pack, run, replace(TINY, steps=2, validate_every=0)).run()
    trained = load_run(run, "newest", CPU)
    for module in trained.model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            module.weight.data.mul_(8)
    return trained


def numbers(values):
    if is_dataclass(values):
        return numbers(to_dict(values))
    if isinstance(values, dict):
        return [number for value in values.values() for number in numbers(value)]
    if isinstance(values, list):
        return [number for value in values for number in numbers(value)]
    return [values] if isinstance(values, float) else []


def test_a_diagnosis_is_small_plain_json_whose_scores_are_those_of_evaluate(tiny, vector_pack, capsys):
    steps = []
    found = diagnose(tiny, vector_pack, PROTOCOL, CPU, steps.append)
    text = json.dumps(to_dict(found), allow_nan=False)
    assert len(text) < 40_000
    assert sum(steps) == total(tiny, vector_pack, PROTOCOL, CPU)
    scores = found.obedience.psnr
    for conditions in ("true", "shuffled", "zeroed", "shifted"):
        plain = evaluate(
            tiny.model, vector_pack, Protocol("train", 2, 3, conditions=conditions, metrics=("psnr",)), CPU
        )
        assert scores[conditions].per_clip == pytest.approx(plain.scores["psnr"].per_clip, abs=1e-3)
    assert scores["true"] == found.gap.prediction
    many = Protocol("train", 2, 3, samples=3, metrics=("psnr",))
    several = evaluate(tiny.model, vector_pack, many, CPU)
    curve = found.spread.best_of_n.psnr
    assert curve["1"].per_clip == pytest.approx(several.scores["psnr"].per_clip, abs=1e-3)
    assert curve["3"].per_clip == pytest.approx(several.best_of_n["psnr"].per_clip, abs=1e-3)
    plain = evaluate(tiny.model, vector_pack, Protocol("train", 2, 3, "reconstruction", metrics=("psnr",)), CPU)
    assert found.gap.reconstruction.mean == pytest.approx(plain.scores["psnr"].mean, abs=1e-3)
    again = from_dict(Diagnosis, json.loads(text))
    assert again == found
    print_diagnosis(again)
    assert "best of 3 (PSNR, dB)" in capsys.readouterr().out


def test_a_diagnosis_does_not_depend_on_the_batch(tiny, vector_pack, monkeypatch):
    first = diagnose(tiny, vector_pack, PROTOCOL, CPU)
    monkeypatch.setattr(package.unrolling, "BATCH", 1)
    second = diagnose(tiny, vector_pack, PROTOCOL, CPU)
    for part in ("collapse", "gap", "obedience", "spread"):
        assert numbers(getattr(first, part)) == pytest.approx(numbers(getattr(second, part)), rel=1e-3, abs=2e-3)


def test_what_cannot_be_looked_at_is_refused_in_one_sentence(tiny, vector_pack, image_pack):
    for wrong, message in ((replace(PROTOCOL, samples=0), "samples"), (replace(PROTOCOL, horizon=0), "horizon")):
        with pytest.raises(UsageError, match=f"{message}: expected 1 or more, found 0"):
            diagnose(tiny, vector_pack, wrong, CPU)
    with pytest.raises(DataError, match="was trained on"):
        diagnose(tiny, image_pack, PROTOCOL, CPU)
    with pytest.raises(DataError, match="no clip of split 'test' is 32 frames long"):
        diagnose(tiny, vector_pack, replace(PROTOCOL, split="test", horizon=30), CPU)


def test_a_model_without_a_latent_or_clips_without_conditions_are_no_error(tmp_path, capsys):
    pack = write_pack(tmp_path / "none", "none")
    config = replace(TINY, model=replace(TINY.model, prior="none"), steps=1, validate_every=0)
    make(pack, tmp_path / "run", config).run()
    trained = load_run(tmp_path / "run", "newest", CPU)
    found = diagnose(trained, pack, PROTOCOL, CPU)
    assert found.collapse.latent == "none"
    assert found.obedience.conditions == "none"
    assert found.spread.samples == 1
    assert found.gap.gap.mean == pytest.approx(0, abs=1e-5)
    print_diagnosis(found)
    assert "no conditions to follow" in capsys.readouterr().out


def test_of_a_single_clip_there_are_no_intervals_and_nothing_is_swapped(tiny, vector_pack):
    found = diagnose(tiny, vector_pack, replace(PROTOCOL, clips=1), CPU)
    assert "swapped" not in found.obedience.psnr
    assert found.obedience.lost["shuffled"].ci95 is None
    assert found.obedience.obeys is False
    print_diagnosis(found)


@pytest.mark.parametrize("kind", ["zeroed", "shuffled"])
def test_a_model_that_breaks_under_wrong_conditions_is_said_to_and_the_rest_is_measured(
    tiny, vector_pack, monkeypatch, kind, capsys
):
    given, calls = package.unrolling.scoring.conditions_given, []

    def beyond(cond, protocol):
        found = given(cond, protocol)
        if protocol.conditions == kind:
            calls.append(kind)
            return found * float("inf") if len(calls) > 1 else found  # only from the second batch on
        return found

    monkeypatch.setattr(package.unrolling, "BATCH", 1)
    monkeypatch.setattr(package.unrolling.scoring, "conditions_given", beyond)
    result = diagnose(tiny, vector_pack, PROTOCOL, CPU)
    found = result.obedience
    assert list(found.broken) == [kind]
    assert "is not finite" in found.broken[kind]
    assert kind not in found.psnr
    assert kind not in found.decoder.predicted
    assert (found.obeys is None) == (kind == "shuffled")
    assert found.lost.keys() == {"shuffled", "zeroed", "shifted", "swapped"} - {kind}
    json.dumps(to_dict(result), allow_nan=False)
    print_diagnosis(result)
    assert f"when {kind}" in capsys.readouterr().out


def test_swapped_conditions_are_those_of_the_next_clip_after_the_context(tiny, vector_pack, monkeypatch):
    monkeypatch.setattr(package.unrolling, "BATCH", 3)
    rollouts = Rollouts(tiny.model, vector_pack, PROTOCOL, CPU)
    given = torch.cat([batch.given["swapped"] for batch in rollouts.batches()])
    own = Windows(vector_pack, "train", 5, "first").batch(range(4)).cond
    assert torch.equal(given[:, :2], own[:, :2])
    assert torch.equal(given[:, 2:], own.roll(-1, 0)[:, 2:])


class Puppet(torch.nn.Module):
    """Draws the square where the condition says, or pays no heed to it: the position is the condition."""

    def __init__(self, obeys):
        super().__init__()
        self.obeys, self.latent_shape = obeys, (1,)

    def initial(self, clip, context):
        return ()

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        out = frame
        if self.obeys:
            out = torch.full_like(frame, 40 / 255)
            for row, (y, x) in enumerate((cond * 28 + 28).round().int().tolist()):
                out[row, :, y : y + 8, x : x + 8] = torch.tensor([220, 120, 60])[:, None, None] / 255
        return state, Step(out, noise, None, None)


def write_places(path, clips=24, frames=6):
    """A square that jumps to where its condition says."""
    spec = write_pack(path.with_name(f"{path.name}-like"), clips=1, frames=1).spec
    draw = np.random.default_rng(0)
    with PackWriter(path, spec, ("y", "x"), fps=10, source={"layout": "test"}) as writer:
        for number in range(clips):
            places = draw.integers(0, 57, (frames, 2))
            pictures = np.full((frames, 64, 64, 3), 40, np.uint8)
            for picture, (y, x) in zip(pictures, places, strict=True):
                picture[y : y + 8, x : x + 8] = (220, 120, 60)
            split = "test" if number % 4 == 3 else "train"
            writer.add(f"clip-{number}", split, pictures, ((places - 28) / 28).astype(np.float32))
    return Pack.open(path)


def test_a_puppet_obeys_and_what_is_read_is_what_was_given(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "STEPS", 120)
    pack = write_places(tmp_path / "places")
    found = decoder.find(pack)
    results = {}
    for obeys in (True, False):
        part = Obedience(found, decoder.target_names(pack), CPU)
        for batch in Rollouts(Puppet(obeys).eval(), pack, Protocol("test", 2, 4), CPU).batches():
            part.add(batch)
        results[obeys] = part.result()
    real = results[True].decoder.real.r2
    assert all(real[name].value > 0.8 for name in "yx")
    read = results[True].decoder.predicted
    assert results[True].obeys is True
    for kind in ("true", "shuffled", "swapped"):
        assert all(read[kind].r2_of_given[name].value > 0.8 for name in "yx")
    assert all(read["swapped"].r2_of_true[name].value < 0.1 for name in "yx")
    assert results[False].obeys is False
    read = results[False].decoder.predicted
    assert all(read["true"].r2_of_given[name].value < 0.1 for name in "yx")


def test_the_place_of_a_pose_is_the_centre_of_what_is_drawn_on_either_ground():
    for ground, colour, kind in ((255, 0, torch.uint8), (0, 200, torch.uint8), (1.0, 0.2, torch.float32)):
        pictures = torch.full((1, 2, 3, 32, 64), ground, dtype=kind)
        pictures[0, 0, :, 4:9, 20:31] = colour
        centre, there = decoder.targets(pictures)
        assert centre[0, 0].tolist() == [25.0, 6.0]
        assert there.tolist() == [[True, False]]


def test_the_person_of_pose_clips_is_found_in_pixels(image_pack, monkeypatch):
    monkeypatch.setattr(decoder, "STEPS", 150)
    found = decoder.find(image_pack).decoder
    clip = Windows(image_pack, "train", 8, "first").batch(range(4)).unit()
    wanted, there = decoder.targets(clip.cond)
    apart = (decoder.read(found, clip.frames) - wanted[:, 1:])[there[:, 1:]].norm(dim=1)
    assert float(apart.mean()) < 2.0


def test_a_decoder_is_the_same_each_time_and_kept_for_the_next_run(vector_pack, cache, capsys):
    first = decoder.find(vector_pack)
    assert not first.cached
    assert [path.parent for path in cache.iterdir()] == [cache]
    second = decoder.find(vector_pack)
    assert second.cached
    third = decoder.train(vector_pack)
    for name, values in first.decoder.state_dict().items():
        assert torch.equal(values, second.decoder.state_dict()[name])
        assert torch.equal(values, third.state_dict()[name])
    assert capsys.readouterr().err.count("training the condition decoder") == 1


def test_a_decoder_damaged_in_the_cache_is_made_again_with_a_note(vector_pack, capsys):
    first = decoder.find(vector_pack)
    whole = first.path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    for damaged in (bytes(flipped), whole[:-10], b""):
        first.path.write_bytes(damaged)
        again = decoder.find(vector_pack)
        assert not again.cached
        assert "damaged" in again.notes[0]
        assert "is damaged and is trained again" in capsys.readouterr().err
        assert first.path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_the_next_run_time_and_nothing_else(vector_pack, monkeypatch):
    def refuse(path, content):
        raise DiskError(f"{path}: cannot be written: no space")

    monkeypatch.setattr(disk, "put", refuse)
    found = decoder.find(vector_pack)
    assert "could not be kept" in found.notes[0]


def test_without_a_training_split_the_scores_remain_and_it_is_said_why_nothing_is_read(tiny, tmp_path):
    with PackWriter(tmp_path / "pack", tiny.config.spec, ("dy", "dx"), fps=10, source={"layout": "test"}) as writer:
        for number in range(2):
            pictures, actions = moving_square(number, 8, 64, 64)
            writer.add(f"clip-{number}", "test", pictures, actions)
    found = diagnose(tiny, Pack.open(tmp_path / "pack"), replace(PROTOCOL, split="test"), CPU)
    assert found.obedience.decoder.columns is None
    assert "no split 'train'" in found.obedience.decoder.why
    assert len(found.obedience.psnr) == 5


def test_a_latent_held_down_by_a_huge_beta_is_said_to_have_collapsed(vector_pack, tmp_path):
    config = replace(TINY, steps=25, validate_every=0, save_every=25, beta=BetaSchedule(stop=1e3))
    make(vector_pack, tmp_path / "run", config).run()
    found = diagnose(load_run(tmp_path / "run", "newest", CPU), vector_pack, PROTOCOL, CPU)
    assert found.collapse.collapsed is True


def short(model=None):
    """push-demo, narrow and for as many steps as are enough to see whether it obeys."""
    preset = find("push-demo")
    return replace(
        preset,
        model=replace(preset.model, width=16, **(model or {})),
        steps=250,
        validate_every=0,
        save_every=250,
        forcing=ForcingSchedule(kind="linear", decay=1 / 250),
    )


def write_strangers(pack, path):
    """A pack whose clips each have the conditions of another clip of their split."""
    source = {"layout": "test"}
    with PackWriter(path, pack.spec, pack.cond_names, fps=10, source=source) as writer:
        for split in pack.splits:
            episodes = pack.split(split)
            for number, episode in enumerate(episodes):
                frames, _ = pack.read(episode, 0, episode.length)
                _, rows = pack.read(episodes[(number + 7) % len(episodes)], 0, episode.length)
                writer.add(episode.name, split, frames, rows)
    return Pack.open(path)


@pytest.mark.nightly
def test_a_short_real_training_obeys_and_one_on_the_conditions_of_strangers_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "STEPS", WHOLE)
    push = open_clips("push")
    strangers = write_strangers(push, tmp_path / "strangers")
    protocol = Protocol("test", short().context, 10, samples=10)
    results = {}
    for name, pack in (("own", push), ("strangers", strangers)):
        make(pack, tmp_path / name, short()).run()
        results[name] = diagnose(load_run(tmp_path / name, "newest", CPU), push, protocol, CPU).obedience

    own = results["own"]
    assert own.obeys is True
    assert own.lost["shuffled"].significant
    positions = ("position_x", "position_y")
    assert own.decoder.readable["position_z"]
    for name in positions:
        assert own.decoder.real.r2[name].value > 0.8
        assert own.decoder.predicted["true"].r2_of_given[name].value > 0.3
        swapped = own.decoder.predicted["swapped"]
        assert swapped.r2_of_given[name].value > swapped.r2_of_true[name].value

    lost = results["strangers"].lost["shuffled"]
    assert not lost.significant or lost.mean < 0.1
    assert results["strangers"].obeys is False
    for name in positions:
        swapped = results["strangers"].decoder.predicted["swapped"]
        assert swapped.r2_of_given[name].value < 0.1
