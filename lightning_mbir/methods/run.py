"""One method on one measurement, with the options that it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError, whole_number
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.fbp_unet import read_unet
from lightning_mbir.methods.limits import check_size, fits, plain
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.numbers import as_measured, check_given, missed, usable
from lightning_mbir.methods.priors import Prior, as_prior, check_pair, placed
from lightning_mbir.methods.problem import Problem, Scan
from lightning_mbir.methods.units import measured_scale, measured_unit
from lightning_mbir.physics import InSlabs, LinearOperator, Weighted
from lightning_mbir.physics.ct.geometry import warn_edge_bins
from lightning_mbir.prior import SliceDenoiser, Unit
from lightning_mbir.samplers import Callback, KeyedNoise, SamplerState
from lightning_mbir.slabs import current, every, length, total, turned, turned_back, whole_only


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
        tuning: a ``Tuning``, where the measurement has chosen the method or its options.
    """

    volume: Tensor
    method: str
    nfe: int
    seconds: float
    residual: float
    tuning: Any = field(default=None, kw_only=True)

    @property
    def image(self) -> Tensor:
        """What is looked at: the magnitude of a complex volume, else the volume."""
        return self.volume.abs() if self.volume.is_complex() else self.volume


@torch.no_grad()
def run_method(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | str | Path | None = None,
    method: str | Method | Callable[..., Tensor] = "dds",
    *,
    modality: Modality | None = None,
    seed: int = 0,
    volume: int | str = 0,
    sample: int = 0,
    weights: Tensor | None = None,
    noise_std: float = 0.0,
    second_prior: Prior | str | Path | None = None,
    network: str | Path | None = None,
    steps: int | None = None,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
    calibrated: bool = True,
    spacing: tuple[float, float, float] | None = None,
    scale: float | None = None,
    host_slabs: HostSlabs | None = None,
    **options: Any,
) -> Reconstruction:
    """Reconstruct a volume by one method with the options that are given, over its defaults.

    Where several processes hold slabs of the volume (``slabs.holding``), measurement, operator, weights and result are
    those of the slab, all else is that of the volume.

    Args:
        y: measurement in physical unit: ``(Z, *range_shape)`` of an operator on slices, ``range_shape`` of one on
            volumes (``separable`` false). Of any type; the work is done in that of the operator. The largest value
            lies between 1e-15 and 1e15, so that sums of squares do.
        operator: ``A``, in physical unit; it may have any norm.
        prior: a denoiser ``(x, sigma) -> x0`` with its ``unit``, or what ``load_prior`` takes; by default the
            bundled one of the modality. Methods without a prior do not look at it.
        method: a name in ``METHODS``, a class path (``package.module.name``), or a function of a ``Problem``.
        modality: ``"ct"`` or ``"mri"``, which sets the unit, the prior and the methods there are; by default ``"mri"``
            where the measurement is complex, else ``"ct"``.
        seed, volume, sample: key of the noise; the same key gives the same volume.
        weights: inverse variances of ``y``, ``(Z, *range_shape)`` or ``range_shape``; methods then fit
            ``W^(1/2) A x = W^(1/2) y``, with ``A`` brought to unit norm and ``W`` to a mean of 1 over the energy of
            ``y``. ``residual`` stays unweighted.
        noise_std: standard deviation of the noise of ``y``, of a complex one in each part, with weights where they are
            what they are on average over the energy of ``y``; 0 where it is not known.
            ``dds`` goes by it where it has a ``sigma_y`` above 0, as the options of ``cs_mri`` do.
        second_prior: a prior of coronal slices, in the unit of ``prior``; of methods that need one.
        network: file of a trained network; of methods that need one.
        steps: noise levels or iterations.
        callback: called after each of them.
        checkpoint: keeps the state between them, and goes on from one that is there.
        calibrated: CT: whether attenuation is in 1/mm, so that the prior's unit is known; otherwise it is estimated.
        spacing: size ``(z, y, x)`` of a voxel in mm, which priors and networks of neighbouring slices need; no others
            look at it.
        scale: what ``measured_scale`` gave for a measurement that this one is a part of; else that of ``y``.
        host_slabs: where the work is done, where measurement, operator and result are in host memory and volumes are
            to stay there (docs/scale.md); priors have to be on that device. By default the work is done where ``y`` is.
        **options: of the method; their defaults are in its signature, and in its help.

    Raises:
        InputError: unknown method or option, a measurement of another shape, on another device, without slices, not
            finite, zero, too large or too small, a ``noise_std`` or ``spacing`` that cannot be, a prior that is missing
            or that is none, something else that the method needs and that is missing, weights that cannot be used or
            that the method has no use for, options with which the method diverges.
    """
    check_given(y, operator, weights)
    modality = modality or modality_of(operator)
    seed, sample = whole_number("seed", seed), whole_number("sample", sample)
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise InputError(f"noise_std {noise_std:g}: give a standard deviation, 0 where it is not known")
    check_size(noise_std, "noise_std")
    if spacing is not None and not all(math.isfinite(size) and size > 0 for size in spacing):
        raise InputError(f"spacing {spacing}: give the distance of the slices in mm, above 0, and the size of pixels")
    chosen = check_method(method, modality, options, steps)
    name = chosen.name
    if not chosen.splits:
        whole_only(f"{name} does not say that it can do with some of the slices (splits=True)")
    device, passing = y.device, operator
    if host_slabs is not None:
        if y.device.type != "cpu" or current().split:
            raise InputError("host_slabs: of a whole volume in host memory; leave it out for one on a device, or split")
        device, passing = host_slabs.device, InSlabs(operator, host_slabs)
    y = as_measured(y, operator, volume)
    operator.check_range(y)
    if y.ndim != len(operator.range_shape) + operator.separable:
        shape = ", ".join(["Z"] * operator.separable + [str(size) for size in operator.range_shape])
        raise InputError(f"the measurement is {tuple(y.shape)}; give ({shape})")
    if modality == "ct":
        warn_edge_bins(y, getattr(operator, "outer_bins", (0, -1)))
    coil_maps = getattr(operator, "coil_maps", None) is not None
    chosen.check_needs(second_prior=second_prior is not None, network=network is not None, coil_maps=coil_maps)
    unet = None
    if network is not None and "network" in chosen.needs:
        unet = read_unet(Path(network))
        unet.check_geometry(operator)
        unet = replace(unet, spacing=None if spacing is None else spacing[0], device=device)
    if weights is not None and not chosen.weighted:
        raise InputError(f"{name} fits no data term that weights could go into; leave weights out")
    weighted = None
    if weights is not None:
        weights = weights.to(y.device)
        weighted = Weighted(passing, weights)
        weighted.check_range(y)
        weights = usable(weights, operator.real_dtype, "weights")
    denoise: Prior | None = None
    if chosen.needs_prior or (not chosen.ours and prior is not None):  # a plain function does not say what it needs
        denoise = as_prior(prior, modality, operator.domain_complex, device)
        own = len(y) if operator.separable else operator.domain_shape[0]
        denoise = placed(denoise, spacing, current().depth if current().split else own)
        if operator.domain_complex and not getattr(denoise, "complex", False):
            raise InputError(
                f"{name}: the prior is of magnitudes; wrap the operator in RealDomain, or give a complex one"
            )
        if getattr(denoise, "complex", False) and not operator.domain_complex:
            raise InputError(f"{name}: the prior is of complex slices; give an operator on these, without RealDomain")
        chosen.check_needs(gradients=hasattr(denoise, "vjp"))
    second: Prior | None = None
    if "second_prior" in chosen.needs:
        second = as_prior(second_prior, modality, operator.domain_complex, device)
        second = placed(second, spacing and spacing[1:], operator.domain_shape[-2])  # along y
        assert denoise is not None
        check_pair(denoise, second)

    priors = [own for own in (denoise, second) if isinstance(own, SliceDenoiser) and own.slice_batch is None]
    checkpoint.begin(sample, y.device, [own.chosen for own in priors])
    _wait(y)
    started = time.perf_counter()
    unit = denoise.unit if denoise is not None else Unit.of(modality)
    if scale is None:
        scale = measured_scale(y, passing, modality, calibrated)
    unit = measured_unit(unit, scale, modality, calibrated)
    norm = passing.norm()
    if norm == 0:
        raise InputError(f"{type(operator).__name__} measures nothing: its norm is 0; check its geometry")
    if not fits(norm):
        raise InputError(f"{type(operator).__name__} has a norm of {norm:g}; check its geometry, lengths are in mm")
    # Of complex volumes the noise of both parts counts, as for the levels of a complex prior.
    noise_unit = noise_std * (2**0.5 if operator.domain_complex else 1.0) / (unit.scale * norm)
    if weights is not None:  # rho and lambda relate to what was measured of the object, not to rays through air
        power = y.abs().square()
        weighed, unweighed = total(torch.stack(((weights.to(power) * power).sum(), power.sum())))
        norm *= float(weighed / unweighed.clamp_min(1e-30)) ** 0.5
    nfe = 0

    def report(state: SamplerState) -> None:
        nonlocal nfe
        nfe = state.nfe
        if callback is not None:
            callback(replace(state, scale=unit.scale, offset=unit.offset))

    noise = KeyedNoise(seed, volume, sample, first=current().start)
    given: dict[str, Any] = {"denoise": denoise, "second": second and _turned(second), "network": unet}
    problem = Problem(
        scan=Scan(y, passing, unit, norm, weighted),
        operator=(passing if weighted is None else weighted) / norm,
        physical=operator,
        noise=noise,
        report=report,
        noise_std=noise_unit,
        checkpoint=checkpoint,
        host_slabs=host_slabs,
        **{key: value for key, value in given.items() if value is not None},
    )
    settings = {**chosen.options, **plain(options)}
    if chosen.steps:
        settings["steps"] = chosen.steps if steps is None else whole_number("--steps", steps)
    x = _checked(name, chosen(problem, **settings), operator) * unit.scale + unit.offset
    _wait(x)
    seconds = checkpoint.seconds + time.perf_counter() - started
    if not every(bool(torch.isfinite(x).all()), x.device):
        raise InputError(f"{name} diverged with {settings}; go back to its defaults")
    size = length(y)
    residual = missed(passing, x, y) / size if size > 0 else 0.0
    return Reconstruction(x, name, nfe, seconds, residual)


def modality_of(operator: LinearOperator) -> Modality:
    """MRI is measured in complex numbers, CT in real ones; other operators have to be told (``modality=``)."""
    return "mri" if operator.range_complex else "ct"


def _turned(prior: Prior) -> Prior:
    """A prior of coronal slices for processes that have some axial slices each."""
    if not current().split:
        return prior
    return _Turned(prior)


class _Turned:
    """Denoises coronal slices that are whole, some in each process."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.unit = prior, prior.unit

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return turned_back(self.prior(turned(x), sigma), len(x))


def _checked(name: str, volume: Any, operator: LinearOperator) -> Tensor:
    """The volume that a method gave, which may be one of a user's own."""
    if not isinstance(volume, Tensor):
        raise InputError(f"method {name}: returned a {type(volume).__name__}, not a volume")
    try:
        operator.check_domain(volume)
    except InputError as error:
        raise InputError(f"method {name}: returned no volume of this problem: {error}") from error
    if volume.is_complex() and not operator.domain_complex:
        raise InputError(f"method {name}: returned a complex volume, and this one is real; give its .real")
    return volume


def _wait(tensor: Tensor) -> None:
    """Let a GPU finish, so that the clock tells the work and not its queueing."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
