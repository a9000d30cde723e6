"""Manifold constrained gradients."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, Count, Positive, Searched, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior", "gradients"), splits=True, memory=(13, 2, 0))
def mcg(
    p: Problem,
    *,
    steps: Count = 50,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.3, 10)] = 2.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.02,
    zeta: Annotated[float, PRIOR, Searched(0.3, 20)] = 3.0,
    cg_iterations: Annotated[Count, Searched(2, 60)] = 5,
) -> Tensor:
    """Manifold constrained gradients (Chung et al., NeurIPS 2022): a gradient through the prior, then a projection.

    Args:
        p: the problem.
        steps: noise levels, at two network evaluations each.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        zeta: length of the gradient step of a slice.
        cg_iterations: conjugate gradient steps a level.
    """
    return samplers.mcg(
        p.denoise,
        p.operator,
        p.y,
        samplers.karras_sigmas(steps, sigma_max, sigma_min),
        noise=p.noise,
        zeta=zeta,
        cg_iterations=cg_iterations,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
