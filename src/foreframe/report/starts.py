"""Where rollouts begin: clips of a pack, pictures and conditions on disk, or folders of many sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from foreframe.data.formats.folders import by_number
from foreframe.data.formats.tables import read_table
from foreframe.data.ingest.report import count
from foreframe.data.layouts.contract import Inputs
from foreframe.data.pack.pack import Pack
from foreframe.errors import DataError, printable
from foreframe.evaluation import check_spec, resolve

MAX_COND_BYTES = 16 * 2**20
"""Of a CSV of conditions: 100,000 rows of 16 long numbers."""
MAX_LISTED = 5
"""Faults of it that a message lists."""


@dataclass(frozen=True)
class Start:
    """Where a rollout begins: K context frames, conditions of all T frames, and the truth as far as it is known.

    context: (1, K, C, H, W). cond: (1, T, D), (1, T, C, H, W) or None. truth: (1, K..T, C, H, W) or None. Pictures are
    uint8, rows floats. `length` is T. files: what its files are named after, if it is one of several.
    """

    name: str
    number: int
    context: Tensor
    cond: Tensor | None
    truth: Tensor | None
    length: int
    files: str = ""


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
    truth = _tensor(frames)
    return Start(episode.name, clip, truth[:, :known], None if cond is None else _tensor(cond), truth, known + wanted)


def from_files(trained: TrainedModel, frames: list[Path], given: Inputs, horizon: int, number: int = 0) -> Start:
    """Begin with pictures on disk and conditions; no future frame is needed.

    Args:
        frames: The K context frames, oldest first; or one folder of pictures, of which those after the first K are
            truth. They are brought to the model's size if they differ.
        given: `cond` is a folder of pose pictures, one a frame, sorted by number; or a CSV of one row a frame. Both
            count from the first context frame: row or picture t leads into frame t. `truth`: a folder of true frames.
        horizon: Frames to predict; 0 or -1: as far as the conditions go, without a condition the preset's.
    Raises:
        DataError: a picture or row is missing or unreadable, or there are too few.
    """
    spec, train = trained.config.spec, trained.config.train
    folder = frames[0] if len(frames) == 1 and frames[0].is_dir() else None
    shown = frames if folder is None else _pictures("--frames", folder)
    if len(shown) < train.context or (folder is None and len(shown) > train.context):
        raise DataError(
            f"--frames: expected {train.context} pictures, as many as the model's context, got {len(shown)}"
            + ("" if folder is None else f" in {folder}")
        )
    cond, length = _conditions(trained, given.cond, horizon)
    if given.truth is not None and given.truth.is_dir():
        total = length if cond is None else cond.shape[1]
        shown = _true_frames(given.truth, shown[: train.context], total)
    truth = _tensor(np.stack([_picture(path, spec) for path in shown[:length]]))
    context, name = truth[:, : train.context], folder.name if folder else frames[0].stem
    known = truth if len(shown) > train.context else None
    return Start(name, number, context, None if cond is None else cond[:, :length], known, length)


def from_folders(trained: TrainedModel, given: Inputs, horizon: int) -> list[Start]:
    """Begin with the sequences of a folder of folders, in the order of their numbers; or with the one in a folder.

    Raises:
        DataError: as for `from_files`; or a sequence has frames and no conditions, or conditions and no frames.
    """
    names = _folders(given.frames)
    if not names:
        return [from_files(trained, [given.frames], given, horizon)]
    if given.cond is not None:
        found = {path.stem if path.suffix == ".csv" else path.name: path for path in _entries(given.cond)}
        lonely = sorted(
            set(names) ^ (set(found) if trained.config.spec.cond == "vector" else set(_folders(given.cond)))
        )
        if lonely:
            raise DataError(
                f"--frames {given.frames} and --cond {given.cond}: expected each sequence in both, found in one only: "
                + ", ".join(map(printable, lonely[:MAX_LISTED]))
            )
    starts = []
    for number, name in enumerate(names):
        cond = None if given.cond is None else found[name]
        truth = None if given.truth is None else given.truth / name
        start = from_files(trained, [given.frames / name], Inputs(given.frames, cond, truth), horizon, number)
        starts.append(replace(start, files=name))
    return starts


def _conditions(trained: TrainedModel, cond: Path | None, horizon: int) -> tuple[Tensor | None, int]:
    """All conditions of a sequence, and T: the context and the frames to predict."""
    spec, train = trained.config.spec, trained.config.train
    if spec.cond == "none":
        if cond is not None:
            raise DataError(f"--cond {cond}: this model takes no condition")
        return None, train.context + (horizon if horizon > 0 else train.horizon)
    if cond is None:
        what = "a folder of pose pictures" if spec.cond == "image" else f"a CSV with {spec.cond_size} columns"
        raise DataError(f"--cond is needed: {what}, one for each frame, context frames included")
    values = _tensor(_poses(cond, spec) if spec.cond == "image" else _table(cond, spec.cond_size))
    available = values.shape[1] - train.context
    wanted = horizon if horizon > 0 else available
    if wanted < 1 or wanted > available:
        raise DataError(
            f"{cond}: holds {values.shape[1]} conditions; with {train.context} context frames that is enough for "
            f"{max(available, 0)} predicted frames, not {max(wanted, 1)}"
        )
    return values, train.context + wanted


def _true_frames(folder: Path, context: list[Path], total: int) -> list[Path]:
    """The pictures of all frames: those of the folder, which may leave out the context."""
    paths = _pictures("--truth", folder)
    if len(paths) not in (total, total - len(context)):
        without = total - len(context)
        raise DataError(f"{folder}: expected {total} true frames, or {without} without the first, found {len(paths)}")
    return paths if len(paths) == total else [*context, *paths]


def _entries(folder: Path) -> list[Path]:
    """What is visible in a folder, in the order of the numbers in the names; nothing if there is no folder."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    return sorted(found, key=lambda path: by_number("".join(filter(str.isdigit, path.stem)) or path.stem))


def _folders(folder: Path) -> list[str]:
    return [path.name for path in _entries(folder) if path.is_dir()]


def _pictures(flag: str, folder: Path, what: str = "pictures") -> list[Path]:
    paths = [path for path in _entries(folder) if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if not paths:
        raise DataError(f"{flag} {folder}: expected a folder of {what}, found none")
    return paths


def _picture(path: Path, spec: ClipSpec) -> NDArray[np.uint8]:
    picture = video.read_image(path)
    if picture.shape[:2] != (spec.height, spec.width):
        size = (spec.width, spec.height)
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return picture


def _poses(folder: Path, spec: ClipSpec) -> NDArray[np.uint8]:
    return np.stack([_picture(path, spec) for path in _pictures("--cond", folder, "pose pictures")])


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


def _tensor(values: NDArray[Any]) -> Tensor:
    """Pictures (T, H, W, C) as (1, T, C, H, W), rows (T, D) as (1, T, D)."""
    tensor = torch.from_numpy(np.array(values))[None]
    return tensor.permute(0, 1, 4, 2, 3) if values.ndim == 4 else tensor.float()
