"""From a measurement to a volume in one call."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.methods.fbp_unet import read_unet
from lightning_mbir.methods.method_checks import check_method, check_needs
from lightning_mbir.methods.methods import METHODS, Problem
from lightning_mbir.methods.units import ct_scale, mri_scale
from lightning_mbir.physics import LinearOperator, RealDomain, Weighted
from lightning_mbir.physics.ct.geometry import warn_edge_bins
from lightning_mbir.prior import SliceDenoiser, Unit, load_prior
from lightning_mbir.samplers import Callback, KeyedNoise, SamplerState


class Prior(Protocol):
    """What ``reconstruct`` needs of a prior; ``SliceDenoiser`` is one, and so is any function with a unit."""

    @property
    def unit(self) -> Unit:
        """The affine map between its unit and the physical one."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Posterior mean of the clean slices ``(Z, Y, X)``, in its unit."""


@dataclass(frozen=True)
class Reconstruction:
    """A reconstructed volume and what it took.

    Attributes:
        volume: ``(Z, Y, X)`` in physical unit (CT: 1/mm; MRI: that of the measurement), complex
            where the operator takes complex volumes.
        method: name of the method.
        nfe: network evaluations, each of the whole volume.
        seconds: wall time.
        residual: ``||A x - y|| / ||y||``.
    """

    volume: Tensor
    method: str
    nfe: int
    seconds: float
    residual: float

    @property
    def image(self) -> Tensor:
        """What is looked at: the magnitude of a complex volume, else the volume."""
        return self.volume.abs() if self.volume.is_complex() else self.volume


@torch.no_grad()
def reconstruct(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | str | Path | None = None,
    method: str = "dds",
    *,
    seed: int = 0,
    volume: int | str = 0,
    sample: int = 0,
    weights: Tensor | None = None,
    noise_std: float = 0.0,
    second_prior: Prior | str | Path | None = None,
    network: str | Path | None = None,
    steps: int | None = None,
    callback: Callback | None = None,
    calibrated: bool = True,
    **options: Any,
) -> Reconstruction:
    """Reconstruct a volume.

    Args:
        y: measurement in physical unit: ``(Z, *range_shape)`` of an operator on slices, ``range_shape`` of one on
            volumes (``separable`` false).
        operator: ``A``, in physical unit; it may have any norm.
        prior: a denoiser ``(x, sigma) -> x0`` with its ``unit``, or what ``load_prior`` takes; by default the
            bundled one of the modality. Methods without a prior do not look at it.
        method: a name in ``METHODS``.
        seed, volume, sample: key of the noise; the same key gives the same volume.
        weights: inverse variances of ``y``, ``(Z, *range_shape)`` or ``range_shape``; methods then fit
            ``W^(1/2) A x = W^(1/2) y``, with ``A`` brought to unit norm and ``W`` to a mean of 1 over the energy of
            ``y``. ``residual`` stays unweighted.
        noise_std: MRI: standard deviation of the noise in each part of ``y``, 0 where it is not known. ``dds`` goes by
            it where it has a ``sigma_y`` above 0, as the options of the task do.
        second_prior: a prior of coronal slices, in the unit of ``prior``; of methods that need one.
        network: file of a trained network; of methods that need one.
        steps: noise levels or iterations.
        callback: called after each of them.
        calibrated: CT: whether attenuation is in 1/mm, so that the prior's unit is known; otherwise it is estimated.
        **options: of the method; its defaults are in ``METHODS``.

    Raises:
        InputError: unknown method or option, a measurement of another shape or not finite, a ``noise_std`` that cannot
            be, a prior that is missing or that is none, something else that the method needs and that is missing,
            weights that cannot be used or that the method has no use for, options with which the method diverges.
    """
    modality: Modality = "mri" if operator.range_complex else "ct"
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise InputError(f"noise_std {noise_std:g}: give a standard deviation, 0 where it is not known")
    check_method(method, modality, options, steps)
    operator.check_range(y)
    if y.ndim != len(operator.range_shape) + operator.separable:
        shape = ", ".join(["Z"] * operator.separable + [str(size) for size in operator.range_shape])
        raise InputError(f"the measurement is {tuple(y.shape)}; give ({shape})")
    if y.is_complex() and not operator.range_complex:
        raise InputError(f"the measurement is complex; {type(operator).__name__} measures real values")
    if not bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()):
        raise InputError("the measurement has NaN or infinite values; correct them first")
    if modality == "ct":
        warn_edge_bins(y)
    chosen = METHODS[method]
    sampling = operator.operator if isinstance(operator, RealDomain) else operator
    coil_maps = getattr(sampling, "coil_maps", None) is not None
    check_needs(method, second_prior=second_prior is not None, network=network is not None, coil_maps=coil_maps)
    unet = None
    if network is not None and "network" in chosen.needs:
        unet = read_unet(Path(network))
        unet.check_geometry(operator)
    if weights is not None and not chosen.weighted:
        raise InputError(f"{method} fits no data term that weights could go into; leave weights out")
    weighted = None if weights is None else Weighted(operator, weights.to(y.device))
    denoise: Prior | None = None
    if chosen.needs_prior:
        denoise = _as_prior(prior, modality, operator.domain_complex, y.device)
        if operator.domain_complex and not getattr(denoise, "complex", False):
            raise InputError(
                f"{method}: the prior is of magnitudes; wrap the operator in RealDomain, or give a complex one"
            )
        if getattr(denoise, "complex", False) and not operator.domain_complex:
            raise InputError(f"{method}: the prior is of complex slices; give an operator on these, without RealDomain")
        check_needs(method, gradients=hasattr(denoise, "vjp"))
    second: Prior | None = None
    if "second_prior" in chosen.needs:
        second = _as_prior(second_prior, modality, operator.domain_complex, y.device)
        assert denoise is not None
        check_pair(denoise, second)
    y = y.to(operator.range_dtype)

    _wait(y)
    started = time.perf_counter()
    unit = denoise.unit if denoise is not None else Unit.of(modality)
    if modality == "mri":
        unit = Unit(unit.scale * mri_scale(y, operator), unit.offset)
    elif not calibrated:
        unit = Unit(ct_scale(y, operator))
    if unit.offset:
        constant = torch.full(operator.domain_shape, unit.offset, dtype=operator.dtype, device=y.device)
        y_unit = (y - operator(constant)) / unit.scale
    else:
        y_unit = y / unit.scale
    fitted, y_fitted = operator, y_unit
    if weighted is not None:
        fitted, y_fitted = weighted, weighted.scale(y_unit)
    norm = operator.norm()
    if norm == 0:
        raise InputError(f"{type(operator).__name__} measures nothing: its norm is 0; check its geometry")
    # Of complex volumes the noise of both parts counts, as for the levels of a complex prior.
    noise_unit = noise_std * (2**0.5 if operator.domain_complex else 1.0) / (unit.scale * norm)
    if weights is not None:  # rho and lambda relate to what was measured of the object, not to rays through air
        power = y.abs().square()
        norm *= float((weights.to(power) * power).sum() / power.sum().clamp_min(1e-30)) ** 0.5
    nfe = 0

    def report(state: SamplerState) -> None:
        nonlocal nfe
        nfe = state.nfe
        if callback is not None:
            callback(state)

    noise = KeyedNoise(seed, volume, sample)
    problem = Problem(
        y_fitted / norm, fitted / norm, operator, y_unit, denoise, noise, report, second, unet, noise_unit
    )
    settings = {**chosen.options, **options}
    if chosen.steps:
        settings["steps"] = chosen.steps if steps is None else steps
    x = chosen.run(problem, **settings) * unit.scale + unit.offset
    _wait(x)
    seconds = time.perf_counter() - started
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"{method} diverged with {settings}; go back to its defaults")
    size = float(torch.linalg.vector_norm(y))
    residual = float(torch.linalg.vector_norm(operator(x) - y)) / size if size > 0 else 0.0
    return Reconstruction(x, method, nfe, seconds, residual)


def load_task_prior(
    source: str | Path | None,
    modality: Modality,
    complex: bool = False,
    slice_batch: int | None = None,
    precision: str = "float32",
    compile: bool = False,
) -> SliceDenoiser:
    """``load_prior``, by default the bundled one of ``modality`` (complex or not), in the unit that fits.

    Every prior has learned slices in [0, 1]. One that does not tell of what (released files), or that is of the other
    modality, is given slices of ``modality`` in the unit of our own priors of it.
    """
    if source is None:
        source = f"{modality}_complex" if complex else modality
    return _in_unit_of(load_prior(source, slice_batch, precision, compile), modality)


def _in_unit_of(prior: SliceDenoiser, modality: Modality) -> SliceDenoiser:
    """The prior in the unit of the task, unless it was given one of its own."""
    loaded = Unit.of(prior.modality) if prior.modality else Unit()  # as `load_prior` has it
    if prior.modality == modality or prior.unit != loaded:
        return prior
    prior = copy.copy(prior)
    prior.unit = Unit.of(modality)
    return prior


def check_pair(prior: Prior, second: Prior) -> None:
    """Raise where two priors cannot take turns on one volume."""
    if getattr(prior, "complex", False) != getattr(second, "complex", False):
        raise InputError("--second_prior: one prior is of complex slices, the other of real ones; give two of a kind")
    if prior.unit != second.unit:
        raise InputError(f"--second_prior: it is in {second.unit}, the first prior in {prior.unit}; give one unit")


def _as_prior(prior: Prior | str | Path | None, modality: Modality, complex: bool, device: torch.device) -> Prior:
    if prior is None or isinstance(prior, str | Path):
        return load_task_prior(prior, modality, complex).to(device)
    if not callable(prior) or not isinstance(getattr(prior, "unit", None), Unit):
        raise InputError(f"prior {prior!r}: give a name, a file, or a function (x, sigma) -> x0 with a .unit")
    return _in_unit_of(prior, modality) if isinstance(prior, SliceDenoiser) else prior


def _wait(tensor: Tensor) -> None:
    """Let a GPU finish, so that the clock tells the work and not its queueing."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
