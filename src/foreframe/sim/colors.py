"""Colors of a dancer and a room: RGB in [0, 1]."""

from __future__ import annotations

import numpy as np

from foreframe.sim.quaternions import Floats

SKINS = [[0.98, 0.82, 0.70], [0.93, 0.73, 0.58], [0.82, 0.60, 0.43], [0.66, 0.45, 0.30], [0.48, 0.31, 0.20],
         [0.34, 0.22, 0.15]]  # fmt: skip
HAIRS = [[0.08, 0.06, 0.06], [0.22, 0.13, 0.08], [0.42, 0.26, 0.13], [0.80, 0.62, 0.28], [0.62, 0.22, 0.10],
         [0.70, 0.70, 0.72], [0.75, 0.25, 0.55], [0.15, 0.45, 0.60]]  # fmt: skip
CLOTHES = [[0.85, 0.13, 0.13], [0.95, 0.50, 0.08], [0.97, 0.82, 0.15], [0.20, 0.65, 0.25], [0.08, 0.55, 0.55],
           [0.12, 0.32, 0.80], [0.48, 0.20, 0.65], [0.93, 0.42, 0.62], [0.95, 0.95, 0.93], [0.13, 0.13, 0.16],
           [0.45, 0.10, 0.16], [0.12, 0.18, 0.36], [0.55, 0.38, 0.22], [0.55, 0.57, 0.60]]  # fmt: skip
WALLS = [[0.86, 0.83, 0.76], [0.70, 0.77, 0.82], [0.78, 0.82, 0.72], [0.86, 0.74, 0.70], [0.60, 0.60, 0.66],
         [0.42, 0.48, 0.56], [0.50, 0.38, 0.40], [0.30, 0.34, 0.38]]  # fmt: skip
FLOORS = [[0.66, 0.48, 0.30], [0.50, 0.34, 0.22], [0.78, 0.64, 0.46], [0.52, 0.53, 0.55], [0.72, 0.72, 0.70],
          [0.34, 0.32, 0.33]]  # fmt: skip


def tint(rng: np.random.Generator, colors: list[list[float]], noise: float = 0.05) -> Floats:
    """One of the colors, a little off."""
    return np.clip(colors[rng.integers(len(colors))] + rng.uniform(-noise, noise, 3), 0, 1)


def distinct_color(rng: np.random.Generator, colors: list[list[float]], others: list[Floats]) -> Floats:
    """One of the colors that differs clearly from all `others`, in hue too, or the best of 20 draws."""
    candidates = [tint(rng, colors) for _ in range(20)]

    def gap(a: Floats, b: Floats) -> float:
        return float(np.linalg.norm(a - b) + 0.5 * np.linalg.norm(a / (a.max() + 0.1) - b / (b.max() + 0.1)))

    gaps = [min(gap(candidate, other) for other in others) for candidate in candidates]
    return candidates[next((i for i, found in enumerate(gaps) if found > 0.6), int(np.argmax(gaps)))]
