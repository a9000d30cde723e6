"""One measurement for any number of methods: simulated from a volume, or really made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.phantoms.phase import smooth_phase
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.free_memory import check_fits
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.tasks import Task
from lightning_mbir.physics import InSlabs, LinearOperator
from lightning_mbir.reconstruction.measured import estimated_noise, measured_operator
from lightning_mbir.slabs import current, everywhere, length, total, whole_only

Placing = Callable[[Callable[[bool], LinearOperator], int, bool], HostSlabs | None]
"""Where a volume is worked on, by the operators in host memory, its depth, and whether there are weights: a device that
slices pass through; None where all of it is on the device."""


@dataclass(frozen=True)
class Case:
    """What every method is given.

    Attributes:
        name: of the volume.
        operator: by whether it acts on complex volumes; built once for each.
        y: measurement in physical unit.
        weights: its statistical weights, where the noise differs from sample to sample.
        truth: the volume ``(Z, Y, X)`` that it was simulated from.
        spacing: voxel size ``(z, y, x)`` in mm.
        calibrated: CT: whether attenuation is in 1/mm.
        notes: what was done to a measurement.
        noise_std: standard deviation of the noise, of k-space in each part, of rays that differ in it that of one of
            mean weight; 0 where it is not known.
        noise_power: ``||n||^2`` that is to be expected of the noise of all slices, where that is known of itself.
        sized: whether the distance of the slices in ``spacing`` is known.
        host_slabs: the device that slices pass through, where all of this is in host memory and stays there.
    """

    name: str
    operator: Callable[[bool], LinearOperator]
    y: Tensor
    spacing: tuple[float, float, float]
    weights: Tensor | None = None
    truth: Tensor | None = None
    calibrated: bool = True
    notes: tuple[str, ...] = ()
    noise_std: float = 0.0
    noise_power: float = 0.0
    sized: bool = True
    host_slabs: HostSlabs | None = None

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.y.device if self.host_slabs is None else self.host_slabs.device

    def passing(self, complex: bool) -> LinearOperator:
        """The operator, which works on the device wherever volumes are."""
        own = self.operator(complex)
        return own if self.host_slabs is None else InSlabs(own, self.host_slabs)

    def misfit(self, residual: float) -> float | None:
        """A residual ``||A x - y|| / ||y||`` over what the noise alone would leave; none where that is not known.

        About 1 is right. Far below, the noise is fitted; far above, model or method do not fit what was measured.
        """
        power = self.noise_power
        if not power and self.noise_std:
            power = self.noise_std**2 * int(total((self.y != 0).sum())) * (2 if self.y.is_complex() else 1)
        return residual * length(self.y) / math.sqrt(power) if power > 0 else None

    def acceleration(self, complex: bool) -> float | None:
        """Of the operator on complex or real volumes; of MRI alone."""
        own, slab = self.operator(complex).acceleration, current()
        if own is None or not slab.split:
            return own
        n = slab.stop - slab.start
        return slab.depth / float(total(torch.tensor(n / own, dtype=torch.float64, device=self.y.device)))


def simulate(
    scan: Volume,
    task: Task,
    settings: dict[str, Any],
    seed: int,
    has_phase: bool,
    device: torch.device | None = None,
    placing: Placing | None = None,
) -> Case:
    """Measure a volume as the task says; ``has_phase`` gives it a smooth phase first.

    Of a slab what one process would measure of it: phase and noise are those of the volume.

    Args:
        scan: the volume.
        task, settings, seed: what is measured.
        has_phase: whether it is given a phase.
        device: where the volume goes, and the measurement; it stays where it is by default.
        placing: whether it stays in host memory instead.
    """
    x, slab = scan.data, current()
    own = slice(slab.start, slab.stop) if slab.split else slice(None)
    shape = (slab.depth, *x.shape[1:]) if slab.split else x.shape
    pixel = (scan.spacing[1] + scan.spacing[2]) / 2

    @cache
    def on_host(complex: bool) -> LinearOperator:
        built = task.build_operator(shape[-1], pixel, seed=seed, complex=complex, **settings)
        if slab.split and (of_own := built.of_slices(slab.start, slab.stop)) is None:
            whole_only(f"{type(built).__name__} measures slices together")
        elif slab.split and of_own is not None:
            built = of_own
        return built

    slabs = None if placing is None else placing(on_host, len(x), "photons" in settings)
    x = x if slabs is not None or device is None else x.to(device)

    @cache
    def operator(complex: bool) -> LinearOperator:
        return on_host(complex).to(x.device)

    image = x
    if has_phase:
        image = torch.polar(x, smooth_phase(shape, np.random.RandomState(seed))[own].to(x))
    measuring = operator(has_phase) if slabs is None else InSlabs(operator(has_phase), slabs)
    values = math.prod(measuring.range_shape) * (len(x) if measuring.separable else 1)
    what = f"{scan.name}: its measurement"  # once clean and once with noise, beside what is computed on the way
    check_fits(what, 3 * values * measuring.range_dtype.itemsize, "take part of the slices (--data.slices), or less")
    clean = measuring(image)
    if slab.split and not {"photons", "snr"} & settings.keys():
        return Case(scan.name, operator, clean, scan.spacing, truth=x, sized=scan.sized)  # on the device
    clean = everywhere(clean)  # the noise is drawn in one go
    y, weights = task.add_noise(clean, (seed, scan.name), **settings)
    std, power = task.noise_std(clean, weights, **settings), task.noise_power(clean, **settings)
    if slab.split:
        y, weights = y[own].clone(), None if weights is None else weights[own].clone()
    given = scan.name, operator, y, scan.spacing, weights, x
    return Case(*given, noise_std=std, noise_power=power, sized=scan.sized, host_slabs=slabs)


def measured(scan: Measurement, device: torch.device | None = None, placing: Placing | None = None) -> Case:
    """A measurement as it is, without truth; the affine tells its voxels. ``device`` and ``placing`` are those of
    ``simulate``."""
    x, y, z = (float(size) for size in np.linalg.norm(scan.affine[:3, :3], axis=0))

    @cache
    def on_host(complex: bool) -> LinearOperator:
        return measured_operator(scan, complex)

    slabs = None if placing is None else placing(on_host, len(scan.y), False)
    there = scan if slabs is not None or device is None else scan.to(device)

    @cache
    def operator(complex: bool) -> LinearOperator:
        return on_host(complex).to(there.y.device)

    return Case(
        scan.name,
        operator,
        there.y,
        (z, y, x),
        calibrated=scan.calibrated,
        notes=scan.notes,
        noise_std=scan.noise_std or estimated_noise(scan),
        sized=scan.sized,
        host_slabs=slabs,
    )
