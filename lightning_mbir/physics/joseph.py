"""The X-ray transform as a sparse matrix: Joseph's interpolation, built without a loop over rays.

Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE TMI 1(3), 1982: a ray steps along
the axis that it follows more closely and interpolates linearly across the other one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse


def joseph_matrix(
    image_size: int,
    angles: Sequence[float],
    n_detectors: int,
    pixel_size: float,
    detector_spacing: float,
    center_offset: float = 0.0,
) -> scipy.sparse.csr_matrix:
    """System matrix ``(n_angles * n_detectors, image_size^2)`` of a parallel beam.

    Args:
        image_size: pixels along each side.
        angles: projection angles in degrees.
        n_detectors: detector bins a view.
        pixel_size: side of a pixel in mm.
        detector_spacing: distance of bins in mm.
        center_offset: detector coordinate of the rotation centre in mm.

    Returns:
        CSR with float32 values in mm and int32 indices; the same bits for each call.
    """
    views = [
        _view(image_size, np.deg2rad(angle), n_detectors, pixel_size, detector_spacing, center_offset)
        for angle in angles
    ]
    return scipy.sparse.vstack(views, format="csr", dtype=np.float32)


def _view(
    n: int, theta: float, n_detectors: int, pixel_size: float, detector_spacing: float, center_offset: float
) -> scipy.sparse.csr_matrix:
    cos, sin = np.cos(theta), np.sin(theta)
    # Bins in units of pixels; the ray of bin s is { (x, y): x cos + y sin = s }.
    s = ((np.arange(n_detectors) - (n_detectors - 1) / 2) * detector_spacing - center_offset) / pixel_size
    steps = np.arange(n) - (n - 1) / 2
    along_rows = abs(cos) >= abs(sin)  # the ray runs along y: one sample a row, interpolated across columns
    major, minor = (cos, sin) if along_rows else (sin, cos)
    position = (s[:, None] - minor * steps[None, :]) / major + (n - 1) / 2  # (bins, steps), fractional index
    length = pixel_size / abs(major)
    lower = np.floor(position)
    fraction = position - lower
    lower = lower.astype(np.int32)
    step = np.broadcast_to(np.arange(n, dtype=np.int32), position.shape)
    row = np.broadcast_to(np.arange(n_detectors, dtype=np.int32)[:, None], position.shape)
    parts = []
    for index, weight in ((lower, 1 - fraction), (lower + 1, fraction)):
        inside = (index >= 0) & (index < n) & (weight > 0)
        column = step[inside] * n + index[inside] if along_rows else index[inside] * n + step[inside]
        parts.append((weight[inside] * length, row[inside], column))
    values, rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scipy.sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=(n_detectors, n * n))
