"""Finite differences along an axis of a volume."""

from __future__ import annotations

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.slabs import widened

AXES = {"z": -3, "y": -2, "x": -1}


def difference(x: Num[Tensor, "*shape"], axis: int) -> Num[Tensor, "*shape"]:
    """``x[i + 1] - x[i]`` along ``axis``, zero for the last (Neumann boundary)."""
    out = torch.empty_like(x)
    n = x.shape[axis] - 1
    torch.sub(x.narrow(axis, 1, n), x.narrow(axis, 0, n), out=out.narrow(axis, 0, n))
    out.narrow(axis, n, 1).zero_()
    return out


def difference_adjoint(d: Num[Tensor, "*shape"], axis: int) -> Num[Tensor, "*shape"]:
    """The transpose of :func:`difference`: ``d[i - 1] - d[i]``, the last difference counting as zero."""
    n = d.shape[axis] - 1
    if n == 0:
        return torch.zeros_like(d)
    out = torch.empty_like(d)
    torch.neg(d.narrow(axis, 0, 1), out=out.narrow(axis, 0, 1))
    torch.sub(d.narrow(axis, 0, n - 1), d.narrow(axis, 1, n - 1), out=out.narrow(axis, 1, n - 1))
    out.narrow(axis, n, 1).copy_(d.narrow(axis, n - 1, 1))
    return out


class Difference(LinearOperator):
    """Differences of a volume ``(Z, Y, X)`` along ``"z"``, ``"y"`` or ``"x"``, Neumann boundary.

    Real volumes wrap around nowhere, so the last difference is zero rather than last to first. Where several processes
    have slabs of a volume, ``shape`` is that of the slab, and the differences are those of the volume.

    Args:
        shape: ``(Z, Y, X)``.
        axis: ``"z"``, ``"y"`` or ``"x"``.

    Raises:
        InputError: another axis.
    """

    separable = False

    def __init__(self, shape: tuple[int, int, int], axis: str = "z") -> None:
        super().__init__()
        if axis not in AXES:
            raise InputError(f"axis {axis!r} is unknown; there are z, y and x")
        self.axis = AXES[axis]
        self.domain_shape = self.range_shape = shape

    def forward(self, x: Num[Tensor, "*batch z y x"]) -> Num[Tensor, "*batch z y x"]:
        self.check_domain(x)
        return _Difference.apply(x, self.axis, False)  # type: ignore[no-untyped-call]

    def adjoint(self, y: Num[Tensor, "*batch z y x"]) -> Num[Tensor, "*batch z y x"]:
        self.check_range(y)
        return _Difference.apply(y, self.axis, True)  # type: ignore[no-untyped-call]


class SliceDifference(Difference):
    """Differences between neighbouring slices: the coupling of DiffusionMBIR."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape, "z")


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, axis: int, transpose: bool) -> Tensor:
        ctx.axis, ctx.transpose = axis, transpose  # type: ignore[attr-defined]
        one = difference_adjoint if transpose else difference
        if axis != AXES["z"]:
            return one(x, axis)
        wide = widened(x)  # the ends of a slab are not those of the volume
        found = one(wide[..., wide.lowest : wide.highest, :, :], axis)
        return found.narrow(axis, -wide.lowest, x.shape[axis])

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None, None]:
        transpose = not ctx.transpose  # type: ignore[attr-defined]
        return _Difference.apply(grads[0], ctx.axis, transpose), None, None  # type: ignore[attr-defined, no-untyped-call]
