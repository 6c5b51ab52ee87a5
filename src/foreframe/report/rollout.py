"""A rollout for people: its start, and the GIF, MP4, strip, pictures and curve that it writes."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foreframe import video
from foreframe.checkpoint import TrainedModel
from foreframe.clip import ClipSpec
from foreframe.config import to_dict
from foreframe.data.formats.folders import by_number
from foreframe.data.formats.tables import read_table
from foreframe.data.ingest.report import count
from foreframe.data.pack.pack import Pack
from foreframe.disk import put_all
from foreframe.errors import DataError
from foreframe.evaluation import check_spec, resolve
from foreframe.metrics import METRICS
from foreframe.predictor import STRIP_COLUMNS
from foreframe.report.plots import encoded, line_figure, over_frames, per_frame
from foreframe.report.results import BASELINES
from foreframe.rollout import ModeName, draw_noise, predict, prepare_for_inference
from foreframe.video.write import encode_gif, encode_mp4, encode_png

MAX_COND_BYTES = 16 * 2**20
"""Of a CSV of conditions: 100,000 rows of 16 long numbers."""
MAX_LISTED = 5
"""Faults of it that a message lists."""


@dataclass(frozen=True)
class Start:
    """Where a rollout begins: K context frames, conditions of all T frames, and the truth as far as it is known.

    context: (1, K, C, H, W). cond: (1, T, D), (1, T, C, H, W) or None. truth: (1, K..T, C, H, W) or None.
    Floats; frames in [0, 1]. `length` is T.
    """

    name: str
    number: int
    context: Tensor
    cond: Tensor | None
    truth: Tensor | None
    length: int


def from_pack(trained: TrainedModel, pack: Pack, split: str | None, clip: int, horizon: int) -> Start:
    """Begin with a clip of a pack; horizon 0 is the preset's, -1 as far as the clip goes; see `evaluation.resolve`.

    Raises:
        DataError: there is no such clip, or its conditions end before the horizon.
    """
    check_spec(trained, pack)
    split, wanted = resolve(trained.config, pack, split, horizon)
    episodes, known = pack.split(split), trained.config.train.context
    if not 0 <= clip < len(episodes):
        raise DataError(f"{pack.path}: split '{split}' has clips 0 to {len(episodes) - 1}, not {clip}")
    episode = episodes[clip]
    available = episode.length - known
    wanted = available if horizon == -1 else wanted
    if available < (1 if pack.cond is None else wanted):
        raise DataError(
            f"{pack.path}: clip '{episode.name}' has {episode.length} frames with conditions, so at most {available} "
            f"can be predicted after {known}, not {wanted}; for more, give --frames and --cond"
        )
    frames, cond = pack.read(episode, 0, min(episode.length, known + wanted))
    truth = _frames(frames)
    return Start(episode.name, clip, truth[:, :known], None if cond is None else _cond(cond), truth, known + wanted)


def from_files(trained: TrainedModel, frames: list[Path], cond: Path | None, horizon: int) -> Start:
    """Begin with pictures on disk and conditions; no future frame is needed.

    Args:
        frames: The K context frames, oldest first; brought to the model's size if they differ.
        cond: A folder of pose pictures, one a frame, sorted by number; or a CSV of one row a frame. Both count
            from the first context frame: row or picture t leads into frame t.
        horizon: Frames to predict; 0 or -1: as far as the conditions go, without a condition the preset's.
    Raises:
        DataError: a picture or row is missing or unreadable, or there are too few.
    """
    spec, train = trained.config.spec, trained.config.train
    if len(frames) != train.context:
        raise DataError(
            f"--frames: expected {train.context} pictures, as many as the model's context, got {len(frames)}"
        )
    context = _frames(np.stack([_picture(path, spec) for path in frames]))
    if spec.cond == "none":
        if cond is not None:
            raise DataError(f"--cond {cond}: this model takes no condition")
        length = train.context + (horizon if horizon > 0 else train.horizon)
        return Start(frames[0].stem, 0, context, None, None, length)
    if cond is None:
        what = "a folder of pose pictures" if spec.cond == "image" else f"a CSV with {spec.cond_size} columns"
        raise DataError(f"--cond is needed: {what}, one for each frame, context frames included")
    values = _cond(_pose_folder(cond, spec) if spec.cond == "image" else _table(cond, spec.cond_size))
    available = values.shape[1] - train.context
    wanted = horizon if horizon > 0 else available
    if wanted < 1 or wanted > available:
        raise DataError(
            f"{cond}: holds {values.shape[1]} conditions; with {train.context} context frames that is enough for "
            f"{max(available, 0)} predicted frames, not {max(wanted, 1)}"
        )
    length = train.context + wanted
    return Start(frames[0].stem, 0, context, values[:, :length], None, length)


def write_rollout(
    trained: TrainedModel,
    start: Start,
    out: Path,
    device: torch.device,
    mode: ModeName,
    samples: int,
    temperature: float,
    seed: int,
    scale: int,
    fps: float,
) -> str:
    """Roll out and write everything into `out`; returns a few lines that say what was made.

    rollout.gif and rollout.mp4: truth, prediction, error, further samples. strip.png: the same as a picture.
    frames/sample-1/00003.png ...: every predicted frame as it is, numbered from 1 as in the strip.
    psnr.json, psnr.png, psnr.svg: score per frame where the truth is known, beside the last context frame
    repeated. They replace those of an earlier rollout, all or none.

    Raises:
        DataError: a mode that needs true frames, which are not known.
        DiskError: the disk refused; everything in `out` is as it was.
    """
    known = start.context.shape[1]
    if mode != "prediction" and (start.truth is None or start.truth.shape[1] < start.length):
        raise DataError(f"--mode {mode} needs the true frames, which are not known here; only prediction is possible")
    truth = None if start.truth is None or mode == "prediction" else start.truth.to(device)
    cond = None if start.cond is None else start.cond.to(device)
    futures, files = [], {}
    model = prepare_for_inference(trained.model)
    for sample in range(samples):
        noise = draw_noise(model, [start.number], start.length, seed, sample, temperature).to(device)
        futures.append(predict(model, start.context.to(device), cond, noise, mode, truth)[0].cpu())
        for t, frame in enumerate(video.pictures(futures[-1]), known + 1):
            files[out / "frames" / f"sample-{sample + 1}" / f"{t:05d}.png"] = encode_png(frame)
    rows = _rows(start, futures, mode)
    grid, every = video.grid(rows, context=known, scale=scale), max(1, math.ceil(start.length / STRIP_COLUMNS))
    files[out / "rollout.gif"] = encode_gif(grid, fps)
    files[out / "rollout.mp4"] = encode_mp4(grid, fps)
    files[out / "strip.png"] = encode_png(video.strip(rows, every=every, context=known))
    lines = [f"{start.name}: {mode} of {start.length - known} frames, {samples} sample(s), in {out}"]
    if start.truth is not None:
        scores, line = _scores(out, start, futures, mode, trained)
        files.update(scores)
        lines.append(line)
    put_all(files, [path for path in _earlier(out) if path not in files])
    for folder in out.glob("frames/sample-*"):
        with suppress(OSError):  # not empty
            folder.rmdir()
    return "\n".join(lines)


def _earlier(out: Path) -> list[Path]:
    """Where an earlier rollout left its files in this folder."""
    names = ("rollout.gif", "rollout.mp4", "strip.png", "psnr.json", "psnr.png", "psnr.svg")
    return [*(out / name for name in names), *out.glob("frames/sample-*/*.png")]


def _scores(
    out: Path, start: Start, futures: list[Tensor], mode: str, trained: TrainedModel
) -> tuple[dict[Path, bytes], str]:
    """Files of the PSNR per frame, and it in a line."""
    assert start.truth is not None
    psnr, known = METRICS["psnr"], start.context.shape[1]
    truth = start.truth[0, known:]
    guesses = {f"{mode}, sample {i}" if len(futures) > 1 else mode: future for i, future in enumerate(futures, 1)}
    curves = {name: psnr(guess[: len(truth)], truth) for name, guess in guesses.items()}
    curves[BASELINES["repeat_last"]] = psnr(start.context[0, -1:].expand_as(truth), truth)
    values = {name: {"mean": float(curve.mean()), "per_frame": curve.tolist()} for name, curve in curves.items()}
    record = {
        "clip": start.name,
        "mode": mode,
        "context": known,
        "metric": psnr.definition,
        "model": to_dict(trained.provenance),
        "psnr": values,
    }
    files = {out / "psnr.json": (json.dumps(record, indent=1) + "\n").encode()}
    numbers = [*range(len(futures)), None]
    named = zip(curves.items(), numbers, strict=True)
    lines = [per_frame(name, curve.tolist(), known, number) for (name, curve), number in named]
    figure = line_figure(over_frames(f"{start.name}: PSNR per frame", "PSNR (dB)", known, lines))
    files |= {path: encoded(figure, path) for path in (out / "psnr.png", out / "psnr.svg")}
    return files, "PSNR: " + ", ".join(f"{name} {value['mean']:.2f} dB" for name, value in values.items())


def _rows(start: Start, futures: list[Tensor], mode: str) -> list[video.Row]:
    """Labelled videos of equal length: truth where it is known, first future, error, the other futures."""
    context = video.pictures(start.context[0])
    whole = [np.concatenate([context, video.pictures(future)]) for future in futures]
    if start.truth is None:
        return [(f"{mode} {i}" if len(whole) > 1 else mode, frames) for i, frames in enumerate(whole, 1)]
    truth = video.pictures(start.truth[0])
    known = len(truth)
    error = np.zeros_like(whole[0])
    error[:known] = video.error_picture(whole[0][:known], truth)
    padded = np.zeros_like(whole[0])
    padded[:known] = truth
    rows: list[video.Row] = [("truth", padded), (mode, whole[0]), ("error x4", error)]
    return rows + [(f"sample {i}", frames) for i, frames in enumerate(whole[1:], 2)]


def _picture(path: Path, spec: ClipSpec) -> NDArray[np.uint8]:
    picture = video.read_image(path)
    if picture.shape[:2] != (spec.height, spec.width):
        size = (spec.width, spec.height)
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return picture


def _pose_folder(folder: Path, spec: ClipSpec) -> NDArray[np.uint8]:
    listed = folder.iterdir() if folder.is_dir() else ()
    paths = [path for path in listed if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if not paths:
        raise DataError(f"--cond {folder}: expected a folder of pose pictures, found none")
    paths.sort(key=lambda path: by_number("".join(filter(str.isdigit, path.stem)) or path.stem))
    return np.stack([_picture(path, spec) for path in paths])


def _table(path: Path, columns: int) -> NDArray[np.float32]:
    if not path.is_file():
        raise DataError(f"--cond {path}: expected a CSV file with {columns} columns, not found")
    size = path.stat().st_size
    if size > MAX_COND_BYTES:
        raise DataError(f"--cond {path}: {size} bytes, expected at most {MAX_COND_BYTES}")
    with path.open("rb") as file:
        rows = sum(1 for line in file if line.strip())
    if 2 * rows * columns > MAX_COND_BYTES:  # a number takes two bytes at least
        raise DataError(f"--cond {path}: expected {columns} numbers in each of its {rows} rows, found fewer")
    values, faults = read_table(path, str(path), columns, rows)
    if faults:
        more = f", the first {MAX_LISTED} are" if len(faults) > MAX_LISTED else ""
        raise DataError(f"--cond {path}: cannot be used; {count(len(faults), 'fault')}{more}", faults[:MAX_LISTED])
    return values


def _frames(pixels: NDArray[np.uint8]) -> Tensor:
    """(T, H, W, C) uint8 to (1, T, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)[None].float() / 255


def _cond(values: NDArray[Any]) -> Tensor:
    return _frames(values) if values.ndim == 4 else torch.from_numpy(np.array(values, np.float32))[None]
