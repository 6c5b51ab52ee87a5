"""What every test shares: one thread, no network, and small packs of moving squares."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from foreframe.clip import Clip, ClipSpec
from foreframe.data.pack.pack import Pack, PackWriter

torch.set_num_threads(1)
# How long an example takes says how busy the machine is, and nothing else.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# A shell starts what is to run in the background with SIGINT ignored; tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


Figure = Callable[..., None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """`figure("bytes flipped and found", found, tried)`: asserts that they are equal, and the summary shows their sum.

    Without `tried` it is a count by itself.
    """

    def note(what: str, count: int, tried: int | None = None) -> None:
        assert tried is None or count == tried, f"{what}: {count} of {tried}"
        record_property("figure", [what, count, tried])

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures of all tests, those of the same name added up."""
    sums: dict[str, list[int | None]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "figure" and report.when == "call":
                    what, count, tried = value
                    old = sums.setdefault(what, [0, None])
                    old[0] += count
                    old[1] = old[1] if tried is None else (old[1] or 0) + tried
    if sums:
        terminalreporter.section("figures")
        for what, (count, tried) in sorted(sums.items()):
            of = "" if tried is None else f" of {tried:,}"
            terminalreporter.write_line(f"{what}: {count:,}{of}")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise AssertionError(f"a test opened a connection to {address}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


def moving_square(seed: int, frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square pushed about: frames (T, H, W, 3) uint8 and actions (T, 2), of which row t leads into frame t."""
    draw = np.random.default_rng(seed)
    place = draw.uniform(8, [height - 16, width - 16])
    pictures = np.full((frames, height, width, 3), 40, np.uint8)
    actions = draw.integers(-4, 5, (frames, 2)).astype(np.float32)
    for t in range(frames):
        if t:
            place = np.clip(place + actions[t], 0, [height - 8, width - 8])
        y, x = place.astype(int)
        pictures[t, y : y + 8, x : x + 8] = (220, 120, 60)
    return pictures, actions / 4


def write_pack(
    path: Path,
    cond: str = "vector",
    size: tuple[int, int] = (64, 64),
    clips: int = 8,
    frames: int = 8,
    measured: tuple[str, ...] | None = None,
) -> Pack:
    """A pack with splits train, val and test of moving squares. measured: of the columns dy and dx."""
    cond_size = {"vector": 2, "image": 3, "none": 0}[cond]
    spec = ClipSpec(3, *size, cond, cond_size)  # type: ignore[arg-type]
    names = ("dy", "dx") if cond == "vector" else ()
    with PackWriter(path, spec, names, fps=10, source={"layout": "test"}, measured=measured) as writer:
        for number in range(clips):
            pictures, actions = moving_square(number, frames, *size)
            split = "test" if number % 4 == 3 else "val" if number % 4 == 2 else "train"
            values = {"vector": actions, "image": 255 - pictures, "none": None}[cond]
            writer.add(f"clip-{number}", split, pictures, values)
    return Pack.open(path)


@pytest.fixture(scope="session")
def vector_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("packs") / "vector")


@pytest.fixture(scope="session")
def image_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("packs") / "image", "image", (32, 64))


def random_clip(spec: ClipSpec, batch: int = 2, length: int = 5, seed: int = 0) -> Clip:
    """A clip of noise of the given kind."""
    draw = torch.Generator().manual_seed(seed)
    frames = torch.rand(batch, length, spec.channels, spec.height, spec.width, generator=draw)
    if spec.cond == "none":
        return Clip(frames)
    shape = (spec.cond_size,) if spec.cond == "vector" else (spec.cond_size, spec.height, spec.width)
    return Clip(frames, torch.rand(batch, length, *shape, generator=draw))
