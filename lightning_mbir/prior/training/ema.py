"""The rule by which weights are averaged while they are trained."""

from __future__ import annotations

from torch import Tensor


class EMA:
    """Averaging rule of the released training; a class, since a checkpoint must not hold a lambda."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def at(self, k: float) -> float:
        """Decay of update ``k``, from 1."""
        return min(self.decay, (1 + k) / (10 + k))

    def __call__(self, average: Tensor, new: Tensor, n_averaged: Tensor | int) -> Tensor:
        decay = self.at(float(n_averaged))
        return average + (1 - decay) * (new - average) if average.is_floating_point() else new
