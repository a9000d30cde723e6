"""DiffusionMBIR: predictor-corrector sampling with one ADMM-TV step along z after every noise level."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Callback, Denoiser, SamplerState
from lightning_mbir.solvers import ADMMState, admm_tv
from lightning_mbir.solvers.sirt import sirt

PREDICTOR, CORRECTOR = 0, 1  # streams of noise


@torch.no_grad()
def diffusion_mbir(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Tensor,
    *,
    noise: KeyedNoise,
    rho: float = 0.026,
    lam: float = 1.04e-4,
    cg_iterations: int = 1,
    snr: float = 0.16,
    corrector_steps: int = 1,
    final_sirt: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Chung et al., "Solving 3D inverse problems using pre-trained 2D diffusion models", CVPR 2023, algorithm 1.

    rho and lam are relative to an operator of unit norm; the defaults are the released setting for CT (rho 10 and
    lambda 0.04 on their operator). Three things differ from the released code: differences end at the last slice
    instead of wrapping around to the first; the Langevin step is that of each slice, not of the mean over the batch;
    and the corrector uses the noise level that the predictor has just reached.

    Args:
        denoise: posterior mean of clean slices; the score is ``(denoise(x, sigma) - x) / sigma^2``.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(n,)`` noise levels, high to low.
        noise: keyed noise.
        rho, lam, cg_iterations: of the ADMM step.
        snr: signal-to-noise ratio that sets the Langevin step.
        corrector_steps: Langevin steps a level.
        final_sirt: one SIRT step at the end, where the operator is one of line integrals.
        callback: called after each level.

    Returns:
        The denoised mean ``(Z, Y, X)``.
    """
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, stream=PREDICTOR, dtype=rhs.dtype, device=rhs.device)
    shared: ADMMState | None = None
    nfe = 0
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        # Predictor: reverse diffusion. At sigma_next = 0 its mean is the denoised image, and there is no noise.
        mean = denoised = denoise(x, sigma)
        nfe += 1
        if sigma_next > 0:
            removed = sigma**2 - sigma_next**2
            mean = (denoised - x).mul_(removed / sigma**2).add_(x)
            mean += removed**0.5 * noise(i + 1, x.shape, stream=PREDICTOR, dtype=x.dtype, device=x.device)
        x = mean
        # Corrector: annealed Langevin with a step of each slice's own.
        for k in range(corrector_steps if sigma_next > 0 else 0):
            denoised = denoise(x, sigma_next)
            nfe += 1
            score = (denoised - x).div_(sigma_next**2)
            z = noise(i + 1, x.shape, stream=CORRECTOR + k, dtype=x.dtype, device=x.device)
            step = 2 * (snr * _slice_norm(z) / _slice_norm(score).clamp_min(1e-12)) ** 2
            # x = x + step score + sqrt(2 step) z, in the volume of the score.
            x = score.mul_(step).add_(x).add_((2 * step).sqrt() * z)
        # Data consistency and total variation along z, the split variables kept from level to level.
        x, shared = admm_tv(
            None,
            operator,
            rho=rho,
            lam=lam,
            cg_iterations=cg_iterations,
            x0=x,
            state=shared,
            rhs=rhs,
            overwrite_state=True,
        )
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, denoised, nfe))
    if final_sirt and not operator.range_complex:
        x = sirt(y, operator, iterations=1, x0=x)
    return x


def _slice_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each slice, ``(Z, 1, 1)``."""
    if x.is_complex():  # as pairs of reals: torch takes a hundred times longer for complex numbers
        return torch.linalg.vector_norm(torch.view_as_real(x), dim=(-3, -2, -1), keepdim=True)[..., 0]
    return torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
