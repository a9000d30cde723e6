"""Measurements that were really made: their operators, and parts of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
import torch

from lightning_mbir.data.measurements.angles import SAME, from_start, spread_evenly
from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.measurements.own_layout import COUPLED
from lightning_mbir.data.measurements.trajectory import travelled
from lightning_mbir.data.measurements.whitening import whitening_matrix
from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    ConeBeam,
    FanBeam,
    FourierSampling,
    LinearOperator,
    MatrixOperator,
    ModularBeam,
    MultiCoilFourier,
    OffResonance,
    ParallelBeam,
    RealDomain,
    coil_compression,
    complete_partial_fourier,
    compressed,
    estimate_coil_maps,
    make_mask,
)
from lightning_mbir.physics.mri.coil_maps import sampled_centre
from lightning_mbir.physics.mri.partial_fourier import measured_block
from lightning_mbir.physics.noise import kspace_covariance, kspace_noise, projection_noise


def matrix_operator(
    matrix: scipy.sparse.csr_matrix, image_size: int, n_detectors: int, angles: list[float]
) -> LinearOperator:
    """The operator of square slices by a matrix, see ``MatrixOperator``; ``angles`` are one a view."""
    return MatrixOperator(matrix, (image_size, image_size), (len(angles), n_detectors), angles)


BEAMS: dict[str, Callable[..., LinearOperator]] = {
    "parallel": ParallelBeam,
    "fan": FanBeam,
    "cone": ConeBeam,
    "modular": ModularBeam,
    "matrix": matrix_operator,
}


def measured_operator(measurement: Measurement, complex: bool = True) -> LinearOperator:
    """The operator of a measurement, on its device; that of MRI acts on complex volumes, or on magnitudes.

    Maps of several coils are those of the file, or estimated from the middle of k-space.

    Raises:
        InputError: a measurement whose file leaves something open, a geometry that cannot be.
    """
    _check_answered(measurement)
    if measurement.modality == "ct":
        geometry = dict(measurement.geometry)
        with warnings.catch_warnings(record=True) as caught:
            operator = BEAMS[geometry.pop("beam")](**geometry)
        for warning in caught:  # the caller's, who knows the file and not the class
            warnings.warn(f"{measurement.name}: {warning.message}", warning.category, stacklevel=2)
        return operator.to(measurement.y.device)
    mask = measurement.geometry["mask"]
    for wanted in ("whiten", "partial_fourier", "coil_energy"):
        if wanted in measurement.geometry:
            raise InputError(f"{measurement.name}: --data.{wanted} is not done yet; take part_of(measurement) first")
    if measurement.y.ndim == 4:
        maps = measurement.geometry.get("coil_maps")
        if maps is None:
            of_maps = measurement.geometry.get("calibration", measurement.y)
            maps = estimate_coil_maps(of_maps, measurement.geometry.get("centre"))
        # Of one slice: maps for all slices, which is what keeps the operator separable.
        sampling: LinearOperator = MultiCoilFourier(mask, maps[0] if maps.ndim == 4 and len(maps) == 1 else maps)
    else:
        sampling = FourierSampling(mask)
    if "b0" in measurement.geometry:
        sampling = OffResonance(sampling, measurement.geometry["b0"], measurement.geometry["times"])
    return (sampling if complex else RealDomain(sampling)).to(measurement.y.device)


def slices_of(measurement: Measurement, start: int, stop: int) -> Measurement:
    """Some of the slices, with what only all of them tell: the noise, and how much of the centre of k-space is sampled.

    Args:
        measurement: all slices, on the host.
        start, stop: those that are kept.

    Raises:
        InputError: a cone or modular beam, which measures slices together.
    """
    geometry, depth = dict(measurement.geometry), len(measurement.y)
    if geometry.get("beam") in COUPLED:
        raise InputError(
            f"{measurement.name}: a {geometry['beam']} beam measures all slices together; give --split volumes"
        )
    if measurement.modality == "mri" and measurement.y.ndim == 4 and geometry.get("coil_maps") is None:
        geometry["centre"] = sampled_centre(geometry.get("calibration", measurement.y))
    for name, alone in (("mask", 2), ("coil_maps", 3), ("calibration", 3), ("b0", 2)):
        value = geometry.get(name)
        if value is not None and value.ndim > alone and len(value) == depth:
            geometry[name] = value[start:stop].clone()
    noise_std = measurement.noise_std or estimated_noise(measurement)
    return replace(measurement, y=measurement.y[start:stop].clone(), geometry=geometry, noise_std=noise_std)


def estimated_noise(measurement: Measurement) -> float:
    """Standard deviation of its noise, from the data."""
    return (kspace_noise if measurement.modality == "mri" else projection_noise)(measurement.y)


def part_of(measurement: Measurement, seed: int = 0, **flags: Any) -> Measurement:
    """What would have been measured with fewer views, or with undersampled k-space.

    Of that, partial Fourier is completed and coils are compressed, where the measurement says so; see ``prepared``.

    Args:
        measurement: everything that was measured.
        seed: of the mask.
        **flags: ``views`` (spread evenly in angle) and ``angle_range`` (degrees from the start of the scan, see
            ``from_start``), or ``acc`` and ``mask``; those that are None change nothing.

    Raises:
        InputError: more views than were measured, a flag of what is simulated, k-space that is undersampled already,
            a measurement whose file leaves something open.
    """
    _check_answered(measurement)
    measurement = whitened(measurement)  # before anything is left out
    given = {name: value for name, value in flags.items() if value is not None}
    if not given:
        return prepared(measurement)
    for flag in ("photons", "snr", "phase", "coils"):
        if flag in given:
            raise InputError(f"--{flag}: {measurement.name} was measured and has its own; leave --{flag} out")
    if measurement.modality == "ct":
        return _fewer_views(measurement, **given)
    measured = measurement.geometry["mask"]
    # All but for a margin of zeros, as scanners pad k-space or leave a side out.
    if measured.ndim == 3 or measured_block(measured) is None:
        flag = next(iter(given))
        acceleration = measured.numel() / float(measured.sum())
        raise InputError(
            f"--{flag}: {measurement.name} is undersampled {acceleration:.3g}-fold already; leave --{flag} out"
        )
    kind, acc = given.get("mask", "gaussian1d"), given.get("acc", 8.0)
    along_y = measurement.geometry.get("phase_axis") == "y"
    whole = measured.shape[::-1] if along_y else measured.shape
    mask = make_mask(kind, (whole[0], whole[1]), acc, seed=seed)
    mask = (mask.T if along_y else mask) * measured.cpu()
    geometry = {**measurement.geometry, "mask": mask}
    note = f"{kind} mask keeps 1 of {mask.numel() / float(mask.sum()):.3g} samples"
    y = measurement.y * mask.to(measurement.y.device)
    return prepared(replace(measurement, y=y, geometry=geometry, notes=(*measurement.notes, note)))


def whitened(measurement: Measurement) -> Measurement:
    """With the noise of its coils made white by what the corners of k-space tell of it, where ``geometry`` says so; the
    same where it does not.

    Raises:
        InputError: too little in the corners.
    """
    if measurement.geometry.get("whiten") is None:
        return measurement
    geometry, coils = dict(measurement.geometry), measurement.y.shape[1]
    try:
        covariance = kspace_covariance(measurement.y)
    except InputError as error:
        raise InputError(f"{measurement.name}: {error}") from None
    del geometry["whiten"]
    matrix = torch.from_numpy(whitening_matrix(covariance.numpy()))
    for name in ("calibration", "coil_maps"):
        if name in geometry:
            geometry[name] = compressed(matrix, geometry[name])
    note = f"noise of {coils} coils whitened by its covariance, from the corners of k-space"
    white = math.sqrt(0.5)  # in each part, since E |n|^2 = 1
    y, notes = compressed(matrix, measurement.y), (*measurement.notes, note)
    return replace(measurement, y=y, geometry=geometry, notes=notes, noise_std=white)


def prepared(measurement: Measurement) -> Measurement:
    """With partial Fourier completed and coils compressed, where ``geometry`` says so; the same where it does not.

    Raises:
        InputError: k-space that does not lack one side alone, masks by slice or a field map beside it, a share of
            energy that is none.
    """
    geometry, y, notes = dict(measurement.geometry), measurement.y, measurement.notes
    kind, energy = geometry.pop("partial_fourier", None), geometry.pop("coil_energy", None)
    if kind is None and energy is None:
        return measurement
    _check_answered(measurement)
    if kind is not None:
        mask = geometry["mask"]
        if "b0" in geometry:
            raise InputError(f"--data.partial_fourier {kind}: not beside a field map b0; leave it at zero")
        if mask.ndim == 3:
            raise InputError(f"--data.partial_fourier {kind}: slices have masks of their own; leave it at zero")
        y = complete_partial_fourier(y, mask, kind)
        geometry["mask"] = torch.ones_like(mask)
        notes = (*notes, f"{1 - float(mask.mean()):.0%} of k-space, not measured, completed by {kind}")
    if energy is not None:
        matrix, kept = coil_compression(y, energy)
        y = compressed(matrix, y)
        for name in ("calibration", "coil_maps"):
            if name in geometry:
                geometry[name] = compressed(matrix, geometry[name].to(y.device))
        notes = (*notes, f"{matrix.shape[1]} coils compressed to {matrix.shape[0]}, {kept:.2%} of the energy")
    return replace(measurement, y=y, geometry=geometry, notes=notes)


def _check_answered(measurement: Measurement) -> None:
    if measurement.question:
        raise InputError(measurement.question)


def _fewer_views(measurement: Measurement, views: int | None = None, angle_range: float | None = None) -> Measurement:
    geometry, beam = dict(measurement.geometry), measurement.geometry["beam"]
    # The rays of a parallel beam are the same half a turn later, those of a helix never.
    period = 180.0 if beam == "parallel" else 360.0
    if beam == "modular":
        table = np.asarray(geometry["views"])
        along = travelled(table)
        period = period if along is None else math.inf
        places = from_start(np.degrees(np.arctan2(table[:, 0], -table[:, 1]))) if along is None else along
    else:
        places = from_start(np.asarray(geometry["angles"]))
    if beam == "matrix":  # parallel rays or a fan: opposite views count as the same where there is but half a turn
        period = 180.0 if places.max() <= 180 else 360.0
    inside = np.arange(len(places)) if angle_range is None else np.flatnonzero(places < max(angle_range - SAME, SAME))
    count = len(inside) if views is None else views
    if not 1 <= count <= len(inside):
        most = len(inside)
        raise InputError(f"--views {count}: {measurement.name} has {most} views in that range; give 1 to {most}")
    chosen = inside[spread_evenly(places[inside], count, period)]
    if beam == "matrix":
        rows = np.arange(geometry["matrix"].shape[0]).reshape(len(places), -1)[chosen]
        geometry["matrix"] = geometry["matrix"][rows.ravel()]
    for name in ("angles", "views", "curvature_radius"):
        if isinstance(geometry.get(name), list):
            geometry[name] = [geometry[name][view] for view in chosen]
    y = measurement.y.index_select(0 if beam in COUPLED else 1, torch.from_numpy(chosen).to(measurement.y.device))
    note = f"{count} of {len(places)} views"
    return replace(measurement, y=y, geometry=geometry, notes=(*measurement.notes, note))
