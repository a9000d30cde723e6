"""The slices of a DICOM series in their order, and where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_mbir.data.volumes.dicom.slices import Slice
from lightning_mbir.data.volumes.grid import Grid
from lightning_mbir.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_PLACE = 0.01
"""Slices that are less than these millimetres apart along the normal are at the same place."""
REGULAR, LEAST = 0.01, 0.01
"""How far a slice may be from where equal distances put it: this share of the distance, or these millimetres."""
ROUNDED, MOST_ROUNDED = 0.6, 0.1
"""And this share of the last decimal of the positions, but no more than this share of the distance."""
DRIFT = 0.1
"""Slices whose places drift by more than this share of a pixel within their plane, over the whole stack, are tilted."""


@dataclass(frozen=True)
class Stack:
    """Slices that are a volume, by increasing position along their normal.

    Attributes:
        slices: the slices.
        grid: that of the voxels as measured, ``(column, row, slice)``; sheared where the gantry was tilted.
        straight: the smallest grid with perpendicular axes that holds all of a tilted stack; else None.
        notes: what is to be told, a line each.
    """

    slices: tuple[Slice, ...]
    grid: Grid
    straight: Grid | None
    notes: tuple[str, ...] = ()


def normal(one: Slice) -> np.ndarray:
    """The normal ``(3,)`` of a slice, in LPS: the direction along a row times that along a column."""
    return np.cross(*_directions(one))


def along_normal(slices: Sequence[Slice]) -> np.ndarray:
    """The places of slices along the normal of the first one, in mm."""
    return np.array([one.position for one in slices]) @ normal(slices[0])


def stacked(slices: Sequence[Slice], name: str) -> Stack:
    """The stack of slices that have one orientation, size and spacing, and different places.

    Args:
        slices: two or more, in any order.
        name: of the folder and series, for messages.

    Raises:
        InputError: slices are missing, at unequal distances or shifted against each other.
    """
    if len(slices) < 2:
        raise InputError(f"{name}: a single slice ({slices[0].name}); give the folder with all slices of the series")
    order = np.argsort(along_normal(slices), kind="stable")
    slices = tuple(slices[i] for i in order)
    row, column = _directions(slices[0])
    across = np.cross(row, column)
    positions = np.array([one.position for one in slices])
    first, step = _line(positions)
    distance = float(step @ across)
    off = positions - (first + np.arange(len(slices))[:, None] * step)
    rounded = min(ROUNDED * 10.0 ** -max(one.decimals for one in slices), MOST_ROUNDED * distance)
    tolerance = max(REGULAR * distance, LEAST, rounded)
    if np.abs(off @ across).max() > tolerance:
        raise _unequal(slices, name)
    if np.linalg.norm(off - (off @ across)[:, None] * across, axis=1).max() > tolerance:
        worst = slices[int(np.linalg.norm(off, axis=1).argmax())]
        raise InputError(
            f"{name}: slices are shifted against each other within their plane, most {worst.name}; give slices whose "
            "positions follow a straight line"
        )
    shear = step - distance * across
    drift = float(np.linalg.norm(shear)) * (len(slices) - 1)
    tilted = drift > max(DRIFT * min(slices[0].spacing), rounded)
    if not tilted:
        first, step = first + shear * (len(slices) - 1) / 2, distance * across
    rows, columns = slices[0].shape
    between_rows, between_columns = slices[0].spacing
    axes = np.stack([row * between_columns, column * between_rows, step], axis=1)
    grid = Grid((columns, rows, len(slices)), _affine(axes, first))
    straight = _straight(grid, axes, across * distance, first) if tilted else None
    notes = list(_notes(slices, distance))
    if straight is not None:
        angle = math.degrees(math.atan2(float(np.linalg.norm(shear)), distance))
        notes.append(
            f"tilted by {angle:.3g} degrees (gantry tilt): reconstructed on the slices as measured, and for NIfTI, "
            f"which ITK takes straight alone, interpolated onto {' x '.join(map(str, straight.shape))} straight voxels"
        )
    return Stack(slices, grid, straight, tuple(notes))


def _directions(one: Slice) -> tuple[np.ndarray, np.ndarray]:
    return np.array(one.orientation[:3]), np.array(one.orientation[3:])


def _line(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beginning and step of the straight line nearest to positions ``(n, 3)`` at equal distances."""
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    step = index @ positions / (index @ index)
    return positions.mean(0) + index[0] * step, step


def _affine(axes: np.ndarray, first: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, first
    return LPS_TO_RAS @ affine


def _straight(grid: Grid, axes: np.ndarray, step: np.ndarray, first: np.ndarray) -> Grid:
    """A grid along the rows, the columns and the normal with the same pixels, enlarged to hold every slice."""
    count = grid.shape[2] - 1
    drift = np.linalg.solve(axes[:, :2].T @ axes[:, :2], axes[:, :2].T @ (axes[:, 2] - step)) * count  # in pixels
    before = [math.floor(round(min(0.0, float(pixels)), 4)) for pixels in drift]
    after = [math.ceil(round(max(0.0, float(pixels)), 4)) for pixels in drift]
    shape = (grid.shape[0] + after[0] - before[0], grid.shape[1] + after[1] - before[1], grid.shape[2])
    origin = first + before[0] * axes[:, 0] + before[1] * axes[:, 1]
    return Grid(shape, _affine(np.stack([axes[:, 0], axes[:, 1], step], axis=1), origin))


def _unequal(slices: Sequence[Slice], name: str) -> InputError:
    """What is told where distances differ."""
    places = along_normal(slices)
    steps = np.diff(places)
    usual = float(np.median(steps))
    whole = np.round(steps / usual)
    gaps = np.flatnonzero(whole > 1)
    right = "give the whole series, or a folder with slices at equal distances"
    if len(gaps) and np.abs(steps - whole * usual).max() <= max(0.05 * usual, LEAST):
        at = "; ".join(
            f"{int(whole[k]) - 1} between {slices[k].name} at {places[k]:.2f} mm and {slices[k + 1].name} at "
            f"{places[k + 1]:.2f} mm" for k in gaps[:3]
        )  # fmt: skip
        more = f"; and at {len(gaps) - 3} more places" if len(gaps) > 3 else ""
        missing = int((whole[gaps] - 1).sum())
        noun = "slice is" if missing == 1 else "slices are"
        return InputError(
            f"{name}: {missing} {noun} missing, a gap in places along the normal that are else {usual:.4g} mm apart: "
            f"{at}{more}; {right}"
        )
    worst = int(np.abs(steps - usual).argmax())
    return InputError(
        f"{name}: slices at unequal distances, {steps.min():.4g} to {steps.max():.4g} mm, such as "
        f"{steps[worst]:.4g} mm from {slices[worst].name} at {places[worst]:.2f} mm to {slices[worst + 1].name} at "
        f"{places[worst + 1]:.2f} mm; {right}"
    )


def _notes(slices: Sequence[Slice], distance: float) -> list[str]:
    notes = []
    told = {abs(one.between) for one in slices if one.between}
    wrong = sorted(between for between in told if abs(between - distance) > max(0.02 * distance, LEAST))
    if wrong:
        notes.append(
            f"SpacingBetweenSlices is {wrong[0]:g} mm, but slices are {distance:.4g} mm apart, which is what counts"
        )
    return notes
