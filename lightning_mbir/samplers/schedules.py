"""Noise levels, from high to low, the last one not zero."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from lightning_mbir.errors import InputError


def geometric_sigmas(n: int, sigma_max: float, sigma_min: float) -> Float64[Tensor, " levels"]:
    """``n`` levels at equal ratios: the VE-SDE at equal times (Song et al. 2021, equation 30). float64 ``(n,)``.

    Raises:
        InputError: fewer than one level, or not ``sigma_max > sigma_min > 0``.
    """
    _check(n, sigma_max, sigma_min)
    return torch.logspace(0, 1, n, base=sigma_min / sigma_max, dtype=torch.float64) * sigma_max


def karras_sigmas(n: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> Float64[Tensor, " levels"]:
    """``n`` levels that are denser at low noise (Karras et al. 2022, equation 5). float64 ``(n,)``.

    Args:
        n: how many.
        sigma_max, sigma_min: the first and the last.
        rho: how much denser; 7 as in the paper.

    Raises:
        InputError: as ``geometric_sigmas``.
    """
    _check(n, sigma_max, sigma_min)
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def _check(n: int, sigma_max: float, sigma_min: float) -> None:
    if n < 1:
        raise InputError(f"--steps {n}: give at least 1 noise level")
    if not sigma_max > sigma_min > 0:
        raise InputError(f"noise levels from {sigma_max:g} to {sigma_min:g}: give sigma_max > sigma_min > 0")
