"""Turns in space as unit quaternions (..., 4), w first; angles in radians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def multiply(a: Floats, b: Floats) -> Floats:
    """Products of quaternions (..., 4), w first: b, then a."""
    w, v, u, x = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    return np.concatenate([w * u - (v * x).sum(-1, keepdims=True), w * x + u * v + np.cross(v, x)], axis=-1)


def inverse(a: Floats) -> Floats:
    return np.asarray(a * [1, -1, -1, -1])


def normalize(a: Floats) -> Floats:
    return np.asarray(a / np.linalg.norm(a, axis=-1, keepdims=True))


def from_vector(vector: Floats) -> Floats:
    """Turns about vectors (..., 3) by as many radians as these are long."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), np.sinc(angle / (2 * np.pi)) / 2 * vector], axis=-1)


def to_vector(turn: Floats) -> Floats:
    """The inverse of `from_vector`; the shorter way round."""
    near = np.where(turn[..., :1] < 0, -turn, turn)
    sine = np.linalg.norm(near[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, near[..., :1])
    return np.asarray(near[..., 1:] * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0))


def interpolate(a: Floats, b: Floats, share: Floats) -> Floats:
    """Turns (..., 4) from a (share 0) to b (share 1) by the shorter way."""
    b = np.where((a * b).sum(-1, keepdims=True) < 0, -b, b)
    return normalize(a + share * (b - a))


def ease(share: Floats) -> Floats:
    """0 to 1 without a jerk at either end."""
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))
