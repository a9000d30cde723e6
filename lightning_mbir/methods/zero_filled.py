"""The direct inversion of MRI: on a grid, and along trajectories with weights for their density."""

from __future__ import annotations

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.methods.method import method
from lightning_mbir.methods.problem import Problem
from lightning_mbir.physics import NonCartesianFourier, RealDomain, density_compensation


@method(modalities=("mri",), weighted=False, splits=True, memory=(3.6, 0, 0))
def zero_filled(p: Problem) -> Tensor:
    """The inverse Fourier transform of k-space with zeros where nothing was measured: A^H y.

    Along a trajectory samples are weighted by how few lie near them (Pipe and Menon, see ``density_compensation``).
    """
    inner = p.physical.operator if isinstance(p.physical, RealDomain) else p.physical
    if isinstance(inner, NonCartesianFourier):
        weights = density_compensation(inner)
        return p.inverse(lambda y, operator: solvers.zero_filled(y * weights.to(y.device), operator))
    return p.rhs
