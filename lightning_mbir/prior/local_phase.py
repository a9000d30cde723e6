"""The local phase of a complex image, so that a network can look at it as if there were none."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def local_phase(x: Tensor, sigma: Tensor) -> Tensor:
    """The unit phasor ``(B, 2, Y, X)`` of the smoothed images, real and imaginary part.

    The smoothing is a Gaussian, wider where there is more noise: 2 pixels, what leaves a third of noise in a signal of
    0.35, or a tenth of the slice's smaller side, over which an MRI phase turns little.

    Args:
        x: ``(B, 2, Y, X)`` noisy images, real and imaginary part.
        sigma: ``(B,)`` standard deviation of the noise in each channel.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        width = (2.4 * sigma).clamp(2, max(2.0, min(x.shape[-2:]) / 10)).to(x.dtype)
        smooth = gaussian(width, x.shape[-2]) @ x @ gaussian(width, x.shape[-1])
        return smooth / (smooth.square().sum(1, keepdim=True) + 1e-20).sqrt()  # nothing where there is nothing


def gaussian(width: Tensor, n: int) -> Tensor:
    """Symmetric smoothing matrices ``(B, 1, n, n)`` of ``(B,)`` standard deviations in pixels."""
    distance = torch.arange(n, device=width.device, dtype=width.dtype)
    distance = distance[:, None] - distance
    width = width.reshape(-1, 1, 1, 1)
    return (-0.5 * (distance / width).square()).exp() / (width * math.sqrt(2 * math.pi))


def rotated(x: Tensor, phasor: Tensor, back: bool = False) -> Tensor:
    """The images ``(B, 2, Y, X)`` times the phasor or, to go ``back``, times its conjugate."""
    (real, imag), (cosine, sine) = x.unbind(1), phasor.to(x.dtype).unbind(1)
    sine = -sine if back else sine
    return torch.stack((real * cosine - imag * sine, real * sine + imag * cosine), 1)
