"""NIfTI files and what else nibabel reads, and NIfTI files written."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lightning_mbir.data.volumes.image import Image
from lightning_mbir.errors import InputError


def read_nifti(path: Path) -> Image:
    """Read a NIfTI file.

    Raises:
        InputError: not readable.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nib.load(path)
            return Image(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64))
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, ImageFileError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as a volume ({reason}); the file may be cut short") from error
