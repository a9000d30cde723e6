"""Where the voxels of a file lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHEAR = 1e-3
"""Cosine of the angle between two axes from which on they are not taken for perpendicular."""


@dataclass(frozen=True)
class Grid:
    """The voxels of a file, in the order of its array.

    Attributes:
        shape: of the array, ``(i, j, k)``.
        affine: ``(4, 4)`` float64, from array indices to RAS millimetres.
        space: NIfTI's code of where these are counted from: 1 the scanner, 2 another image, 3 Talairach, 4 MNI, 5
            another template; 0 where the file has no place, so that ``affine`` is assumed.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    space: int = 1

    @property
    def sheared(self) -> bool:
        """Whether its axes are not perpendicular, as of a tilted gantry; such an affine has no quaternion."""
        return sheared(self.affine)


def sheared(affine: np.ndarray) -> bool:
    """Whether the axes of an affine are not perpendicular."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR)
