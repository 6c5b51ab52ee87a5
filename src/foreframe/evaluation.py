"""Scores with the protocol that gave them, and trivial baselines on the same clips.

Only mode `prediction` uses none of the frames it is scored on; the other modes go by their own names.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from foreframe import seeds, signals
from foreframe.checkpoint import Provenance, TrainedModel
from foreframe.clip import Clip
from foreframe.data.layouts.registry import inputs_of, layouts
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.device import Hardware, describe
from foreframe.errors import DataError, UsageError, nearest
from foreframe.measured import use_of
from foreframe.metrics import METRICS, Fvd, Lpips, Summary, score_frames, summarize
from foreframe.metrics.fvd import FvdProtocol, FvdScore, bias, frechet_distance
from foreframe.metrics.lpips import without_weights
from foreframe.models import Model
from foreframe.recipe import RunConfig
from foreframe.rollout import MODES, ModeName, draw_noise, predict, prepare_for_inference

ROWS = 64
"""Rollouts (samples of clips) at once: memory does not grow with their number."""
MEDIAN_FRAMES = 500
"""At most this many training frames, evenly spaced, give the median frame."""
Conditions = Literal["true", "shuffled", "shifted", "zeroed"]


@dataclass(frozen=True)
class Protocol:
    """What to measure."""

    split: str
    context: int
    horizon: int
    mode: ModeName = "prediction"
    samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    conditions: Conditions = "true"
    """Conditions of each frame: the clip's own, these shuffled in time, each one frame late, or zeros. A model that
    follows its conditions scores worse with the last three."""
    clips: int = 0
    """At most this many clips, evenly spaced over the split; 0: all."""
    metrics: tuple[str, ...] = ("psnr", "ssim")


@dataclass(frozen=True)
class MeasuredProtocol:
    """What was measured. Two results compare only if theirs agree."""

    split: str
    context: int
    horizon: int
    mode: ModeName
    samples: int
    temperature: float
    seed: int
    conditions: Conditions
    clips: int
    """Clips that were scored."""
    metrics: dict[str, str]
    """The definition of each metric."""
    feed: Literal["own", "true"]
    latent: Literal["prior", "posterior"]
    reduction: str
    best_of_n: str
    """How the best sample is chosen."""
    clip_names_sha256: str
    too_short: tuple[str, ...]
    """Clips that were left out."""
    data_sha256: str
    model_sha256: str | None = None
    fvd: FvdProtocol | None = None
    measured: Literal["none", "given", "predicted", "unused"] | None = None
    """Measured states beyond the context: there are none, or the recorded ones were given to the model, or it predicted
    them, or does without. None: an earlier result, of a model that was given whatever there was."""


@dataclass(frozen=True)
class Result:
    """Scores by metric, in its unit."""

    protocol: MeasuredProtocol
    scores: dict[str, Summary]
    """The mean over samples."""
    baselines: dict[str, dict[str, Summary]]
    """Trivial baselines, by name and metric: the last context frame repeated, the median training frame."""
    data: str
    """Name of the pack."""
    hardware: Hardware
    created: str
    """Date and time, ISO 8601."""
    best_of_n: dict[str, Summary] | None = None
    """The best sample of each clip; None of a single sample."""
    fvd: FvdScore | None = None
    model: Provenance | None = None
    """Which weights; None for a model that comes from no run."""


def evaluate(
    model: Model,
    pack: Pack,
    protocol: Protocol,
    device: torch.device,
    batch: int = 16,
    advance: Callable[[int], None] | None = None,
    lpips: Lpips | None = None,
    fvd: Fvd | None = None,
) -> Result:
    """Score a model on one split of a pack.

    Each clip is its episode's first K + horizon frames. `best_of_n` takes, for each clip and each metric separately,
    the sample with the best mean over frames.

    Args:
        model: On `device`; a copy of it is unrolled.
        batch: Clips unrolled together; it does not change the result beyond rounding.
        advance: Called with the number of rollouts done.
        lpips: With its weights, on `device`; for the metric of that name.
        fvd: With its weights, on `device`: also the Frechet video distance, of all samples of all clips together.
    Raises:
        DataError: the split has no clip that long, or its clips are not what the model takes.
        UsageError: LPIPS without its weights; FVD of clips too few, too short or not of 3 channels.
    """
    if protocol.horizon < 1:
        raise DataError(
            f"split '{protocol.split}': its clips leave no frame to predict after {protocol.context} of context"
        )
    length = protocol.context + protocol.horizon
    model = prepare_for_inference(model)
    windows = Windows(pack, protocol.split, length, "first")
    chosen = evenly_spaced(len(windows), protocol.clips)
    scores = _Scores(protocol, pack, len(chosen), lpips, fvd)
    median = _median_frame(pack)
    for start in range(0, len(chosen), batch):
        indices = chosen[start : start + batch]
        clip = windows.batch(indices).to(device).unit()
        given = Clip(clip.frames, conditions_given(clip.cond, protocol))
        scores.add_truth(clip)
        scores.add("model", clip, sample(model, given, indices, protocol, advance))
        guesses = {"repeat_last": clip.frames[:, protocol.context - 1 : protocol.context]}
        if median is not None:
            guesses["median_frame"] = median.to(device)
        for baseline, guess in guesses.items():
            future = guess.expand_as(clip.frames[:, protocol.context :])
            scores.add(baseline, clip, [future[None]])
    everything = scores.by_name()
    ours = everything.pop("model")
    return Result(
        protocol=_measured(protocol, pack, windows, chosen, scores, model),
        scores={name: summarize(values.mean(1)) for name, values in ours.items()},
        baselines={
            baseline: {name: summarize(values.mean(1)) for name, values in found.items()}
            for baseline, found in everything.items()
        },
        data=pack.path.name,
        hardware=describe(device),
        created=timestamp(),
        best_of_n={name: summarize(_best(name, values)) for name, values in ours.items()}
        if protocol.samples > 1
        else None,
        fvd=scores.fvd_score(),
    )


def evaluate_run(
    trained: TrainedModel,
    pack: Pack,
    protocol: Protocol,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
    lpips: Lpips | None = None,
    fvd: Fvd | None = None,
) -> Result:
    """`evaluate` for a run on disk: the result also names the weights.

    Raises:
        DataError: these clips are not of the kind the run was trained on.
    """
    check_spec(trained, pack)
    result = evaluate(trained.model, pack, protocol, device, advance=advance, lpips=lpips, fvd=fvd)
    weights = trained.provenance
    return replace(result, protocol=replace(result.protocol, model_sha256=weights.weights_sha256), model=weights)


def check_spec(trained: TrainedModel, pack: Pack) -> None:
    """Raises DataError when a pack's clips are not what the model takes."""
    if pack.spec != trained.config.spec:
        raise DataError(f"{pack.path}: its clips are {pack.spec}; {trained.run} was trained on {trained.config.spec}")


def check_metrics(metrics: tuple[str, ...]) -> None:
    """Raises UsageError for no name, or one that is not a metric of single frames."""
    if not metrics:
        raise UsageError("metrics: expected one at least, found none")
    for name in metrics:
        if name == "fvd":
            raise UsageError("fvd is no metric of single frames: --fvd-weights FILE asks for it, beside --metrics")
        if name not in METRICS:
            raise UsageError(f"there is no metric '{name}'{nearest(name, METRICS)} (known: {', '.join(METRICS)})")


def resolve(config: RunConfig, pack: Pack, split: str | None = None, horizon: int = 0) -> tuple[str, int]:
    """The split to score, by default test, or val where there is no test; and the frames to predict in it.

    Raises DataError: the split has no clips, or no truth.
    """
    split = split or ("val" if "test" not in pack.splits and "val" in pack.splits else "test")
    source = pack.manifest.source
    folder = str(source.get("folder"))
    if split not in pack.splits and split in inputs_of(layouts().get(str(source.get("layout"))), Path(folder)):
        raise DataError(
            f"{pack.path}: split '{split}' has no true frames, so it cannot be scored; predict it with `foreframe "
            f"rollout RUN --data {folder} --split {split} --out DIR`, which scores it where true frames lie beside it"
        )
    return split, default_horizon(config, pack, split, horizon)


def default_horizon(config: RunConfig, pack: Pack, split: str, horizon: int = 0) -> int:
    """Frames to predict: `horizon`; where it is 0 the preset's; for -1 to the end of the split's shortest clip."""
    train = config.train
    horizon = horizon or train.eval_horizon or train.horizon
    return min(episode.length for episode in pack.split(split)) - train.context if horizon == -1 else horizon


def sample(
    model: Model,
    clip: Clip,
    indices: list[int],
    protocol: Protocol | MeasuredProtocol,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """The predictions of clips under a protocol, (S, B, T-K, C, H, W), as many samples at a time as `ROWS` allows.

    Args:
        indices: Numbers of the clips, from which their noise follows.
        advance: Called with the number of rollouts done.
    """
    together = max(1, ROWS // len(indices))
    for first in range(0, protocol.samples, together):
        signals.poll()
        numbers = range(first, min(first + together, protocol.samples))
        draws = [draw_noise(model, indices, len(clip), protocol.seed, n, protocol.temperature) for n in numbers]
        noise = torch.cat(draws).to(clip.frames.device)
        yield unroll(model, clip, noise, protocol.context, protocol.mode).unflatten(0, (len(numbers), -1))
        if advance is not None:
            advance(len(noise))


def unroll(model: Model, clip: Clip, noise: Tensor, context: int, mode: ModeName) -> Tensor:
    """A clip's frames after the context, (B, T-K, C, H, W), or (S*B, ...) as noise has.

    Mode `prediction` never receives the true frames.
    """
    truth = None if mode == "prediction" else clip.frames
    return predict(model, clip.frames[:, :context], clip.cond, noise, mode, truth)


class _Scores:
    """The scores of the model and of the baselines, and features of their frames for the Frechet video distance."""

    def __init__(self, protocol: Protocol, pack: Pack, clips: int, lpips: Lpips | None, fvd: Fvd | None) -> None:
        if "lpips" in protocol.metrics and lpips is None:
            without_weights()
        if fvd is not None:
            fvd.check(pack.spec.channels, protocol.context, protocol.horizon, clips)
        self.protocol, self.clips, self.lpips, self.fvd = protocol, clips, lpips, fvd
        self.batches: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        self.features: dict[str, list[Tensor]] = defaultdict(list)

    def add_truth(self, clip: Clip) -> None:
        self._add_features("real", clip, clip.frames[:, self.protocol.context :])

    def add(self, name: str, clip: Clip, parts: Iterable[Tensor]) -> None:
        """All samples of some clips, a part after another: frames after the context, (s, B, T-K, C, H, W)."""
        true = clip.frames[:, self.protocol.context :]
        found: dict[str, list[Tensor]] = {metric: [] for metric in self.protocol.metrics}
        for predicted in parts:
            scores = score_frames(predicted, true, [metric for metric in found if metric != "lpips"])
            if "lpips" in found and self.lpips is not None:
                scores["lpips"] = self.lpips(predicted, true)
            for metric, values in found.items():
                values.append(scores[metric])
            self._add_features(name, clip, predicted)
        for metric, values in found.items():
            self.batches[name][metric].append(torch.cat(values).transpose(0, 1).cpu())

    def by_name(self) -> dict[str, dict[str, Tensor]]:
        """(N, S, T) by model or baseline and by metric."""
        return {
            name: {metric: torch.cat(batches) for metric, batches in found.items()}
            for name, found in self.batches.items()
        }

    def definitions(self) -> dict[str, str]:
        """The definition of each metric, with the weights of its network."""
        found = {name: METRICS[name].definition for name in self.protocol.metrics}
        if self.lpips is not None and "lpips" in found:
            found["lpips"] += f" Weights: SHA-256 {self.lpips.sha256}."
        return found

    def fvd_protocol(self) -> FvdProtocol | None:
        known, horizon, samples = self.protocol.context, self.protocol.horizon, self.protocol.samples
        return None if self.fvd is None else self.fvd.protocol(known, horizon, self.clips, samples)

    def fvd_score(self) -> FvdScore | None:
        if self.fvd is None:
            return None
        features = {name: torch.cat(parts) for name, parts in self.features.items()}
        real = features.pop("real")
        found = {name: frechet_distance(real, other) for name, other in features.items()}
        return FvdScore(found.pop("model"), found, bias(self.clips))

    def _add_features(self, name: str, clip: Clip, future: Tensor) -> None:
        if self.fvd is None:
            return
        if self.fvd.context:
            known = clip.frames[:, : self.protocol.context]
            future = torch.cat((known.expand(*future.shape[:-4], *known.shape[-4:]), future), -4)
        self.features[name].append(self.fvd(future).flatten(0, -2))


def _median_frame(pack: Pack) -> Tensor | None:
    """The median of evenly spaced training frames, (C, H, W) in [0, 1]; None without a training split.

    Never of the clips that are scored, which would be the answer.
    """
    if "train" not in pack.splits:
        return None
    numbers = np.concatenate([np.arange(e.start, e.start + e.length) for e in pack.split("train")])
    chosen = numbers[np.linspace(0, len(numbers) - 1, min(MEDIAN_FRAMES, len(numbers))).round().astype(int)]
    median = np.median(pack.frames[chosen], axis=0).astype(np.float32) / 255
    return torch.from_numpy(median).permute(2, 0, 1)


def conditions_given(cond: Tensor | None, protocol: Protocol) -> Tensor | None:
    """The conditions (B, T, ...) under a protocol; shuffled keeps no row in its place.

    Shifted, row t leads into frame t+1 and the first row into frames 0 and 1, as in clips aligned one frame off.
    """
    if cond is None or protocol.conditions == "true":
        return cond
    if protocol.conditions == "zeroed":
        return torch.zeros_like(cond)
    if protocol.conditions == "shifted":
        return torch.cat((cond[:, :1], cond[:, :-1]), 1)
    length = cond.shape[1]
    order = torch.randperm(length, generator=seeds.generator(protocol.seed, "shuffled conditions", length))
    places = torch.empty_like(order)
    places[order] = order.roll(1)
    return cond[:, places.to(cond.device)]


def _best(name: str, scores: Tensor) -> Tensor:
    """(N, S, T) to (N, T): of each clip, the sample whose mean over frames is best."""
    means = scores.mean(2)
    best = means.argmin(1) if METRICS[name].lower_is_better else means.argmax(1)
    return scores[torch.arange(len(scores)), best]


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Which of `count` clips are scored where at most `limit` are; 0: all."""
    wanted = count if limit == 0 else min(limit, count)
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


def clips_measured(pack: Pack, windows: Windows, chosen: list[int]) -> dict[str, Any]:
    """Entries of a protocol: which clips were taken, which were left out, and from which pack."""
    return {
        "clips": len(chosen),
        "clip_names_sha256": hashlib.sha256("\n".join(windows.names(chosen)).encode()).hexdigest(),
        "too_short": tuple(episode.name for episode in windows.short),
        "data_sha256": pack.hash,
    }


def _measured(
    protocol: Protocol, pack: Pack, windows: Windows, chosen: list[int], scores: _Scores, model: Model
) -> MeasuredProtocol:
    values = asdict(protocol) | clips_measured(pack, windows, chosen) | asdict(MODES[protocol.mode])
    return MeasuredProtocol(
        **values | {"metrics": scores.definitions()},
        reduction="mean over samples, then frames, then clips",
        best_of_n="for each metric by itself, the sample with the best mean over frames",
        fvd=scores.fvd_protocol(),
        measured=use_of(model, pack.manifest.measured_columns),
    )


def timestamp() -> str:
    """Date and time, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
