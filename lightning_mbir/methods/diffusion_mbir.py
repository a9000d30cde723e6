"""DiffusionMBIR: a predictor, a corrector and one ADMM step a level."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, RATIO, Axes, Count, Limits, Positive, Searched, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior",), splits=True, memory=(9.8, 1, 0.5))
def diffusion_mbir(
    p: Problem,
    *,
    steps: Count = 2000,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.3, 40)] = 378.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.01,
    rho: Annotated[Positive, RATIO, Searched(1e-4, 10)] = 0.026,
    lam: Annotated[float, PRIOR, Searched(1e-6, 0.1)] = 1.04e-4,
    cg_iterations: Annotated[Count, Searched(1, 60)] = 1,
    admm_iterations: Count = 1,
    sharing: bool = True,
    axes: Axes = "z",
    consistency: Literal["noisy", "tweedie"] = "noisy",
    snr: Annotated[float, RATIO, Searched(0.03, 0.5)] = 0.16,
    corrector_steps: Annotated[int, Limits(0)] = 1,
    final_sirt: bool = True,
) -> Tensor:
    """DiffusionMBIR (Chung et al., CVPR 2023) as published, at two network evaluations a level.

    Args:
        p: the problem.
        steps: noise levels.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        rho: weight of the augmented term of the ADMM step, relative to an operator of unit norm.
        lam: weight of total variation, relative to the same.
        cg_iterations: conjugate gradient steps in each ADMM step.
        admm_iterations: ADMM steps a level.
        sharing: keep the split and dual variables from level to level.
        axes: of total variation: z as in the paper, or several.
        consistency: the ADMM step acts on the noisy volume, as published, or on the denoised one (tweedie).
        snr: signal-to-noise ratio that sets the Langevin step.
        corrector_steps: Langevin steps a level.
        final_sirt: one SIRT step at the end, of CT.
    """
    return samplers.diffusion_mbir(
        p.denoise,
        p.operator,
        p.y,
        samplers.geometric_sigmas(steps, sigma_max, sigma_min),
        noise=p.noise,
        rho=rho,
        lam=lam,
        cg_iterations=cg_iterations,
        admm_iterations=admm_iterations,
        sharing=sharing,
        axes=axes,
        consistency=consistency,
        snr=snr,
        corrector_steps=corrector_steps,
        final_sirt=final_sirt,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
