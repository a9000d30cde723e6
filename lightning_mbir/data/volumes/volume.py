"""A volume with its place in the world, and the unit of CT."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.data.volumes.dicom.stack import Stack
from lightning_mbir.data.volumes.grid import Grid

ASSUMED = ("left and right are not known", "axes are taken as ")
"""What the notes of a reader say where the file does not tell how it lies."""
UNSIZED = "the size of its voxels is not known"
"""What they say where that is not told either."""


@dataclass(frozen=True)
class Volume:
    """A volume with its place in the world.

    Attributes:
        data: ``(Z, Y, X)`` float32. CT in attenuation (1/mm), MRI in the file's own unit.
        affine: ``(4, 4)`` float64, from array indices in the order ``(x, y, z)`` to RAS millimetres.
        name: what its results are filed under.
        modality: ``"ct"`` or ``"mri"``.
        calibrated: CT: whether attenuation is in 1/mm, so that it has Hounsfield units.
        grid: that of its file, which results are written on; none where it is that of ``data``.
        notes: what was changed, left out or assumed when it was read, a line each.
        stack: the slices of the DICOM series that it was read from, all of them, whatever was cut since.
    """

    data: Tensor
    affine: np.ndarray
    name: str
    modality: Modality
    calibrated: bool = True
    grid: Grid | None = None
    notes: tuple[str, ...] = ()
    stack: Stack | None = None

    @property
    def sided(self) -> bool:
        """Whether left and right are known, rather than assumed when it was read."""
        return not any(words in note for note in self.notes for words in ASSUMED)

    @property
    def sized(self) -> bool:
        """Whether the size of voxels is known, rather than taken as 1 mm."""
        return not any(UNSIZED in note for note in self.notes)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size ``(z, y, x)`` in mm."""
        x, y, z = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    def with_data(self, data: Tensor) -> Volume:
        """The same place in the world, other values."""
        return replace(self, data=data)

    def to(self, device: torch.device) -> Volume:
        """The same on a device, by which Lightning moves a batch."""
        return self.with_data(self.data.to(device))


def hu_to_mu(hu: Tensor) -> Tensor:
    """Hounsfield units to attenuation in 1/mm; what lies below air (padding) becomes air."""
    return (MU_WATER * (1.0 + hu / 1000.0)).clamp_min(0.0)


def mu_to_hu(mu: Tensor) -> Tensor:
    """Attenuation in 1/mm to Hounsfield units."""
    return (mu / MU_WATER - 1.0) * 1000.0
