"""Do the conditions lead into the frames that they are said to lead into? A test by the motion in the pictures.

The motion from frame t-1 to frame t is one displacement, by least squares over the moving parts of a coarse picture
(Lucas & Kanade 1981). Conditions are moved by -2 to +2 frames against it, and at each shift a ridge regression predicts
the motion from the condition and the one before it; R2 is that of clips left out of the fit. The condition after the
right one still brings the right one along as "the one before", so the earliest shift about as good as the best counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreframe.clip import ClipSpec

Floats = NDArray[np.float64]

SIDE = 16
"""Pictures are reduced to about this size, so that a step of several pixels is less than one."""
REACH = 2
"""Shifts that are tried on either side."""
SHIFTS = range(-REACH, REACH + 1)
PARTS = 4
"""Change is measured in this many parts a side; smaller pictures are not judged."""
MAX_FRAMES, MIN_FRAMES = 20_000, 20
FOLDS = 8
MANY = 20
"""From this many frames for each number on, the fit supports two conditions instead of one."""
CLOSE = 0.01
"""R2 by which an earlier shift may be worse and still be the answer."""
UNSURE = 0.05
"""With few frames, R2 by which what is stored may be worse than the best."""
LITTLE = 0.1
"""Below this R2 at every shift, nothing can be said."""


@dataclass(frozen=True)
class AlignmentResult:
    """r2: {shift against what is stored: share of the motion's variance that the condition explains there}. best: the
    shift that the motion speaks for; None where the condition explains too little of it."""

    r2: dict[int, float]
    best: int | None

    @property
    def words(self) -> str:
        """The result as one line."""
        table = ", ".join(f"{shift:+d}: {value:.2f}" for shift, value in self.r2.items())
        if self.best is None:
            return f"alignment is unclear: the condition explains little of the motion at any shift (R2 {table})"
        if self.best == 0:
            return f"alignment: the condition explains the motion into its own frame best (R2 at shift {table})"
        distance = f"{abs(self.best)} frame{'s' * (abs(self.best) > 1)} {'before' if self.best < 0 else 'after'}"
        return f"alignment: the motion into a frame is explained by the condition {distance} it (R2 at shift {table})"

    @property
    def warning(self) -> str:
        """What to do if the condition seems to stand beside the wrong frame; empty if it does not."""
        if not self.best:
            return ""
        return (
            f"{self.words}; it may have been recorded or shifted by {abs(self.best)} too "
            f"{'early' if self.best < 0 else 'late'}: look at it with `foreframe data show`, and import with a --shift "
            f"that is {'larger' if self.best < 0 else 'smaller'} by {abs(self.best)} if that is so"
        )


class Alignment:
    """Measures motion while clips are read, and keeps it with the conditions of up to 20,000 frames.

    own: By how many frames a row is stored after the frame it belongs to: 0 for what leads into a frame; for measured
        states alone, which describe their own frame, the shift of the source.
    """

    def __init__(self, own: int = 0) -> None:
        self._own = own
        self._runs: list[tuple[list[Floats], list[Floats]]] = []
        self._last: tuple[Floats, Floats] | None = None
        self._frames = 0

    def add(self, frames: NDArray[np.uint8], cond: NDArray[Any] | None, *, new: bool) -> None:
        """Frames (T, H, W, C) in a row with their conditions; `new` where they do not follow the ones before."""
        if cond is None or self._frames >= MAX_FRAMES or min(frames.shape[1:3]) < PARTS:
            return
        pictures = cond.ndim == 4
        seen, cond_rows = _coarse(frames), _coarse(cond) if pictures else cond.astype(np.float64)
        if new or self._last is None:
            self._runs.append(([], []))
        else:
            seen, cond_rows = (np.concatenate(pair) for pair in zip(self._last, (seen, cond_rows), strict=True))
        self._last = seen[-1:], cond_rows[-1:]
        motion, known = self._runs[-1]  # [t] is the motion into frame t+1
        motion.append(_change(seen) if pictures else _motion(seen))
        known.append(_change(cond_rows) if pictures else cond_rows[1:])
        self._frames += len(frames)

    def result(self, spec: ClipSpec) -> AlignmentResult | None:
        """What the gathered frames say; None without conditions, or with fewer than 20 frames of motion."""
        motion, known, clip = [], [], []
        width = spec.cond_size if spec.cond == "vector" else 1
        many = self._frames >= MANY * 2 * width
        at = [shift + self._own for shift in SHIFTS]
        low, high = max(REACH + 1, 1 - at[0]), max(REACH, at[-1])
        for number, run in enumerate(self._runs):
            moved, cond_rows = (np.concatenate(parts) for parts in run)
            if len(moved) < low + high + 1:
                continue
            if spec.cond == "vector" and many:
                cond_rows = np.concatenate([cond_rows, np.concatenate([cond_rows[:1], cond_rows[:-1]])], axis=1)
            inner = np.arange(low, len(moved) - high)
            motion.append(moved[inner])
            known.append(np.stack([cond_rows[inner + shift] for shift in at]))
            clip.append(np.full(len(inner), number))
        if not motion or sum(map(len, motion)) < MIN_FRAMES:
            return None
        group = np.concatenate(clip)
        if len(motion) < 3:  # one long take: blocks of it stand in for clips
            group = np.arange(len(group)) // max(3, len(group) // (3 * FOLDS))
        y, x = np.concatenate(motion), np.concatenate(known, axis=1)
        penalty = (0.01 if many else 0.5) * x.shape[2] / len(y)
        r2 = {shift: _r2(x[index], y, group, max(1e-3, penalty)) for index, shift in enumerate(SHIFTS)}
        top = max(r2.values())
        best = None
        if top >= LITTLE:
            unsure = not many and r2[0] >= top - UNSURE
            best = 0 if unsure else min(shift for shift in r2 if r2[shift] >= top - CLOSE)
        return AlignmentResult({shift: round(value, 4) for shift, value in r2.items()}, best)


def _coarse(pictures: NDArray[np.uint8]) -> Floats:
    """(T, h, w) grey, about 16 x 16: means of blocks."""
    height, width = pictures.shape[1:3]
    down, across = max(1, height // SIDE), max(1, width // SIDE)
    h, w = height // down, width // across
    cut = pictures[:, : h * down, : w * across].reshape(len(pictures), h, down, w, across, -1)
    return np.asarray(cut.mean(axis=(2, 4, 5), dtype=np.float64))


def _motion(grey: Floats) -> Floats:
    """(T-1, 2): displacement between neighbours in coarse pixels, y and x, weighted towards what changes."""
    grey = _blurred(_blurred(grey, 1), 2)
    change, middle = grey[1:] - grey[:-1], (grey[1:] + grey[:-1]) / 2
    gy, gx = np.gradient(middle, axis=(1, 2))
    energy = change**2 + 1
    weight = energy / (energy + 20)
    products = (gy * gy, gx * gy, gx * gx, -change * gy, -change * gx)
    yy, xy, xx, y, x = ((product * weight).sum(axis=(1, 2)) for product in products)
    det = yy * xx - xy**2 + 1e-3 * (yy + xx) ** 2 + 1e-9
    return np.stack([(xx * y - xy * x) / det, (yy * x - xy * y) / det], axis=1)


def _blurred(grey: Floats, axis: int) -> Floats:
    pad = [(0, 0)] * 3
    pad[axis] = (1, 1)
    wide = np.moveaxis(np.pad(grey, pad, mode="edge"), axis, 0)
    return np.moveaxis((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4, 0, axis)


def _change(grey: Floats) -> Floats:
    """(T-1, cells): how much neighbours differ in each of 4 x 4 parts of the picture."""
    change = np.abs(grey[1:] - grey[:-1])
    h, w = (side // PARTS for side in grey.shape[1:])
    parts = change[:, : h * PARTS, : w * PARTS].reshape(len(change), PARTS, h, PARTS, w)
    return np.asarray(np.sqrt(parts.mean(axis=(2, 4))).reshape(len(change), PARTS**2))


def _r2(x: Floats, y: Floats, group: NDArray[np.int_], penalty: float) -> float:
    """Share of the variance of y that a ridge regression on x explains in groups it was not fitted on."""
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 1e-9 * np.abs(x).max(axis=0), spread, 1)
    _, number = np.unique(group, return_inverse=True)
    fold = number % min(FOLDS, int(number.max()) + 1)
    wrong = right = 0.0
    for held in range(int(fold.max()) + 1):
        fit, out = fold != held, fold == held
        x0, y0 = x[fit].mean(axis=0), y[fit].mean(axis=0)
        centred = x[fit] - x0
        normal = centred.T @ centred + penalty * len(centred) * np.eye(x.shape[1])
        weights = np.linalg.solve(normal, centred.T @ (y[fit] - y0))
        wrong += float(((y[out] - y0 - (x[out] - x0) @ weights) ** 2).sum())
        right += float(((y[out] - y0) ** 2).sum())
    return 1 - wrong / right if right else 0.0
