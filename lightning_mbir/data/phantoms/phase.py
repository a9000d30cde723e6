"""The phase that coils, echo time and field leave in an MRI image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.ndimage import fourier_gaussian
from torch import Tensor


def smooth_phase(
    shape: Sequence[int], rng: np.random.RandomState, ramp: float = 1.0, curvature: float = 1.5
) -> Float[Tensor, "... y x"]:
    """A random phase ``(Y, X)`` or ``(Z, Y, X)`` in radians.

    Any constant, a ramp of up to ``ramp`` turns over the field of view along y and x, and a polynomial of second and
    third order of about ``curvature`` radians at the border; from the first slice to the last, another constant and
    half such a ramp.
    """
    v = torch.linspace(-1, 1, shape[-2])[:, None]
    u = torch.linspace(-1, 1, shape[-1])
    constant = rng.uniform(-math.pi, math.pi)
    across, down = math.pi * ramp * rng.uniform(-1, 1, 2)
    bend = curvature * rng.normal(size=7) / math.sqrt(2)
    terms = (u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3)
    phase = constant + across * u + down * v
    for weight, term in zip(bend, terms, strict=True):
        phase = phase + float(weight) * term
    if len(shape) == 2:
        return phase
    w = torch.linspace(-1, 1, shape[0])[:, None, None]
    offset, along_x, along_y = 0.5 * math.pi * ramp * rng.uniform(-1, 1, 3)
    return phase + w * (offset + along_x * u + along_y * v)


def rough_phase(image: Float[Tensor, "y x"], rng: np.random.RandomState) -> Float[Tensor, "y x"]:
    """A random phase in radians of a magnitude image ``(Y, X)``, as scanners leave it beside a smooth one.

    Any of these, each in about half of the images: a field of up to 1.5 radians (its standard deviation) that is smooth
    over a twentieth to a quarter of the smaller side (air, vessels); one or two points about which the phase winds by a
    turn (where the sum of the coils vanishes); and another phase, mostly about the opposite one, in the rim of what is
    imaged (fat).
    """
    rows, columns = image.shape
    phase = torch.zeros(rows, columns)
    if rng.uniform() < 0.6:
        width = min(rows, columns) * math.exp(rng.uniform(math.log(0.05), math.log(0.25)))
        field = smoothed(torch.from_numpy(rng.normal(size=(rows, columns))).float(), width)
        phase += rng.uniform(0, 1.5) * field / field.std()
    if rng.uniform() < 0.5:
        for _ in range(rng.randint(1, 3)):
            y, x = rng.uniform(0.1, 0.9, 2) * (rows, columns)
            sign = rng.choice((-1, 1))
            phase += sign * torch.atan2(torch.arange(rows)[:, None] - y, torch.arange(columns) - x).float()
    if rng.uniform() < 0.5:
        side = min(rows, columns)
        room = math.ceil(0.12 * side)  # where a crop cuts through the body is no rim
        around = F.pad(image[None, None], (room,) * 4, mode="replicate")[0, 0]
        inside = (smoothed(around, 0.01 * side) > 0.1 * image.max()).float()
        rim = (smoothed(inside, side * rng.uniform(0.01, 0.04)) < 0.9)[room:-room, room:-room]
        phase += rng.normal(math.pi, 0.8) * rim
    return phase


def smoothed(image: Float[Tensor, "y x"], width: float) -> Float[Tensor, "y x"]:
    """``(Y, X)`` smoothed by a Gaussian of ``width`` pixels, as if it went on periodically."""
    spectrum = fourier_gaussian(torch.fft.rfft2(image).numpy(), width, n=image.shape[-1])
    return torch.fft.irfft2(torch.from_numpy(spectrum), s=image.shape[-2:])
