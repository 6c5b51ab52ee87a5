from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foreframe import inputs, models
from foreframe.checkpoint import load_run
from foreframe.data.pack.pack import Pack
from foreframe.errors import ForeframeError, InputError, NotFiniteError
from foreframe.models import pose_cvae, pose_unet
from foreframe.models.svg import Config
from foreframe.predictor import MAX_VIDEOS, Predictor, Rollout
from foreframe.recipe import TrainConfig
from foreframe.report.rollout import Rolling, write_rollouts
from foreframe.report.starts import from_pack
from foreframe.rollout import draw_noise, predict
from foreframe.video import read_image
from tests.conftest import write_pack
from tests.runs import CPU, TINY, make

K, HORIZON = 2, 4
SCALES = {"svg": 12, "pose_unet": 2, "pose_cvae": 1.45}


def trained(pack: Pack, run: Path, config: TrainConfig) -> Predictor:
    """A predictor of a model with weights large enough that its condition, latent and frames matter."""
    trainer = make(pack, run, dataclasses.replace(config, steps=1, ema=0.0, validate_every=0, horizon=3, context=K))
    with torch.no_grad():
        for module in trainer.state.model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
                module.weight.mul_(SCALES[models.name_of(config.model)])
        for parameter in getattr(trainer.state.model, "label", torch.nn.Identity()).parameters():  # of pose_cvae
            parameter.mul_(2)
    trainer.acquire_lock()
    trainer.save()
    trainer.lock.release()
    return Predictor(load_run(run, "newest", CPU), CPU)


@pytest.fixture(scope="module")
def predictor(vector_pack: Pack, tmp_path_factory) -> Predictor:
    return trained(vector_pack, tmp_path_factory.mktemp("vector"), TINY)


KINDS = {
    "svg": ("vector", Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8)),
    "svg of frame K-2": ("vector", Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8, skip="svg")),
    "svg, last frame's maps": ("vector", Config("dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8, skip="last-frame")),
    "svg without a latent": ("vector", Config("dcgan", "none", width=4, g_dim=8, rnn_size=8)),
    "pose_unet": ("image", pose_unet.Config(width=8, detail=4, latent=2, scene=2)),
    "pose_cvae": ("image", pose_cvae.Config(f_dim=16, l_dim=4, n_dim=4, d_out=24, output="sigmoid")),
    "without a condition": ("none", Config(backbone="dcgan", width=4, g_dim=8, z_dim=3, rnn_size=8)),
}


@pytest.fixture(scope="module", params=KINDS)
def any_kind(request, tmp_path_factory) -> tuple[Predictor, np.ndarray, np.ndarray | None]:
    """A predictor of each kind, and a clip of its test split."""
    cond, model = KINDS[request.param]
    size = (32, 64) if cond == "image" else (64, 64)
    folder = tmp_path_factory.mktemp("kinds")
    pack = write_pack(folder / "pack", cond, size)
    frames, rows = pack.read(pack.split("test")[0], 0, 8)
    return trained(pack, folder / "run", dataclasses.replace(TINY, model=model)), frames, rows


def clip(pack: Pack) -> tuple[np.ndarray, np.ndarray]:
    frames, rows = pack.read(pack.split("test")[0], 0, 8)
    assert rows is not None
    return frames, rows


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal, but for the rounding of a level."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


# ---------------------------------------------------------------- the same frames, however they are asked for


def test_a_rollout_is_that_of_the_functions_below_it(any_kind):
    predictor, frames, rows = any_kind
    made = predictor.rollout(frames[:K], None if rows is None else rows[: K + HORIZON], 3, HORIZON, seed=5, clip=2)
    unit = torch.from_numpy(frames[:K].copy()).permute(0, 3, 1, 2)[None].float() / 255
    cond = None if rows is None else torch.from_numpy(rows.copy())[None]
    if cond is not None and cond.ndim == 5:
        cond = cond.movedim(-1, -3).float() / 255
    model = predictor.trained.model
    for sample, shown in enumerate(made.frames):
        expected = predict(model, unit, cond, draw_noise(model, [2], K + HORIZON, 5, sample))[0]
        assert close(shown, (expected.permute(0, 2, 3, 1) * 255).round().numpy().astype(np.uint8))
    assert made.frames.shape == (3, HORIZON, *frames.shape[1:])
    assert (made.given == frames[:K]).all()
    assert np.ptp(made.frames) > 20


def test_step_after_step_is_the_rollout_of_the_same_seed(any_kind):
    predictor, frames, rows = any_kind
    whole = predictor.rollout(frames[:K], None if rows is None else rows[: K + HORIZON], 2, HORIZON, seed=3)
    past = None if rows is None else rows[:K]
    state = predictor.start(frames[:K], past, samples=2, horizon=HORIZON, seed=3)
    for t in range(HORIZON):
        state, shown = predictor.step(state, None if rows is None else rows[K + t])
        assert (shown == whole.frames[:, t]).all()
    assert state.count == K + HORIZON
    if rows is not None:
        split = predictor.rollout(frames[:K], rows[K : K + HORIZON], 2, seed=3, past=past)
        assert (split.frames == whole.frames).all()


def test_a_batch_of_plans_gives_each_the_frames_that_it_has_alone(any_kind, monkeypatch):
    predictor, frames, rows = any_kind
    if rows is None:
        return
    plans = np.stack([rows[: K + HORIZON], rows[: K + HORIZON]])
    plans[1, K:] = 255 - plans[0, K:] if predictor.spec.cond == "image" else plans[0, K:][::-1]
    alone = [predictor.rollout(frames[:K], plan, 3).frames for plan in plans]
    assert not close(*alone)
    for at_once in (256, 3):  # both plans together, and one after the other
        monkeypatch.setattr("foreframe.predictor.ROWS", at_once)
        together = predictor.rollout(frames[:K], plans, 3)
        assert together.frames.shape == (2, 3, HORIZON, *frames.shape[1:])
        assert all(close(a, b) for a, b in zip(together.frames, alone, strict=True))
        assert all(close(together[i].frames, alone[i]) for i in (0, 1))


def test_a_batch_of_starts_gives_each_the_frames_of_its_clip(any_kind, monkeypatch):
    predictor, frames, rows = any_kind
    starts = np.stack([frames[:K], frames[3 : 3 + K]])
    plans = None if rows is None else np.stack([rows[: K + 2], rows[3 : 5 + K]])
    for at_once in (256, 1):
        monkeypatch.setattr("foreframe.predictor.ROWS", at_once)
        together = predictor.rollout(starts, plans, 2, horizon=2, clip=4)
        for i, shown in enumerate(together.frames):
            plan = None if plans is None else plans[i]
            assert close(shown, predictor.rollout(starts[i], plan, 2, horizon=2, clip=4 + i).frames)
    state = predictor.start(starts, None if plans is None else plans[:, :K], horizon=2, clip=4)
    state, shown = predictor.step(state, None if plans is None else plans[:, K])
    assert close(shown, together.frames[:, 0, 0])


def test_plans_that_differ_in_the_past_are_starts_of_their_own(predictor, vector_pack):
    frames, rows = clip(vector_pack)
    plans = np.stack([rows, rows])
    plans[1, :K] += 1
    together = predictor.rollout(frames[:K], plans, 1)
    assert all(
        close(a, predictor.rollout(frames[:K], b, 1).frames) for a, b in zip(together.frames, plans, strict=True)
    )
    assert not close(*together.frames)


def test_the_context_of_many_plans_is_encoded_once(predictor, vector_pack, monkeypatch):
    frames, rows = clip(vector_pack)
    seen = []
    encoder = predictor._model.encoder.forward
    monkeypatch.setattr(predictor._model.encoder, "forward", lambda x: (seen.append(len(x)), encoder(x))[1])
    predictor.rollout(frames[:K], np.stack([rows] * 5), samples=1)
    assert seen == [1, 1, 1, *[5] * 5], "frame 0, frame 1 as target, frame 1; then five plans of six frames"


def test_one_state_is_continued_in_many_ways(predictor, vector_pack):
    frames, rows = clip(vector_pack)
    state = predictor.start(frames[:K], rows[1:K], seed=1)
    plans = np.stack([rows[K], rows[K] + 2, rows[K] - 2])
    many, shown = predictor.step(state, plans)
    assert shown.shape == (3, 64, 64, 3)
    for plan, frame in zip(plans, shown, strict=True):
        assert close(predictor.step(state, plan)[1], frame)
    many, again = predictor.step(many, rows[K + 1])
    one = predictor.step(predictor.step(state, plans[1])[0], rows[K + 1])[1]
    assert close(again[1], one)
    assert state.count == K


def test_steps_beyond_the_horizon_draw_noise_of_their_own(predictor, vector_pack):
    frames, rows = clip(vector_pack)

    def fifth(seed: int, horizon: int) -> np.ndarray:
        state = predictor.start(frames[:K], rows[:K], samples=2, horizon=horizon, seed=seed)
        for t in range(5):
            state, shown = predictor.step(state, rows[K + t])
        return shown

    assert (fifth(0, 1) == fifth(0, 1)).all()
    assert not (fifth(0, 1)[0] == fifth(0, 1)[1]).all()
    assert not (fifth(0, 1) == fifth(1, 1)).all()


def test_a_frame_that_is_known_is_taken_in(predictor, vector_pack):
    frames, rows = clip(vector_pack)
    state = predictor.start(frames[:K], rows[:K])
    taken, shown = predictor.step(state, rows[K], frame=frames[K])
    assert (shown == frames[K]).all()
    assert taken.given
    assert not close(
        predictor.step(taken, rows[K + 1])[1], predictor.step(predictor.step(state, rows[K])[0], rows[K + 1])[1]
    )
    longer = predictor.trained.config.train.context + 1
    assert taken.count == longer


def test_of_more_frames_the_last_are_used_with_their_rows(predictor, vector_pack):
    frames, rows = clip(vector_pack)
    expected = predictor.rollout(frames[2:4], rows[2:8], 2).frames
    assert (predictor.rollout(frames[:4], rows, 2).frames == expected).all()
    assert (predictor.rollout(frames[:4], rows[4:], 2, past=rows[:4]).frames == expected).all()


def test_columns_by_name_and_tensors_are_the_same_as_arrays(predictor, vector_pack):
    frames, rows = clip(vector_pack)
    expected = predictor.rollout(frames[:K], rows, 1).frames
    assert predictor.columns == ("dy", "dx")
    named = {"dx": rows[:, 1].tolist(), "dy": torch.from_numpy(rows[:, 0].copy())}
    assert (predictor.rollout(frames[:K], named, 1).frames == expected).all()
    tensors = torch.from_numpy(frames[:K].copy()), torch.from_numpy(rows.copy())
    assert (predictor.rollout(*tensors, 1).frames == expected).all()
    state = predictor.start(frames[:K], rows[:K])
    by_name = predictor.step(state, {"dy": rows[K, 0], "dx": rows[K, 1]})[1]
    assert (by_name == predictor.step(state, rows[K])[1]).all()


def test_without_temperature_the_samples_are_one(predictor, vector_pack):
    frames, rows = clip(vector_pack)
    mean = predictor.rollout(frames[:K], rows, 2, temperature=0.0).frames
    assert close(mean[0], mean[1])
    varied = predictor.rollout(frames[:K], rows, 2).frames
    assert not close(varied[0], varied[1])


def test_the_command_line_makes_the_same_frames(predictor, vector_pack, tmp_path):
    start = from_pack(predictor.trained, vector_pack, "test", 1, HORIZON)
    write_rollouts(predictor.trained, [start], tmp_path, CPU, Rolling(samples=2, seed=7, scale=1))
    frames, rows = vector_pack.read(vector_pack.split("test")[1], 0, K + HORIZON)
    made = predictor.rollout(frames[:K], rows, 2, seed=7, clip=1).frames
    for sample in (0, 1):
        for t in range(HORIZON):
            path = tmp_path / "frames" / f"sample-{sample + 1}" / f"{K + t + 1:05d}.png"
            assert close(read_image(path), made[sample, t])


# ---------------------------------------------------------------- what it says and what it writes


def test_the_card_says_what_it_is_and_takes(predictor):
    card = predictor.card
    for part in ("model svg", "step 0 of 1", "SHA-256 ", "2 frames 64x64x3, uint8; 2 numbers a frame (dy, dx)", "none"):
        assert part in card
    assert card in repr(predictor)
    assert (predictor.context, predictor.fps, predictor.horizon, predictor.run) == (2, 10.0, 3, predictor.trained.run)


def test_the_model_is_folded_once(predictor, vector_pack, monkeypatch):
    frames, rows = clip(vector_pack)
    fresh = Predictor(predictor.trained, CPU)
    calls = []
    real = fresh.rollout.__globals__["prepare_for_inference"]
    monkeypatch.setitem(
        fresh.rollout.__globals__, "prepare_for_inference", lambda model: (calls.append(1), real(model))[1]
    )
    assert calls == []
    fresh.rollout(frames[:K], rows, 1)
    fresh.rollout(frames[:K], rows, 1)
    assert calls == [1]


@pytest.mark.parametrize("suffix", ["gif", "mp4", "png"])
def test_a_rollout_is_saved_as_a_video_or_a_strip(predictor, vector_pack, tmp_path, suffix):
    frames, rows = clip(vector_pack)
    made = predictor.rollout(frames[:K], rows, 2)
    assert str(made) == "Rollout(frames=(2, 6, 64, 64, 3) uint8, after 2 given, 10 fps)"
    path = made.save(tmp_path / "new" / f"out.{suffix}", scale=1)
    assert path.stat().st_size > 1000
    if suffix == "gif":
        with Image.open(path) as gif:
            assert gif.n_frames == 8


def test_a_batch_is_saved_with_a_name_for_each_sequence(predictor, vector_pack, tmp_path):
    frames, rows = clip(vector_pack)
    made = predictor.rollout(frames[:K], np.stack([rows, -rows]), 2)
    assert [label for label, _ in made._rows()][:2] == ["sequence 1, sample 1", "sequence 1, sample 2"]
    assert len(made) == 2
    assert made.save(tmp_path / "all.gif").exists()
    with pytest.raises(IndexError, match="it holds 2 sequences"):
        made[2]


# ---------------------------------------------------------------- misuse

FRAMES = np.zeros((K, 64, 64, 3), np.uint8)
ROWS = np.zeros((6, 2), np.float32)
GAP = ROWS.copy()
GAP[3, 1] = np.nan

UINT8 = r"uint8 \(K, 64, 64, 3\)"
MISUSES = {
    "floats in [0, 1]": (FRAMES / 255.0, ROWS, {}, rf"frames: got float64 .*, expected {UINT8} .*: give \(255 \* x\)"),
    "floats up to 255": (FRAMES + 100.0, ROWS, {}, r"frames: got float64 .* give x\.astype\('uint8'\)"),
    "whole numbers": (FRAMES.astype(int), ROWS, {}, r"frames: got int64 .* give x\.astype\('uint8'\)"),
    "channels first": (FRAMES.transpose(0, 3, 1, 2), ROWS, {}, r"frames: .* channels first, .*moveaxis\(x, -3, -1\)"),
    "one picture": (FRAMES[0], ROWS, {}, rf"frames: .*, a single picture, expected {UINT8}: give x\[None\]"),
    "a line": (FRAMES[0, 0], ROWS, {}, rf"frames: got uint8 \(64, 3\), expected {UINT8}, or with an axis B"),
    "another size": (FRAMES[:, :32], ROWS, {}, r"frames: got uint8 \(2, 32, 64, 3\), .* as the model was trained"),
    "too few frames": (FRAMES[:1], ROWS, {}, r"frames: got 1, expected 2 or more, the model's context"),
    "a path": ("a.png", ROWS, {}, rf"frames: got str, expected {UINT8} as an array"),
    "ragged frames": ([FRAMES[0], FRAMES[0, :5]], ROWS, {}, r"frames: got parts of unlike shapes, expected uint8"),
    "no controls": (FRAMES, None, {}, r"controls: got None, expected 2 numbers a frame \(dy, dx\)"),
    "too few columns": (FRAMES, ROWS[:, :1], {}, r"controls: .* 1 columns, expected \(T, 2\) with the columns dy, dx"),
    "no axis D": (FRAMES, ROWS[:, 0], {}, r"controls: got float32 \(6,\), expected \(T, 2\)"),
    "NaN": (FRAMES, GAP, {}, r"controls: got nan in row 3, column dx, expected finite numbers"),
    "too large": (FRAMES, ROWS.astype(float) + 1e300, {}, r"controls: got 1e\+300 in row 0, column dy"),
    "a wrong name": (FRAMES, {"dy": 0, "dxx": 0}, {}, r"controls: got a column 'dxx', .*; did you mean 'dx'\?"),
    "a missing name": (FRAMES, {"dy": ROWS[:, 0]}, {}, r"controls: got no column dx, expected all of dy, dx"),
    "ragged columns": (FRAMES, {"dy": ROWS[:, 0], "dx": [0]}, {}, r"controls: got columns of unlike shapes"),
    "words": (FRAMES, [["left", "up"]] * 6, {}, r"controls: got list, expected \(T, 2\)"),
    "no future": (
        FRAMES,
        ROWS[:2],
        {},
        r"controls: got 2 rows, expected 3 or more, one for each of the 2 given frames",
    ),
    "rows of the predicted frames alone": (
        FRAMES,
        ROWS[:3],
        {},
        r"controls: got 3 rows, as many as .*, expected a row for each of the 2 given .* past=, or horizon=1 if these",
    ),
    "too few rows": (FRAMES, ROWS, {"horizon": 5}, r"controls: got 6 rows, expected 7 or more, .* past="),
    "too much past": (FRAMES, ROWS, {"past": ROWS}, r"past: got 6 rows, expected 2, one for each .*, or 1 without"),
    "too little future": (FRAMES, ROWS, {"past": ROWS[:1], "horizon": 9}, r"controls: got 6 rows, expected 9 or more"),
    "a horizon of 0": (FRAMES, ROWS, {"horizon": 0}, r"horizon: got 0, expected a whole number, 1 or more"),
    "no samples": (FRAMES, ROWS, {"samples": 0}, r"samples: got 0, expected a whole number, 1 or more"),
    "half a sample": (FRAMES, ROWS, {"samples": 0.5}, r"samples: got 0\.5, expected a whole number"),
    "a seed in words": (FRAMES, ROWS, {"seed": "a"}, r"seed: got 'a', expected a whole number"),
    "a clip below 0": (FRAMES, ROWS, {"clip": -1}, r"clip: got -1, expected a whole number, 0 or more"),
    "below freezing": (FRAMES, ROWS, {"temperature": -1}, r"temperature: got -1, expected a number, 0 to 1000"),
    "unlike batches": (np.stack([FRAMES] * 3), np.stack([ROWS] * 2), {}, r"frames: got 3 sequences, but 2 in controls"),
}


@pytest.mark.parametrize(("frames", "controls", "others", "sentence"), MISUSES.values(), ids=MISUSES)
def test_a_misuse_is_answered_in_one_sentence(predictor, frames, controls, others, sentence):
    with pytest.raises(InputError, match=f"^{sentence}") as caught:
        predictor.rollout(frames, controls, **others)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ForeframeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, s: p.step(FRAMES, ROWS[0]), "state: got ndarray, expected what start"),
        (lambda p, s: p.step(s), r"control: got None, expected 2 numbers a frame \(dy, dx\)"),
        (lambda p, s: p.step(s, ROWS[None]), r"control: got float32 \(1, 6, 2\), expected \(2\) with"),
        (lambda p, s: p.step(s, {"dy": np.inf, "dx": 0}), "control: got inf in column dy, expected finite numbers"),
        (lambda p, s: p.step(p.step(s, ROWS[:3])[0], ROWS[:2]), "state: got 3 sequences, but 2 in control"),
        (lambda p, s: p.step(s, ROWS[0], frame=FRAMES[0] / 2), r"frame: got float64 .*, expected uint8 \(64, 64, 3\)"),
        (lambda p, s: p.start(FRAMES), "past: got None, expected 2 numbers a frame"),
        (lambda p, s: p.start(FRAMES, ROWS), "past: got 6 rows, expected 2"),
        (lambda p, s: p.start(FRAMES, ROWS[:2], horizon=0), "horizon: got 0"),
        (lambda p, s: p.start(FRAMES, ROWS[:2], samples=0), "samples: got 0"),
        (lambda p, s: p.rollout(FRAMES, ROWS).save("out.webm"), r"save: got 'out\.webm', expected a name that"),
        (lambda p, s: p.rollout(FRAMES, ROWS).save("out.gif", fps=60), "fps of a gif: got 60, expected a number"),
        (lambda p, s: p.rollout(FRAMES, ROWS).save("out.gif", scale=0), "scale: got 0"),
        (lambda p, s: p.rollout(FRAMES, ROWS)[0], r"rollout\[0\]: this is the rollout of one sequence"),
        (lambda p, s: p.rollout(FRAMES, ROWS, MAX_VIDEOS + 1).save("out.png"), "save: got 37 videos, expected at most"),
    ],
)  # fmt: skip
def test_a_misuse_of_steps_and_files_is_answered_in_one_sentence(predictor, call, sentence):
    state = predictor.start(FRAMES, ROWS[:1])
    with pytest.raises(InputError, match=f"^{sentence}") as caught:
        call(predictor, state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "controls", "sentence"),
    [
        ("pose_unet", {"dy": ROWS[:, 0]}, "controls: got a mapping, expected pictures: this model is driven by poses"),
        ("pose_unet", ROWS, r"controls: got float32 \(6, 2\), expected uint8 \(T, 32, 64, 3\)"),
        ("without a condition", ROWS, "controls: got ndarray, expected None: this model takes no condition"),
    ],
)
def test_what_another_kind_of_model_takes_is_refused(tmp_path, kind, controls, sentence):
    cond, model = KINDS[kind]
    size = (32, 64) if cond == "image" else (64, 64)
    pack = write_pack(tmp_path / "pack", cond, size, clips=4)
    predictor = trained(pack, tmp_path / "run", dataclasses.replace(TINY, model=model))
    frames = np.zeros((K, *size, 3), np.uint8)
    with pytest.raises(InputError, match=f"^{sentence}"):
        predictor.rollout(frames, controls)


def test_predictions_that_diverge_are_an_error(predictor, vector_pack, monkeypatch):
    frames, rows = clip(vector_pack)
    state = predictor.start(frames[:K], rows[:K])
    state.noise.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match=r"frame 3 of 3 is not finite .*: the model's predictions diverge"):
        predictor.step(state, rows[K])


def test_long_lists_of_columns_are_cut_in_messages():
    columns = tuple(f"joint_{i}" for i in range(40))
    with pytest.raises(InputError, match=r"joint_11, \.\.\. \(40\)") as caught:
        inputs.read_numbers("controls", np.zeros((5, 3)), columns, "T")
    assert len(str(caught.value)) < 250


def test_a_rollout_of_grey_pictures_is_shown_in_color(tmp_path):
    made = Rollout(np.zeros((1, 3, 16, 16, 1), np.uint8), np.zeros((2, 16, 16, 1), np.uint8), 60.0)
    assert made.save(tmp_path / "grey.gif").exists()
