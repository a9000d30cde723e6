"""Volumes written as NIfTI, on the grid of the file that they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_mbir.data.volumes.grid import sheared
from lightning_mbir.data.volumes.resample import on_own_grid
from lightning_mbir.data.volumes.volume import Volume, mu_to_hu
from lightning_mbir.errors import InputError
from lightning_mbir.files import whole_file
from lightning_mbir.kinds import check_kinds

PLACED = (
    *(f"quatern_{axis}" for axis in "bcd"), *(f"qoffset_{axis}" for axis in "xyz"), *(f"srow_{axis}" for axis in "xyz")
)  # fmt: skip
"""What of a header places its voxels."""


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write ``volume`` as NIfTI, whole or not at all; CT goes back to Hounsfield units where it has any.

    It is written on its ``grid``, in the array order of the file that it was read from. An affine with a shear goes
    into the sform alone, since a quaternion holds none. What its millimetres are counted from is what it was; a file
    without a place gets none, since programs differ in where they put such a file. What was measured without telling
    its sides has the place that is assumed in ``srow``, which the codes 0 say is none. The unit is mm where the size of
    voxels is known.

    Args:
        path: the file, ``.nii`` or ``.nii.gz``; what is there is replaced.
        volume: with its affine.

    Raises:
        InputError: another name, or what is no volume of real data.
    """
    check_kinds(write_volume, {"path": path})
    import nibabel as nib

    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: volumes are written as NIfTI; give a name that ends with .nii or .nii.gz")
    given: Any = volume.data if isinstance(volume, Volume) else None
    if not isinstance(given, torch.Tensor) or given.ndim != 3 or given.is_complex():
        raise InputError(f"{path}: give a Volume, whose data are a real tensor (Z, Y, X), as .abs() makes of complex")
    data, affine = on_own_grid(volume)
    data = mu_to_hu(data) if volume.modality == "ct" and volume.calibrated else data
    image = nib.Nifti1Image(data.to("cpu", torch.float32).numpy(), affine)
    image.header.set_xyzt_units("mm" if volume.sized else "unknown")
    space = int(volume.sided) if volume.grid is None else volume.grid.space
    image.set_sform(affine, code=space)
    image.set_qform(None if sheared(affine) else affine, code=0 if sheared(affine) else space)
    if not space and volume.grid is not None:
        for name in PLACED:
            image.header[name] = 0
        image.header["pixdim"][0] = 1
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    with whole_file(path, suffix) as temporary:
        nib.save(image, temporary)
