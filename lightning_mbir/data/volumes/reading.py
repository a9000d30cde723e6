"""Any file that holds a volume, turned to RAS and to the unit of its modality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.arrays import read_array
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from lightning_mbir.data.volumes.grid import Grid
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.itk_formats import read_itk
from lightning_mbir.data.volumes.listing import is_folder, kind_of, not_a_volume, volume_name
from lightning_mbir.data.volumes.mgh import read_mgh
from lightning_mbir.data.volumes.nifti import read_nifti
from lightning_mbir.data.volumes.values import three_axes
from lightning_mbir.data.volumes.volume import Volume, hu_to_mu
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

SMALLEST, LARGEST = 1e-6, 1e3
"""Lengths of a voxel in mm that can be."""
USUAL = (1e-3, 20.0)
"""Those that are not remarked on."""
ELONGATED = 100.0
"""How many times as long as wide a voxel may be: pixels are made square by as much interpolation."""
FARTHEST = 1e6
"""mm from the origin where voxels may lie."""
PADDING = -1024.0
"""HU below which values are padding, as scanners write it outside their field of view."""
AIRLESS = -200.0
"""HU above which no volume with air around a patient begins."""
DENSEST = 1e5
"""HU above which no matter lies."""
AIRY, BELOW = -900.0, 0.1
"""What MRI has to be below to be taken for HU, and share of its largest value that it has to be below 0."""
SLAB = 8
"""Slices that are looked at and converted at once."""


def read_volume(
    path: str | Path,
    modality: Modality,
    series: str | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> Volume:
    """Read a file, or a folder with one DICOM series.

    The volume is turned to RAS (slices from foot to head first, then posterior to anterior, then left to right),
    so that the first axis is axial; CT is converted from Hounsfield units to attenuation in 1/mm. What was changed,
    left out or assumed stands in ``notes``.

    Args:
        path: the file or folder: NIfTI, NRRD, MetaImage, FreeSurfer's MGH, NumPy or DICOM (docs/volumes.md).
        modality: ``"ct"`` or ``"mri"``, which most files do not tell.
        series: of a DICOM folder, which one: its number or UID.
        spacing: of a NumPy array, its voxel size ``(z, y, x)`` in mm.

    Raises:
        InputError: no such file, not readable, not three-dimensional, a geometry that cannot be, or values that are
            not finite.
    """
    check_kinds(read_volume, locals())
    path = Path(path)
    return as_volume(path, _read(path, modality, series, spacing), modality)


def as_volume(path: Path, image: Image, modality: Modality) -> Volume:
    """An image turned to RAS and to the unit of its modality, as ``read_volume`` does of a file.

    Args:
        path: what it is called, and filed under.
        image: as it lies in its file; it is let go on the way.
        modality: of its values.

    Raises:
        InputError: what is no volume, whatever the reader.
    """
    _check(path, image)
    shape, notes = three_axes(path, image.array.shape), (*image.notes, *_sizes(image))
    grid, stack = image.written or Grid(shape, image.affine, image.space), image.stack
    array, affine = _turned(image)
    del image  # so that no more than what is read and what is turned is held at once
    data = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))
    del array
    if modality == "ct":
        notes = (*notes, *_hounsfield(data))
        for slab in _slabs(data):
            slab.copy_(hu_to_mu(slab))
    else:
        notes = (*notes, *_magnitudes(data))
    return Volume(data, affine, volume_name(path), modality, grid=grid, notes=notes, stack=stack)


def _read(path: Path, modality: Modality, series: str | None, spacing: tuple[float, float, float] | None) -> Image:
    kind = "dicom" if is_folder(path) else kind_of(path)
    if kind is None:
        raise not_a_volume(path)
    if series is not None and kind != "dicom":
        raise InputError(f"--data.series {series}: {path} is no folder with DICOM series; leave it out")
    if spacing is not None and kind != "array":
        raise InputError(f"--data.spacing: {path} tells its own voxel size; leave it out")
    if kind == "dicom":
        return read_dicom(path, series, modality)
    if kind == "array":
        return read_array(path, modality, spacing)
    return {"nifti": read_nifti, "mgh": read_mgh, "itk": read_itk}[kind](path, modality)


def _check(path: Path, image: Image) -> None:
    """Refuse what is no volume, whatever the reader."""
    three_axes(path, image.array.shape)
    axes, sizes = image.affine[:3, :3], np.abs(image.affine)
    if not np.isfinite(image.affine).all():
        raise InputError(f"{path}: its affine has NaN or infinite values; correct its header")
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()) or abs(np.linalg.det(axes / lengths)) < 1e-3:
        raise InputError(f"{path}: its affine has an axis without length, or two that are one; correct its header")
    if lengths.min() < SMALLEST or lengths.max() > LARGEST or sizes[:3, 3].max() > FARTHEST:
        shown = " x ".join(f"{length:.3g}" for length in lengths)
        raise InputError(
            f"{path}: voxels of {shown} mm, up to {sizes[:3, 3].max():.3g} mm from the origin, cannot be; correct its "
            "header"
        )
    if lengths.max() > ELONGATED * lengths.min():
        shown = " x ".join(f"{length:.3g}" for length in lengths)
        raise InputError(
            f"{path}: voxels of {shown} mm are over {ELONGATED:.0f} times as long as wide; correct its header"
        )
    bad = sum(int((~np.isfinite(slab)).sum()) for slab in np.array_split(image.array, image.array.shape[2], axis=2))
    if bad:
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; replace them by finite values first")


def _sizes(image: Image) -> Iterator[str]:
    """What is said of voxels that no scanner has."""
    lengths = np.linalg.norm(image.affine[:3, :3], axis=0)
    if lengths.min() < USUAL[0] or lengths.max() > USUAL[1]:
        shown = " x ".join(f"{length:.3g}" for length in lengths)
        yield f"voxels of {shown} mm are unusual: is the unit of its header right?"


def _hounsfield(data: Tensor) -> Iterator[str]:
    """What is said of values that are to be Hounsfield units, none of which is changed."""
    low, high = float(data.min()), float(data.max())
    asked = "is it CT? (MRI takes --task cs_mri, or of `fit` --data.modality mri)"
    if low >= -2 and high <= 2 and low < high:
        yield f"values from {low:.3g} to {high:.3g} look like attenuation or scaled values, not HU: {asked}"
    elif low >= 0 and high > 1500:
        yield f"nothing is below 0 HU, as air is: are values stored without their intercept of -1024, or {asked}"
    elif low >= 0:
        yield f"nothing is below 0 HU, as air is: {asked}"
    elif low > AIRLESS:
        yield f"nothing is below {low:.4g} HU, as air is: are values cut off at a window?"
    elif (filled := _filled(data)) is not None:
        yield f"the outer voxels of slices are {filled:.4g} HU, which is no air: give -1000 where there is nothing"
    if low < PADDING:
        count = sum(int((slab < PADDING).sum()) for slab in _slabs(data))
        yield f"{count} voxels below {PADDING:.0f} HU, down to {low:.6g}, are taken as air"
    if high > DENSEST:
        count = sum(int((slab > DENSEST).sum()) for slab in _slabs(data))
        yield f"{count} voxels above {DENSEST:.0f} HU, up to {high:.6g}: no matter is as dense"


def _magnitudes(data: Tensor) -> Iterator[str]:
    """What is said of values that are to be magnitudes, none of which is changed."""
    low, high = float(data.min()), float(data.max())
    if low < min(AIRY, -BELOW * high):
        yield (
            f"values from {low:.4g} to {high:.4g}, as HU are: is it MRI? (CT takes --task sv_ct or la_ct, or of `fit` "
            "--data.modality ct)"
        )


def _filled(data: Tensor) -> float | None:
    """The value above that of air that most outer voxels of slices ``(Z, Y, X)`` have, where a mask was applied."""
    outer = torch.cat([side.flatten() for side in (data[:, 0], data[:, -1], data[:, :, 0], data[:, :, -1])])
    value = outer.mode().values
    return float(value) if float(value) > AIRLESS and float((outer == value).float().mean()) > 0.5 else None


def _slabs(data: Tensor) -> Iterator[Tensor]:
    return (data[start : start + SLAB] for start in range(0, len(data), SLAB))


def _turned(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine in the order nearest to RAS: axes swapped and flipped, nothing interpolated."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(image.affine)
    turned = apply_orientation(image.array, orientation)
    return turned, image.affine @ inv_ornt_aff(orientation, image.array.shape)
