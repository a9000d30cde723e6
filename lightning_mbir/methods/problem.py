"""What a method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.method import NEEDS
from lightning_mbir.physics import InSlabs, LinearOperator, Weighted
from lightning_mbir.prior import Unit
from lightning_mbir.samplers import Callback, KeyedNoise, SamplerState


def _missing(need: str) -> Callable[..., Any]:
    def missing(*_: Any, **__: Any) -> NoReturn:
        raise InputError(f"this method needs {NEEDS[need]}, and does not say so: @method(needs=({need!r},))")

    return missing


NO_PRIOR, NO_SECOND, NO_NETWORK = (_missing(need) for need in ("prior", "second_prior", "network"))


@dataclass(frozen=True)
class Scan:
    """What was measured. Nothing is made of it before it is asked for: that of many coils is many volumes large.

    Attributes:
        y: measurement in physical unit.
        operator: ``A``, where the work is done.
        unit: that of the prior.
        norm: what ``A``, or ``W^(1/2) A``, is divided by.
        weighted: ``W^(1/2) A``, where there are weights.
    """

    y: Tensor
    operator: LinearOperator
    unit: Unit
    norm: float
    weighted: Weighted | None = None

    def in_unit(self) -> Tensor:
        """``y`` of a volume in the prior's unit."""
        if not self.unit.offset:
            return self.y / self.unit.scale
        own = self.operator
        constant = torch.full(own.domain_shape, self.unit.offset, dtype=own.dtype, device=self.y.device)
        return (self.y - own(constant)) / self.unit.scale

    def fitted(self) -> Tensor:
        """That over the norm; with weights, times their roots."""
        y = self.in_unit()
        if self.weighted is not None:
            y = self.weighted.scale(y)
        return y.div_(self.norm)

    def back_projected(self, operator: LinearOperator) -> Tensor:
        """``A^H`` of what is fitted, without making it where that is ``y`` but for a factor.

        Args:
            operator: what fits.
        """
        if self.unit.offset or self.weighted is not None:
            return operator.adjoint(self.fitted())
        return self.operator.adjoint(self.y).div_(self.unit.scale * self.norm**2)


@dataclass(frozen=True)
class Problem:
    """``y = A x`` in the prior's unit, with an operator of unit norm, so that one setting of rho and lambda serves all
    geometries.

    Attributes:
        scan: what ``y``, ``rhs`` and ``measured`` are made of.
        operator: ``A / ||A||``; with weights, ``W^(1/2) A`` instead of ``A``.
        physical: ``A`` itself, for what needs its geometry.
        noise: keyed noise.
        report: takes progress after each noise level or iteration.
        denoise: the prior, for methods that need one: ``(x, sigma) -> x0``.
        second: a prior of coronal slices, for methods that need ``second_prior``.
        network: a trained network, for methods that need ``network``: slices ``(Z, Y, X)`` and a slice batch to slices.
        noise_std: of the noise in ``A^H y``: of its real part, or for complex volumes of both together; 0 where it is
            not known.
        checkpoint: keeps the state of what iterates, see ``lightning_mbir/checkpointing.py``.
        host_slabs: where the work is done on volumes that stay in host memory; ``operator`` and the priors see to that,
            ``physical`` is in host memory then.
    """

    scan: Scan
    operator: LinearOperator
    physical: LinearOperator
    noise: KeyedNoise
    report: Callback
    denoise: Any = NO_PRIOR
    second: Any = NO_SECOND
    network: Callable[[Tensor, int], Tensor] = NO_NETWORK
    noise_std: float = 0.0
    checkpoint: Checkpoint = UNKEPT
    host_slabs: HostSlabs | None = None

    @property
    def y(self) -> Tensor:
        """Measurement, divided by the norm of the operator; with weights, times their roots. Made at each look."""
        return self.scan.fitted()

    @property
    def rhs(self) -> Tensor:
        """``A^H y`` of ``operator``. Made at each look, without another measurement in memory where that can be."""
        return self.scan.back_projected(self.operator)

    @property
    def measured(self) -> Tensor:
        """Measurement of ``A`` itself, neither divided nor weighted. Made at each look."""
        return self.scan.in_unit()

    def inverse(self, invert: Callable[[Tensor, LinearOperator], Tensor]) -> Tensor:
        """``invert(measured, physical)``, by a function that takes each slice by itself; on the device, slab by slab,
        where volumes stay in host memory."""
        if self.host_slabs is None:
            return invert(self.measured, self.physical)
        return InSlabs(self.physical, self.host_slabs).inverse(invert, self.measured)

    def iteration(self, steps: int) -> Callable[..., None]:
        """The callback of a solver of so many iterations, which knows of no noise levels."""

        def report(k: int, x: Tensor) -> None:
            self.report(SamplerState(k, steps, 0.0, x, 0))

        return report
