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
from lightning_mbir.methods.tasks import Task
from lightning_mbir.physics import LinearOperator
from lightning_mbir.physics.noise import kspace_noise, projection_noise
from lightning_mbir.reconstruction.measured import measured_operator


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
        noise_std: standard deviation of the noise, of k-space in each part; 0 where it is not known or differs from
            sample to sample.
        sized: whether the distance of the slices in ``spacing`` is known.
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
    sized: bool = True

    def misfit(self, residual: float) -> float | None:
        """A residual ``||A x - y|| / ||y||`` over what the noise alone would leave; none where that is not known.

        About 1 is right. Far below, the noise is fitted; far above, model or method do not fit what was measured.
        """
        if self.noise_std == 0:
            return None
        values = int((self.y != 0).sum()) * (2 if self.y.is_complex() else 1)
        noise = self.noise_std * math.sqrt(values)
        return residual * float(torch.linalg.vector_norm(self.y)) / noise if noise > 0 else None


def simulate(scan: Volume, task: Task, settings: dict[str, Any], seed: int, has_phase: bool) -> Case:
    """Measure a volume on its device as the task says; ``has_phase`` gives it a smooth phase first."""
    x = scan.data
    pixel = (scan.spacing[1] + scan.spacing[2]) / 2

    @cache
    def operator(complex: bool) -> LinearOperator:
        built = task.build_operator(x.shape[-1], pixel, seed=seed, complex=complex, **settings)
        return built.to(x.device)

    image = x
    if has_phase:
        image = torch.polar(x, smooth_phase(x.shape, np.random.RandomState(seed)).to(x))
    measuring = operator(has_phase)
    values = math.prod(measuring.range_shape) * (len(x) if measuring.separable else 1)
    what = f"{scan.name}: its measurement"  # once clean and once with noise, beside what is computed on the way
    check_fits(what, 3 * values * measuring.range_dtype.itemsize, "take part of the slices (--data.slices), or less")
    clean = measuring(image)
    y, weights = task.add_noise(clean, (seed, scan.name), **settings)
    return Case(scan.name, operator, y, scan.spacing, weights, x, noise_std=task.noise_std(clean, **settings))


def measured(scan: Measurement) -> Case:
    """A measurement as it is, without truth; the affine tells its voxels."""
    x, y, z = (float(size) for size in np.linalg.norm(scan.affine[:3, :3], axis=0))

    @cache
    def operator(complex: bool) -> LinearOperator:
        return measured_operator(scan, complex)

    estimate = kspace_noise if scan.modality == "mri" else projection_noise
    return Case(
        scan.name,
        operator,
        scan.y,
        (z, y, x),
        calibrated=scan.calibrated,
        notes=scan.notes,
        noise_std=scan.noise_std or estimate(scan.y),
        sized=scan.sized,
    )
