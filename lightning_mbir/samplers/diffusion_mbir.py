"""DiffusionMBIR: predictor-corrector sampling with one ADMM-TV step along z after every noise level."""

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
from lightning_mbir.samplers.steps import PREDICTOR, predictor_corrector
from lightning_mbir.solvers import ADMMState, admm_tv
from lightning_mbir.solvers.sirt import sirt


@torch.no_grad()
def diffusion_mbir(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    rho: float = 0.026,
    lam: float = 1.04e-4,
    cg_iterations: int = 1,
    admm_iterations: int = 1,
    sharing: bool = True,
    axes: str = "z",
    consistency: str = "noisy",
    snr: float = 0.16,
    corrector_steps: int = 1,
    final_sirt: bool = True,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Chung et al., "Solving 3D inverse problems using pre-trained 2D diffusion models", CVPR 2023, algorithm 1.

    rho and lam are relative to an operator of unit norm; the defaults are the released setting for CT (rho 10 and
    lambda 0.04 on their operator). Three things differ from the released code: differences end at the last slice
    instead of wrapping around to the first; the Langevin step is that of each slice, not of the mean over the batch;
    and the corrector uses the noise level that the predictor has just reached.

    Args:
        denoise: posterior mean of clean slices; the score is ``(denoise(x, sigma) - x) / sigma^2``.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low.
        noise: keyed noise.
        rho, lam, cg_iterations: of the ADMM step.
        admm_iterations: ADMM steps a level. Many of them from zero, ``sharing=False``, are the slow variant
            that the paper speeds up by sharing.
        sharing: keep the split and dual variables from level to level, instead of starting each from zero.
        axes: of total variation, ``"z"`` as in the paper, or several, such as ``"zyx"``.
        consistency: ``"noisy"``, the ADMM step acts on the noisy volume, as published; or ``"tweedie"``, on the last
            denoised one, and the noise stays as it is.
        snr: signal-to-noise ratio that sets the Langevin step.
        corrector_steps: Langevin steps a level.
        final_sirt: one SIRT step at the end, where the operator is one of line integrals.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The denoised mean ``(Z, Y, X)``.

    Raises:
        InputError: another kind of consistency, unknown axes.
    """
    if consistency not in ("noisy", "tweedie"):
        raise InputError(f"diffusion_mbir: consistency is {consistency!r}; give noisy or tweedie")
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, stream=PREDICTOR, dtype=rhs.dtype, device=rhs.device)
    done, x, shared, nfe = checkpoint.resume(x, ADMMState(), 0)
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x, shared, nfe)
        x, denoised = predictor_corrector(
            denoise, x, sigma, sigma_next, noise=noise, step=i + 1, snr=snr, corrector_steps=corrector_steps
        )
        nfe += 1 + (corrector_steps if sigma_next > 0 else 0)
        # Data consistency and total variation, the split variables kept from level to level.
        before = x if consistency == "noisy" else denoised
        after, kept = admm_tv(
            None,
            operator,
            rho=rho,
            lam=lam,
            iterations=admm_iterations,
            cg_iterations=cg_iterations,
            axes=tuple(axes),
            x0=before,
            state=shared,
            rhs=rhs,
            overwrite_state=True,
        )
        shared = kept if sharing else ADMMState()
        x = after if before is x else x + (after - before)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, denoised, nfe))
    if final_sirt and not operator.range_complex:
        x = sirt(y, operator, iterations=1, x0=x)
    return x
