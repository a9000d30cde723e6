"""Where a volume is: on the device that works on it, or in host memory, from where slices pass through the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mbir.free_memory import free_memory
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.method import Method
from lightning_mbir.physics import InSlabs, LinearOperator
from lightning_mbir.physics.in_slabs import check_uncoupled
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.reconstruction.memory import needed_memory, told_memory

MOST = 64
"""Slices at a time beyond which nothing is gained: as many as go into one product of a projection (``CHUNK``)."""
TIMES, IN_PIECES = 2.7, 1.3
"""Slices of the volume, in the type of the measurement, and of this, that an operator has on the device for each one
that passes; of one that works in pieces (``working`` of 0 or little)."""
SHARE = 4
"""The part of the free memory that a slab may take; the rest is for slice batches of the networks."""


@dataclass(frozen=True)
class Work:
    """What is to be run on a volume.

    Attributes:
        method: with what it needs.
        operator: of the measurement.
        slices: of the volume.
        priors: those that the method runs, on the device.
        samples: how many are taken.
    """

    method: Method
    operator: LinearOperator
    slices: int
    priors: Sequence[SliceDenoiser] = ()
    samples: int = 1

    @property
    def depth(self) -> int:
        """Slices of the volume, which a measurement of coupled ones does not tell."""
        return self.slices if self.operator.separable else self.operator.domain_shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(Z, Y, X)``."""
        return self.depth, *self.operator.domain_shape[-2:]

    @property
    def y(self) -> Tensor:
        """A measurement that is not there."""
        own = self.operator
        shape = (self.depth, *own.range_shape) if own.separable else own.range_shape
        return torch.empty(shape, dtype=own.range_dtype, device="meta")


def placed(
    works: Sequence[Work], device: torch.device, weights: bool = False, wanted: int | None = None
) -> HostSlabs | None:
    """How slices pass through the device, of a volume that is to stay in host memory; None for one that fits there.

    Args:
        works: what is to be run on it.
        device: that of the work.
        weights: whether the measurement has statistical weights.
        wanted: slices at a time; None for what the memory says.

    Raises:
        InputError: slices that are wanted of an operator that couples them.
    """
    if wanted is not None:
        slabs = HostSlabs(device, min([wanted, *(work.depth for work in works)]))
        for work in works:
            check_uncoupled(work.operator, slabs)
        return slabs
    free = free_memory(device)
    if max((whole_bytes(work, device, weights) or 0 for work in works), default=0) <= free:
        return None
    if any(work.operator.of_slices(0, 1) is None for work in works):
        return None  # all or nothing; that there is too little memory is told
    return HostSlabs(device, min(slab_size(slice_bytes(work), free, work.depth) for work in works))


def slab_size(a_slice: int, free: int, depth: int) -> int:
    """How many slices pass through an operator at a time: as many as a quarter of the free memory holds, at most 64.

    Args:
        a_slice: bytes that it takes for one.
        free: bytes of the device.
        depth: slices of the volume.
    """
    return max(1, min(depth, MOST, free // SHARE // max(a_slice, 1)))


def told_slabs(slabs: HostSlabs, depth: int) -> str:
    """A line that says what is done."""
    return (
        f"the volume stays in host memory, and passes through {slabs.device} {slabs.slices} of {depth} slices at a time"
    )


def told_work(work: Work, y: Tensor, weights: Tensor | None, slabs: HostSlabs | None) -> tuple[str, bool] | None:
    """``told_memory`` of what is run.

    Args:
        work: with the operator where the measurement is.
        y, weights: the measurement.
        slabs: how slices pass through a device, where they do.
    """
    weights = weights if work.method.weighted else None
    if slabs is None:
        needed = needed_memory(work.method, work.operator, y, work.priors, weights, work.samples)
        return None if needed is None else told_memory(needed, y.device)
    needed = needed_memory(work.method, InSlabs(work.operator, slabs), y, (), weights, work.samples)
    return None if needed is None else told_memory(needed, slabs.device, device_bytes(work, slabs))


def whole_bytes(work: Work, device: torch.device, weights: bool = False) -> int | None:
    """What a run takes on a device that has all of the volume, with measurement, truth and operator."""
    y = work.y
    given = torch.empty(y.shape, device="meta") if weights and work.method.weighted else None
    taken = needed_memory(work.method, work.operator, y, work.priors, given, work.samples, device)
    if taken is None:
        return None
    truth = math.prod(work.shape) * work.operator.real_dtype.itemsize
    return taken + truth + y.nbytes * (1 + weights) + held_bytes(work.operator)


def device_bytes(work: Work, slabs: HostSlabs) -> int:
    """What a run takes on a device that slices pass through: the operator, where it is the same for all slices, and a
    slab in it or a slice batch in a network, whichever is more."""
    gradients = "gradients" in work.method.needs
    slab = slabs.slices * slice_bytes(work)
    batches = [prior.bytes_for(work.shape, slabs.device, gradients) for prior in work.priors]
    return max([slab, *batches]) + (held_bytes(work.operator) if work.operator.separable else 0)


def slice_bytes(work: Work) -> int:
    """What an operator takes on a device for a slice that passes, with what it has for this slice alone."""
    operator = work.operator
    volume = math.prod(work.shape[1:]) * operator.range_dtype.itemsize
    own = 0 if operator.separable else held_bytes(operator) // work.depth
    times = TIMES if operator.working >= 1 else IN_PIECES
    return int(times * (volume + work.y.nbytes / work.depth)) + own


def held_bytes(operator: LinearOperator) -> int:
    """Memory of an operator: its matrices, and all tensors that it has."""
    tensors: dict[int, int] = {}
    matrices = 0.0
    for part in operator.modules():
        for value in (*part._buffers.values(), *vars(part).values()):
            if isinstance(value, Tensor):
                tensors[value.data_ptr()] = value.nbytes
        if getattr(part, "backend", "") == "sparse":
            matrices += 1e9 * float(part.matrix_gigabytes)  # type: ignore[arg-type]
    return sum(tensors.values()) + int(matrices)
