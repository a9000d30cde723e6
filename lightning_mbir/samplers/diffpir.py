"""DiffPIR: half-quadratic splitting with a denoiser, one proximal step of the data a level."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Callback, Denoiser, SamplerState
from lightning_mbir.samplers.steps import nearer_to_data, next_noise
from lightning_mbir.solvers import ADMMState, admm_tv


@torch.no_grad()
def diffpir(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    lam: float = 7.0,
    sigma_n: float = 0.001,
    zeta: float = 1.0,
    cg_iterations: int = 10,
    tv: float = 0.0,
    tv_rho: float = 0.01,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Zhu et al., "Denoising diffusion models for plug-and-play image restoration", CVPR Workshops 2023, algorithm 1.

    On the VE-SDE: ``x0 = argmin ||A x - y||^2 + rho_t ||x - denoised||^2`` with ``rho_t = lam sigma_n^2 / sigma^2``,
    by conjugate gradients from the denoised volume; then noise of the next level, of which ``(x - x0) / sigma`` makes
    ``sqrt(1 - zeta)`` and fresh noise ``sqrt(zeta)``.

    Args:
        denoise: posterior mean of clean slices.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low; as many network evaluations.
        noise: keyed noise.
        lam: trust in the prior; only ``lam sigma_n^2`` counts, at 0 the data term is all.
        sigma_n: noise of the measurement, in the unit of ``y``.
        zeta: share of the variance of the noise that is renewed, 0 (deterministic) to 1. Renewing it at each level
            averages over levels, which favours the mean of the posterior over a sample of it.
        cg_iterations: conjugate gradient steps a level.
        tv, tv_rho: weight of total variation along z in the proximal step, which the paper has not, and of its
            augmented term (see :func:`lightning_mbir.solvers.admm_tv`; one ADMM step a level, variables kept).
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``.

    Raises:
        InputError: zeta above 1.
    """
    if not 0 <= zeta <= 1:
        raise InputError(f"diffpir: zeta is {zeta:g}, the share of fresh noise; give 0 to 1")
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    done, x, shared = checkpoint.resume(x, ADMMState())
    x0 = x
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x, shared)
        denoised = denoise(x, sigma)
        pull = lam * sigma_n**2 / sigma**2
        if tv == 0:
            x0 = nearer_to_data(denoised, operator, rhs, cg_iterations, pull)
        else:
            x0, shared = admm_tv(
                None,
                operator,
                rho=tv_rho,
                lam=tv,
                pull=pull,
                cg_iterations=cg_iterations,
                x0=denoised,
                state=shared,
                rhs=rhs,
                overwrite_state=True,
            )
        fresh = noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
        x = x0 + next_noise(x, x0, sigma, sigma_next, zeta**0.5, fresh)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, x0, nfe=i + 1))
    return x0
