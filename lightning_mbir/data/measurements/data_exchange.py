"""Measured projections in the Data Exchange layout, from counts to line integrals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.rotation_center import find_rotation_center
from lightning_mbir.errors import InputError

DATA, WHITE, DARK, THETA = "exchange/data", "exchange/data_white", "exchange/data_dark", "exchange/theta"


def is_data_exchange(content: Mapping[str, np.ndarray]) -> bool:
    """Whether a file's datasets are of the Data Exchange layout."""
    return DATA in content


def read_data_exchange(
    path: Path,
    content: Mapping[str, np.ndarray],
    image_size: int,
    detector_spacing: float | None = None,
    rotation_center: float | None = None,
) -> tuple[Tensor, dict[str, Any], tuple[str, ...]]:
    """Sinograms from the projections of a parallel beam (De Carlo et al., J. Synchrotron Rad. 21, 2014).

    Projections ``(views, rows, bins)`` are corrected by the means of the flat and dark fields, and turned to line
    integrals by the law of Beer and Lambert. As many bins as fit into a pixel are averaged.

    Args:
        path: the file, for messages.
        content: its datasets.
        image_size: pixels of a slice, which covers the width of the detector; 0 for as many as bins.
        detector_spacing: distance of bins in mm; without it, 1.
        rotation_center: bin of the rotation axis, counted from 0; searched for where not given.

    Returns:
        ``(rows, views, bins)`` line integrals, the arguments of ``ParallelBeam`` with ``slice_thickness``, and notes
        of what was done.

    Raises:
        InputError: datasets that are missing or do not fit each other, flats no brighter than darks, a rotation centre
            outside the detector.
    """
    missing = [key for key in (WHITE, THETA) if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; projections need flat fields and angles")
    counts = content[DATA].astype(np.float32)
    angles = np.asarray(content[THETA], dtype=float).ravel()
    if counts.ndim != 3 or len(angles) != len(counts):
        raise InputError(f"{path}: {DATA} is {counts.shape} with {len(angles)} angles; give (views, rows, bins)")
    white = _field(path, content, WHITE, counts.shape[1:])
    dark = _field(path, content, DARK, counts.shape[1:]) if DARK in content else np.zeros_like(white)
    if not (np.isfinite(counts).all() and np.isfinite(angles).all()):
        raise InputError(f"{path}: counts or angles are NaN or infinite; correct them first")
    if not (white > dark).all():
        raise InputError(f"{path}: {int((white <= dark).sum())} bins are no brighter in {WHITE} than in {DARK}")
    transmission = (counts - dark) / (white - dark)
    least = float(transmission[transmission > 0].min(initial=1.0))
    blocked = float((transmission <= 0).mean())
    line_integrals = -np.log(np.maximum(transmission, least))
    y = torch.from_numpy(np.ascontiguousarray(line_integrals.transpose(1, 0, 2)))

    notes = ["flat and dark field corrected" if DARK in content else "flat field corrected"]
    if blocked:
        notes.append(f"{100 * blocked:.3g} % of the rays had no counts and were set to the weakest measured one")
    bins = y.shape[-1]
    center = find_rotation_center(y, angles) if rotation_center is None else rotation_center
    if not 0 <= center <= bins - 1:
        raise InputError(f"--data.rotation_center {center:g}: give a bin from 0 to {bins - 1}")
    notes.append(f"rotation centre at bin {center:.2f}" + (", found" if rotation_center is None else ""))
    spacing = 1.0 if detector_spacing is None else detector_spacing
    image_size = image_size or bins
    pixel_size = bins * spacing / image_size
    together = max(1, bins // image_size)
    kept = bins // together
    y = y[..., : kept * together].reshape(*y.shape[:-1], kept, together).mean(-1)
    if together > 1:
        notes.append(f"{together} bins averaged to one")
    geometry = {
        "beam": "parallel",
        "image_size": image_size,
        "angles": angles.tolist(),
        "n_detectors": kept,
        "pixel_size": pixel_size,
        "detector_spacing": together * spacing,
        "center_offset": spacing * (center - (together * kept - 1) / 2),
        "slice_thickness": spacing,
    }
    return y, geometry, tuple(notes)


def _field(path: Path, content: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The mean of the flat or dark fields, ``(rows, bins)``."""
    fields = content[key].astype(np.float64)
    mean = fields.mean(0) if fields.ndim == 3 else fields
    if mean.shape != shape:
        raise InputError(f"{path}: {key} is {fields.shape}, a projection {shape}; give the same rows and bins")
    if not np.isfinite(mean).all():
        raise InputError(f"{path}: {key} has NaN or infinite values; correct them first")
    out: np.ndarray = mean.astype(np.float32)
    return out
