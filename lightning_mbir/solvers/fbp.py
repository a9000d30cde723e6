"""Filtered back-projection of a parallel beam."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.parallel_beam import ParallelBeam

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")


@torch.no_grad()
def fbp(y: Tensor, operator: ParallelBeam, filter: str = "ramp") -> Tensor:
    """Attenuation from sinograms (Kak and Slaney 1988, section 3.3).

    The ramp is the transform of its band-limited kernel, sampled at the bins (equation 61 there), so the mean comes
    out right. Views are weighted by the angle that each of them stands for.

    Args:
        y: ``(..., n_angles, n_detectors)``.
        operator: its geometry.
        filter: ``ramp`` (Ram-Lak), or that times ``shepp-logan``, ``cosine``, ``hamming`` or ``hann``.

    Returns:
        ``(..., Y, X)`` in 1/mm.

    Raises:
        InputError: unknown filter, or sinograms of another shape.
    """
    if filter not in FILTERS:
        raise InputError(f"filter {filter!r} is unknown; there are {', '.join(FILTERS)}")
    operator.check_range(y)
    filtered = filter_sinogram(y, operator.detector_spacing, filter)
    weighted = filtered * view_weights(operator).to(y)[:, None]
    # The adjoint sums chord lengths over one bin: spacing / pixel area turns that into the mean over a pixel.
    return operator.adjoint(weighted) * (operator.detector_spacing / operator.pixel_size**2)


def filter_sinogram(y: Tensor, spacing: float, filter: str = "ramp") -> Tensor:
    """Convolution of each view with the filter, padded against wrapping around; in 1/mm of ``y``'s unit."""
    n = y.shape[-1]
    size = 2 ** math.ceil(math.log2(max(64, 2 * n)))
    k = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64, device="cpu")  # integers 0, 1, ..., -1
    kernel = torch.where(k % 2 == 0, 0.0, -1 / (math.pi * k.where(k != 0, torch.ones_like(k)) * spacing) ** 2)
    kernel[0] = 1 / (4 * spacing**2)
    response = torch.fft.rfft(kernel).real * spacing
    f = torch.linspace(0, 1, len(response), dtype=torch.float64)  # 1 at the Nyquist frequency
    if filter == "shepp-logan":
        response *= torch.sinc(f / 2)
    elif filter == "cosine":
        response *= torch.cos(math.pi * f / 2)
    elif filter == "hamming":
        response *= 0.54 + 0.46 * torch.cos(math.pi * f)
    elif filter == "hann":
        response *= 0.5 + 0.5 * torch.cos(math.pi * f)
    spectrum = torch.fft.rfft(y, size) * response.to(y)
    return torch.fft.irfft(spectrum, size)[..., :n]


def view_weights(operator: ParallelBeam) -> Tensor:
    """Angle in radians that each view stands for: half the way to its neighbours, modulo 180 degrees.

    A gap wider than three times the median step is missing data (limited angle), for which the views beside it do
    not stand in.
    """
    angles = torch.tensor(operator.angles, dtype=torch.float64) % 180
    order = angles.argsort()
    ordered = angles[order]
    step = torch.diff(ordered, append=ordered[:1] + 180)
    usual = step.median()
    step = torch.where(step > 3 * usual, usual, step) if len(step) > 2 else step
    weight = (step + step.roll(1)) / 2
    return torch.deg2rad(torch.empty_like(weight).index_copy_(0, order, weight))
