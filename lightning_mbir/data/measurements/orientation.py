"""Where slices lie in the patient, and k-space turned so that its image lies as volumes do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from nibabel.orientations import io_orientation
from torch import Tensor

from lightning_mbir.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SAME = 1e-3
"""mm, or parts of a unit vector."""


class Stack(NamedTuple):
    """Where slices that are chosen lie.

    Attributes:
        affine: of the volume, with the phase encoding along x and the readout along y, ``(x, y, z)`` to mm towards the
            patient's right, front and head.
        sized: whether the distance of the slices is known.
        notes: what is not known.
        sided: whether the file tells how the slices lie in the patient.
    """

    affine: np.ndarray
    sized: bool
    notes: tuple[str, ...] = ()
    sided: bool = True


def upwards(normal: np.ndarray) -> np.ndarray:
    """The direction of slices, ``(3,)``, or its opposite: towards the patient's right, front or head."""
    ras = LPS_TO_RAS @ normal
    return normal if ras[np.abs(ras).argmax()] >= 0 else -normal


def slice_order(positions: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Numbers of slices in the order in which they lie, from foot to head where they are axial; see ``slice_stack``."""
    return np.argsort(np.round(positions @ upwards(directions[0, 2]), 3), kind="stable")


def slice_stack(
    path: Path,
    positions: np.ndarray,
    directions: np.ndarray,
    shape: tuple[int, int],
    pixel: tuple[float, float],
    thickness: float,
) -> Stack:
    """The place of slices, by their middles, which lie at index ``N // 2`` of the image.

    Args:
        path: of the file, for messages.
        positions: ``(slices, 3)`` in mm towards the patient's left, back and head, in the order of ``slice_order``.
        directions: ``(slices, 3, 3)``, unit vectors of the readout, the phase encoding and the slices.
        shape: of the image along the readout and the phase encoding; ``pixel`` its size in mm, likewise.
        thickness: of a slice in mm, which is their distance where the positions do not tell.

    Raises:
        InputError: slices in several directions, or at uneven distances.
    """
    count = len(positions)
    frame = directions[0] @ directions[0].T
    if not np.isfinite(directions).all() or not np.allclose(frame, np.eye(3), atol=0.01):
        plain = np.diag([pixel[1], pixel[0], thickness, 1.0])
        return Stack(plain, count == 1, ("the file tells no directions: where the volume lies is open",), False)
    if not np.allclose(directions, directions[:1], atol=SAME):
        raise InputError(f"{path}: its slices lie in several directions; choose those of one stack with --data.slices")
    read, phase, normal = directions[0]
    notes: tuple[str, ...] = ()
    step, sized = thickness * upwards(normal), True
    if count > 1 and np.ptp(positions @ normal) < SAME:
        sized, notes = False, ("all slices have one position: they are taken in the file's order",)
    elif count > 1:
        steps = np.diff(positions, axis=0)
        if not np.allclose(steps, steps[:1], atol=0.01 * float(np.linalg.norm(steps[0]))):
            raise InputError(f"{path}: its slices are not evenly spaced; choose those that are with --data.slices")
        step = steps[0]
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.stack([pixel[1] * phase, pixel[0] * read, step], 1)
    affine[:3, 3] = LPS_TO_RAS @ positions[0] - affine[:3, :3] @ [shape[1] // 2, shape[0] // 2, 0]
    return Stack(affine, sized, notes)


def turned(arrays: list[Tensor], affine: np.ndarray) -> tuple[list[Tensor], np.ndarray, Literal["x", "y"]]:
    """K-space whose image lies as nearly towards right, front and head as its own axes allow; nothing is interpolated.

    Axes of a slice are exchanged, and reversed about zero frequency: the image of ``k[N//2 - m]`` is the mirror image
    about ``N//2``. The field of view being periodic, the first row of an even size then shows what was beyond the last.

    Args:
        arrays: k-space or masks ``(..., Y, X)``, with the phase encoding along x.
        affine: of the volume, from ``(x, y, z)`` to mm.

    Returns:
        The arrays, the affine, and the axis of the slices that phase was encoded along.
    """
    orientation = io_orientation(affine)
    columns, origin, phase = affine[:3, :3].copy(), affine[:3, 3].copy(), "x"
    if orientation[0, 0] > orientation[1, 0]:
        arrays = [array.transpose(-1, -2) for array in arrays]
        columns, orientation, phase = columns[:, [1, 0, 2]], orientation[[1, 0, 2]], "y"
    for axis, dim in ((0, -1), (1, -2)):
        if orientation[axis, 1] < 0:
            origin += columns[:, axis] * (2 * (arrays[0].shape[dim] // 2))
            columns[:, axis] *= -1
            arrays = [mirrored(array, dim) for array in arrays]
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = columns, origin
    return [array.contiguous() for array in arrays], found, "x" if phase == "x" else "y"


def mirrored(kspace: Tensor, dim: int) -> Tensor:
    """K-space of the mirror image about index ``N // 2`` of an axis."""
    flipped = kspace.flip(dim)
    return flipped if kspace.shape[dim] % 2 else torch.roll(flipped, 1, dim)
