"""Manifold constrained gradients: a gradient through the denoiser, then the projection onto the data."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Callback, DifferentiableDenoiser, SamplerState
from lightning_mbir.samplers.steps import ancestral, guidance, nearer_to_data, next_noise


@torch.no_grad()
def mcg(
    denoise: DifferentiableDenoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    zeta: float = 3.0,
    cg_iterations: int = 5,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Chung et al., "Improving diffusion models for inverse problems using manifold constraints", NeurIPS 2022,
    algorithm 1, on the VE-SDE: ancestral step, gradient step, projection onto the noisy measurement.

    The measurement gets the noise that the slices carry after their step, so that the projection is one of the clean
    estimate; conjugate gradients take its place, since ``A A^H`` is no identity for line integrals. The weight
    of the gradient (alpha of the paper) is ``zeta / ||y - A x0||``, as in ``dps``, but not scaled from a VP-SDE.

    Args:
        denoise: posterior mean of clean slices, with its ``vjp``.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low; ``2 n`` network evaluations, as a derivative counts for one.
        noise: keyed noise.
        zeta: length of the gradient step of a slice; an operator that couples slices has the root mean square.
        cg_iterations: conjugate gradient steps a level.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``.
    """
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    done, x = checkpoint.resume(x)
    x0 = x
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x)
        denoised = denoise(x, sigma)
        gradient = guidance(denoise, operator, y, x, sigma, denoised)
        x0 = nearer_to_data(denoised - zeta * gradient, operator, rhs, cg_iterations)
        fresh = noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
        x = x0 + next_noise(x, denoised, sigma, sigma_next, ancestral(sigma, sigma_next), fresh)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, x0, nfe=2 * (i + 1)))
    return x0
