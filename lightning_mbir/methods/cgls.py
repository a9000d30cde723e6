"""Least squares."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.methods.method import RATIO, Count, Searched, method
from lightning_mbir.methods.problem import Problem


@method(splits=True, memory=(6.3, 1, 0))
def cgls(
    p: Problem,
    *,
    steps: Annotated[Count, Searched(3, 300)] = 20,
    lam: Annotated[float, RATIO, Searched(1e-5, 1)] = 0.0,
    tolerance: Annotated[float, RATIO] = 0.0,
) -> Tensor:
    """Least squares by conjugate gradients (Hestenes and Stiefel 1952).

    Args:
        p: the problem.
        steps: conjugate gradient steps at most.
        lam: weight of Tikhonov's term, relative to an operator of unit norm.
        tolerance: stop where the residual of the normal equations is this small against ``A^H y``.
    """
    return solvers.cgls(
        p.y,
        p.operator,
        iterations=steps,
        lam=lam,
        tolerance=tolerance,
        callback=p.iteration(steps),
        checkpoint=p.checkpoint,
    )
