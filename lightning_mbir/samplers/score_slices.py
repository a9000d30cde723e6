"""Slice by slice: predictor-corrector sampling with data consistency, nothing that couples slices."""

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
from lightning_mbir.samplers.steps import PREDICTOR, nearer_to_data, predictor_corrector


@torch.no_grad()
def score_slices(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    relaxation: float = 1.0,
    cg_iterations: int = 5,
    snr: float = 0.3,
    corrector_steps: int = 1,
    consistency: str = "tweedie",
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Score-based reconstruction of each slice on its own, the baseline that DiffusionMBIR is compared with.

    ``consistency="noisy"`` is Chung and Ye, "Score-based diffusion models for accelerated MRI", Medical Image Analysis
    80, 2022: the noisy slices are fitted to the measurement as it is. ``"tweedie"`` is Song et al.,
    "Solving inverse problems in medical imaging with score-based generative models", ICLR 2022, algorithm 2: they are
    fitted to the measurement with as much noise as they have, here their own. Both papers take one projection, after
    each step; here conjugate gradients take its place, which for k-space are the same and for few views go further,
    and follow once a level.

    Args:
        denoise: posterior mean of clean slices.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low; ``n + (n - 1) corrector_steps`` network evaluations.
        noise: keyed noise.
        relaxation: share of the way to the data that is gone, from 0 to 1 (lambda of both papers).
        cg_iterations: conjugate gradient steps a level.
        snr: signal-to-noise ratio that sets the Langevin step.
        corrector_steps: Langevin steps a level.
        consistency: ``"noisy"`` or ``"tweedie"``.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``.

    Raises:
        InputError: another kind of consistency, a relaxation above 1.
    """
    if consistency not in ("noisy", "tweedie"):
        raise InputError(f"score_slices: consistency is {consistency!r}; give noisy or tweedie")
    if not 0 <= relaxation <= 1:
        raise InputError(f"score_slices: relaxation is {relaxation:g}; give 0 to 1")
    rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, stream=PREDICTOR, dtype=rhs.dtype, device=rhs.device)
    done, x, nfe = checkpoint.resume(x, 0)
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x, nfe)
        x, denoised = predictor_corrector(
            denoise, x, sigma, sigma_next, noise=noise, step=i + 1, snr=snr, corrector_steps=corrector_steps
        )
        nfe += 1 + (corrector_steps if sigma_next > 0 else 0)
        fitted = x if consistency == "noisy" else denoised
        x = x + relaxation * (nearer_to_data(fitted, operator, rhs, cg_iterations) - fitted)
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, denoised, nfe))
    return x
