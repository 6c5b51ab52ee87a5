"""I3D (Carreira & Zisserman, 2017): Inception-v1 with every kernel inflated in time, for RGB and Kinetics' 400 classes.

The Frechet video distance looks at clips through it. Its weights are given by the user, as `.npz` or
`.safetensors` with the names of the widely used PyTorch port's state dict; nothing is unpickled. Layers hold those
names too, and are padded as TensorFlow's "SAME" is: dynamically, the odd pixel behind.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.nn import functional

from foreframe import config
from foreframe.errors import UsageError

CLASSES = 400
SIDE = 224
"""Pixels a side of the frames it takes: what remains of them is 7x7, the size of the last pooling."""
SHORTEST = 9
"""Frames of the shortest clip: three strides of 2 make 2 of them, the length of the last pooling."""
MIXED = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels in, and out of b0, b1a, b1b, b2a, b2b, b3b: the branches of each Inception module."""
MOST_BYTES = 64 * 2**20
_MOST_ENTRIES = 10_000
_COUNTER = "num_batches_tracked"
"""What BatchNorm keeps for training: newer files have it, older do not, and nothing here depends on it."""
_HEADER = re.compile(rb"\{'descr': '([^']{1,10})', 'fortran_order': (?:True|False), 'shape': \(([0-9, ]*)\), \}\s*")


class I3d(nn.Module):
    """Logits of clips, averaged over what time is left: (B, 3, T, 224, 224) in [-1, 1] to (B, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        for name, channels in MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
            self.add_module(name, _Mixed(*channels))
        self.logits = _Logits(1024, CLASSES)
        self.eval().requires_grad_(False)

    def forward(self, clips: Tensor) -> Tensor:
        maps = clips
        for stage in self.children():  # in the order of __init__
            maps = stage(maps)
        return maps


class _Unit(nn.Module):
    """Convolution without bias, BatchNorm and ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outside, eps=1e-3)

    def forward(self, maps: Tensor) -> Tensor:
        padded = _same(maps, self.conv3d.kernel_size, self.conv3d.stride)
        return functional.relu(self.bn(self.conv3d(padded)), inplace=True)


class _Pool(nn.Module):
    """The largest of each neighbourhood."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:
        # What comes here went through ReLU, so that zeros around it win nowhere.
        return functional.max_pool3d(_same(maps, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """An Inception module: four branches side by side."""

    def __init__(self, inside: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = _Unit(inside, b0, 1)
        self.b1a, self.b1b = _Unit(inside, b1a, 1), _Unit(b1a, b1b, 3)
        self.b2a, self.b2b = _Unit(inside, b2a, 1), _Unit(b2a, b2b, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inside, b3b, 1)

    def forward(self, maps: Tensor) -> Tensor:
        branches = self.b0(maps), self.b1b(self.b1a(maps)), self.b2b(self.b2a(maps)), self.b3b(self.b3a(maps))
        return torch.cat(branches, 1)


class _Logits(nn.Module):
    """Average over 2x7x7, a linear map with bias, and the mean over time."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, 1)

    def forward(self, maps: Tensor) -> Tensor:
        pooled = functional.avg_pool3d(maps, (2, SIDE // 32, SIDE // 32), stride=1)
        logits: Tensor = self.conv3d(pooled)
        return logits.flatten(2).mean(2)


def _same(maps: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around (..., T, H, W), so that a window gives ceil(size / stride) of each; the odd one comes behind."""
    pads: list[int] = []
    for size, window, step in zip(maps.shape[:-4:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(0, (-(-size // step) - 1) * step + window - size)
        pads += [total // 2, total - total // 2]
    return functional.pad(maps, pads)


def load_i3d(path: Path) -> tuple[I3d, str]:
    """The network with weights from a `.npz` or `.safetensors`, on the CPU, and the SHA-256 of the file.

    Raises:
        UsageError: the file is not of I3D for RGB and 400 classes; what is missing, unknown or of another shape or
            type is named, and nothing of it is read.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise UsageError(
            f"{path}: expected weights of I3D as .npz or .safetensors; other files are pickles, which are never read: "
            "docs/concepts.md says how to convert them"
        )
    with torch.device("meta"):
        network = I3d()
    expected = {
        name: f"F32 {tuple(tensor.shape)}" for name, tensor in network.state_dict().items() if _COUNTER not in name
    }
    try:
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file; expected weights of I3D")
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path}: {path.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}")
        content = path.read_bytes()
        read = _from_safetensors if path.suffix == ".safetensors" else _from_npz
        found = read(path, content, expected)
    except (
        OSError, ValueError, EOFError, RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error, SafetensorError
    ) as error:  # fmt: skip
        raise UsageError(f"{path}: not readable as {path.suffix} weights of I3D ({str(error)[:200]})") from error
    for name, tensor in found.items():
        if not tensor.isfinite().all() or (name.endswith("running_var") and (tensor < 0).any()):
            raise UsageError(f"{path}: {name}: holds numbers that no weights are (not finite, or a variance below 0)")
    counters = {name: torch.zeros((), dtype=torch.int64) for name in network.state_dict() if _COUNTER in name}
    network.load_state_dict({**found, **counters}, assign=True)
    return network.requires_grad_(False), hashlib.sha256(content).hexdigest()


def _from_npz(path: Path, content: bytes, expected: Mapping[str, str]) -> dict[str, Tensor]:
    if content.count(b"PK\1\2") > _MOST_ENTRIES:
        raise UsageError(f"{path}: more than {_MOST_ENTRIES:,} entries in the archive")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise UsageError(f"{path}: unpacks to more than {MOST_BYTES:,} bytes")
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise UsageError(f"{path}: the same name twice")
        kinds, heads = {}, {}
        for name, entry in entries.items():
            with archive.open(entry) as file:
                start = file.read(2**12)
            kinds[name], heads[name] = _kind(start), 10 + int.from_bytes(start[8:10], "little")
        _check(path, kinds, expected)
        for name, kind in expected.items():
            numbers = math.prod(map(int, re.findall(r"\d+", kind.removeprefix("F32"))))
            if entries[name].file_size > heads[name] + 4 * numbers:
                raise UsageError(f"{path}: {name}: more bytes than its shape takes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in expected}


def _kind(start: bytes) -> str:
    """Type and shape, as safetensors calls them, from the first bytes of a `.npy`."""
    length = int.from_bytes(start[8:10], "little")
    header = _HEADER.fullmatch(start[10 : 10 + length]) if start[:8] == b"\x93NUMPY\1\0" else None
    if header is None:
        return "no plain array"
    shape = tuple(int(size[:18]) for size in header[2].decode().replace(" ", "").split(",") if size)
    kind = header[1].decode()
    return f"{'F32' if kind == '<f4' else kind} {shape}"


def _from_safetensors(path: Path, content: bytes, expected: Mapping[str, str]) -> dict[str, Tensor]:
    length = int.from_bytes(content[:8], "little")
    if length > config.LIMIT:
        raise UsageError(f"{path}: a header of {length:,} bytes, expected at most {config.LIMIT:,}")
    header = config.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no table of tensors")
    kinds = {}
    for name, entry in header.items():
        if name != "__metadata__":
            known = isinstance(entry, dict) and isinstance(entry.get("shape"), list)
            kinds[name] = f"{entry.get('dtype')} {tuple(entry['shape'])}" if known else "no tensor"
    _check(path, kinds, expected)
    tensors: dict[str, Tensor] = safetensors.load(content)
    return {name: tensors[name] for name in expected}


def _check(path: Path, kinds: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raises UsageError unless these are the tensors expected, by name, type and shape."""
    wrong = [
        f"{name}: expected {kind}, found {kinds.get(name, 'nothing')[:100]}"
        for name, kind in expected.items()
        if kinds.get(name) != kind
    ]
    unknown = [name for name in kinds if name not in expected and not name.endswith(f".bn.{_COUNTER}")]
    wrong += [f"{config.shown(name)}: not a name of its layers" for name in unknown]
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        listed = "\n  ".join(wrong[:10])
        raise UsageError(f"{path}: not the weights of I3D for RGB and {CLASSES} classes:\n  {listed}{more}")
