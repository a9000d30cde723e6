"""Voxels of any type as float32, refused where that cannot hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

PART = 1 << 20
"""Voxels that are converted at once."""
WHOLE = 2**24
"""Whole numbers up to here are kept by float32 as they are."""


def three_axes(path: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of one volume: three axes, and those of length 1 that follow them left out.

    Raises:
        InputError: fewer or more axes, an axis without length, or a single slice.
    """
    shown = " x ".join(str(n) for n in shape)
    if min(shape, default=0) < 1:
        raise InputError(f"{path}: a size of {shown} cannot be; correct its header")
    if len(shape) > 3 and math.prod(shape[3:]) > 1:
        raise InputError(
            f"{path}: not one 3D volume but an array of {shown}: several volumes, or several values a voxel; save the "
            "one to take as a file of its own, with three axes"
        )
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise InputError(f"{path}: not a 3D volume but a single slice of {shown}; give a file with three axes")
    i, j, k = (int(n) for n in shape[:3])
    return i, j, k


def check_room(path: Path, shape: tuple[int, int, int]) -> None:
    """Refuse a volume that the memory does not hold twice, as it is read and as it is turned.

    Raises:
        InputError: too little memory.
    """
    shown = " x ".join(str(n) for n in shape)
    check_fits(f"{path}: a volume of {shown}", 2 * 4 * math.prod(shape), "cut out the part that is needed")


def check_type(path: Path, dtype: np.dtype[Any], modality: Modality) -> tuple[str, ...]:
    """What is said of voxels of a type.

    Raises:
        InputError: what is no number, such as colours; complex values of CT.
    """
    if dtype.kind not in "biufc" or dtype.hasobject:
        names = ", ".join(dtype.names) if dtype.names else str(dtype)
        raise InputError(f"{path}: its voxels are no numbers ({names}); save it with one number a voxel, not colours")
    if dtype.kind != "c":
        return ()
    if modality == "ct":
        raise InputError(f"{path}: its voxels are complex, which Hounsfield units are not; save their real numbers")
    return ("complex values: their magnitudes are taken",)


def as_float32(
    path: Path, parts: Iterable[np.ndarray], count: int, slope: float = 1.0, intercept: float = 0.0
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels in the order of the file, ``(count,)``, and what was changed.

    Args:
        path: the file, for messages.
        parts: the voxels, a few at a time.
        count: how many there are.
        slope, intercept: ``slope * voxel + intercept`` is what is meant; 1 and 0 change no bit.

    Raises:
        InputError: values beyond float32.
    """
    found = np.empty(count, np.float32)
    rounded, start = 0, 0
    for part in parts:
        values = part
        if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
            rounded += int(((values > WHOLE) | (values < -WHOLE)).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            if slope != 1 or intercept != 0:
                wide = np.result_type(values, np.float64)
                values = values.astype(wide) * slope + intercept
            if values.dtype.kind == "c":
                values = np.abs(values.astype(np.complex128))
            converted = values.astype(np.float32)
        if np.isinf(converted).any() and bool((np.isinf(converted) & np.isfinite(part)).any()):
            raise InputError(f"{path}: values beyond 3.4e38, which single precision does not hold; scale them first")
        found[start : start + len(part)] = converted
        start += len(part)
    notes = (f"{rounded} whole numbers beyond 2^24 are rounded to single precision",) if rounded else ()
    return found, notes


def flat_parts(array: np.ndarray) -> Iterable[np.ndarray]:
    """The voxels of an array in its own order, some at a time."""
    flat = array.reshape(-1)
    return (flat[start : start + PART] for start in range(0, flat.size, PART))
