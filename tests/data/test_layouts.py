"""The labs' layouts: what becomes of their pictures and tables, and what their CSV reader accepts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foreframe.data.formats.tables import read_table
from foreframe.data.ingest.run import import_clips
from foreframe.data.layouts import bair_lab, dance_lab
from foreframe.data.layouts.options import Options
from foreframe.data.loading.windows import Windows
from foreframe.data.pack.pack import Pack
from foreframe.errors import ConfigError, DataError, UsageError
from foreframe.video import read_image, write_png

REAL = Path(os.environ.get("FOREFRAME_REALDATA") or Path(__file__).parents[3] / "shared" / "realdata")


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"no real data at {REAL / name}; set FOREFRAME_REALDATA to the folder that holds {name}/")
    return REAL / name


def check_bair(pack: Pack, source: Path) -> None:
    """Pixels equal the pictures in numeric order; cond[t] is row t-1 of both tables; cond[0] repeats row 0."""
    for episode in pack.episodes:
        clip = source / episode.name
        frames, cond = pack.read(episode, 0, episode.length)
        assert cond is not None
        expected = np.stack([read_image(clip / f"{number}.png") for number in range(episode.length)])
        np.testing.assert_array_equal(frames, expected)
        tables = [np.loadtxt(clip / name, delimiter=",") for name in ("actions.csv", "endeffector_positions.csv")]
        rows = np.concatenate(tables, axis=1).astype(np.float32)
        for t in range(1, episode.length):
            np.testing.assert_array_equal(cond[t], rows[t - 1])
        np.testing.assert_array_equal(cond[0], rows[0])


def test_bair_frames_are_in_numeric_order_and_row_t_minus_1_leads_into_frame_t(bair: Path, tmp_path: Path):
    pack = import_clips(bair, tmp_path / "pack")
    check_bair(pack, bair)
    assert pack.spec.cond_size == len(pack.cond_names) == 7
    assert "row t-1 of the source" in pack.manifest.alignment
    assert pack.splits == ("train", "val", "test")


def test_bair_clips_are_sorted_by_number_and_splits_may_be_missing_or_named_val(tmp_path: Path):
    bair_lab.example(tmp_path / "a")
    root = tmp_path / "a" / "processed_data"
    os.rename(root / "validate", root / "val")  # noqa: PTH104
    os.rename(root / "val" / "traj_1" / "10", root / "train" / "traj_0" / "10")  # noqa: PTH104
    os.rename(root / "test" / "traj_2" / "9", root / "train" / "traj_0" / "9")  # noqa: PTH104
    (root / "val" / "traj_1").rmdir()
    (root / "val").rmdir()
    (root / "test" / "traj_2").rmdir()
    (root / "test").rmdir()
    pack = import_clips(root, tmp_path / "pack")  # the inner folder is found as well
    assert [episode.name for episode in pack.episodes] == [f"train/traj_0/{number}" for number in (1, 2, 9, 10)]


def test_bair_takes_a_size_and_refuses_cuts(bair: Path, tmp_path: Path):
    pack = import_clips(bair, tmp_path / "pack", options=Options(size=(8, 12)))
    clip = bair / pack.episodes[0].name
    expected = Image.fromarray(read_image(clip / "3.png")).resize((12, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pack.frames[3], np.asarray(expected))
    with pytest.raises(UsageError, match="cuts: bair_lab has no use for it"):
        import_clips(bair, tmp_path / "other", options=Options(cuts=(3,)))


def test_folders_and_files_may_have_odd_names(bair: Path, tmp_path: Path):
    group = bair / "processed_data" / "train" / "traj_0"
    (group / "1").rename(group / "a b\n\u00fc\U0001f600")
    (group / "2").rename(group / os.fsdecode(b"\xff"))
    (group / ".hidden").mkdir()
    pack = import_clips(bair, tmp_path / "pack")
    names = [episode.name.rpartition("/")[2] for episode in pack.episodes]
    assert names[:2] == ["a b\\n\u00fc\U0001f600", "\\udcff"]
    Windows(pack, "train", 12)


def test_dance_pairs_by_number_resizes_both_and_shifts_nothing(dance: Path, tmp_path: Path):
    pack = import_clips(dance, tmp_path / "pack")
    assert (pack.spec.height, pack.spec.width) == (32, 64)
    assert [(e.name, e.split, e.length) for e in pack.episodes] == [
        ("train/000000-000011", "train", 12),
        ("val/000000-000008", "val", 9),
    ]
    frames, cond = pack.read(pack.episodes[0], 0, 12)
    for part, stored in (("img", frames), ("label", cond)):
        for number in (0, 7, 11):
            picture = Image.fromarray(read_image(dance / "train" / f"train_{part}" / f"frame{number:06d}.png"))
            np.testing.assert_array_equal(
                stored[number], np.asarray(picture.resize((64, 32), Image.Resampling.BILINEAR))
            )


def test_dance_is_cut_at_gaps_and_at_given_frames(dance: Path, tmp_path: Path):
    for part in ("img", "label"):
        for number in (3, 4):
            (dance / "train" / f"train_{part}" / f"frame{number:06d}.png").unlink()
    pack = import_clips(dance, tmp_path / "pack", options=Options(cuts=(8,)))
    assert [episode.name for episode in pack.episodes] == [
        "train/000000-000002", "train/000005-000007", "train/000008-000011", "val/000000-000008"
    ]  # fmt: skip
    assert pack.manifest.source["options"] == {"cuts": [8]}
    warnings = dance_lab.survey(dance, Options()).warnings
    assert warnings == ("train: no frame 3 to 4; the take is cut there",)
    with pytest.raises(ConfigError, match="cuts: no frame of train has the number 99"):
        import_clips(dance, tmp_path / "other", options=Options(cuts=(99,)))


def test_dance_test_inputs_are_noted_and_not_packed(dance: Path):
    notes = dance_lab.survey(dance, Options()).notes
    assert notes == (
        "test inputs without truth, not packed: 0 (4 poses); predict them: `rollout --data ... --split test`",
    )


def test_frame_numbers_are_sorted_as_numbers_not_as_text(dance: Path, tmp_path: Path):
    for part in ("img", "label"):
        folder = dance / "train" / f"train_{part}"
        for number in range(12):
            (folder / f"frame{number:06d}.png").rename(folder / f"frame{number}.png")
    pack = import_clips(dance, tmp_path / "pack")
    assert pack.episodes[0].length == 12
    last = Image.fromarray(read_image(dance / "train" / "train_img" / "frame11.png")).resize(
        (64, 32), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(pack.frames[11], np.asarray(last))


def test_the_real_bair_trajectory_reads_as_its_files(tmp_path: Path):
    source = real("bair")
    pack = import_clips(source, tmp_path / "pack")
    check_bair(pack, source)
    assert [(episode.split, episode.length) for episode in pack.episodes] == [("test", 30)]


def test_the_real_dance_takes_read_as_their_files(tmp_path: Path):
    source = real("dance")
    pack = import_clips(source, tmp_path / "pack", options=Options(cuts=(630,)))
    assert [(episode.split, episode.length) for episode in pack.episodes] == [
        ("train", 630),
        ("train", 630),
        ("val", 630),
    ]
    for number in (0, 629, 630, 1259):
        np.testing.assert_array_equal(
            pack.frames[number], read_image(source / f"train/train_img/frame{number:06d}.png")
        )
        assert pack.cond is not None
        np.testing.assert_array_equal(
            pack.cond[number], read_image(source / f"train/train_label/frame{number:06d}.png")
        )


def table(tmp_path: Path, content: bytes, columns: int = 2, rows: int = 3) -> tuple[np.ndarray, list[str]]:
    (tmp_path / "t.csv").write_bytes(content)
    values, faults = read_table(tmp_path / "t.csv", "t.csv", columns, rows)
    return values, [str(fault) for fault in faults]


@pytest.mark.parametrize(
    "content",
    [b"1,2\n3,4\n5,6\n", b"1,2\r\n3,4\r\n5,6", b"1, 2\n +3.0 ,4.\n5e0,.6e+1\n\n", b"1,2\n3,4\n5,6\n \n\r\n"],
)
def test_plain_tables_are_read(tmp_path: Path, content: bytes):
    values, faults = table(tmp_path, content)
    assert faults == []
    assert values.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (b"1,2\n3,nan\n5,6", ["t.csv, row 2, column 2: expected a finite decimal number, found 'nan'"]),
        (b"1,2\n3,4\ninf,6", ["t.csv, row 3, column 1: expected a finite decimal number, found 'inf'"]),
        (b"1e400,2\n3,4\n5,6", ["t.csv, row 1, column 1: expected a finite decimal number, found '1e400'"]),
        (b"1,2\n3,1e39\n5,6", ["t.csv, row 2, column 2: expected a finite decimal number, found '1e39'"]),
        (b"1_0,2\n3,4\n5,6", ["t.csv, row 1, column 1: expected a finite decimal number, found '1_0'"]),
        ("1,2\n\u0663,4\n5,6".encode(), ["t.csv, row 2, column 1: expected a finite decimal number, found '\\u0663'"]),
        (b"1,2\n0x10,4\n5,6", ["t.csv, row 2, column 1: expected a finite decimal number, found '0x10'"]),
        (b'1,2\n"3",4\n5,6', ["t.csv, row 2, column 1: expected a finite decimal number, found '\"3\"'"]),
        (b"1,2\n3,\n5,6", ["t.csv, row 2, column 2: expected a finite decimal number, found ''"]),
        (b"1,2\n3,\x004\n5,6", ["t.csv, row 2, column 2: expected a finite decimal number, found '\\x004'"]),
        (b"1,2\n3,\xff\n5,6", ["t.csv, row 2, column 2: expected text in UTF-8, found the byte 0xff"]),
        (b"1,2\n3\n5,6", ["t.csv, row 2: expected 2 numbers, found 1"]),
        (b"1,2\n3,4,5\n5,6", ["t.csv, row 2: expected 2 numbers, found 3"]),
        (b"1;2\n3,4\n5,6", ["t.csv, row 1: expected 2 numbers, found 1"]),
        (b"1,2\n\n5,6", ["t.csv, row 2: expected 2 numbers, found a blank row"]),
        (b"1,2\n3,4", ["t.csv: expected 3 rows, one for each frame, found 2"]),
        (b"1,2\n3,4\n5,6\n7,8", ["t.csv: expected 3 rows, one for each frame, found 4"]),
        (b"", ["t.csv: expected a table of 1 to 67108864 bytes, found 0 bytes"]),
        (
            b"\n\n",
            [
                "t.csv: expected 3 rows, one for each frame, found 1",
                "t.csv, row 1: expected 2 numbers, found a blank row",
            ],
        ),
        (
            b"a,b\n1,2\n3,4",
            [
                f"t.csv, row 1, column {n}: expected a finite decimal number, found '{c}'"
                for n, c in ((1, "a"), (2, "b"))
            ],
        ),
        (
            b"\xef\xbb\xbf1,2\n3,4\n5,6",
            ["t.csv, row 1: expected plain text, found a byte-order mark; save the file as UTF-8 without BOM"],
        ),
    ],
)
def test_a_faulty_table_names_row_column_and_content(tmp_path: Path, content: bytes, faults: list[str]):
    assert table(tmp_path, content)[1] == faults


@given(st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=2), min_size=3, max_size=3))
def test_every_finite_table_reads_back_bit_for_bit(tmp_path_factory, rows: list[list[float]]):
    text = "\n".join(",".join(repr(value) for value in row) for row in rows)
    values, faults = table(tmp_path_factory.mktemp("t"), text.encode())
    if np.isfinite(rows).all():
        assert not faults
        np.testing.assert_array_equal(values, np.array(rows, np.float32))
    else:
        assert len(faults) == np.sum(~np.isfinite(rows))


@given(st.text(alphabet=st.sampled_from('0123456789.,+-eE_ \n\rnaif\x00\u0663\ufeff"'), max_size=30))
def test_a_table_is_accepted_only_if_it_is_whole_and_finite(tmp_path_factory, text: str):
    values, faults = table(tmp_path_factory.mktemp("t"), text.encode(), columns=1, rows=2)
    assert np.isfinite(values).all()
    if not faults:
        lines = text.strip(" \n\r").split("\n")
        assert [np.float32(float(line)) for line in lines] == values[:, 0].tolist()


def test_a_missing_table_is_a_fault_of_its_clip(bair: Path, tmp_path: Path):
    (bair / "processed_data/train/traj_0/2/actions.csv").unlink()
    with pytest.raises(
        DataError, match=r"2/actions\.csv: expected a table of 12 rows of 4 numbers, found no such file"
    ):
        import_clips(bair, tmp_path / "pack")


def test_pictures_under_another_name_are_not_passed_over_in_silence(bair: Path):
    write_png(bair / "processed_data/train/traj_0/2/extra.png", np.zeros((16, 16, 3), np.uint8))
    notes = bair_lab.survey(bair, Options()).notes
    assert notes == ("1 other file not used: processed_data/train/traj_0/2/extra.png",)
