"""An axial and a coronal prior that take turns."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, RATIO, Count, Limits, Positive, Searched, Share, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior", "second_prior"), splits=True, memory=(11, 1, 0))
def tpdm(
    p: Problem,
    *,
    steps: Count = 50,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.15, 8)] = 2.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.02,
    period: Annotated[int, Limits(2)] = 2,
    eta: Annotated[Share, Searched(0, 1, linear=True)] = 0.85,
    ddim: bool = False,
    rho: Annotated[Positive, RATIO, Searched(1e-5, 10)] = 0.1,
    lam: Annotated[float, PRIOR, Searched(1e-6, 0.1)] = 0.0,
    cg_iterations: Annotated[Count, Searched(2, 60)] = 15,
) -> Tensor:
    """TPDM (Lee et al., ICCV 2023): an axial and a coronal prior take turns, with the data step of dds.

    Args:
        p: the problem.
        steps: noise levels, as many network evaluations.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        period: one level of so many is of the coronal prior.
        eta: share of the noise that is fresh at every level.
        ddim: scale eta as in DDIM.
        rho: weight of the augmented term of ADMM-TV along z beside the priors.
        lam: weight of total variation along z; 0 for none.
        cg_iterations: conjugate gradient steps a level.
    """
    return samplers.tpdm(
        p.denoise,
        p.operator,
        p.y,
        samplers.karras_sigmas(steps, sigma_max, sigma_min),
        second=p.second,
        noise=p.noise,
        period=period,
        eta=eta,
        ddim=ddim,
        rho=rho,
        lam=lam,
        cg_iterations=cg_iterations,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
