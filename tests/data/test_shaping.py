"""What every source goes through: columns, shift, stride, size, windows, splits."""

from __future__ import annotations

import json
import os
import pickle
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreframe.data.formats.images import fitted
from foreframe.data.ingest.transform import ReadyClip, open_source, refuse_options, rows_for, shape
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.layouts.registry import find_layout
from foreframe.errors import DataError, Fault, NumberFault, UsageError

LENGTH = 11


def numbered_frames(start: int, stop: int) -> RawChunk:
    """Frame t is all t."""
    return RawChunk(
        np.broadcast_to(np.arange(start, stop, dtype=np.uint8)[:, None, None, None], (stop - start, 4, 6, 3))
    )


def numbered_rows(start: int, stop: int) -> RawChunk:
    """Row t is (t, 100 + t, 200 + t)."""
    return RawChunk(np.arange(start, stop, dtype=np.float32)[:, None] + np.array([0, 100, 200], np.float32))


def clip(name: str = "a", split: str = "train", length: int = LENGTH, **options) -> SourceClip:
    return SourceClip(name, split, length, numbered_frames, numbered_rows, **options)


def survey(*clips: SourceClip, **options) -> SourceIndex:
    facts = {"cond": "vector", "columns": ("action.x", "action.y", "state.x"), "shift": 1} | options
    return SourceIndex("test", clips or (clip(),), (4, 6), **facts)


MEASURED = {"measured": ("state.*",)}
"""As a layout says it."""


@pytest.mark.parametrize(
    ("layout", "options", "measured"),
    [
        ({}, Options(), ()),
        (MEASURED, Options(), ("state.x",)),
        (MEASURED, Options(controls=("state.x",)), ()),
        (MEASURED, Options(controls=("state.*",), measured=("action.y",)), ("action.y",)),
        ({}, Options(measured=("action.?",)), ("action.x", "action.y")),
        (MEASURED, Options(columns=("action.*",)), ()),
        (MEASURED, Options(stride=2), ("state.x@-1", "state.x@0")),
    ],
)
def test_roles_of_columns_are_those_of_the_layout_unless_the_user_says_otherwise(layout, options, measured):
    source = shape(survey(**layout), options)
    assert source.measured == measured
    controls = [name for name in source.cond_names if name not in measured]
    assert source.notes[-1].startswith(
        f"controls: {', '.join(controls) or 'none'}; measured states: {', '.join(measured) or 'none'}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(controls=("joint",)), "controls: none of the chosen columns is called 'joint' .*action.x, action.y"),
        (Options(columns=("action.*",), measured=("state.x",)), "measured: none of the chosen columns .* 'state.x'"),
        (Options(controls=("state.*",), measured=("*.x",)), "both name state.x; a column has one role"),
    ],
)
def test_roles_that_cannot_be_are_refused(options: Options, message: str):
    with pytest.raises(UsageError, match=message):
        shape(survey(), options)


@pytest.mark.parametrize(
    "name", ["bair_lab", "bair_tfrecord", "lerobot", "npz_episodes", "rlds_npz", "robomimic", "robonet"]
)
def test_in_a_recording_of_a_robot_all_but_its_actions_is_measured(tmp_path: Path, name: str):
    find_layout(tmp_path, name).example(tmp_path)
    source = open_source(tmp_path, name, Options(columns=("*",)))
    assert source.measured == tuple(column for column in source.cond_names if not column.startswith("action"))


def test_the_columns_of_a_users_own_table_are_controls(tmp_path: Path):
    find_layout(tmp_path, "frame_folders").example(tmp_path)
    assert open_source(tmp_path, "frame_folders", Options()).measured == ()


def test_pictures_have_no_roles():
    with pytest.raises(UsageError, match="they are: none"):
        shape(survey(cond="image", columns=("pose",)), Options(measured=("pose",)))


def whole(ready: ReadyClip):
    chunk = ready.read(0, ready.length)
    return chunk.frames[:, 0, 0, 0].tolist(), chunk.cond


@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 3])
def test_row_t_leads_into_frame_t_plus_shift_and_the_ends_are_repeated(shift: int):
    (ready,) = shape(survey(), Options(shift=shift)).clips
    frames, cond = whole(ready)
    assert frames == list(range(LENGTH))
    assert cond[:, 0].tolist() == [min(max(t - shift, 0), LENGTH - 1) for t in range(LENGTH)]
    assert cond[:, 0].tolist() == rows_for(np.arange(LENGTH), LENGTH, shift)[:, 0].tolist()


def test_a_shift_beyond_the_end_of_a_clip_is_warned_of():
    assert shape(survey(), Options(shift=LENGTH - 1)).warnings == ()
    for shift in (LENGTH, -LENGTH):
        (warning,) = shape(survey(), Options(shift=shift)).warnings
        assert warning == f"1 clip not longer than the shift of {shift}: one row leads into each frame"


def test_the_source_says_the_shift_unless_the_user_does():
    assert shape(survey(), Options()).shift == 1
    assert shape(survey(), Options(shift=0)).shift == 0
    assert shape(survey(), Options(columns=("none",))).shift == 0


@given(
    stride=st.integers(1, 5),
    shift=st.integers(-3, 3),
    size=st.integers(1, 7),
    between=st.sampled_from(["join", "last"]),
)
def test_reading_in_pieces_equals_reading_whole_and_every_row_is_where_it_belongs(stride, shift, size, between):
    (ready,) = shape(survey(), Options(stride=stride, shift=shift, between=between)).clips
    frames, cond = whole(ready)
    assert frames == list(range(0, LENGTH, stride))
    pieces = [ready.read(start, min(start + size, ready.length)) for start in range(0, ready.length, size)]
    np.testing.assert_array_equal(np.concatenate([piece.cond for piece in pieces]), cond)
    for index, frame in enumerate(frames):
        into = [min(max(frame - late - shift, 0), LENGTH - 1) for late in range(stride)][::-1]
        wanted = into if between == "join" else into[-1:]
        assert cond[index, ::3].tolist() == wanted


def test_joined_conditions_are_named_by_how_long_before_the_frame_they_come():
    source = shape(survey(), Options(stride=2, columns=("action*",)))
    assert source.cond_names == ("action.x@-1", "action.y@-1", "action.x@0", "action.y@0")
    assert source.spec.cond_size == 4
    assert shape(survey(fps=10), Options(stride=4)).fps == 2.5


def test_columns_are_chosen_by_name_or_pattern_in_the_order_of_the_source():
    assert shape(survey(), Options(columns=("state.x", "action.x"))).cond_names == ("action.x", "state.x")
    assert shape(survey(chosen=("action*",)), Options()).cond_names == ("action.x", "action.y")
    assert shape(survey(chosen=("action*",)), Options(columns=("*",))).spec.cond_size == 3
    odd = survey(columns=("a[0]", "a[1]", "a0"))
    assert shape(odd, Options(columns=("a[1]",))).cond_names == ("a[1]",)
    assert shape(odd, Options(columns=("a[0]",))).cond_names == ("a[0]", "a0")
    nothing = shape(survey(), Options(columns=("none",)))
    assert (nothing.spec.cond, nothing.cond_names) == ("none", ())
    assert nothing.clips[0].read(0, 3).cond is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(columns=("acton.x",)), "columns: no column is called 'acton.x'; did you mean 'action.x'"),
        (Options(stride=0), "stride: expected 1 or more, found 0"),
        (Options(window=1), "window: expected 2 frames or more"),
        (Options(size=(0, 5)), "size: expected a height and a width of 1 to 8192, found 0x5"),
        (Options(shares=(0.5, 0.4, 0.2)), "shares: expected three numbers that add up to 1"),
        (Options(shares=(float("nan"), 0, 1)), "shares: expected three numbers that add up to 1"),
        (Options(window=12), "window: no clip is 12 frames long, the longest has 11; ask for fewer"),
        (Options(shares=(1, 0, 0), lists=Path("x")), "shares and lists: give one of them"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Options, message: str):
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        shape(survey(), options)


def test_windows_cut_clips_side_by_side_and_say_what_is_left():
    source = shape(survey(clip("a"), clip("b", length=3)), Options(window=4))
    assert [(ready.name, ready.length) for ready in source.clips] == [("a/000000-000003", 4), ("a/000004-000007", 4)]
    frames, cond = whole(source.clips[1])
    assert frames == [4, 5, 6, 7]
    assert cond[:, 0].tolist() == [3, 4, 5, 6]
    assert source.notes[0] == "2 clips did not divide by 4; the last 6 frames are left out"


def test_windows_count_frames_after_the_stride():
    source = shape(survey(), Options(window=3, stride=2))
    assert [whole(ready)[0] for ready in source.clips] == [[0, 2, 4], [6, 8, 10]]
    assert [ready.name for ready in source.clips] == ["a/000000-000004", "a/000006-000010"]


def test_clips_with_faults_stay_whole_so_that_their_faults_are_told_once():
    bad = clip("bad", faults=(Fault("bad", "", "this", "that"),))
    assert [ready.name for ready in shape(survey(bad), Options(window=4)).clips] == ["bad"]


def test_a_fault_of_a_frame_or_row_is_put_where_that_frame_or_row_goes():
    fault = Fault("x", "frame 6", "this", "that")

    def frames(start: int, stop: int) -> RawChunk:
        return RawChunk(numbered_frames(start, stop).values, {6 - start: (fault,)} if start <= 6 < stop else {})

    def rows(start: int, stop: int) -> RawChunk:
        return RawChunk(numbered_rows(start, stop).values, {6 - start: (fault,)} if start <= 6 < stop else {})

    by_frame = SourceClip("a", "train", LENGTH, frames, numbered_rows)
    by_row = SourceClip("a", "train", LENGTH, numbered_frames, rows)
    for source, options, places in (
        (by_frame, Options(), [6]),
        (by_row, Options(), [7]),
        (by_frame, Options(stride=2), [3]),
        (by_frame, Options(stride=5), []),
        (by_row, Options(stride=2), [4]),
        (by_row, Options(stride=2, between="last"), []),
        (by_row, Options(stride=2, between="last", shift=0), [3]),
        (by_row, Options(shift=-4), [2]),
    ):
        (ready,) = shape(survey(source), options).clips
        assert list(ready.read(0, ready.length).faults) == places, options


def test_a_clip_without_a_split_gets_one_by_the_hash_of_its_name_whatever_its_neighbours():
    many = shape(survey(*(clip(f"clip-{n}", "") for n in range(1000))), Options())
    counts = [sum(ready.split == split for ready in many.clips) for split in ("train", "val", "test")]
    assert 770 < counts[0] < 830
    assert 75 < counts[1] < 125
    by_name = {ready.name: ready.split for ready in many.clips}
    fewer = shape(survey(*(clip(f"clip-{n}", "") for n in range(0, 1000, 3))), Options())
    assert all(by_name[ready.name] == ready.split for ready in fewer.clips)
    assert "drawn by the hash of each clip's name" in many.notes[0]


@pytest.mark.parametrize("count", [3, 4, 5, 7, 12])
def test_from_three_clips_on_every_split_has_one(count: int):
    source = shape(survey(*(clip(f"c{n}", "") for n in range(count))), Options())
    assert {ready.split for ready in source.clips} == {"train", "val", "test"}
    assert sum(ready.split == "train" for ready in source.clips) >= count / 3


def test_shares_given_by_the_user_replace_the_splits_of_the_source():
    source = shape(survey(*(clip(f"c{n}", "train") for n in range(40))), Options(shares=(0.5, 0.5, 0)))
    assert {ready.split for ready in source.clips} == {"train", "val"}


def test_splits_are_drawn_for_very_many_clips_in_no_time():
    begun = time.monotonic()
    source = shape(survey(*(clip(f"c{n}", "") for n in range(20_000))), Options(shares=(1 - 2e-7, 1e-7, 1e-7)))
    assert [sum(ready.split == split for ready in source.clips) for split in ("val", "test")] == [1, 1]
    assert time.monotonic() - begun < 10


def test_windows_of_one_clip_are_in_one_split():
    source = shape(survey(*(clip(f"c{n}", "") for n in range(30))), Options(window=2))
    for name in {ready.source.name for ready in source.clips}:
        assert len({ready.split for ready in source.clips if ready.source.name == name}) == 1


def test_lists_of_clips_decide_and_what_does_not_match_is_a_fault(tmp_path: Path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["a"], "test": ["b", "gone"], "val": ["a"]}))
    source = shape(survey(clip("a"), clip("b"), clip("c")), Options(lists=path))
    assert [str(fault) for fault in source.faults] == ["splits.json, gone: expected a clip of the source, found none"]
    assert {ready.name: (ready.split, [str(fault) for fault in ready.faults]) for ready in source.clips} == {
        "a": ("train", ["splits.json, a: expected one split, found train and val"]),
        "b": ("test", []),
        "c": ("train", ["splits.json, c: expected one split, found none"]),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": "a"}', "expected JSON of the form"),
        ("{", "splits.json, line 1, column 2: expected JSON, found"),
        ("[" * 1_000_000, "splits.json: expected JSON of fewer values"),
        ('{"train": ["a"], "train": ["b"]}', "splits.json: expected JSON, found the key 'train' is given twice"),
        ('{"train": [NaN]}', "splits.json, line 1, column 12: expected JSON, found NaN is not a JSON number"),
        ("", "splits.json: expected a table of 1 to .* bytes, found 0 bytes"),
        ('{"train": [1]}', "expected JSON of the form"),
        ('{"vall": ["a"]}', "there is no split 'vall', only train, val, test; did you mean 'val'"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(DataError, match=message):
        shape(survey(), Options(lists=tmp_path / "splits.json"))


def test_lists_that_are_no_file_are_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for name, found in (("none.json", "No such file or directory"), (".", "a folder"), ("pipe", "a pipe, socket or d")):
        with pytest.raises(DataError, match=f"expected a file that can be read, found {found}"):
            shape(survey(), Options(lists=tmp_path / name))


def with_nan(row: int, column: int) -> tuple[SourceClip, SourceClip]:
    """One number that cannot be used, told while its row is read, as of arrays, or known beforehand, as of tables."""

    def rows(start: int, stop: int) -> RawChunk:
        fault = NumberFault("x", f"frame {row}", "this", "that", (column,))
        return RawChunk(numbered_rows(start, stop).values, {row - start: (fault,)} if start <= row < stop else {})

    known = NumberFault("x", f"frame {row}", "this", "that", (column,), row)
    return SourceClip("a", "train", LENGTH, numbered_frames, rows), clip("a", faults=(known,))


@pytest.mark.parametrize(
    ("row", "column", "options", "places"),
    [
        (6, 1, Options(), [7]),
        (6, 1, Options(columns=("action*",)), [7]),
        (6, 1, Options(columns=("action.x", "state.x")), []),
        (6, 1, Options(columns=("none",)), []),
        (0, 1, Options(), [0, 1]),
        (LENGTH - 2, 1, Options(), [LENGTH - 1]),
        (LENGTH - 1, 1, Options(), [LENGTH - 1]),  # it leads into no frame, and is looked at all the same
        (LENGTH - 1, 1, Options(columns=("action.x",)), []),
        (LENGTH - 1, 1, Options(shift=0), [LENGTH - 1]),
        (LENGTH - 2, 1, Options(stride=2, between="last", shift=3), [LENGTH // 2]),
        (LENGTH - 1, 1, Options(stride=4), [2]),
        (LENGTH - 3, 1, Options(stride=4), []),  # it leads into a frame that the stride leaves out
        (0, 1, Options(shift=-1), [0]),
        (2, 1, Options(shift=-3), [0]),
        (0, 1, Options(shift=LENGTH + 1), [*range(LENGTH)]),
        (6, 1, Options(stride=2), [4]),
        (6, 1, Options(stride=2, between="last"), []),
        (LENGTH + 3, 1, Options(), []),
    ],
)
def test_a_number_counts_where_its_column_is_chosen_unless_a_stride_leaves_its_row_out(row, column, options, places):
    fault = Fault("x", f"frame {row}", "this", "that")
    for source in with_nan(row, column):
        (ready,) = shape(survey(source), options).clips
        assert ready.faults == ()
        for size in (1, 4, LENGTH):
            found = {}
            for start in range(0, ready.length, size):
                chunk = ready.read(start, min(start + size, ready.length))
                found |= {start + index: faults for index, faults in chunk.faults.items()}
            assert found == dict.fromkeys(places, (fault,))


def test_a_clip_with_a_bad_number_is_still_cut_into_windows_of_which_one_is_at_fault():
    for source in with_nan(5, 0):
        ready = shape(survey(source), Options(window=4, shift=0)).clips
        assert [part.name for part in ready] == ["a/000000-000003", "a/000004-000007"]
        assert [list(part.read(0, 4).faults) for part in ready] == [[], [1]]


def test_a_bad_number_can_be_sent_to_another_process_and_is_told_as_any_fault():
    fault = NumberFault("x", "row 3", "this", "that", (1, 2), 3)
    again = pickle.loads(pickle.dumps(fault))  # noqa: S301 (what was dumped here)
    assert (again, again.columns, again.row) == (fault, (1, 2), 3)
    assert str(again) == "x, row 3: expected this, found that"
    assert asdict(again) == {"path": "x", "where": "row 3", "expected": "this", "found": "that"}


def test_the_last_row_of_a_clip_that_leads_into_no_frame_is_looked_at_like_any_other(tmp_path: Path):
    def rows(start: int, stop: int) -> RawChunk:
        fault = Fault("x", f"row {LENGTH - 1}", "a finite number", "nan")
        return RawChunk(numbered_rows(start, stop).values, {LENGTH - 1 - start: (fault,)} if stop == LENGTH else {})

    (ready,) = shape(survey(SourceClip("a", "train", LENGTH, numbered_frames, rows)), Options()).clips
    assert list(ready.read(0, LENGTH).faults) == [LENGTH - 1]
    assert list(ready.read(LENGTH - 2, LENGTH).faults) == [1]
    assert ready.read(0, LENGTH - 1).faults == {}
    np.testing.assert_array_equal(ready.read(8, LENGTH).cond[:, 0], [7, 8, 9])


def test_bad_numbers_and_other_faults_of_one_row_are_all_told():
    plain, first, last = Fault("x", "", "a", "b"), *(NumberFault("x", "", "c", word, (0,), 3) for word in "de")

    def rows(start: int, stop: int) -> RawChunk:
        return RawChunk(numbered_rows(start, stop).values, {3 - start: (plain, first)} if start <= 3 < stop else {})

    source = SourceClip("a", "train", LENGTH, numbered_frames, rows, (last,))
    (ready,) = shape(survey(source), Options(shift=0)).clips
    assert list(map(str, ready.read(0, LENGTH).faults[3])) == [
        "x: expected a, found b",
        "x: expected c, found d",
        "x: expected c, found e",
    ]


def test_names_that_a_pack_cannot_hold_are_faults_of_their_clips():
    source = shape(survey(*map(clip, ("a", "..", "b/../c", "d\n", "", "\u00e9", "e\u0301", "a"))), Options())
    assert {ready.name: [str(fault) for fault in ready.faults] for ready in source.clips} == {
        "a": [],  # the same name twice is seen when clips are read
        "..": ["..: expected as its name printable text, with no '..' between slashes, found another"],
        "b/../c": ["b/../c: expected as its name printable text, with no '..' between slashes, found another"],
        "d\n": ["d\\n: expected as its name printable text, with no '..' between slashes, found another"],
        "": [": expected as its name printable text, with no '..' between slashes, found another"],
        "\u00e9": [],
        "e\u0301": ["e\u0301: expected a name of its own, found '\\xe9', which differs in its Unicode form only"],
    }


def test_a_clip_that_may_be_cut_names_its_parts_itself():
    def part(start: int, stop: int) -> str:
        return f"{start}..{stop}"

    (ready, _) = shape(survey(clip(part=part)), Options(window=3, stride=2)).clips
    assert (ready.name, ready.part(1, 3)) == ("0..5", "2..5")
    assert ready.cuttable
    (other, _) = shape(survey(clip()), Options(window=3, stride=2)).clips
    assert (other.part(1, 3), other.cuttable) == ("a/000002-000004", False)


def test_pose_pictures_may_be_left_aside():
    source = shape(
        SourceIndex(
            "test", (SourceClip("a", "train", LENGTH, numbered_frames, _big_poses),), (4, 6), "image", ("pose",)
        ),
        Options(columns=("none",)),
    )
    assert (source.spec.cond, source.cond_names) == ("none", ())
    assert source.clips[0].read(0, 2).cond is None


def test_where_no_picture_can_be_read_there_is_no_kind_of_clip():
    source = shape(SourceIndex("test", (), None, faults=(Fault("x", "", "a picture", "none"),)), Options())
    assert source.spec is None
    assert len(source.faults) == 1


def test_options_of_an_import_are_refused_for_a_pack_and_written_in_plain_values(tmp_path: Path):
    options = Options(size=(8, 8), lists=tmp_path / "splits.json", stride=2)
    assert options.used() == {"size": [8, 8], "stride": 2, "lists": "splits.json"}
    refuse_options(Options(), "packs/push")
    with pytest.raises(UsageError, match=r"packs/push: packed already, so size, stride, lists cannot be chosen"):
        refuse_options(options, "packs/push")


@pytest.mark.parametrize(
    ("frames", "shift", "stride", "rows"),
    [
        ([0, 1, 4], 0, 1, [[0], [1], [4]]),
        ([0, 1, 4], 1, 1, [[0], [0], [3]]),
        ([0, 1, 4], -1, 1, [[1], [2], [4]]),
        ([0, 3], 0, 3, [[0, 0, 0], [1, 2, 3]]),
        ([0, 3], 1, 3, [[0, 0, 0], [0, 1, 2]]),
        ([2, 4], -2, 2, [[3, 4], [4, 4]]),
        ([0, 4], 9, 2, [[0, 0], [0, 0]]),
        ([0, 4], -9, 2, [[4, 4], [4, 4]]),
    ],
)
def test_the_rows_of_a_frame_are_those_that_lead_into_it_and_into_the_frames_left_out_before_it(
    frames: list[int], shift: int, stride: int, rows: list[list[int]]
):
    assert rows_for(np.array(frames), 5, shift, stride).tolist() == rows


def test_pose_pictures_are_brought_to_the_size_of_the_frames_and_may_be_shifted():
    poses = partial(_big_poses)
    source = shape(
        SourceIndex("test", (SourceClip("a", "train", LENGTH, numbered_frames, poses),), (4, 6), "image", ("pose",)),
        Options(size=(8, 12), shift=1),
    )
    chunk = source.clips[0].read(0, LENGTH)
    assert chunk.frames.shape == chunk.cond.shape == (LENGTH, 8, 12, 3)
    assert chunk.cond[:, 0, 0, 0].tolist() == [0, *range(LENGTH - 1)]
    with pytest.raises(UsageError, match="there is nothing to choose"):
        shape(SourceIndex("test", (), (4, 6), "image", ("pose",)), Options(columns=("x",)))


def _big_poses(start: int, stop: int) -> RawChunk:
    return RawChunk(np.repeat(np.repeat(numbered_frames(start, stop).values, 5, axis=1), 5, axis=2))


def test_a_picture_is_stretched_cropped_in_the_middle_or_padded_with_black():
    picture = np.zeros((1, 4, 8, 3), np.uint8)
    picture[:, :, 2:6] = 200
    cropped = fitted(picture, (4, 4), "crop")
    assert (cropped == 200).all()
    padded = fitted(picture, (8, 8), "pad")
    np.testing.assert_array_equal(padded[0, 2:6], picture[0])
    assert not padded[0, :2].any()
    assert not padded[0, 6:].any()
    assert fitted(picture, (4, 4), "stretch")[0, 0, :, 0].tolist()[0] < 60
    assert fitted(picture, (4, 8), "crop") is picture


def test_a_change_of_shape_is_noted():
    assert "stretched to 8x8; --fit crop or --fit pad" in shape(survey(), Options(size=(8, 8))).notes[0]
    assert shape(survey(), Options(size=(8, 12))).notes[:-1] == ()
    assert shape(survey(), Options(size=(8, 8), fit="crop")).notes[:-1] == ()
