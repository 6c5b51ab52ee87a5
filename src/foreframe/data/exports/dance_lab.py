"""The two folders of PNG for each split in which the NYCU labs hand out a dancing person; see `layouts.dance_lab`.

    DST/{train,val}/{split}_img/frame000000.png ...       frames
    DST/{train,val}/{split}_label/frame000000.png ...     the pose of the frame of the same number
    DST/test/test_img/I/frame000000.png                   the first frame of test clip I, and
    DST/test/test_label/I/frame000000.png ...             all its poses

The clips of a split follow each other in one row of numbers; one number is left out between two of them, and there an
import cuts them apart again. The form has no place for the true frames of test.
"""

from __future__ import annotations

from pathlib import Path

from foreframe.data.exports import Tick
from foreframe.data.exports._recorded import check_form, ordered, pieces, write_pictures
from foreframe.data.layouts.dance_lab import SIZE
from foreframe.data.pack.pack import Pack
from foreframe.errors import UsageError

NAME = "dance_lab"
DESCRIBE = "folders of PNG with a picture of the pose of each frame; for packs with pose pictures"


def write(pack: Pack, dst: Path, tick: Tick) -> list[str]:
    """Write all clips of a pack; see `foreframe.data.exports`."""
    if pack.spec.cond != "image":
        raise UsageError(f"{NAME} holds a picture of the pose of each frame; this pack has {pack.spec}")
    check_form(pack, NAME)
    free = dict.fromkeys(("train", "val"), 0)
    tests = 0
    for episode in ordered(pack):
        split, first, inner = episode.split, 0, ""
        if split == "test":
            inner, tests = str(tests), tests + 1
        else:
            first = free[split]
            free[split] += episode.length + 1
        images, labels = (dst / split / f"{split}_{part}" / inner for part in ("img", "label"))
        for start, stop in pieces(pack, episode):
            frames, poses = pack.read(episode, start, stop - start)
            assert poses is not None
            names = [f"frame{number:06d}.png" for number in range(first + start, first + stop)]
            write_pictures(labels, names, poses)
            if split != "test":
                write_pictures(images, names, frames)
            elif start == 0:
                write_pictures(images, names[:1], frames[:1])
            tick(stop - start)
    notes = []
    if tests:
        notes.append(f"of {tests} test clips only the first frame and the poses are written, not the true frames")
    if (pack.spec.height, pack.spec.width) != SIZE:
        height, width = pack.spec.height, pack.spec.width
        notes.append(f"an import brings pictures of this form to {SIZE[0]}x{SIZE[1]} unless --size is {height} {width}")
    if pack.fps is not None:
        notes.append(f"this form has no place for the {pack.fps:g} frames a second")
    return [*notes, "clips follow each other in the order of the pack; their names are not kept"]
