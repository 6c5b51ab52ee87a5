"""A small network that reads the condition from frames: trained on real ones, applied to predicted ones.

Vector conditions: frames t-1 and t give the row that leads into frame t. Pictures: frame t gives the place of what
is drawn in its picture, in pixels. It is trained on the frames of the training split alone, and kept beside the cache
of packs, so that every run on a pack is read by the same network.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe import disk, seeds, signals
from foreframe.clip import ClipSpec
from foreframe.data.cache import cache_folder
from foreframe.data.loading.windows import channels_first
from foreframe.data.pack.pack import Pack
from foreframe.errors import CheckpointError, DataError, DiskError
from foreframe.tensors import read_tensors, tensor_bytes

VERSION = 1
"""Part of the name under which a decoder is kept; another network or another training is another version."""
STEPS, BATCH, RATE = 1200, 32, 6e-3
DECAY = 1e-2
EXAMPLES = 2**14
"""At most this many training frames, evenly spaced over the split."""
SIDE = 64
"""Longest side of its input in pixels; larger frames are averaged down to it."""
POINTS = 8
"""Maps at whose points the other maps are read too."""
INK = 48
"""A pixel of a picture is part of the drawing if a channel differs by more from the picture's median color."""


class Decoder(nn.Module):
    """Frames (N, F*C, H, W) in [0, 1] to D numbers, in their own units; F is 2 for vectors, 1 for pictures.

    Each of the last maps gives the point at which it is strongest: a soft arg-max over the frame (Finn et al. 2016,
    "Deep spatial autoencoders"). At the points of the first of them the values of all maps are read too.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__()
        self.frames = 2 if spec.cond == "vector" else 1
        outputs = spec.cond_size if spec.cond == "vector" else 2
        # Two frames are given with their difference, in which motion stands out.
        inputs = spec.channels * (3 if self.frames == 2 else 1)
        self.see = nn.Sequential(
            nn.Conv2d(inputs, 16, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
        )
        self.sharpness = nn.Parameter(torch.ones(32))
        self.say = nn.Sequential(nn.Linear(64 + 32 * POINTS, 64), nn.ReLU(), nn.Linear(64, outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("deviation", torch.ones(outputs))

    def forward(self, frames: Tensor) -> Tensor:
        """In the units of the targets, (N, D)."""
        return self.standardised(frames) * self.deviation + self.mean

    def standardised(self, frames: Tensor) -> Tensor:
        """In standard deviations of each target in the training split, (N, D)."""
        seen = _shrunk(frames) - 0.5
        if self.frames == 2:
            before, now = seen.chunk(2, 1)
            seen = torch.cat([before, now, now - before], 1)
        maps = self.see(seen)
        weights = (maps * self.sharpness[:, None, None]).flatten(2).softmax(2).unflatten(2, maps.shape[2:])
        y, x = (torch.linspace(-1, 1, size, device=maps.device) for size in maps.shape[2:])
        rows, columns = weights.sum(3) @ y, weights.sum(2) @ x
        there = weights[:, :POINTS].flatten(2) @ maps.relu().flatten(2).transpose(1, 2)
        return cast(Tensor, self.say(torch.cat([rows, columns, there.flatten(1)], 1)))


@dataclass(frozen=True)
class Found:
    """A decoder, whether it was read from the cache, and faults found there."""

    decoder: Decoder
    path: Path
    cached: bool
    notes: tuple[str, ...]


def find(pack: Pack) -> Found:
    """The decoder of a pack: from the cache, or trained now on the CPU and kept there.

    Raises:
        DataError: the pack has no split `train`, or nothing in it to learn from.
    """
    path = cache_folder().parent / "decoders" / f"{pack.hash[:32]}-{VERSION}.safetensors"
    decoder, notes = Decoder(pack.spec), []
    if path.exists():
        try:
            decoder.load_state_dict(_read(path, decoder))
            return Found(decoder.eval().requires_grad_(False), path, True, ())
        except CheckpointError as error:
            notes.append(f"the condition decoder in the cache is damaged and is trained again ({error})")
    print(f"training the condition decoder of {pack.path.name}, once: about a minute", file=sys.stderr, flush=True)
    decoder = train(pack)
    tensors = decoder.state_dict()
    try:
        disk.put(path, tensor_bytes({**tensors, "sha256": _hash(tensors)}))
    except DiskError as error:
        notes.append(f"the condition decoder could not be kept: {error}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    return Found(decoder, path, False, tuple(notes))


def train(pack: Pack) -> Decoder:
    """A decoder of the training split: `STEPS` steps of AdamW on `BATCH` frames each, deterministic.

    Raises:
        DataError: the pack has no split `train`, or nothing in it to learn from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(pack.spec)
    numbers, wanted = _examples(pack, decoder.frames)
    decoder.mean.copy_(wanted.mean(0))
    deviation = wanted.std(0, correction=0)
    decoder.deviation.copy_(torch.where(deviation < 1e-6 * (1 + decoder.mean.abs()), 1.0, deviation))
    goal = (wanted - decoder.mean) / decoder.deviation
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS + 1, cycle_momentum=False)
    draw = seeds.generator(0, "condition decoder")
    for _ in range(STEPS):
        signals.poll()
        rows = torch.randint(len(numbers), (BATCH,), generator=draw)
        seen = _blurred(_shrunk(_stacked(pack, numbers[rows], decoder.frames)), draw)
        loss = functional.smooth_l1_loss(decoder.standardised(seen), goal[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return decoder.eval().requires_grad_(False)


def targets(cond: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers to read from frames, (B, T, D) float, and which frames have some, (B, T) bool.

    Args:
        cond: (B, T, D), given back as it is; or pictures (B, T, C, H, W), uint8 or in [0, 1], of which the center (x,
            y) of the drawn pixels is taken, in pixels from the upper left corner. An empty picture has none.
    """
    if cond.ndim == 3:
        return cond.float(), torch.ones(cond.shape[:2], dtype=torch.bool, device=cond.device)
    pictures = cond.float() * (1.0 if cond.dtype == torch.uint8 else 255.0)
    # The background is the color of most pixels: white in some sets, black in others.
    ground = pictures.flatten(3).median(3).values[..., None, None]
    ink = ((pictures - ground).abs().amax(2) > INK).float()
    amount = ink.sum((2, 3))
    height, width = ink.shape[2:]
    x, y = (torch.arange(size, device=cond.device, dtype=torch.float32) for size in (width, height))
    center = torch.stack([ink.sum(2) @ x, ink.sum(3) @ y], 2) / amount.clamp(min=1)[..., None]
    return center, amount > 0


def target_names(pack: Pack) -> tuple[str, ...]:
    """A name for each number of `targets`."""
    return pack.cond_names if pack.spec.cond == "vector" else ("x", "y")


@torch.no_grad()
def read(decoder: Decoder, frames: Tensor) -> Tensor:
    """The numbers that a decoder reads from successive frames.

    Args:
        frames: (B, 1 + T, C, H, W) in [0, 1]; the first only precedes the second.
    Returns:
        (B, T, D) for all frames but the first.
    """
    parts = [frames[:, :-1], frames[:, 1:]] if decoder.frames == 2 else [frames[:, 1:]]
    stacked = torch.cat(parts, 2)
    found = [decoder(rows) for rows in stacked.flatten(0, 1).split(256)]
    return cast(Tensor, torch.cat(found).unflatten(0, stacked.shape[:2]))


def _examples(pack: Pack, frames: int) -> tuple[Tensor, Tensor]:
    """Numbers of the frames to learn from, (N,), and their targets, (N, D)."""
    assert pack.cond is not None
    starts = [(episode.start, episode.length) for episode in pack.split("train")]
    numbers = torch.cat([torch.arange(start + min(frames - 1, length), start + length) for start, length in starts])
    numbers = numbers[torch.linspace(0, len(numbers) - 1, min(EXAMPLES, len(numbers)), dtype=torch.float64).long()]
    wanted, known = [], []
    for part in numbers.split(512):
        signals.poll()
        given = channels_first(torch.from_numpy(pack.cond[part.numpy()][None]))
        values, there = targets(given)
        wanted.append(values[0])
        known.append(there[0])
    keep = torch.cat(known) if known else torch.zeros(0, dtype=torch.bool)
    if not keep.any():
        what = "pair of frames" if frames == 2 else "pose picture with a drawing"
        raise DataError(f"{pack.path}: no {what} in split 'train' from which a decoder could learn")
    return numbers[keep], torch.cat(wanted)[keep]


def _stacked(pack: Pack, numbers: Tensor, frames: int) -> Tensor:
    """Frames `numbers` of a pack behind those before them, (N, F*C, H, W) in [0, 1]."""
    at = numbers.numpy()
    pictures = np.concatenate([pack.frames[at - back] for back in reversed(range(frames))], 3)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def _blurred(frames: Tensor, draw: torch.Generator) -> Tensor:
    """Half the rows of frames (N, C, H, W) blurred, by different amounts, as predicted frames are."""
    blur = functional.interpolate(functional.avg_pool2d(frames, 4), frames.shape[2:], mode="bilinear")
    amount = 2 * torch.rand(len(frames), 1, 1, 1, generator=draw) - 1
    return torch.lerp(frames, blur, amount.clamp(min=0))


def _shrunk(frames: Tensor) -> Tensor:
    height, width = frames.shape[2:]
    share = SIDE / max(height, width)
    if share >= 1:
        return frames
    return functional.adaptive_avg_pool2d(frames, (max(1, round(height * share)), max(1, round(width * share))))


def _read(path: Path, decoder: Decoder) -> dict[str, Tensor]:
    """Raises CheckpointError for a file that is not, to the last byte, what `find` wrote."""
    expected = decoder.state_dict()
    found = read_tensors(path, {**expected, "sha256": _hash(expected)})
    given = found.pop("sha256")
    if not torch.equal(given, _hash(found)):
        raise CheckpointError(f"{path}: its numbers are not those that were written")
    return found


def _hash(tensors: dict[str, Tensor]) -> Tensor:
    """SHA-256 of names and numbers, (32,) uint8."""
    state = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        state.update(name.encode() + values.detach().cpu().contiguous().numpy().tobytes())
    return torch.tensor(list(state.digest()), dtype=torch.uint8)
