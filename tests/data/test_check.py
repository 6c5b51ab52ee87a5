"""Scans: everything wrong with a source or a pack is listed at once, with its path and place."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from foreframe.cli.clips import data_check
from foreframe.clip import ClipSpec
from foreframe.data.ingest import check as check_module
from foreframe.data.ingest.check import check_pack, scan
from foreframe.data.ingest.run import import_clips
from foreframe.data.ingest.transform import shape
from foreframe.data.ingest.validate import inspect
from foreframe.data.layouts import bair_lab, dance_lab
from foreframe.data.layouts.contract import RawChunk, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.data.pack.pack import Pack, PackWriter
from foreframe.errors import DataError, Fault, UsageError
from foreframe.video import write_png

ONE, TWO = "processed_data/train/traj_0/1", "processed_data/train/traj_0/2"
IMG, LABEL = "train/train_img", "train/train_label"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def row(path: Path, number: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def drop_both(root: Path) -> None:
    (root / ONE / "5.png").unlink()


BAIR_FAULTS: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda r: (r / TWO / "actions.csv").unlink(),
     [f"{TWO}/actions.csv: expected a table of 12 rows of 4 numbers, found no such file"]),
    (lambda r: row(r / ONE / "actions.csv", 7, "1,2,3"), [f"{ONE}/actions.csv, row 7: expected 4 numbers, found 3"]),
    (lambda r: row(r / ONE / "endeffector_positions.csv", 12, "1,nan,3"),
     [f"{ONE}/endeffector_positions.csv, row 12, column 2: expected a finite decimal number, found 'nan'"]),
    (drop_both, [
        f"{ONE}: expected pictures 0.png to 11.png without a gap, found no picture 5",
        f"{ONE}/actions.csv: expected 11 rows, one for each frame, found 12",
        f"{ONE}/endeffector_positions.csv: expected 11 rows, one for each frame, found 12"]),
    (lambda r: (r / ONE / "11.png").unlink(), [
        f"{ONE}/actions.csv: expected 11 rows, one for each frame, found 12",
        f"{ONE}/endeffector_positions.csv: expected 11 rows, one for each frame, found 12"]),
    (lambda r: shutil.copy(r / ONE / "5.png", r / ONE / "05.png"),
     [f"{ONE}: expected one picture for each number, found 05.png and 5.png"]),
    (lambda r: (r / ONE / "4.png").write_bytes(b""),
     [f"{ONE}/4.png, frame 4: expected a PNG or JPEG, found an empty file"]),
    (lambda r: (r / ONE / "4.png").write_bytes(b"x" * 99),
     [f"{ONE}/4.png, frame 4: expected a PNG or JPEG, found another kind of file"]),
    (lambda r: write_png(r / ONE / "4.png", np.zeros((16, 18, 3), np.uint8)),
     [f"{ONE}/4.png, frame 4: expected 16x16 pixels as elsewhere, found 18x16"]),
    (lambda r: emptied(r / TWO), [f"{TWO}: expected pictures 0.png, 1.png, ..., found none"]),
    (lambda r: [p.rename(p.with_suffix(".jpg")) for p in (r / TWO).glob("*.png")],
     [f"{TWO}: expected pictures 0.png, 1.png, ..., found none (12 .jpg)"]),
    (lambda r: (r / "processed_data/train/traj_9").mkdir(),
     ["processed_data/train/traj_9: expected a folder for each clip, found none"]),
    (lambda r: (r / "processed_data/val").mkdir(),
     ["processed_data/val: expected one folder for the split, found also validate/"]),
    (lambda r: (r / ONE / "inner").mkdir(), [f"{ONE}/inner: expected pictures and tables only, found a folder"]),
    (lambda r: os.mkfifo(r / ONE / "pipe.png"),
     [f"{ONE}/pipe.png: expected a plain file or a folder, found a pipe, socket or device"]),
    (lambda r: (r / ONE / "12.png").symlink_to("12.png"),
     [f"{ONE}/12.png: expected a file, or a link that stays inside the source, "
      "found a link that leads nowhere (a loop)"]),
    (lambda r: (r / ONE / "12.png").symlink_to("gone.png"),
     [f"{ONE}/12.png: expected a file, or a link that stays inside the source, "
      "found a link that leads nowhere (no such file)"]),
]  # fmt: skip

DANCE_FAULTS: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda r: (r / LABEL / "frame000005.png").unlink(),
     [f"{LABEL}/frame000005.png, frame 5: expected a picture, found no pose for this frame"]),
    (lambda r: (r / IMG / "frame000005.png").unlink(),
     [f"{IMG}/frame000005.png, frame 5: expected a picture, found no frame for this pose"]),
    (lambda r: shutil.rmtree(r / LABEL), [f"{LABEL}: expected a folder of poses, found no such folder"]),
    (lambda r: emptied(r / IMG), [f"{IMG}: expected pictures frame000000.png, ..., found none"]),
    (lambda r: shutil.copy(r / IMG / "frame000005.png", r / IMG / "frame5.png"),
     [f"{IMG}: expected one picture for each number, found frame000005.png and frame5.png"]),
    (lambda r: write_png(r / LABEL / "frame000003.png", np.zeros((9, 9, 3), np.uint8)),
     [f"{LABEL}/frame000003.png, frame 3: expected 128x64 pixels as elsewhere, found 9x9"]),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "messages"), BAIR_FAULTS)
def test_what_is_wrong_with_a_bair_folder_is_said_with_path_and_row(bair: Path, damage, messages):
    damage(bair)
    assert [str(fault) for fault in scan(bair).faults] == messages


@pytest.mark.parametrize(("damage", "messages"), DANCE_FAULTS)
def test_what_is_wrong_with_a_dance_folder_is_said_with_path_and_frame(dance: Path, damage, messages):
    damage(dance)
    assert [str(fault) for fault in scan(dance).faults] == messages


def test_the_same_clip_in_two_splits_is_a_fault_and_within_a_split_a_warning(bair: Path, tmp_path: Path):
    shutil.copytree(bair / ONE, bair / "processed_data/validate/traj_1/3")
    shutil.copytree(bair / ONE, bair / "processed_data/train/traj_0/3")
    report = scan(bair)
    assert [str(fault) for fault in report.faults] == [
        "processed_data/validate/traj_1/3: expected clips that are in one split only, "
        f"found the same frames as {ONE} (train)"
    ]
    assert report.warnings == [f"processed_data/train/traj_0/3: the same frames as {ONE}"]
    pack = import_clips(bair, tmp_path / "pack", on_bad="skip")
    assert [episode.name for episode in pack.split("val")] == ["processed_data/validate/traj_1/10"]


def test_black_and_constant_clips_are_warned_of(bair: Path, tmp_path: Path):
    for number in range(12):
        write_png(bair / ONE / f"{number}.png", np.zeros((16, 16, 3), np.uint8))
        write_png(bair / TWO / f"{number}.png", np.full((16, 16, 3), 90, np.uint8))
    report = scan(bair)
    assert report.ok
    assert report.warnings == [f"{ONE}: every frame is black", f"{TWO}: every frame is the same"]
    assert len(import_clips(bair, tmp_path / "pack").episodes) == 4


def test_clips_shorter_than_a_window_are_faults_when_asked_for(dance: Path):
    assert [str(fault) for fault in scan(dance, length=10).faults] == [
        "val/000000-000008: expected 10 frames or more, found 9"
    ]


def test_one_odd_picture_at_the_front_does_not_make_all_others_wrong(bair: Path):
    write_png(bair / ONE / "0.png", np.zeros((20, 20, 3), np.uint8))
    assert [fault.path for fault in scan(bair).faults] == [f"{ONE}/0.png"]


def test_an_unreadable_folder_is_a_fault(bair: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.scandir

    def guarded(path):
        if Path(path) == bair / ONE:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("foreframe.data.formats.folders.os.scandir", guarded)
    assert f"{ONE}: expected a folder that can be read, found Permission denied" in map(str, scan(bair).faults)


def test_a_wrong_folder_is_told_what_was_looked_for_and_what_is_near(bair: Path, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        scan(tmp_path)
    message = str(caught.value)
    assert "It holds bair/. Looked for:" in message
    assert f"bair_lab: {bair_lab.LOOKS_FOR}" in message
    assert f"dance_lab: {dance_lab.LOOKS_FOR}" in message
    assert f"Did you mean {bair} ?" in message
    with pytest.raises(DataError, match=r"Did you mean .*processed_data"):
        scan(bair / "processed_data" / "train")
    (tmp_path / "empty" / "er").mkdir(parents=True)
    with pytest.raises(DataError, match="It holds nothing"):
        scan(tmp_path / "empty" / "er")
    with pytest.raises(DataError, match="expected a folder of clips, found nothing"):
        scan(tmp_path / "missing")
    with pytest.raises(DataError, match="expected a folder of clips, found a file"):
        scan(bair / ONE / "0.png")
    with pytest.raises(UsageError, match=r"no layout 'bair'; there are bair_lab, .*; did you mean 'bair_lab'"):
        scan(bair, "bair")


def outside(root: Path, inner: str) -> None:
    (root / inner).rename(root.parent / "elsewhere")
    (root / inner).symlink_to(root.parent / "elsewhere")


@pytest.mark.parametrize("inner", ["processed_data", "processed_data/train", "processed_data/train/traj_0", ONE])
def test_no_link_leads_out_of_a_bair_folder(bair: Path, inner: str):
    outside(bair, inner)
    faults = [str(fault) for fault in scan(bair).faults]
    assert len(faults) == 1
    assert faults[0].startswith(f"{inner}: expected ")
    assert faults[0].endswith(f"or a link that stays inside the source, found a link to {bair.parent / 'elsewhere'}")


@pytest.mark.parametrize("inner", ["train", IMG, LABEL])
def test_no_link_leads_out_of_a_dance_folder(dance: Path, inner: str):
    outside(dance, inner)
    faults = [str(fault) for fault in scan(dance).faults]
    expected = "a folder, or a link that stays inside the source"
    assert faults == [f"{inner}: expected {expected}, found a link to {dance.parent / 'elsewhere'}"]


def test_a_link_that_stays_inside_the_source_is_followed(bair: Path, tmp_path: Path):
    (bair / "pictures").mkdir()
    (bair / ONE / "3.png").rename(bair / "pictures" / "x.png")
    (bair / ONE / "3.png").symlink_to(bair / "pictures" / "x.png")
    assert scan(bair).ok


def test_a_report_prints_for_people_and_writes_as_json(bair: Path):
    cut(bair / ONE / "3.png")
    report = scan(bair)
    out = io.StringIO()
    Console(file=out, width=160).print(report)
    text = out.getvalue()
    for part in ("bair_lab, 3x16x16 with 7 numbers", "train", "1 fault:", f"{ONE}/3.png", "frame 3"):
        assert part in text
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is False
    assert values["faults"][0]["path"] == f"{ONE}/3.png"
    assert len(values["clips"]) == 3


def test_a_pack_is_checked_too(tmp_path: Path):
    rng = np.random.default_rng(0)
    with PackWriter(tmp_path / "pack", ClipSpec(3, 8, 8, "vector", 2), ("a", "b")) as writer:
        frames = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
        writer.add("one", "train", frames, np.zeros((5, 2)))
        writer.add("two", "val", frames, np.zeros((5, 2)))
    assert [str(fault) for fault in scan(tmp_path / "pack").faults] == [
        "two: expected clips that are in one split only, found the same frames as one (train)"
    ]
    with (tmp_path / "pack" / "cond.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(np.nan).tobytes())
    messages = [str(fault) for fault in scan(tmp_path / "pack").faults]
    assert "cond.npy: expected SHA-256" in messages[0]
    assert messages[1] == "two, frame 4: expected finite conditions, found [0.0, nan]"


def test_a_pack_that_was_replaced_is_read_anew(bair: Path, tmp_path: Path):
    import_clips(bair, tmp_path / "pack")
    assert scan(tmp_path / "pack").ok
    import_clips(bair, tmp_path / "pack", options=Options(size=(8, 8)), overwrite=True)
    assert scan(tmp_path / "pack").ok


def test_very_many_faults_are_listed_in_no_time():
    fault = [Fault(f"c{number}", "", "this", "that") for number in range(20_000)]
    clips = (SourceClip(item.path, "train", 2, _nothing, faults=(item,)) for item in fault)
    begun = time.monotonic()
    report = inspect(shape(SourceIndex("test", tuple(clips), (4, 6)), Options()), Path("src"))
    assert report.faults == fault
    assert time.monotonic() - begun < 15


def _nothing(start: int, stop: int) -> RawChunk:
    return RawChunk(np.zeros((stop - start, 4, 6, 3), np.uint8))


def test_check_prints_writes_json_and_says_whether_all_is_well(bair: Path, tmp_path: Path, capsys):
    data_check(str(bair), json=tmp_path / "new" / "report.json")
    assert "nothing wrong found" in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "report.json").read_text())["ok"] is True
    with pytest.raises(SystemExit, match="1"):
        data_check(str(bair), length=13)
    assert "expected 13 frames or more, found 12" in capsys.readouterr().out


def write(path: Path, *clips: tuple[str, str, int, np.ndarray], cond: bool = False) -> None:
    """A pack of clips (name, split, length, frames), with conditions that are numbers or none."""
    with PackWriter(path, ClipSpec(3, 4, 6, *(("vector", 1) if cond else ())), ("a",) if cond else ()) as writer:
        for name, split, length, frames in clips:
            writer.add(name, split, frames, np.zeros((length, 1), np.float32) if cond else None)


def moving(seed: int, length: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, 4, 6, 3), dtype=np.uint8)


def test_a_pack_that_is_whole_has_nothing_wrong_and_black_short_and_same_clips_are_told(tmp_path: Path, figure):
    black, still = np.zeros((4, 4, 6, 3), np.uint8), np.full((4, 4, 6, 3), 7, np.uint8)
    clips = [("a", "train", moving(0)), ("b", "train", moving(0)), ("c", "train", black), ("d", "val", still)]
    clips += [("e", "val", moving(1, 2)), ("f", "test", moving(0))]
    write(tmp_path / "pack", *((name, split, len(frames), frames) for name, split, frames in clips))
    report = scan(tmp_path / "pack", length=3)
    told = ["e: expected 3 frames or more, found 2"]
    told += ["f: expected clips that are in one split only, found the same frames as a (train)"]
    assert [str(fault) for fault in report.faults] == told
    assert report.warnings == ["b: the same frames as a", "c: every frame is black", "d: every frame is the same"]
    figure("clips in two splits, constant or black clips told", len(report.warnings) + len(told) - 1, 4)


def test_what_was_left_out_when_a_pack_was_made_is_told_when_it_is_checked(tmp_path: Path):
    with PackWriter(tmp_path / "pack", ClipSpec(3, 4, 6)) as writer:
        writer.add("a", "train", moving(0))
        writer.leave_out("b", ("too dark", "too short"))
    report = check_pack(tmp_path / "pack")
    assert report.notes == ["left out at import: b: too dark; too short"]
    assert report.ok


def test_a_pack_whose_files_are_as_they_were_written_and_yet_no_pack_is_refused(tmp_path: Path):
    write(tmp_path / "pack", ("a", "train", 4, moving(0)))
    content = (tmp_path / "pack" / "frames.npy").read_bytes().replace(b"False", b"True ", 1)
    (tmp_path / "pack" / "frames.npy").write_bytes(content)
    assert "frames.npy: expected SHA-256" in str(check_pack(tmp_path / "pack").faults[0])
    path = tmp_path / "pack" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["frames.npy"]["sha256"] = hashlib.sha256(content).hexdigest()
    text = json.dumps({**manifest, "sha256": ""}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    own = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text.replace('\n "sha256": ""', f'\n "sha256": "{own}"'))
    with pytest.raises(DataError, match=r"frames\.npy: expected the header of a C-ordered uint8 or float32 array"):
        check_pack(tmp_path / "pack")


def test_a_pack_that_is_replaced_while_it_is_read_is_not_mixed_up_with_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "pack", ("a", "train", 4, moving(0)), cond=True)
    write(tmp_path / "other", ("a", "train", 4, moving(1)))
    real = check_module.inspect

    def replacing(*arguments, **options):
        shutil.rmtree(tmp_path / "pack")
        (tmp_path / "other").rename(tmp_path / "pack")
        return real(*arguments, **options)

    monkeypatch.setattr(check_module, "inspect", replacing)
    faults = [str(fault) for fault in check_pack(tmp_path / "pack").faults]
    assert any("another pack was put in its place while it was read; check it again" in fault for fault in faults)
    assert any("cond.npy: expected a file, found nothing" in fault for fault in faults)


def test_pose_pictures_of_a_pack_are_checked_by_their_hash_alone(tmp_path: Path):
    with PackWriter(tmp_path / "pack", ClipSpec(3, 4, 6, "image", 3)) as writer:
        writer.add("a", "train", moving(0), moving(1))
    assert scan(tmp_path / "pack").ok


def test_a_pack_is_not_imported_again_and_takes_no_options(tmp_path: Path):
    write(tmp_path / "pack", ("a", "train", 4, moving(0)))
    with pytest.raises(DataError, match=r"pack: is a pack already; give it to `train --data` as it is"):
        import_clips(tmp_path / "pack", tmp_path / "again")
    with pytest.raises(UsageError, match=r"packed already, so window cannot be chosen any more"):
        scan(tmp_path / "pack", options=Options(window=2))


def test_a_sample_is_checked_as_the_pack_it_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    write(tmp_path / "pack", ("a", "train", 4, moving(0)))
    opened = []
    monkeypatch.setattr(
        "foreframe.data.open.open_clips", lambda src, **_: opened.append(src) or Pack.open(tmp_path / "pack")
    )
    data_check("push")
    assert opened == ["push"]
    assert "nothing wrong found" in capsys.readouterr().out


def test_an_option_that_a_layout_has_no_use_for_is_refused(bair: Path):
    with pytest.raises(UsageError, match=r"camera: bair_lab has no use for it \(.+\)"):
        scan(bair, options=Options(camera="top"))


def test_a_folder_that_fits_two_layouts_has_to_be_named_and_may_be(tmp_path: Path):
    src = tmp_path / "src"
    for number in range(3):
        write_png(src / "train" / "a" / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
    (src / "train" / "film.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"src: fits more than one layout \(frame_folders, videos\); say which"):
        scan(src)
    assert scan(src, "frame_folders").layout == "frame_folders"


def test_a_folder_that_cannot_be_listed_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataError, match=r": cannot be read: Permission denied"):
        scan(tmp_path)


def test_nothing_nearby_fits_and_nothing_is_guessed(tmp_path: Path):
    inner = tmp_path / "one" / "two" / "three"
    inner.mkdir(parents=True)
    (inner / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"It holds notes\.txt\. Looked for:") as caught:
        scan(inner)
    assert "Did you mean" not in str(caught.value)


def test_two_clips_whose_names_differ_in_their_unicode_form_only_are_not_taken_for_two(tmp_path: Path):
    forms = ("caf\u00e9", "cafe\u0301")
    for seed, name in enumerate(forms):
        for number, frame in enumerate(moving(seed)):
            write_png(tmp_path / "src" / "train" / name / f"{number}.png", frame)
    if len(list((tmp_path / "src" / "train").iterdir())) < 2:
        pytest.skip("this disk takes both names for one")
    (fault,) = scan(tmp_path / "src").faults
    assert fault.path.removeprefix("train/") in forms
    assert "expected a name of its own, found " in str(fault)
    pack = import_clips(tmp_path / "src", tmp_path / "pack", on_bad="skip")
    assert [len(pack.episodes), len(pack.manifest.left_out)] == [1, 1]
