"""Simultaneous iterative reconstruction."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.methods.method import RATIO, Count, Limits, Searched, method
from lightning_mbir.methods.problem import Problem


@method(modalities=("ct",), splits=True, memory=(3, 2.8, 3))
def sirt(
    p: Problem,
    *,
    steps: Annotated[Count, Searched(20, 3000)] = 200,
    relaxation: Annotated[float, Limits(0, 2, positive=True, below=True), RATIO] = 1.0,
    nonnegative: bool = True,
) -> Tensor:
    """SIRT (Gilbert 1972), least squares with the sums of rows and columns as weights.

    Args:
        p: the problem.
        steps: iterations.
        relaxation: length of a step.
        nonnegative: clip below zero after each step.
    """
    return solvers.sirt(
        p.y,
        p.operator,
        iterations=steps,
        relaxation=relaxation,
        nonnegative=nonnegative,
        callback=p.iteration(steps),
        checkpoint=p.checkpoint,
    )
