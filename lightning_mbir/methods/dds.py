"""Decomposed diffusion sampling: few levels, data consistency on the denoised volume."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

from torch import Tensor

from lightning_mbir import samplers
from lightning_mbir.checkpointing import UNKEPT
from lightning_mbir.methods.admm_tv import admm_tv
from lightning_mbir.methods.fbp import fbp, unfiltered
from lightning_mbir.methods.method import PRIOR, RATIO, Count, Positive, Searched, Share, method
from lightning_mbir.methods.problem import Problem
from lightning_mbir.methods.sirt import sirt
from lightning_mbir.methods.zero_filled import zero_filled
from lightning_mbir.solvers import circulant


@method(needs=("prior",), splits=True, memory=(9, 0, 3))
def dds(
    p: Problem,
    *,
    steps: Count = 50,
    sigma_max: Annotated[Positive, PRIOR, Searched(0.15, 8)] = 5.0,
    sigma_min: Annotated[Positive, PRIOR] = 0.02,
    rho: Annotated[Positive, RATIO, Searched(1e-5, 10)] = 0.1,
    lam: Annotated[float, PRIOR, Searched(1e-6, 0.1)] = 0.001,
    sigma_y: Annotated[float, PRIOR, Searched(0.001, 0.1)] = 0.0,
    noise_share: Share = 0.5,
    cg_iterations: Annotated[Count, Searched(2, 60)] = 15,
    eta: Annotated[Share, Searched(0, 1, linear=True)] = 0.85,
    ddim: bool = False,
    momentum: Share = 0.0,
    noise_scale: Share = 1.0,
    preconditioner: Share = 0.0,
    warm_start: Share = 0.0,
    mirror: bool = False,
    schedule: Literal["karras", "geometric"] = "karras",
    start: Literal["noise", "direct", "admm_tv"] = "noise",
    correlation: Share = 0.0,
) -> Tensor:
    """Decomposed diffusion sampling (Chung et al., ICLR 2024) with total variation along z.

    Args:
        p: the problem.
        steps: noise levels, as many network evaluations.
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        rho: weight of the augmented term of ADMM-TV along z, relative to an operator of unit norm.
        lam: weight of total variation along z, relative to the same.
        sigma_y: standard deviation of what the measurement may be wrong by; 0: few conjugate gradient steps decide.
        noise_share: of the known noise of the measurement that comes on top of a ``sigma_y`` above 0, in quadrature:
            half where all noise is fresh at every level, which averages it, all of it where little is (docs/mri.md).
        cg_iterations: conjugate gradient steps a level.
        eta: share of the noise that is fresh at every level.
        ddim: scale eta as in DDIM, so that many levels give samples of the prior.
        momentum: how far the result of a level goes on from that of the last, in place of further levels.
        noise_scale: of the noise that is added after the first level, over what the denoiser is told.
        preconditioner: power of the circulant one of conjugate gradients; 0 for none.
        warm_start: share of what the last level has changed of the denoised volume, with which conjugate gradients
            start.
        mirror: show the prior every second level left for right, as its training showed slices, so that its errors
            differ from level to level; not a prior of sagittal slices, which has front and back there.
        schedule: of the noise levels.
        start: volume that noise of the highest level is added to: none, the direct inversion (of a modular beam, which
            has none, 50 steps of SIRT), or that of ADMM-TV.
        correlation: of the noise of neighbouring slices.
    """
    if sigma_y > 0:
        sigma_y = math.hypot(sigma_y, noise_share * p.noise_std)
    levels = samplers.karras_sigmas if schedule == "karras" else samplers.geometric_sigmas
    return samplers.dds(
        p.denoise,
        p.operator,
        None,
        levels(steps, sigma_max, sigma_min),
        noise=replace(p.noise, correlation=correlation),
        rho=rho,
        lam=lam,
        sigma_y=sigma_y,
        cg_iterations=cg_iterations,
        eta=eta,
        ddim=ddim,
        momentum=momentum,
        noise_scale=noise_scale,
        precondition=circulant(p.operator, preconditioner) if preconditioner else None,
        warm_start=warm_start,
        mirror=mirror and getattr(p.denoise, "mirrors", True),
        rhs=p.rhs,
        init=None if p.checkpoint.found else _start(p, start),
        callback=p.report,
        checkpoint=p.checkpoint,
    )


def _start(p: Problem, name: str) -> Tensor | None:
    quiet = replace(p, report=lambda state: None, checkpoint=UNKEPT)
    if name == "admm_tv":
        return admm_tv(quiet, steps=50)
    if name == "direct" and unfiltered(p.physical):
        return sirt(quiet, steps=50)
    if name == "direct":
        return zero_filled(quiet) if p.physical.range_complex else fbp(quiet)
    return None
