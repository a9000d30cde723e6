"""Statistical weights of a measurement, as part of the operator."""

from __future__ import annotations

import torch
from jaxtyping import Int, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import Around, LinearOperator, check_tensor
from lightning_mbir.slabs import largest


class Weighted(Around):
    """``W^(1/2) A``, so that ``||W^(1/2) (A x - y)||^2`` is weighted least squares.

    Weights of one measurement serve all slices. Weights by slice, ``(Z, *range_shape)``, make it an operator on
    volumes: ``separable`` is false, the domain ``(Z, Y, X)``. To be used with :meth:`scale` of the measurement.

    Args:
        operator: ``A``.
        weights: ``W``, inverse variances: ``range_shape``, or ``(Z, *range_shape)`` where ``A`` acts slice by slice.

    Raises:
        InputError: weights of another shape, negative, not finite, or all zero.
    """

    root: Tensor

    def __init__(self, operator: LinearOperator, weights: Tensor) -> None:
        super().__init__(operator)
        check_tensor("weights", weights)
        given, one = tuple(weights.shape), operator.range_shape
        by_slice = operator.separable and len(given) == len(one) + 1
        if given[-len(one) :] != one or not (given == one or by_slice) or 0 in given:
            more = f", or (Z, {', '.join(map(str, one))})" if operator.separable else ""
            raise InputError(f"the weights are {given}; give {one}{more}, as measured")
        if weights.is_complex() or not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            raise InputError("the weights have complex, negative, NaN or infinite values; give inverse variances")
        kept = weights.to(operator.device, operator.real_dtype)
        if not bool(largest(kept.amax())):  # a slab alone may have weights of zero
            raise InputError("the weights are all zero; nothing would be fitted")
        if not bool(torch.isfinite(kept).all()):
            raise InputError(f"the weights reach {float(weights.max()):.3g}, more than fits; only their ratios matter")
        slices = given[:1] if by_slice else ()
        self.domain_shape, self.range_shape = (*slices, *operator.domain_shape), (*slices, *one)
        self.separable = operator.separable and not by_slice
        self.register_buffer("root", kept.sqrt())

    def of_slice(self, k: int) -> LinearOperator | None:
        by_slice = self.root.ndim > len(self.operator.range_shape)
        inner = self.operator if by_slice else self.operator.of_slice(k)
        return None if inner is None else self._of(inner, self.root[k])

    def of_slices(self, start: int, stop: int) -> LinearOperator | None:
        if self.separable:
            return self
        inner = self.operator.of_slices(start, stop)
        return None if inner is None else self._of(inner, self.root[start:stop])

    def of_parts(self, chosen: Int[Tensor, " n"]) -> LinearOperator:
        return self._of(self.operator.of_parts(chosen), self.parts_of(self.root, chosen))

    def _of(self, inner: LinearOperator, root: Tensor) -> Weighted:
        """Weights of some slices or parts alone, which may all be zero."""
        some = Weighted(inner, torch.ones_like(root))
        some.root = root
        return some

    def scale(self, y: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """``W^(1/2) y``: the measurement ``(..., *range_shape)`` that belongs to this operator."""
        self.check_range(y)
        return y * self.root

    def forward(self, x: Tensor) -> Tensor:
        self.check_domain(x)
        return self.operator(x) * self.root

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_range(y)
        return self.operator.adjoint(y * self.root)
