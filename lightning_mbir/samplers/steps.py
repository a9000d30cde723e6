"""The steps that samplers are made of, on the VE-SDE: ``x = x0 + sigma n``."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.samplers.state import Denoiser, DifferentiableDenoiser
from lightning_mbir.slabs import own_inner
from lightning_mbir.solvers import conjugate_gradient
from lightning_mbir.solvers.admm_tv import pulled_normal

PREDICTOR, CORRECTOR = 0, 1  # streams of noise


def reverse_diffusion(
    x: Num[Tensor, "z y x"],
    denoised: Num[Tensor, "z y x"],
    sigma: float,
    sigma_next: float,
    fresh: Num[Tensor, "z y x"],
) -> Num[Tensor, "z y x"]:
    """Predictor of Song et al., "Score-based generative modeling through SDEs", ICLR 2021, algorithm 2 (VE).

    Args:
        x, denoised: noisy slices of level ``sigma`` and their posterior mean.
        fresh: normal noise of the same shape.
    """
    removed = sigma**2 - sigma_next**2
    return (denoised - x).mul_(removed / sigma**2).add_(x).add_(removed**0.5 * fresh)


def langevin(
    x: Num[Tensor, "z y x"], denoised: Num[Tensor, "z y x"], sigma: float, snr: float, fresh: Num[Tensor, "z y x"]
) -> Num[Tensor, "z y x"]:
    """Corrector of the same paper, algorithm 4, with a step of each slice's own; ``denoised`` is that of ``x``."""
    score = (denoised - x).div_(sigma**2)
    step = 2 * (snr * slice_norm(fresh) / slice_norm(score).clamp_min(1e-12)) ** 2
    # x + step score + sqrt(2 step) fresh, in the volume of the score.
    return score.mul_(step).add_(x).add_((2 * step).sqrt() * fresh)


def predictor_corrector(
    denoise: Denoiser,
    x: Num[Tensor, "z y x"],
    sigma: float,
    sigma_next: float,
    *,
    noise: KeyedNoise,
    step: int,
    snr: float,
    corrector_steps: int,
) -> tuple[Num[Tensor, "z y x"], Num[Tensor, "z y x"]]:
    """From level ``sigma`` to ``sigma_next``: the predictor, then annealed Langevin steps.

    Args:
        x: noisy slices of level ``sigma``.
        noise, step: what fresh noise is keyed by.

    Returns:
        The slices of level ``sigma_next``, and the posterior mean that was evaluated last, of 1 + ``corrector_steps``.
        At ``sigma_next`` 0 both are the mean of the predictor, where there is no noise to correct.
    """
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return denoised, denoised
    fresh = noise(step, x.shape, stream=PREDICTOR, dtype=x.dtype, device=x.device)
    x = reverse_diffusion(x, denoised, sigma, sigma_next, fresh)
    for k in range(corrector_steps):
        denoised = denoise(x, sigma_next)
        fresh = noise(step, x.shape, stream=CORRECTOR + k, dtype=x.dtype, device=x.device)
        x = langevin(x, denoised, sigma_next, snr, fresh)
    return x, denoised


def next_noise(
    x: Num[Tensor, "z y x"],
    denoised: Num[Tensor, "z y x"],
    sigma: float,
    sigma_next: float,
    renewed: float,
    fresh: Num[Tensor, "z y x"],
) -> Num[Tensor, "z y x"]:
    """What to add to a clean estimate for it to be of level ``sigma_next``: the noise of ``x``, partly renewed.

    ``sigma_next (sqrt(1 - renewed^2) (x - denoised) / sigma + renewed fresh)``: Song et al., "Denoising diffusion
    implicit models", ICLR 2021, equation 12, on the VE-SDE.
    """
    return (x - denoised).mul_((1 - renewed**2) ** 0.5 / sigma).add_(fresh, alpha=renewed).mul_(sigma_next)


def ancestral(sigma: float, sigma_next: float, eta: float = 1.0) -> float:
    """Share of the noise to renew from a level to the next, for ``next_noise``; with ``eta`` 1 that of ancestral
    sampling (equation 16 of the same paper), with 0 none."""
    return float(eta * (1 - (sigma_next / sigma) ** 2) ** 0.5)


def nearer_to_data(
    x: Num[Tensor, "z y x"], operator: LinearOperator, rhs: Num[Tensor, "z y x"], iterations: int, pull: float = 0.0
) -> Num[Tensor, "z y x"]:
    """Conjugate gradients from ``x`` on ``1/2 ||A u - y||^2 + pull/2 ||u - x||^2``, each slice on its own if it can be.

    Args:
        x: start ``(Z, Y, X)``.
        rhs: ``A^H y``.
        iterations: steps at most. One is the projection where ``A`` samples an orthonormal basis, as k-space.
        pull: weight of staying at ``x``, relative to ``||A^H A||``.
    """
    b = rhs if pull == 0 else rhs + pull * x
    normal = partial(pulled_normal, operator, pull)
    return conjugate_gradient(normal, b, x, max_iterations=iterations, batch_dims=int(uncoupled(operator)))


def guidance(
    denoise: DifferentiableDenoiser,
    operator: LinearOperator,
    y: Tensor,
    x: Num[Tensor, "z y x"],
    sigma: float,
    denoised: Num[Tensor, "z y x"],
) -> Num[Tensor, "z y x"]:
    """Gradient of ``||A denoise(x, sigma) - y||`` with respect to ``x``, ``(Z, Y, X)``.

    The norm is that of each slice, so that no slice knows another. Where the operator couples slices it is the root of
    the mean square over them, so that steps mean the same.
    """
    residual = operator(denoised) - y
    if uncoupled(operator):
        norm = residual.abs().square().sum(tuple(range(1, y.ndim)), keepdim=True).sqrt()
    else:
        norm = own_inner(residual, residual).sqrt().to(residual.real.dtype) / len(x) ** 0.5
    return denoise.vjp(x, sigma, operator.adjoint(residual / norm.clamp_min(1e-12)))


def uncoupled(operator: LinearOperator) -> bool:
    """Whether a slice of the measurement is of one slice of the volume, as with coil maps or weights by slice too."""
    return operator.separable or operator.of_slice(0) is not None


def slice_norm(x: Num[Tensor, "z y x"]) -> Float[Tensor, "z 1 1"]:
    """Euclidean norm of each slice, ``(Z, 1, 1)``."""
    if x.is_complex():  # as pairs of reals: torch takes a hundred times longer for complex numbers
        return torch.linalg.vector_norm(torch.view_as_real(x), dim=(-3, -2, -1), keepdim=True)[..., 0]
    return torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
