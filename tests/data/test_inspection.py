"""Every clip is read once: what is right goes to the writer, what is wrong into the report, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreframe.data.ingest.pool import CHUNK
from foreframe.data.ingest.report import Report
from foreframe.data.ingest.transform import PreparedSource, shape
from foreframe.data.ingest.validate import inspect
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack.manifest import LeftOut
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError, Fault
from tests.data.test_alignment import moving_ball

FOLDER = Path("/clips")


@cache
def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2 * CHUNK + 9, 4, 6, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Film:
    """Frames of noise; some of them cannot be read, or nothing can from one on."""

    seed: int
    bad: tuple[int, ...] = ()
    ends: DataError | None = None
    at: int = 0

    def __call__(self, start: int, stop: int) -> RawChunk:
        if self.ends is not None and start <= self.at < stop:
            raise self.ends
        frames = noise(self.seed)[start:stop]
        faults = {t - start: (fault(t),) for t in self.bad if start <= t < stop}
        return RawChunk(frames, faults)


def fault(frame: int) -> Fault:
    return Fault("film", f"frame {frame}", "a picture", "none")


def clip(name: str, film: Film, length: int = 10, split: str = "train", *, cuttable: bool = False) -> SourceClip:
    def part(start: int, stop: int) -> str:
        return f"{name}[{start}:{stop}]"

    return SourceClip(name, split, length, film, part=part if cuttable else None)


def source(*clips: SourceClip, size: tuple[int, int] | None = (4, 6), faults: Iterable[Fault] = ()) -> PreparedSource:
    return shape(
        SourceIndex("test", clips, size, faults=tuple(faults), notes=("a note",), warnings=("a warning",)), Options()
    )


def packed(path: Path, given: PreparedSource, *, skip: bool = False, length: int = 0) -> tuple[Report, Pack | None]:
    assert given.spec is not None
    with PackWriter(path, given.spec) as writer:
        report = inspect(given, FOLDER, writer, skip=skip, length=length)
        if not writer.episodes:
            return report, nothing(writer)
    return report, Pack.open(path)


def nothing(writer: PackWriter) -> None:
    """So that a writer without clips may end."""
    writer.add("none", "train", np.zeros((1, 4, 6, 3), np.uint8))


def episodes(pack: Pack | None) -> Mapping[str, int]:
    assert pack is not None
    return {episode.name: episode.length for episode in pack.episodes}


def test_faults_warnings_and_notes_of_a_source_are_those_of_its_report():
    strange = Fault("odd.txt", "", "a clip", "text")
    report = inspect(source(clip("a", Film(0)), faults=[strange]), FOLDER)
    assert (report.faults, report.warnings, report.notes) == ([strange], ["a warning"], ["a note"])
    assert report.left_out == [LeftOut("odd.txt", ("odd.txt: expected a clip, found text",))]
    assert [line.name for line in report.clips] == ["a"]


def test_where_no_picture_can_be_read_the_faults_of_all_clips_are_told_and_none_is_read():
    never = Film(0, ends=DataError("read after all"))
    clips = [SourceClip(name, "train", 3, never, faults=(Fault(name, "", "a picture", "none"),)) for name in "ab"]
    report = inspect(source(*clips, size=None), FOLDER)
    assert [item.path for item in report.faults] == ["a", "b"]


def test_empty_clips_and_two_of_one_name_are_left_out_without_being_read(tmp_path: Path):
    given = source(clip("a", Film(0)), clip("none", Film(1), 0), clip("a", Film(2, ends=DataError("read after all"))))
    report, pack = packed(tmp_path / "pack", given, skip=True)
    assert [str(item) for item in report.faults] == [
        "none: expected a clip with frames, found none",
        "a: expected one clip of this name, found another one",
    ]
    assert [item.clip for item in report.left_out] == ["none", "a"]
    assert episodes(pack) == {"a": 10}


def test_long_clips_are_read_piece_by_piece_and_a_bar_may_be_shown(capsys: pytest.CaptureFixture[str]):
    length = 2 * CHUNK + 3
    report = inspect(source(clip("a", Film(0), length), clip("b", Film(0), length)), FOLDER, progress=True)
    assert [line.length for line in report.clips] == [length, length]
    assert report.warnings == ["a warning", "b: the same frames as a"]


def test_a_clip_that_rests_in_its_last_piece_only_is_neither_still_nor_black():
    film = noise(0).copy()
    film[CHUNK:] = film[0]
    dark = noise(1).copy()
    dark[CHUNK:] = 0
    clips = (SourceClip(name, "train", CHUNK + 9, Held(values)) for name, values in (("a", film), ("b", dark)))
    assert inspect(source(*clips), FOLDER).warnings == ["a warning"]


def test_a_fault_in_a_late_piece_makes_the_whole_clip_unfit_and_the_next_one_is_read(tmp_path: Path):
    given = source(clip("a", Film(0, bad=(CHUNK + 5,)), CHUNK + 9), clip("b", Film(1)))
    report, pack = packed(tmp_path / "pack", given, skip=True)
    assert report.faults == [fault(CHUNK + 5)]
    assert report.left_out == [LeftOut("a", (str(fault(CHUNK + 5)),))]
    assert episodes(pack) == {"b": 10}
    assert np.array_equal(pack.frames, Film(1)(0, 10).values)
    assert pack.manifest.left_out == tuple(report.left_out)


def test_without_skipping_nothing_is_written_after_the_first_fault_and_all_faults_are_listed(tmp_path: Path):
    given = source(*(clip(name, Film(n, bad=(n,) if name in "bd" else ())) for n, name in enumerate("abcde")))
    report, pack = packed(tmp_path / "pack", given)
    assert [item.where for item in report.faults] == ["frame 1", "frame 3"]
    assert [line.name for line in report.clips] == ["a", "c", "e"]
    assert episodes(pack) == {"a": 10}
    assert pack.manifest.left_out == ()


@pytest.mark.parametrize("inside", [True, False])
def test_a_clip_that_cannot_be_read_on_is_told_with_paths_as_the_user_knows_them(inside: bool):
    folder = FOLDER if inside else Path("clips")
    for path, shown in ((folder / "a" / "1.hdf5", "a/1.hdf5"), (folder, str(folder)), (Path("/else/x"), "/else/x")):
        ends = DataError("it ends:", [Fault(str(path), "row 3", "this", "that")])
        given = source(clip("a", Film(0, ends=ends)), clip("b", Film(1)))
        report = inspect(given, folder)
        assert [str(item) for item in report.faults] == [f"{shown}, row 3: expected this, found that"]
        assert [line.name for line in report.clips] == ["b"]
    (plain,) = inspect(source(clip("a", Film(0, ends=DataError("it ends\nhere")))), folder).faults
    assert str(plain) == "a: expected a clip that can be read, found it ends"


def test_a_given_folder_may_be_relative_while_paths_in_it_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    ends = DataError("it ends:", [Fault(str(tmp_path / "clips" / "a.mp4"), "", "this", "that")])
    (found,) = inspect(source(clip("a", Film(0, ends=ends))), Path("clips")).faults
    assert found.path == "a.mp4"


def test_where_a_clip_may_be_cut_the_good_frames_between_bad_ones_are_clips(tmp_path: Path):
    given = source(clip("a", Film(0, bad=(0, 4, 6, 7, 11)), 12, cuttable=True))
    report, pack = packed(tmp_path / "pack", given, skip=True)
    assert episodes(pack) == {"a[1:4]": 3, "a[8:11]": 3}
    assert report.left_out[0] == LeftOut("a[5:6]", ("only 1 frames between frames that cannot be used",))
    assert report.left_out[1:] == [LeftOut("film", (str(fault(t)),)) for t in (0, 4, 6, 7, 11)]
    whole = Film(0)(0, 12).values
    assert np.array_equal(pack.frames, np.concatenate([whole[1:4], whole[8:11]]))
    assert not inspect(given, FOLDER).clips  # without skipping, it is one clip, and unfit


def test_where_a_piece_ends_between_good_and_bad_frames_nothing_is_lost(tmp_path: Path):
    given = source(clip("a", Film(0, bad=(CHUNK, CHUNK + 5)), CHUNK + 9, cuttable=True), clip("b", Film(1)))
    _, pack = packed(tmp_path / "pack", given, skip=True, length=4)
    assert episodes(pack) == {f"a[0:{CHUNK}]": CHUNK, f"a[{CHUNK + 1}:{CHUNK + 5}]": 4, "b": 10}
    given = source(clip("a", Film(0, bad=(CHUNK - 1,)), CHUNK + 9, cuttable=True))
    _, pack = packed(tmp_path / "other", given, skip=True)
    assert episodes(pack) == {f"a[0:{CHUNK - 1}]": CHUNK - 1, f"a[{CHUNK}:{CHUNK + 9}]": 9}


def test_a_clip_that_may_be_cut_is_dropped_where_it_cannot_be_read_on_or_is_too_short(tmp_path: Path):
    ends = DataError("it ends:", [Fault("x", "", "this", "that")])
    given = source(
        clip("a", Film(0, bad=(2,), ends=ends, at=CHUNK), CHUNK + 5, cuttable=True),
        clip("b", Film(1), 3, cuttable=True),
        clip("c", Film(2)),
    )
    report, pack = packed(tmp_path / "pack", given, skip=True, length=4)
    assert episodes(pack) in ({f"a[3:{CHUNK}]": CHUNK - 3, "c": 10}, {"c": 10})
    assert "b: expected 4 frames or more, found 3" in map(str, report.faults)
    assert Fault("x", "", "this", "that") in report.faults


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(length=st.integers(1, 2 * CHUNK + 2), bad=st.sets(st.integers(0, 2 * CHUNK + 1), max_size=5), data=st.data())
def test_every_frame_of_a_cut_clip_is_packed_told_or_left_out(tmp_path_factory, length: int, bad: set[int], data):
    shortest = data.draw(st.sampled_from([0, 3]))
    given = source(clip("z", Film(9), 5), clip("a", Film(0, bad=tuple(sorted(bad))), length, cuttable=True))
    report, pack = packed(tmp_path_factory.mktemp("p") / "pack", given, skip=True, length=shortest)
    parts = [tuple(map(int, name[2:-1].split(":"))) for name in episodes(pack) if "[" in name]
    left = [tuple(map(int, item.clip[2:-1].split(":"))) for item in report.left_out if "[" in item.clip]
    whole = [(0, length)] if "a" in episodes(pack) else []
    used = [t for start, stop in (*parts, *left, *whole) for t in range(start, stop)]
    dropped = any(item.clip == "a" for item in report.left_out)
    wrong = [t for t in bad if t < length]
    if not dropped:
        assert sorted([*used, *wrong]) == list(range(length))
    assert dropped == (length < shortest)
    assert [item for item in report.faults if item.path == "film"] == [fault(t) for t in sorted(wrong)]


def test_the_same_frames_in_two_splits_are_a_fault_and_in_one_a_warning_and_the_first_stays(tmp_path: Path):
    given = source(
        *(clip(name, Film(0), split=split) for name, split in zip("abc", ("train", "val", "train"), strict=True))
    )
    report, pack = packed(tmp_path / "pack", given, skip=True)
    assert list(map(str, report.faults)) == [
        "b: expected clips that are in one split only, found the same frames as a (train)"
    ]
    assert report.warnings == ["a warning", "c: the same frames as a"]
    assert episodes(pack) == {"a": 10, "c": 10}


def test_a_condition_that_explains_the_motion_of_another_frame_is_warned_of():
    rng = np.random.default_rng(3)
    made = [moving_ball(rng, 30, 1) for _ in range(20)]  # row t leads into frame t + 1, and shift 0 is said
    clips = (SourceClip(f"c{n}", "train", 30, Held(frames), Held(rows)) for n, (frames, rows) in enumerate(made))
    report = inspect(shape(SourceIndex("test", tuple(clips), (64, 64), "vector", ("y", "x")), Options()), FOLDER)
    assert report.alignment is not None
    assert report.alignment.best == -1
    assert report.warnings == [report.alignment.warning]


@dataclass(frozen=True, eq=False)
class Held:
    values: np.ndarray

    def __call__(self, start: int, stop: int) -> RawChunk:
        return RawChunk(self.values[start:stop])


def stopped(start: int, stop: int) -> RawChunk:
    raise KeyboardInterrupt


def test_what_a_stopped_import_has_left_is_taken_as_it_is_and_not_read_again(tmp_path: Path):
    first = [clip("a", Film(0), CHUNK + 6), clip("b", Film(1, bad=(3,))), clip("c", Film(2)), clip("e", Film(4))]
    begun = source(*first, SourceClip("d", "train", 5, stopped))
    with pytest.raises(KeyboardInterrupt), PackWriter(tmp_path / "pack", begun.spec, resume="key") as writer:
        inspect(begun, FOLDER, writer, skip=True)
    never = DataError("read again")
    again = source(
        clip("a", Film(0, ends=never), CHUNK + 6),
        first[1],
        clip("c", Film(2, ends=never)),
        first[3],
        clip("d", Film(3)),
    )
    with PackWriter(tmp_path / "pack", begun.spec, resume="key") as writer:
        assert {"a", "c"} <= set(writer.left_behind)
        report = inspect(again, FOLDER, writer, skip=True)
    pack = Pack.open(tmp_path / "pack")
    pack.verify()
    assert report.faults == [fault(3)]
    assert episodes(pack) == {"a": CHUNK + 6, "c": 10, "e": 10, "d": 10}
    films = [Film(0)(0, CHUNK + 6), Film(2)(0, 10), Film(4)(0, 10), Film(3)(0, 10)]
    assert np.array_equal(pack.frames, np.concatenate([film.values for film in films]))
