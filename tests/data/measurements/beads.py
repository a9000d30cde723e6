"""What all readers of geometries are tested by: a bead whose place is known, projected by nothing of ours."""

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.reconstruction.measured import measured_operator
from lightning_mbir.solvers import sirt


def bead(sources: NDArray, bins: NDArray, place: tuple[float, float, float], radius: float, value: float) -> NDArray:
    """Line integrals ``(views, rows, columns)`` through a ball, closed form.

    Args:
        sources: ``(views, 3)`` mm.
        bins: ``(views, rows, columns, 3)`` mm.
        place: of its centre, in the same axes.
        radius: mm.
        value: 1/mm.
    """
    to_center = np.asarray(place) - sources
    rays = bins - sources[:, None, None]
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    along = (rays * to_center[:, None, None]).sum(-1)
    distance2 = (to_center**2).sum(-1)[:, None, None] - along**2
    return value * 2 * np.sqrt(np.clip(radius**2 - distance2, 0, None))


def found(measurement: Measurement, steps: int = 30) -> tuple[tuple[float, float, float], float]:
    """Where the bead is in the reconstruction, ``(x, y, z)`` mm in the axes of its affine, and its volume times its
    value, in mm^2."""
    operator = measured_operator(measurement)
    image = sirt(measurement.y, operator, iterations=steps, nonnegative=True).double()
    image = torch.where(image > 0.2 * image.max(), image, 0)
    total = float(image.sum())
    voxel = [
        float((image.sum([a for a in range(3) if a != axis]) * torch.arange(image.shape[axis])).sum() / total)
        for axis in (2, 1, 0)
    ]
    x, y, z, _ = (float(value) for value in measurement.affine @ np.array([*voxel, 1.0]))
    return (x, y, z), total * abs(float(np.linalg.det(measurement.affine[:3, :3])))
