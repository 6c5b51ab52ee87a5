"""Reading training batches: random windows of a memory-mapped pack against PNGs read one by one, as the labs do."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import train
from benchmarks.measure import Candidate, clock, compare, ratios, spread
from benchmarks.suites import BenchContext, Suite
from foreframe.clip import ClipSpec
from foreframe.data.loading.windows import Windows, batch_indices
from foreframe.data.pack.pack import Pack, PackWriter

LENGTH = train.CONTEXT + train.HORIZON
CALLS = 20
"""Batches read in one call, so that a call takes long enough for the clock."""


def run(setting: BenchContext) -> Suite:
    """Frames a second of both, and what share of a training step a batch of the pack takes."""
    suite = Suite()
    clips, batch, calls = (6, 2, 2) if setting.quick else (100, train.BATCH, CALLS)
    with tempfile.TemporaryDirectory(prefix="foreframe-bench-") as folder:
        pack = write_pack(Path(folder) / "pack", clips)
        size = write_pngs(Path(folder) / "png", pack)
        windows = Windows(pack, "train", LENGTH)
        step = iter(range(10**9))

        def from_pngs() -> Tensor:
            return read_pngs(Path(folder) / "png", windows, batch, next(step))

        def from_pack() -> None:
            for _ in range(calls):
                windows.batch(batch_indices(len(windows), batch, 0, next(step))[1])

        case = train.cases(setting.device, setting.quick)[0]
        step_once = train.make_step(train.Variant("fast"), case, train.build(case).train(), setting.device)

        def training() -> None:
            step_once()
            if setting.device.type == "cuda":
                torch.cuda.synchronize(setting.device)

        candidates = [
            Candidate("PNG by PNG, floats", from_pngs, frames=batch * LENGTH),
            Candidate("pack, uint8", from_pack, frames=calls * batch * LENGTH),
            Candidate(f"training step, {case.name}", training, frames=case.frames),
        ]
        # Reading is work of the host, whatever the device.
        host = torch.device("cpu")
        found = compare("loading", candidates, host, setting.rounds, setting.advance)
    _rate_by_frame(found)
    # A GPU works while the host waits, so there the wall clock counts.
    key = clock(host) if setting.device.type == "cpu" else "wall_seconds"
    reading, stepping = ([times[key] for times in row["rounds"]] for row in found["ways"][1:])
    suite.races.append(found)
    suite.checks = {
        "png_bytes": size,
        "share_of_step": spread([each / calls for each in ratios(reading, stepping)] or [0.0]),
        "step": case.name,
    }
    return suite


def _rate_by_frame(found: dict[str, Any]) -> None:
    """Calls read different numbers of frames: the factor is of frames a second, round by round. A step reads none."""
    base = found["ways"][0]
    key = found["clock"]
    found["ways"][-1]["factor"] = None
    for row in found["ways"][:-1]:
        share = row["frames"] / base["frames"]
        factors = ratios([times[key] * share for times in base["rounds"]], [times[key] for times in row["rounds"]])
        row["factor"] = spread(factors) if factors else None


def write_pack(path: Path, clips: int, length: int = 30) -> Pack:
    """Clips of 30 frames of 64x64 with seven numbers, as many as asked for, all to train on."""
    names = tuple(f"c{number}" for number in range(7))
    with PackWriter(path, ClipSpec(3, 64, 64, "vector", 7), names, fps=10, source={"layout": "bench"}) as writer:
        for number in range(clips):
            draw = np.random.default_rng(number)
            writer.add(f"clip-{number}", "train", _frames(draw, length), draw.normal(size=(length, 7)).astype("f4"))
    return Pack.open(path)


def _frames(draw: np.random.Generator, length: int) -> NDArray[np.uint8]:
    """Blotches and a little noise: as a PNG about as large as a camera's frame of this size, 8.5 kB."""
    coarse = torch.from_numpy(draw.uniform(0, 255, (length, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").permute(0, 2, 3, 1).numpy()
    return (smooth + draw.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_pngs(path: Path, pack: Pack) -> float:
    """The same frames as files CLIP/FRAME.png; gives their mean size in bytes."""
    sizes = []
    for episode in pack.episodes:
        (path / episode.name).mkdir(parents=True)
        for number, frame in enumerate(pack.read(episode, 0, episode.length)[0]):
            file = path / episode.name / f"{number}.png"
            Image.fromarray(np.asarray(frame)).save(file)
            sizes.append(file.stat().st_size)
    return float(np.mean(sizes))


def read_pngs(path: Path, windows: Windows, batch: int, step: int) -> Tensor:
    """The labs' way to a batch (B, T, C, H, W) in [0, 1]: open, to float, stack, for each frame by itself."""
    clips = []
    for index in batch_indices(len(windows), batch, 0, step)[1].tolist():
        episode, start = windows.place(index)
        frames = []
        for number in range(start, start + windows.length):
            with Image.open(path / episode.name / f"{number}.png") as picture:
                frames.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float().div(255))
        clips.append(torch.stack(frames))
    return torch.stack(clips)
