"""Simultaneous iterative reconstruction."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.methods.method import Count, Searched, method
from lightning_mbir.methods.problem import Problem
from lightning_mbir.samplers import SamplerState


@method(modalities=("ct",), splits=True, memory=(3, 3.8, 3))
def sirt(
    p: Problem,
    *,
    steps: Annotated[Count, Searched(20, 3000)] = 200,
    relaxation: float = 1.0,
    nonnegative: bool = True,
) -> Tensor:
    """SIRT (Gilbert 1972), least squares with the sums of rows and columns as weights.

    Args:
        p: the problem.
        steps: iterations.
        relaxation: step between 0 and 2.
        nonnegative: clip below zero after each step.
    """
    x: Tensor | None = None
    at_once = max(1, steps // 20)  # for the sake of progress
    for done in range(0, steps, at_once):
        now = min(at_once, steps - done)
        x = solvers.sirt(p.y, p.operator, iterations=now, x0=x, relaxation=relaxation, nonnegative=nonnegative)
        p.report(SamplerState(done + now, steps, 0.0, x, 0))
    assert x is not None
    return x
