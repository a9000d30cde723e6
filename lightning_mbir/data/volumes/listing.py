"""Which files and folders are volumes, and what in a folder is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from lightning_mbir.data.volumes.dicom.files import dicom_header, is_dicom
from lightning_mbir.data.volumes.text_headers import DETACHED, voxels_beside
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

Kind = Literal["nifti", "mgh", "itk", "array", "dicom"]
SUFFIXES: dict[str, Kind] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".hdr": "nifti",
    ".mgh.gz": "mgh",
    ".mgz": "mgh",
    ".mgh": "mgh",
    ".nrrd": "itk",
    ".nhdr": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".npy": "array",
    ".npz": "array",
}
"""What reads which file."""
GIVE = f"give a volume ({', '.join(SUFFIXES)}), a DICOM file or a folder with a DICOM series"
MEASURED = (".h5", ".hdf5", ".mat", ".dat", ".cfl", ".xml", ".xtekct", ".tif", ".tiff")
"""What measurements may lie in, and volumes do not."""
JUNK = ("thumbs.db", "desktop.ini", "dicomdir", "__macosx")
"""What systems and scanners leave in folders, like hidden files."""
DEPTH = 4
"""Folders below each other in which DICOM files are sought: patient, study, series, and one more."""
NAMED = 3
"""Files that are named of those which are passed over."""


def kind_of(path: Path) -> Kind | None:
    """What reads ``path``: by its suffix, DICOM by its content; None of what is no volume.

    A folder is DICOM if a file of it, or of a folder below it, is.

    Raises:
        InputError: nothing is there, or it may not be read, or is neither a file nor a folder.
    """
    if is_folder(path):
        return "dicom" if _first_dicom(path) is not None else None
    name = path.name.lower()
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    return "dicom" if is_dicom(path) else None


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder, and not a file.

    Raises:
        InputError: nothing is there, or it may not be read, or is neither.
    """
    try:
        mode = path.stat().st_mode
        readable = os.access(path, os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file or folder; {GIVE}, or a folder of them") from error
    except (OSError, ValueError) as error:  # a name that is too long, a link to itself; a name with a zero
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); {GIVE}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise InputError(f"{path}: neither a file nor a folder; {GIVE}")
    if not readable:
        raise InputError(f"{path}: you may not read it; {GIVE}, with the rights for it")
    return stat.S_ISDIR(mode)


def volume_name(path: Path) -> str:
    """The file's name without its suffix."""
    name = path.name if path.name not in ("", "..") else path.resolve().name  # of "." too; a link has its own
    for suffix in (*SUFFIXES, ".dcm", ".ima", ".dicom"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def list_volumes(path: str | Path) -> list[Path]:
    """The volumes at ``path``: itself, or those in the folder, in the order of their names.

    A folder with DICOM files directly in it is one volume. Otherwise its volumes are the files directly in it, and
    those of its folders that hold DICOM; where several of these hold parts of one series, it is one volume. See
    ``passed_over`` for what is left.

    Raises:
        InputError: where nothing is there, nothing that is a volume, or DICOM files beside other volumes.
    """
    check_kinds(list_volumes, locals())
    path = Path(path)
    if not is_folder(path):
        if path.name.lower().endswith((".img", ".img.gz")):
            raise InputError(f"{path}: the voxels of a pair; give its header, .hdr")
        if kind_of(path) is None:
            raise not_a_volume(path)
        return [path]
    entries, _ = _entries(path)
    slices = [entry for entry in entries if _kind_if_readable(entry) == "dicom" and not entry.is_dir()]
    volumes = [entry for entry in entries if _kind_if_readable(entry) is not None and entry not in slices]
    files = [entry for entry in volumes if not entry.is_dir()]
    if slices and files:
        raise InputError(
            f"{path}: holds DICOM files ({slices[0].name}) and other volumes ({files[0].name}); give one of the "
            "volumes, or put the DICOM files into a folder of their own"
        )
    if slices or _share_a_series([entry for entry in volumes if entry.is_dir()]):
        return [path]
    if not volumes:
        raise InputError(f"{path}: the folder holds no volume; put some into it ({', '.join(SUFFIXES)}, or DICOM)")
    return volumes


def not_a_volume(path: Path) -> InputError:
    """What is told of a file that no reader takes; what measurements lie in has a flag of its own."""
    if path.suffix.lower() in MEASURED:
        return InputError(f"{path}: not a volume, but maybe a measurement; give that with --data.measurement")
    return InputError(f"{path}: not a volume; {GIVE}")


def passed_over(path: str | Path) -> str:
    """What ``list_volumes`` leaves out of a folder, in a line; nothing where that is nothing, or ``path`` is a volume.

    The voxels of a header that names them are no file of their own. Of a folder with a DICOM series the reader tells.
    """
    path = Path(path)
    volumes = list_volumes(path)
    if path in volumes:
        return ""
    entries, hidden = _entries(path)
    parts = set(filter(None, (voxels_beside(volume) for volume in volumes if volume.suffix.lower() in DETACHED)))
    pairs = {volume.name[: -len(".hdr")].lower() for volume in volumes if volume.name.lower().endswith(".hdr")}
    rest = []
    for entry in entries:
        stem, _, suffix = entry.name.lower().partition(".img")
        paired = suffix in ("", ".gz") and stem != entry.name.lower() and stem in pairs
        if entry not in volumes and entry not in parts and not paired:
            rest.append(entry.name + "/" * entry.is_dir())
    named = ", ".join(rest[:NAMED]) + (f" and {len(rest) - NAMED} more" if len(rest) > NAMED else "")
    said = [named] if named else []
    if hidden:
        said.append(f"{hidden} hidden file{'s' * (hidden > 1)}")
    return f"{path}: passed over: {' and '.join(said)}" if said else ""


def _entries(folder: Path) -> tuple[list[Path], int]:
    """What lies in a folder, by name, and how many hidden files there are beside."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); give a folder that you may read") from error
    shown = [entry for entry in found if not entry.name.startswith(".") and entry.name.lower() not in JUNK]
    return shown, len(found) - len(shown)


def _kind_if_readable(entry: Path) -> Kind | None:
    """What reads something in a folder; pipes, devices and links to nothing are no volumes."""
    if not (entry.is_file() or entry.is_dir()):
        return None
    return kind_of(entry)


def _first_dicom(folder: Path, depth: int = DEPTH) -> Path | None:
    """A DICOM file of a folder, or of a folder below it."""
    entries, _ = _entries(folder)
    files = (entry for entry in entries if entry.is_file() and is_dicom(entry))
    below = (_first_dicom(entry, depth - 1) for entry in entries if depth and entry.is_dir())
    return next(files, None) or next(filter(None, below), None)


def _share_a_series(folders: list[Path]) -> bool:
    """Whether two folders have files of one series, which exports spread over folders."""
    found = []
    for folder in folders:
        file = _first_dicom(folder)
        if file is not None:
            header = dicom_header(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            found.append(str(header.get("SeriesInstanceUID", "") or folder))
    return len(set(found)) < len(found)
