"""Tables of views for ``ModularBeam``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.ct.geometry import check_finite, check_positive, degrees


def helical_trajectory(
    angles: Sequence[float] | Tensor,
    *,
    source_distance: float,
    detector_distance: float,
    detector_spacing: tuple[float, float],
    pitch: float = 0.0,
    offsets: tuple[float, float] = (0.0, 0.0),
) -> Float[Tensor, "views 12"]:
    """The views of a helix about the axis, or of a circle, as ``ModularBeam`` takes them.

    Args:
        angles: degrees as in ``ConeBeam``, over as many turns as the scan has.
        source_distance: from the source to the axis in mm.
        detector_distance: from the axis to the detector in mm.
        detector_spacing: ``(rows, columns)``, distance of bins in mm.
        pitch: mm that source and detector go along z in a turn; the middle of the scan is at 0.
        offsets: ``(rows, columns)`` in mm, as in ``ConeBeam``.

    Returns:
        ``(views, 12)`` float64.

    Raises:
        InputError: no angle, angles or lengths that are not finite, distances that are not positive.
    """
    check_kinds(helical_trajectory, locals())
    name = "helical_trajectory"
    theta = torch.deg2rad(torch.tensor(degrees(name, angles, level=3), dtype=torch.float64))
    check_positive(name, source_distance=source_distance, row_spacing=detector_spacing[0])
    check_positive(name, column_spacing=detector_spacing[1])
    check_finite(
        name, detector_distance=detector_distance, pitch=pitch, row_offset=offsets[0], column_offset=offsets[1]
    )
    zero, one = torch.zeros_like(theta), torch.ones_like(theta)
    ray = torch.stack((-theta.sin(), theta.cos(), zero), 1)
    across = torch.stack((theta.cos(), theta.sin(), zero), 1)
    up = torch.stack((zero, zero, one), 1)
    height = ((theta - (theta.min() + theta.max()) / 2) * (pitch / (2 * torch.pi)))[:, None] * up
    middle = detector_distance * ray + height - offsets[1] * across - offsets[0] * up
    return torch.cat(
        (height - source_distance * ray, middle, detector_spacing[1] * across, detector_spacing[0] * up), 1
    )
