"""Volumes and the files they live in: NIfTI files and DICOM series in, NIfTI out, geometry and unit kept."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.errors import InputError
from lightning_mbir.files import whole_file

log = logging.getLogger(__name__)

# LoadImage makes one of each of MONAI's readers, and that for GPUs says what is not installed, whatever the file is.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").addFilter(
    lambda record: "nvImageCodec is not available" not in record.msg
)

NIFTI_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Volume:
    """A volume with its place in the world.

    Attributes:
        data: ``(Z, Y, X)`` float32. CT in attenuation (1/mm), MRI in the file's own unit.
        affine: ``(4, 4)`` float64, from array indices in the order ``(x, y, z)`` to RAS millimetres.
        name: what its results are filed under.
        modality: ``"ct"`` or ``"mri"``.
        calibrated: CT: whether attenuation is in 1/mm, so that it has Hounsfield units.
    """

    data: Tensor
    affine: np.ndarray
    name: str
    modality: Modality
    calibrated: bool = True

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size ``(z, y, x)`` in mm."""
        x, y, z = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    def with_data(self, data: Tensor) -> Volume:
        """The same place in the world, other values."""
        return replace(self, data=data)


def hu_to_mu(hu: Tensor) -> Tensor:
    """Hounsfield units to attenuation in 1/mm; what lies below air (padding) becomes air."""
    return (MU_WATER * (1.0 + hu / 1000.0)).clamp_min(0.0)


def mu_to_hu(mu: Tensor) -> Tensor:
    """Attenuation in 1/mm to Hounsfield units."""
    return (mu / MU_WATER - 1.0) * 1000.0


def is_volume(path: Path) -> bool:
    """Whether ``path`` is a NIfTI file or a folder that holds a DICOM series."""
    if path.is_dir():
        return any(_is_dicom(file) for file in sorted(path.iterdir())[:3])
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def volume_name(path: Path) -> str:
    """The file's name without its suffix."""
    name = path.resolve().name  # of a folder that is called "." too
    for suffix in (".nii.gz", ".nii"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def list_volumes(path: str | Path) -> list[Path]:
    """The volumes at ``path``: itself, or those directly inside the folder, in the order of their names.

    Raises:
        InputError: where nothing is there, or nothing that is a volume.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a NIfTI file, a DICOM series or a folder of them")
    if is_volume(path):
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: not a volume; give a .nii or .nii.gz file, or a folder with a DICOM series")
    found = [child for child in sorted(path.iterdir()) if is_volume(child)]
    if not found:
        raise InputError(f"{path}: the folder holds no volume; put .nii, .nii.gz or DICOM series into it")
    return found


def read_volume(path: str | Path, modality: Modality) -> Volume:
    """Read a NIfTI file or a folder with one DICOM series.

    The volume is turned to RAS (slices from foot to head first, then posterior to anterior, then left to right),
    so that the first axis is axial; CT is converted from Hounsfield units to attenuation in 1/mm.

    Args:
        path: the file or folder.
        modality: ``"ct"`` or ``"mri"``, which the files do not tell.

    Raises:
        InputError: no such file, not readable, not three-dimensional, or values that are not finite.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a NIfTI file or a folder with a DICOM series")
    if not is_volume(path):
        raise InputError(f"{path}: not a volume; give a .nii or .nii.gz file, or a folder with a DICOM series")
    from monai.data import MetaTensor
    from monai.transforms import LoadImage, Orientation
    from nibabel.filebasedimages import ImageFileError

    reader = "PydicomReader" if path.is_dir() else "NibabelReader"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # readers warn of header fields that nothing here uses
            image = LoadImage(reader=reader, image_only=True, ensure_channel_first=True, dtype=np.float32)(path)
            if image.ndim != 4 or image.shape[0] != 1:
                shape = " x ".join(str(n) for n in image.shape if n != 1)
                raise InputError(f"{path}: not one 3D volume but an array of {shape}; give a file with three axes")
            if min(image.shape[1:]) < 2:
                shape = " x ".join(str(n) for n in image.shape[1:])
                raise InputError(f"{path}: not a 3D volume but a single slice of {shape}; give a file with three axes")
            image = Orientation(axcodes="RAS", labels=None)(image)
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, ImageFileError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as a volume ({reason}); the file may be cut short") from error
    assert isinstance(image, MetaTensor)
    data = image.as_tensor()[0].permute(2, 1, 0).contiguous()
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; replace them by finite values first")
    if modality == "ct":
        if float(data.min()) >= 0:
            log.warning(
                "%s: nothing is below 0 HU, as air is: is it CT? (`fit` takes MRI with --data.modality mri)", path
            )
        data = hu_to_mu(data)
    affine = np.asarray(image.affine, dtype=np.float64)
    return Volume(data=data, affine=affine, name=volume_name(path), modality=modality)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write ``volume`` as NIfTI, whole or not at all; CT goes back to Hounsfield units where it has any.

    Args:
        path: the file, ``.nii`` or ``.nii.gz``; what is there is replaced.
        volume: with its affine.
    """
    import nibabel as nib

    path = Path(path)
    data = mu_to_hu(volume.data) if volume.modality == "ct" and volume.calibrated else volume.data
    array = data.detach().to("cpu", torch.float32).permute(2, 1, 0).numpy()
    image = nib.Nifti1Image(array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    with whole_file(path, suffix) as temporary:
        nib.save(image, temporary)


def _is_dicom(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
