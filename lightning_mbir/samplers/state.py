"""What samplers and their callers tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Num
from torch import Tensor

Denoiser = Callable[[Num[Tensor, "z y x"], float], Num[Tensor, "z y x"]]
"""``denoise(x, sigma) -> x0``: posterior mean of the clean slices ``(Z, Y, X)``."""


class DifferentiableDenoiser(Protocol):
    """A denoiser that can be differentiated."""

    def __call__(self, x: Num[Tensor, "z y x"], sigma: float, /) -> Num[Tensor, "z y x"]:
        """Posterior mean of the clean slices ``(Z, Y, X)``."""

    def vjp(self, x: Num[Tensor, "z y x"], sigma: float, cotangent: Num[Tensor, "z y x"], /) -> Num[Tensor, "z y x"]:
        """``J(x)^H cotangent`` with ``J`` the derivative of the call, ``(Z, Y, X)``."""


@dataclass(frozen=True)
class SamplerState:
    """Where a sampler stands after a noise level.

    Attributes:
        step, n_steps: levels done, and all.
        sigma: the level just done.
        volume: the current estimate of the clean volume ``(Z, Y, X)``.
        nfe: network evaluations so far, each counted once for the whole volume: one for a denoised volume, one for a
            product with the derivative, which runs the network again and back.
        scale, offset: ``scale * volume + offset`` is the volume in physical unit; ``run_method`` fills them in.
    """

    step: int
    n_steps: int
    sigma: float
    volume: Num[Tensor, "z y x"]
    nfe: int
    scale: float = 1.0
    offset: float = 0.0

    def physical(self, x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """``volume`` or a part of it in physical unit."""
        return x * self.scale + self.offset


Callback = Callable[[SamplerState], None]
"""What is called after each noise level, with where the sampler stands."""
