"""Diffusion posterior sampling."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, Count, Positive, Searched, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior", "gradients"), splits=True, memory=(9, 2.5, 0))
def dps(
    p: Problem,
    *,
    steps: Count = 100,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.3, 10)] = 2.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.02,
    zeta: Annotated[float, PRIOR, Searched(0.3, 20)] = 3.0,
) -> Tensor:
    """Diffusion posterior sampling (Chung et al., ICLR 2023): the gradient of the data term through the prior.

    Args:
        p: the problem.
        steps: noise levels, at two network evaluations each.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        zeta: length of the step of a slice.
    """
    sigmas = samplers.karras_sigmas(steps, sigma_max, sigma_min)
    return samplers.dps(
        p.denoise,
        p.operator,
        p.y,
        sigmas,
        noise=p.noise,
        zeta=zeta,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
