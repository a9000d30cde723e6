"""The X-ray transform of a slice by Joseph's interpolation, for any set of straight rays.

Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE TMI 1(3), 1982: a ray steps along
the axis that it follows more closely and interpolates linearly across the other one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.sparse

from lightning_mbir.physics.ct.geometry import Array, Rays

FORMAT = 1
"""Raise it when ``joseph_matrix`` gives other values, so that matrices in the cache are built anew."""


def joseph_samples(image_size: int, pixel_size: float, rays: Rays) -> tuple[Array, Array]:
    """The two pixels that each ray meets at each step, and the length in mm that it has in them.

    Returns:
        Pixels ``(2, rays, steps)``, int32 indices of the flat image, and weights of the same shape, float64; outside
        of the image the index is 0 and the weight 0.
    """
    n = image_size
    cos, sin, s = (part[:, None] for part in rays)
    steps = np.arange(n) - (n - 1) / 2
    along_rows = np.abs(cos) >= np.abs(sin)  # the ray runs along y: one sample a row, interpolated across columns
    major, minor = np.where(along_rows, cos, sin), np.where(along_rows, sin, cos)
    position = (s / pixel_size - minor * steps) / major + (n - 1) / 2
    length = pixel_size / np.abs(major)
    lower = np.floor(position)
    fraction = position - lower
    index = np.stack((lower, lower + 1))
    weight = np.stack(((1 - fraction) * length, fraction * length))
    inside = (index >= 0) & (index < n)
    index = np.where(inside, index, 0).astype(np.int32)
    step = np.arange(n, dtype=np.int32)
    pixel = np.where(along_rows, step * n + index, index * n + step)
    return np.where(inside, pixel, 0), np.where(inside, weight, 0)


def joseph_matrix(image_size: int, pixel_size: float, views: Iterable[Rays]) -> scipy.sparse.csr_matrix:
    """System matrix ``(rays, image_size^2)``, the rays of all views one after the other.

    Args:
        image_size: pixels along each side.
        pixel_size: side of a pixel in mm.
        views: the rays of each view.

    Returns:
        CSR with float32 values in mm and int32 indices; the same bits for each call.
    """
    return scipy.sparse.vstack(
        [view_matrix(image_size, pixel_size, rays) for rays in views], format="csr", dtype=np.float32
    )


def view_matrix(image_size: int, pixel_size: float, rays: Rays) -> scipy.sparse.csr_matrix:
    """The part of ``joseph_matrix`` that belongs to one view."""
    pixel, weight = joseph_samples(image_size, pixel_size, rays)
    row = np.broadcast_to(np.arange(pixel.shape[1], dtype=np.int32)[:, None], pixel.shape)
    kept = weight > 0
    return scipy.sparse.csr_matrix(
        (weight[kept].astype(np.float32), (row[kept], pixel[kept])), shape=(pixel.shape[1], image_size**2)
    )
