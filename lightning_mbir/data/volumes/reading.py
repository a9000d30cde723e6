"""Any file that holds a volume, turned to RAS and to the unit of its modality."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.dicom import read_dicom
from lightning_mbir.data.volumes.grid import Grid
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.listing import is_volume, volume_name
from lightning_mbir.data.volumes.nifti import read_nifti
from lightning_mbir.data.volumes.volume import Volume, hu_to_mu
from lightning_mbir.errors import InputError

log = logging.getLogger(__name__)


def read_volume(path: str | Path, modality: Modality, series: str | None = None) -> Volume:
    """Read a file or a folder with one DICOM series.

    The volume is turned to RAS (slices from foot to head first, then posterior to anterior, then left to right),
    so that the first axis is axial; CT is converted from Hounsfield units to attenuation in 1/mm.

    Args:
        path: the file or folder.
        modality: ``"ct"`` or ``"mri"``, which the files do not tell.
        series: of a DICOM folder, which one: its number or UID.

    Raises:
        InputError: no such file, not readable, not three-dimensional, a geometry that cannot be, or values that are
            not finite.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a NIfTI file or a folder with a DICOM series")
    if not is_volume(path):
        raise InputError(f"{path}: not a volume; give a .nii or .nii.gz file, or a folder with a DICOM series")
    image = _read(path, series)
    _check(path, image)
    array, affine = _turned(image)
    data = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))
    notes = image.notes
    if modality == "ct":
        if float(data.min()) >= 0:
            log.warning(
                "%s: nothing is below 0 HU, as air is: is it CT? (`fit` takes MRI with --data.modality mri)", path
            )
        data = hu_to_mu(data)
    grid = image.written or Grid(_three(image.array.shape), image.affine)
    return Volume(data, affine, volume_name(path), modality, grid=grid, notes=notes)


def _read(path: Path, series: str | None) -> Image:
    if path.is_dir():
        return read_dicom(path, series)
    if series is not None:
        raise InputError(f"--data.series {series}: {path} is no folder with DICOM series; leave it out")
    return read_nifti(path)


def _check(path: Path, image: Image) -> None:
    """Refuse what is no volume, whatever the reader."""
    shape = " x ".join(str(n) for n in image.array.shape)
    if image.array.ndim != 3:
        raise InputError(f"{path}: not one 3D volume but an array of {shape}; give a file with three axes")
    if min(image.array.shape) < 2:
        raise InputError(f"{path}: not a 3D volume but a single slice of {shape}; give a file with three axes")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise InputError(f"{path}: its affine has NaN, or an axis without length; correct the header first")
    if not np.isfinite(image.array).all():
        bad = int((~np.isfinite(image.array)).sum())
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; replace them by finite values first")


def _turned(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine in the order nearest to RAS: axes swapped and flipped, nothing interpolated."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(image.affine)
    turned = apply_orientation(image.array, orientation)
    return turned, image.affine @ inv_ornt_aff(orientation, image.array.shape)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    i, j, k = shape
    return i, j, k
