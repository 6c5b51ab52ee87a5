"""What a pack says about itself: manifest.json and episodes.json, read strictly and written byte for byte the same."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from foreframe import config
from foreframe.clip import ClipSpec, CondKind
from foreframe.errors import DataError, nearest

LAYOUT_VERSION = 3
FRAMES, COND, EPISODES, MANIFEST = "frames.npy", "cond.npy", "episodes.json", "manifest.json"
CONVENTION = "cond[t] leads into frame t"
MAX_JSON_BYTES = config.MEMORY // 3
"""Of a manifest, and of lists of splits: more could not be read in the memory that any JSON may take."""
MAX_LINE_BYTES = 2**16
"""Of one episode in its list."""
MAX_SIDE = 2**16
_SEAL = re.compile(rb'\n "sha256": "([^"\n]*)"')
"""Where a manifest says its own hash: the only line that begins like this, for none of its text has line breaks."""

_SURROGATE = re.compile(rb"(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]")
"""Half a sign, escaped; no text that holds one can be printed, and none was ever written."""


FIT = "printable text, with no '..' between slashes"


def fit_name(text: str) -> bool:
    """Whether a clip may be called so."""
    return bool(text) and text.isprintable() and ".." not in text.replace("\\", "/").split("/")


@dataclass(frozen=True, slots=True)
class Episode:
    """One uncut run of frames: `start` is its first frame in frames.npy; no window leaves it.

    Raises:
        DataError: the name or the split cannot be printed, or would lead out of a folder if somebody made a path of it.
    """

    name: str
    split: str
    start: int
    length: int

    def __post_init__(self) -> None:
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
    """One number of a vector condition over the clips of `train` (over all, where there is no such split).

    std is the deviation of the population; 0 for a column that never changes.
    """

    name: str
    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Manifest:
    """manifest.json. No time, user or machine in it: the same source packs to the same bytes.

    On disk it has one field more, `sha256`: the hash of these bytes as they are with that field empty.

    shift: row t of the source led into frame t + shift; `alignment` says it in words.
    stats: one for each number of a vector condition, else none.
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
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    layout: int = LAYOUT_VERSION

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
    """episodes.json: a list with one episode a line.

    Raises:
        DataError: two episodes of one name.
    """
    _insist_on_names(episodes)
    lines = (json.dumps(asdict(episode), sort_keys=True, ensure_ascii=False) for episode in episodes)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def read_manifest(path: Path) -> tuple[Manifest, bytes]:
    """manifest.json of a pack and its bytes as they lie on disk.

    Raises:
        DataError: not JSON, another layout version, an unknown or missing key (with its dotted path), a wrong type,
            or not the bytes that were written (with both hashes).
    """
    content = read_bytes(path)
    sealed = _insist_on_seal(path, content)
    raw = _parse(path, content)
    if isinstance(raw, dict) and type(raw.get("layout")) is int and raw["layout"] != LAYOUT_VERSION:
        raise DataError(
            f"{path}: layout: expected {LAYOUT_VERSION}, found {raw['layout']}: the pack was written by another version"
            " of foreframe; import its source again"
        )
    top = _fields(path, "", raw, {
        "layout": int, "spec": dict, "cond_names": list, "alignment": str, "shift": int, "stats": list,
        "fps": (int, float, type(None)), "splits": dict, "source": dict, "left_out": list, "files": dict,
        "sha256": str,
    })  # fmt: skip
    if not sealed:
        raise DataError(f"{path}: sha256: expected a line of its own, as it was written; import its source again")
    spec = _spec(path, top["spec"])
    names = tuple(_each(path, "cond_names", top["cond_names"], str))
    if spec.cond == "vector" and len(names) != spec.cond_size:
        raise DataError(f"{path}: cond_names: expected {spec.cond_size} names, found {len(names)}")
    stats = tuple(_stats(path, f"stats[{number}]", value) for number, value in enumerate(top["stats"]))
    if [item.name for item in stats] != list(names if spec.cond == "vector" else ()):
        raise DataError(f"{path}: stats: expected one for each of cond_names, found {[item.name for item in stats]}")
    fps = top["fps"]
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise DataError(f"{path}: fps: expected a positive number or null, found {fps}")
    splits = {
        name: _fields(path, f"splits.{name}", value, {"episodes": int, "frames": int})
        for name, value in top["splits"].items()
    }
    left_out = []
    for number, value in enumerate(top["left_out"]):
        item = _fields(path, f"left_out[{number}]", value, {"clip": str, "reasons": list})
        left_out.append(LeftOut(item["clip"], tuple(_each(path, f"left_out[{number}].reasons", item["reasons"], str))))
    wanted = {FRAMES, EPISODES} | ({COND} if spec.cond != "none" else set())
    files = {}
    for name, value in _fields(path, "files", top["files"], dict.fromkeys(wanted, dict)).items():
        item = _fields(path, f"files.{name}", value, {"size": int, "sha256": str})
        files[name] = FileRecord(item["size"], item["sha256"])
    manifest = Manifest(
        spec, names, top["alignment"], top["shift"], stats, fps, splits, top["source"], tuple(left_out), files
    )
    return manifest, content


def read_episodes(path: Path, frames_per_split: Mapping[str, Mapping[str, int]]) -> tuple[Episode, ...]:
    """episodes.json; episodes must follow each other without gap or overlap and match the counts of the manifest.

    It is read some lines at a time, so that nothing but episodes takes memory, however large it is.

    Raises:
        DataError: it is not what was written; the message has the number of the episode, from 0.
        OSError: it cannot be read.
    """
    episodes: list[Episode] = []
    end = 0
    for number, value in enumerate(_lines(path)):
        item = _fields(path, f"[{number}]", value, {"name": str, "split": str, "start": int, "length": int})
        if item["start"] != end or item["length"] < 1:
            raise DataError(
                f"{path}: [{number}]: expected start {end} and a length of 1 or more,"
                f" found start {item['start']} and length {item['length']}"
            )
        end += item["length"]
        try:
            episodes.append(Episode(item["name"], sys.intern(item["split"]), item["start"], item["length"]))
        except DataError as error:
            raise DataError(f"{path}: [{number}].{error}") from error
    try:
        _insist_on_names(episodes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
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
        if not path.is_file():
            raise DataError(f"{path}: expected a file, found {'something else' if path.exists() else 'nothing'}")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path}: expected at most {MAX_JSON_BYTES} bytes, found {path.stat().st_size}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _spec(path: Path, raw: object) -> ClipSpec:
    item = _fields(path, "spec", raw, {"channels": int, "height": int, "width": int, "cond": str, "cond_size": int})
    if item["cond"] not in get_args(CondKind):
        raise DataError(f"{path}: spec.cond: expected one of {', '.join(get_args(CondKind))}, found {item['cond']!r}")
    for name in ("channels", "height", "width"):
        if not 1 <= item[name] <= MAX_SIDE:
            raise DataError(f"{path}: spec.{name}: expected 1 to {MAX_SIDE}, found {item[name]}")
    if not 0 <= item["cond_size"] <= MAX_SIDE or (item["cond_size"] == 0) != (item["cond"] == "none"):
        raise DataError(f"{path}: spec.cond_size: {item['cond_size']} does not go with cond {item['cond']!r}")
    cond: Literal["none", "vector", "image"] = item["cond"]
    return ClipSpec(item["channels"], item["height"], item["width"], cond, item["cond_size"])


def _stats(path: Path, where: str, raw: object) -> ColumnStats:
    number = (int, float)
    item = _fields(path, where, raw, {"name": str, "mean": number, "std": number, "min": number, "max": number})
    values = [float(item[key]) for key in ("mean", "std", "min", "max")]
    if not all(map(math.isfinite, values)) or values[1] < 0:
        raise DataError(f"{path}: {where}: expected finite numbers and a deviation of 0 or more, found {values}")
    return ColumnStats(item["name"], *values)


def _parse(path: Path, content: bytes) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"key {key!r} occurs twice")
            found[key] = value
        return found

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        if _SURROGATE.search(content):
            raise ValueError("text with an escaped surrogate")
        return config.parse(content, unique, refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON: {error}") from error


def _fields(path: Path, where: str, value: object, expected: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """`value` as a dict with exactly the keys `expected`, each of its type (bool is no int)."""
    dot = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise DataError(f"{path}: {where or 'top level'}: expected an object, found {type(value).__name__}")
    for key in value:
        if key not in expected:
            raise DataError(f"{path}: unknown key '{dot}{key}'{nearest(key, expected)}")
    for key, types in expected.items():
        if key not in value:
            raise DataError(f"{path}: missing key '{dot}{key}'")
        if type(value[key]) not in (types if isinstance(types, tuple) else (types,)):
            raise DataError(f"{path}: {dot}{key}: {type(value[key]).__name__} is of the wrong type")
    return value


def _insist_on_names(episodes: Sequence[Episode]) -> None:
    """DataError where two episodes have one name, or names that differ in their Unicode form only."""
    names: dict[str, str] = {}
    for episode in episodes:
        form = unicodedata.normalize("NFC", episode.name)
        if (other := names.get(form)) is not None:
            raise DataError(f"name: {episode.name!a} occurs twice" + f", also as {other!a}" * (other != episode.name))
        names[form] = episode.name


def _insist_on_seal(path: Path, content: bytes) -> bool:
    """DataError where a manifest is not what it says it is; whether it says so at all."""
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


def _each(path: Path, where: str, values: list[Any], kind: type) -> list[Any]:
    for number, value in enumerate(values):
        if type(value) is not kind:
            raise DataError(f"{path}: {where}[{number}]: expected {kind.__name__}, found {type(value).__name__}")
    return values
