"""What readers of scanners' own geometries have in common: arcs, the volume that a scan shows, the measurement."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_mbir.data.measurements.trajectory import check_gaps, travelled
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

Array = NDArray[Any]
STILL = 1e-4
"""What directions of views differ by at least, as parts of a unit vector, where the gantry turns."""


def on_arc(tangent: Array, across: Array, inward: Array, radius: float, along: Array) -> tuple[Array, Array]:
    """A point of an arc and the direction of its columns there.

    Args:
        tangent: ``(views, 3)`` where the arc touches its flat detector, mm.
        across: ``(views, 3)`` unit vectors along the columns there.
        inward: ``(views, 3)`` unit vectors towards the centre of the arc.
        radius: of the arc in mm.
        along: ``(views,)`` mm along the arc from there.

    Returns:
        points and unit vectors, both ``(views, 3)``.
    """
    turn = (along / radius)[:, None]
    point = tangent + radius * (np.sin(turn) * across + (1 - np.cos(turn)) * inward)
    return point, np.cos(turn) * across + np.sin(turn) * inward


def modular_geometry(
    path: Path, views: Array, detector_shape: tuple[int, int], radius: float | None, image_size: int
) -> tuple[dict[str, Any], Array, tuple[str, ...]]:
    """The arguments of ``ModularBeam`` for the volume that a scan about the z axis shows.

    Slices are as wide as every view shows (of a detector that was moved aside in a full turn: as its longer side
    shows), voxels are cubes. A helix reaches from where the source began to where it ended, a circle as far as the
    rows see at the axis.

    Args:
        path: the file, for messages.
        views: ``(views, 12)``, as ``ModularBeam`` takes them.
        detector_shape: ``(rows, columns)``.
        radius: of curved detectors in mm.
        image_size: pixels along a side; 0 for as many as columns.

    Returns:
        the geometry, an affine ``(4, 4)`` from voxels ``(x, y, z)`` to the coordinates of ``views``, and notes.

    Raises:
        InputError: views that all look in one direction, or of a helix that are missing, a detector that the axis does
            not project to, too little memory.
    """
    check_gaps(path, views)
    source, middle, u, v = views.reshape(-1, 4, 3).transpose(1, 0, 2)
    facing = source[:, :2] - middle[:, :2]
    facing /= np.maximum(np.hypot(*facing.T), 1e-30)[:, None]
    if len(views) > 1 and np.ptp(facing, axis=0).max() < STILL:
        raise InputError(f"{path}: all {len(views)} views look in one direction; give the angle of each view")
    rows, columns = detector_shape
    ends = []
    for side in (-1.0, 1.0):
        end = middle + side * columns / 2 * u
        if radius is not None:
            width = np.linalg.norm(u, axis=1)
            inward = np.cross(u, v)
            inward *= (np.sign(((source - middle) * inward).sum(1)) / np.linalg.norm(inward, axis=1))[:, None]
            end, _ = on_arc(middle, u / width[:, None], inward, radius, side * columns / 2 * width)
        toward = end - source
        ends.append((toward[:, 1] * source[:, 0] - toward[:, 0] * source[:, 1]) / np.hypot(toward[:, 0], toward[:, 1]))
    around = np.degrees(np.unwrap(np.arctan2(source[:, 0], -source[:, 1])))
    sides = np.sort(np.array(ends), 0)
    full = np.ptp(around) + np.median(np.abs(np.diff(around, append=around[-1]))) > 355
    shorter, longer = (choose(-sides[0], sides[1]).min() for choose in (np.minimum, np.maximum))
    seen = float(longer if full else shorter)
    if shorter <= 0:
        raise InputError(
            f"{path}: the detector lies beside where the rotation axis projects to; check its offsets and distances"
        )
    size = image_size or columns
    pixel = 2 * seen / size
    toward = middle - source
    t = -(source[:, :2] * toward[:, :2]).sum(1) / np.maximum((toward[:, :2] ** 2).sum(1), 1e-30)
    half = float(np.min(rows / 2 * np.abs(v[:, 2]) * t))
    at = source[:, 2] + t * toward[:, 2]
    helix = travelled(views) is not None and np.ptp(source[:, 2]) > 2 * half
    low, high = (source[:, 2].min(), source[:, 2].max()) if helix else (at.min() - half, at.max() + half)
    if high - low < 1e-9:
        raise InputError(f"{path}: the rows of the detector do not reach along the rotation axis; check its axes")
    slices = max(1, math.floor((high - low) / pixel + 1e-6))
    check_fits(
        f"{path}: a volume of {slices} x {size} x {size}", 16 * slices * size**2, "give a smaller --data.image_size"
    )
    middle_height = float((low + high) / 2)
    affine = np.diag([pixel, pixel, pixel, 1.0])
    affine[:3, 3] = -pixel * (size - 1) / 2, -pixel * (size - 1) / 2, middle_height - pixel * (slices - 1) / 2
    table = views.copy()
    table[:, [2, 5]] -= middle_height
    geometry: dict[str, Any] = {
        "beam": "modular",
        "views": table.tolist(),
        "volume_shape": (slices, size, size),
        "pixel_size": pixel,
        "slice_thickness": pixel,
        "detector_shape": detector_shape,
    }
    if radius is not None:
        geometry |= {"detector": "curved", "curvature_radius": radius}
    kind = "helix" if helix else "circle"
    note = (
        f"{len(views)} views of a {kind}; {slices} slices of {size} x {size} voxels of {pixel:.4g} mm, from {low:.4g} "
        f"to {high:.4g} mm along the axis"
    )
    return geometry, affine, (note,)
