"""Diffusion posterior sampling: the gradient of the data term through the denoiser."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Callback, DifferentiableDenoiser, SamplerState
from lightning_mbir.samplers.steps import ancestral, guidance, next_noise


@torch.no_grad()
def dps(
    denoise: DifferentiableDenoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    zeta: float = 3.0,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Chung et al., "Diffusion posterior sampling for general noisy inverse problems", ICLR 2023, algorithm 1.

    The paper's ``zeta_i = zeta / ||y - A x0||`` makes the step ``zeta`` times the gradient of the norm, up to its
    factor 2. It is written for the VP-SDE, whose image at a level ``sigma`` is ``x / sqrt(1 + sigma^2)``; on the VE-SDE
    the same step is ``sqrt((1 + sigma^2) (1 + sigma_next^2))`` times as long.

    Args:
        denoise: posterior mean of clean slices, with its ``vjp``.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low; ``2 n`` network evaluations, as a derivative counts for one.
        noise: keyed noise.
        zeta: length of the step of a slice; an operator that couples slices has the root mean square over them.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``.
    """
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    done, x = checkpoint.resume(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x)
        denoised = denoise(x, sigma)
        gradient = guidance(denoise, operator, y, x, sigma, denoised)
        fresh = noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
        x = denoised + next_noise(x, denoised, sigma, sigma_next, ancestral(sigma, sigma_next), fresh)
        x = x.sub_(gradient, alpha=zeta * ((1 + sigma**2) * (1 + sigma_next**2)) ** 0.5)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, denoised, nfe=2 * (i + 1)))
    return x
