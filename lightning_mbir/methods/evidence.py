"""Which of two priors finds an object more probable, by how well each of them denoises it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.samplers import Denoiser, KeyedNoise

SIGMAS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Of the noise, in the prior's unit: from where it hides the finest detail to where it hides all but the outline."""


@torch.no_grad()
def log_evidence(
    x: Float[Tensor, "z y x"], prior: Denoiser, rival: Denoiser, noise: KeyedNoise, sigmas: Sequence[float] = SIGMAS
) -> float:
    """By how many nats a pixel ``prior`` finds slices more probable than ``rival`` does.

    ``log p(x) - log q(x) = int (e_q - e_p) / sigma^2 d(log sigma)``, where ``e(sigma) = E ||x - D(x + sigma n)||^2``
    is what the denoiser of a prior misses (the pointwise relation of information and estimation of Kong, Brekelmans
    and Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv 2302.03792): who knows the object denoises it
    better. Of the integral what lies between the first and the last level, by the trapezoidal rule; the same noise for
    both.

    Args:
        x: ``(z, y, x)``, in the unit of both priors.
        prior, rival: denoisers, of the same unit.
        noise: whose steps are the levels.
        sigmas: standard deviations of the noise in that unit, rising.
    """
    gains = []
    for step, sigma in enumerate(sigmas):
        noisy = x + sigma * noise(step, x.shape, dtype=x.dtype, device=x.device)
        missed = [(x - denoise(noisy, sigma)).abs().square().mean().double() for denoise in (rival, prior)]
        gains.append((missed[0] - missed[1]) / sigma**2)
    return float(torch.trapezoid(torch.stack(gains).cpu(), torch.tensor(sigmas, dtype=torch.float64).log()))
