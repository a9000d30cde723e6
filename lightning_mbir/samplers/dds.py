"""Decomposed diffusion sampling: few steps, data consistency on the denoised volume."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Callback, Denoiser, SamplerState
from lightning_mbir.samplers.steps import ancestral, next_noise
from lightning_mbir.solvers import ADMMState, admm_tv


@torch.no_grad()
def dds(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Tensor,
    *,
    noise: KeyedNoise,
    rho: float = 0.1,
    lam: float = 0.001,
    pull: float = 0.0,
    cg_iterations: int = 5,
    eta: float = 0.85,
    ddim: bool = False,
    init: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Chung et al., "Decomposed diffusion sampler for accelerating large-scale inverse problems", ICLR 2024,
    algorithm 3, on the VE-SDE: Tweedie's estimate, ADMM-TV along z from there, then noise of the next level.

    Args:
        denoise: posterior mean of clean slices.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(n,)`` noise levels, high to low; as many network evaluations.
        noise: keyed noise.
        rho, lam, pull: of ADMM-TV along z, see :func:`lightning_mbir.solvers.admm_tv`. With a pull to Tweedie's
            estimate the step may be solved to its end; without, as published for noiseless measurements, few conjugate
            gradient steps are what keeps the prior's say where the measurement tells nothing.
        cg_iterations: conjugate gradient steps a level.
        eta: share of the noise that is fresh at every level, from 0 (deterministic) to 1. Renewing it at each level
            averages over levels, which favours the mean of the posterior over a sample of it.
        ddim: scale eta by ``sqrt(1 - sigma_next^2 / sigma^2)`` instead (Song et al., "Denoising diffusion implicit
            models", ICLR 2021, equation 16, on the VE-SDE): samples then follow the prior as levels grow many.
        init: volume to start from, zero by default; noise of the highest level is added.
        callback: called after each level.

    Returns:
        The volume ``(Z, Y, X)``.

    Raises:
        InputError: rho not positive, lam or pull negative.
    """
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    if init is not None:
        x += init
    x0 = x
    shared: ADMMState | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        denoised = denoise(x, sigma)
        x0, shared = admm_tv(
            None,
            operator,
            rho=rho,
            lam=lam,
            pull=pull,
            cg_iterations=cg_iterations,
            x0=denoised,
            state=shared,
            rhs=rhs,
            overwrite_state=True,
        )
        if sigma_next > 0:
            renewed = ancestral(sigma, sigma_next, eta) if ddim else eta
            fresh = noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
            x = next_noise(x, denoised, sigma, sigma_next, renewed, fresh).add_(x0)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, x0, nfe=i + 1))
    return x0
