"""What the simulators share: MuJoCo, imported when first needed, its camera, and pictures drawn at twice their size."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foreframe.errors import UsageError


def load_mujoco(packages: Mapping[str, str]) -> ModuleType:
    """The package `mujoco`: it is optional, and reads MUJOCO_GL (where to draw) on import.

    packages: the modules that a simulator needs, each with the package that it comes in.
    Raises UsageError, with what to install, if one is missing or MuJoCo cannot draw here.
    """
    missing = [package for module, package in packages.items() if not package_file(module)]
    if missing:
        raise UsageError(f"the simulator needs {' and '.join(missing)}: pip install 'foreframe[sim]'")
    if sys.platform.startswith("linux"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # the default opens a window, which a server does not have
    try:
        import mujoco
    except (ImportError, AttributeError) as error:  # AttributeError: PyOpenGL found no libEGL
        raise UsageError(
            f"MuJoCo cannot draw here with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({error}): install libegl1, "
            "libgl1 and libgl1-mesa-dri, or libosmesa6 and set MUJOCO_GL=osmesa"
        ) from error
    return mujoco  # type: ignore[no-any-return]


def version(packages: Mapping[str, str]) -> str:
    """The MuJoCo version that a simulator would use; errors are those of `load_mujoco`."""
    return str(load_mujoco(packages).__version__)


def free_camera(mujoco: ModuleType, lookat: ArrayLike, azimuth: float, elevation: float, distance: float) -> Any:
    """A camera that looks at a point (metres) from a distance, at angles in degrees."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = lookat
    camera.azimuth, camera.elevation, camera.distance = azimuth, elevation, distance
    return camera


def package_file(module: str) -> str:
    """The file that a module would be imported from, or an empty string; nothing is imported."""
    spec = importlib.util.find_spec(module)
    return "" if spec is None else spec.origin or ""


def halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels, rounded: smoother than multisampling at the final size, and cheaper."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    total = image.reshape(h, 2, w, 2, 3).astype(np.uint16).sum(axis=(1, 3), dtype=np.uint16)
    return np.asarray((total + 2) // 4, np.uint8)
