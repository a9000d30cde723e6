"""Decomposed diffusion sampling: few steps, data consistency on the denoised volume."""

from __future__ import annotations

from collections.abc import Callable
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
def dds(
    denoise: Denoiser,
    operator: LinearOperator,
    y: Tensor | None,
    sigmas: Float[Tensor, " levels"],
    *,
    noise: KeyedNoise,
    rho: float = 0.1,
    lam: float = 0.001,
    sigma_y: float = 0.0,
    cg_iterations: int = 5,
    eta: float = 0.85,
    ddim: bool = False,
    momentum: float = 0.0,
    noise_scale: float = 1.0,
    precondition: Callable[[Tensor], Tensor] | None = None,
    warm_start: float = 0.0,
    mirror: bool = False,
    rhs: Num[Tensor, "z y x"] | None = None,
    init: Num[Tensor, "z y x"] | None = None,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "z y x"]:
    """Chung et al., "Decomposed diffusion sampler for accelerating large-scale inverse problems", ICLR 2024,
    algorithm 3, on the VE-SDE: Tweedie's estimate, ADMM-TV along z from there, then noise of the next level.

    Args:
        denoise: posterior mean of clean slices.
        operator: ``A`` of unit norm, on volumes in the prior's unit.
        y: measurement, scaled likewise, ``(Z, ...)``; not needed where ``rhs`` is given.
        sigmas: ``(levels,)`` noise levels, high to low; as many network evaluations.
        noise: keyed noise.
        rho, lam: of ADMM-TV along z, see :func:`lightning_mbir.solvers.admm_tv`; relative to the weight of the prior
            where there is a ``sigma_y``.
        sigma_y: standard deviation of what the measurement may be wrong by, in its own unit; for complex volumes of
            both parts together, as the levels. Above 0 a level's step
            minimises ``||A x - y||^2 / (2 sigma_y^2) + (||x - denoised||^2 / 2 + lam ||D_z x||_1) / sigma^2``, the data
            term of DiffPIR (Zhu et al., CVPR Workshops 2023) with total variation, and may be solved to its end. At 0,
            as published, nothing but few conjugate gradient steps keeps the prior's say where the measurement tells
            nothing.
        cg_iterations: conjugate gradient steps a level.
        eta: share of the noise that is fresh at every level, from 0 (deterministic) to 1. Renewing it at each level
            averages over levels, which favours the mean of the posterior over a sample of it.
        ddim: scale eta by ``sqrt(1 - sigma_next^2 / sigma^2)`` instead (Song et al., "Denoising diffusion implicit
            models", ICLR 2021, equation 16, on the VE-SDE): samples then follow the prior as levels grow many.
        momentum: how far a level's result goes on in the direction in which it has left the last one,
            ``x_i + momentum (x_i - x_{i-1})``, before noise is added: what Nesterov's method and plug-and-play FISTA
            (Kamilov, Mansour and Wohlberg, IEEE SPL 24, 2017, algorithm 1) do to a fixed-point iteration of denoiser
            and data, for no further evaluation. It takes the place of levels where these are few.
        noise_scale: of the noise that is added for a level, over what the denoiser is told: below 1 it removes more
            than noise, which is nearer to the mean of the posterior, as many levels with fresh noise are.
        precondition: of conjugate gradients, see :func:`lightning_mbir.solvers.conjugate_gradient`.
        warm_start: share of what the data and total variation have changed at the last level, with which conjugate
            gradients start at this one, so that few steps a level add up over the levels.
        mirror: give every second level's slices to the denoiser with x reversed, and reverse what comes out (Terris et
            al., "Equivariant plug-and-play image reconstruction", CVPR 2024, algorithm 2, with the group of left and
            right): the errors of a network in an image and in its mirror image differ, and do not add up over levels.
        rhs: ``A^H y`` where it is known already.
        init: volume to start from, zero by default; noise of the highest level is added.
        callback: called after each level.
        checkpoint: keeps the state between levels, and gives it back.

    Returns:
        The volume ``(Z, Y, X)``.

    Raises:
        InputError: neither y nor rhs, rho not positive, lam or sigma_y negative, a momentum, noise_scale or warm_start
            outside of 0 to 1.
    """
    if sigma_y < 0:
        raise InputError(f"dds: sigma_y is {sigma_y:g}; give at least 0")
    for name, value in (("momentum", momentum), ("noise_scale", noise_scale), ("warm_start", warm_start)):
        if not 0 <= value <= 1:
            raise InputError(f"dds: {name} is {value:g}; give 0 to 1")
    if rhs is None:
        if y is None:
            raise InputError("dds: give the measurement y, or rhs = A^H y")
        rhs = operator.adjoint(y)
    levels = [*sigmas.tolist(), 0.0]
    x = levels[0] * noise(0, rhs.shape, dtype=rhs.dtype, device=rhs.device)
    if init is not None:
        x += init
    none = tuple[Tensor, ...]()
    done, x, last, changed, shared = checkpoint.resume(x, none, none, ADMMState())
    x0 = x
    for i, (sigma, sigma_next) in enumerate(pairwise(levels[done:]), done):
        checkpoint.reached(i, x, last, changed, shared)
        denoised = denoise(x.flip(-1), sigma).flip(-1) if mirror and i % 2 else denoise(x, sigma)
        pull = (sigma_y / sigma) ** 2
        trust = pull if sigma_y > 0 else 1.0
        x0, shared = admm_tv(
            None,
            operator,
            rho=rho * trust,
            lam=lam * trust,
            pull=pull,
            cg_iterations=cg_iterations,
            x0=denoised,
            start=changed[0].mul_(warm_start).add_(denoised) if changed else None,
            precondition=precondition,
            state=shared,
            rhs=rhs,
            overwrite_state=True,
        )
        changed = ()  # it is the start by now
        if callback is not None:
            callback(SamplerState(i + 1, len(sigmas), sigma, x0, nfe=i + 1))
        if sigma_next > 0:
            renewed = ancestral(sigma, sigma_next, eta) if ddim else eta
            fresh = noise(i + 1, x.shape, dtype=x.dtype, device=x.device)
            x = next_noise(x, denoised, sigma, noise_scale * sigma_next, renewed, fresh).add_(x0)
            del fresh
            if last:  # not at the first level
                x.add_(x0, alpha=momentum).sub_(last[0], alpha=momentum)
            last = (x0,) if momentum else ()
            changed = (x0 - denoised,) if warm_start else ()
            x0 = x  # so that the last one is kept for momentum alone
    return x0
