"""What a pack says about itself: manifest.json and episodes.json, read strictly and written byte for byte the same."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from foreframe import config
from foreframe.clip import ClipSpec
from foreframe.config import FieldError, Range
from foreframe.errors import ConfigError, DataError

LAYOUT_VERSION = 3
FRAMES, COND, EPISODES, MANIFEST = "frames.npy", "cond.npy", "episodes.json", "manifest.json"
CONVENTION = "cond[t] leads into frame t"
OWN_TABLES = ("frame_folders", "videos")
"""Layouts whose columns have the user's own names, which say nothing about roles."""
MAX_LINE_BYTES = 2**16
"""Of one episode in its list."""
_SEAL = re.compile(rb'\n "sha256": "([^"\n]*)"')
"""The line with a manifest's own hash: no other begins so, since its texts have no line breaks."""
FIT = "printable text, with no '..' between slashes"


def fit_name(text: str) -> bool:
    """Whether a clip may have this name."""
    return bool(text) and text.isprintable() and ".." not in text.replace("\\", "/").split("/")


@dataclass(frozen=True, slots=True)
class Episode:
    """One uncut run of frames, from frame `start` of frames.npy on; no window leaves it. Its name and its split can be
    printed, and lead out of no folder as part of a path."""

    name: str
    split: str
    start: int
    length: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", sys.intern(str(self.split)))
        for what, text in (("name", self.name), ("split", self.split)):
            if not fit_name(text):
                raise DataError(f"{what}: expected {FIT}, found {text[:200]!a}")


@dataclass(frozen=True)
class FileRecord:
    """One file of a pack: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """A clip of the source that is not in the pack, and everything that was wrong with it."""

    clip: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ColumnStats:
    """One number of a vector condition over the clips of `train` (over all, where there is no such split). std: of the
    population; 0 for a column that never changes."""

    name: str
    mean: float
    std: Annotated[float, Range(0)]
    min: float
    max: float


@dataclass(frozen=True)
class Manifest:
    """manifest.json. No time, user or machine in it: the same source packs to the same bytes. On disk it has one field
    more, `sha256`: the hash of these bytes as they are with that field empty.

    shift: row t of the source led into frame t + shift; `alignment` says it in words.
    measured: those of cond_names that were measured, so that they are not known in advance; the others are controls.
        None in packs of before roles were kept: see `measured_columns`.
    """

    spec: ClipSpec
    cond_names: tuple[str, ...]
    alignment: str
    shift: int
    stats: tuple[ColumnStats, ...]
    fps: float | None
    splits: Mapping[str, Mapping[str, int]]
    source: Mapping[str, Any]
    left_out: tuple[LeftOut, ...]
    files: Mapping[str, FileRecord]
    layout: int = LAYOUT_VERSION
    measured: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.spec.check()
        names = self.cond_names if self.spec.cond == "vector" else ()
        if self.spec.cond == "vector" and len(names) != self.spec.cond_size:
            raise FieldError("cond_names", f"{self.spec.cond_size} names", str(len(names)))
        if (found := tuple(item.name for item in self.stats)) != names:
            raise FieldError("stats", "one for each of cond_names", str(list(found)))
        if wrong := [name for name in self.measured or () if name not in names]:
            raise FieldError("measured", "names of cond_names", str(wrong)[:200])
        if self.fps is not None and self.fps <= 0:
            raise FieldError("fps", "a positive number or null", str(self.fps))
        wanted = {FRAMES, EPISODES} | ({COND} if self.spec.cond != "none" else set())
        if self.files.keys() != wanted:
            raise FieldError("files", ", ".join(sorted(wanted)), ", ".join(sorted(self.files))[:200])

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """`measured`; for an earlier pack, what its layout calls a state or a position."""
        if self.measured is not None:
            return self.measured
        if self.spec.cond != "vector" or self.source.get("layout") in OWN_TABLES:
            return ()
        return tuple(name for name in self.cond_names if name.startswith(("state.", "position_")))

    def to_bytes(self) -> bytes:
        values = {**asdict(self), "sha256": ""}
        content = (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        own = hashlib.sha256(content).hexdigest().encode()
        return _SEAL.sub(lambda line: line[0][:-1] + own + b'"', content)


def count_splits(episodes: tuple[Episode, ...]) -> dict[str, dict[str, int]]:
    """{split: {"episodes": n, "frames": n}} in the order in which the splits first appear."""
    counts: dict[str, dict[str, int]] = {}
    for episode in episodes:
        count = counts.setdefault(episode.split, {"episodes": 0, "frames": 0})
        count["episodes"] += 1
        count["frames"] += episode.length
    return counts


def episodes_to_bytes(episodes: tuple[Episode, ...]) -> bytes:
    """episodes.json: a list with one episode a line. Raises DataError: two episodes of one name."""
    _check_names(episodes)
    lines = (json.dumps(asdict(episode), sort_keys=True, ensure_ascii=False) for episode in episodes)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def read_manifest(path: Path) -> tuple[Manifest, bytes]:
    """manifest.json of a pack and its bytes as they lie on disk. Raises DataError: not the bytes that were written
    (with both hashes), another layout version, or no manifest."""
    content = read_bytes(path)
    sealed = _check_seal(path, content)
    values = _parse(path, content)
    if isinstance(values, dict):
        values.pop("sha256", None)
        if values.get("layout") != LAYOUT_VERSION:
            raise DataError(
                f"{path}: layout: expected {LAYOUT_VERSION}, found {config.shown(values.get('layout'))}: the pack was "
                "written by another version of foreframe; import its source again"
            )
    try:
        manifest = config.from_dict(Manifest, values)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    if not sealed:
        raise DataError(f"{path}: sha256: expected a line of its own, as it was written; import its source again")
    return manifest, content


def read_episodes(path: Path, frames_per_split: Mapping[str, Mapping[str, int]]) -> tuple[Episode, ...]:
    """episodes.json, some lines at a time; episodes must follow each other and match the counts of the manifest. Raises
    DataError: it is not what was written; the message has the number of the episode, from 0."""
    episodes: list[Episode] = []
    end = 0
    try:
        for number, value in enumerate(_lines(path)):
            episode = config.from_dict(Episode, value, f"[{number}]")
            if episode.start != end or episode.length < 1:
                expected = f"start {end} and a length of 1 or more"
                raise FieldError(f"[{number}]", expected, f"start {episode.start} and length {episode.length}")
            end += episode.length
            episodes.append(episode)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    _check_names(episodes, f"{path}: ")
    found = count_splits(tuple(episodes))
    if found != frames_per_split:
        raise DataError(f"{path}: expected the splits of the manifest, {dict(frames_per_split)}, found {found}")
    return tuple(episodes)


def _lines(path: Path) -> Iterator[object]:
    """What stands in each line of a list."""
    with path.open("rb") as file:
        begun = file.read(2) == b"[\n"
        while begun:
            block = file.read(MAX_LINE_BYTES) + file.readline(MAX_LINE_BYTES)
            ends = not block.endswith(b",\n")
            if ends:
                block += file.read(3)
                if not block.endswith(b"\n]\n") or file.read(1):
                    break
            items = _parse(path, b"[" + block[: -3 if ends else -2] + b"]")
            assert isinstance(items, list)
            yield from items
            if ends:
                return
    raise DataError(f"{path}: expected a list with one episode a line, as it was written; import its source again")


def read_bytes(path: Path) -> bytes:
    """A small file whole; DataError when it is missing, not a plain file, or larger than any index can be."""
    try:
        return config.read_bytes(path, config.LARGEST)
    except ConfigError as error:
        raise DataError(str(error)) from error


def _parse(path: Path, content: bytes) -> Any:
    try:
        return config.loads(content, config.LARGEST, control=True)
    except config.JsonProblem as error:
        raise DataError(f"{path}: expected JSON: {error}") from error


def _check_names(episodes: Sequence[Episode], where: str = "") -> None:
    """DataError where two episodes have one name, or names that differ in their Unicode form only."""
    names: dict[str, str] = {}
    for episode in episodes:
        form = unicodedata.normalize("NFC", episode.name)
        if (other := names.get(form)) is not None:
            also = f", also as {other!a}" * (other != episode.name)
            raise DataError(f"{where}name: {episode.name!a} occurs twice{also}")
        names[form] = episode.name


def _check_seal(path: Path, content: bytes) -> bool:
    """DataError where a manifest does not have the hash that it holds; returns whether it holds one."""
    seal = _SEAL.search(content)
    if seal is None:
        return False
    digest = hashlib.sha256(memoryview(content)[: seal.start(1)])
    digest.update(memoryview(content)[seal.end(1) :])
    found = digest.hexdigest()
    if found.encode() != seal[1]:
        said = seal[1][:64].decode("ascii", "backslashreplace")
        raise DataError(
            f"{path}: has changed since it was written: expected SHA-256 {said!a}, found '{found}'; import its source "
            "again"
        )
    return True
