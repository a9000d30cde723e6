"""Line integrals as one energy would have measured them: beam hardening of one material, and scatter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from lightning_mbir.data.measurements.angles import SAME, from_start
from lightning_mbir.errors import InputError

CONSISTENCY = "consistency"
MOST_BYTES, POINTS = 1 << 20, 4096
FLOOR = 1e-3
"""Share of a ray's intensity that is left at least when scatter is taken away."""
ITERATIONS = 8
"""For the scatter of what is not scattered, each of which leaves ``share`` of the error."""
MOMENTS = 3
"""Moments of each view, from the 0th on."""
LEAST_GAIN = 0.05
"""Share of the inconsistency that a polynomial has to take away to be believed."""


def linearised(path: Path, y: np.ndarray, how: str, geometry: dict[str, Any]) -> str:
    """Take beam hardening away from ``y``, in place.

    Args:
        path: of the measurement, for messages.
        y: ``(rows, views, bins)`` line integrals of one material.
        how: ``consistency`` (see ``consistent_polynomial``), or a text file of the coefficients of a polynomial or of a
            spectrum (see ``read_curve``).
        geometry: of the measurement.

    Returns:
        what was done.

    Raises:
        InputError: a file of a wrong form; for ``consistency``, no parallel beam, views over less than 180 degrees,
            an object that is cut off, or whose views are all alike.
    """
    if how == CONSISTENCY:
        if geometry["beam"] != "parallel":
            raise InputError(
                f"--data.beam_hardening consistency: {path} has a {geometry['beam']} beam, that is for parallel rays; "
                "give a file of a polynomial or of a spectrum"
            )
        positions = np.arange(y.shape[2]) - (y.shape[2] - 1) / 2
        positions = positions * geometry["detector_spacing"] - geometry["center_offset"]
        coefficients, left = consistent_polynomial(path, y, np.asarray(geometry["angles"]), positions)
        for row in y:
            row[:] = _polynomial(row, coefficients)
        terms = "".join(
            f" {'-' if value < 0 else '+'} {abs(value):.3g} y^{k}" for k, value in enumerate(coefficients, 1)
        )
        terms = terms.replace(" + 1 y^1", " y")
        return f"beam hardening: y becomes{terms}, by which {1 - left:.0%} of the views' inconsistency goes"
    curve, told = read_curve(Path(how), float(y.max()))
    for row in y:
        row[:] = curve(row)
    return f"beam hardening: {told}"


def consistent_polynomial(
    path: Path, y: np.ndarray, angles: np.ndarray, positions: np.ndarray
) -> tuple[list[float], float]:
    """``y + a2 y^2 + a3 y^3`` that makes the views of a parallel beam agree with each other best.

    The n-th moment of line integrals along the detector is a homogeneous polynomial of degree n in the cosine and sine
    of the angle (Helgason and Ludwig; Natterer 1986, theorem II.4.2): the total is the same in all views. Beam
    hardening breaks that, and the coefficients are those with the least squares of what is left over of the 0th to
    2nd moments (Tang et al., "Data consistency condition-based beam-hardening correction", Optical Engineering 50(7),
    2011). The first coefficient is 1, since a scale breaks nothing: thin objects stay as they are.

    Args:
        path: of the measurement, for messages.
        y: ``(rows, views, bins)``; a few rows are looked at.
        angles: in degrees.
        positions: ``(bins,)``, distances from the axis.

    Returns:
        the coefficients of ``y``, ``y^2`` and ``y^3``, and the share of the inconsistency that stays.

    Raises:
        InputError: views over less than 180 degrees, an object beyond the detector, views that are all alike.
    """
    flag = "--data.beam_hardening consistency"
    covered = from_start(angles)
    step = float(np.median(np.diff(np.sort(covered)))) if len(angles) > 1 else 180.0
    if len(angles) < 16 or covered.max() + step < 180 - SAME:
        raise InputError(
            f"{flag}: {path} has {len(angles)} views over {covered.max():.3g} degrees, that takes 16 or more over 180; "
            "give a file of a polynomial or of a spectrum"
        )
    some = y[:: -(-len(y) // 8)].astype(np.float64)
    top = float(some.max())
    if float(np.abs(some[..., [0, -1]]).mean()) > 0.02 * top:
        raise InputError(f"{flag}: {path} has an object that reaches beyond the detector; give a file of a polynomial")
    theta = np.deg2rad(angles)
    s = positions / float(np.abs(positions).max())
    left_over = []  # (terms, what the moments of a scan of one energy cannot be)
    for n in range(MOMENTS):
        basis = np.stack([np.cos(theta) ** (n - k) * np.sin(theta) ** k for k in range(n + 1)], 1)
        project, _ = np.linalg.qr(basis)
        moments = np.stack([((some / top) ** k * s**n).sum(-1) for k in (1, 2, 3)])  # (terms, rows, views)
        left_over.append((moments - (moments @ project) @ project.T).reshape(3, -1))
    terms = np.concatenate(left_over, 1)
    solution, *_ = np.linalg.lstsq(terms[1:].T, -terms[0], rcond=1e-6)
    before, after = np.linalg.norm(terms[0]), np.linalg.norm(terms[0] + solution @ terms[1:])
    left = float(after / before) if before > 0 else 1.0
    coefficients = [1.0, float(solution[0]) / top, float(solution[1]) / top**2]
    slope = 1 + 2 * coefficients[1] * np.linspace(0, top, 64) + 3 * coefficients[2] * np.linspace(0, top, 64) ** 2
    if left > 1 - LEAST_GAIN or slope.min() <= 0:
        raise InputError(
            f"{flag}: the views of {path} do not tell a polynomial (they are alike, or differ by other faults); give a "
            "file of one or of a spectrum"
        )
    return coefficients, left


def read_curve(path: Path, top: float) -> tuple[Any, str]:
    """What makes line integrals of a polychromatic beam those of one energy, from a text file.

    One line of numbers is a polynomial: the coefficients of ``y``, ``y^2`` and so on. Three columns over several lines
    are a spectrum: energy in keV, photons that are detected (any unit), attenuation of the material in 1/mm. A length
    ``L`` of the material then measures ``-ln(sum w exp(-mu L) / sum w)``, which is turned around; the result is ``L``
    times the mean attenuation of the beam as it comes out of the tube, which leaves thin objects as they are.

    Args:
        path: the file; what follows ``#`` is left out.
        top: the largest line integral.

    Returns:
        a function of line integrals, and what it is in words.

    Raises:
        InputError: no such file, other words or another number of columns, values below 0, energies that do not rise,
            a curve that falls or ends below ``top``.
    """
    right = "give one line of a polynomial's coefficients, or lines of energy in keV, photons and attenuation in 1/mm"
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError(f"--data.beam_hardening {path}: no such file of up to 1 MB; {right}, or take consistency")
    try:
        text = path.read_text(encoding="utf-8-sig").replace(",", " ")
        lines = [line.partition("#")[0].split() for line in text.splitlines()]
        rows = [[float(word) for word in line] for line in lines if line]
    except ValueError as error:
        raise InputError(f"--data.beam_hardening {path}: {error}; {right}") from error
    if not rows or not all(math.isfinite(value) for row in rows for value in row):
        raise InputError(f"--data.beam_hardening {path}: has no numbers, or some that are not finite; {right}")
    if len(rows) == 1:
        values = np.linspace(0, max(top, 1e-6), POINTS)
        curve = _polynomial(values, rows[0])
        if not (np.diff(curve) > 0).all():
            raise InputError(f"--data.beam_hardening {path}: the polynomial falls below {top:.3g}; correct it")
        return lambda y: _polynomial(y, rows[0]), f"a polynomial of degree {len(rows[0])}"
    if any(len(row) != 3 for row in rows):
        raise InputError(
            f"--data.beam_hardening {path}: has lines of {sorted({len(row) for row in rows})} numbers; {right}"
        )
    energy, photons, attenuation = np.array(rows).T
    if (np.diff(energy) <= 0).any() or (photons < 0).any() or photons.sum() <= 0 or (attenuation <= 0).any():
        raise InputError(
            f"--data.beam_hardening {path}: energies have to rise, photons be 0 or more, attenuation above 0; {right}"
        )
    weight = photons / photons.sum()
    lowest = float(attenuation[weight > 0].min())
    length = np.linspace(
        0, (max(top, 1e-3) + float(-np.log(weight[attenuation == lowest].sum() or 1e-300))) / lowest, POINTS
    )
    spread = (attenuation - lowest) * length[:, None]  # the weakest first, so that nothing runs out of range
    measured = lowest * length - np.log((weight * np.exp(-spread)).sum(1))
    mean = float((weight * attenuation).sum())

    def curve_of(y: np.ndarray) -> np.ndarray:
        return np.asarray(np.where(y > 0, mean * np.interp(y, measured, length), y), dtype=y.dtype)

    return (
        curve_of,
        f"a spectrum of {len(rows)} energies, {energy[0]:g} to {energy[-1]:g} keV, by mean attenuation {mean:.4g}/mm",
    )


def subtract_scatter(y: np.ndarray, share: float, width: float = 0.0) -> str:
    """Take scattered photons away from intensities, and go back to line integrals, in place.

    Args:
        y: ``(rows, views, bins)`` line integrals.
        share: scatter over the open beam, both as measured, the same in all bins; with ``width`` over the unscattered
            intensity that it comes from, smoothed: ``measured = p + share G p`` (Love and Kruger, "Scatter estimation
            for a digital radiographic system using convolution filtering", Medical Physics 14, 1987).
        width: standard deviation in bins of the Gaussian ``G`` along the detector.

    Returns:
        what was done.
    """
    weak = 0
    for row in y:
        # The open beam has the scatter of air on it as well, so that air stays air.
        measured = np.exp(-row.astype(np.float64)) * (1 + share if width else 1 / (1 - share))
        scatter = np.full_like(measured, share / (1 - share))
        least = FLOOR * measured
        if width:
            primary = measured
            for _ in range(ITERATIONS):
                scatter = share * ndimage.gaussian_filter1d(primary, width, axis=-1, mode="nearest")
                primary = np.maximum(measured - scatter, least)
        weak += int((measured - scatter < least).sum())
        row[:] = -np.log(np.maximum(measured - scatter, least))
    how = f"{share:g} of the intensity, smoothed over {width:g} bins," if width else f"{share:g} of the open beam"
    at_floor = f"; {weak} rays had less than that and keep a thousandth" if weak else ""
    return f"scatter: {how} taken from each ray{at_floor}"


def _polynomial(y: np.ndarray, coefficients: list[float]) -> np.ndarray:
    return np.asarray(np.polynomial.polynomial.polyval(y, [0.0, *coefficients]), dtype=y.dtype)
