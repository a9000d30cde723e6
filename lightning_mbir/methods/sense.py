"""Parallel imaging."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir.methods.cgls import cgls
from lightning_mbir.methods.method import RATIO, Count, Searched, method
from lightning_mbir.methods.problem import Problem


@method(modalities=("mri",), needs=("coil_maps",), splits=True, memory=(6.3, 1, 0))
def sense(
    p: Problem,
    *,
    steps: Count = 50,
    lam: Annotated[float, RATIO, Searched(1e-5, 1)] = 1e-3,
    tolerance: Annotated[float, RATIO] = 1e-5,
) -> Tensor:
    """CG-SENSE (Pruessmann et al., MRM 46, 2001): regularised least squares with coil maps.

    Args:
        p: the problem.
        steps: conjugate gradient steps at most.
        lam: weight of Tikhonov's term, relative to an operator of unit norm.
        tolerance: stop where the residual of the normal equations is this small against ``A^H y``.
    """
    volume: Tensor = cgls(p, steps=steps, lam=lam, tolerance=tolerance)
    return volume
