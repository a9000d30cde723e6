"""Filtered back-projection of a cone beam."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.cone_beam import ConeBeam
from lightning_mbir.solvers.fbp import filter_sinogram, rotated, to_grid
from lightning_mbir.solvers.scan import detector_shares, displaced, redundancy_weights, view_weights, widened

VOXELS = 2**24
"""Voxels at once; they take some 20 bytes each."""


@torch.no_grad()
def fdk(y: Num[Tensor, "*measured"], operator: ConeBeam, filter: str = "ramp") -> Num[Tensor, "*batch z y x"]:
    """Attenuation from cone-beam projections (Feldkamp, Davis and Kress, "Practical cone-beam algorithm", JOSA A 1(6),
    1984): exact in the plane of the source, approximate above and below it.

    Short scans, and detectors that were moved aside, are weighted as in :func:`fbp`, by the fan angle of each column.

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
        raise InputError(
            f"fdk is for ConeBeam, not {type(operator).__name__}; fbp is for ParallelBeam and FanBeam, sirt for all"
        )
    operator.check_range(y)
    if y.is_complex():
        return torch.complex(fdk(y.real, operator, filter), fdk(y.imag, operator, filter))
    source, total = operator.source_distance, operator.source_distance + operator.detector_distance
    v, u = (torch.from_numpy(part) for part in operator.positions)
    angles = view_weights(operator.angles, 360)[:, None]
    shares = redundancy_weights(operator.angles, torch.atan(u / total)) * angles
    row_spacing, column_spacing = operator.detector_spacing
    _, rows, columns = operator.range_shape
    offset, before, after = operator.offsets[1], 0, 0
    radius = min(operator.domain_shape[1:]) * operator.pixel_size / 2
    if displaced(
        operator.angles,
        columns * column_spacing,
        offset,
        radius,
        lambda position: source * math.sin(math.atan(position / total)),
    ):
        shares = detector_shares(u) * angles
        before, after, offset = widened(column_spacing, offset)
    cosine = total / (total**2 + u**2 + v[:, None] ** 2).sqrt()
    # Lengths are those on a detector through the axis.
    weighted = F.pad(y * cosine.to(y) * shares.to(y)[:, None], (before, after))
    filtered = filter_sinogram(weighted, column_spacing * source / total, filter)
    filtered = filtered.reshape(-1, *filtered.shape[-3:])
    columns = filtered.shape[-1]
    depths, height, width = operator.domain_shape
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
        grid_u = to_grid(across.to(y) * magnification, columns, column_spacing, offset)
        weight = ((source / depth) ** 2).to(y)
        for start in range(0, depths, at_once):
            some = slice(start, start + at_once)
            grid_v = to_grid(z[some, None, None].to(y) * magnification, rows, row_spacing, operator.offsets[0])
            grid = torch.stack((grid_u.expand_as(grid_v), grid_v), -1).flatten(0, 1)
            read = F.grid_sample(filtered[None, :, view], grid[None], align_corners=False)
            volume[:, some] += read[0].view(len(filtered), -1, height, width) * weight
    return volume.reshape(*y.shape[:-3], *operator.domain_shape)
