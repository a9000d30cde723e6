"""Least squares with conjugate gradients, with or without Tikhonov regularisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.solvers.conjugate_gradient import conjugate_gradient


@torch.no_grad()
def cgls(
    y: Tensor,
    operator: LinearOperator,
    *,
    iterations: int = 20,
    lam: float = 0.0,
    tolerance: float = 0.0,
    x0: Num[Tensor, "*shape"] | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Num[Tensor, "*shape"]:
    """Minimise ``||A x - y||^2 + lam ||x||^2``: conjugate gradients on ``(A^H A + lam) x = A^H y``.

    Hestenes and Stiefel 1952, section 10. Without ``lam`` the number of iterations regularises: noise and what was
    hardly measured come in last (Hansen, "Discrete inverse problems", 2010, section 6.3). Started from zero, the limit
    is the solution of least norm. With coil maps it is CG-SENSE (Pruessmann et al., "Advances in sensitivity encoding
    with arbitrary k-space trajectories", MRM 46, 2001), without its scaling of intensities.

    Args:
        y: measurement ``(..., *range_shape)``.
        operator: ``A``, used as it is; bring it to unit norm for ``lam`` to mean the same in every geometry.
        iterations: steps at most.
        lam: weight of Tikhonov's term, relative to ``||A^H A||``.
        tolerance: stop where the residual of the normal equations is this small against ``A^H y``.
        x0: start ``(..., *domain_shape)``; zero by default.
        callback: called after each step with its number and the iterate.
        checkpoint: keeps the state between steps, and gives it back.

    Returns:
        ``(..., *domain_shape)``.

    Raises:
        InputError: lam negative, a measurement of another shape.
    """
    if not lam >= 0:
        raise InputError(f"cgls: lam is {lam:g}; give at least 0")
    operator.check_range(y)

    def normal(x: Tensor) -> Tensor:
        return operator.normal(x).add(x, alpha=lam)

    def report(k: int, x: Tensor, _: float) -> None:
        if callback is not None:
            callback(k, x)

    return conjugate_gradient(
        normal if lam else operator.normal,
        operator.adjoint(y),
        x0,
        max_iterations=iterations,
        tolerance=tolerance,
        callback=None if callback is None else report,
        checkpoint=checkpoint,
    )
