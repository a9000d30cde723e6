"""Slices by themselves, each reconstructed by a diffusion prior."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.methods.method import PRIOR, RATIO, Count, Limits, Positive, Searched, Share, method
from lightning_mbir.methods.problem import Problem


@method(needs=("prior",), splits=True, memory=(9, 1, 0))
def score_slices(
    p: Problem,
    *,
    steps: Count = 50,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.15, 8)] = 2.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.02,
    relaxation: Share = 1.0,
    cg_iterations: Annotated[Count, Searched(2, 60)] = 5,
    snr: Annotated[float, RATIO, Searched(0.05, 0.5)] = 0.3,
    corrector_steps: Annotated[int, Limits(0)] = 1,
    consistency: Literal["noisy", "tweedie"] = "tweedie",
) -> Tensor:
    """Score-based reconstruction of each slice by itself (Song et al., ICLR 2022; Chung and Ye, MedIA 2022).

    Args:
        p: the problem.
        steps: noise levels, at two network evaluations each.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        relaxation: share of the way to the data that is gone.
        cg_iterations: conjugate gradient steps a level.
        snr: signal-to-noise ratio that sets the Langevin step.
        corrector_steps: Langevin steps a level.
        consistency: the data step acts on the noisy volume, or on the denoised one (tweedie).
    """
    return samplers.score_slices(
        p.denoise,
        p.operator,
        p.y,
        samplers.geometric_sigmas(steps, sigma_max, sigma_min),
        noise=p.noise,
        relaxation=relaxation,
        cg_iterations=cg_iterations,
        snr=snr,
        corrector_steps=corrector_steps,
        consistency=consistency,
        callback=p.report,
        checkpoint=p.checkpoint,
    )
