"""Receiver noise that coils share: its covariance from a noise scan, and k-space in which it is white."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lightning_mbir.data.measurements.readouts import Readouts
from lightning_mbir.errors import InputError

CONSTANT = 0.1
"""Share of the power of a noise scan that a constant may have, such as the offset of a receiver."""
ENOUGH = 4
"""Samples of noise for each coil, at least, from which a covariance is estimated."""


def noise_covariance(noise: np.ndarray) -> np.ndarray:
    """``E[n n^H]`` of noise ``(coils, samples)``, ``(coils, coils)`` complex128; its mean is 0 by what it is."""
    values = noise.astype(np.complex128)
    covariance: np.ndarray = values @ values.conj().T / values.shape[1]
    return covariance


def whitening_matrix(covariance: np.ndarray) -> np.ndarray:
    """``W`` with ``W C W^H = 1``: the inverse of the Cholesky factor of the covariance ``C`` ``(coils, coils)``.

    Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", MRM 46, 2001 (equation
    A3 and what follows).

    Raises:
        numpy.linalg.LinAlgError: a covariance that is not positive definite.
    """
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)))


def scan_covariance(noise: Readouts, image: Readouts, used: np.ndarray) -> np.ndarray:
    """Covariance of the noise of each sample of an image, by a noise scan with the same coils.

    The power of noise goes with the bandwidth, the inverse of the duration of a sample, and with what share of the
    bandwidth the receiver's filter lets pass.

    Args:
        noise: with a noise scan; maybe the same as ``image``.
        image: what is to be whitened.
        used: which of its readouts, ``(n,)`` bool.

    Returns:
        ``(coils, coils)`` complex128.

    Raises:
        InputError: a noise scan of other coils, or of too few samples; a coil without any noise.
    """
    where, coils = np.flatnonzero(noise.noise), int(image.coils[used][0])
    found = sorted(set(noise.coils[where].tolist()))
    if not len(where):
        raise InputError(f"{noise.path}: has no noise scan; give another --data.noise_scan, or leave it out")
    if found != [coils]:
        raise InputError(
            f"{noise.path}: the noise scan is of {', '.join(map(str, found))} coils, the image of {coils}; "
            "give one of the same coils, or --data.whiten false"
        )
    if noise.coil_names and image.coil_names and noise.coil_names != image.coil_names:
        other = next((a, b) for a, b in zip(noise.coil_names, image.coil_names, strict=False) if a != b)
        raise InputError(
            f"{noise.path}: the noise scan is of coil {other[0]} where the image is of {other[1]}; "
            "give one of the same coils, or --data.whiten false"
        )
    values = np.concatenate([noise.load(int(k)) for k in where], axis=1)
    return scaled_covariance(noise.path, values, _ratio(noise, image, where, used))


def scaled_covariance(path: Path, values: np.ndarray, ratio: float) -> np.ndarray:
    """Covariance of noise ``(coils, samples)`` times ``ratio``; see ``scan_covariance``."""
    if values.shape[1] < ENOUGH * len(values) or not np.isfinite(values).all():
        raise InputError(
            f"{path}: the noise scan has {values.shape[1]} samples for {len(values)} coils, or some that are not "
            f"finite; give {ENOUGH} for each or more, or --data.whiten false"
        )
    share = np.abs(values.mean(1)) ** 2 / np.maximum((np.abs(values) ** 2).mean(1), np.finfo(np.float32).tiny)
    if share.max() > max(CONSTANT, 20 / values.shape[1]):  # the second is rarer than 1e-8 of noise
        raise InputError(
            f"{path}: {share.max():.0%} of the noise scan's power in coil {int(share.argmax())} is constant, which is "
            "no noise; give another --data.noise_scan, or --data.whiten false"
        )
    covariance = noise_covariance(values) * ratio
    if not np.linalg.eigvalsh(covariance)[0] > 1e-12 * np.trace(covariance).real:
        raise InputError(f"{path}: coils without noise of their own in the noise scan; give --data.whiten false")
    return covariance


def _ratio(noise: Readouts, image: Readouts, where: np.ndarray, used: np.ndarray) -> float:
    dwells = float(np.median(noise.dwell[where])), float(np.median(image.dwell[used]))
    ratio = (dwells[0] / dwells[1] if min(dwells) > 0 else 1.0) / noise.noise_bandwidth
    if not (0 < ratio < math.inf and np.isfinite(dwells).all()):
        raise InputError(
            f"{noise.path}: its samples of noise take {dwells[0]:g} us, at a bandwidth of {noise.noise_bandwidth:g}; "
            "correct its header, or give --data.whiten false"
        )
    return ratio
