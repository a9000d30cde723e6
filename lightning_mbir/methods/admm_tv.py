"""Total variation, the best that needs no learning."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.methods.method import PRIOR, RATIO, Axes, Count, Positive, Searched, method
from lightning_mbir.methods.problem import Problem


@method(splits=True, memory=(9.2, 0, 3))
def admm_tv(
    p: Problem,
    *,
    steps: Count = 150,
    rho: Annotated[Positive, RATIO, Searched(1e-5, 1)] = 0.01,
    lam: Annotated[float, PRIOR, Searched(1e-6, 0.03)] = 3e-4,
    cg_iterations: Count = 8,
    axes: Axes = "zyx",
    isotropic: Annotated[bool, Searched()] = False,
) -> Tensor:
    """Total variation without a prior, by ADMM (Boyd et al. 2011).

    Args:
        p: the problem.
        steps: outer iterations.
        rho: weight of the augmented term, relative to an operator of unit norm.
        lam: weight of total variation; the soft threshold is ``lam / rho``.
        cg_iterations: conjugate gradient steps in each iteration.
        axes: of the differences.
        isotropic: shrink the vector of differences of a voxel, instead of each difference on its own.
    """
    return solvers.admm_tv(
        None,
        p.operator,
        rhs=p.rhs,
        rho=rho,
        lam=lam,
        iterations=steps,
        cg_iterations=cg_iterations,
        axes=tuple(axes),
        isotropic=isotropic,
        callback=p.iteration(steps),
        checkpoint=p.checkpoint,
    )[0]
