"""Does a layout keep its contract? Every rule is tried on the layout's own example; a violation is one sentence.

`check_layout` is for layouts of one's own; the tests try the same rules on every layout of this package.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np

from foreframe.data.ingest.check import scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.ingest.transform import shape
from foreframe.data.layouts.contract import SPLITS, Read
from foreframe.data.layouts.options import LAYOUT_OPTIONS, Options
from foreframe.data.layouts.registry import GENERAL, Layout, layouts, load
from foreframe.errors import DataError, Fault, UsageError

Rule = Callable[[Layout, str, Path, Path], Iterator[str]]
"""rule(layout, name as given to --layout, its example, an empty folder) gives the violations."""
NEEDED = ("NAME", "DESCRIBE", "LOOKS_FOR", "TAKES", "recognises", "survey", "example")
SAMPLE = 20
"""Files of the example that are damaged, each in turn; half as many are moved away."""


def check_layout(name: str | Path) -> list[str]:
    """Every violation of the contract (`foreframe.data.layouts.contract`) by a layout, one sentence each.

    name: of a layout, or the path of a file (.py) that holds one. Raises UsageError: there is no such layout.
    """
    name = str(name)
    layout = load(name)
    found = [f"{needed}: expected it in the file, found none" for needed in NEEDED if not hasattr(layout, needed)]
    for rule in () if found else RULES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                layout.example(Path(folder, "source"))
                found += rule(layout, name, Path(folder, "source"), Path(folder))
            except Exception as error:
                what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                found.append(f"{rule.__name__.replace('_', ' ')}: expected no error, found {what}")
    return found


def description(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """It describes itself in one line."""
    for key, text in (("NAME", layout.NAME), ("DESCRIBE", layout.DESCRIBE), ("LOOKS_FOR", layout.LOOKS_FOR)):
        if not text or not text.isprintable():
            yield f"{key}: expected one line of text, found {text!r}"
    if not re.fullmatch("[a-z0-9_]+", layout.NAME):
        yield f"NAME: expected a-z, 0-9 and _ only, found {layout.NAME!r}"
    if not set(layout.TAKES) <= set(LAYOUT_OPTIONS):
        yield f"TAKES: expected some of {', '.join(LAYOUT_OPTIONS)}, found {', '.join(layout.TAKES)}"


def recognition(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """It knows its own example, and no other layout does; nor does it know an empty or a missing folder."""
    if not layout.recognises(source):
        yield "recognises: expected True for its own example, found False"
    others = [other.NAME for other in layouts().values() if other.NAME != layout.NAME and other.recognises(source)]
    if others := [other for other in others if other not in GENERAL]:
        yield f"example: expected a source that no other layout recognises, found that {', '.join(others)} does"
    (scratch / "empty").mkdir()
    for what, folder in (("an empty", "empty"), ("a missing", "missing")):
        if layout.recognises(scratch / folder):
            yield f"recognises: expected False for {what} folder, found True"


def example_without_fault(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """Its example has no fault, no unused file, and clips in train and val."""
    report = scan(source, name)
    yield from (f"example: expected no fault, found {fault}" for fault in report.faults)
    unused = [note for note in report.notes if "not used" in note]
    yield from (f"example: expected no file that is not used, found {note}" for note in unused)
    if missing := {"train", "val"} - set(report.splits()):
        yield f"example: expected clips in train and val, found none in {' and '.join(sorted(missing))}"


def index(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """Its index names each clip once and its condition fully; clips can be sent to another process."""
    survey = layout.survey(source, Options())
    names = [clip.name for clip in survey.clips]
    if not survey.size or not names:
        yield f"survey: expected a size and clips, found size {survey.size} and {len(names)} clips"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield f"survey: expected a name of its own for each clip, found two called {twice[0]}"
    if len(set(survey.columns)) != len(survey.columns):
        yield f"survey: expected different names of columns, found {', '.join(survey.columns)}"
    for clip in survey.clips:
        if clip.split not in (*SPLITS, ""):
            yield f"{clip.name}: expected a split ({', '.join(SPLITS)}, or empty), found {clip.split!r}"
        if (clip.rows is None) != (survey.cond == "none"):
            yield f"{clip.name}: expected rows if and only if there is a condition ({survey.cond}), found otherwise"
        try:
            ForkingPickler.dumps(clip)
        except (AttributeError, TypeError, ValueError) as error:
            yield f"{clip.name}: expected a clip that can be sent to another process, found {error}"


def reading(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """A clip read in pieces equals the clip read at once; pictures and rows have their types and shapes."""
    survey = layout.survey(source, Options())
    for clip in survey.clips:
        reads: list[tuple[str, Read | None]] = [("frames", clip.frames), ("rows", clip.rows)]
        for what, read in reads:
            if read is None:
                continue
            whole = read(0, clip.length).values
            pieces = [read(start, min(start + 5, clip.length)).values for start in range(0, clip.length, 5)]
            if not (np.array_equal(np.concatenate(pieces), whole) and np.array_equal(read(1, 2).values, whole[1:2])):
                yield f"{clip.name}: expected the same {what} in pieces, found others"
            numbers = what == "rows" and survey.cond == "vector"
            wanted = (clip.length, len(survey.columns)) if numbers else (clip.length, *whole.shape[1:3], 3)
            kind = "float32" if numbers else "uint8"
            if (whole.dtype, whole.shape) != (np.dtype(kind), wanted):
                yield f"{clip.name}: expected {what} as {kind} {wanted}, found {whole.dtype} {whole.shape}"


def importing(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """An import holds what the clips read as; a second one has the same bytes; another size can be chosen."""
    first, second = (import_clips(source, scratch / number, name) for number in ("one", "two"))
    if first.hash != second.hash:
        yield "import: expected the same bytes of a second import, found others"
    clips = {clip.name: clip for clip in shape(layout.survey(source, Options()), Options()).clips}
    for episode in first.episodes:
        frames, cond = first.read(episode, 0, episode.length)
        chunk = clips[episode.name].read(0, episode.length)
        same_cond = chunk.cond is None or (cond is not None and np.array_equal(cond, chunk.cond))
        if not (np.array_equal(frames, chunk.frames) and same_cond):
            yield f"{episode.name}: expected in the pack what the clip reads as, found other numbers"
    if missing := set(clips) - {episode.name for episode in first.episodes}:
        yield f"import: expected every clip, found no {sorted(missing)[0]}"
    import_clips(source, scratch / "small", name, Options(size=(8, 24)))


def damage(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """A damaged file is named by a fault, with its path below the source."""
    files = _files(layout, source)
    for path in files[:: max(1, len(files) // SAMPLE)]:
        content, place = path.read_bytes(), path.relative_to(source).as_posix()
        for how, bad in (("half", content[: len(content) // 2]), ("empty", b""), ("words", b"not a clip " * 9)):
            path.write_bytes(bad)
            faults = _faults(source, scratch / "pack", name)
            if not any(place in str(fault) for fault in faults):
                yield f"{place}: expected a fault that names it ({how}), found none"
            if any(str(source) in str(fault) for fault in faults):
                yield f"{place}: expected relative paths in faults ({how}), found the whole path"
        path.write_bytes(content)


def missing_file(layout: Layout, name: str, source: Path, scratch: Path) -> Iterator[str]:
    """A file that is missing leaves a trace: a fault, or clips that are others."""
    whole = scan(source, name).clips
    files = _files(layout, source)
    for path in files[:: max(1, 2 * len(files) // SAMPLE)]:
        path.rename(scratch / "aside")
        try:
            report = scan(source, name)
            place = path.relative_to(source).as_posix()
            if not (report.faults or report.clips != whole or _matches(layout, "SPARE", place)):
                yield f"{place}: expected a fault, or other clips, when it is missing, found neither"
        except (DataError, UsageError):
            pass
        (scratch / "aside").rename(path)


RULES: tuple[Rule, ...] = (
    *(description, recognition, example_without_fault, index, reading, importing, damage, missing_file),
)


def _faults(source: Path, target: Path, name: str) -> tuple[Fault, ...]:
    """The faults that an import reports."""
    try:
        import_clips(source, target, name, overwrite=True)
    except DataError as error:
        return error.faults
    return ()


def _files(layout: Layout, source: Path) -> list[Path]:
    """The files of an example that are read."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return [path for path in files if not _matches(layout, "UNREAD", path.relative_to(source).as_posix())]


def _matches(layout: Layout, key: str, place: str) -> bool:
    return any(fnmatch(place, pattern) for pattern in getattr(layout, key, ()))
