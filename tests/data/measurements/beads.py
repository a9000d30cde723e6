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
    """Where the bead is in the reconstruction, ``(x, y, z)`` mm from the middle of the volume, and its volume times
    its value, in mm^2."""
    operator = measured_operator(measurement)
    image = sirt(measurement.y, operator, iterations=steps, nonnegative=True).double()
    thickness, pixel = operator.slice_thickness, operator.pixel_size
    sizes = (thickness, pixel, pixel)
    places = [
        (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * size for n, size in zip(image.shape, sizes, strict=True)
    ]
    image = torch.where(image > 0.2 * image.max(), image, 0)
    total = float(image.sum())
    z, y, x = (
        float((image.sum([a for a in range(3) if a != axis]) * place).sum() / total)
        for axis, place in enumerate(places)
    )
    return (x, y, z), total * thickness * pixel**2
