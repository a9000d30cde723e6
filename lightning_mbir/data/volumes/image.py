"""What a reader makes of a file, before any modality or orientation is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_mbir.data.volumes.dicom.stack import Stack
from lightning_mbir.data.volumes.grid import Grid


@dataclass(frozen=True)
class Image:
    """A 3D image as it lies in its file.

    Attributes:
        array: ``(i, j, k)`` float32, in the order of the file, rescaled as the file says.
        affine: ``(4, 4)`` float64, from array indices to RAS millimetres.
        notes: what was changed, left out or assumed, a line each.
        written: the grid that results are written on, where it is not that of the file.
        stack: the slices of a DICOM series, which the array is of.
        space: what the millimetres are counted from, see ``Grid``.
    """

    array: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...] = ()
    written: Grid | None = None
    stack: Stack | None = None
    space: int = 1
