"""Two perpendicular priors that take turns: axial slices at some noise levels, coronal slices at the others."""

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
from lightning_mbir.samplers.steps import ancestral, next_noise
from lightning_mbir.solvers import ADMMState, admm_tv


@torch.no_grad()
def tpdm(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    second: Denoiser,
    noise: KeyedNoise,
    period: int = 2,
    eta: float = 0.85,
    ddim: bool = False,
    rho: float = 0.1,
    lam: float = 0.0,
    cg_iterations: int = 15,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Lee et al., "Improving 3D imaging with pre-trained perpendicular 2D diffusion models", ICCV 2023, algorithm 1:
    the prior of the volume is a product of one of its axial and one of its coronal slices, whose scores take turns.

    Data consistency is not the paper's, the gradient of DPS, which would take two evaluations more a level and more
    levels: it is that of :func:`lightning_mbir.samplers.dds`, conjugate gradients on the denoised volume.

    Args:
        denoise: posterior mean of clean axial slices ``(Z, Y, X)``.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low; as many network evaluations, of either prior.
        second: posterior mean of clean coronal slices ``(Y, Z, X)``, in the same unit.
        noise: keyed noise.
        period: one level of so many is of the second prior (K of the paper); the last one never is.
        eta, ddim: fresh noise, as in ``dds``.
        rho, lam: of ADMM-TV along z beside the priors; none with ``lam=0``, as in the paper.
        cg_iterations: conjugate gradient steps a level.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``.

    Raises:
        InputError: a period below 2.
    """
    if period < 2:
        raise InputError(f"tpdm: period is {period}; give at least 2, for the second prior at every other level")
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    done, x, shared = checkpoint.resume(x, ADMMState())
    x0 = x
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x, shared)
        left = len(sigmas) - 1 - i
        if left % period == period - 1:
            denoised = second(x.transpose(0, 1).contiguous(), sigma).transpose(0, 1).contiguous()
        else:
            denoised = denoise(x, sigma)
        x0, shared = admm_tv(
            None,
            operator,
            rho=rho,
            lam=lam,
            cg_iterations=cg_iterations,
            x0=denoised,
            state=shared,
            rhs=rhs,
            overwrite_state=True,
        )
        renewed = ancestral(sigma, sigma_next, eta) if ddim else eta
        fresh = noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
        x = x0 + next_noise(x, denoised, sigma, sigma_next, renewed, fresh)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, x0, nfe=i + 1))
    return x0
