"""Filtered back-projection of a cone beam."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.cone_beam import ConeBeam
from lightning_mbir.solvers.fbp import filter_sinogram, rotated, to_grid
from lightning_mbir.solvers.scan import redundancy_weights, view_weights

VOXELS = 2**24
"""Voxels at once; they take some 20 bytes each."""


@torch.no_grad()
def fdk(y: Float[Tensor, "*measured"], operator: ConeBeam, filter: str = "ramp") -> Float[Tensor, "*batch z y x"]:
    """Attenuation from cone-beam projections (Feldkamp, Davis and Kress, "Practical cone-beam algorithm", JOSA A 1(6),
    1984): exact in the plane of the source, approximate above and below it.

    Short scans are weighted as in :func:`fbp`, by the fan angle of each column.

    Args:
        y: ``(..., views, rows, columns)``.
        operator: its geometry.
        filter: as in :func:`fbp`, along the rows.

    Returns:
        ``(..., Z, Y, X)`` in 1/mm.

    Raises:
        InputError: unknown filter, projections of another shape, or another operator.
    """
    if not isinstance(operator, ConeBeam):
        raise InputError(f"fdk is for ConeBeam, not {type(operator).__name__}; fbp is for ParallelBeam and FanBeam")
    operator.check_range(y)
    source, total = operator.source_distance, operator.source_distance + operator.detector_distance
    v, u = (torch.from_numpy(part) for part in operator.positions)
    angles = view_weights(operator.angles, 360)[:, None]
    shares = redundancy_weights(operator.angles, torch.atan(u / total)) * angles
    cosine = total / (total**2 + u**2 + v[:, None] ** 2).sqrt()
    row_spacing, column_spacing = operator.detector_spacing
    # Lengths are those on a detector through the axis.
    filtered = filter_sinogram(
        y * cosine.to(y) * shares.to(y)[:, None], column_spacing * source / total, filter
    ).reshape(-1, *operator.range_shape)
    depths, height, width = operator.domain_shape
    _, rows, columns = operator.range_shape
    z, row, column = (
        ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * spacing)
        for size, spacing in zip(
            operator.domain_shape, (operator.slice_thickness, operator.pixel_size, operator.pixel_size), strict=True
        )
    )
    volume = filtered.new_zeros(len(filtered), *operator.domain_shape)
    at_once = max(1, VOXELS // (height * width))
    for view, angle in enumerate(operator.angles):
        across, depth = rotated(column, row, angle, source)
        magnification = (total / depth).to(y)
        grid_u = to_grid(across.to(y) * magnification, columns, column_spacing, operator.offsets[1])
        weight = ((source / depth) ** 2).to(y)
        for start in range(0, depths, at_once):
            some = slice(start, start + at_once)
            grid_v = to_grid(z[some, None, None].to(y) * magnification, rows, row_spacing, operator.offsets[0])
            grid = torch.stack((grid_u.expand_as(grid_v), grid_v), -1).flatten(0, 1)
            read = F.grid_sample(filtered[None, :, view], grid[None], align_corners=True)
            volume[:, some] += read[0].view(len(filtered), -1, height, width) * weight
    return volume.reshape(*y.shape[:-3], *operator.domain_shape)
