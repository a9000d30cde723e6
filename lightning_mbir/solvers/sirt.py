"""Simultaneous iterative reconstruction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.slabs import largest


@torch.no_grad()
def sirt(
    y: Tensor,
    operator: LinearOperator,
    *,
    iterations: int = 100,
    x0: Float[Tensor, "*shape"] | None = None,
    relaxation: float = 1.0,
    nonnegative: bool = False,
    callback: Callable[[int, Tensor], None] | None = None,
    checkpoint: Checkpoint = UNKEPT,
) -> Float[Tensor, "*shape"]:
    """``x += relaxation C A^T R (y - A x)`` with the inverse column and row sums ``C`` and ``R``.

    Gregor and Benson, "Computational analysis and improvement of SIRT", IEEE TMI 27(7), 2008; for operators with
    entries that are not negative, such as line integrals.

    Args:
        y: measurement ``(..., *range_shape)``.
        operator: ``A``, with real domain and range.
        iterations: number of steps.
        x0: start ``(..., *domain_shape)``; zero by default.
        relaxation: step between 0 and 2.
        nonnegative: clip below zero after each step.
        callback: called after each iteration with its number and the iterate.
        checkpoint: keeps the state between iterations, and gives it back.

    Returns:
        The volume ``(..., *domain_shape)``, in the unit of ``x`` in ``y = A x``.

    Raises:
        InputError: a complex operator, a relaxation that diverges, a measurement of another shape.
    """
    if operator.range_complex or operator.domain_complex:
        raise InputError("sirt needs an operator with non-negative entries, such as line integrals; not a Fourier one")
    if not 0 < relaxation < 2:
        raise InputError(f"sirt: relaxation is {relaxation:g}; give a number between 0 and 2")
    operator.check_range(y)
    rows = operator(torch.ones(operator.domain_shape, dtype=y.dtype, device=y.device))
    columns = operator.adjoint(torch.ones(operator.range_shape, dtype=y.dtype, device=y.device))
    inverse_rows, inverse_columns = _inverse(rows), relaxation * _inverse(columns)
    x = operator.adjoint(torch.zeros_like(y)) if x0 is None else x0
    done, x = checkpoint.resume(x)
    for k in range(done, iterations):
        checkpoint.reached(k, x)
        x = x + inverse_columns * operator.adjoint(inverse_rows * (y - operator(x)))
        if nonnegative:
            x = x.clamp_min(0)
        if callback is not None:
            callback(k + 1, x)
    return x


def _inverse(sums: Tensor) -> Tensor:
    """One over the sums; 0 for rays that miss the image (nearly: their residual would be blown up)."""
    negligible = sums < 1e-3 * largest(sums.max())
    return torch.where(negligible, 0, 1 / torch.where(negligible, 1, sums))
