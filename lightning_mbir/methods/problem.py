"""What a method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.method import NEEDS
from lightning_mbir.physics import InSlabs, LinearOperator
from lightning_mbir.samplers import Callback, KeyedNoise, SamplerState


def _missing(need: str) -> Callable[..., Any]:
    def missing(*_: Any, **__: Any) -> NoReturn:
        raise InputError(f"this method needs {NEEDS[need]}, and does not say so: @method(needs=({need!r},))")

    return missing


NO_PRIOR, NO_SECOND, NO_NETWORK = (_missing(need) for need in ("prior", "second_prior", "network"))


@dataclass(frozen=True)
class Problem:
    """``y = A x`` in the prior's unit, with an operator of unit norm, so that one setting of rho and lambda serves all
    geometries.

    Attributes:
        y: measurement, divided by the norm of the operator; with weights, times their roots.
        operator: ``A / ||A||``; with weights, ``W^(1/2) A`` instead of ``A``.
        physical: ``A`` itself, for what needs its geometry.
        measured: measurement of ``A`` itself, neither divided nor weighted.
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

    y: Tensor
    operator: LinearOperator
    physical: LinearOperator
    measured: Tensor
    noise: KeyedNoise
    report: Callback
    denoise: Any = NO_PRIOR
    second: Any = NO_SECOND
    network: Callable[[Tensor, int], Tensor] = NO_NETWORK
    noise_std: float = 0.0
    checkpoint: Checkpoint = UNKEPT
    host_slabs: HostSlabs | None = None

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
