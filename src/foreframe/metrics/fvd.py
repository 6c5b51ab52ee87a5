"""Frechet video distance (FVD; Unterthiner et al., 2018): how far predicted clips lie from real ones, as two sets.

Each clip becomes the 400 logits of I3D; the distance is that of two Gaussians with the sets' means and covariances. It
depends on the number and length of the clips and on the weights, which the user gives; without them there is no FVD.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreframe import signals
from foreframe.errors import UsageError
from foreframe.metrics.i3d import CLASSES, SHORTEST, SIDE, load_i3d


@dataclass(frozen=True)
class FvdProtocol:
    """What a distance depends on; two compare only if theirs agree."""

    definition: str
    features: str
    weights_sha256: str
    frames: str
    covariance: str
    context_frames: int
    length: int
    clips: int
    samples: int


@dataclass(frozen=True)
class FvdScore:
    """The distance of all samples of all clips together, and those of trivial baselines."""

    value: float
    baselines: dict[str, float]
    note: str


class Fvd(nn.Module):
    """Features of clips, and their protocol. sha256: of the file of weights.

    context: whether clips include their context frames, which are true and draw the sets together (SRVP and MCVD do).
    """

    def __init__(self, network: nn.Module, sha256: str, context: bool = True) -> None:
        super().__init__()
        self.network, self.sha256, self.context = network, sha256, context

    @classmethod
    def load(cls, path: Path, context: bool = True) -> Fvd:
        return cls(*load_i3d(path), context)

    def check(self, channels: int, context: int, horizon: int, clips: int) -> None:
        """Raises UsageError for clips of which there is no distance, before anything is computed."""
        length = self.length(context, horizon)
        if channels != 3:
            raise UsageError(f"FVD takes frames of 3 channels, these have {channels}: leave it out")
        if length < SHORTEST:
            kind = f"{context} of context included" if self.context else "without context"
            raise UsageError(
                f"FVD takes clips of {SHORTEST} frames or more, these have {length} ({kind}): give a horizon of "
                f"{horizon + SHORTEST - length} or more"
            )
        if clips < 2:
            raise UsageError(f"FVD compares sets of 2 clips or more, found {clips}: score more clips or leave it out")

    def length(self, context: int, horizon: int) -> int:
        """Frames of each clip as the network sees it."""
        return horizon + (context if self.context else 0)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Features of clips (..., T, 3, H, W), floats in [0, 1]: (..., 400), on the CPU in float64.

        One by one, so that no clip depends on others. Raises UsageError if features are not finite.
        """
        found = []
        for clip in clips.flatten(0, -5):
            signals.poll()
            size = (SIDE, SIDE)
            frames = 2 * functional.interpolate(clip.float(), size, mode="bilinear", align_corners=False) - 1
            # TensorFloat-32, which torch takes for convolutions by default, would make another number on a GPU.
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                found.append(self.network(frames.transpose(0, 1)[None])[0].cpu())
        features = torch.stack(found).double()
        if not features.isfinite().all():
            raise UsageError("FVD: the network's features are not finite; are its weights those of I3D?")
        return features.view(*clips.shape[:-4], -1)

    def protocol(self, context: int, horizon: int, clips: int, samples: int) -> FvdProtocol:
        return FvdProtocol(
            definition="Frechet distance of Gaussians fitted to the features of real and predicted clips",
            features=f"I3D, RGB: {CLASSES} logits, averaged over time",
            weights_sha256=self.sha256,
            frames=f"bilinear to {SIDE}x{SIDE} (align_corners False, no antialiasing), brought to [-1, 1]",
            covariance="sample covariance, divided by clips - 1",
            context_frames=context if self.context else 0,
            length=self.length(context, horizon),
            clips=clips,
            samples=samples,
        )


def frechet_distance(real: Tensor, predicted: Tensor) -> float:
    """Distance of two Gaussians fitted to features (N, D) and (M, D), computed in float64; 0 or more, lower is better.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), with sample covariances (Dowson & Landau, 1982). With C1 = A^T A and
    C2 = B^T B, the trace of (C1^(1/2) C2 C1^(1/2))^(1/2) is the sum of the singular values of A B^T: no root of an
    eigenvalue that rounding made negative, and there may be fewer clips than dimensions.
    Raises ValueError for fewer than 2 rows, unlike columns, or numbers that are not finite.
    """
    if real.ndim != 2 or predicted.ndim != 2 or real.shape[1] != predicted.shape[1]:
        raise ValueError(f"expected features (N, D) and (M, D), found {tuple(real.shape)} and {tuple(predicted.shape)}")
    if min(len(real), len(predicted)) < 2:
        raise ValueError(f"expected 2 clips or more on either side, found {len(real)} and {len(predicted)}")
    both = real.double(), predicted.double()
    if not all(side.isfinite().all() for side in both):
        raise ValueError("features are not finite")
    one, other = map(_root, both)
    means = (both[0].mean(0) - both[1].mean(0)).square().sum()
    common = torch.linalg.svdvals(one @ other.T).sum()
    return max(0.0, float(means + one.square().sum() + other.square().sum() - 2 * common))


def bias(clips: int) -> str:
    """A caveat for small sets of clips."""
    return f"{clips} clips, {CLASSES} dimensions{': biased upwards' if clips <= CLASSES else ''}"


def _root(features: Tensor) -> Tensor:
    """A matrix A with A^T A the sample covariance of (N, D), of D rows at most."""
    scaled = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(scaled, mode="r").R if len(scaled) > scaled.shape[1] else scaled
    return root
