"""How densely a trajectory samples k-space: weights with which its adjoint comes close to the image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.mri.non_cartesian import NonCartesianFourier


@torch.no_grad()
def density_compensation(operator: NonCartesianFourier, iterations: int = 30) -> Float[Tensor, "*samples"]:
    """Weights ``w`` of the samples of a trajectory: ``A^H (w y)`` has the scale of the image, and no blur of density.

    Pipe and Menon, "Sampling density compensation in MRI: rationale and an iterative numerical solution", MRM 41, 1999:
    ``w <- w / (C w)`` until ``C w`` is 1 at each sample, where ``C`` convolves along the trajectory. The kernel is the
    transform of a triangle as wide as the field of view to either side, which is that of Fejer: it is nowhere negative,
    is 1 at 0 and 0 at all other points of the grid. So weights on a grid are 1, and a point in the middle of the image
    comes out as 1.

    Args:
        operator: of the trajectory; its coil maps do not count.
        iterations: of the fixed point.

    Returns:
        As many as there are samples, ``operator.trajectory.shape[:-1]``, positive.

    Raises:
        InputError: no iteration.
    """
    check_kinds(density_compensation, locals())
    if iterations < 1:
        raise InputError(f"density_compensation: {iterations} iterations; give at least 1")
    rows, columns = operator.domain_shape[-2:]
    wide = NonCartesianFourier(operator.trajectory, (2 * rows, 2 * columns), backend=operator.backend)  # type: ignore[arg-type]
    wide = wide.to(operator.device, operator.real_dtype)
    y, x = (1 - ((torch.arange(2 * n, device=wide.device) - n) / n).abs() for n in (rows, columns))
    triangle = 4 * (y[:, None] * x).to(wide.real_dtype)  # the wide operator divides by four times the pixels
    w = torch.ones(wide.range_shape, device=wide.device, dtype=wide.real_dtype)
    for _ in range(iterations):
        w = w / wide(triangle * wide.adjoint(w.to(wide.range_dtype))).real.clamp_min(1e-6)
    return w
