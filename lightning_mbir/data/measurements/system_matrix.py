"""A sinogram ``m`` beside its sparse system matrix ``A``, as older sets of the Finnish Inverse Problems Society are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.selection import chosen_slices
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

SINOGRAM, MATRIX = "m", "A"


class SystemMatrix(NamedTuple):
    """What was read.

    Attributes:
        y: ``(1, views, bins)`` line integrals, float32.
        geometry: ``beam`` (``matrix``) and the arguments of its operator.
        notes: what was done.
    """

    y: np.ndarray
    geometry: dict[str, Any]
    notes: tuple[str, ...]


def has_system_matrix(content: Content) -> bool:
    """Whether a file holds both."""
    return content.sparse_shape(MATRIX) is not None and SINOGRAM in content


def read_system_matrix(content: Content, slices: tuple[int, int] | None = None) -> SystemMatrix:
    """The sinogram, a view a column, and the matrix that makes ``m(:)`` of ``x(:)``.

    MATLAB counts columns first: row ``i + bins * k`` of ``A`` is bin ``i`` of view ``k``, and column ``r + N * c`` the
    pixel in row ``r`` and column ``c`` of the image ``reshape(x, N, N)`` as it is shown. Both are turned to rows first
    here. ``normA`` is not needed.

    Args:
        content: of the file.
        slices: there is one, 0:1.

    Raises:
        InputError: a sinogram or a matrix of other dimensions, sizes that do not go together, an image that is not
            square, values that are not finite, a view that sees nothing, too little memory.
    """
    path, item, shape = content.path, content[SINOGRAM], content.sparse_shape(MATRIX)
    assert shape is not None
    if item.ndim != 2 or min(item.shape) < 2 or item.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {SINOGRAM} is {item.shape} of {item.dtype}; give real line integrals (bins, views), so that the "
            "views are known"
        )
    bins, views = item.shape
    if shape[0] != bins * views:
        raise InputError(
            f"{path}: the matrix {MATRIX} is of {shape[0]} rays, the sinogram {SINOGRAM} of {bins} x {views} = "
            f"{bins * views}; they must agree"
        )
    size = math.isqrt(shape[1])
    if size**2 != shape[1]:
        raise InputError(f"{path}: the matrix {MATRIX} has {shape[1]} pixels, which are no square image")
    chosen_slices(path, slices, 1)
    check_fits(f"{path}: the sinogram", 8 * bins * views, "give a smaller file")
    y = np.ascontiguousarray(item.read().T, dtype=np.float32)[None]
    if not np.isfinite(y).all():
        raise InputError(f"{path}: {SINOGRAM} has NaN or infinite values; correct them first")
    columns = content.sparse(MATRIX)
    if columns.dtype.kind not in "biuf":
        raise InputError(f"{path}: {MATRIX} is of type {columns.dtype}; give real numbers")
    columns = columns.astype(np.float32)
    if not np.isfinite(columns.data).all():
        raise InputError(f"{path}: {MATRIX} has NaN or infinite values")
    # By rows of pixels, as our images are.
    matrix = columns[:, np.arange(size**2).reshape(size, size).T.ravel()].tocsr()
    angles = view_directions(matrix, size, views)
    if not np.isfinite(angles).all():
        first = int(np.flatnonzero(~np.isfinite(angles))[0])
        raise InputError(f"{path}: view {first} of {views} sees nothing by the matrix {MATRIX}; leave it out of both")
    geometry = {"beam": "matrix", "matrix": matrix, "image_size": size, "n_detectors": bins, "angles": angles.tolist()}
    notes = (
        f"{MATRIX} of {matrix.nnz} entries is the operator, of {size} x {size} pixels; lengths are those of its "
        "entries, whose unit the file does not tell",
        f"directions of the {views} views found from it, from {angles.min():.0f} to {angles.max():.0f} degrees",
    )
    return SystemMatrix(y, geometry, notes)


def view_directions(matrix: scipy.sparse.csr_matrix, size: int, views: int) -> np.ndarray:
    """``(views,)`` angles in degrees, as those of ``ParallelBeam``: of the ray that passes nearest to the middle, along
    the main axis of the pixels that it meets; unwrapped from view to view. NaN where no ray meets any.

    Modulo 180, since a line tells no direction; steps of 90 degrees and more may be taken for shorter ones.

    Args:
        matrix: ``(views * bins, size**2)``, pixels row by row.
        size: pixels along a side.
        views: how many.
    """
    along = np.arange(size) - (size - 1) / 2
    y, x = (part.ravel() for part in np.meshgrid(along, along, indexing="ij"))
    weights = abs(matrix)
    with np.errstate(invalid="ignore", divide="ignore"):
        mass, *means = (weights @ values for values in (np.ones_like(x), x, y, x * x, y * y, x * y))
        mx, my, xx, yy, xy = (mean / mass for mean in means)
    off = np.where(mass > 0, np.hypot(mx, my), np.inf).reshape(views, -1)
    nearest = off.argmin(1) + np.arange(views) * off.shape[1]
    xx, yy, xy = xx - mx**2, yy - my**2, xy - mx * my
    ray = np.degrees(np.arctan2(2 * xy, xx - yy)[nearest]) / 2
    # The ray of ParallelBeam's view at theta runs along theta + 90.
    return np.asarray(np.unwrap(np.mod(ray - 90, 180), period=180))
