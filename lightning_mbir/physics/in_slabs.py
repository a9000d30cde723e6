"""An operator that works on a device, for volumes that stay in host memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import Arriving, HostSlabs, sent
from lightning_mbir.physics.operator import Around, LinearOperator

REVERSE = {"forward": "adjoint", "adjoint": "forward", "normal": "normal"}
"""What the gradient of each product is made by."""


class InSlabs(Around):
    """``A``, to which slices come from host memory a few at a time, and from which they go back there.

    An operator that acts slice by slice is copied to the device once. Of one that differs from slice to slice (coil
    maps or masks by slice) only what belongs to a slab is brought there with it, so that it stays in host memory too.

    Args:
        operator: ``A`` in host memory, one that does not couple slices.
        slabs: the device, and how many slices pass at a time.

    Attributes:
        operator: as it was given.

    Raises:
        InputError: an operator that measures slices together.
    """

    def __init__(self, operator: LinearOperator, slabs: HostSlabs) -> None:
        super().__init__(operator)
        check_uncoupled(operator, slabs)
        self.slabs = slabs
        self.working = 0.0  # which takes place on the device

    @cached_property
    def _placed(self) -> LinearOperator | None:
        """On the device, from when it is first needed; None where it differs from slice to slice."""
        if not self.operator.separable:
            return None
        there = self.operator.device == self.slabs.device
        return self.operator if there else copy.deepcopy(self.operator).to(self.slabs.device)

    @property
    def at_once(self) -> int:
        return self.slabs.slices

    @property
    def adjoint_gap(self) -> float:
        return (self.operator if self._placed is None else self._placed).adjoint_gap

    def norm(self, tolerance: float = 1e-5, max_iterations: int = 200) -> float:
        if self.operator._norm is None:  # which is kept there, for the next one that is made of it
            norm = super().norm if self._placed is None else self._placed.norm
            self.operator._norm = norm(tolerance, max_iterations)
        return self.operator._norm

    def of_slice(self, k: int) -> LinearOperator | None:
        return self.operator.of_slice(k)

    def around(self, operator: LinearOperator) -> InSlabs:
        return InSlabs(operator, self.slabs)

    def forward(self, x: Num[Tensor, "*volume"]) -> Num[Tensor, "*measured"]:
        self.check_domain(x)
        return _Product.apply(x, self, "forward")  # type: ignore[no-untyped-call]

    def adjoint(self, y: Num[Tensor, "*measured"]) -> Num[Tensor, "*volume"]:
        self.check_range(y)
        return _Product.apply(y, self, "adjoint")  # type: ignore[no-untyped-call]

    def normal(self, x: Num[Tensor, "*volume"]) -> Num[Tensor, "*volume"]:
        self.check_domain(x)
        return _Product.apply(x, self, "normal")  # type: ignore[no-untyped-call]

    def inverse(
        self, invert: Callable[[Tensor, LinearOperator], Tensor], y: Num[Tensor, "*measured"]
    ) -> Num[Tensor, "*volume"]:
        """``invert(y, A)`` slab by slab, by a function that takes each slice by itself."""
        self.check_range(y)
        return self.passed(y, lambda operator, part: invert(part, operator), self.range_shape, self.domain_shape)

    def passed(
        self,
        x: Num[Tensor, "*given"],
        run: Callable[[LinearOperator, Tensor], Tensor],
        source: tuple[int, ...],
        target: tuple[int, ...],
    ) -> Num[Tensor, "*found"]:
        """What ``run`` makes of all slices: ``(..., *source)`` to ``(..., *target)``, each of domain or range."""
        lead = x.shape[: x.ndim - len(source)]
        count = math.prod(lead)
        if self.separable:
            stack = x.reshape(1, count, *source)
        else:  # the shapes begin with the slices
            stack, source, target = x.reshape(count, *source), source[1:], target[1:]
        depth, out = stack.shape[1], None
        for start in range(0, max(depth, 1), self.slabs.slices):
            stop = min(start + self.slabs.slices, depth)
            part = run(self._on_device(start, stop), sent(stack[:, start:stop], self.slabs.device))
            if out is None:
                out = torch.empty(len(stack), depth, *target, dtype=part.dtype, device=x.device)
                arriving = Arriving(out)
            arriving.put((slice(None), slice(start, stop)), part)
        assert out is not None
        arriving.settle()
        return out.reshape(*lead, *target) if self.separable else out.reshape(*lead, depth, *target)

    def _on_device(self, start: int, stop: int) -> LinearOperator:
        if self._placed is not None:
            return self._placed
        some = self.operator.of_slices(start, stop)
        assert some is not None
        return some.to(self.slabs.device)


def check_uncoupled(operator: LinearOperator, slabs: HostSlabs) -> None:
    """Raise ``InputError`` where slices cannot pass one by one."""
    if operator.of_slices(0, 1) is None:
        raise InputError(
            f"{type(operator).__name__} measures slices together, which cannot pass through {slabs.device} a few at a "
            "time; give --model.host_slices 0, and a device with more memory or the CPU"
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: InSlabs, name: str) -> Tensor:
        ctx.operator, ctx.name = operator, name
        source = operator.range_shape if name == "adjoint" else operator.domain_shape
        target = operator.range_shape if name == "forward" else operator.domain_shape
        return operator.passed(x, lambda own, part: getattr(own, name)(part), source, target)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(grads[0], ctx.operator, REVERSE[ctx.name]), None, None  # type: ignore[no-untyped-call]
