"""What samplers and their callers tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]
"""``denoise(x, sigma) -> x0``: posterior mean of the clean slices ``(Z, Y, X)``."""


@dataclass(frozen=True)
class SamplerState:
    """Where a sampler stands after a noise level.

    Attributes:
        step, n_steps: levels done, and all.
        sigma: the level just done.
        volume: the current estimate of the clean volume ``(Z, Y, X)``.
        nfe: network evaluations so far (each counted once for the whole volume).
    """

    step: int
    n_steps: int
    sigma: float
    volume: Tensor
    nfe: int


Callback = Callable[[SamplerState], None]
