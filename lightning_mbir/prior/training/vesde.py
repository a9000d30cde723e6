"""The variance-exploding stochastic differential equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mbir.errors import InputError


@dataclass(frozen=True)
class VESDE:
    """``dx = g(t) dw`` with noise of standard deviation ``sigma(t) = sigma_min (sigma_max / sigma_min)^t``.

    Song et al. 2021, "Score-based generative modeling through stochastic differential equations", appendix C.
    ``t`` runs from 0 to 1; sigma is in the unit of the images.

    Raises:
        InputError: unless ``sigma_max > sigma_min > 0``.
    """

    sigma_min: float = 0.01
    sigma_max: float = 378.0

    def __post_init__(self) -> None:
        if not self.sigma_max > self.sigma_min > 0:
            raise InputError(
                f"VE-SDE from sigma_min {self.sigma_min:g} to {self.sigma_max:g}: give sigma_max > sigma_min > 0"
            )

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at time ``t``."""
        return self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min))
