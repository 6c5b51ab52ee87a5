"""What callers of the Python API give, as arrays of a fixed shape; each misuse is refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foreframe.clip import ClipSpec
from foreframe.errors import InputError, nearest

Given = tuple[NDArray[Any], bool]
"""An array with the axis B in front, and whether it had one when it was given."""


def at_least(name: str, value: object, least: int) -> int:
    """A whole number from `least` on, or InputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: got {value!r}, expected a whole number, {least} or more")
    return int(value)


def read_pictures(name: str, value: Any, size: tuple[int, int, int], axis: str) -> Given:
    """Pictures of one size (H, W, C) as uint8 (B, T, H, W, C); (B, H, W, C) where `axis` is empty.

    axis: the letter of the axis in front of a picture. Raises InputError: not uint8, or of another shape.
    """
    shape = f"uint8 ({axis + ', ' if axis else ''}{', '.join(map(str, size))})"
    array = _array(name, value, shape)
    found = f"{name}: got {array.dtype} {array.shape}"
    if array.dtype != np.uint8:
        unit = array.size and array.dtype.kind == "f" and np.nanmax(np.abs(array)) <= 1
        change = "(255 * x).round().astype('uint8')" if unit else "x.astype('uint8')"
        raise InputError(f"{found}, expected {shape} with levels 0 to 255: give {change}")
    if array.shape[-3:] == (size[2], *size[:2]):
        raise InputError(f"{found}, channels first, expected {shape}: give numpy.moveaxis(x, -3, -1)")
    ndim = 4 if axis else 3
    if array.ndim == ndim - 1 and array.shape == size:
        raise InputError(f"{found}, a single picture, expected {shape}: give x[None] for one of them")
    if array.ndim not in (ndim, ndim + 1):
        raise InputError(f"{found}, expected {shape}, or with an axis B in front")
    if array.shape[-3:] != size:
        raise InputError(f"{found}, expected {shape}, as the model was trained: resize or convert the pictures")
    return (array, True) if array.ndim > ndim else (array[None], False)


def read_numbers(name: str, value: Any, columns: tuple[str, ...], axis: str) -> Given:
    """Numbers of a vector condition as float32 (B, T, D); (B, D) where `axis` is empty.

    value: an array in the order of `columns`, or a mapping of their names to arrays without the axis D. Raises
    InputError: another shape, a wrong name, or a number that is not finite.
    """
    size = len(columns)
    shape = f"({axis + ', ' if axis else ''}{size}) with the columns {_listed(columns)}"
    if isinstance(value, Mapping):
        value = _stacked(name, value, columns)
    array = _array(name, value, shape)
    found, ndim = f"{name}: got {array.dtype} {array.shape}", 2 if axis else 1
    if array.ndim not in (ndim, ndim + 1):
        raise InputError(f"{found}, expected {shape}, or with an axis B in front")
    if array.shape[-1] != size:
        raise InputError(f"{found}, {array.shape[-1]} columns, expected {shape}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        *place, column = np.argwhere(~np.isfinite(numbers))[0].tolist()
        row = f"row {place[-1]}, " if axis else ""
        what = array[(*place, column)]
        raise InputError(f"{name}: got {what} in {row}column {columns[column]}, expected finite numbers: fill the gap")
    return (numbers, True) if numbers.ndim > ndim else (numbers[None], False)


def read_condition(
    name: str, value: Any, spec: ClipSpec, columns: tuple[str, ...], axis: str, controls: tuple[str, ...] = ()
) -> Given | None:
    """The condition of a model as (B, T, ...), or None for a model that takes none. controls: those of the columns that
    may be given alone; the others, which the model then never reads, are zeros. Raises InputError: it is missing, is
    not wanted, or is of another kind."""
    if spec.cond == "none":
        if value is not None:
            raise InputError(f"{name}: got {type(value).__name__}, expected None: this model takes no condition")
        return None
    if value is None:
        raise InputError(f"{name}: got None, expected {describe_condition(spec, columns)}: the model is driven by them")
    if spec.cond == "vector":
        if not controls or not _controls_alone(name, value, columns, controls):
            return read_numbers(name, value, columns, axis)
        numbers, several = read_numbers(name, value, controls, axis)
        whole = np.zeros((*numbers.shape[:-1], len(columns)), np.float32)
        whole[..., [columns.index(column) for column in controls]] = numbers
        return whole, several
    if isinstance(value, Mapping):
        raise InputError(f"{name}: got a mapping, expected pictures: this model is driven by poses, not by numbers")
    return read_pictures(name, value, (spec.height, spec.width, spec.cond_size), axis)


def _controls_alone(name: str, value: Any, columns: tuple[str, ...], controls: tuple[str, ...]) -> bool:
    """Whether these are numbers of `controls` and of no other of the columns."""
    if isinstance(value, Mapping):
        return not any(column in value for column in columns if column not in controls)
    return _array(name, value, "numbers").shape[-1:] == (len(controls),)


def describe_condition(spec: ClipSpec, columns: tuple[str, ...]) -> str:
    """What leads into a frame, for messages and cards."""
    if spec.cond == "vector":
        return f"{len(columns)} numbers a frame ({_listed(columns)})"
    return "no condition" if spec.cond == "none" else "a pose picture a frame, uint8, of the size of the frames"


def same_batch(**arrays: NDArray[Any] | None) -> int:
    """B: each array has that many rows, or one that serves all. Raises InputError."""
    sizes = {name: len(array) for name, array in arrays.items() if array is not None}
    batch = max(sizes.values(), default=1)
    if wrong := [f"{size} in {name}" for name, size in sizes.items() if size not in (1, batch)]:
        most = max(sizes, key=lambda name: sizes[name])
        raise InputError(f"{most}: got {batch} sequences, but {', '.join(wrong)}: expected one, or as many in each")
    return batch


def _array(name: str, value: Any, expected: str) -> NDArray[Any]:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: got parts of unlike shapes, expected {expected}") from error
    if array.dtype.kind not in "uif":
        found = f"{array.dtype} {array.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{name}: got {found}, expected {expected} as an array or a tensor")
    return array


def _stacked(name: str, value: Mapping[Any, Any], columns: tuple[str, ...]) -> NDArray[Any]:
    for key in value:
        if key not in columns:
            raise InputError(f"{name}: got a column {key!r}, expected {_listed(columns)}{nearest(str(key), columns)}")
    if missing := [column for column in columns if column not in value]:
        raise InputError(f"{name}: got no column {', '.join(missing)}, expected all of {_listed(columns)}")
    parts = {column: _array(f"{name}[{column!r}]", value[column], "numbers") for column in columns}
    shapes = {column: part.shape for column, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{name}: got columns of unlike shapes, {shapes}, expected one shape")
    return np.stack(list(parts.values()), -1)


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(columns) if len(columns) <= 16 else f"{', '.join(columns[:12])}, ... ({len(columns)})"


def check_number(name: str, value: object, above: float, most: float) -> None:
    """Raises InputError unless `value` is a number, at least `above` and at most `most`."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not above <= float(value) <= most:  # type: ignore[arg-type]
        raise InputError(f"{name}: got {value!r}, expected a number, {above:g} to {most:g}")
