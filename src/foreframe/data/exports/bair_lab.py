"""The folders of PNG and tables in which the NYCU labs hand out BAIR robot pushing; see `layouts.bair_lab`.

    DST/processed_data/{train,validate,test}/traj_0_to_255/K/0.png, 1.png, ...
                                                            actions.csv                    4 numbers a row
                                                            endeffector_positions.csv      3 numbers a row

Row t stands beside frame t and leads into frame t+1, so row[t] = cond[t+1]; the last row, which leads to a frame that
is not there, repeats the one before. Numbers are printed so that they read back bit for bit.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreframe.data.exports import Tick
from foreframe.data.exports._recorded import check_form, lost, ordered, pieces, rows, write_pictures
from foreframe.data.pack.pack import Pack
from foreframe.errors import UsageError

NAME = "bair_lab"
DESCRIBE = "folders of PNG with actions.csv and endeffector_positions.csv; for packs with 7 numbers a frame"

FOLDERS = {"train": "train", "val": "validate", "test": "test"}
TABLES = {"actions.csv": slice(0, 4), "endeffector_positions.csv": slice(4, 7)}
NAMES = ("action_0", "action_1", "action_2", "action_3", "position_x", "position_y", "position_z")
GROUP = 256
"""Clips in a folder traj_A_to_B, as in the original."""


def write(pack: Pack, dst: Path, tick: Tick) -> list[str]:
    """Write all clips of a pack; see `foreframe.data.exports`."""
    if pack.spec.cond != "vector" or pack.spec.cond_size != len(NAMES):
        raise UsageError(
            f"{NAME} holds exactly 7 numbers a frame, 4 of an action and 3 of a position; this pack has {pack.spec}"
        )
    check_form(pack, NAME)
    counts: Counter[str] = Counter()
    for episode in ordered(pack):
        number = counts[episode.split]
        counts[episode.split] += 1
        first = number - number % GROUP
        group = f"traj_{first}_to_{first + GROUP - 1}"
        folder = dst / "processed_data" / FOLDERS[episode.split] / group / str(number % GROUP)
        for start, stop in pieces(pack, episode):
            frames, _ = pack.read(episode, start, stop - start)
            write_pictures(folder, (f"{index}.png" for index in range(start, stop)), frames)
            tick(stop - start)
        numbers = rows(pack, episode, 0, episode.length)
        for table, columns in TABLES.items():
            (folder / table).write_text(_table(numbers[:, columns]), encoding="ascii", newline="\n")
    notes = lost(pack, range(len(NAMES)))
    if pack.cond_names != NAMES:
        names = [", ".join(pack.cond_names[columns]) for columns in TABLES.values()]
        notes.append(f"actions.csv holds {names[0]}; endeffector_positions.csv holds {names[1]}")
    if pack.fps is not None:
        notes.append(f"this form has no place for the {pack.fps:g} frames a second")
    return [*notes, "clips are numbered in the order of the pack; their names are not kept"]


def _table(numbers: NDArray[np.float32]) -> str:
    """Lines of numbers. As float64, the largest float32 does not round to one beyond it."""
    return "".join(",".join(map(repr, row)) + "\n" for row in numbers.astype(np.float64).tolist())
