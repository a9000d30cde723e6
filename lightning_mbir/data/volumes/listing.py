"""Which files and folders are volumes."""

from __future__ import annotations

from pathlib import Path

from lightning_mbir.errors import InputError

NIFTI_SUFFIXES = (".nii", ".nii.gz")


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


def _is_dicom(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
