"""An operator of a user's own, by its class path, in place of what a task would simulate."""

from __future__ import annotations

import inspect
import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.lazy import imported
from lightning_mbir.methods.catalog import source_sha256
from lightning_mbir.physics import LinearOperator, RealDomain
from lightning_mbir.slabs import own_inner

log = logging.getLogger(__name__)

UNMATCHED = 1e-3
"""Relative gap of an adjoint that is told of; rounding in single precision stays below 1e-5."""


@dataclass(frozen=True)
class OwnOperator:
    """What makes a ``LinearOperator`` for slices of a size: a class, or any function.

    It is given those of ``image_size`` (pixels), ``pixel_size`` (mm) and ``seed`` that it has arguments for, and the
    options; see docs/extending.md for a whole example.

    Attributes:
        path: ``package.module.name``.
        options: further arguments.

    Raises:
        InputError: nothing there that could be called.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self._made):
            raise InputError(f"--operator {self.path}: neither a class nor a function (docs/extending.md)")

    @property
    def _made(self) -> Any:
        return imported("--operator", self.path, LinearOperator)

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on: the path, the options, and the version of the file."""
        source = {"operator": self.path, "operator_sha256": source_sha256(self._made)}
        return {**source, "operator_options": self.options} if self.options else source

    def build(self, image_size: int, pixel_size: float, seed: int, complex: bool) -> LinearOperator:
        """The operator for slices of ``image_size`` pixels; on magnitudes where ``complex`` is false.

        Raises:
            InputError: options that it does not take, something else than a ``LinearOperator``, or one that does not
                keep to what it says of itself (``check_contract``).
        """
        made = self._made
        takes = inspect.signature(made).parameters
        known = {"image_size": image_size, "pixel_size": pixel_size, "seed": seed}
        given = {name: value for name, value in known.items() if name in takes}
        try:
            operator = made(**given, **self.options)
        except TypeError as error:
            raise InputError(
                f"--operator {self.path}: cannot be made ({error}); see --model.operator_options"
            ) from error
        if not isinstance(operator, LinearOperator):
            kind = type(operator).__name__
            raise InputError(f"--operator {self.path}: gives a {kind}, no LinearOperator (docs/extending.md)")
        check_contract(operator, f"--operator {self.path}")
        return RealDomain(operator) if operator.domain_complex and not complex else operator


def check_contract(operator: LinearOperator, name: str) -> None:
    """Hold an operator of a user's own against what it says of itself; one product each way.

    An adjoint that is not exact is told as a warning, not refused: unmatched pairs are used on purpose.

    Args:
        operator: as it was made.
        name: for the messages.

    Raises:
        InputError: shapes or a direction that it lacks, or products of other shapes than it says.
    """
    kind = type(operator)
    for what in ("domain_shape", "range_shape"):
        if not hasattr(operator, what):
            raise InputError(f"{name}: has no {what}; set it in __init__ (docs/extending.md)")
    for what in ("forward", "adjoint"):
        if getattr(kind, what) is getattr(LinearOperator, what):
            raise InputError(f"{name}: does not define {what} (docs/extending.md)")
    generator = torch.Generator().manual_seed(0)
    drawn = torch.complex128 if operator.domain_complex else torch.float64
    x = torch.randn(operator.domain_shape, generator=generator, dtype=drawn).to(operator.device, operator.dtype)
    with torch.no_grad():
        y = _shaped(operator(x), operator.range_shape, f"{name}: forward", "range_shape")
        back = _shaped(operator.adjoint(y), operator.domain_shape, f"{name}: adjoint", "domain_shape")
    power, x = float(own_inner(y, y)), x.to(back.dtype)
    gap = math.hypot(float(own_inner(x, back)) - power, float(own_inner(1j * x, back)) if x.is_complex() else 0.0)
    if gap > (UNMATCHED + operator.adjoint_gap) * power:
        log.warning(
            "%s: its adjoint is not that of its forward (|<A x, A x> - <x, A^H A x>| is %.2g of |A x|^2 for noise x), "
            "so methods may diverge; make it exact (docs/extending.md)",
            name,
            gap / power if power else math.inf,
        )


def _shaped(made: Any, shape: tuple[int, ...], what: str, said: str) -> Tensor:
    if not isinstance(made, Tensor) or tuple(made.shape) != tuple(shape):
        given = tuple(made.shape) if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise InputError(f"{what} gives {given}, and {said} is {tuple(shape)} (docs/extending.md)")
    return made
