"""How a network's inputs and outputs are scaled with the noise level, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError

Preconditioning = Literal["edm", "ve"]


def precondition(
    network: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch channels y x"],
    sigma: Float[Tensor, "#batch"],
    kind: Preconditioning,
    sigma_data: float,
    mean: float | Float[Tensor, "channels 1 1"],
) -> Float[Tensor, "batch channels y x"]:
    """Denoised images from a bare network ``F``, after table 1 of Karras et al. 2022 (EDM).

    ``x0 = mean + c_skip (x - mean) + c_out F(c_in (x - mean), c_noise)``. ``"edm"`` keeps what ``F`` sees and has to
    give at unit variance. ``"ve"`` has ``c_skip = 1``, ``c_out = sigma``, ``c_in = 1``, ``c_noise = log(sigma / 2)``,
    so ``F`` is the score times sigma, as in the VE-SDE of Song et al. 2021.

    Args:
        network: ``(B, C, Y, X)`` and labels ``(B,)`` to ``(B, C, Y, X)``.
        x: ``(B, C, Y, X)`` noisy images.
        sigma: ``(B,)``, or ``(1,)`` for all, standard deviation of the noise in each channel.
        sigma_data: standard deviation of clean images about ``mean``; ``"edm"`` only.
        mean: subtracted from every channel before the network, and added after it; one number, or ``(C, 1, 1)``.
    """
    s = sigma.reshape(-1, 1, 1, 1).to(x.dtype)
    centred = x - mean
    if kind == "ve":
        return x + s * network(centred, (sigma / 2).log()).to(x.dtype)
    total = (s**2 + sigma_data**2).sqrt()
    raw = network(centred / total, sigma.log() / 4).to(x.dtype)
    return mean + (sigma_data / total) ** 2 * centred + s * sigma_data / total * raw


def check_preconditioning(kind: str, sigma_data: float, mean: float | None) -> Preconditioning:
    """The name, if there is such a preconditioning, for these settings of ``precondition``.

    Raises:
        InputError: there is none of this name; numbers that cannot be.
    """
    if not (math.isfinite(sigma_data) and sigma_data > 0):
        raise InputError(f"network_options.sigma_data {sigma_data}: give a positive number")
    if mean is not None and not math.isfinite(mean):
        raise InputError(f"network_options.mean {mean}: give a number")
    for known in get_args(Preconditioning):
        if kind == known:
            return known
    raise InputError(f"network_options.preconditioning {kind!r}: give {' or '.join(get_args(Preconditioning))}")
