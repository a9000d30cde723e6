"""DICOM series."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lightning_mbir.data.volumes.image import Image
from lightning_mbir.errors import InputError


def read_dicom(path: Path, series: str | None = None) -> Image:
    """Read a DICOM series.

    Args:
        path: its folder.
        series: which one, where there are several.

    Raises:
        InputError: not readable.
    """
    from monai.transforms import LoadImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = LoadImage(reader="PydicomReader", image_only=True, dtype=np.float32)(path)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as a volume ({reason}); the file may be cut short") from error
    return Image(image.numpy(), image.affine.numpy().astype(np.float64))
