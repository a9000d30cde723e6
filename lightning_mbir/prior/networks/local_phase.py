"""The local phase of a complex image, so that a network can look at it as if there were none."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def local_phase(x: Float[Tensor, "batch 2 y x"]) -> Float[Tensor, "batch 2 y x"]:
    """The unit phasor ``(B, 2, Y, X)`` of images ``(B, 2, Y, X)``, real and imaginary part, smoothed by a Gaussian.

    The Gaussian's deviation is a tenth of the slice's smaller side, over which a smooth phase turns little and noise
    all but vanishes. A narrower one would take noise for phase (docs/training.md). The phasor of nothing is 0.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        width = max(2.0, min(x.shape[-2:]) / 10)
        smooth = gaussian(width, x.shape[-2], x) @ x @ gaussian(width, x.shape[-1], x)
        return smooth / (smooth.square().sum(1, keepdim=True) + 1e-20).sqrt()


def gaussian(width: float, n: int, like: Tensor) -> Float[Tensor, "{n} {n}"]:
    """The symmetric matrix ``(n, n)`` that smooths by a Gaussian of ``width`` pixels."""
    place = torch.arange(n, device=like.device, dtype=like.dtype)
    return (-0.5 * ((place[:, None] - place) / width).square()).exp() / (width * math.sqrt(2 * math.pi))


def rotated(
    x: Float[Tensor, "batch 2 y x"], phasor: Float[Tensor, "batch 2 y x"], back: bool = False
) -> Float[Tensor, "batch 2 y x"]:
    """The images ``(B, 2, Y, X)`` times the phasor or, to go ``back``, times its conjugate."""
    (real, imag), (cosine, sine) = x.unbind(1), phasor.to(x.dtype).unbind(1)
    sine = -sine if back else sine
    return torch.stack((real * cosine - imag * sine, real * sine + imag * cosine), 1)
