"""Preconditioned Langevin dynamics: samples of the posterior, with the likelihood as it is."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, RATIO, Count, Limits, Positive, Searched, Share, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior",), splits=True, memory=(10.6, 1, 0))
def pula(
    p: Problem,
    *,
    steps: Count = 100,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.15, 8)] = 5.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.01,
    sigma_y: Annotated[Positive, PRIOR, Searched(0.001, 0.1)] = 0.01,
    noise_share: Share = 1.0,
    gamma: Annotated[float, Limits(0, 1, positive=True), RATIO] = 1.0,
    cg_iterations: Annotated[Count, Searched(2, 60)] = 10,
    schedule: Literal["karras", "geometric"] = "geometric",
) -> Tensor:
    """Preconditioned unadjusted Langevin dynamics (Blumenthal et al., arXiv 2512.05791): samples of the posterior.

    Args:
        p: the problem.
        steps: noise levels, as many network evaluations.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        sigma_y: standard deviation of what the measurement may be wrong by beside its noise, with an operator of unit
            norm and the prior's unit. It cannot be 0, since a step has its length: without noise it is what keeps
            conjugate gradients short. Counting noise, which differs from ray to ray, has to be in it too; the default
            holds that of 1e5 photons at 8 views.
        noise_share: of the known noise of k-space that comes on top of ``sigma_y``, in quadrature.
        gamma: length of a step.
        cg_iterations: conjugate gradient steps a level.
        schedule: of the noise levels.
    """
    levels = samplers.karras_sigmas if schedule == "karras" else samplers.geometric_sigmas
    return samplers.pula(
        p.denoise,
        p.operator,
        p.y,
        levels(steps, sigma_max, sigma_min),
        noise=p.noise,
        sigma_y=math.hypot(sigma_y, noise_share * p.noise_std),
        gamma=gamma,
        cg_iterations=cg_iterations,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
