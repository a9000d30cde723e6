"""The smooth phase that coils, echo time and field leave in an MRI image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def smooth_phase(shape: Sequence[int], rng: np.random.RandomState, ramp: float = 1.0, curvature: float = 1.5) -> Tensor:
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
