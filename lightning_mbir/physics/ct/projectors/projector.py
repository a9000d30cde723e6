"""What computes a projection and its transpose: a matrix, or a rule that gives its entries."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor


class Projector:
    """A linear map and its transpose on flat images. A subclass writes ``product``; geometry is fixed when it is made.

    It holds no module state and is shared by copies of the operator that it belongs to.
    """

    exact_adjoint: ClassVar[bool] = True
    """Whether the transpose is one, to rounding."""

    def adjoint_gap(self, device: torch.device) -> float:
        """By how much the transpose fails to be one, see ``LinearOperator.adjoint_gap``."""
        return 0.0

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        """Of each slice, flat: the projection of an image or, with ``transpose``, the image of a projection."""
        raise TypeError(f"{type(self).__name__} does not define product")

    def apply(self, x: Num[Tensor, "slices inputs"], transpose: bool = False) -> Num[Tensor, "slices outputs"]:
        """``product``, differentiable: its gradient is the product the other way round. Real and imaginary parts are
        slices of their own."""
        if x.is_complex():
            return torch.complex(*self.apply(torch.cat((x.real, x.imag)), transpose).chunk(2))
        out: Tensor = _Product.apply(x, self, transpose)  # type: ignore[no-untyped-call]
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> Projector:
        return self  # never changes, so copies share it


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, projector: Projector, transpose: bool) -> Tensor:
        ctx.projector, ctx.transpose = projector, transpose
        with torch.autocast(x.device.type, enabled=False):  # half precision would break the adjoint
            return projector.product(x, transpose)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.projector.apply(grads[0].contiguous(), not ctx.transpose), None, None
