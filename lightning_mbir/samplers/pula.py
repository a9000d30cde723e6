"""Preconditioned unadjusted Langevin: the posterior at every noise level, with the likelihood as it is."""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Callback, Denoiser, SamplerState
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient


@torch.no_grad()
def pula(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    sigma_y: float,
    gamma: float = 1.0,
    cg_iterations: int = 10,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Blumenthal et al., arXiv 2512.05791, on the VE-SDE: one step of Langevin dynamics a level, preconditioned by what
    the measurement and the level know of each direction.

    With ``P = A^H A / s^2 + I / sigma^2`` a level takes ``x`` to the solution of ``P x' = P x + gamma g + n``, where
    ``g = A^H (y - A x) / s^2 + (denoise(x, sigma) - x) / sigma^2`` is the score of the posterior and ``n`` has the
    covariance of ``P``: noise of the measurement brought back by ``A^H``, and noise of the level.

    The published step has ``2 gamma`` times that covariance, which inflates the variance of a direction of which ``P``
    is the curvature by ``2 / (2 - gamma)``. Those are the measured ones; their noise has ``gamma (2 - gamma)`` here,
    which is exact for them. Of the others ``P`` is far above the curvature once the level is low, and ``2 gamma`` is.

    Args:
        denoise: posterior mean of clean slices.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``.
        sigmas: ``(levels,)`` noise levels, high to low; as many network evaluations. The last is what the prior is
            smoothed by, and the noise that is left where the measurement says nothing.
        noise: keyed noise.
        sigma_y: ``s``, standard deviation of the noise of the measurement in its own unit; for complex volumes of both
            parts together, as the levels. Of a measurement without noise a small number, since a step has its length.
        gamma: length of the step, above 0 to 1. The paper has 0.5; with the noise as it is here 1 follows the levels
            best.
        cg_iterations: conjugate gradient steps a level. They have to solve the step: of k-space ten do, of few views
            with a small ``sigma_y`` they do not, and what is left unsolved is noise of the levels before.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``, a sample of the posterior.

    Raises:
        InputError: ``sigma_y`` not positive, a step that cannot be.
    """
    if not sigma_y > 0:
        raise InputError(f"pula: sigma_y is {sigma_y:g}; give a positive number, a small one without noise")
    if not 0 < gamma <= 1:
        raise InputError(f"pula: gamma is {gamma:g}; give a number above 0, up to 1")
    rhs = operator.adjoint(y)
    levels = sigmas.tolist()
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    # of a complex measurement of a real volume both parts have the deviation sigma_y
    parts = math.sqrt(2) if y.is_complex() and not rhs.is_complex() else 1.0
    measured, free = parts * math.sqrt(gamma * (2 - gamma)) * sigma_y, math.sqrt(2 * gamma) * sigma_y**2

    def weighed(v: Tensor, trust: float) -> Tensor:
        """``P v`` times ``s^2``."""
        return operator.normal(v) + trust * v

    done, x = checkpoint.resume(x)
    for i, sigma in enumerate(levels[done:], done):
        checkpoint.reached(i, x)
        denoised, trust = denoise(x, sigma), (sigma_y / sigma) ** 2
        b = gamma * (rhs - operator.normal(x) + trust * (denoised - x))
        b += measured * operator.adjoint(noise(i + 1, y.shape, stream=1, dtype=y.dtype, device=y.device))
        b += free / sigma * noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
        x = x + conjugate_gradient(partial(weighed, trust=trust), b, max_iterations=cg_iterations)
        if callback is not None:
            callback(SamplerState(i + 1, len(levels), sigma, x, nfe=i + 1))
    return x
