"""A dancing person and the poses, as the NYCU labs hand them out: two folders of PNG for each split.

    ROOT/{train,val}/{split}_img/frame000000.png ...      what the camera saw
    ROOT/{train,val}/{split}_label/frame000000.png ...    the pose of the frame of the same number
    ROOT/test/test_img/0/frame000000.png                  one first frame for each sequence, and
    ROOT/test/test_label/0/frame000000.png ...            all its poses, but no frames to compare with
    ROOT/test/test_gt/0/frame000000.png ...               these, where somebody has them (frame 0 may be absent)

The picture of the pose of frame t leads into frame t already, nothing is shifted. Each split is
one episode, cut where numbers are missing; train also at the frame numbers given as `cuts`. Test sequences hold no
truth, so they are inputs for a rollout and are not packed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from foreframe.data.formats.folders import (
    Findings,
    by_number,
    gaps,
    listing,
    may_enter,
    numbered,
    runs,
    takes,
)
from foreframe.data.formats.images import commonest_size, example_picture
from foreframe.data.layouts._pairs import part_name
from foreframe.data.layouts._shared import index_of, read_frames_of, safely
from foreframe.data.layouts.contract import Inputs, SourceClip, SourceIndex
from foreframe.data.layouts.options import Options
from foreframe.errors import ConfigError, printable
from foreframe.video import write_png

NAME = "dance_lab"
DESCRIBE = "a dancing person with pictures of the pose of each frame (NYCU lab); 32x64 unless a size is given"
LOOKS_FOR = "train|val/SPLIT_img/frame000000.png with SPLIT_label/frame000000.png beside; test/test_img/0/"

UNREAD = ("test/*",)  # inputs without truth
TAKES = ("cuts",)
SPLITS = ("train", "val")
SIZE = (32, 64)
SCORED = 600
"""Of the 629 frames of a test sequence, those that count in the course: the first ones."""
_PICTURE = re.compile(r"frame([0-9]{1,9})\.[pP][nN][gG]")


def recognises(folder: Path) -> bool:
    """Whether a split holds one of its two folders of pictures."""
    return any(
        safely((folder / split / f"{split}_{part}").is_dir) for split in (*SPLITS, "test") for part in ("img", "label")
    )


def survey(folder: Path, options: Options) -> SourceIndex:
    """The takes of train and val by the numbers of their pictures, and what is wrong with their pairing."""
    finds = Findings(folder)
    pairs = {split: _pairs(folder / split, split, finds) for split in SPLITS if may_enter(folder / split, finds)}
    clips: list[SourceClip] = []
    cut_at: set[int] = set()
    seen = False
    for split, (frames, poses, doubtful) in pairs.items():
        both = [number for number in frames if number in poses and number not in doubtful]
        if not both:
            continue
        sides = [(folder / split / f"{split}_{part}", names) for part, names in (("img", frames), ("label", poses))]
        natives = [commonest_size(side / names[number] for number in both[:64]) for side, names in sides]
        seen = seen or None not in natives
        cuts = options.cuts if split == "train" else ()
        cut_at |= {cut for cut in cuts if cut in both}
        for take in takes(both, cuts):
            reads = [
                partial(read_frames_of, side, tuple(names[number] for number in take), take, native or SIZE, folder)
                for (side, names), native in zip(sides, natives, strict=True)
            ]
            name = partial(part_name, split, take, False)
            clips.append(SourceClip(name(0, len(take)), split, len(take), reads[0], reads[1], part=name))
        if missing := gaps(number for number in sorted({*frames, *poses}) if both[0] <= number <= both[-1]):
            finds.warnings.append(f"{split}: no frame {missing}; the take is cut there")
    stray = sorted(set(options.cuts) - cut_at)
    if stray:
        raise ConfigError(f"cuts: no frame of train has the number {runs(stray)}")
    if not pairs and not safely((folder / "test").is_dir):
        finds.fault(folder, LOOKS_FOR, "none of them")
    _note_tests(folder / "test", finds)
    if not clips and not finds.faults:
        finds.fault(folder, "train or val with frames and poses", "test inputs only: predict them with `rollout`")
    return index_of(NAME, clips, SIZE if seen else None, finds, "image", ("pose",))


def inputs(folder: Path) -> dict[str, Inputs]:
    """The test sequences: first frames, poses, and true frames where somebody has put them beside."""
    test = folder / "test"
    return {"test": Inputs(test / "test_img", test / "test_label", test / "test_gt", SCORED)}


def example(folder: Path) -> None:
    """Write a tiny source of this layout: 12 frames to train, 9 to validate, one test sequence of 4 poses, 64x128."""
    for order, (split, length) in enumerate((("train", 12), ("val", 9), ("test", 4))):
        inner = "0/" if split == "test" else ""
        for part, colour in (("img", order), ("label", 4)):
            for number in range(1 if (split, part) == ("test", "img") else length):
                picture = example_picture(number, 64, 128, colour)
                write_png(folder / split / f"{split}_{part}" / f"{inner}frame{number:06d}.png", picture)


def _pairs(folder: Path, split: str, finds: Findings) -> tuple[dict[int, str], dict[int, str], set[int]]:
    """Names of the frames and of the poses of one split by number, and numbers that two pictures claim; what has no
    partner is a fault."""
    found: list[dict[int, str]] = []
    doubtful: set[int] = set()
    for part in ("img", "label"):
        inner = folder / f"{split}_{part}"
        if not may_enter(inner, finds):
            if not safely(inner.is_dir):
                finds.fault(inner, f"a folder of {'frames' if part == 'img' else 'poses'}", "no such folder")
            found.append({})
            continue
        before = len(finds.faults)
        files, folders = listing(inner, finds)
        readable = len(finds.faults) == before
        names, others, twice = numbered(files, _PICTURE)
        finds.ignore(inner, [*others, *folders])
        doubtful |= {number for number, name in names.items() if any(name == first for first, _ in twice)}
        for first, second in twice:
            finds.fault(inner, "one picture for each number", f"{first} and {second}")
        if not names and readable:
            finds.fault(inner, "pictures frame000000.png, ...", "none")
        found.append(names)
    frames, poses = found
    if frames and poses:
        for number in sorted(set(frames) ^ set(poses)):
            lonely, other = (frames, f"{split}_label") if number in frames else (poses, f"{split}_img")
            what = "no pose for this frame" if number in frames else "no frame for this pose"
            finds.fault(folder / other / lonely[number], "a picture", what, f"frame {number}")
    return frames, poses, doubtful


def _note_tests(folder: Path, finds: Findings) -> None:
    """How many test sequences there are; they are not packed, having no frames to compare with."""
    if not (may_enter(folder, finds) and may_enter(folder / "test_label", finds)):
        return
    _, sequences = listing(folder / "test_label", finds)
    poses = {name: listing(folder / "test_label" / name, finds)[0] for name in sorted(sequences, key=by_number)}
    found = ", ".join(f"{printable(name)} ({len(files)} poses)" for name, files in poses.items())
    finds.remarks.append(
        f"test inputs without truth, not packed: {found}; predict them: `rollout --data ... --split test`"
    )
