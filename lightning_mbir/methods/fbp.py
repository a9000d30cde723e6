"""The direct inversion of CT."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.errors import InputError
from lightning_mbir.methods.method import method
from lightning_mbir.methods.problem import Problem
from lightning_mbir.physics import ConeBeam, LinearOperator, MatrixOperator, ModularBeam


def unfiltered(operator: LinearOperator) -> bool:
    """Whether there is no filtered back-projection of what it measures."""
    return isinstance(operator, ModularBeam | MatrixOperator)


@method(modalities=("ct",), weighted=False, splits=True, memory=(1.8, 5.6, 0))
def fbp(p: Problem, *, filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = "ramp") -> Tensor:
    """Filtered back-projection, of cone beams that of Feldkamp, Davis and Kress (1984).

    There is none of modular beams, nor of a matrix.

    Args:
        p: the problem.
        filter: window of the ramp filter.
    """
    if isinstance(p.physical, ModularBeam):
        raise InputError(
            "fbp has no filter for views that stand anywhere (ModularBeam); take sirt, cgls, admm_tv or dds, or a "
            "ConeBeam where the source goes around in a circle"
        )
    if isinstance(p.physical, MatrixOperator):
        raise InputError(
            "fbp has no filter for a geometry that only a matrix tells (MatrixOperator); take sirt, cgls, admm_tv or "
            "dds"
        )
    if isinstance(p.physical, ConeBeam):
        return solvers.fdk(p.measured, p.physical, filter)
    return p.inverse(lambda y, operator: solvers.fbp(y, operator, filter))  # type: ignore[arg-type]  # which checks it
