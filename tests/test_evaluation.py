from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from foreframe.clip import ClipSpec
from foreframe.config import to_dict
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError
from foreframe.evaluation import Protocol, evaluate
from foreframe.models.svg import Config, Model
from foreframe.unrolled import Step
from tests.conftest import moving_square

CPU = torch.device("cpu")


class Oracle(torch.nn.Module):
    """Draws the square where the conditions say; a stand-in that obeys perfectly, or says a constant."""

    latent_shape = (1,)

    def __init__(self, grey=None):
        super().__init__()
        self.grey = grey

    def initial(self, clip, context):
        return ()

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        out = (
            torch.full_like(frame, self.grey)
            if self.grey is not None
            else (frame + 0.01 * noise[:, :, None, None]).clamp(0, 1)
        )
        return state, Step(out, None, None, None)


@pytest.fixture(scope="module")
def tiny(vector_pack):
    torch.manual_seed(0)
    model = Model(Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8), vector_pack.spec).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            module.weight.data.mul_(8)
    return model


def test_a_constant_grey_scores_what_arithmetic_says(vector_pack):
    result = evaluate(Oracle(0.5).eval(), vector_pack, Protocol("test", 2, 4), CPU)
    truth = torch.from_numpy(vector_pack.frames.copy()).float() / 255
    values = []
    for episode in vector_pack.split("test"):
        frames = truth[episode.start + 2 : episode.start + 6]
        values.append((-10 * torch.log10((frames - 0.5).square().mean((1, 2, 3)))).mean())
    assert result.scores["psnr"].mean == pytest.approx(float(torch.stack(values).mean()), abs=1e-4)
    assert len(result.scores["psnr"].per_frame) == 4


def test_repeating_the_last_frame_is_the_baseline_of_that_name(vector_pack):
    class Repeat(Oracle):
        def step(self, state, frame, cond, noise, target=None, context_left=-1):
            return state, Step(frame, None, None, None)

    result = evaluate(Repeat().eval(), vector_pack, Protocol("test", 2, 5), CPU)
    for name, summary in result.baselines["repeat_last"].items():
        assert result.scores[name].per_clip == pytest.approx(summary.per_clip, abs=1e-4)
    assert result.baselines["median_frame"]["psnr"].mean != result.scores["psnr"].mean


def test_best_of_n_takes_the_best_sample_of_each_clip_and_never_falls_below_the_mean(vector_pack):
    result = evaluate(Oracle().eval(), vector_pack, Protocol("test", 2, 4, samples=5), CPU)
    single = [evaluate(Oracle().eval(), vector_pack, Protocol("test", 2, 4, samples=1, seed=0), CPU)]
    mean, best = result.scores["psnr"], result.best_of_n["psnr"]
    assert all(b >= m for b, m in zip(best.per_clip, mean.per_clip, strict=True))
    assert best.mean > mean.mean
    assert best.mean >= single[0].scores["psnr"].mean
    assert single[0].best_of_n is None


def test_scores_do_not_depend_on_the_batch(tiny, vector_pack):
    one = evaluate(tiny, vector_pack, Protocol("train", 2, 4), CPU, batch=1)
    all_ = evaluate(tiny, vector_pack, Protocol("train", 2, 4), CPU, batch=4)
    assert one.scores["psnr"].per_clip == pytest.approx(all_.scores["psnr"].per_clip, abs=1e-3)


def test_modes_see_what_their_names_say(tiny, vector_pack):
    results = {
        m: evaluate(tiny, vector_pack, Protocol("test", 2, 4, m), CPU)
        for m in ("prediction", "reconstruction", "one-step")
    }
    assert len({r.scores["psnr"].mean for r in results.values()}) == 3
    protocols = {m: (r.protocol.feed, r.protocol.latent) for m, r in results.items()}
    assert protocols == {
        "prediction": ("own", "prior"),
        "reconstruction": ("own", "posterior"),
        "one-step": ("true", "prior"),
    }


def test_conditions_can_be_shuffled_shifted_or_zeroed_to_see_whether_they_are_obeyed(tiny, vector_pack):
    scores = {
        kind: evaluate(tiny, vector_pack, Protocol("test", 2, 4, conditions=kind), CPU).scores["psnr"].mean
        for kind in ("true", "shuffled", "shifted", "zeroed")
    }
    assert len(set(scores.values())) == 4


class Heard(Oracle):
    """Notes what it is told of every frame, and draws each row's mean as a grey."""

    def initial(self, clip, context):
        HEARD.append(clip.cond[:, 0])
        return ()

    def step(self, state, frame, cond, noise, target=None, context_left=-1):
        HEARD.append(cond)
        grey = cond.flatten(1).mean(1).sigmoid().view(-1, 1, 1, 1)
        return state, Step(grey.expand_as(frame), None, None, None)


HEARD = []
"""Not in the model, of which a copy is unrolled."""


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_shifted_conditions_lead_into_the_frame_after_their_own_in_the_context_too(request, kind):
    pack = request.getfixturevalue(f"{kind}_pack")
    heard = {}
    for conditions in ("true", "shifted"):
        HEARD.clear()
        evaluate(Heard().eval(), pack, Protocol("test", 3, 4, conditions=conditions), CPU)
        heard[conditions] = torch.stack(HEARD, 1)
    assert heard["true"].shape[:2] == (2, 7)
    assert heard["shifted"][:, 1:].equal(heard["true"][:, :-1])
    assert heard["shifted"][:, 0].equal(heard["true"][:, 0])
    assert not heard["shifted"].equal(heard["true"])


def test_who_listens_to_the_right_row_loses_by_the_shift_and_who_listens_to_none_does_not(tmp_path):
    spec = ClipSpec(3, 64, 64, "vector", 1)
    with PackWriter(tmp_path / "p", spec, ("grey",), fps=10, source={"layout": "test"}) as writer:
        for number in range(3):
            greys = np.random.default_rng(number).integers(0, 256, 8)
            frames = np.broadcast_to(greys[:, None, None, None], (8, 64, 64, 3)).astype(np.uint8)
            rows = np.log((greys + 0.5) / (255.5 - greys)).astype(np.float32)[:, None]
            writer.add(f"clip-{number}", "test", frames, rows)
    pack = Pack.open(tmp_path / "p")
    for model, listens in ((Heard(), True), (Oracle(0.5), False)):
        true, shifted = (
            evaluate(model.eval(), pack, Protocol("test", 2, 5, conditions=kind), CPU).scores["psnr"].mean
            for kind in ("true", "shifted")
        )
        assert (true > shifted + 20) if listens else (true == shifted)


def test_a_result_is_plain_json_and_says_how_it_was_made(vector_pack):
    result = evaluate(Oracle(0.5).eval(), vector_pack, Protocol("test", 2, 4, clips=1), CPU)
    again = json.loads(json.dumps(to_dict(result), allow_nan=False))
    protocol = again["protocol"]
    for key in (
        "mode",
        "context",
        "horizon",
        "samples",
        "reduction",
        "split",
        "clips",
        "metrics",
        "data_sha256",
        "seed",
    ):
        assert key in protocol
    assert protocol["clips"] == 1
    assert again["scores"]["psnr"]["ci95"] is None
    assert protocol["data_sha256"] == vector_pack.hash


def test_clips_too_short_for_the_horizon_are_refused(vector_pack):
    with pytest.raises(DataError, match="no clip of split 'test' is 32 frames long"):
        evaluate(Oracle(0.5).eval(), vector_pack, Protocol("test", 2, 30), CPU)


def test_a_pack_without_training_clips_has_no_median_frame(tmp_path):
    with PackWriter(tmp_path / "p", ClipSpec(3, 64, 64), (), fps=10, source={"layout": "test"}) as writer:
        writer.add("one", "test", moving_square(0, 8, 64, 64)[0], None)
    result = evaluate(Oracle(0.5).eval(), Pack.open(tmp_path / "p"), Protocol("test", 2, 4), CPU)
    assert set(result.baselines) == {"repeat_last"}
