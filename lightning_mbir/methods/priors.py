"""What a method takes for a prior: a bundled one, a file, a function with a unit, or one of another package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.flags import is_class_path
from lightning_mbir.lazy import imported
from lightning_mbir.prior import SliceDenoiser, Unit, load_prior
from lightning_mbir.slabs import whole_only

HOW_TO = (
    "a prior is a name, a file, or a function (x, sigma) -> x0 with a .unit; a network becomes one by "
    "lightning_mbir.prior.SliceDenoiser(network, Unit.of('ct')), one of epsilon by EpsilonNetwork (docs/extending.md)"
)


class Prior(Protocol):
    """What ``reconstruct`` needs of a prior; ``SliceDenoiser`` is one, and so is any function with a unit."""

    @property
    def unit(self) -> Unit:
        """The affine map between its unit and the physical one."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Posterior mean of the clean slices ``(Z, Y, X)``, in its unit."""


def load_task_prior(
    source: str | Path | None,
    modality: Modality,
    complex: bool = False,
    slice_batch: int | None = None,
    precision: str | None = None,
    compile: bool = False,
    network: str | None = None,
) -> SliceDenoiser:
    """``load_prior``, by default the bundled one of ``modality`` (complex or not), in the unit that fits.

    Every prior has learned slices in [0, 1]. One that does not tell of what (released files), or that is of the other
    modality, is given slices of ``modality`` in the unit of our own priors of it. What is a class path instead of a
    name or a file (``package.module.name``) is a ``SliceDenoiser`` of another package, or makes one when it is called.
    Its ``precision`` is its own; of all others that is float32, unless it is given.

    Raises:
        InputError: see ``load_prior``; a class path where there is no prior, or with a precision or ``compile``.
    """
    if source is None:
        source = f"{modality}_complex" if complex else modality
    if not isinstance(source, str | Path):
        raise InputError(
            f"--prior: gives a {type(source).__name__}; give a name, a file or a class path (package.module.name); "
            "objects are for reconstruct()"
        )
    if is_class_path(source):
        found = imported("--prior", str(source), SliceDenoiser)
        prior = found if isinstance(found, SliceDenoiser) else found() if callable(found) else None
        if not isinstance(prior, SliceDenoiser):
            raise InputError(f"--prior {source}: gives a {type(prior).__name__}, no SliceDenoiser; {HOW_TO}")
        if precision not in (None, "auto") or compile:
            raise InputError(f"--prior {source}: its SliceDenoiser has precision and compile; set them there")
        prior = prior.but(slice_batch=slice_batch or prior.slice_batch)  # which may be in use elsewhere
        return in_unit_of(prior, modality)
    return in_unit_of(load_prior(source, slice_batch, precision or "float32", compile, network), modality)


def in_unit_of(prior: SliceDenoiser, modality: Modality) -> SliceDenoiser:
    """The prior in the unit of the task, unless it was given one of its own."""
    loaded = Unit.of(prior.modality) if prior.modality else Unit()  # as `load_prior` has it
    if prior.modality == modality or prior.unit != loaded:
        return prior
    return prior.but(unit=Unit.of(modality))


def placed(prior: Prior, spacing: Sequence[float] | None, depth: int) -> Prior:
    """A prior of neighbouring slices told how far apart they are; any other as it is.

    Args:
        prior: of the stack.
        spacing: mm from slice to slice, and whatever more; None where that is not known.
        depth: slices of the stack.

    Raises:
        InputError: no spacing, or too few slices.
    """
    together = getattr(prior, "slices", 1)
    if not isinstance(prior, SliceDenoiser) or together == 1:
        return prior
    if spacing is not None:
        prior = prior.but(spacing=float(spacing[0]), chosen=prior.chosen)  # its slice batches are settled for both
    prior.check_stack(depth)
    return prior


def check_pair(prior: Prior, second: Prior) -> None:
    """Raise where two priors cannot take turns on one volume."""
    if getattr(prior, "complex", False) != getattr(second, "complex", False):
        raise InputError("--second_prior: one prior is of complex slices, the other of real ones; give two of a kind")
    if getattr(second, "slices", 1) > 1:
        whole_only("--second_prior: it is of neighbouring slices, not all of which are with one process")
    if prior.unit != second.unit:
        raise InputError(f"--second_prior: it is in {second.unit}, the first prior in {prior.unit}; give one unit")


def as_prior(prior: Any, modality: Modality, complex: bool, device: torch.device) -> Prior:
    """What ``reconstruct`` was given, as a prior on a device.

    Raises:
        InputError: no such file, or an object that is no prior.
    """
    if prior is None or isinstance(prior, str | Path):
        return load_task_prior(prior, modality, complex).to(device)
    if not callable(prior) or not isinstance(getattr(prior, "unit", None), Unit):
        raise InputError(f"prior {prior!r:.80}: is none; {HOW_TO}")
    return in_unit_of(prior, modality) if isinstance(prior, SliceDenoiser) else prior
