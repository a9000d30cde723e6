"""DiffPIR: half-quadratic splitting with a diffusion prior."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, RATIO, Count, Positive, Searched, Share, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior",), splits=True, memory=(12, 1, 0))
def diffpir(
    p: Problem,
    *,
    steps: Count = 50,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.15, 8)] = 2.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.02,
    lam: Annotated[float, RATIO, Searched(0.3, 100)] = 7.0,
    sigma_n: Annotated[float, PRIOR, Searched(1e-4, 0.1)] = 0.001,
    zeta: Annotated[Share, Searched(0, 1, linear=True)] = 1.0,
    cg_iterations: Annotated[Count, Searched(2, 60)] = 10,
    tv: Annotated[float, PRIOR] = 0.0,
    tv_rho: Annotated[Positive, RATIO] = 0.01,
) -> Tensor:
    """DiffPIR (Zhu et al., CVPR Workshops 2023): one proximal step of the data a level.

    Args:
        p: the problem.
        steps: noise levels, as many network evaluations.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        lam: trust in the prior; only ``lam sigma_n^2`` counts, at 0 the data term is all.
        sigma_n: noise of the measurement, relative to an operator of unit norm.
        zeta: share of the variance of the noise that is renewed.
        cg_iterations: conjugate gradient steps a level.
        tv: weight of total variation along z, which the paper has not.
        tv_rho: weight of the augmented term of total variation.
    """
    return samplers.diffpir(
        p.denoise,
        p.operator,
        p.y,
        samplers.karras_sigmas(steps, sigma_max, sigma_min),
        noise=p.noise,
        lam=lam,
        sigma_n=sigma_n,
        zeta=zeta,
        cg_iterations=cg_iterations,
        tv=tv,
        tv_rho=tv_rho,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
