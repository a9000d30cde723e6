"""Preconditioned Langevin dynamics: samples of the posterior with the likelihood as it is."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import Count, Positive, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior",))
def pula(
    p: Problem,
    *,
    steps: Count = 100,
    sigma_max: float = 10.0,
    sigma_min: float = 0.01,
    sigma_y: Positive = 0.005,
    gamma: Positive = 1.0,
    cg_iterations: Count = 10,
) -> Tensor:
    """Preconditioned Langevin dynamics (Blumenthal et al., arXiv 2512.05791): samples of the posterior.

    Args:
        p: the problem.
        steps: noise levels, as many network evaluations.
        sigma_max, sigma_min: highest and lowest noise level, in the prior's unit.
        sigma_y: what the measurement may be wrong by beside its known noise, relative to an operator of unit norm.
        gamma: length of a step, up to 1.
        cg_iterations: conjugate gradient steps a level.
    """
    return samplers.pula(
        p.denoise,
        p.operator,
        p.y,
        samplers.geometric_sigmas(steps, sigma_max, sigma_min),
        noise=p.noise,
        sigma_y=math.hypot(sigma_y, p.noise_std),
        gamma=gamma,
        cg_iterations=cg_iterations,
        callback=p.report,
    )
